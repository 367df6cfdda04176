"""What a client may say of the bytes it sends, all of which is checked."""

import base64
import binascii
import hashlib
import zlib

from .errors import S3Error

UNSIGNED = "UNSIGNED-PAYLOAD"


def _crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


class CRC32:
    def __init__(self):
        self.value = 0

    def update(self, data):
        self.value = zlib.crc32(data, self.value)

    def digest(self):
        return self.value.to_bytes(4, "big")


class CRC32C:
    """In plain Python: a few megabytes a second, which is what a test sends with it."""

    _table = _crc32c_table()

    def __init__(self):
        self.value = 0xFFFFFFFF

    def update(self, data):
        value, table = self.value, self._table
        for byte in bytes(data):
            value = table[(value ^ byte) & 0xFF] ^ value >> 8
        self.value = value

    def digest(self):
        return (self.value ^ 0xFFFFFFFF).to_bytes(4, "big")


ALGORITHMS = {"crc32": CRC32, "crc32c": CRC32C, "sha1": hashlib.sha1, "sha256": hashlib.sha256}
HEADERS = {f"x-amz-checksum-{name}" for name in ALGORITHMS}


def from_base64(text, length, complaint):
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise complaint from None
    if len(value) != length:
        raise complaint
    return value


class PayloadCheck:
    """Holds the bytes of one request against its Content-MD5, x-amz-checksum-* and signed hash."""

    def __init__(self, headers, signed_hash, allow_unsigned):
        if signed_hash.startswith("STREAMING-"):
            raise S3Error("NotImplemented", "aws-chunked bodies are not accepted here: "
                          f"x-amz-content-sha256 is {signed_hash}.")
        if signed_hash == UNSIGNED:
            if not allow_unsigned:
                raise S3Error("InvalidRequest", "Unsigned payloads are not accepted here.")
        elif len(signed_hash) != 64 or set(signed_hash) - set("0123456789abcdef"):
            raise S3Error("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a "
                          "valid sha256 value.")
        self.signed_hash, self.length = signed_hash, 0
        self.md5, self.sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self.expected_md5 = None
        if "content-md5" in headers:
            self.expected_md5 = from_base64(headers["content-md5"], 16, S3Error(
                "InvalidDigest", "The Content-MD5 you specified was invalid."))
        self.read_checksum(headers)

    def read_checksum(self, headers):
        named = [name for name in headers if name.startswith("x-amz-checksum-")
                 and name not in ("x-amz-checksum-mode", "x-amz-checksum-type")]
        if len(named) > 1:
            raise S3Error("InvalidRequest",
                          "Expecting a single x-amz-checksum- header. Multiple checksum Types are "
                          "not allowed.")
        promised = headers.get("x-amz-sdk-checksum-algorithm")
        if promised and f"x-amz-checksum-{promised.lower()}" not in named:
            raise S3Error("InvalidRequest", "x-amz-sdk-checksum-algorithm specified, but no "
                          "corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
        self.algorithm = self.expected = self.other = None
        for name in named:
            algorithm = name.removeprefix("x-amz-checksum-")
            if algorithm not in ALGORITHMS:
                raise S3Error("NotImplemented", f"{name} is not checked here, so it is refused.")
            self.algorithm = algorithm
            if algorithm != "sha256":
                self.other = ALGORITHMS[algorithm]()
            length = len(ALGORITHMS[algorithm]().digest())
            self.expected = from_base64(headers[name], length, S3Error(
                "InvalidRequest", f"Value for {name} header is invalid."))

    @property
    def guards_content(self):
        """Whether the client vouches for the content by more than the signature."""
        return self.expected_md5 is not None or self.expected is not None

    def update(self, data):
        self.length += len(data)
        self.md5.update(data)
        self.sha256.update(data)
        if self.other:
            self.other.update(data)

    def finish(self):
        """Raises where a promise does not hold; gives the checksum to keep, as {name: base64}."""
        if self.signed_hash not in (UNSIGNED, self.sha256.hexdigest()):
            raise S3Error("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header "
                          "does not match what was computed.",
                          {"ClientComputedContentSHA256": self.signed_hash,
                           "S3ComputedContentSHA256": self.sha256.hexdigest()})
        if self.expected_md5 not in (None, self.md5.digest()):
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we "
                          "received.", {"CalculatedDigest": self.md5.hexdigest()})
        if self.algorithm is None:
            return {}
        computed = (self.other or self.sha256).digest()
        if computed != self.expected:
            raise S3Error("BadDigest", f"The {self.algorithm.upper()} you specified did not match "
                          "the calculated checksum.")
        return {self.algorithm: base64.b64encode(computed).decode()}
