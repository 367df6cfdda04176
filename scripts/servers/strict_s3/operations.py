"""The operations. Each takes a checked request and gives an answer, or raises S3Error."""

import calendar
import dataclasses
import email.utils
import os
import re
import secrets
import time
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

from .errors import S3Error
from .listing import Listing, document, iso_time, xml_text
from .storage import Version

BODY_LIMIT = 1 << 20
OBJECT_LIMIT = 5 << 30
STORAGE_CLASSES = ("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER",
                   "GLACIER_IR", "DEEP_ARCHIVE", "REDUCED_REDUNDANCY")
ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")
# Without a body the type of an empty one is of no use to anybody.
XML = {"Content-Type": "application/xml"}
KEPT = ("content-type", "cache-control", "content-disposition", "content-encoding",
        "content-language", "x-amz-storage-class", "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-bucket-key-enabled")


@dataclasses.dataclass
class Answer:
    status: int = 200
    headers: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    # A part of a file instead of a body: path, offset, length.
    part: tuple = None

    @property
    def length(self):
        return self.part[2] if self.part else len(self.body)


def unquoted(etag):
    return etag.strip().removeprefix('"').removesuffix('"')


def no_such_key(key):
    return S3Error("NoSuchKey", "The specified key does not exist.", {"Key": key})


def parse_xml(body, root):
    """The root element, names without their namespace."""
    try:
        element = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        element = None
    if element is not None:
        for each in element.iter():
            each.tag = each.tag.rpartition("}")[2]
    if element is None or element.tag != root:
        raise S3Error("MalformedXML", "The XML you provided was not well-formed or did not "
                      "validate against our published schema")
    return element


def read_iso_time(text):
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", text or "")
    try:
        return calendar.timegm(time.strptime(match.group(1), "%Y-%m-%dT%H:%M:%S"))
    except (AttributeError, ValueError):
        raise S3Error("InvalidArgument", "The retain until date must be provided in ISO 8601 "
                      "format") from None


