import BundleFormat
import SnapshotModel
import Testing

@Suite("Digests and codes")
struct HashTests {
    @Test("SHA-256 of `abc` is the published one, at once and in pieces")
    func sha256() throws {
        let expected = try #require(
            ChunkID("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
        let bytes = Array("abc".utf8)
        let id: ChunkID = bytes.withUnsafeBytes { ContentHash.sha256($0) }
        #expect(id == expected)
        var stream = DigestStream()
        for byte in bytes { [byte].withUnsafeBytes { stream.update($0) } }
        #expect(stream.finish() == expected)
        let empty: ChunkID = ContentHash.sha256(UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(
            empty.description
                == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }

    @Test("XXH3-128 of nothing is the constant that the model knows")
    func emptyFingerprint() {
        #expect(ContentHash.fingerprint(UnsafeRawBufferPointer(start: nil, count: 0)) == .empty)
        #expect(FingerprintStream().finish() == .empty)
    }

    @Test("XXH3-128 is the same in any pieces", arguments: [1, 16, 240, 241, 4096, 1_000_003])
    func fingerprintPieces(count: Int) {
        var random = Seeded(UInt64(count))
        let bytes = random.bytes(count)
        let whole = bytes.withUnsafeBytes { ContentHash.fingerprint($0) }
        let stream = FingerprintStream()
        for round in 0..<2 {
            var offset = 0
            while offset < count {
                let end = min(count, offset + 1 + Int(random.next() % 70_000))
                bytes[offset..<end].withUnsafeBytes { stream.update($0) }
                offset = end
            }
            #expect(stream.finish() == whole, "round \(round)")
            stream.reset()
        }
    }

    @Test("HMAC-SHA256 gives the codes of RFC 4231, however the text is cut")
    func hmac() {
        let key = [UInt8](repeating: 0x0b, count: 20)
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        #expect(
            Hex.text(MessageAuthentication.hmacSHA256(key: key, [Array("Hi There".utf8)]))
                == expected)
        #expect(
            Hex.text(
                MessageAuthentication.hmacSHA256(
                    key: key, [Array("Hi".utf8), [], Array(" There".utf8)])) == expected)
        let text = Array("Hi There".utf8)
        let code = text.withUnsafeBytes { MessageAuthentication.hmacSHA256(key: key, [$0]) }
        #expect(Hex.text(code) == expected)
    }

    @Test("HKDF-SHA256 gives the keys of RFC 5869, case 1")
    func hkdf() throws {
        let key = MessageAuthentication.hkdfSHA256(
            secret: [UInt8](repeating: 0x0b, count: 22), salt: Array(0...12),
            info: Array(0xf0...0xf9), count: 42)
        #expect(
            Hex.text(key) == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
                + "34007208d5b887185865")
    }

    @Test("Comparison of codes tells equal from unequal")
    func equality() {
        #expect(MessageAuthentication.areEqual([1, 2, 3], [1, 2, 3]))
        #expect(!MessageAuthentication.areEqual([1, 2, 3], [1, 2, 4]))
        #expect(!MessageAuthentication.areEqual([1, 2, 3], [1, 2]))
    }
}
