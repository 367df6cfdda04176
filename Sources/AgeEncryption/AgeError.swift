/// What went wrong with an age file, an identity or a recipient.
///
/// No error of this room ever carries a byte of a secret: identities are named by line, never
/// quoted.
package struct AgeError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Kind: Sendable, Hashable, CaseIterable {
        /// The prefix given is a good beginning, but the header or the nonce behind it is cut off.
        case needsMoreBytes
        /// The header breaks the format.
        case malformedHeader
        /// The header's MAC does not belong to the header: it was changed after sealing.
        case headerMACMismatch
        /// The header is sound, but none of the identities opens it.
        case noMatchingIdentity
        /// A scrypt work factor above the limit.
        case excessiveWork
        /// The payload is damaged, cut short, extended, or was sealed with another key.
        case payload
        /// A range outside of the payload, or a buffer that does not have the range's size.
        case invalidRange
        /// Not an X25519 identity.
        case malformedIdentity
        /// Not an X25519 recipient, or a set of recipients that cannot stand together.
        case malformedRecipient
        /// The ASCII armor breaks its format.
        case armor
        /// Well-formed, but of a version or type that this program does not handle.
        case unsupported
    }

    package enum Operation: String, Sendable, Hashable {
        case read
        case open
        case seal
    }

    package let kind: Kind
    /// What it happened to: "chunk 3 of the age payload", "stanza 1 of the age header".
    package let subject: String
    package let operation: Operation
    /// Why, as the second half of a sentence.
    package let cause: String

    package init(_ kind: Kind, _ operation: Operation, _ subject: String, _ cause: String) {
        self.kind = kind
        self.operation = operation
        self.subject = subject
        self.cause = cause
    }

    package var description: String {
        "cannot \(operation.rawValue) \(subject): \(cause)"
    }
}

extension AgeError {
    static func header(_ cause: String) -> AgeError {
        AgeError(.malformedHeader, .read, "the age header", cause)
    }

    static func stanza(_ number: Int, _ cause: String) -> AgeError {
        AgeError(.malformedHeader, .read, "stanza \(number) of the age header", cause)
    }

    static let needsMoreBytes = AgeError(
        .needsMoreBytes, .read, "the age header", "the bytes end before the header does")

    static func payload(_ cause: String) -> AgeError {
        AgeError(.payload, .open, "the age payload", cause)
    }

    static func chunk(_ index: Int, _ cause: String) -> AgeError {
        AgeError(.payload, .open, "chunk \(index) of the age payload", cause)
    }

    static func range(_ cause: String) -> AgeError {
        AgeError(.invalidRange, .open, "a range of the age payload", cause)
    }

    /// A header that is cut off is malformed as soon as it is known that nothing follows.
    var whenNothingFollows: AgeError {
        kind == .needsMoreBytes ? .header("the file ends within its header") : self
    }
}
