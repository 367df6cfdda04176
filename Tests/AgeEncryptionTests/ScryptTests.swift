import CryptoExtras
import Testing

@testable import AgeEncryption

@Suite("Passphrases")
struct ScryptTests {
    private let passphrase = Array("correct horse".utf8)

    private func refused(
        _ lines: [String], kind: AgeError.Kind, maximum: Int = 22, _ name: String
    ) throws {
        var file = HandWrittenFile()
        file.lines += lines
        let identity = AgeIdentity.scrypt(passphrase: passphrase, maximumWorkFactor: maximum)
        #expect("\(name)") { _ = try openAll(try file.bytes(), [identity]) } throws: { error in
            (error as? AgeError)?.kind == kind
        }
    }

    @Test("A passphrase opens what it sealed, and no other does")
    func roundTrip() throws {
        let sealed = try AgeEncryptor.seal(
            [1, 2, 3], to: [.scrypt(passphrase: passphrase, workFactor: 4)])
        #expect(try openAll(sealed, [.scrypt(passphrase: passphrase)]) == [1, 2, 3])
        let several: [AgeIdentity] = [
            .x25519(X25519Identity()), .scrypt(passphrase: []), .scrypt(passphrase: [1]),
            .scrypt(passphrase: passphrase),
        ]
        #expect(try openAll(sealed, several) == [1, 2, 3])
        for wrong in [[], [1], passphrase + [0x20]] {
            #expect { _ = try openAll(sealed, [.scrypt(passphrase: wrong)]) } throws: { error in
                guard let error = error as? AgeError else { return false }
                return error.kind == .noMatchingIdentity && error.cause.contains("passphrase")
            }
        }
        #expect { _ = try openAll(sealed, [.x25519(X25519Identity())]) } throws: { error in
            (error as? AgeError)?.kind == .noMatchingIdentity
        }
    }

    @Test("The keys are those of RFC 7914 and of the crypto library, whatever the cost")
    func derivation() throws {
        // Section 12, the vector with r = 8 and p = 1.
        let published = try #require(
            Scrypt.derive(
                Array("pleaseletmein".utf8), salt: Array("SodiumChloride".utf8), workFactor: 14,
                count: 64))
        #expect(
            published.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
                == "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
                + "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887")
        for factor in 1...13 {
            for length in [0, 1, 31, 64, 65, 200] {
                let passphrase = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ factor) }
                let salt = passphrase.reversed() + [UInt8(factor)]
                let theirs = try KDF.Scrypt.deriveKey(
                    from: passphrase, salt: salt, outputByteCount: 48, rounds: 1 << factor,
                    blockSize: 8, parallelism: 1)
                #expect(
                    Scrypt.derive(passphrase, salt: salt, workFactor: factor, count: 48)
                        == theirs.withUnsafeBytes { Array($0) })
            }
        }
    }

    @Test("What is written is one stanza with a salt of 16 bytes and the work factor")
    func stanza() throws {
        let sealed = try AgeEncryptor.seal(
            [], to: [.scrypt(passphrase: passphrase, workFactor: 3)])
        let header = try parseHeader(sealed).header
        let arguments = header.stanzas[0].arguments.map { String(decoding: $0, as: UTF8.self) }
        #expect(header.stanzas.count == 1)
        #expect(arguments.count == 3)
        #expect(arguments[0] == "scrypt")
        #expect(arguments[1].count == 22)
        #expect(arguments[2] == "3")
        #expect(AgeRecipient.defaultWorkFactor == 18)
        #expect(AgeIdentity.defaultMaximumWorkFactor == 22)
    }

    @Test("A work factor above the caller's limit is refused before it is spent")
    func limit() throws {
        let sealed = try AgeEncryptor.seal(
            [1], to: [.scrypt(passphrase: passphrase, workFactor: 6)])
        let strict = AgeIdentity.scrypt(passphrase: passphrase, maximumWorkFactor: 5)
        #expect { _ = try openAll(sealed, [strict]) } throws: { error in
            (error as? AgeError)?.kind == .excessiveWork
        }
        let equal = AgeIdentity.scrypt(passphrase: passphrase, maximumWorkFactor: 6)
        #expect(try openAll(sealed, [equal]) == [1])
    }

    @Test("Numbers of any size are compared with the limit, none overflows")
    func hugeFactors() throws {
        let salt = base64([UInt8](repeating: 1, count: 16))
        let body = base64([UInt8](repeating: 2, count: 32))
        for number in ["23", "64", "63", "9223372036854775807", "99999999999999999999999999"] {
            try refused(["-> scrypt \(salt) \(number)", body], kind: .excessiveWork, number)
        }
        try refused(
            ["-> scrypt \(salt) 64", body], kind: .excessiveWork, maximum: .max, "no limit")
    }

    @Test("Malformed stanzas are refused, though their MAC is right")
    func malformed() throws {
        let salt = base64([UInt8](repeating: 1, count: 16))
        let body = base64([UInt8](repeating: 2, count: 32))
        for number in [
            "0", "01", "010", "+10", "-10", "0x0a", "1e1", "10 ", "10.", "a10", "10a", " 10", "٣",
        ] {
            try refused(["-> scrypt \(salt) \(number)", body], kind: .malformedHeader, number)
        }
        let cases: [String: [String]] = [
            "no salt": ["-> scrypt 10", body],
            "no factor": ["-> scrypt \(salt)", body],
            "nothing": ["-> scrypt", body],
            "fourth argument": ["-> scrypt \(salt) 10 10", body],
            "short salt": ["-> scrypt \(base64([UInt8](repeating: 1, count: 15))) 10", body],
            "long salt": ["-> scrypt \(base64([UInt8](repeating: 1, count: 17))) 10", body],
            "salt not canonical": ["-> scrypt \(salt.dropLast())R 10", body],
            "short body": ["-> scrypt \(salt) 10", base64([UInt8](repeating: 2, count: 31))],
            "long body": ["-> scrypt \(salt) 10", base64([UInt8](repeating: 2, count: 41))],
        ]
        for (name, lines) in cases {
            try refused(lines, kind: .malformedHeader, name)
        }
    }

    @Test("A scrypt stanza beside any other is refused, whoever reads")
    func alone() throws {
        let salt = base64([UInt8](repeating: 1, count: 16))
        let body = base64([UInt8](repeating: 2, count: 32))
        let scrypt = ["-> scrypt \(salt) 2", body]
        let example = try exampleIdentity()
        let (arguments, wrapped) = try HandWrittenFile.x25519(to: example.recipient)
        for lines in [scrypt + scrypt, scrypt + ["-> grease", ""], [arguments, wrapped] + scrypt] {
            try refused(lines, kind: .malformedHeader, "\(lines)")
            var file = HandWrittenFile()
            file.lines += lines
            #expect { _ = try openAll(try file.bytes(), [.x25519(example)]) } throws: { error in
                (error as? AgeError)?.kind == .malformedHeader
            }
        }
    }

    @Test("What no reader would open is not written")
    func refusedWhenSealing() throws {
        let recipient = AgeRecipient.x25519(X25519Identity().recipient)
        let secret = AgeRecipient.scrypt(passphrase: passphrase, workFactor: 2)
        for set in [[secret, recipient], [recipient, secret], [secret, secret]] {
            #expect { _ = try AgeEncryptor.seal([], to: set) } throws: { error in
                (error as? AgeError)?.kind == .malformedRecipient
            }
        }
        #expect {
            _ = try AgeEncryptor.seal([], to: [.scrypt(passphrase: [], workFactor: 2)])
        } throws: { error in
            (error as? AgeError)?.kind == .malformedRecipient
        }
        for factor in [-1, 0, 23, 64, Int.max] {
            #expect {
                _ = try AgeEncryptor.seal(
                    [], to: [.scrypt(passphrase: passphrase, workFactor: factor)])
            } throws: { error in
                (error as? AgeError)?.kind == .excessiveWork
            }
        }
    }
}
