import AgeEncryption
import BundleFormat
import CLibZstd
import SnapshotModel
import Testing

/// A bundle that holds these tar bytes, a frame each; well-formed but for them.
func bundle(of raws: [[UInt8]]) -> [UInt8] {
    var stored: [UInt8] =
        [0x50, 0x2A, 0x4D, 0x18, 0x10, 0, 0, 0] + [UInt8](repeating: 7, count: 16)
    for raw in raws { stored += compressed(raw) }
    return stored
}

/// One zstd frame, with the parameters that a test wants.
func compressed(
    _ raw: [UInt8], level: Int32 = 1, statesSize: Bool = true, hasChecksum: Bool = true,
    windowLog: Int32 = 0
) -> [UInt8] {
    let context = ZSTD_createCCtx()
    defer { ZSTD_freeCCtx(context) }
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, statesSize ? 1 : 0)
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, hasChecksum ? 1 : 0)
    if windowLog > 0 { ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, windowLog) }
    return [UInt8](unsafeUninitializedCapacity: ZSTD_compressBound(raw.count)) { output, count in
        count = ZSTD_compress2(context, output.baseAddress, output.count, raw, raw.count)
    }
}

@Suite("Damage is refused and named")
struct DamageTests {
    static let identity = X25519Identity()
    static let members = mixture(30, count: 8, upTo: 300)

