"""What S3 answers when it refuses."""

from xml.sax.saxutils import escape

STATUS = {
    "AccessDenied": 403, "AuthorizationHeaderMalformed": 400, "AuthorizationQueryParametersError": 400,
    "BadDigest": 400, "BucketAlreadyOwnedByYou": 409, "BucketNotEmpty": 409,
    "ConditionalRequestConflict": 409, "EntityTooLarge": 400, "ExpiredToken": 400,
    "IllegalLocationConstraintException": 400, "IncompleteBody": 400, "InternalError": 500,
    "InvalidAccessKeyId": 403, "InvalidArgument": 400, "InvalidBucketName": 400,
    "InvalidBucketState": 409, "InvalidDigest": 400, "InvalidObjectState": 403, "InvalidRange": 416,
    "InvalidRequest": 400, "InvalidStorageClass": 400, "InvalidToken": 400, "InvalidURI": 400,
    "KeyTooLongError": 400, "MalformedXML": 400, "MetadataTooLarge": 400, "MethodNotAllowed": 405,
    "MissingContentLength": 411, "NoSuchBucket": 404, "NoSuchKey": 404,
    "NoSuchObjectLockConfiguration": 404, "NoSuchVersion": 404, "NotImplemented": 501,
    "ObjectLockConfigurationNotFoundError": 404, "PermanentRedirect": 301,
    "PreconditionFailed": 412, "RequestTimeTooSkewed": 403, "SignatureDoesNotMatch": 403,
    "SlowDown": 503, "ServiceUnavailable": 503, "TemporaryRedirect": 307,
    "XAmzContentSHA256Mismatch": 400,
}


class S3Error(Exception):
    """One refusal: its code, the sentence, more elements of the XML body, more headers."""

    def __init__(self, code, message, elements=(), headers=(), status=None):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message
        self.elements, self.headers = dict(elements), dict(headers)
        self.status = status or STATUS[code]

    def body(self, resource, request_id):
        elements = {"Code": self.code, "Message": self.message, **self.elements,
                    "Resource": resource, "RequestId": request_id}
        inside = "".join(f"<{k}>{escape(str(v))}</{k}>" for k, v in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode()
