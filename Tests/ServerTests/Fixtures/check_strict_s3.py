"""Holds the strict S3 server against botocore, which real clients use, and against wrong requests."""

import base64
import concurrent.futures
import datetime
import hashlib
import http.client
import os
import ssl
import threading
import urllib.parse
import zlib

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
from botocore.config import Config
from botocore.exceptions import ClientError

from claims import Server, claim, expect, expect_equal, run

ODD_KEYS = ["plain", "with space", "a+b", "100%", "%41", "é/ü", "a//b", "dir/", "tab\there",
            "new\nline", "quo'te\"", "a&b=c;d?e#f", "~tilde*star(paren)", "..", "a/../b", "\u0001",
            "x" * 1024]


def client(server, key=None, **settings):
    access, secret, token = key or (server["S3_ACCESS_KEY"], server["S3_SECRET_KEY"], None)
    settings.setdefault("region_name", server["S3_REGION"])
    style = settings.pop("style", "path")
    return boto3.client(
        "s3", endpoint_url=settings.pop("endpoint", server["S3_ENDPOINT"]), aws_access_key_id=access,
        aws_secret_access_key=secret, aws_session_token=token,
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 1},
                      s3={"addressing_style": style},
                      request_checksum_calculation="when_required",
                      response_checksum_validation="when_required", max_pool_connections=32),
        **settings)


def refusal(function, *arguments, **named):
    """The code and status with which a call is refused."""
    try:
        function(*arguments, **named)
    except ClientError as error:
        return (error.response["Error"]["Code"],
                error.response["ResponseMetadata"]["HTTPStatusCode"])
    return None


