import Crypto

/// The secret half of an X25519 key pair: opens what is sealed to its `recipient`.
///
/// Two identities are equal when their 32 secret bytes are. Neither its description nor a dump of
/// it shows the secret; only `encoded()` and `secretBytes` do.
package struct X25519Identity: Sendable, Equatable, CustomStringConvertible,
    CustomDebugStringConvertible, CustomReflectable
{
    static let prefix = "AGE-SECRET-KEY-"

    let privateKey: Curve25519.KeyAgreement.PrivateKey

    /// A new identity from the system's random generator.
    package init() {
        // The bytes are drawn here because the library would clamp those that it draws itself; age
        // keeps the 32 bytes as they were drawn and clamps when it uses them.
        guard
            let key = try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: randomBytes(32))
        else { preconditionFailure("any 32 bytes are a private key") }
        privateKey = key
    }

    /// Reads `AGE-SECRET-KEY-1…`, upper case only, without surrounding space.
    package init(parsing text: String) throws(AgeError) {
        let decoded: (prefix: String, bytes: [UInt8])
        do {
            decoded = try Bech32.decode(text)
        } catch {
            if let kind = Self.foreignKind(of: text) {
                throw AgeError(.unsupported, .read, "an age identity", kind)
            }
            throw AgeError(.malformedIdentity, .read, "an age identity", error.cause)
        }
        guard decoded.prefix == Self.prefix else {
            if let kind = Self.foreignKind(of: text) {
                throw AgeError(.unsupported, .read, "an age identity", kind)
            }
            throw AgeError(
                .malformedIdentity, .read, "an age identity",
                "it does not begin with AGE-SECRET-KEY-1")
        }
        try self.init(secretBytes: decoded.bytes)
    }

    /// Takes the 32 bytes as they are.
    package init(secretBytes: [UInt8]) throws(AgeError) {
        guard secretBytes.count == 32,
            let key = try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: secretBytes)
        else {
            throw AgeError(
                .malformedIdentity, .read, "an age identity",
                "it holds \(secretBytes.count) bytes in place of 32")
        }
        privateKey = key
    }

    package var secretBytes: [UInt8] { [UInt8](privateKey.rawRepresentation) }

    package var recipient: X25519Recipient {
        X25519Recipient(ownBytes: [UInt8](privateKey.publicKey.rawRepresentation))
    }

    /// The secret as `AGE-SECRET-KEY-1…`.
    package func encoded() -> String {
        Bech32.encode(prefix: Self.prefix.lowercased(), secretBytes).uppercased()
    }

    package var description: String { "the identity of \(recipient.encoded())" }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: []) }

    package static func == (left: X25519Identity, right: X25519Identity) -> Bool {
        zip(left.secretBytes, right.secretBytes).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }

    /// Names identities of other types, so that a user learns more than "malformed".
    private static func foreignKind(of text: String) -> String? {
        if text.hasPrefix("AGE-SECRET-KEY-PQ-1") {
            return "it is a post-quantum identity; only X25519 is supported"
        }
        if text.hasPrefix("AGE-PLUGIN-") {
            return "it belongs to a plugin; only X25519 is supported"
        }
        if text.hasPrefix("-----BEGIN ") {
            return "it is an SSH key or an armored file; only AGE-SECRET-KEY-1 is supported"
        }
        return nil
    }
}

/// The public half of an X25519 key pair: what is sealed to it, its identity opens.
package struct X25519Recipient: Sendable, Hashable, CustomStringConvertible {
    static let prefix = "age"

    /// The 32 bytes of the public key.
    package let publicBytes: [UInt8]

    /// Reads `age1…`, lower case only, without surrounding space. Points of low order are refused:
    /// what is sealed to them anyone can open.
    package init(parsing text: String) throws(AgeError) {
        let subject = Self.subject(of: text)
        let decoded: (prefix: String, bytes: [UInt8])
        do {
            decoded = try Bech32.decode(text)
        } catch {
            if text.hasPrefix("ssh-") {
                throw AgeError(
                    .unsupported, .read, subject, "it is an SSH key; only X25519 is supported")
            }
            throw AgeError(.malformedRecipient, .read, subject, error.cause)
        }
        guard decoded.prefix == Self.prefix else {
            if decoded.prefix == X25519Identity.prefix {
                throw AgeError(
                    .malformedRecipient, .read, subject, "it is a secret identity, not a recipient")
            }
            if decoded.prefix.hasPrefix("age1") {
                throw AgeError(
                    .unsupported, .read, subject,
                    "it is of the type \(decoded.prefix); only X25519 is supported")
            }
            throw AgeError(
                .malformedRecipient, .read, subject, "it does not begin with age1")
        }
        guard decoded.bytes.count == 32 else {
            throw AgeError(
                .malformedRecipient, .read, subject,
                "it holds \(decoded.bytes.count) bytes in place of 32")
        }
        let probe = Curve25519.KeyAgreement.PrivateKey()
        guard X25519.sharedSecret(of: probe, with: decoded.bytes) != nil else {
            throw AgeError(
                .malformedRecipient, .read, subject,
                "it is a point of low order, which hides nothing")
        }
        publicBytes = decoded.bytes
    }

    /// For a point that was computed from a secret, which cannot be of low order.
    init(ownBytes: [UInt8]) {
        publicBytes = ownBytes
    }

    /// How a message names `text`: a secret given by mistake is not repeated, nor is a control
    /// character.
    private static func subject(of text: String) -> String {
        let isShown =
            text.utf8.allSatisfy { (33...126).contains($0) }
            && !text.uppercased().hasPrefix(X25519Identity.prefix)
        return isShown ? "the age recipient \(text.prefix(80))" : "an age recipient"
    }

    /// `age1…`
    package func encoded() -> String { Bech32.encode(prefix: Self.prefix, publicBytes) }

    package var description: String { encoded() }
}

/// The agreement itself, with the check that the library leaves to its callers.
enum X25519 {
    /// The shared secret; nil when it is all zero, that is when `point` is of low order.
    static func sharedSecret(
        of key: Curve25519.KeyAgreement.PrivateKey, with point: [UInt8]
    ) -> SharedSecret? {
        guard
            let other = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: point),
            let secret = try? key.sharedSecretFromKeyAgreement(with: other)
        else { return nil }
        let isZero = secret.withUnsafeBytes { $0.reduce(0, |) == 0 }
        return isZero ? nil : secret
    }
}
