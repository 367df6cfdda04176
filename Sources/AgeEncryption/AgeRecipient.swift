/// Whom a file is sealed to. Passphrases never stand beside another recipient.
package enum AgeRecipient: Sendable, CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    case x25519(X25519Recipient)
    /// `workFactor` is the base-two logarithm of scrypt's N; 18 costs 90 MB and half a second.
    case scrypt(passphrase: [UInt8], workFactor: Int = AgeRecipient.defaultWorkFactor)

    package static let defaultWorkFactor = 18

    package var description: String {
        switch self {
        case .x25519(let recipient): recipient.encoded()
        case .scrypt(_, let workFactor): "a passphrase with work factor \(workFactor)"
        }
    }

    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// What a file is opened with.
package enum AgeIdentity: Sendable, CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    case x25519(X25519Identity)
    /// A file that asks for more work than `maximumWorkFactor` (base-two logarithm of scrypt's N)
    /// is refused before any of it is done; 22 costs 4 GiB.
    case scrypt(
        passphrase: [UInt8], maximumWorkFactor: Int = AgeIdentity.defaultMaximumWorkFactor)

    package static let defaultMaximumWorkFactor = 22

    package var description: String {
        switch self {
        case .x25519(let identity): identity.description
        case .scrypt: "a passphrase"
        }
    }

    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: []) }
}
