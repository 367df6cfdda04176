import AgeEncryption
import BundleFormat
import SnapshotModel
import Testing

@Suite("Bundles, written and read again")
struct RoundTripTests {
    static let identity = X25519Identity()

    @Test("Every frame opens by its range alone, and every chunk in it", arguments: [true, false])
    func frames(isSealed: Bool) throws {
        let members = mixture(1, count: 300, upTo: 9000)
        let written = try write(
            members, recipients: isSealed ? [.x25519(Self.identity.recipient)] : [],
            frameBytes: 100_000)
        #expect(written.bundle.frames.count > 5)
        #expect(written.bundle.size == written.stored.count)
        let access =
            isSealed ? try access(written.stored, [.x25519(Self.identity)]) : BundleAccess.plain
        #expect(try access.plainLength(storedSize: written.stored.count) == written.bundle.plain)
        let opener = try FrameOpener()
        let raw = ByteBuffer()
        var chunks: [[UInt8]] = []
        for index in written.bundle.frames.indices.reversed() {
            let frame = written.bundle.frames[index]
            try openFrame(
                frame, of: written.stored, access: access, opener: opener, into: raw)
            if index < written.raws.count { #expect(raw.array == written.raws[index]) }
            for place in frame.chunks.reversed() {
                chunks.append(Array(try FrameOpener.chunk(place, in: raw.bytes)))
            }
        }
        #expect(chunks.reversed() == members.map(\.data))
    }

    @Test("Several frames fetched with one range open one by one")
    func mergedRanges() throws {
        let written = try write(
            mixture(2, count: 100, upTo: 9000), recipients: [.x25519(Self.identity.recipient)],
            frameBytes: 50_000)
        let access = try access(written.stored, [.x25519(Self.identity)])
        let first = written.bundle.frames[1]
        let last = written.bundle.frames[3]
        let length = last.offset + last.length - first.offset
        let range = try access.sealedRange(
            offset: first.offset, length: length, storedSize: written.stored.count)
        let plain = ByteBuffer()
        try written.stored[range].withUnsafeBufferPointer {
            try access.open(
                UnsafeRawBufferPointer($0), offset: first.offset, length: length,
                storedSize: written.stored.count, into: plain)
        }
        let opener = try FrameOpener()
        let raw = ByteBuffer()
        for index in 1...3 {
            let frame = written.bundle.frames[index]
            let start = frame.offset - first.offset
            try opener.decompress(
                UnsafeRawBufferPointer(rebasing: plain.bytes[start..<start + frame.length]), frame,
                into: raw)
            #expect(raw.array == written.raws[index])
        }
    }

    @Test(
        "A scan says what the writer said, fed in any pieces",
        arguments: [1, 17, 4096, 1 << 24], [true, false])
    func scanned(step: Int, isSealed: Bool) throws {
        let members = mixture(3, count: 60, upTo: 6000)
        for endsInLastFrame in [true, false] {
            let written = try write(
                members, recipients: isSealed ? [.x25519(Self.identity.recipient)] : [],
                frameBytes: 60_000, wantsMD5: true, endsInLastFrame: endsInLastFrame)
            let found = try scan(
                written.stored, identities: isSealed ? [.x25519(Self.identity)] : [], step: step,
                expecting: written.bundle.id, wantsMD5: true)
            #expect(found.bundle == written.bundle)
            #expect(found.members.map(\.place.id) == members.map(\.id))
            #expect(Array(found.raws.prefix(written.raws.count)) == written.raws)
            for (member, scanned) in zip(members, found.members) {
                switch member.name {
                case .wholeFile(let file):
                    let isReserved = file.path.starts(with: "/.batchsync/".utf8)
                    #expect(scanned.kind == (isReserved ? .chunk : .wholeFile))
                    #expect(scanned.path == file.path)
                case .chunk(let path):
                    #expect(scanned.kind == .chunk)
                    #expect(scanned.path == path)
                default: Issue.record("no such member was written")
                }
            }
        }
    }

    @Test("A manifest bundle is found to be one")
    func manifest() throws {
        var random = Seeded(9)
        let members =
            (0..<40).map { _ in Member(name: .segment, data: random.text(40_000)) }
            + [Member(name: .node, data: random.text(3000))]
        let written = try write(members, kind: .manifest)
        let found = try scan(written.stored)
        #expect(found.bundle == written.bundle)
        #expect(found.bundle.kind == .manifest)
        #expect(found.members.last?.kind == .node)
        #expect(found.members.first?.kind == .segment)
    }

    @Test("Two bundles of the same chunks have different names")
    func namesNeverComeBack() throws {
        let members = mixture(4, count: 3, upTo: 100)
        #expect(try write(members).bundle.id != write(members).bundle.id)
    }

    @Test("A plain member costs one header of 512 bytes; offsets point at the data")
    func compactMembers() throws {
        let frame = FrameBuilder()
        let member = Member.file("/home/user/file", Array("hello".utf8))
        for _ in 0..<3 {
            try frame.add(member)
        }
        #expect(frame.rawBytes == 3 * 1024)
        #expect(frame.chunks.map(\.offset) == [512, 1536, 2560])
        #expect(frame.chunks.map(\.length) == [5, 5, 5])
        #expect(Array(frame.bytes[1536..<1541]) == Array("hello".utf8))
    }

    @Test("A reset frame is as good as new, and one full frame holds 4 MiB")
    func reuse() throws {
        let frame = FrameBuilder()
        var random = Seeded(5)
        let member = Member.file("/a", random.bytes(100_000))
        var images: [[UInt8]] = []
        for _ in 0..<2 {
            while !frame.isFull {
                try frame.add(member)
            }
            #expect(frame.rawBytes >= 4 << 20)
            #expect(frame.rawBytes < (4 << 20) + 101_000)
            images.append(Array(frame.bytes))
            frame.reset()
            #expect(frame.isEmpty)
            #expect(frame.chunks.isEmpty)
        }
        #expect(images[0] == images[1])
    }

    @Test(
        "Empty chunks, and lengths around a tar block, come back", arguments: [0, 1, 511, 512, 513])
    func lengths(count: Int) throws {
        var random = Seeded(6)
        let members = (0..<3).map { Member.file("/f\($0)", random.bytes(count)) }
        let written = try write(members)
        #expect(try scan(written.stored).members.map(\.place.id) == members.map(\.id))
    }

    @Test("What does not fit into a frame is refused, and the frame stays as it was")
    func limits() throws {
        let frame = FrameBuilder()
        var random = Seeded(7)
        let big = Member.file("/big", random.bytes(15 << 20))
        let small = Member.file("/small", random.bytes(2 << 20))
        let tooBig = [UInt8](repeating: 0, count: (16 << 20) + 1)
        try frame.add(big)
        let before = frame.rawBytes
        #expect(kind { try frame.add(small) } == .limit)
        #expect(kind { try frame.add(Member(name: small.name, data: tooBig)) } == .limit)
        #expect(frame.rawBytes == before)
        #expect(frame.chunks.count == 1)
        let one = Member.file("/one", [1])
        try frame.add(one)
        #expect(frame.chunks.count == 2)
    }

    @Test(
        "Paths that no file has are refused", arguments: ["/", "", "/a//b", "/a/../b", "/a\u{0}b"])
    func paths(path: String) throws {
        let frame = FrameBuilder()
        let member = Member.file(path, [1])
        #expect(kind { try frame.add(member) } == .malformed)
        #expect(frame.isEmpty)
    }

    @Test("A bundle of the largest frame is written and scanned")
    func largestFrame() throws {
        var random = Seeded(8)
        let data = random.bytes((16 << 20) - 512 - 1024)
        let written = try write([.file("/big", data)], endsInLastFrame: true)
        #expect(written.bundle.frames[0].raw == 16 << 20)
        #expect(try scan(written.stored, step: 1 << 20).bundle == written.bundle)
    }

    @Test("What the receiver of the bytes throws comes back, and the bundle stays lost")
    func receiverFails() throws {
        struct Full: Error {}
        var emitted = 0
        let writer = try BundleWriter(
            kind: .content, recipients: [.x25519(Self.identity.recipient)], wantsMD5: false
        ) { bytes in
            emitted += bytes.count
            if emitted > 1000 { throw Full() }
        }
        let frame = FrameBuilder()
        var random = Seeded(10)
        let member = Member.file("/a", random.bytes(300_000))
        try frame.add(member)
        let compressed = try FrameCompressor(level: 1).compress(frame, into: ByteBuffer())
        for _ in 0..<2 {
            do {
                try writer.append(compressed)
                Issue.record("the write error was swallowed")
            } catch {
                #expect(error.kind == .output)
                #expect(error.underlying is Full)
            }
        }
        #expect(kind { _ = try writer.finish() } == .output)
    }

    @Test("Levels out of range are refused", arguments: [0, 20, -101])
    func levels(level: Int) {
        #expect(kind { _ = try FrameCompressor(level: level) } == .limit)
    }

    @Test("Every level gives frames that open", arguments: [-7, -1, 1, 3, 9, 19])
    func levelsOpen(level: Int) throws {
        let written = try write(mixture(11, count: 10, upTo: 20_000), level: level)
        #expect(try scan(written.stored).bundle == written.bundle)
    }
}