    @Test("Each byte of a sealed bundle, flipped, is found by its seal alone")
    func sealedBytes() throws {
        let written = try write(
            Self.members, recipients: [.x25519(Self.identity.recipient)], frameBytes: 2000)
        let header = try access(written.stored, [.x25519(Self.identity)]).headerBytes
        for index in written.stored.indices {
            var damaged = written.stored
            damaged[index] ^= UInt8(1 << (index % 8))
            let found = kind {
                _ = try scan(damaged, identities: [.x25519(Self.identity)], step: 1 << 20)
            }
            if index >= header {
                #expect(found == .damaged, "byte \(index)")
            } else {
                #expect(
                    [.damaged, .malformed, .noIdentity].contains(found),
                    "byte \(index): \(String(describing: found))")
            }
        }
    }

    @Test("Each byte of an unsealed bundle, flipped, is found by its name at the latest")
    func plainBytes() throws {
        let written = try write(Self.members, frameBytes: 2000)
        for index in written.stored.indices {
            var damaged = written.stored
            damaged[index] ^= UInt8(1 << (index % 8))
            #expect(
                [.damaged, .malformed, .limit].contains(
                    kind { _ = try scan(damaged, step: 1 << 20, expecting: written.bundle.id) }),
                "byte \(index)")
        }
    }

    @Test("Each byte of a frame, flipped, is refused by its reader or makes no difference")
    func frameBytes() throws {
        let written = try write(Self.members, frameBytes: 2000)
        let opener = try FrameOpener()
        let raw = ByteBuffer()
        for (number, frame) in written.bundle.frames.enumerated() {
            let expected = number < written.raws.count ? written.raws[number] : nil
            for index in frame.offset..<frame.offset + frame.length {
                for bit in 0..<8 {
                    var damaged = written.stored
                    damaged[index] ^= UInt8(1 << bit)
                    let found = kind {
                        try openFrame(frame, of: damaged, access: .plain, opener: opener, into: raw)
                    }
                    if let found {
                        #expect([.damaged, .malformed, .limit].contains(found))
                        #expect(raw.count == 0)
                    } else if let expected {
                        #expect(raw.array == expected)
                    }
                }
            }
        }
    }

    @Test("A bundle cut off anywhere is refused", arguments: [true, false])
    func truncated(isSealed: Bool) throws {
        let identities: [AgeIdentity] = isSealed ? [.x25519(Self.identity)] : []
        let written = try write(
            Self.members, recipients: isSealed ? [.x25519(Self.identity.recipient)] : [],
            frameBytes: 2000)
        for count in 0..<written.stored.count {
            let found = kind {
                _ = try scan(Array(written.stored[..<count]), identities: identities, step: 1 << 20)
            }
            #expect(found == .damaged || found == .malformed, "\(count) bytes")
        }
        #expect(
            kind { _ = try scan(written.stored + [0], identities: identities) }
                == (isSealed ? .damaged : .malformed))
    }

    @Test("Somebody else's identity opens nothing, and the error says so")
    func strangers() throws {
        let written = try write(Self.members, recipients: [.x25519(Self.identity.recipient)])
        let stranger: [AgeIdentity] = [.x25519(X25519Identity())]
        #expect(kind { _ = try access(written.stored, stranger) } == .noIdentity)
        #expect(kind { _ = try scan(written.stored, identities: stranger) } == .noIdentity)
        #expect(
            kind { _ = try access(Array(written.stored.prefix(40)), stranger) } == .needsMoreBytes)
    }

    @Test("Ranges outside of a bundle are refused")
    func ranges() throws {
        let written = try write(Self.members, recipients: [.x25519(Self.identity.recipient)])
        for access in [try access(written.stored, [.x25519(Self.identity)]), .plain] {
            for (offset, length) in [(-1, 5), (0, -1), (0, .max), (.max, .max), (1 << 40, 1)] {
                #expect(
                    kind {
                        _ = try access.sealedRange(
                            offset: offset, length: length, storedSize: written.stored.count)
                    } == .malformed)
            }
        }
    }

    @Test("An index that lies about a frame is found out")
    func lyingIndex() throws {
        let written = try write(Self.members)
        let opener = try FrameOpener()
        let raw = ByteBuffer()
        func opened(_ change: (inout FrameRecord) -> Void) -> BundleError.Kind? {
            var frame = written.bundle.frames[0]
            change(&frame)
            return kind {
                try openFrame(frame, of: written.stored, access: .plain, opener: opener, into: raw)
            }
        }
        #expect(opened { _ in } == nil)
        #expect(opened { $0.raw += 1 } == .damaged)
        #expect(opened { $0.raw = 17 << 20 } == .limit)
        #expect(opened { $0.raw = 0 } == .limit)
        #expect(opened { $0.length = 0 } == .limit)
        #expect(opened { $0.length = .max } == .malformed)
        #expect(opened { $0.length += 1 } == .damaged)
        #expect(opened { $0.length -= 1 } == .damaged)
        #expect(opened { $0.offset += 1 } == .malformed)
        #expect(opened { $0.fingerprint = .empty } == .damaged)

        try openFrame(
            written.bundle.frames[0], of: written.stored, access: .plain, opener: opener, into: raw)
        let place = written.bundle.frames[0].chunks[1]
        func chunk(_ offset: UInt32, _ length: UInt32, _ id: ChunkID) -> BundleError.Kind? {
            kind {
                _ = try FrameOpener.chunk(
                    ChunkPlace(id: id, offset: offset, length: length), in: raw.bytes)
            }
        }
        #expect(chunk(place.offset, place.length, place.id) == nil)
        #expect(chunk(place.offset + 1, place.length, place.id) == .damaged)
        #expect(chunk(.max, .max, place.id) == .malformed)
        #expect(chunk(.max, 10, place.id) == .malformed)
        #expect(
            chunk(place.offset, place.length, written.bundle.frames[0].chunks[2].id) == .damaged)
    }
}

@Suite("Bundles that nobody should have written")
struct HostileTests {
    static let raw: [UInt8] = {
        let frame = FrameBuilder()
        for member in mixture(40, count: 10, upTo: 400) {
            #expect(throws: Never.self) { try frame.add(member) }
        }
        return Array(frame.bytes)
    }()
    static let end = [UInt8](repeating: 0, count: 1024)

    @Test("The frames of these tests are sound by themselves")
    func sound() throws {
        #expect(try scan(bundle(of: [Self.raw, Self.raw, Self.end])).members.count == 20)
        #expect(try scan(bundle(of: [Self.raw, Self.raw + Self.end])).members.count == 20)
    }

