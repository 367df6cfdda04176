import SnapshotModel
import Transfer

/// An answer that says no, and what it means: for the client, which may ask again otherwise, and
/// for the user, in words.
///
/// The codes are those of "Error responses" in the Amazon S3 API reference, and what other services
/// say instead.
struct S3Failure {
    private let response: TransferResponse
    private let request: S3Client.Request
    private let location: S3Location
    private let credentials: S3Credentials
    private let hostTime: Int64
    /// Empty where the answer had no document, as none has to a HEAD.
    private let code: String
    private let message: String
    private let details: [String: String]

    /// - Parameter hostTime: The time of this host in seconds since 1970.
    init(
        _ response: TransferResponse, request: S3Client.Request, location: S3Location,
        credentials: S3Credentials, hostTime: Int64
    ) {
        self.response = response
        self.request = request
        self.location = location
        self.credentials = credentials
        self.hostTime = hostTime
        let document = S3Messages.failure(response.body)
        code = document?.code ?? ""
        message = document?.message ?? ""
        details = document?.details ?? [:]
    }

    // MARK: - For the client

    /// The region to ask in instead; nil where that is not what is wrong.
    var otherRegion: String? {
        let says =
            response.headers["x-amz-bucket-region"] ?? details["Region"] ?? details["BucketRegion"]
        guard let region = says, region != location.region, S3Location.isLegal(region: region)
        else { return nil }
        switch code {
        case "PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed",
            "IncorrectEndpoint", "IllegalLocationConstraintException":
            return region
        // An answer to a HEAD has no document.
        case "": return [301, 307, 400, 403].contains(response.status) ? region : nil
        default: return nil
        }
    }

    /// Whether the credentials were good once and are no longer.
    var isExpired: Bool {
        ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"]
            .contains(code)
    }

    /// Whether an explanation is missing only because answers to a HEAD have none.
    var isUnexplained: Bool { code.isEmpty && request.method == "HEAD" }

    // MARK: - For the user

    var error: StorageError {
        let meaning = meaning
        return StorageError(
            meaning.kind, request.operation, key: meaning.isOfStore ? nil : request.key,
            location: location.text, cause: meaning.cause, isTransient: meaning.isTransient,
            isOverload: meaning.isOverload, retryAfterSeconds: retryAfterSeconds,
            hint: meaning.hint)
    }

    private struct Meaning {
        var kind: StorageError.Kind
        var cause: String
        var hint: String?
        var isTransient = false
        var isOverload = false
        /// It concerns the whole store, whichever object was asked for.
        var isOfStore = false
    }

    private var meaning: Meaning {
        byCode ?? byStatus
    }

    /// The service's own words, with its code.
    private var said: String {
        let words = message.isEmpty ? "" : ": \(S3Failure.oneLine(message))"
        return code.isEmpty ? "the service answered \(response.status)" : "\(code)\(words)"
    }