class Operations:
    def __init__(self, storage, clock, authorize, page_limit):
        """`authorize(action, bucket, key)` raises where a policy denies."""
        self.storage, self.clock, self.authorize = storage, clock, authorize
        self.listing = Listing(secrets.token_hex(16), page_limit)

    def bucket(self, request):
        found = self.storage.buckets.get(request.bucket)
        if found is None:
            raise S3Error("NoSuchBucket", "The specified bucket does not exist",
                          {"BucketName": request.bucket})
        return found

    def may(self, action, bucket, key):
        """Whether the policy allows what an answer tells beside what was asked for."""
        try:
            self.authorize(action, bucket, key)
        except S3Error:
            return False
        return True

    # ---- buckets ----

    def list_buckets(self, request, check):
        inside = "".join(f"<Bucket><Name>{b.name}</Name><CreationDate>{iso_time(b.created)}"
                         "</CreationDate></Bucket>" for b in self.storage.buckets.values())
        return Answer(200, dict(XML), document(
            "ListAllMyBucketsResult",
            f"<Owner><ID>owner</ID></Owner><Buckets>{inside}</Buckets>"))

    def create_bucket(self, request, check, region):
        body = request.checked_body
        wanted = None
        if body:
            wanted = parse_xml(body, "CreateBucketConfiguration").findtext("LocationConstraint")
        if (wanted or "us-east-1") != region:
            raise S3Error("IllegalLocationConstraintException", "The unspecified location "
                          "constraint is incompatible for the region specific endpoint this "
                          "request was sent to.")
        if request.bucket in self.storage.buckets:
            raise S3Error("BucketAlreadyOwnedByYou", "Your previous request to create the named "
                          "bucket succeeded and you already own it.")
        lock = request.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true"
        self.storage.create_bucket(request.bucket, region, self.clock(), lock)
        return Answer(200, {"Location": f"/{request.bucket}"})

    def delete_bucket(self, request, check):
        if self.bucket(request).objects:
            raise S3Error("BucketNotEmpty", "The bucket you tried to delete is not empty")
        self.storage.delete_bucket(request.bucket)
        return Answer(204)

    def head_bucket(self, request, check):
        return Answer(200, {"x-amz-bucket-region": self.bucket(request).region})

    def get_bucket_location(self, request, check):
        region = self.bucket(request).region
        return Answer(200, dict(XML), document(
            "LocationConstraint", "" if region == "us-east-1" else region))

    def get_bucket_versioning(self, request, check):
        state = self.bucket(request).versioning
        return Answer(200, dict(XML), document(
            "VersioningConfiguration", f"<Status>{state}</Status>" if state else ""))

    def put_bucket_versioning(self, request, check):
        state = parse_xml(request.checked_body, "VersioningConfiguration").findtext("Status")
        bucket = self.bucket(request)
        if state not in ("Enabled", "Suspended"):
            raise S3Error("MalformedXML", "The versioning status is Enabled or Suspended.")
        if bucket.lock and state != "Enabled":
            raise S3Error("InvalidBucketState", "An Object Lock configuration is present on this "
                          "bucket, so the versioning state cannot be changed.")
        self.storage.configure_bucket(bucket.name, versioning=state)
        return Answer()

    def get_object_lock_configuration(self, request, check):
        bucket = self.bucket(request)
        if not bucket.lock:
            raise S3Error("ObjectLockConfigurationNotFoundError",
                          "Object Lock configuration does not exist for this bucket")
        rule = ""
        if bucket.default_retention:
            mode, days = bucket.default_retention
            rule = (f"<Rule><DefaultRetention><Mode>{mode}</Mode><Days>{days}</Days>"
                    "</DefaultRetention></Rule>")
        return Answer(200, dict(XML), document(
            "ObjectLockConfiguration",
            f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}"))

    def put_object_lock_configuration(self, request, check):
        bucket = self.bucket(request)
        element = parse_xml(request.checked_body, "ObjectLockConfiguration")
        if not bucket.versioning == "Enabled":
            raise S3Error("InvalidBucketState",
                          "Versioning must be 'Enabled' on the bucket to apply a Object Lock "
                          "configuration")
        mode, days = (element.findtext(f"Rule/DefaultRetention/{n}") for n in ("Mode", "Days"))
        retention = None
        if mode or days:
            if mode not in ("GOVERNANCE", "COMPLIANCE") or not (days or "").isdigit():
                raise S3Error("MalformedXML", "A default retention is a mode and a number of days.")
            retention = [mode, int(days)]
        self.storage.configure_bucket(bucket.name, lock=True, default_retention=retention)
        return Answer()

    # ---- listings ----

    def list_objects_v2(self, request, check):
        body = self.listing.objects(self.bucket(request), dict(request.query))
        return Answer(200, dict(XML), body)

    def list_object_versions(self, request, check):
        body = self.listing.versions(self.bucket(request), dict(request.query))
        return Answer(200, dict(XML), body)

    # ---- objects ----

    def begin_put(self, request, check):
        """What can be refused before the body is read; gives the version that it may become."""
        bucket, headers = self.bucket(request), request.headers
        if request.length > OBJECT_LIMIT:
            raise S3Error("EntityTooLarge",
                          "Your proposed upload exceeds the maximum allowed object size.")
        condition = headers.get("if-none-match")
        if condition not in (None, "*"):
            raise S3Error("NotImplemented", "If-None-Match of a PUT can only be *.")
        kept = {name: headers[name] for name in KEPT if name in headers}
        metadata = {n: v for n, v in headers.items() if n.startswith("x-amz-meta-")}
        if sum(len(n) - len("x-amz-meta-") + len(v) for n, v in metadata.items()) > 2048:
            raise S3Error("MetadataTooLarge",
                          "Your metadata headers exceed the maximum allowed metadata size")
        if kept.get("x-amz-storage-class", "STANDARD") not in STORAGE_CLASSES:
            raise S3Error("InvalidStorageClass", "The storage class you specified is not valid")
        encryption = kept.setdefault("x-amz-server-side-encryption", "AES256")
        if encryption not in ("AES256", "aws:kms"):
            raise S3Error("InvalidArgument", "The encryption method specified is not supported")
        if encryption != "aws:kms" and "x-amz-server-side-encryption-aws-kms-key-id" in kept:
            raise S3Error("InvalidArgument", "Server Side Encryption with AWS KMS managed key "
                          "requires HTTP header x-amz-server-side-encryption : aws:kms")
        version = Version(id="", modified=0, headers={**kept, **metadata})
        self.set_lock(bucket, headers, check, version)
        return bucket, version

    def set_lock(self, bucket, headers, check, version):
        mode = headers.get("x-amz-object-lock-mode")
        until = headers.get("x-amz-object-lock-retain-until-date")
        hold = headers.get("x-amz-object-lock-legal-hold")
        if mode or until or hold:
            if not bucket.lock:
                raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")
            if bool(mode) != bool(until):
                raise S3Error("InvalidArgument", "x-amz-object-lock-retain-until-date and "
                              "x-amz-object-lock-mode must both be supplied")
            if mode:
                self.authorize("s3:PutObjectRetention", bucket.name, "")
            if hold:
                self.authorize("s3:PutObjectLegalHold", bucket.name, "")
        if not check.guards_content and (mode or hold or bucket.default_retention):
            raise S3Error("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is "
                          "required for Put Object requests with Object Lock parameters")
        if mode:
            self.check_retention(mode, read_iso_time(until))
            version.lock_mode, version.locked_until = mode, read_iso_time(until)
        elif bucket.default_retention:
            version.lock_mode, days = bucket.default_retention
            version.locked_until = self.clock() + days * 86400
        if hold not in (None, "ON", "OFF"):
            raise S3Error("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'")
        version.legal_hold = hold == "ON"

    def check_retention(self, mode, until):
        if mode not in ("GOVERNANCE", "COMPLIANCE"):
            raise S3Error("InvalidArgument", "Unknown wormMode directive.")
        if until <= self.clock():
            raise S3Error("InvalidArgument", "The retain until date must be in the future!")

    def put_object(self, request, check):
        with self.storage.lock:
            bucket, version = self.begin_put(request, check)
            deletions = bucket.deletions.get(request.key, 0)
        name = self.storage.new_file()
        path = self.storage.path(name)
        is_kept = False
        try:
            with open(path, "wb", buffering=0) as file:
                for piece in request.pieces():
                    check.update(piece)
                    while len(piece):
                        piece = piece[file.write(piece):]
            version.checksums = check.finish()
            version.file, version.size = name, check.length
            # With a customer's key the ETag says nothing of the content.
            version.etag = (check.md5.hexdigest() if version.headers[
                "x-amz-server-side-encryption"] == "AES256" else secrets.token_hex(16))
            with self.storage.lock:
                self.check_put_condition(bucket, request, deletions)
                version.modified = self.clock()
                self.storage.add_version(bucket.name, request.key, version)
            is_kept = True
        finally:
            if not is_kept:
                os.unlink(path)
        headers = {"ETag": f'"{version.etag}"', **self.version_header(bucket, version),
                   **{n: v for n, v in version.headers.items()
                      if n.startswith("x-amz-server-side")},
                   **{f"x-amz-checksum-{n}": v for n, v in version.checksums.items()}}
        return Answer(200, headers)

    @staticmethod
    def check_put_condition(bucket, request, deletions):
        """Conditions are judged when the body is there: of several writers one is the first."""
        current = bucket.current(request.key)
        failed = S3Error("PreconditionFailed",
                         "At least one of the pre-conditions you specified did not hold",
                         {"Condition": "If-None-Match"})
        if "if-none-match" in request.headers:
            if current is not None:
                raise failed
            if bucket.deletions.get(request.key, 0) != deletions:
                raise S3Error("ConditionalRequestConflict", "The conditional request cannot "
                              "succeed due to a conflicting operation against this resource.")
        wanted = request.headers.get("if-match")
        if wanted is not None:
            if current is None:
                raise no_such_key(request.key)
            if unquoted(wanted) != current.etag:
                failed.elements["Condition"] = "If-Match"
                raise failed

    @staticmethod
    def version_header(bucket, version):
        return {"x-amz-version-id": version.id} if bucket.versioning else {}

    def find(self, request):
        """The bucket and the version that a request means."""
        bucket = self.bucket(request)
        identifier = dict(request.query).get("versionId")
        if identifier is None:
            version = bucket.current(request.key)
            if version is None:
                try:
                    self.authorize("s3:ListBucket", request.bucket, "")
                except S3Error:
                    # Who may not list does not learn what is not there.
                    raise S3Error("AccessDenied", "Access Denied") from None
                versions = bucket.objects.get(request.key)
                error = no_such_key(request.key)
                if versions:
                    error.headers = {"x-amz-delete-marker": "true",
                                     "x-amz-version-id": versions[-1].id}
                raise error
            return bucket, version
        version = bucket.version(request.key, identifier)
        if version is None:
            raise S3Error("NoSuchVersion", "The specified version does not exist.",
                          {"Key": request.key, "VersionId": identifier})
        return bucket, version

    def get_object(self, request, check):
        with self.storage.lock:
            bucket, version = self.find(request)
        if version.is_marker:
            raise S3Error("MethodNotAllowed", "The specified method is not allowed against this "
                          "resource.", headers={"x-amz-delete-marker": "true"})
        headers = {
            "Last-Modified": email.utils.formatdate(version.modified, usegmt=True),
            "ETag": f'"{version.etag}"', "Accept-Ranges": "bytes",
            "content-type": "binary/octet-stream", **self.version_header(bucket, version)}
        headers.update({n: v for n, v in version.headers.items()
                        if n != "x-amz-storage-class" or v != "STANDARD"})
        if version.lock_mode and self.may("s3:GetObjectRetention", bucket.name, request.key):
            headers["x-amz-object-lock-mode"] = version.lock_mode
            headers["x-amz-object-lock-retain-until-date"] = iso_time(version.locked_until)
        if version.legal_hold:
            headers["x-amz-object-lock-legal-hold"] = "ON"
        wanted, unwanted = (request.headers.get(n) for n in ("if-match", "if-none-match"))
        if wanted is not None and unquoted(wanted) not in (version.etag, "*"):
            raise S3Error("PreconditionFailed", "At least one of the pre-conditions you specified "
                          "did not hold", {"Condition": "If-Match"})
        if unwanted is not None and unquoted(unwanted) in (version.etag, "*"):
            return Answer(304, {"ETag": headers["ETag"]})
        offset, length, is_part = self.read_range(request.headers.get("range"), version.size)
        if is_part:
            headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{version.size}"
        elif request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers.update({f"x-amz-checksum-{n}": v for n, v in version.checksums.items()})
            if version.checksums:
                headers["x-amz-checksum-type"] = "FULL_OBJECT"
        if request.method == "GET" and version.storage_class in ARCHIVED:
            raise S3Error("InvalidObjectState", "The operation is not valid for the object's "
                          "storage class", {"StorageClass": version.storage_class})
        return Answer(206 if is_part else 200, headers,
                      part=(self.storage.path(version.file), offset, length))

    head_object = get_object

    @staticmethod
    def read_range(text, size):
        """Offset, length, and whether it is a part. What is no single range is ignored."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", text or "")
        if not match or match.groups() == ("", ""):
            return 0, size, False
        first, last = match.groups()
        if first == "":
            start, end = max(0, size - int(last)), size
            satisfiable = int(last) > 0 and size > 0
        else:
            start, end = int(first), min(size, int(last) + 1) if last else size
            if last and int(last) < start:
                return 0, size, False
            satisfiable = start < size
        if not satisfiable:
            raise S3Error("InvalidRange", "The requested range is not satisfiable",
                          {"RangeRequested": text, "ActualObjectSize": size},
                          {"Content-Range": f"bytes */{size}"})
        return start, end - start, True

    # ---- deleting ----

    def delete_one(self, bucket, key, identifier, bypasses):
        """Gives the headers that tell what became of it. Deleting what is not there succeeds."""
        if bypasses:
            self.authorize("s3:BypassGovernanceRetention", bucket.name, key)
        if identifier is not None:
            self.authorize("s3:DeleteObjectVersion", bucket.name, key)
            version = bucket.version(key, identifier)
            if version is None:
                return {}
            if not version.is_marker and version.is_protected(self.clock(), bypasses):
                raise S3Error("AccessDenied",
                              "Access Denied because object protected by object lock.")
            self.storage.remove_version(bucket.name, key, identifier)
            return {"x-amz-version-id": identifier,
                    **({"x-amz-delete-marker": "true"} if version.is_marker else {})}
        self.authorize("s3:DeleteObject", bucket.name, key)
        if not bucket.versioning:
            if key in bucket.objects:
                self.storage.remove_version(bucket.name, key, "null")
            return {}
        marker = Version(id="", modified=self.clock(), is_marker=True)
        self.storage.add_version(bucket.name, key, marker)
        return {"x-amz-delete-marker": "true", "x-amz-version-id": marker.id}

    def bypasses(self, request):
        return request.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"

    def delete_object(self, request, check):
        headers = self.delete_one(self.bucket(request), request.key,
                                  dict(request.query).get("versionId"), self.bypasses(request))
        return Answer(204, headers)

    def delete_objects(self, request, check):
        if not check.guards_content:
            raise S3Error("InvalidRequest",
                          "Missing required header for this request: Content-MD5 OR "
                          "x-amz-checksum-*")
        bucket = self.bucket(request)
        element = parse_xml(request.checked_body, "Delete")
        objects = element.findall("Object")
        if not 0 < len(objects) <= 1000:
            raise S3Error("MalformedXML", "The XML you provided was not well-formed or did not "
                          "validate against our published schema")
        inside = []
        for each in objects:
            key, identifier = each.findtext("Key"), each.findtext("VersionId")
            if not key:
                raise S3Error("MalformedXML", "An object without a key cannot be deleted.")
            try:
                self.delete_one(bucket, key, identifier, self.bypasses(request))
                if element.findtext("Quiet") != "true":
                    inside.append(f"<Deleted><Key>{xml_text(key)}</Key></Deleted>")
            except S3Error as error:
                inside.append(f"<Error><Key>{xml_text(key)}</Key><Code>{error.code}</Code>"
                              f"<Message>{escape(error.message)}</Message></Error>")
        return Answer(200, dict(XML), document("DeleteResult", "".join(inside)))

    # ---- locks of single versions ----

    def get_object_retention(self, request, check):
        _, version = self.find(request)
        if not version.lock_mode:
            raise S3Error("NoSuchObjectLockConfiguration",
                          "The specified object does not have a ObjectLock configuration")
        return Answer(200, dict(XML), document(
            "Retention", f"<Mode>{version.lock_mode}</Mode><RetainUntilDate>"
            f"{iso_time(version.locked_until)}</RetainUntilDate>"))

    def put_object_retention(self, request, check):
        bucket, version = self.find(request)
        self.check_may_be_locked(bucket, check)
        element = parse_xml(request.checked_body, "Retention")
        mode, until = element.findtext("Mode"), read_iso_time(element.findtext("RetainUntilDate"))
        self.check_retention(mode, until)
        is_weaker = until < version.locked_until or (
            version.lock_mode == "COMPLIANCE" and mode != "COMPLIANCE")
        holds = version.lock_mode and version.locked_until > self.clock()
        if holds and is_weaker and (
                version.lock_mode == "COMPLIANCE" or not self.bypasses(request)):
            raise S3Error("AccessDenied",
                          "Access Denied because object protected by object lock.")
        self.storage.change_version(bucket.name, request.key, version.id, lock_mode=mode,
                                    locked_until=until)
        return Answer()

    def get_object_legal_hold(self, request, check):
        _, version = self.find(request)
        return Answer(200, dict(XML), document(
            "LegalHold", f"<Status>{'ON' if version.legal_hold else 'OFF'}</Status>"))

    def put_object_legal_hold(self, request, check):
        bucket, version = self.find(request)
        self.check_may_be_locked(bucket, check)
        state = parse_xml(request.checked_body, "LegalHold").findtext("Status")
        if state not in ("ON", "OFF"):
            raise S3Error("MalformedXML", "A legal hold is ON or OFF.")
        self.storage.change_version(bucket.name, request.key, version.id,
                                    legal_hold=state == "ON")
        return Answer()

    @staticmethod
    def check_may_be_locked(bucket, check):
        if not bucket.lock:
            raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")
        if not check.guards_content:
            raise S3Error("InvalidRequest", "Missing required header for this request: "
                          "Content-MD5 OR x-amz-checksum-*")
