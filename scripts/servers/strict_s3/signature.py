"""Checks AWS signature version 4, in the header and in the query.

Sources: the Amazon S3 API reference, "Authenticating requests (AWS Signature Version 4)".
"""

import calendar
import hashlib
import hmac
import re
import time
from urllib.parse import quote, unquote_to_bytes

from .errors import S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
MAXIMUM_SKEW = 15 * 60
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^ ,]+), ?SignedHeaders=([^ ,]+), ?Signature=([0-9a-f]{64})")


def encode(text, safe=""):
    """AWS's percent-encoding: everything but letters, digits and -._~"""
    return quote(text, safe=safe + "-._~")


def decode(text):
    """Undoes percent-encoding. Raises where an escape is broken or the bytes are not UTF-8."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise S3Error("InvalidURI", "Couldn't parse the specified URI: a broken % escape.")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "Couldn't parse the specified URI: not UTF-8.") from None


def parse_query(raw):
    """Decoded pairs, in their order. A raw `+` is refused: some read a space, others a plus."""
    if "+" in raw:
        raise S3Error("InvalidURI", "A plus sign in a query has to be written %2B, a space %20.")
    pairs = []
    for part in raw.split("&") if raw else ():
        name, _, value = part.partition("=")
        pairs.append((decode(name), decode(value)))
    return pairs


def timestamp(text):
    try:
        return calendar.timegm(time.strptime(text, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise S3Error("AccessDenied", "AWS authentication requires a valid x-amz-date, "
                      f"as 20130524T000000Z; not {text!r}.") from None


class Verifier:
    """Knows the access keys, and says who signed a request."""

    def __init__(self, region, clock):
        self.region, self.clock = region, clock
        self.keys = {}        # access key -> (secret, session token or None, expiry or None)
        self.cache = {}

    def verify(self, request):
        """Gives the payload hash that was signed, and the scope's region; or raises S3Error."""
        names = {name for name, _ in request.query}
        in_header = "authorization" in request.headers
        in_query = "X-Amz-Signature" in names or "X-Amz-Algorithm" in names
        if in_header and in_query:
            raise S3Error("InvalidArgument", "Only one auth mechanism allowed.")
        if in_header:
            return self.verify_header(request)
        if in_query:
            return self.verify_query(request)
        raise S3Error("AccessDenied", "Anonymous requests are not allowed.")

    def verify_header(self, request):
        match = _AUTHORIZATION.fullmatch(request.headers["authorization"])
        if not match:
            raise S3Error("AuthorizationHeaderMalformed", "The authorization header is malformed.")
        credential, signed, signature = match.groups()
        date = request.headers.get("x-amz-date")
        if date is None:
            raise S3Error("AccessDenied", "AWS authentication requires an x-amz-date header.")
        payload = request.headers.get("x-amz-content-sha256")
        if payload is None:
            raise S3Error("InvalidRequest",
                          "Missing required header for this request: x-amz-content-sha256")
        secret, region = self.check_scope(
            credential, date, "AuthorizationHeaderMalformed",
            request.headers.get("x-amz-security-token"))
        now = self.clock()
        if abs(timestamp(date) - now) > MAXIMUM_SKEW:
            raise S3Error(
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
                {"RequestTime": date, "MaxAllowedSkewMilliseconds": MAXIMUM_SKEW * 1000,
                 "ServerTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))})
        self.check_signed_headers(request, signed)
        self.check_signature(request, request.query, signed, payload, date, secret, region,
                             signature)
        return payload, region

    def verify_query(self, request):
        values = dict(request.query)
        missing = [name for name in ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date",
                                     "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature")
                   if name not in values]
        if missing or values["X-Amz-Algorithm"] != ALGORITHM:
            raise S3Error("AuthorizationQueryParametersError",
                          "Query-string authentication version 4 requires the parameters "
                          "X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, "
                          "X-Amz-SignedHeaders and X-Amz-Expires.")
        if not values["X-Amz-Expires"].isdigit() or not 0 < int(values["X-Amz-Expires"]) <= 604800:
            raise S3Error("AuthorizationQueryParametersError",
                          "X-Amz-Expires must be between 1 and 604800 seconds.")
        date = values["X-Amz-Date"]
        secret, region = self.check_scope(
            values["X-Amz-Credential"], date, "AuthorizationQueryParametersError",
            values.get("X-Amz-Security-Token"))
        signed_at, now = timestamp(date), self.clock()
        if signed_at > now + MAXIMUM_SKEW:
            raise S3Error("AccessDenied", "Request is not valid yet.")
        if signed_at + int(values["X-Amz-Expires"]) < now:
            raise S3Error("AccessDenied", "Request has expired.")
        self.check_signed_headers(request, values["X-Amz-SignedHeaders"])
        pairs = [pair for pair in request.query if pair[0] != "X-Amz-Signature"]
        payload = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        self.check_signature(request, pairs, values["X-Amz-SignedHeaders"], payload, date, secret,
                             region, values["X-Amz-Signature"])
        return "UNSIGNED-PAYLOAD", region

    def check_scope(self, credential, date, code, token):
        parts = credential.split("/")
        if len(parts) != 5 or parts[3] != "s3" or parts[4] != "aws4_request":
            raise S3Error(code, f"The credential {credential!r} is not ACCESS_KEY/DATE/REGION/s3/"
                          "aws4_request.")
        access_key, day, region = parts[:3]
        if access_key not in self.keys:
            raise S3Error("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist "
                          "in our records.", {"AWSAccessKeyId": access_key})
        if day != date[:8]:
            raise S3Error(code, f"The date in the credential scope, {day}, is not that of the "
                          f"request, {date}.")
        secret, expected_token, expiry = self.keys[access_key]
        if token != expected_token:
            raise S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.")
        if expiry is not None and self.clock() > expiry:
            raise S3Error("ExpiredToken", "The provided token has expired.")
        return secret, region

    @staticmethod
    def check_signed_headers(request, signed):
        names = signed.split(";")
        if names != sorted(names) or signed != signed.lower():
            raise S3Error("AccessDenied", "SignedHeaders have to be sorted and in lower case.")
        # Amazon demands the host and what is its own; what guards the content is demanded here too.
        unsigned = [name for name in request.headers
                    if (name == "host" or name == "content-md5" or name.startswith("x-amz-"))
                    and name not in names]
        if unsigned or "host" not in names:
            raise S3Error("AccessDenied",
                          "There were headers present in the request which were not signed",
                          {"HeadersNotSigned": ", ".join(unsigned)})

    def check_signature(self, request, pairs, signed, payload, date, secret, region, signature):
        canonical_query = "&".join(
            f"{name}={value}"
            for name, value in sorted((encode(name), encode(value)) for name, value in pairs))
        headers = "".join(
            f"{name}:{' '.join(request.headers.get(name, '').split())}\n"
            for name in signed.split(";"))
        canonical = "\n".join((request.method, encode(request.path, safe="/"), canonical_query,
                               headers, signed, payload))
        scope = f"{date[:8]}/{region}/s3/aws4_request"
        to_sign = "\n".join((ALGORITHM, date, scope,
                             hashlib.sha256(canonical.encode()).hexdigest()))
        key = self.signing_key(secret, date[:8], region)
        expected = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, signature):
            raise S3Error(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. "
                "Check your key and signing method.",
                {"StringToSign": to_sign, "CanonicalRequest": canonical})

    def signing_key(self, secret, day, region):
        found = self.cache.get((secret, day, region))
        if found is None:
            found = b"AWS4" + secret.encode()
            for part in (day, region, "s3", "aws4_request"):
                found = hmac.new(found, part.encode(), hashlib.sha256).digest()
            self.cache[secret, day, region] = found
        return found
