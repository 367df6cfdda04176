import Crypto

/// The two native ways of wrapping the file key. Stanzas of other types are kept by type only.
enum NativeStanza {
    case x25519(share: [UInt8], body: [UInt8])
    /// `workFactor` is `Int.max` where the number written does not fit.
    case scrypt(salt: [UInt8], workFactor: Int, body: [UInt8])
    case other(type: String)

    static let fileKeyBytes = 16
    static let x25519Type = [UInt8]("X25519".utf8)
    static let scryptType = [UInt8]("scrypt".utf8)
    static let scryptSaltBytes = 16

    /// Checks the stanza's form. The body's length is fixed before anything is decrypted, so that
    /// no ciphertext opens under more than one key.
    init(_ stanza: AgeHeader.Stanza, number: Int) throws(AgeError) {
        let arguments = stanza.arguments
        switch arguments.first {
        case Self.x25519Type:
            guard arguments.count == 2, let share = Base64.decode(arguments[1]), share.count == 32
            else {
                throw .stanza(number, "its argument is not one share of 32 bytes in base64")
            }
            try Self.checkBody(stanza, number)
            self = .x25519(share: share, body: stanza.body)
        case Self.scryptType:
            guard arguments.count == 3, let salt = Base64.decode(arguments[1]),
                salt.count == Self.scryptSaltBytes
            else {
                throw .stanza(number, "its arguments are not a salt of 16 bytes and a work factor")
            }
            guard let workFactor = Self.workFactor(arguments[2]) else {
                throw .stanza(number, "its work factor is not a decimal number from 1 on")
            }
            try Self.checkBody(stanza, number)
            self = .scrypt(salt: salt, workFactor: workFactor, body: stanza.body)
        default:
            self = .other(type: String(decoding: arguments.first ?? [], as: UTF8.self))
        }
    }

    private static func checkBody(_ stanza: AgeHeader.Stanza, _ number: Int) throws(AgeError) {
        guard stanza.body.count == fileKeyBytes + PayloadCipher.tagBytes else {
            throw .stanza(number, "its body holds \(stanza.body.count) bytes in place of 32")
        }
    }

    /// Digits without a leading zero; nil for anything else.
    private static func workFactor(_ digits: [UInt8]) -> Int? {
        guard let first = digits.first, first != UInt8(ascii: "0"),
            digits.allSatisfy({ (48...57).contains($0) })
        else { return nil }
        return Int(String(decoding: digits, as: UTF8.self)) ?? .max
    }
}

// MARK: - Wrapping

extension AgeHeader.Stanza {
    /// Wraps `fileKey` for `recipient` with an ephemeral key of its own.
    init(wrapping fileKey: SymmetricKey, for recipient: X25519Recipient) throws(AgeError) {
        let ephemeral = Curve25519.KeyAgreement.PrivateKey()
        let share = [UInt8](ephemeral.publicKey.rawRepresentation)
        guard let secret = X25519.sharedSecret(of: ephemeral, with: recipient.publicBytes) else {
            throw AgeError(
                .malformedRecipient, .seal, "to \(recipient)", "it is a point of low order")
        }
        let key = X25519.wrapKey(secret, share: share, recipient: recipient.publicBytes)
        self.init(
            arguments: [NativeStanza.x25519Type, Base64.encode(share)],
            body: try FileKeyCipher.wrap(fileKey, using: key))
    }

    /// Wraps `fileKey` for whoever knows `passphrase`; costs a third of 2^workFactor KiB of
    /// memory.
    init(
        wrapping fileKey: SymmetricKey, passphrase: [UInt8], workFactor: Int
    ) throws(AgeError) {
        let salt = randomBytes(NativeStanza.scryptSaltBytes)
        let key = try Scrypt.wrapKey(passphrase, salt: salt, workFactor: workFactor, .seal)
        self.init(
            arguments: [
                NativeStanza.scryptType, Base64.encode(salt), Array(String(workFactor).utf8),
            ],
            body: try FileKeyCipher.wrap(fileKey, using: key))
    }
}

extension X25519 {
    static func wrapKey(
        _ secret: SharedSecret, share: [UInt8], recipient: [UInt8]
    ) -> SymmetricKey {
        secret.hkdfDerivedSymmetricKey(
            using: SHA256.self, salt: share + recipient,
            sharedInfo: Array("age-encryption.org/v1/X25519".utf8), outputByteCount: 32)
    }
}

/// ChaCha20-Poly1305 with the zero nonce, as each wrap key is used for one message only.
enum FileKeyCipher {
    private static let nonce = [UInt8](repeating: 0, count: 12)

    static func wrap(_ fileKey: SymmetricKey, using key: SymmetricKey) throws(AgeError) -> [UInt8] {
        do {
            let box = try fileKey.withUnsafeBytes {
                try ChaChaPoly.seal($0, using: key, nonce: ChaChaPoly.Nonce(data: nonce))
            }
            return [UInt8](box.ciphertext) + [UInt8](box.tag)
        } catch {
            throw AgeError(.unsupported, .seal, "a file key", "the cipher refused it: \(error)")
        }
    }

    /// nil when `body` was not wrapped with `key`.
    static func unwrap(_ body: [UInt8], using key: SymmetricKey) -> SymmetricKey? {
        guard let box = try? ChaChaPoly.SealedBox(combined: nonce + body),
            let bytes = try? ChaChaPoly.open(box, using: key)
        else { return nil }
        return SymmetricKey(data: bytes)
    }
}

/// From the system's generator, which is fit for keys.
func randomBytes(_ count: Int) -> [UInt8] {
    var generator = SystemRandomNumberGenerator()
    var bytes: [UInt8] = []
    while bytes.count < count {
        let word: UInt64 = generator.next()
        withUnsafeBytes(of: word) { bytes += $0.prefix(count - bytes.count) }
    }
    return bytes
}

extension X25519Identity {
    /// The file key in an X25519 stanza; nil when the stanza is for somebody else.
    func unwrap(share: [UInt8], body: [UInt8], number: Int) throws(AgeError) -> SymmetricKey? {
        guard let secret = X25519.sharedSecret(of: privateKey, with: share) else {
            throw .stanza(number, "its share is a point of low order")
        }
        let recipient = [UInt8](privateKey.publicKey.rawRepresentation)
        let key = X25519.wrapKey(secret, share: share, recipient: recipient)
        return FileKeyCipher.unwrap(body, using: key)
    }
}
