"""Which operation a request asks for, and what it may say while asking. All else is refused."""

import re

from .checksums import HEADERS as CHECKSUM_HEADERS
from .errors import S3Error
from .signature import decode, parse_query

SIGNED = {"x-amz-date", "x-amz-content-sha256", "x-amz-security-token"}
QUERY_SIGNED = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires",
                "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token"}
CHECKSUM = CHECKSUM_HEADERS | {"x-amz-sdk-checksum-algorithm", "x-amz-checksum-crc64nvme"}
BYPASS = {"x-amz-bypass-governance-retention"}
PUT = CHECKSUM | {
    "x-amz-storage-class", "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled", "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold"}
LISTING = {"prefix", "delimiter", "max-keys", "encoding-type"}

# operation: (method, subresource, what it is about), action, parameters, x-amz headers
OPERATIONS = {
    "ListBuckets": (("GET", "", "service"), "s3:ListAllMyBuckets", set(), set()),
    "CreateBucket": (("PUT", "", "bucket"), "s3:CreateBucket", set(),
                     CHECKSUM | {"x-amz-bucket-object-lock-enabled"}),
    "DeleteBucket": (("DELETE", "", "bucket"), "s3:DeleteBucket", set(), set()),
    "HeadBucket": (("HEAD", "", "bucket"), "s3:ListBucket", set(), set()),
    "ListObjectsV2": (("GET", "list-type", "bucket"), "s3:ListBucket", LISTING | {
        "start-after", "continuation-token", "fetch-owner"}, set()),
    "ListObjectVersions": (("GET", "versions", "bucket"), "s3:ListBucketVersions",
                           LISTING | {"key-marker", "version-id-marker"}, set()),
    "DeleteObjects": (("POST", "delete", "bucket"), "s3:DeleteObject", set(), CHECKSUM | BYPASS),
    "GetBucketLocation": (("GET", "location", "bucket"), "s3:GetBucketLocation", set(), set()),
    "GetBucketVersioning": (("GET", "versioning", "bucket"), "s3:GetBucketVersioning", set(),
                            set()),
    "PutBucketVersioning": (("PUT", "versioning", "bucket"), "s3:PutBucketVersioning", set(),
                            CHECKSUM),
    "GetObjectLockConfiguration": (("GET", "object-lock", "bucket"),
                                   "s3:GetBucketObjectLockConfiguration", set(), set()),
    "PutObjectLockConfiguration": (("PUT", "object-lock", "bucket"),
                                   "s3:PutBucketObjectLockConfiguration", set(), CHECKSUM),
    "PutObject": (("PUT", "", "object"), "s3:PutObject", set(), PUT),
    "GetObject": (("GET", "", "object"), "s3:GetObject", {"versionId"}, {"x-amz-checksum-mode"}),
    "HeadObject": (("HEAD", "", "object"), "s3:GetObject", {"versionId"},
                   {"x-amz-checksum-mode"}),
    "DeleteObject": (("DELETE", "", "object"), "s3:DeleteObject", {"versionId"}, BYPASS),
    "GetObjectRetention": (("GET", "retention", "object"), "s3:GetObjectRetention",
                           {"versionId"}, set()),
    "PutObjectRetention": (("PUT", "retention", "object"), "s3:PutObjectRetention",
                           {"versionId"}, CHECKSUM | BYPASS),
    "GetObjectLegalHold": (("GET", "legal-hold", "object"), "s3:GetObjectLegalHold",
                           {"versionId"}, set()),
    "PutObjectLegalHold": (("PUT", "legal-hold", "object"), "s3:PutObjectLegalHold",
                           {"versionId"}, CHECKSUM),
}
BY_SHAPE = {shape: name for name, (shape, _, _, _) in OPERATIONS.items()}
SUBRESOURCES = {shape[1] for shape in BY_SHAPE if shape[1]}
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def route(request, styles):
    """Fills in the path, the query, the bucket, the key and the operation of a request."""
    host = request.headers.get("host")
    if host is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: Host")
    request.path = decode(request.raw_path)
    request.query = parse_query(request.raw_query)
    name = host.partition(":")[0]
    if name.endswith(".localhost"):
        if "virtual" not in styles:
            raise S3Error("InvalidRequest", "Virtual-host style is not answered here.")
        request.bucket, request.key = name.removesuffix(".localhost"), request.path[1:]
    else:
        request.bucket, _, request.key = request.path[1:].partition("/")
        if request.bucket and "path" not in styles:
            raise S3Error("PermanentRedirect", "The bucket you are attempting to access must be "
                          "addressed using the specified endpoint.",
                          {"Bucket": request.bucket, "Endpoint": f"{request.bucket}.localhost"})
    about = "object" if request.key else "bucket" if request.bucket else "service"
    names = [name for name, _ in request.query]
    subresources = [name for name in names if name in SUBRESOURCES]
    shape = (request.method, subresources[0] if subresources else "", about)
    if shape not in BY_SHAPE:
        code = "NotImplemented" if names or request.method == "POST" else "MethodNotAllowed"
        raise S3Error(code, f"{request.method} of {about} with {names} is not answered here.")
    request.operation = BY_SHAPE[shape]
    if len(set(names)) != len(names):
        raise S3Error("InvalidArgument", "A query parameter is given twice.")


def check_what_is_said(request):
    """Refuses parameters and headers that the operation does not know, and impossible names."""
    (_, subresource, _), _, parameters, headers = OPERATIONS[request.operation]
    for name, _ in request.query:
        if name not in parameters | QUERY_SIGNED | {subresource}:
            raise S3Error("InvalidArgument", f"{request.operation} has no parameter {name!r}.",
                          {"ArgumentName": name})
    for name in request.headers:
        if not name.startswith("x-amz-") or name in headers | SIGNED:
            continue
        if not (name.startswith("x-amz-meta-") and request.operation == "PutObject"):
            raise S3Error("NotImplemented", f"{request.operation} takes no header {name!r} here.",
                          {"Header": name})
    for name in ("if-modified-since", "if-unmodified-since", "if-range"):
        if name in request.headers:
            raise S3Error("NotImplemented", f"{name} is not answered here.", {"Header": name})
    if request.bucket and not _BUCKET_NAME.fullmatch(request.bucket):
        raise S3Error("InvalidBucketName", "The specified bucket is not valid.",
                      {"BucketName": request.bucket})
    if len(request.key.encode()) > 1024:
        raise S3Error("KeyTooLongError", "Your key is too long",
                      {"Size": len(request.key.encode()), "MaxSizeAllowed": 1024})
