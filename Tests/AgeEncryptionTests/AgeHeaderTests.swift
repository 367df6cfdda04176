import AgeEncryption
import Testing

@Suite("Headers")
struct AgeHeaderTests {
    let identity: AgeIdentity
    let recipient: X25519Recipient
    let stanza: (arguments: String, body: String)

    init() throws {
        let example = try exampleIdentity()
        identity = .x25519(example)
        recipient = example.recipient
        stanza = try HandWrittenFile.x25519(to: recipient)
    }

    @Test("A file written by hand from the specification opens")
    func handWritten() throws {
        let file = HandWrittenFile(stanza.arguments, stanza.body)
        #expect(try openAll(try file.bytes(), [identity]) == Array("age".utf8))
    }

    @Test("A parsed header encodes to the bytes that it was read from")
    func oneEncoding() throws {
        let body48 = base64([UInt8](repeating: 1, count: 48))
        let body50 = base64([UInt8](repeating: 1, count: 50))
        let files = [
            HandWrittenFile(stanza.arguments, stanza.body),
            HandWrittenFile("-> a", "", "-> b c d", body48, "", stanza.arguments, stanza.body),
            HandWrittenFile(
                "-> !~", String(body50.prefix(64)), String(body50.dropFirst(64)),
                stanza.arguments, stanza.body),
        ]
        for file in files {
            let bytes = try file.bytes()
            let (header, byteCount) = try parseHeader(bytes)
            #expect(header.encoded() == Array(bytes[..<byteCount]))
            #expect(try openAll(bytes, [identity]) == file.plaintext)
            #expect(try openHeader(bytes, [identity]).headerBytes == byteCount + 16)
        }
    }

