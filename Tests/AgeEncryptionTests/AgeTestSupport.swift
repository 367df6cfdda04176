import AgeEncryption
import Crypto

/// A generator whose whole sequence follows from its seed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            withUnsafeBytes(of: next()) { bytes += $0 }
        }
        return Array(bytes.prefix(count))
    }
}

/// The key pair that the specification prints: its secret is 32 times 0x42.
let exampleSecret = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
let exampleRecipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"

func exampleIdentity() throws -> X25519Identity {
    try X25519Identity(parsing: exampleSecret)
}

// MARK: Ways of opening

func openAll(_ object: [UInt8], _ identities: [AgeIdentity]) throws(AgeError) -> [UInt8] {
    try object.withUnsafeBufferPointer { bytes throws(AgeError) in
        try AgePayload.openAll(UnsafeRawBufferPointer(bytes), identities: identities)
    }
}

func openHeader(_ prefix: [UInt8], _ identities: [AgeIdentity]) throws(AgeError) -> AgePayload {
    try prefix.withUnsafeBufferPointer { bytes throws(AgeError) in
        try AgePayload.open(prefix: UnsafeRawBufferPointer(bytes), identities: identities)
    }
}

func parseHeader(_ bytes: [UInt8]) throws(AgeError) -> (header: AgeHeader, byteCount: Int) {
    try bytes.withUnsafeBufferPointer { bytes throws(AgeError) in
        try AgeHeader.parse(UnsafeRawBufferPointer(bytes))
    }
}

/// Fetches the sealed range of `plain` from `object` and opens nothing else.
func openRange(
    _ plain: Range<Int>, of object: [UInt8], _ payload: AgePayload
) throws(AgeError) -> [UInt8] {
    let range = try AgePayload.sealedRange(
        for: plain, sealedLength: object.count, headerBytes: payload.headerBytes)
    let fetched = Array(object[range])
    var output = [UInt8](repeating: 0xaa, count: plain.count)
    try output.withUnsafeMutableBufferPointer { output throws(AgeError) in
        try fetched.withUnsafeBufferPointer { fetched throws(AgeError) in
            try payload.open(
                UnsafeRawBufferPointer(fetched), plain: plain, sealedLength: object.count,
                into: UnsafeMutableRawBufferPointer(output))
        }
    }
    return output
}

/// What a streaming reader has released, and the error that ended it.
func openStream(
    _ object: [UInt8], _ identities: [AgeIdentity], piece: Int
) -> (released: [UInt8], failure: AgeError?) {
    var decryptor = AgeDecryptor(identities: identities)
    var released: [UInt8] = []
    do throws(AgeError) {
        var start = 0
        while start < object.count {
            let end = min(start + piece, object.count)
            try object[start..<end].withUnsafeBufferPointer { bytes throws(AgeError) in
                try decryptor.update(UnsafeRawBufferPointer(bytes)) {
                    released.append(contentsOf: $0)
                }
            }
            start = end
        }
        try decryptor.finish { released.append(contentsOf: $0) }
        return (released, nil)
    } catch {
        return (released, error)
    }
}

/// Seals `plaintext`, handed over in pieces of the sizes given, over and over.
func sealStream(
    _ plaintext: [UInt8], to recipients: [AgeRecipient], pieces: [Int]
) throws(AgeError) -> [UInt8] {
    var encryptor = try AgeEncryptor(recipients: recipients)
    var output: [UInt8] = []
    encryptor.start { output.append(contentsOf: $0) }
    var start = 0
    var index = 0
    while start < plaintext.count {
        let end = min(start + pieces[index % pieces.count], plaintext.count)
        try plaintext[start..<end].withUnsafeBufferPointer { bytes throws(AgeError) in
            try encryptor.update(UnsafeRawBufferPointer(bytes)) { output.append(contentsOf: $0) }
        }
        start = end
        index += 1
    }
    try encryptor.finish { output.append(contentsOf: $0) }
    return output
}

// MARK: Files written by hand

/// Writes age files straight from the specification, also such as no encryptor would write.
struct HandWrittenFile {
    static let fileKey = [UInt8]("a key of 16 byte".utf8)
    static let nonce = [UInt8]("a nonce, 16 byte".utf8)

    var lines: [String]
    var plaintext = [UInt8]("age".utf8)

    /// The header without its MAC, each line with its line feed.
    init(_ lines: String...) {
        self.lines = ["age-encryption.org/v1"] + lines
    }

    /// Argument line and body of an X25519 stanza that wraps `fileKey`.
    static func x25519(
        to recipient: X25519Recipient, fileKey: [UInt8] = fileKey
    ) throws -> (arguments: String, body: String) {
        let ephemeral = Curve25519.KeyAgreement.PrivateKey()
        let share = [UInt8](ephemeral.publicKey.rawRepresentation)
        let secret = try ephemeral.sharedSecretFromKeyAgreement(
            with: Curve25519.KeyAgreement.PublicKey(rawRepresentation: recipient.publicBytes))
        let key = secret.hkdfDerivedSymmetricKey(
            using: SHA256.self, salt: share + recipient.publicBytes,
            sharedInfo: Array("age-encryption.org/v1/X25519".utf8), outputByteCount: 32)
        return ("-> X25519 \(base64(share))", base64(try seal(fileKey, key)))
    }

    static func seal(_ plaintext: [UInt8], _ key: SymmetricKey) throws -> [UInt8] {
        let box = try ChaChaPoly.seal(
            plaintext, using: key, nonce: ChaChaPoly.Nonce(data: [UInt8](repeating: 0, count: 12)))
        return [UInt8](box.ciphertext) + [UInt8](box.tag)
    }

    /// The whole file with a right MAC and one chunk.
    func bytes(ending: String = "\n") throws -> [UInt8] {
        let covered = lines.map { $0 + ending }.joined() + "---"
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: Self.fileKey), salt: [UInt8](),
            info: Array("header".utf8), outputByteCount: 32)
        let mac = Array(HMAC<SHA256>.authenticationCode(for: Array(covered.utf8), using: key))
        let header = Array((covered + " " + base64(mac) + ending).utf8)
        return try header + Self.nonce + payload([plaintext], last: 0)
    }

    /// Sealed chunks, of which only `last` is marked as the last one.
    func payload(_ chunks: [[UInt8]], last: Int?) throws -> [UInt8] {
        let cipher = PayloadCipher(fileKeyBytes: Self.fileKey, nonce: Self.nonce)
        var output: [UInt8] = []
        for (index, chunk) in chunks.enumerated() {
            try chunk.withUnsafeBytes {
                try cipher.seal($0, chunk: index, isLast: index == last) {
                    output.append(contentsOf: $0)
                }
            }
        }
        return output
    }
}

/// Canonical base64 without padding, written apart from the room's own.
func base64(_ bytes: [UInt8]) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    let bits = bytes.flatMap { byte in (0..<8).map { (byte >> (7 - $0)) & 1 } }
    return String(
        stride(from: 0, to: bits.count, by: 6).map { start in
            let group = bits[start..<min(start + 6, bits.count)]
            let value = group.reduce(0) { $0 * 2 + Int($1) } << (6 - group.count)
            return alphabet[value]
        })
}