def md5(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def raw(server, method, path, body=b"", headers=(), change=lambda headers: None, sign=True,
        secret=None, region=None):
    """A request signed by botocore, with what a test adds before and changes after the signature."""
    url = server["S3_ENDPOINT"] + path
    request = botocore.awsrequest.AWSRequest(method, url, data=body, headers=dict(headers))
    if sign:
        credentials = botocore.credentials.Credentials(
            server["S3_ACCESS_KEY"], secret or server["S3_SECRET_KEY"])
        botocore.auth.S3SigV4Auth(
            credentials, "s3", region or server["S3_REGION"]).add_auth(request)
    sent = dict(request.headers.items())
    if body or method in ("PUT", "POST"):
        sent.setdefault("Content-Length", str(len(body)))
    sent.setdefault("Host", urllib.parse.urlsplit(url).netloc)
    change(sent)
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read().decode()
    code = content.partition("<Code>")[2].partition("</Code>")[0]
    return answer.status, code, content, dict(answer.getheaders())


# ---- what is right ----

@claim("botocore stores, reads, lists and deletes objects under every odd key")
def odd_keys(server):
    s3 = client(server)
    s3.create_bucket(Bucket="odd-keys")
    for number, key in enumerate(ODD_KEYS):
        body = f"{number} {key}".encode()
        s3.put_object(Bucket="odd-keys", Key=key, Body=body)
        expect_equal(s3.get_object(Bucket="odd-keys", Key=key)["Body"].read(), body)
    listed = s3.list_objects_v2(Bucket="odd-keys")["Contents"]
    expect_equal([each["Key"] for each in listed], sorted(ODD_KEYS, key=str.encode))
    for key in ODD_KEYS:
        s3.delete_object(Bucket="odd-keys", Key=key)
    expect_equal(s3.list_objects_v2(Bucket="odd-keys")["KeyCount"], 0)
    s3.delete_bucket(Bucket="odd-keys")


@claim("A presigned request is answered, and no longer when it has expired")
def presigned(server):
    s3 = client(server)
    s3.put_object(Bucket="test", Key="presigned", Body=b"here")
    url = s3.generate_presigned_url("get_object", {"Bucket": "test", "Key": "presigned"}, 60)

    def get():
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
        connection.request("GET", url[url.index("/", 8):])
        answer = connection.getresponse()
        return answer.status, answer.read()
    expect_equal(get(), (200, b"here"))
    server.tell("clock", "120")
    try:
        expect_equal(get()[0], 403)
    finally:
        server.tell("clock", "0")


@claim("Virtual-host style is answered, and signed over the other host")
def virtual_host(server):
    with Server("s3-strict.py", "--style", "virtual") as other:
        other.tell("bucket", "hosted")
        endpoint = other["S3_ENDPOINT"].replace("127.0.0.1", "localhost")
        s3 = client(other, endpoint=endpoint, style="virtual")
        # The name bucket.localhost needs no name server: it is dialled here.
        import urllib3.util.connection as dialling
        original = dialling.create_connection
        dialling.create_connection = lambda address, *a, **n: original(
            ("127.0.0.1", address[1]), *a, **n)
        try:
            s3.put_object(Bucket="hosted", Key="a/b", Body=b"x")
            expect_equal(s3.get_object(Bucket="hosted", Key="a/b")["Body"].read(), b"x")
        finally:
            dialling.create_connection = original
        expect_equal(raw(other, "GET", "/hosted?list-type=2")[:2], (301, "PermanentRedirect"))


@claim("Over TLS with the private CA all is the same; without the CA nothing is said")
def tls(server):
    with Server("s3-strict.py", "--tls") as other:
        other.tell("bucket", "secret")
        s3 = client(other, verify=other["S3_CA_FILE"])
        # What botocore does over TLS where a checksum is given, an unsigned payload, is refused.
        expect_equal(refusal(s3.put_object, Bucket="secret", Key="k", Body=b"x",
                             ContentMD5=md5(b"x"))[0], "InvalidRequest")
        signed = boto3.client(
            "s3", endpoint_url=other["S3_ENDPOINT"], region_name="us-east-1",
            verify=other["S3_CA_FILE"], aws_access_key_id=other["S3_ACCESS_KEY"],
            aws_secret_access_key=other["S3_SECRET_KEY"],
            config=Config(s3={"payload_signing_enabled": True, "addressing_style": "path"},
                          request_checksum_calculation="when_required"))
        signed.put_object(Bucket="secret", Key="k", Body=b"x" * 300_000)
        expect_equal(len(signed.get_object(Bucket="secret", Key="k")["Body"].read()), 300_000)
        host = urllib.parse.urlsplit(other["S3_ENDPOINT"]).netloc
        try:
            http.client.HTTPSConnection(host).request("GET", "/")
            raise AssertionError("a stranger's certificate was believed")
        except ssl.SSLCertVerificationError:
            pass


@claim("Ranges are answered 206 with Content-Range, and 416 beyond the end")
def ranges(server):
    s3 = client(server)
    s3.put_object(Bucket="test", Key="ranges", Body=b"0123456789")
    for text, expected in (("bytes=0-0", b"0"), ("bytes=3-", b"3456789"), ("bytes=-2", b"89"),
                           ("bytes=8-100", b"89")):
        answer = s3.get_object(Bucket="test", Key="ranges", Range=text)
        expect_equal((answer["Body"].read(), answer["ResponseMetadata"]["HTTPStatusCode"]),
                     (expected, 206))
        expect("ContentRange" in answer)
    expect_equal(refusal(s3.get_object, Bucket="test", Key="ranges", Range="bytes=10-"),
                 ("InvalidRange", 416))
    s3.put_object(Bucket="test", Key="empty", Body=b"")
    expect_equal(s3.get_object(Bucket="test", Key="empty")["Body"].read(), b"")


@claim("Listings go on from page to page, with prefixes, delimiters and a beginning")
def listings(server):
    s3 = client(server)
    names = [f"list/{i % 7}/{i:03}" for i in range(100)]
    for name in names:
        s3.put_object(Bucket="test", Key=name, Body=b"")
    for size in (1, 3, 7, 99, 100, 1000):
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket="test", Prefix="list/", PaginationConfig={"PageSize": size})
        found = [each["Key"] for page in pages for each in page.get("Contents", ())]
        expect_equal(found, sorted(names))
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="test", Prefix="list/", Delimiter="/", PaginationConfig={"PageSize": 2})
    prefixes = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ())]
    expect_equal(prefixes, [f"list/{i}/" for i in range(7)])
    behind = s3.list_objects_v2(Bucket="test", Prefix="list/", StartAfter="list/5/")
    expect_equal([each["Key"] for each in behind["Contents"]],
                 sorted(name for name in names if name > "list/5/"))
    expect_equal(refusal(s3.list_objects_v2, Bucket="test", ContinuationToken="bm8=")[0],
                 "InvalidArgument")
    server.tell("page", "10")
    try:
        expect_equal(s3.list_objects_v2(Bucket="test", Prefix="list/")["KeyCount"], 10)
    finally:
        server.tell("page", "1000")


