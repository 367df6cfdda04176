#!/usr/bin/env python3
"""An S3 server that is stricter than Amazon's, and that can be told to fail.

    s3-strict.py start|stop|status|env STATE_DIR [OPTIONS]
    s3-strict.py tell STATE_DIR WORD...

It checks signatures (header and query), dates, the payload's hash, Content-MD5 and x-amz-checksum-*;
keeps versions, conditions of a PUT and Object Lock; and refuses what it does not know, chunked
bodies, and bodies without a length. Objects lie below the state directory and outlive a restart.

What it can be told:

    log, reset                   the requests since the last reset, one line each, with tabs between
                                 operation, method, bucket, key, query, status, error code, body
                                 bytes in and out, number of the connection, rule, headers
    peak                         most requests at once since the last reset; connections so far
    rules [RULE...], fired       faults (see faults.py) and how often each happened. Actions:
                                 status=503[:CODE] retry-after=S  lost=1 (after the effect)  delay=S
                                 flip=N cut=N stall=N (at byte N of the answer's body)  garbage=1
    capacity [N]                 more than N requests at once are answered 503 SlowDown
    deny [ACTION[:PREFIX]...]    denies s3:PutObject and the like
    clock SECONDS                its clock goes wrong by so much
    region-answer KIND           a wrong region is answered 400 (malformed) or 301 (redirect)
    redirect [HOST:PORT]         every request is answered 307 to there
    page N                       a page of a listing has at most N names
    bucket NAME [lock] [versioned] [region=NAME] [retain=MODE:DAYS]
    key ACCESS SECRET [TOKEN|-] [SECONDS]        one more access key, perhaps one that expires
    revoke ACCESS
    objects BUCKET               size, ETag and name of all that is there
    alter BUCKET KEY flip|truncate|remove [AT]   damage behind its back
"""

import sys

sys.dont_write_bytecode = True

import os
import secrets

import service


def add_options(parser):
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--bucket", action="append", default=[], metavar="NAME",
                        help="is there from the beginning; S3_BUCKET names the first")
    parser.add_argument("--style", choices=["path", "virtual", "both"], default="both")
    parser.add_argument("--page", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="for rules with prob=")
    parser.add_argument("--fault", action="append", default=[], metavar="RULE")
    parser.add_argument("--allow-unsigned-payload", action="store_true")


def serve(options, state):
    from strict_s3.server import Server
    server = Server(state, options)
    path = os.path.join(state, "keys")
    if not os.path.exists(path):
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(f"AK{secrets.token_hex(9).upper()} {secrets.token_hex(20)}\n")
    access_key, secret_key = service.read(path).split()
    server.verifier.keys[access_key] = (secret_key, None, None)
    for name in options.bucket:
        if name not in server.storage.buckets:
            server.add_bucket(name)
    lines = {"S3_ACCESS_KEY": access_key, "S3_SECRET_KEY": secret_key, "S3_REGION": options.region}
    if options.bucket:
        lines["S3_BUCKET"] = options.bucket[0]
    if options.tls:
        lines["S3_CA_FILE"] = service.make_certificate(state)
        server.tls = service.tls_server_context(state)
    lines["S3_ENDPOINT"] = f"{server.scheme}://127.0.0.1:{server.port}"
    lines["CONTROL_PORT"] = service.open_control(server.commands())
    service.publish(state, lines)
    server.serve_for_good()


if __name__ == "__main__":
    service.run(__doc__, add_options, serve)