    @Test("Stanzas of other types around one's own are passed over")
    func grease() throws {
        let (other, otherBody) = try HandWrittenFile.x25519(to: X25519Identity().recipient)
        let file = HandWrittenFile(
            "-> grease x", "", other, otherBody, "-> ssh-rsa abc", "AAAA", stanza.arguments,
            stanza.body, "-> mlkem768x25519 AAAA", "")
        #expect(try openAll(try file.bytes(), [identity]) == file.plaintext)
        #expect(
            try openAll(try file.bytes(), [.x25519(X25519Identity()), identity]) == file.plaintext)
    }

    @Test("Header lines that break the grammar are refused, though their MAC is right")
    func malformed() throws {
        let (arguments, body) = stanza
        let long = String(repeating: "A", count: 64)
        let cases: [String: [String]] = [
            "no stanza": [],
            "no argument": [arguments, body, "->", ""],
            "empty argument": [arguments, body, "-> ", ""],
            "two spaces": [arguments, body, "-> a  b", ""],
            "trailing space": [arguments, body, "-> a ", ""],
            "tab": [arguments, body, "-> a\tb", ""],
            "control character": [arguments, body, "-> a\u{7f}", ""],
            "not ASCII": [arguments, body, "-> é", ""],
            "no body": [arguments, body, "-> a"],
            "no short line": [arguments, body, "-> a", long],
            "long line": [arguments, body, "-> a", long + "AAAA", ""],
            "two short lines": [arguments, body, "-> a", "AAAA", "AAAA"],
            "padding": [arguments, body, "-> a", "AA=="],
            "not canonical body": [arguments, body, "-> a", "AB"],
            "one character": [arguments, body, "-> a", "A"],
            "URL alphabet": [arguments, body, "-> a", "-_"],
            "carriage return in a body": [arguments, body, "-> a", "AAAA\r"],
            "carriage return among arguments": [arguments + "\r", body],
            "bad start": [arguments, body, "-- a", ""],
            "leading space": [" " + arguments, body],
            "empty line": [arguments, body, ""],
            "share missing": ["-> X25519", body],
            "third argument": [arguments + " more", body],
            "share of 31 bytes": ["-> X25519 " + base64([UInt8](repeating: 9, count: 31)), body],
            "share of 33 bytes": ["-> X25519 " + base64([UInt8](repeating: 9, count: 33)), body],
            "share with padding": [arguments + "=", body],
            "share not canonical": [
                "-> X25519 " + base64([UInt8](repeating: 9, count: 32)).dropLast() + "l", body,
            ],
            "body of 31 bytes": [arguments, base64([UInt8](repeating: 9, count: 31))],
            "body of 33 bytes": [arguments, base64([UInt8](repeating: 9, count: 33))],
            "low order": ["-> X25519 " + base64([UInt8](repeating: 0, count: 32)), body],
            "malformed behind a match": [arguments, body, "-> X25519 AAAA", body],
        ]
        for (name, lines) in cases {
            var file = HandWrittenFile()
            file.lines += lines
            #expect("\(name)") { _ = try openAll(try file.bytes(), [identity]) } throws: { error in
                (error as? AgeError)?.kind == .malformedHeader
            }
            let streamed = openStream(try file.bytes(), [identity], piece: 7)
            #expect(streamed.failure?.kind == .malformedHeader, "\(name)")
            #expect(streamed.released.isEmpty)
        }
    }

    @Test(
        "A file key of another length is refused before it is decrypted",
        arguments: [0, 15, 17, 24])
    func fileKeyLength(count: Int) throws {
        let (arguments, body) = try HandWrittenFile.x25519(
            to: recipient, fileKey: [UInt8](repeating: 1, count: count))
        let file = HandWrittenFile(arguments, body)
        #expect { _ = try openAll(try file.bytes(), [identity]) } throws: { error in
            (error as? AgeError)?.kind == .malformedHeader
        }
    }

    @Test("Lines that end with CRLF are refused")
    func carriageReturns() throws {
        let file = HandWrittenFile(stanza.arguments, stanza.body)
        #expect { _ = try openAll(try file.bytes(ending: "\r\n"), [identity]) } throws: { error in
            (error as? AgeError)?.kind == .malformedHeader
        }
    }

    @Test(
        "A last line that is not --- and 43 characters is refused",
        arguments: [
            "---", "--- ", "---AAAA", "--- AAAA", "---  \(String(repeating: "A", count: 43))",
            "--- \(String(repeating: "A", count: 43)) ", "--- \(String(repeating: "A", count: 42))",
            "--- \(String(repeating: "A", count: 44))", "--- \(String(repeating: "A", count: 42))B",
            "--- \(String(repeating: "A", count: 43))=", "---\(String(repeating: "A", count: 43))",
        ])
    func macLine(line: String) throws {
        let text = "age-encryption.org/v1\n\(stanza.arguments)\n\(stanza.body)\n\(line)\n"
        let bytes = Array(text.utf8) + [UInt8](repeating: 0, count: 64)
        #expect { _ = try openAll(bytes, [identity]) } throws: { error in
            (error as? AgeError)?.kind == .malformedHeader
        }
    }

    @Test("A MAC that belongs to another header is told apart from damage")
    func macMismatch() throws {
        var file = HandWrittenFile(stanza.arguments, stanza.body)
        let right = try parseHeader(try file.bytes())
        file.lines += ["-> added", ""]
        let added = try file.bytes()
        let text = file.lines.map { $0 + "\n" }.joined() + "--- \(base64(right.header.mac))\n"
        let bytes = Array(text.utf8) + added[try parseHeader(added).byteCount...]
        #expect(bytes.count == added.count)
        #expect { _ = try openAll(bytes, [identity]) } throws: { error in
            (error as? AgeError)?.kind == .headerMACMismatch
        }
    }

    @Test("Whoever is no recipient is told so, and what the file is sealed to")
    func noMatch() throws {
        let file = HandWrittenFile(stanza.arguments, stanza.body, "-> strange", "")
        for identities in [[], [AgeIdentity.x25519(X25519Identity())], [.scrypt(passphrase: [1])]] {
            #expect { _ = try openAll(try file.bytes(), identities) } throws: { error in
                guard let error = error as? AgeError else { return false }
                return error.kind == .noMatchingIdentity && error.cause.contains("strange")
            }
        }
    }

    @Test("Stanza types are told apart by case")
    func typeCase() throws {
        let file = HandWrittenFile(
            stanza.arguments.replacing("X25519", with: "x25519"), stanza.body)
        #expect { _ = try openAll(try file.bytes(), [identity]) } throws: { error in
            (error as? AgeError)?.kind == .noMatchingIdentity
        }
    }

    @Test("Another version is unsupported, anything else is no age file")
    func version() throws {
        let file = HandWrittenFile(stanza.arguments, stanza.body)
        let rest = try file.bytes().dropFirst(22)
        let kinds: [String: AgeError.Kind] = [
            "age-encryption.org/v2\n": .unsupported, "age-encryption.org/v1234\n": .unsupported,
            "age-encryption.org/v1\r\n": .malformedHeader,
            "age-encryption.org/\n": .malformedHeader,
            "age-encryption.org/v1 \n": .malformedHeader,
            "Age-encryption.org/v1\n": .malformedHeader, "\n": .malformedHeader,
            "PK\u{3}\u{4}": .malformedHeader, " age-encryption.org/v1\n": .malformedHeader,
        ]
        for (line, kind) in kinds {
            #expect("\(line)") { _ = try openAll(Array(line.utf8) + rest, [identity]) } throws: {
                ($0 as? AgeError)?.kind == kind
            }
        }
    }

    @Test("A prefix asks for more until it holds header and nonce, at every length")
    func prefixes() throws {
        let bytes = try HandWrittenFile(stanza.arguments, stanza.body).bytes()
        let headerBytes = try openHeader(bytes, [identity]).headerBytes
        for count in 0..<headerBytes {
            #expect { _ = try openHeader(Array(bytes[..<count]), [identity]) } throws: { error in
                (error as? AgeError)?.kind == .needsMoreBytes
            }
            #expect { _ = try openAll(Array(bytes[..<count]), [identity]) } throws: { error in
                (error as? AgeError)?.kind == .malformedHeader
            }
        }
        #expect(throws: Never.self) { try openHeader(Array(bytes[..<headerBytes]), [identity]) }
    }

    @Test("A header without an end is refused after 64 KiB, and one just below it is read")
    func maximumLength() throws {
        var file = HandWrittenFile(stanza.arguments, stanza.body)
        let used = try parseHeader(try file.bytes()).byteCount
        // "-> " and two line feeds.
        let room = AgeHeader.maximumBytes - used - 5
        file.lines += ["-> " + String(repeating: "x", count: room), ""]
        let exact = try file.bytes()
        #expect(try parseHeader(exact).byteCount == AgeHeader.maximumBytes)
        #expect(try openAll(exact, [identity]) == file.plaintext)
        #expect(exact.count > AgePayload.maximumHeaderBytes)
        #expect(throws: Never.self) {
            try openHeader(Array(exact.prefix(AgePayload.maximumHeaderBytes)), [identity])
        }

        file.lines[3] += "x"
        #expect { _ = try openHeader(try file.bytes(), [identity]) } throws: { error in
            (error as? AgeError)?.kind == .malformedHeader
        }
        let endless =
            Array("age-encryption.org/v1\n-> ".utf8) + [UInt8](repeating: 65, count: 70_000)
        #expect { _ = try openHeader(endless, [identity]) } throws: { error in
            (error as? AgeError)?.kind == .malformedHeader
        }
        let streamed = openStream(endless, [identity], piece: 4096)
        #expect(streamed.failure?.kind == .malformedHeader)
    }

    @Test("Several recipients open the same file, each alone and in any order of identities")
    func severalRecipients() throws {
        let identities = (0..<5).map { _ in X25519Identity() }
        let sealed = try AgeEncryptor.seal(
            [1, 2, 3], to: identities.map { .x25519($0.recipient) })
        for identity in identities {
            #expect(try openAll(sealed, [.x25519(identity)]) == [1, 2, 3])
            let others: [AgeIdentity] = [.x25519(X25519Identity()), .x25519(identity)]
            #expect(try openAll(sealed, others) == [1, 2, 3])
        }
        #expect(throws: AgeError.self) { try openAll(sealed, [.x25519(X25519Identity())]) }
        #expect(try parseHeader(sealed).header.stanzas.count == 5)
    }

    @Test("Two seals of the same plaintext share no key, nonce or share")
    func freshness() throws {
        let one = try AgeEncryptor.seal([1, 2, 3], to: [.x25519(recipient)])
        let two = try AgeEncryptor.seal([1, 2, 3], to: [.x25519(recipient)])
        let (first, second) = (try parseHeader(one), try parseHeader(two))
        #expect(first.header.stanzas[0].arguments[1] != second.header.stanzas[0].arguments[1])
        #expect(first.header.stanzas[0].body != second.header.stanzas[0].body)
        #expect(one.suffix(35) != two.suffix(35))
        #expect(
            one[first.byteCount..<first.byteCount + 16]
                != two[second.byteCount..<second.byteCount + 16])
    }

    @Test("No recipients, or more than a header may hold, are refused")
    func recipientCount() throws {
        #expect { _ = try AgeEncryptor.seal([], to: []) } throws: { error in
            (error as? AgeError)?.kind == .malformedRecipient
        }
        let many = [AgeRecipient](repeating: .x25519(recipient), count: 800)
        #expect { _ = try AgeEncryptor.seal([], to: many) } throws: { error in
            (error as? AgeError)?.kind == .malformedRecipient
        }
    }
}
