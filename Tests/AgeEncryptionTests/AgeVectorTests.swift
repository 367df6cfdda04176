import AgeEncryption
import Crypto
import Foundation
import Testing

/// One file of the published collection: what should happen, and the age file.
struct AgeVector {
    var expectation = ""
    var payloadDigest: String?
    var fileKey: [UInt8]?
    var identities: [AgeIdentity] = []
    var isArmored = false
    /// Why this case cannot be run, where it cannot.
    var unsupported: String?
    var object: [UInt8] = []

    static let directory = ProcessInfo.processInfo.environment["BATCHSYNC_AGE_VECTORS"]

    /// The names of all cases in the directory, in order.
    static let names: [String] = {
        guard let directory else { return [] }
        let all = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return all.filter { !$0.contains(".") }.sorted()
    }()

    /// Cases that need a post-quantum identity, which this program does not have. A case that needs
    /// one and is not named here fails `everyCaseIsAccountedFor`.
    static let postQuantumNames: Set<String> = [
        "armor_hybrid", "hybrid", "hybrid_and_x25519", "hybrid_bad_tag",
        "hybrid_currupted_enc_mlkem", "hybrid_currupted_enc_x25519", "hybrid_extra_argument",
        "hybrid_grease", "hybrid_identity", "hybrid_long_file_key", "hybrid_long_share",
        "hybrid_low_order", "hybrid_multiple_recipients", "hybrid_no_match",
        "hybrid_not_canonical_body", "hybrid_not_canonical_enc", "hybrid_short_share",
        "hybrid_uppercase", "hybrid_x25519_arg",
    ]

    /// Those that are run.
    static let runnableNames = names.filter { name in
        (try? AgeVector(named: name))?.unsupported == nil
    }

    init(named name: String) throws {
        let url = URL(fileURLWithPath: Self.directory ?? "").appendingPathComponent(name)
        let bytes = [UInt8](try Data(contentsOf: url))
        var rest = bytes[...]
        var isCompressed = false
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            let line = String(decoding: rest[..<end], as: UTF8.self)
            rest = rest[(end + 1)...]
            if line.isEmpty { break }
            guard let colon = line.firstRange(of: ": ") else {
                unsupported = "a line without a key"
                continue
            }
            let value = String(line[colon.upperBound...])
            switch line[..<colon.lowerBound] {
            case "expect": expectation = value
            case "payload": payloadDigest = value
            case "file key": fileKey = Self.hexadecimal(value)
            case "identity":
                do {
                    identities.append(.x25519(try X25519Identity(parsing: value)))
                } catch {
                    unsupported = error.description
                }
            case "passphrase": identities.append(.scrypt(passphrase: Array(value.utf8)))
            case "armored": isArmored = value == "yes"
            case "compressed":
                isCompressed = true
                if value != "zlib" { unsupported = "compression \(value)" }
            case "comment": break
            case let key: unsupported = "the key \(key)"
            }
        }
        object = isCompressed ? try Zlib.inflate(Array(rest)) : Array(rest)
    }

    static func hexadecimal(_ text: String) -> [UInt8]? {
        let digits = Array(text)
        guard digits.count % 2 == 0 else { return nil }
        return stride(from: 0, to: digits.count, by: 2).map {
            UInt8(String(digits[$0...$0 + 1]), radix: 16) ?? 0
        }
    }

    /// The kinds of error that stand for the expectation; empty for success.
    var kinds: Set<AgeError.Kind> {
        get throws {
            switch expectation {
            case "success": []
            case "no match": [.noMatchingIdentity]
            case "HMAC failure": [.headerMACMismatch]
            // A foreign version and a work factor out of bounds have kinds of their own here.
            case "header failure": [.malformedHeader, .unsupported, .excessiveWork]
            case "armor failure": [.armor]
            case "payload failure": [.payload]
            default: throw UnknownExpectation(text: expectation)
            }
        }
    }

    struct UnknownExpectation: Error {
        let text: String
    }

    /// The binary file, or the error of the armor.
    func binary() throws(AgeError) -> [UInt8] {
        isArmored ? try AgeArmor.decode(object) : object
    }
}

@Suite(
    "Published age vectors",
    .enabled(
        if: AgeVector.directory != nil,
        "BATCHSYNC_AGE_VECTORS does not name the directory of the vectors"))
struct AgeVectorTests {
    private func digest(_ bytes: [UInt8]) -> String {
        SHA256.hash(data: bytes).map { byte in
            let text = String(byte, radix: 16)
            return text.count == 1 ? "0" + text : text
        }.joined()
    }

    @Test("Every case is run, or skipped by its name for a reason that holds")
    func everyCaseIsAccountedFor() throws {
        #expect(!AgeVector.names.isEmpty)
        var run = 0
        for name in AgeVector.names {
            let vector = try AgeVector(named: name)
            if let reason = vector.unsupported {
                #expect(AgeVector.postQuantumNames.contains(name), "\(name): \(reason)")
                #expect(reason.contains("post-quantum"), "\(name): \(reason)")
                print("skipped vector \(name): \(reason)")
            } else {
                _ = try vector.kinds
                run += 1
            }
        }
        #expect(run == AgeVector.runnableNames.count)
        print("age vectors: \(run) run, \(AgeVector.names.count - run) skipped")
    }