    @Test("A frame that states too much is refused before memory is taken for it")
    func bomb() throws {
        let stated: UInt64 = 1 << 40
        var header: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0b1110_0100]
        withUnsafeBytes(of: stated.littleEndian) { header.append(contentsOf: $0) }
        // An RLE block of 128 KiB, and the promise of more.
        header += [0x02, 0x00, 0x10, 0x41]
        #expect(kind { _ = try scan(bundle(of: []) + header) } == .limit)
        #expect(
            kind {
                _ = try header.withUnsafeBytes {
                    try SealedRecord.open($0, identities: [], maximumBytes: 1 << 30)
                }
            } == .limit)
        // 64 MiB of zeros in a few kilobytes.
        let zeros = compressed([UInt8](repeating: 0, count: 64 << 20))
        #expect(zeros.count < 20_000)
        #expect(kind { _ = try scan(bundle(of: []) + zeros) } == .limit)
        // More blocks than the stated size has room for.
        var small: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0b1010_0100, 0x00, 0x10, 0x00, 0x00]
        for _ in 0..<100 { small += [0x02, 0x00, 0x10, 0x41] }
        small += [0x03, 0x00, 0x10, 0x41, 0, 0, 0, 0]
        #expect(kind { _ = try scan(bundle(of: []) + small) } == .damaged)
    }

    @Test("An endless frame of empty blocks is given up")
    func endless() throws {
        var frame: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0b1010_0100, 0x00, 0x10, 0x00, 0x00]
        frame += [UInt8](repeating: 0, count: 18 << 20)
        #expect(kind { _ = try scan(bundle(of: []) + frame, step: 1 << 20) } == .limit)
    }

    @Test("A frame without size, checksum or with too large a window is refused")
    func frameHeaders() throws {
        func found(_ frame: [UInt8]) -> BundleError.Kind? {
            kind { _ = try scan(bundle(of: []) + frame + compressed(Self.end)) }
        }
        #expect(found(compressed(Self.raw)) == nil)
        #expect(found(compressed(Self.raw, statesSize: false)) == .malformed)
        #expect(found(compressed(Self.raw, hasChecksum: false)) == .malformed)
        var wide = compressed(Self.raw)
        // The same frame with a window of 2^28 stated: header byte, window, then the size on four
        // bytes.
        #expect(wide[4] & 0xE0 == 0x60)
        let size = UInt32(Self.raw.count)
        wide.replaceSubrange(
            4..<7, with: [0b1000_0100, (28 - 10) << 3] + withUnsafeBytes(of: size) { Array($0) })
        #expect(found(wide) == .limit)
        wide[5] = (27 - 10) << 3
        #expect(found(wide) == nil)
        wide[4] |= 0x01
        #expect(found(wide) == .malformed)
    }

    @Test("Anything but members and one end of archive is refused")
    func archives() throws {
        func found(_ raws: [[UInt8]]) -> BundleError.Kind? {
            kind { _ = try scan(bundle(of: raws)) }
        }
        let raw = Self.raw
        #expect(found([raw]) == .malformed, "no end")
        #expect(found([Self.end]) == .malformed, "no member")
        #expect(found([raw, Self.end, raw]) == .malformed, "a frame behind the end")
        #expect(found([raw + Self.end + raw]) == .malformed, "members behind the end")
        #expect(
            found([raw + Self.end + [UInt8](repeating: 0, count: 512)]) == .malformed, "more zeros")
        #expect(found([raw + [UInt8](repeating: 0, count: 512)]) == .malformed, "half an end")
        #expect(found([Array(raw.dropLast()), Self.end]) == .malformed, "cut")
        #expect(found([Array(raw.dropLast(512)), Self.end]) == .malformed, "cut in a member")
        #expect(found([[], raw, Self.end]) == .malformed, "an empty frame")
        let manifest = FrameBuilder()
        try manifest.add(Member(name: .segment, data: [1, 2, 3]))
        #expect(found([raw, Array(manifest.bytes), Self.end]) == .malformed, "mixed kinds")
        var directory = raw
        directory[156] = UInt8(ascii: "5")
        #expect(found([directory, Self.end]) == .malformed, "a directory, and a wrong checksum")
        #expect(
            kind { _ = try scan(Array(bundle(of: [raw, Self.end]).dropFirst(24))) } == .malformed)
    }

    @Test("Tar bytes mutated at random never do worse than an error", arguments: 0..<8)
    func mutatedTar(seed: Int) throws {
        var random = Seeded(UInt64(1000 + seed))
        var refused = 0
        for _ in 0..<400 {
            var raw = Self.raw
            mutate(&raw, &random)
            // Half of them get their checksums back, to come further.
            if random.next() & 1 == 0 { mend(&raw) }
            let stored = bundle(of: [raw, Self.end])
            do throws(BundleError) {
                let found = try scan(stored, step: 1 << 20)
                for place in found.bundle.frames.flatMap(\.chunks) {
                    #expect(Int(place.offset) + Int(place.length) <= raw.count)
                }
            } catch {
                refused += 1
                #expect(error.kind == .malformed || error.kind == .limit, "\(error)")
            }
        }
        #expect(refused > 100)
    }

    @Test("Compressed bytes mutated at random never do worse than an error", arguments: 0..<8)
    func mutatedZstd(seed: Int) throws {
        var random = Seeded(UInt64(2000 + seed))
        let stored = bundle(of: [Self.raw, Self.end])
        let opener = try FrameOpener()
        let output = ByteBuffer()
        let frame = compressed(Self.raw)
        let record = FrameRecord(
            offset: 24, length: frame.count, raw: Self.raw.count,
            fingerprint: Self.raw.withUnsafeBytes { ContentHash.fingerprint($0) }, chunks: [])
        for _ in 0..<400 {
            var damaged = stored
            mutate(&damaged, &random)
            _ = kind { _ = try scan(damaged, step: 1 + Int(random.next() % 9000)) }
            var bytes = frame
            mutate(&bytes, &random)
            var changed = record
            changed.length = bytes.count
            let found = kind {
                try bytes.withUnsafeBytes { try opener.decompress($0, changed, into: output) }
            }
            if found == nil { #expect(output.array == Self.raw) }
        }
    }

    /// One to four changes: bits, bytes, runs copied, cut out or put in.
    func mutate(_ bytes: inout [UInt8], _ random: inout Seeded) {
        for _ in 0...random.next() % 4 where !bytes.isEmpty {
            let at = Int(random.next() % UInt64(bytes.count))
            let length = min(bytes.count - at, 1 + Int(random.next() % 600))
            switch random.next() % 7 {
            case 0: bytes[at] ^= UInt8(1 << (random.next() % 8))
            case 1: bytes[at] = UInt8(truncatingIfNeeded: random.next())
            case 2: bytes.removeSubrange(at..<at + length)
            case 3: bytes.insert(contentsOf: random.bytes(length), at: at)
            case 4: bytes.insert(contentsOf: Array(bytes[at..<at + length]), at: at)
            case 5: bytes.removeSubrange(at...)
            default:
                let block = at & ~511
                let digits = Array("0123456789 =\n\0xgLK".utf8)
                let index = min(bytes.count - 1, block + Int(random.next() % 160))
                bytes[index] = digits[Int(random.next() % UInt64(digits.count))]
            }
        }
    }

    /// Gives every block that looks like a tar header the checksum it needs.
    func mend(_ raw: inout [UInt8]) {
        for start in stride(from: 0, to: raw.count - 511, by: 512)
        where raw[start + 257..<start + 262].elementsEqual("ustar".utf8) {
            for index in 148..<156 { raw[start + index] = 32 }
            let sum = raw[start..<start + 512].reduce(0) { $0 + Int($1) }
            let digits = Array(String(sum + 0o1000000, radix: 8).suffix(6).utf8)
            raw.replaceSubrange(start + 148..<start + 155, with: digits + [0])
        }
    }
}
