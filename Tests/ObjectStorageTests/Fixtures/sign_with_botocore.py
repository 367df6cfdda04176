#!/usr/bin/env python3
"""Signs requests as botocore does: one JSON object in a line of standard input, one line out.

In:  method, endpoint, bucket, key (null for the bucket), query (pairs), headers (pairs), body (hex),
     region, key_id, secret, token (or null), time (YYYYMMDDThhmmssZ)
Out: url and authorization
"""

import json
import sys

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import percent_encode, percent_encode_sequence


def sign(said):
    url = f"{said['endpoint']}/{said['bucket']}"
    if said["key"] is not None:
        url += "/" + percent_encode(said["key"], safe="/~")
    if said["query"]:
        url += "?" + percent_encode_sequence([tuple(pair) for pair in said["query"]])
    request = AWSRequest(
        method=said["method"], url=url, headers=dict(said["headers"]), data=bytes.fromhex(said["body"]))
    signer = S3SigV4Auth(
        Credentials(said["key_id"], said["secret"], said["token"]), "s3", said["region"])
    # What its add_auth does, at a time of our choice.
    request.context["timestamp"] = said["time"]
    signer._modify_request_before_signing(request)
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    return {"url": url, "authorization": request.headers["Authorization"]}


for line in sys.stdin:
    print(json.dumps(sign(json.loads(line))))
