import AgeEncryption
import BundleFormat
import SnapshotModel
import Testing

@Suite("Records, sealed whole")
struct SealedRecordTests {
    static let owner = X25519Identity()
    static let host = X25519Identity()

    func open(
        _ object: [UInt8], _ identities: [AgeIdentity], maximumBytes: Int = 1 << 20
    ) throws -> [UInt8] {
        try object.withUnsafeBytes {
            try SealedRecord.open($0, identities: identities, maximumBytes: maximumBytes)
        }
    }

    func seal(_ text: [UInt8], _ recipients: [AgeRecipient]) throws -> [UInt8] {
        try text.withUnsafeBytes {
            try SealedRecord.seal($0, level: 3, recipients: recipients)
        }
    }

    @Test("A record comes back to each of its recipients", arguments: [0, 1, 100, 200_000])
    func roundTrip(count: Int) throws {
        var random = Seeded(UInt64(count))
        let text = random.text(count)
        let sealed = try seal(
            text, [.x25519(Self.owner.recipient), .x25519(Self.host.recipient)])
        #expect(try open(sealed, [.x25519(Self.owner)]) == text)
        #expect(try open(sealed, [.x25519(Self.host)]) == text)
        #expect(try open(seal(text, []), []) == text)
    }

    @Test("A stranger's identity, and none at all, open nothing")
    func strangers() throws {
        let sealed = try seal([1, 2, 3], [.x25519(Self.owner.recipient)])
        #expect(kind { _ = try open(sealed, [.x25519(Self.host)]) } == .noIdentity)
        #expect(kind { _ = try open(sealed, []) } == .malformed)
        #expect(kind { _ = try open([], []) } == .malformed)
        #expect(kind { _ = try open([], [.x25519(Self.owner)]) } == .malformed)
    }

    @Test("A record larger than allowed is refused")
    func limit() throws {
        let text = [UInt8](repeating: 65, count: 5000)
        let sealed = try seal(text, [])
        #expect(try open(sealed, [], maximumBytes: 5000) == text)
        #expect(kind { _ = try open(sealed, [], maximumBytes: 4999) } == .limit)
    }

    @Test(
        "Each byte, flipped, is refused; without a seal it may also make no difference",
        arguments: [true, false])
    func damage(isSealed: Bool) throws {
        var random = Seeded(50)
        let text = random.text(3000)
        let object = try seal(text, isSealed ? [.x25519(Self.owner.recipient)] : [])
        let identities: [AgeIdentity] = isSealed ? [.x25519(Self.owner)] : []
        for index in object.indices {
            var damaged = object
            damaged[index] ^= 0x40
            var opened: [UInt8] = []
            let found = kind { opened = try open(damaged, identities) }
            if found == nil, !isSealed {
                // Bits that zstd does not use; the object's name tells in the end.
                #expect(opened == text)
            } else {
                #expect(
                    [.damaged, .malformed, .limit, .noIdentity].contains(found), "byte \(index)")
            }
        }
        for count in 0..<object.count {
            let cut = Array(object[..<count])
            #expect([.damaged, .malformed].contains(kind { _ = try open(cut, identities) }))
        }
        #expect([.damaged, .malformed].contains(kind { _ = try open(object + [0], identities) }))
    }

    @Test("Two frames are not one record")
    func twoFrames() throws {
        let object = try seal([1, 2, 3], [])
        #expect(kind { _ = try open(object + object, []) } == .damaged)
    }
}