    @Test("Opened whole, the outcome is the expected one", arguments: AgeVector.runnableNames)
    func whole(name: String) throws {
        let vector = try AgeVector(named: name)
        let kinds = try vector.kinds
        do throws(AgeError) {
            let plaintext = try openAll(try vector.binary(), vector.identities)
            #expect(kinds.isEmpty, "expected \(vector.expectation)")
            #expect(digest(plaintext) == vector.payloadDigest)
        } catch {
            #expect(kinds.contains(error.kind), "expected \(vector.expectation), got \(error)")
        }
    }

    @Test(
        "Opened as a stream, the outcome and what was released are the expected ones",
        arguments: AgeVector.runnableNames)
    func streamed(name: String) throws {
        let vector = try AgeVector(named: name)
        let kinds = try vector.kinds
        let object: [UInt8]
        do throws(AgeError) {
            object = try vector.binary()
        } catch {
            #expect(kinds.contains(error.kind), "expected \(vector.expectation), got \(error)")
            return
        }
        // Passphrases cost their work each time, so they are tried once.
        let isExpensive = vector.identities.contains {
            if case .scrypt = $0 { true } else { false }
        }
        var pieces = [max(object.count, 1)]
        if !isExpensive { pieces += [65_552, 65_553, 1009] }
        if !isExpensive, object.count < 4096 { pieces.append(1) }
        for piece in pieces {
            let opened = openStream(object, vector.identities, piece: piece)
            if let failure = opened.failure {
                #expect(kinds.contains(failure.kind), "pieces of \(piece): \(failure)")
            } else {
                #expect(kinds.isEmpty, "expected \(vector.expectation)")
            }
            if let expected = vector.payloadDigest {
                #expect(digest(opened.released) == expected, "pieces of \(piece)")
            } else {
                #expect(opened.released.isEmpty)
            }
        }
    }

    @Test(
        "Opened in ranges, only true bytes come out and damage is noticed",
        arguments: AgeVector.runnableNames)
    func ranged(name: String) throws {
        let vector = try AgeVector(named: name)
        let kinds = try vector.kinds
        var generator = SeededGenerator(seed: 99)
        do throws(AgeError) {
            let object = try vector.binary()
            let payload: AgePayload
            do throws(AgeError) {
                payload = try openHeader(
                    Array(object.prefix(AgePayload.maximumHeaderBytes)), vector.identities)
            } catch  where error.kind == .needsMoreBytes {
                // There is no more, so the header is broken.
                #expect(vector.expectation == "header failure")
                return
            }
            let released = openStream(object, vector.identities, piece: 1 << 20).released
            let length = try AgePayload.plaintextLength(
                sealedLength: object.count, headerBytes: payload.headerBytes)
            for _ in 0..<20 {
                let (one, two) = (
                    Int.random(in: 0...length, using: &generator),
                    Int.random(in: 0...length, using: &generator)
                )
                let range = min(one, two)..<max(one, two)
                do throws(AgeError) {
                    let bytes = try openRange(range, of: object, payload)
                    let known = range.clamped(to: 0..<released.count)
                    #expect(Array(bytes.prefix(known.count)) == Array(released[known]))
                } catch {
                    #expect(kinds.contains(error.kind), "\(range): \(error)")
                }
            }
            let all = try openRange(0..<length, of: object, payload)
            #expect(kinds.isEmpty, "expected \(vector.expectation)")
            #expect(digest(all) == vector.payloadDigest)
        } catch {
            #expect(kinds.contains(error.kind), "expected \(vector.expectation), got \(error)")
        }
    }

    @Test(
        "A work factor of 23 is refused as too much work",
        .enabled(
            if: AgeVector.names.contains("scrypt_work_factor_23"),
            "BATCHSYNC_AGE_VECTORS does not name a directory with that vector"))
    func excessiveWork() throws {
        let vector = try AgeVector(named: "scrypt_work_factor_23")
        #expect { _ = try openAll(vector.object, vector.identities) } throws: { error in
            (error as? AgeError)?.kind == .excessiveWork
        }
    }

    @Test(
        "What is well-formed encodes again to the same bytes", arguments: AgeVector.runnableNames)
    func reencoded(name: String) throws {
        let vector = try AgeVector(named: name)
        guard vector.expectation != "armor failure" else { return }
        let object = try vector.binary()
        if vector.isArmored {
            let text = String(decoding: vector.object, as: UTF8.self)
                .replacingOccurrences(of: "\r\n", with: "\n")
                .trimmingCharacters(in: .whitespacesAndNewlines)
            #expect(String(decoding: AgeArmor.encode(object), as: UTF8.self) == text + "\n")
        }
        guard vector.expectation != "header failure" else { return }
        let (header, byteCount) = try parseHeader(object)
        #expect(header.encoded() == Array(object[..<byteCount]))

        guard vector.expectation == "success", let fileKey = vector.fileKey else { return }
        let plaintext = try openAll(object, vector.identities)
        let start = byteCount + PayloadCipher.nonceBytes
        let cipher = PayloadCipher(
            fileKeyBytes: fileKey, nonce: Array(object[byteCount..<start]))
        var sealed: [UInt8] = []
        let chunks = max(1, (plaintext.count + 65_535) / 65_536)
        for chunk in 0..<chunks {
            let range = chunk * 65_536..<min((chunk + 1) * 65_536, plaintext.count)
            try Array(plaintext[range]).withUnsafeBytes {
                try cipher.seal($0, chunk: chunk, isLast: chunk == chunks - 1) {
                    sealed.append(contentsOf: $0)
                }
            }
        }
        #expect(sealed == Array(object[start...]))
    }
}
