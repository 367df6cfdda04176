import AgeEncryption
import Testing

/// Random damage, the same in every run. Nothing may crash, and nothing that opens may differ from
/// what was sealed.
@Suite("Mutations")
struct AgeFuzzTests {
    /// Changes `bytes` in one to four places: flips, cuts, repeats, insertions, swapped parts.
    static func mutate(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
            let index = Int.random(in: 0..<bytes.count, using: &generator)
            let length = min(Int.random(in: 1...80, using: &generator), bytes.count - index)
            switch Int.random(in: 0..<8, using: &generator) {
            case 0: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            case 1:
                bytes[index] = Array("\n -=>0159ABab/+\r".utf8).randomElement(using: &generator)!
            case 2: bytes.removeSubrange(index..<index + length)
            case 3: bytes.insert(contentsOf: Array(bytes[index..<index + length]), at: index)
            case 4: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: index)
            case 5: bytes.removeLast(min(length, bytes.count))
            case 6:
                // A whole line twice, or away: closer to what a parser has to tell apart.
                let lines = bytes.split(separator: 10, omittingEmptySubsequences: false)
                let line = Int.random(in: 0..<lines.count, using: &generator)
                var changed = lines
                if Bool.random(using: &generator) {
                    changed.insert(lines[line], at: line)
                } else {
                    changed.remove(at: line)
                }
                bytes = Array(changed.joined(separator: [10]))
            default:
                let other = Int.random(in: 0..<bytes.count, using: &generator)
                bytes.swapAt(index, other)
            }
        }
        return bytes
    }

    @Test("No mutated header parses to anything but its own bytes")
    func headers() throws {
        let identity = try exampleIdentity()
        let stanza = try HandWrittenFile.x25519(to: identity.recipient)
        let seeds = [
            try HandWrittenFile(stanza.arguments, stanza.body).bytes(),
            try HandWrittenFile(
                "-> grease a b", "", stanza.arguments, stanza.body, "-> more",
                String(repeating: "A", count: 64), "AAAA"
            ).bytes(),
            try AgeEncryptor.seal([1], to: [.scrypt(passphrase: [1], workFactor: 1)]),
        ]
        var generator = SeededGenerator(seed: 20)
        var parsed = 0
        for round in 0..<6000 {
            let bytes = Self.mutate(seeds[round % seeds.count], &generator)
            do throws(AgeError) {
                let (header, byteCount) = try parseHeader(bytes)
                #expect(header.encoded() == Array(bytes[..<byteCount]))
                parsed += 1
            } catch {
                #expect([.malformedHeader, .needsMoreBytes, .unsupported].contains(error.kind))
            }
        }
        // Mutations that all die at the first check would test nothing.
        #expect(parsed > 500)
    }

    @Test(
        "No mutated file opens to anything but what was sealed", arguments: [1, 2, 3] as [UInt64])
    func files(seed: UInt64) throws {
        let identity = try exampleIdentity()
        let identities: [AgeIdentity] = [
            .scrypt(passphrase: [1], maximumWorkFactor: 3), .x25519(identity),
        ]
        var generator = SeededGenerator(seed: seed)
        let plaintext = generator.bytes(100)
        let seeds = [
            try AgeEncryptor.seal(plaintext, to: [.x25519(identity.recipient)]),
            try AgeEncryptor.seal(
                plaintext,
                to: [.x25519(X25519Identity().recipient), .x25519(identity.recipient)]),
            try AgeEncryptor.seal(plaintext, to: [.scrypt(passphrase: [1], workFactor: 2)]),
        ]
        for round in 0..<700 {
            let original = seeds[round % seeds.count]
            let bytes = Self.mutate(original, &generator)
            do throws(AgeError) {
                #expect(try openAll(bytes, identities) == plaintext)
                #expect(bytes == original)
            } catch {
                #expect(error.kind != .needsMoreBytes)
            }
            let piece = Int.random(in: 1...300, using: &generator)
            let streamed = openStream(bytes, identities, piece: piece)
            #expect(streamed.released.isEmpty || streamed.released == plaintext)
            #expect((streamed.failure == nil) == (bytes == original))
        }
    }

    @Test("No mutated payload releases anything but true bytes, in a stream or in ranges")
    func payloads() throws {
        let identity = AgeIdentity.x25519(try exampleIdentity())
        var generator = SeededGenerator(seed: 5)
        let plaintext = generator.bytes(150_000)
        let sealed = try AgeEncryptor.seal(
            plaintext, to: [.x25519(try exampleIdentity().recipient)])
        let payload = try openHeader(sealed, [identity])
        for _ in 0..<150 {
            let body = Self.mutate(Array(sealed[payload.headerBytes...]), &generator)
            let bytes = Array(sealed[..<payload.headerBytes]) + body
            let streamed = openStream(bytes, [identity], piece: 40_000)
            #expect(streamed.released.elementsEqual(plaintext.prefix(streamed.released.count)))
            #expect((streamed.failure == nil) == (bytes == sealed))
            let lower = Int.random(in: 0..<plaintext.count, using: &generator)
            let range = lower..<min(lower + 70_000, plaintext.count)
            if let opened = try? openRange(range, of: bytes, payload) {
                #expect(opened == Array(plaintext[range]))
            }
        }
    }

    @Test("No mutated armor decodes unless it is what would be written, white space aside")
    func armor() {
        var generator = SeededGenerator(seed: 6)
        let original = AgeArmor.encode(generator.bytes(130))
        var decoded = 0
        for _ in 0..<4000 {
            let text = Self.mutate(original, &generator)
            guard let bytes = try? AgeArmor.decode(text) else { continue }
            decoded += 1
            let unified = String(decoding: text, as: UTF8.self).replacing("\r\n", with: "\n")
            let written = String(decoding: AgeArmor.encode(bytes), as: UTF8.self)
            let space: (Character) -> Bool = { $0.isWhitespace }
            let trimmed = unified.drop(while: space).reversed().drop(while: space).reversed()
            #expect(String(trimmed) + "\n" == written)
        }
        #expect(decoded > 20)
    }

    @Test("No mutated key reads as a key, unless it is the same")
    func keys() throws {
        let identity = try exampleIdentity()
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<4000 {
            let secret = Self.mutate(Array(exampleSecret.utf8), &generator)
            let text = String(decoding: secret, as: UTF8.self)
            if let read = try? X25519Identity(parsing: text) {
                #expect(read == identity)
                #expect(text == exampleSecret)
            }
            let changed = Self.mutate(Array(exampleRecipient.utf8), &generator)
            let other = String(decoding: changed, as: UTF8.self)
            if let read = try? X25519Recipient(parsing: other) {
                #expect(read == identity.recipient)
                #expect(other == exampleRecipient)
            }
        }
    }

    @Test("No random bytes read as anything")
    func noise() {
        var generator = SeededGenerator(seed: 8)
        for count in 0..<600 {
            let bytes = generator.bytes(count)
            #expect(throws: AgeError.self) { try openAll(bytes, []) }
            #expect(throws: AgeError.self) { try AgeArmor.decode(bytes) }
            #expect(throws: AgeError.self) { try AgeIdentityFile.parse(bytes) }
        }
    }
}
