import AgeEncryption
import Testing

@Suite("X25519 keys")
struct X25519KeysTests {
    @Test("The specification's key pair reads and writes as printed")
    func examplePair() throws {
        let identity = try exampleIdentity()
        #expect(identity.secretBytes == [UInt8](repeating: 0x42, count: 32))
        #expect(identity.encoded() == exampleSecret)
        #expect(identity.recipient.encoded() == exampleRecipient)
        #expect(try X25519Recipient(parsing: exampleRecipient) == identity.recipient)
    }

    @Test("New identities differ, keep their bytes, and survive being written")
    func newIdentities() throws {
        let (first, second) = (X25519Identity(), X25519Identity())
        #expect(first != second)
        #expect(try X25519Identity(parsing: first.encoded()) == first)
        #expect(try X25519Identity(secretBytes: first.secretBytes) == first)
        #expect(try X25519Recipient(parsing: first.recipient.encoded()) == first.recipient)
    }

    @Test("Secret bytes are kept as they were given, not clamped")
    func unclampedBytes() throws {
        let bytes = [UInt8](repeating: 0xff, count: 32)
        #expect(try X25519Identity(secretBytes: bytes).secretBytes == bytes)
    }

    @Test("Every wrong character in an identity or a recipient is refused")
    func wrongCharacters() {
        for text in [exampleSecret, exampleRecipient] {
            for index in text.indices {
                var changed = text
                let other: Character = text[index] == "q" || text[index] == "Q" ? "p" : "q"
                let replacement = text == exampleSecret ? Character(other.uppercased()) : other
                changed.replaceSubrange(index...index, with: [replacement])
                #expect(throws: AgeError.self, "\(changed)") {
                    if text == exampleSecret {
                        _ = try X25519Identity(parsing: changed)
                    } else {
                        _ = try X25519Recipient(parsing: changed)
                    }
                }
            }
        }
    }

    @Test(
        "A malformed identity is refused as such",
        arguments: [
            "", "1", "AGE-SECRET-KEY-1", exampleSecret.lowercased(), exampleSecret + " ",
            " " + exampleSecret, String(exampleSecret.dropLast()), exampleSecret + "Q",
            "a" + exampleSecret.dropFirst(), exampleRecipient, exampleRecipient.uppercased(),
            "AGE-SECRET-KEY-1GFPYYSJZ\u{e9}", "🔑",
        ])
    func malformedIdentity(text: String) {
        #expect { _ = try X25519Identity(parsing: text) } throws: { error in
            (error as? AgeError)?.kind == .malformedIdentity
        }
    }

    @Test(
        "A malformed recipient is refused as such",
        arguments: [
            "", "age1", "age", exampleRecipient.uppercased(),
            "Age1" + exampleRecipient.dropFirst(4),
            exampleRecipient + "\n", String(exampleRecipient.dropLast(2)), exampleSecret,
        ])
    func malformedRecipient(text: String) {
        #expect { _ = try X25519Recipient(parsing: text) } throws: { error in
            (error as? AgeError)?.kind == .malformedRecipient
        }
    }

    @Test(
        "Points of low order are no recipients",
        arguments: [
            [UInt8](repeating: 0, count: 32),
            [1] + [UInt8](repeating: 0, count: 31),
            [
                0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
                0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
                0x5f, 0x49, 0xb8, 0x00,
            ],
        ])
    func lowOrderRecipient(point: [UInt8]) {
        let text = bech32(prefix: "age", point)
        #expect { _ = try X25519Recipient(parsing: text) } throws: { error in
            guard let error = error as? AgeError else { return false }
            return error.kind == .malformedRecipient && error.cause.contains("low order")
        }
    }

    @Test("Bits of the padding must be zero, and there is no needless padding")
    func padding() {
        let bytes = [UInt32](repeating: 3, count: 51)
        let stray = bech32(prefix: "age", groups: bytes + [1])
        let long = bech32(prefix: "age", groups: bytes + [0, 0])
        for text in [stray, long] {
            #expect { _ = try X25519Recipient(parsing: text) } throws: { error in
                (error as? AgeError)?.kind == .malformedRecipient
            }
        }
        #expect(throws: Never.self) {
            try X25519Recipient(parsing: bech32(prefix: "age", groups: bytes + [0]))
        }
    }

    @Test("A wrong number of bytes under a right checksum is refused", arguments: [0, 31, 33, 64])
    func wrongLength(count: Int) {
        let bytes = [UInt8](repeating: 9, count: count)
        #expect { _ = try X25519Recipient(parsing: bech32(prefix: "age", bytes)) } throws: {
            error in
            (error as? AgeError)?.cause == "it holds \(count) bytes in place of 32"
        }
        let secret = bech32(prefix: "age-secret-key-", bytes).uppercased()
        #expect { _ = try X25519Identity(parsing: secret) } throws: { error in
            (error as? AgeError)?.cause == "it holds \(count) bytes in place of 32"
        }
    }

    @Test(
        "Keys of other types are named as unsupported",
        arguments: ["AGE-SECRET-KEY-PQ-1ABC", "AGE-PLUGIN-YUBIKEY-1ABC", "-----BEGIN OPENSSH"])
    func foreignIdentities(text: String) {
        #expect { _ = try X25519Identity(parsing: text) } throws: { error in
            (error as? AgeError)?.kind == .unsupported
        }
    }

    @Test("Recipients of other types are named as unsupported")
    func foreignRecipients() {
        let texts = ["ssh-ed25519 AAAA", bech32(prefix: "age1yubikey", [1, 2, 3])]
        for text in texts {
            #expect { _ = try X25519Recipient(parsing: text) } throws: { error in
                (error as? AgeError)?.kind == .unsupported
            }
        }
    }

    @Test("No description, dump or error shows a secret")
    func secretsStayHidden() throws {
        let identity = try exampleIdentity()
        var dumped = ""
        dump(identity, to: &dumped)
        dump(AgeIdentity.x25519(identity), to: &dumped)
        dump(AgeIdentity.scrypt(passphrase: Array("hunter2".utf8)), to: &dumped)
        dump(AgeRecipient.scrypt(passphrase: Array("hunter2".utf8)), to: &dumped)
        dumped += "\(identity) \(AgeIdentity.x25519(identity)) \([AgeIdentity.x25519(identity)])"
        dumped += "\([AgeIdentity.scrypt(passphrase: Array("hunter2".utf8))])"
        for text in [exampleSecret, exampleSecret + "Q", exampleSecret.lowercased()] {
            do {
                dumped += "\(try X25519Recipient(parsing: text))"
            } catch {
                dumped += error.description
            }
        }
        #expect(!dumped.uppercased().contains("GFPYYSJZ"))
        #expect(!dumped.contains("hunter2"))
        #expect(!dumped.contains("66, 66"))
        #expect(!dumped.contains("104, 117"))
        #expect(dumped.contains(exampleRecipient))
    }
}

