import Synchronization

/// What proves to the service who asks.
package struct S3Credentials: Sendable, Equatable {
    package let keyID: String
    package let secret: String
    /// For credentials that were lent for a while.
    package let sessionToken: String?
    /// When they end, in seconds since 1970; nil for those that do not.
    package let expiration: Int64?
    /// Where they were found, for messages. Never holds a secret.
    package let origin: String

    package init(
        keyID: String, secret: String, sessionToken: String? = nil, expiration: Int64? = nil,
        origin: String
    ) {
        self.keyID = keyID
        self.secret = secret
        self.sessionToken = sessionToken
        self.expiration = expiration
        self.origin = origin
    }
}

/// Why there are no credentials: the sentence for the user, and what she can do.
package struct S3CredentialsError: Error, Sendable {
    package let cause: String
    package let hint: String
    /// Whether asking again later may help, as with a metadata service that does not answer.
    package let isTransient: Bool

    init(_ cause: String, hint: String, isTransient: Bool = false) {
        self.cause = cause
        self.hint = hint
        self.isTransient = isTransient
    }
}

/// A place where credentials may be found. Blocks while it looks.
package protocol S3CredentialSource: Sendable {
    /// Nil where this place has none, so that the next one is tried.
    ///
    /// - Throws: Where it should have some and something is wrong with it.
    func find() throws(S3CredentialsError) -> S3Credentials?
}

/// Keeps the credentials in force and fetches new ones before they end.
///
/// Any number of threads ask; one of them at a time looks for new ones, and only where the old ones
/// have really ended do the others wait for it.
final class S3CredentialKeeper: Sendable {
    private let source: any S3CredentialSource
    private let now: @Sendable () -> Int64
    private let current = Mutex<S3Credentials?>(nil)
    private let refreshing = Mutex<Void>(())

    /// New ones are looked for this long before the old ones end, in seconds: more than one
    /// request takes.
    static let marginSeconds: Int64 = 300

    /// - Parameter now: Seconds since 1970.
    init(_ source: any S3CredentialSource, now: @escaping @Sendable () -> Int64) {
        self.source = source
        self.now = now
    }

    /// Credentials that are good for at least one request.
    func credentials() throws(S3CredentialsError) -> S3Credentials {
        guard let known = current.withLock({ $0 }) else { return try refresh(replacing: nil) }
        guard let expiration = known.expiration else { return known }
        let left = expiration - now()
        if left > S3CredentialKeeper.marginSeconds { return known }
        do throws(S3CredentialsError) {
            return try refresh(replacing: known)
        } catch {
            // The old ones still serve; whoever asks next tries again.
            if left > 0 { return known }
            throw error
        }
    }

    /// Looks for others than `rejected`, which the service no longer accepts.
    func refresh(replacing rejected: S3Credentials?) throws(S3CredentialsError) -> S3Credentials {
        try refreshing.withLock { (_) throws(S3CredentialsError) in
            // Somebody else may have found new ones while this thread waited.
            if let known = current.withLock({ $0 }), known != rejected { return known }
            guard let found = try source.find() else {
                throw S3CredentialsError(
                    "there are no credentials",
                    hint: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of"
                        + " ~/.aws/credentials in AWS_PROFILE")
            }
            current.withLock { $0 = found }
            return found
        }
    }
}