@claim("A thousand objects are deleted in one request, one more is refused")
def bulk_delete(server):
    s3 = client(server)
    for i in range(5):
        s3.put_object(Bucket="test", Key=f"bulk/{i}", Body=b"")
    names = [{"Key": f"bulk/{i}"} for i in range(1001)]
    expect_equal(refusal(s3.delete_objects, Bucket="test", Delete={"Objects": names})[0],
                 "MalformedXML")
    gone = s3.delete_objects(Bucket="test", Delete={"Objects": names[:1000]})
    expect_equal(len(gone["Deleted"]), 1000)
    expect_equal(s3.list_objects_v2(Bucket="test", Prefix="bulk/")["KeyCount"], 0)
    body = b"<Delete><Object><Key>x</Key></Object></Delete>"
    expect_equal(raw(server, "POST", "/test?delete", body)[:2], (400, "InvalidRequest"))
    expect_equal(raw(server, "POST", "/test?delete", body, {"Content-MD5": md5(body)})[0], 200)


@claim("Storage class, encryption, metadata and type come back as they were sent")
def kept_headers(server):
    s3 = client(server)
    s3.put_object(Bucket="test", Key="kept", Body=b"x", StorageClass="STANDARD_IA",
                  ServerSideEncryption="aws:kms", SSEKMSKeyId="key-1", ContentType="text/plain",
                  Metadata={"who": "me"})
    head = s3.head_object(Bucket="test", Key="kept")
    expect_equal([head[n] for n in ("StorageClass", "ServerSideEncryption", "SSEKMSKeyId",
                                    "ContentType", "Metadata")],
                 ["STANDARD_IA", "aws:kms", "key-1", "text/plain", {"who": "me"}])
    expect(head["ETag"] != '"' + hashlib.md5(b"x").hexdigest() + '"')
    s3.put_object(Bucket="test", Key="frozen", Body=b"x", StorageClass="DEEP_ARCHIVE")
    expect_equal(refusal(s3.get_object, Bucket="test", Key="frozen")[0], "InvalidObjectState")
    expect_equal(refusal(s3.put_object, Bucket="test", Key="k", Body=b"", StorageClass="COLD")[0],
                 "InvalidStorageClass")


@claim("What was stored is there after the server was stopped and started again")
def restart(server):
    with Server("s3-strict.py") as other:
        other.tell("bucket", "kept", "versioned")
        s3 = client(other)
        for body in (b"one", b"two"):
            s3.put_object(Bucket="kept", Key="k", Body=body)
        s3.delete_object(Bucket="kept", Key="k")
        s3.put_object(Bucket="kept", Key="other", Body=b"three")
        before = s3.list_object_versions(Bucket="kept")
        other.call("stop")
        other.call("start")
        lines = open(os.path.join(other.state, "env"), encoding="utf-8").read().splitlines()
        other.values = dict(line.split("=", 1) for line in lines)
        s3 = client(other)
        after = s3.list_object_versions(Bucket="kept")
        for part in ("Versions", "DeleteMarkers"):
            expect_equal([(v["Key"], v["VersionId"]) for v in after[part]],
                         [(v["Key"], v["VersionId"]) for v in before[part]])
        expect_equal(s3.get_object(Bucket="kept", Key="other")["Body"].read(), b"three")


# ---- who asks ----