    private var byCode: Meaning? {
        switch code {
        case "NoSuchBucket":
            return Meaning(
                kind: .notFound, cause: "the bucket \(location.bucket) does not exist",
                hint: "check the bucket's name and the endpoint \(location.service), or create the"
                    + " bucket", isOfStore: true)
        case "NoSuchKey", "NoSuchVersion", "NoSuchObject":
            return Meaning(kind: .notFound, cause: "there is no such object")
        case "AccessDenied", "AllAccessDisabled", "AccountProblem", "UnauthorizedAccess",
            "Forbidden":
            return denied
        case "InvalidAccessKeyId":
            return Meaning(
                kind: .denied,
                cause: "the service does not know the access key \(credentials.keyID)",
                hint: "it comes from \(credentials.origin); check that it belongs to"
                    + " \(location.service)", isOfStore: true)
        case "SignatureDoesNotMatch":
            return Meaning(
                kind: .denied,
                cause: "the secret key does not belong to the access key \(credentials.keyID)",
                hint: "check the secret key in \(credentials.origin), and that no proxy on the way"
                    + " alters requests", isOfStore: true)
        case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken",
            "RequestExpired":
            return Meaning(
                kind: .denied, cause: "the credentials have ended (\(code))",
                hint: "renew what \(credentials.origin) holds", isOfStore: true)
        case "RequestTimeTooSkewed":
            return skewed
        case "PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed",
            "IncorrectEndpoint", "IllegalLocationConstraintException":
            let place = details["Region"].map { "in the region \($0)" } ?? "in another region"
            return Meaning(
                kind: .unsupported,
                cause: "the bucket \(location.bucket) is \(place), not in \(location.region) at"
                    + " \(location.service)",
                hint: "name its region and its endpoint; the service says: \(said)",
                isOfStore: true)
        case "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
            "InvalidDigest", "BadChecksum", "ContentSHA256Mismatch":
            return Meaning(
                kind: .io, cause: "what arrived is not what was sent (\(code))",
                hint: "the service kept nothing of it; if it goes on, look at this host's memory"
                    + " and disk and at proxies on the way", isTransient: true)
        case "EntityTooLarge", "MaxMessageLengthExceeded":
            return Meaning(
                kind: .tooLarge, cause: "the service takes no object of this size: \(said)",
                hint: "raise the service's limit; a bundle has about 64 MiB")
        case "QuotaExceeded", "XMinioStorageFull", "StorageFull", "InsufficientStorage",
            "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity", "StorageQuotaExceeded",
            "StorageCapExceeded":
            return Meaning(kind: .noSpace, cause: said)
        case "InvalidObjectState":
            return Meaning(
                kind: .unsupported,
                cause: "the object lies in an archive, and cannot be read there",
                hint: "have the service restore it from its storage class first")
        case "InvalidStorageClass":
            return Meaning(
                kind: .unsupported, cause: "the service has no such storage class",
                hint: "choose one that \(location.service) offers")
        case "NotImplemented", "MethodNotAllowed", "UnsupportedOperation":
            return Meaning(
                kind: .unsupported, cause: "the service cannot do it: \(said)",
                hint: "`batchsync store check` shows what it can")
        default:
            return S3Failure.transientCodes[code].map { isOverload in
                Meaning(
                    kind: .unavailable, cause: said, isTransient: true, isOverload: isOverload)
            }
        }
    }

    /// Codes that pass by themselves, and whether fewer requests would help.
    private static let transientCodes: [String: Bool] = [
        "SlowDown": true, "SlowDownRead": true, "SlowDownWrite": true, "ServiceUnavailable": true,
        "TooManyRequests": true, "TooManyRequestsException": true, "RequestLimitExceeded": true,
        "Throttling": true, "ThrottlingException": true, "ThrottledException": true,
        "BandwidthLimitExceeded": true, "RequestThrottled": true, "Busy": true,
        "InternalError": false, "RequestTimeout": false, "RequestTimeoutException": false,
        "OperationAborted": false, "ConditionalRequestConflict": false, "IncompleteBody": false,
        "XMinioServerNotInitialized": false,
    ]

    private var byStatus: Meaning {
        switch response.status {
        case 301, 302, 303, 307, 308:
            Meaning(
                kind: .unsupported, cause: "the service sends the request elsewhere: \(said)",
                hint: "name the endpoint and the region of the bucket", isOfStore: true)
        case 401, 403: denied
        case 404: Meaning(kind: .notFound, cause: "there is no such object")
        case 407:
            Meaning(
                kind: .denied, cause: "the proxy wants a login",
                hint: "put it into the proxy's address, or name the host in NO_PROXY",
                isOfStore: true)
        case 413: Meaning(kind: .tooLarge, cause: "the service takes no object of this size")
        case 429, 503:
            Meaning(kind: .unavailable, cause: said, isTransient: true, isOverload: true)
        case 507: Meaning(kind: .noSpace, cause: said)
        case 501, 405: Meaning(kind: .unsupported, cause: "the service cannot do it: \(said)")
        case 408, 500...: Meaning(kind: .unavailable, cause: said, isTransient: true)
        default:
            Meaning(
                kind: .unsupported, cause: said,
                hint: "check that \(location.service) is the address of a service that speaks S3")
        }
    }

    private var denied: Meaning {
        if let seconds = skewSeconds, abs(seconds) > S3Failure.skewMaximumSeconds { return skewed }
        return Meaning(
            kind: .denied,
            cause: "the bucket \(location.bucket) does not let \(credentials.keyID) do it"
                + (code.isEmpty || code == "AccessDenied" ? "" : " (\(code))"),
            hint: "allow \(request.permission) on \(S3Failure.resource(request, location)) to this"
                + " key, which comes from \(credentials.origin)")
    }

