import AgeEncryption

/// What went wrong with a bundle, a frame, a record or a chunk.
package struct BundleError: Error, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable, Hashable, CaseIterable {
        /// A digest, a checksum or a seal does not fit the bytes: they are not what was written.
        case damaged
        /// A size that format.md section 13 forbids; nothing was allocated for it.
        case limit
        /// Sound bytes, as far as one can tell, that break the format.
        case malformed
        /// The seal is of other recipients.
        case noIdentity
        /// The bytes given end within the age header; come back with more of them.
        case needsMoreBytes
        /// One of the C libraries refused to work.
        case library
        /// The receiver of a bundle's bytes threw; `underlying` is what it threw.
        case output
    }

    package let kind: Kind
    /// What it happened to: "frame at 24 of the bundle".
    package let subject: String
    /// What was being done: "read", "seal".
    package let operation: String
    /// Why, as the second half of a sentence.
    package let cause: String
    /// What the receiver of a bundle's bytes threw, as it came.
    package let underlying: (any Error)?

    package init(
        _ kind: Kind, _ operation: String, _ subject: String, _ cause: String,
        underlying: (any Error)? = nil
    ) {
        self.kind = kind
        self.operation = operation
        self.subject = subject
        self.cause = cause
        self.underlying = underlying
    }

    /// One sentence: what could not be done to what, and why.
    package var description: String { "cannot \(operation) \(subject): \(cause)" }

    /// The same error with the object's name in front: `bundles/ab/…: frame at 24`.
    package func inside(_ object: String) -> BundleError {
        BundleError(kind, operation, "\(subject) of \(object)", cause, underlying: underlying)
    }
}

extension BundleError {
    init(_ error: AgeError, _ operation: String, _ subject: String) {
        let kind: Kind =
            switch error.kind {
            case .needsMoreBytes: .needsMoreBytes
            case .headerMACMismatch, .payload: .damaged
            case .noMatchingIdentity: .noIdentity
            case .excessiveWork: .limit
            case .malformedHeader, .armor, .unsupported, .malformedIdentity, .malformedRecipient,
                .invalidRange:
                .malformed
            }
        self.init(kind, operation, subject, error.description)
    }

    static func frame(_ kind: Kind, at offset: Int, _ cause: String) -> BundleError {
        BundleError(kind, "read", "the frame at byte \(offset) of the bundle's plain text", cause)
    }
}