@claim("A wrong secret, a stranger and nobody at all are refused, each in its own words")
def wrong_signature(server):
    expect_equal(raw(server, "GET", "/test?list-type=2", secret="wrong")[:2],
                 (403, "SignatureDoesNotMatch"))
    stranger = client(server, ("AKSTRANGER", "x", None))
    expect_equal(refusal(stranger.list_objects_v2, Bucket="test"), ("InvalidAccessKeyId", 403))
    expect_equal(raw(server, "GET", "/test?list-type=2", sign=False)[:2], (403, "AccessDenied"))


@claim("What is changed after the signature is noticed: query, header, a header that is not signed")
def changed_after_signature(server):
    def change(name, value):
        return lambda headers: headers.__setitem__(name, value)
    expect_equal(raw(server, "PUT", "/test/k", b"x", {"x-amz-meta-a": "1"},
                     change("x-amz-meta-a", "2"))[1], "SignatureDoesNotMatch")
    expect_equal(raw(server, "PUT", "/test/k", b"x", change=change("x-amz-meta-new", "2"))[1],
                 "AccessDenied")
    expect_equal(raw(server, "PUT", "/test/k", b"x",
                     change=change("Host", "127.0.0.1:1"))[1], "SignatureDoesNotMatch")


@claim("A clock that is 14 minutes wrong is accepted, one of 16 refused with the server's time")
def clock(server):
    for seconds, expected in ((14 * 60, None), (-14 * 60, None), (16 * 60, "RequestTimeTooSkewed"),
                              (-16 * 60, "RequestTimeTooSkewed")):
        server.tell("clock", str(seconds))
        try:
            status, code, content, headers = raw(server, "GET", "/test?list-type=2")
        finally:
            server.tell("clock", "0")
        expect_equal(code or None, expected)
        expect(not expected or "<ServerTime>" in content)
        shown = datetime.datetime.strptime(headers["Date"], "%a, %d %b %Y %H:%M:%S GMT")
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        expect(abs((shown - now).total_seconds() - seconds) < 60)


@claim("A wrong region is told the right one, as an error or as a redirect")
def region(server):
    with Server("s3-strict.py", "--region", "eu-central-1") as other:
        other.tell("bucket", "here")
        status, code, content, headers = raw(other, "GET", "/here?list-type=2", region="us-east-1")
        expect_equal((status, code), (400, "AuthorizationHeaderMalformed"))
        expect("<Region>eu-central-1</Region>" in content)
        expect_equal(headers["x-amz-bucket-region"], "eu-central-1")
        # botocore finds the way by itself.
        wrong = client(other, region_name="us-east-1")
        expect_equal(wrong.list_objects_v2(Bucket="here")["KeyCount"], 0)
        other.tell("region-answer", "redirect")
        status, code, _, headers = raw(other, "HEAD", "/here", region="us-east-1")
        expect_equal((status, headers["x-amz-bucket-region"]), (301, "eu-central-1"))
        expect_equal(client(other, region_name="us-east-1").list_objects_v2(
            Bucket="here")["KeyCount"], 0)
        other.tell("redirect", "localhost:" + other["S3_ENDPOINT"].rpartition(":")[2])
        status, code, _, headers = raw(other, "GET", "/here?list-type=2")
        expect_equal((status, code), (307, "TemporaryRedirect"))
        expect(headers["Location"].endswith("/here?list-type=2"))


@claim("A session token is demanded, believed, and expires")
def session_token(server):
    server.tell("key", "AKSESSION", "secret", "token", "100")
    expect_equal(client(server, ("AKSESSION", "secret", "token")).list_objects_v2(
        Bucket="test", MaxKeys=1)["ResponseMetadata"]["HTTPStatusCode"], 200)
    for token, clock_offset, expected in ((None, 0, "InvalidToken"), ("other", 0, "InvalidToken"),
                                          ("token", 200, "ExpiredToken")):
        server.tell("clock", str(clock_offset))
        try:
            expect_equal(refusal(client(server, ("AKSESSION", "secret", token)).list_objects_v2,
                                 Bucket="test")[0], expected)
        finally:
            server.tell("clock", "0")