/// Bech32 with a right checksum around any bytes, written apart from the room's own.
func bech32(prefix: String, _ bytes: [UInt8]) -> String {
    let alphabet = Array("qpzry9x8gf2tvdw0s3jn54khce6mua7l")
    var bits = bytes.flatMap { byte in (0..<8).map { (byte >> (7 - $0)) & 1 } }
    while bits.count % 5 != 0 { bits.append(0) }
    let groups = stride(from: 0, to: bits.count, by: 5).map { start in
        bits[start..<start + 5].reduce(UInt32(0)) { $0 * 2 + UInt32($1) }
    }
    return bech32(prefix: prefix, groups: groups, alphabet)
}

func bech32(
    prefix: String, groups: [UInt32],
    _ alphabet: [Character] = Array("qpzry9x8gf2tvdw0s3jn54khce6mua7l")
) -> String {
    let expanded = prefix.utf8.map { UInt32($0 >> 5) } + [0] + prefix.utf8.map { UInt32($0 & 31) }
    let generators: [UInt32] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3]
    var sum: UInt32 = 1
    for value in expanded + groups + [0, 0, 0, 0, 0, 0] {
        let top = sum >> 25
        sum = (sum & 0x1ffffff) << 5 ^ value
        for bit in 0..<5 where top >> UInt32(bit) & 1 == 1 { sum ^= generators[bit] }
    }
    sum ^= 1
    let checksum = (0..<6).map { sum >> UInt32(5 * (5 - $0)) & 31 }
    return prefix + "1" + String((groups + checksum).map { alphabet[Int($0)] })
}