    private var skewed: Meaning {
        let server = details["ServerTime"] ?? response.headers["date"] ?? "another time"
        let host = Timestamp(seconds: hostTime).compactUTC
        return Meaning(
            kind: .denied,
            cause: "the clocks differ too much: here it is \(host), at the service \(server)",
            hint: "set the clock of this host, for instance with `timedatectl set-ntp true`",
            isOfStore: true)
    }

    /// How far this host is ahead of the service; nil where the answer tells no time.
    private var skewSeconds: Int64? {
        response.headers["date"].flatMap { StoreTime.seconds(httpDate: $0) }.map { hostTime - $0 }
    }

    /// What services allow is 15 minutes.
    private static let skewMaximumSeconds: Int64 = 15 * 60

    /// Seconds, or a date (RFC 9110, section 10.2.3).
    private var retryAfterSeconds: Double? {
        guard let text = response.headers["retry-after"] else { return nil }
        if let seconds = Double(text) { return seconds >= 0 && seconds.isFinite ? seconds : nil }
        guard let date = StoreTime.seconds(httpDate: text) else { return nil }
        let now =
            response.headers["date"].flatMap { StoreTime.seconds(httpDate: $0) } ?? hostTime
        return max(0, Double(date - now))
    }

    /// What a policy would name.
    private static func resource(_ request: S3Client.Request, _ location: S3Location) -> String {
        request.key == nil
            ? "the bucket \(location.bucket)" : "\(location.bucket)/\(location.prefix)*"
    }

    private static func oneLine(_ text: String) -> String {
        let line = text.split(whereSeparator: \.isNewline).joined(separator: " ").prefix(300)
        return line.hasSuffix(".") ? String(line.dropLast()) : String(line)
    }
}

/// What the layers below say, as an error of this room.
extension S3Failure {
    static func error(
        _ error: TransferError, request: S3Client.Request, location: S3Location
    ) -> StorageError {
        let service = location.service
        let (kind, hint): (StorageError.Kind, String?) =
            switch error.kind {
            case .resolve:
                (.unavailable, "check this host's network, and the endpoint \(service)")
            case .connect:
                (
                    .unavailable,
                    "check that \(service) can be reached from here, or a proxy set in the"
                        + " environment"
                )
            case .untrusted:
                (
                    .untrusted,
                    "if \(service) has a certificate of its own authority, give that with"
                        + " --ca-file"
                )
            case .certificateFile:
                (.untrusted, "give a PEM file of certificates that can be read")
            case .tls:
                (.unavailable, "check whether \(service) speaks https at all")
            case .timeout, .stall, .reset, .shortage: (.unavailable, nil)
            case .protocolViolation:
                (.io, "check that \(service) is the address of a service that speaks S3")
            case .tooLarge: (.tooLarge, nil)
            case .cancelled: (.unavailable, "start it again when it may run")
            case .file: (.io, nil)
            case .invalidRequest: (.unsupported, "check the endpoint and the options of the store")
            case .login, .missing, .denied, .full, .refused: (.denied, nil)
            }
        let isOfStore = kind == .untrusted || error.kind == .resolve || error.kind == .connect
        return StorageError(
            kind, request.operation, key: isOfStore ? nil : request.key, location: location.text,
            cause: error.text, isTransient: error.isTransient, hint: hint)
    }

    static func error(
        _ error: S3CredentialsError, request: S3Client.Request, location: S3Location
    ) -> StorageError {
        StorageError(
            error.isTransient ? .unavailable : .denied, request.operation, location: location.text,
            cause: error.cause, isTransient: error.isTransient, hint: error.hint)
    }

    /// One object that DeleteObjects could not delete.
    static func error(
        _ failure: S3Messages.DeleteFailure, key: ObjectKey, request: S3Client.Request,
        location: S3Location
    ) -> StorageError {
        let words = failure.message.isEmpty ? "" : ": \(oneLine(failure.message))"
        let isOverload = transientCodes[failure.code]
        let isDenied = failure.code == "AccessDenied"
        return StorageError(
            isDenied ? .denied : .unavailable, .delete, key: key, location: location.text,
            cause: "\(failure.code)\(words)", isTransient: isOverload != nil,
            isOverload: isOverload ?? false,
            hint: isDenied
                ? "allow \(request.permission) on \(resource(request, location)), or wait until a"
                    + " retention of the object has ended" : nil)
    }
}