@claim("Each action can be denied for itself, also below a prefix; who may not list learns no absence")
def policy(server):
    s3 = client(server)
    s3.put_object(Bucket="test", Key="policy/a", Body=b"")
    attempts = {
        "s3:PutObject": lambda: s3.put_object(Bucket="test", Key="policy/b", Body=b""),
        "s3:GetObject": lambda: s3.get_object(Bucket="test", Key="policy/a"),
        "s3:ListBucket": lambda: s3.list_objects_v2(Bucket="test"),
        "s3:DeleteObject": lambda: s3.delete_object(Bucket="test", Key="policy/a"),
    }
    try:
        for denied in attempts:
            server.tell("deny", denied)
            for action, attempt in attempts.items():
                if action == denied:
                    expect_equal(refusal(attempt), ("AccessDenied", 403))
                elif action != "s3:DeleteObject":
                    attempt()
        server.tell("deny", "s3:PutObject:policy/", "s3:DeleteObject")
        expect_equal(refusal(attempts["s3:PutObject"])[0], "AccessDenied")
        s3.put_object(Bucket="test", Key="elsewhere", Body=b"")
        answer = s3.delete_objects(Bucket="test", Delete={"Objects": [{"Key": "policy/a"}]})
        expect_equal(answer["Errors"][0]["Code"], "AccessDenied")
        expect_equal(refusal(s3.get_object, Bucket="test", Key="absent"), ("NoSuchKey", 404))
        server.tell("deny", "s3:ListBucket")
        expect_equal(refusal(s3.get_object, Bucket="test", Key="absent"), ("AccessDenied", 403))
        expect_equal(refusal(s3.head_object, Bucket="test", Key="absent")[1], 403)
    finally:
        server.tell("deny")


# ---- what is sent ----

@claim("A payload that is not what was signed is refused and leaves nothing")
def payload_hash(server):
    def change(headers):
        headers["Content-Length"] = "5"
    import unittest.mock
    with unittest.mock.patch.object(botocore.auth.S3SigV4Auth, "payload",
                                    lambda self, request: hashlib.sha256(b"other").hexdigest()):
        expect_equal(raw(server, "PUT", "/test/hash", b"bytes", change=change)[:2],
                     (400, "XAmzContentSHA256Mismatch"))
    expect_equal(raw(server, "PUT", "/test/hash", b"x", change=lambda headers: headers.pop(
        "X-Amz-Content-SHA256"))[1], "InvalidRequest")
    expect_equal(refusal(client(server).head_object, Bucket="test", Key="hash")[1], 404)


@claim("A wrong Content-MD5 is refused, a broken one too")
def content_md5(server):
    s3 = client(server)
    s3.put_object(Bucket="test", Key="md5", Body=b"x", ContentMD5=md5(b"x"))
    for value, expected in ((md5(b"y"), "BadDigest"), ("abc", "InvalidDigest")):
        expect_equal(refusal(s3.put_object, Bucket="test", Key="bad", Body=b"x", ContentMD5=value),
                     (expected, 400))
    expect_equal(refusal(s3.head_object, Bucket="test", Key="bad")[1], 404)


@claim("Checksums are verified, kept and given back: SHA-256, SHA-1, CRC32, CRC32C")
def checksums(server):
    s3 = client(server)
    data = b"123456789"
    right = {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode(),
             "ChecksumSHA1": base64.b64encode(hashlib.sha1(data).digest()).decode(),
             "ChecksumCRC32": base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode(),
             # The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
             "ChecksumCRC32C": base64.b64encode(bytes.fromhex("e3069283")).decode()}
    for name, value in right.items():
        s3.put_object(Bucket="test", Key="sums", Body=data, **{name: value})
        head = s3.head_object(Bucket="test", Key="sums", ChecksumMode="ENABLED")
        expect_equal(head[name], value)
        expect(name not in s3.head_object(Bucket="test", Key="sums"))
        wrong = base64.b64encode(bytes(len(base64.b64decode(value)))).decode()
        expect_equal(refusal(s3.put_object, Bucket="test", Key="bad", Body=data, **{name: wrong}),
                     ("BadDigest", 400))
        expect_equal(refusal(s3.put_object, Bucket="test", Key="bad", Body=data, **{name: "x"})[0],
                     "InvalidRequest")
    expect_equal(refusal(s3.put_object, Bucket="test", Key="bad", Body=data,
                         ChecksumSHA1=right["ChecksumSHA1"],
                         ChecksumCRC32=right["ChecksumCRC32"])[0], "InvalidRequest")
    expect_equal(refusal(s3.head_object, Bucket="test", Key="bad")[1], 404)


