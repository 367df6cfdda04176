"""ListObjectsV2 and ListObjectVersions: pages of at most a thousand names."""

import base64
import bisect
import hashlib
import hmac
import time
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

from .errors import S3Error

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def iso_time(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".000Z"


def xml_text(text):
    """Text of an element. Control characters become references, which XML 1.0 forbids: so does
    Amazon, and therefore clients ask for encoding-type=url."""
    return "".join(f"&#{ord(c)};" if ord(c) < 32 else c
                   for c in escape(text, {'"': "&quot;"}))


def document(name, inside):
    return (f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} {NAMESPACE}>{inside}</{name}>'
            ).encode()


def behind(prefix):
    """The least text that is greater than all that begins with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class Page:
    """What one request lists: entries and common prefixes, and where the next page begins."""

    def __init__(self, bucket, prefix, delimiter, after, limit):
        self.names, self.prefixes, self.last, self.is_truncated = [], [], None, False
        at = bisect.bisect_left(bucket.names, prefix)
        if after is not None and after >= prefix:
            at = bisect.bisect_right(bucket.names, after)
            if delimiter and after.startswith(prefix) and after.endswith(delimiter):
                # It was a common prefix, and stands for all below it.
                at = bisect.bisect_left(bucket.names, behind(after))
        while at < len(bucket.names) and bucket.names[at].startswith(prefix):
            name = bucket.names[at]
            if not self.is_listed(bucket, name):
                at += 1
                continue
            if len(self.names) + len(self.prefixes) == limit:
                self.is_truncated = limit > 0
                return
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                self.last = name[:cut + len(delimiter)]
                self.prefixes.append(self.last)
                at = bisect.bisect_left(bucket.names, behind(self.last))
            else:
                self.last = name
                self.names.append(name)
                at += 1

    def is_listed(self, bucket, name):
        return bucket.current(name) is not None


class VersionPage(Page):
    def is_listed(self, bucket, name):
        return True


class Listing:
    """Reads the parameters of a listing and writes its answer."""

    def __init__(self, secret, page_limit):
        self.secret, self.page_limit = secret.encode(), page_limit

    def token(self, name):
        seal = hmac.new(self.secret, name.encode(), hashlib.sha256).digest()[:8]
        return base64.b64encode(seal + name.encode()).decode()

    def read_token(self, token):
        try:
            raw = base64.b64decode(token, validate=True)
            name = raw[8:].decode()
        except ValueError:
            name, raw = "", b""
        if not hmac.compare_digest(self.token(name), token) or not raw:
            raise S3Error("InvalidArgument", "The continuation token provided is incorrect",
                          {"ArgumentName": "continuation-token"})
        return name

    def parameters(self, values):
        encoding = values.get("encoding-type", "")
        if encoding not in ("", "url"):
            raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request",
                          {"ArgumentName": "encoding-type"})
        limit = values.get("max-keys", "1000")
        if not limit.isdigit():
            raise S3Error("InvalidArgument", "Provided max-keys not an integer or within integer "
                          "range", {"ArgumentName": "max-keys"})
        # As Amazon's form encoding: a space comes as a plus.
        text = (lambda name: quote_plus(name, safe="/")) if encoding else xml_text
        shown = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
        return text, shown, min(int(limit), 1000), min(int(limit), 1000, self.page_limit)

    def objects(self, bucket, values):
        if values.get("list-type") != "2":
            raise S3Error("InvalidArgument", "Only list-type=2 is known here.")
        text, encoding, asked, limit = self.parameters(values)
        prefix, delimiter = values.get("prefix", ""), values.get("delimiter", "")
        after = values.get("start-after")
        token = values.get("continuation-token")
        if token is not None:
            after = self.read_token(token)
        page = Page(bucket, prefix, delimiter, after, limit)
        inside = [f"<Name>{bucket.name}</Name><Prefix>{text(prefix)}</Prefix>",
                  f"<KeyCount>{len(page.names) + len(page.prefixes)}</KeyCount>",
                  f"<MaxKeys>{asked}</MaxKeys>{encoding}"]
        if delimiter:
            inside.append(f"<Delimiter>{text(delimiter)}</Delimiter>")
        if "start-after" in values:
            inside.append(f"<StartAfter>{text(values['start-after'])}</StartAfter>")
        if token is not None:
            inside.append(f"<ContinuationToken>{xml_text(token)}</ContinuationToken>")
        inside.append(f"<IsTruncated>{str(page.is_truncated).lower()}</IsTruncated>")
        if page.is_truncated:
            inside.append(f"<NextContinuationToken>{self.token(page.last)}"
                          "</NextContinuationToken>")
        owner = ("<Owner><ID>owner</ID></Owner>" if values.get("fetch-owner") == "true" else "")
        for name in page.names:
            version = bucket.current(name)
            algorithms = "".join(f"<ChecksumAlgorithm>{a.upper()}</ChecksumAlgorithm>"
                                 for a in version.checksums)
            inside.append(
                f"<Contents><Key>{text(name)}</Key>"
                f"<LastModified>{iso_time(version.modified)}</LastModified>"
                f"<ETag>&quot;{version.etag}&quot;</ETag>{algorithms}<Size>{version.size}</Size>"
                f"{owner}<StorageClass>{version.storage_class}</StorageClass></Contents>")
        inside += [f"<CommonPrefixes><Prefix>{text(p)}</Prefix></CommonPrefixes>"
                   for p in page.prefixes]
        return document("ListBucketResult", "".join(inside))

    def versions(self, bucket, values):
        """All versions, name by name, the newest first. A page ends between two names."""
        text, encoding, asked, limit = self.parameters(values)
        prefix, delimiter = values.get("prefix", ""), values.get("delimiter", "")
        page = VersionPage(bucket, prefix, delimiter, values.get("key-marker"), limit)
        inside = [f"<Name>{bucket.name}</Name><Prefix>{text(prefix)}</Prefix>"
                  f"<KeyMarker>{text(values.get('key-marker', ''))}</KeyMarker>"
                  f"<VersionIdMarker></VersionIdMarker><MaxKeys>{asked}</MaxKeys>{encoding}"
                  f"<IsTruncated>{str(page.is_truncated).lower()}</IsTruncated>"]
        if page.is_truncated:
            inside.append(f"<NextKeyMarker>{text(page.last)}</NextKeyMarker>")
        for name in page.names:
            versions = bucket.objects[name]
            for version in reversed(versions):
                latest = str(version is versions[-1]).lower()
                common = (f"<Key>{text(name)}</Key><VersionId>{version.id}</VersionId>"
                          f"<IsLatest>{latest}</IsLatest>"
                          f"<LastModified>{iso_time(version.modified)}</LastModified>")
                if version.is_marker:
                    inside.append(f"<DeleteMarker>{common}</DeleteMarker>")
                else:
                    inside.append(f"<Version>{common}<ETag>&quot;{version.etag}&quot;</ETag>"
                                  f"<Size>{version.size}</Size><StorageClass>"
                                  f"{version.storage_class}</StorageClass></Version>")
        inside += [f"<CommonPrefixes><Prefix>{text(p)}</Prefix></CommonPrefixes>"
                   for p in page.prefixes]
        return document("ListVersionsResult", "".join(inside))