@claim("Of many writers with If-None-Match: * exactly one is the first, whatever the order")
def conditional_race(server):
    s3 = client(server)
    for number in range(10):
        key, start = f"race/{number}", threading.Barrier(8)

        def write(writer):
            start.wait()
            return refusal(s3.put_object, Bucket="test", Key=key, IfNoneMatch="*",
                           Body=bytes([writer]) * 50_000)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(write, range(8)))
        expect_equal(sorted(map(str, outcomes)),
                     sorted(["None"] + [str(("PreconditionFailed", 412))] * 7))
        winner = outcomes.index(None)
        expect_equal(s3.get_object(Bucket="test", Key=key)["Body"].read(),
                     bytes([winner]) * 50_000)
    s3.put_object(Bucket="test", Key="match", Body=b"1")
    etag = s3.head_object(Bucket="test", Key="match")["ETag"]
    s3.put_object(Bucket="test", Key="match", Body=b"2", IfMatch=etag)
    expect_equal(refusal(s3.put_object, Bucket="test", Key="match", Body=b"3", IfMatch=etag),
                 ("PreconditionFailed", 412))
    expect_equal(refusal(s3.put_object, Bucket="test", Key="nothing", Body=b"3", IfMatch=etag),
                 ("NoSuchKey", 404))


@claim("No length, chunks, aws-chunked and unsigned payloads are refused")
def forms_of_body(server):
    def chunked(headers):
        headers["Transfer-Encoding"] = "chunked"
        headers.pop("Content-Length")
    expect_equal(raw(server, "PUT", "/test/k", b"1\r\nx\r\n0\r\n\r\n", change=chunked)[:2],
                 (501, "NotImplemented"))
    expect_equal(raw(server, "PUT", "/test/k", change=lambda h: h.pop("Content-Length"))[:2],
                 (411, "MissingContentLength"))
    import unittest.mock
    for value, expected in (("UNSIGNED-PAYLOAD", "InvalidRequest"),
                            ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "NotImplemented")):
        with unittest.mock.patch.object(botocore.auth.S3SigV4Auth, "payload",
                                        lambda self, request: value):
            expect_equal(raw(server, "PUT", "/test/k", b"x")[1], expected)


@claim("What it does not know is refused: parameters, headers, subresources, old listings")
def unknown(server):
    for method, path, headers in (("GET", "/test?list-type=2&colour=red", {}),
                                  ("GET", "/test?list-type=2&prefix=a&prefix=b", {}),
                                  ("GET", "/test?prefix=x", {}), ("GET", "/test?acl", {}),
                                  ("PUT", "/test/k", {"x-amz-acl": "private"}),
                                  ("PUT", "/test/k", {"x-amz-copy-source": "/test/a"}),
                                  ("POST", "/test/k?uploads", {})):
        status, code, _, _ = raw(server, method, path, headers=headers)
        expect(status in (400, 501), f"{method} {path}: {status} {code}")
    s3 = client(server)
    expect_equal(refusal(s3.put_object, Bucket="test", Key="é" * 513, Body=b"")[0],
                 "KeyTooLongError")
    expect_equal(refusal(s3.list_objects_v2, Bucket="absent"), ("NoSuchBucket", 404))


@claim("Expect: 100-continue is answered, and a bad signature refused before the body")
def expect_continue(server):
    s3 = client(server)
    # botocore waits for the 100 with every body.
    s3.put_object(Bucket="test", Key="expected", Body=b"x" * 100_000)
    server.tell("reset")
    refusal(client(server, (server["S3_ACCESS_KEY"], "wrong", None)).put_object, Bucket="test",
            Key="expected", Body=b"x" * 100_000)
    line = server.tell("log")[-1].split("\t")
    expect_equal((line[6], line[7]), ("SignatureDoesNotMatch", "0"))


# ---- versions and locks ----

@claim("Versions are kept, markers hide them, and deleting by version removes them")
def versions(server):
    s3 = client(server)
    s3.create_bucket(Bucket="versions")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="versions", Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket="versions", Key="k", Body=b"2")["VersionId"]
    marker = s3.delete_object(Bucket="versions", Key="k")
    expect(marker["DeleteMarker"])
    expect_equal(refusal(s3.get_object, Bucket="versions", Key="k"), ("NoSuchKey", 404))
    expect_equal(s3.list_objects_v2(Bucket="versions")["KeyCount"], 0)
    for identifier, body in ((first, b"1"), (second, b"2")):
        expect_equal(s3.get_object(Bucket="versions", Key="k", VersionId=identifier)["Body"].read(),
                     body)
    s3.delete_object(Bucket="versions", Key="k", VersionId=marker["VersionId"])
    expect_equal(s3.get_object(Bucket="versions", Key="k")["Body"].read(), b"2")
    s3.put_object(Bucket="versions", Key="new", Body=b"", IfNoneMatch="*")
    s3.delete_object(Bucket="versions", Key="new")
    s3.put_object(Bucket="versions", Key="new", Body=b"", IfNoneMatch="*")
    s3.delete_object(Bucket="versions", Key="k", VersionId=second)
    s3.delete_object(Bucket="versions", Key="k", VersionId=first)
    expect_equal(refusal(s3.get_object, Bucket="versions", Key="k", VersionId=first),
                 ("NoSuchVersion", 404))


@claim("A locked version cannot be deleted before its time, and a lock needs a checksum")
def object_lock(server):
    s3 = client(server)
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    for mode in ("COMPLIANCE", "GOVERNANCE"):
        lock = {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}
        identifier = s3.put_object(Bucket="locked", Key=mode, Body=b"x", ContentMD5=md5(b"x"),
                                   **lock)["VersionId"]
        deletion = {"Bucket": "locked", "Key": mode, "VersionId": identifier}
        expect_equal(refusal(s3.delete_object, **deletion), ("AccessDenied", 403))
        expect_equal(s3.head_object(**deletion)["ObjectLockMode"], mode)
        # Who may not see a retention is not told of it beside the rest.
        server.tell("deny", "s3:GetObjectRetention")
        expect("ObjectLockMode" not in s3.head_object(**deletion))
        server.tell("deny")
        bypassed = refusal(s3.delete_object, **deletion, BypassGovernanceRetention=True)
        expect_equal(bypassed is None, mode == "GOVERNANCE")
        # A marker on top of it is allowed, and hides it only.
        s3.delete_object(Bucket="locked", Key=mode)
    expect_equal(raw(server, "PUT", "/locked/k", b"x", {
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": until.strftime("%Y-%m-%dT%H:%M:%SZ")})[:2],
        (400, "InvalidRequest"))
    expect_equal(refusal(s3.put_object, Bucket="test", Key="k", Body=b"x", ContentMD5=md5(b"x"),
                         ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)[0],
                 "InvalidRequest")
    identifier = s3.list_object_versions(Bucket="locked", Prefix="COMP")["Versions"][0]["VersionId"]
    server.tell("clock", str(2 * 86400))
    try:
        # The date of the signature has to follow the server's clock.
        import unittest.mock
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=2)
        with unittest.mock.patch("botocore.auth.get_current_datetime",
                                 lambda *a, **n: later.replace(tzinfo=None)):
            s3.delete_object(Bucket="locked", Key="COMPLIANCE", VersionId=identifier)
    finally:
        server.tell("clock", "0")
    expect_equal(refusal(s3.get_object_lock_configuration, Bucket="test")[0],
                 "ObjectLockConfigurationNotFoundError")
    s3.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration={
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}}})
    found = s3.get_object_lock_configuration(Bucket="locked")["ObjectLockConfiguration"]
    expect_equal(found["Rule"]["DefaultRetention"], {"Mode": "GOVERNANCE", "Days": 3})
    s3.put_object(Bucket="locked", Key="default", Body=b"x", ContentMD5=md5(b"x"))
    expect_equal(s3.get_object_retention(Bucket="locked", Key="default")["Retention"]["Mode"],
                 "GOVERNANCE")


# ---- how it fails, and what it remembers ----

@claim("Faults happen as they are told, and are counted")
def told_to_fail(server):
    s3 = client(server)
    s3.put_object(Bucket="test", Key="fault", Body=b"0123456789")

    def get():
        return s3.get_object(Bucket="test", Key="fault")["Body"].read()
    try:
        server.tell("rules", "op=GetObject,first=2,status=503:SlowDown,retry-after=7",
                    "op=GetObject,first=1,flip=3", "op=HeadObject,status=500")
        for _ in range(2):
            try:
                get()
            except ClientError as error:
                expect_equal(error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"], "7")
        expect_equal(get(), b"0122456789")
        expect_equal(get(), b"0123456789")
        expect_equal(refusal(s3.head_object, Bucket="test", Key="fault")[1], 500)
        expect_equal(server.fired(), [2, 1, 1])
        server.tell("rules", "op=GetObject,cut=4", "op=PutObject,lost=1", "op=ListObjectsV2,garbage=1")
        for attempt in (get, lambda: s3.put_object(Bucket="test", Key="lost", Body=b"x"),
                        lambda: s3.list_objects_v2(Bucket="test")):
            try:
                attempt()
            except Exception:
                continue
            raise AssertionError("a fault went unnoticed")
        expect_equal(server.fired(), [1, 1, 1])
        expect_equal(s3.head_object(Bucket="test", Key="lost")["ContentLength"], 1)
    finally:
        server.tell("rules")
    server.tell("alter", "test", "fault", "flip", "0")
    expect_equal(get(), b"1123456789")


@claim("More requests at once than it has room for are answered SlowDown")
def capacity(server):
    s3 = client(server)
    server.tell("rules", "op=HeadObject,delay=0.2")
    server.tell("capacity", "4")
    server.tell("reset")
    try:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            outcomes = list(pool.map(
                lambda _: refusal(s3.head_object, Bucket="test", Key="fault"), range(12)))
        expect(outcomes.count(("503", 503)) > 0 and outcomes.count(None) >= 4, str(outcomes))
        expect_equal(len(outcomes), outcomes.count(("503", 503)) + outcomes.count(None))
        expect(int(server.tell("peak")[0]) > 4)
    finally:
        server.tell("rules"), server.tell("capacity")


@claim("The log tells every request: what, of what, with what end and how many bytes")
def log(server):
    s3 = client(server)
    server.tell("reset")
    s3.put_object(Bucket="test", Key="log me", Body=b"12345", ContentMD5=md5(b"12345"))
    s3.get_object(Bucket="test", Key="log me", Range="bytes=1-2")["Body"].read()
    refusal(s3.head_object, Bucket="test", Key="absent")
    lines = [line.split("\t") for line in server.tell("log")]
    expect_equal([line[:9] for line in lines], [
        ["PutObject", "PUT", "test", "log%20me", "-", "200", "-", "5", "0"],
        ["GetObject", "GET", "test", "log%20me", "-", "206", "-", "0", "2"],
        ["HeadObject", "HEAD", "test", "absent", "-", "404", "NoSuchKey", "0", lines[2][8]]])
    expect("content-md5=" in lines[0][11] and "range=bytes%3D1-2" in lines[1][11])
    server.tell("reset")
    expect_equal(server.tell("log"), [])


if __name__ == "__main__":
    # Settings of whoever runs this must not decide what is tested.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    with Server("s3-strict.py") as strict:
        strict.tell("bucket", "test")
        run(strict)
