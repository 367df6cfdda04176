import Testing

@testable import SnapshotModel

@Suite("Manifest lines")
struct EntryCodecTests {
    static func full() -> Entry {
        var entry = Entry(path: Array("/srv/a \"b\"\n/\u{e9}".utf8), kind: .file)
        entry.mode = 0o4755
        entry.uid = 1000
        entry.gid = 4_294_967_294
        entry.user = Array("anna".utf8)
        entry.group = [0xFF, 0x61]
        entry.size = 1_000_000
        entry.mtime = Timestamp(seconds: -2, nanoseconds: 500_000_000)
        entry.ctime = Timestamp(seconds: 1_700_000_000, nanoseconds: 1)
        entry.btime = Timestamp(seconds: 0, nanoseconds: 999_999_999)
        entry.fileSystem = 3
        entry.inode = .max
        entry.links = 2
        entry.flags = 0x10 | 0x80 | 0x1000_0000
        entry.acl = Array("u::rwx,u:1000:r-x,g::r-x,m::rwx,o::r--".utf8)
        entry.defaultACL = Array("u::rwx,g::r-x,o::r--".utf8)
        entry.xattrs = [
            ExtendedAttribute(name: Array("security.capability".utf8), value: [1, 0, 0, 2]),
            ExtendedAttribute(name: Array("user.".utf8) + [0xFE], value: []),
        ]
        entry.holes = [Hole(offset: 4096, length: 8192), Hole(offset: 65536, length: 4096)]
        entry.fingerprint = Fingerprint(high: 1, low: .max)
        entry.chunks = [ChunkID(1, 2, 3, 4), ChunkID(.max, 0, .max, 5)]
        entry.isUnsettled = true
        return entry
    }

    static func line(_ entry: Entry) -> [UInt8] {
        let out = ByteBuffer()
        EntryCodec.write(entry, to: out)
        return out.array
    }

    @Test("What is written is what is read, field by field")
    func roundTrip() {
        var entries = [Self.full()]
        for kind in EntryKind.allCases {
            var entry = Entry(path: [0x2F, 0xFF, UInt8(kind.rawValue) + 64], kind: kind)
            entry.deviceMajor = kind.isDevice ? 8 : 0
            entry.deviceMinor = kind.isDevice ? 1_000_000 : 0
            entry.target = kind == .symlink ? [0x61, 0xFF, 0x0A] : []
            entries.append(entry)
        }
        for entry in entries {
            let line = Self.line(entry)
            #expect(line.last == 0x0A)
            #expect(line.dropLast().firstIndex(of: 0x0A) == nil)
            #expect(line.withUnsafeBytes { EntryCodec.read($0) } == entry)
        }
    }

    @Test("The summary of a line agrees with the whole entry, also for escaped names")
    func summary() {
        var plain = Self.full()
        plain.path = Array("/srv/plain".utf8)
        for entry in [Self.full(), plain] {
            let line = Self.line(entry)
            var summary = EntrySummary()
            #expect(line.withUnsafeBytes { summary.read($0) })
            #expect(summary.kind == entry.kind)
            #expect(summary.mode == entry.mode)
            #expect(summary.size == entry.size)
            #expect(summary.mtime == entry.mtime)
            #expect(summary.ctime == entry.ctime)
            #expect(summary.inode == entry.inode)
            #expect(summary.fileSystem == entry.fileSystem)
            #expect(summary.isUnsettled == entry.isUnsettled)
            if summary.pathIsPlain { #expect(Array(line[summary.pathRange]) == entry.path) }
        }
    }

    /// Entries as most of a tree has them.
    static func usual() -> [Entry] {
        var file = Entry(path: Array("/srv/data/r\u{e9}sum\u{e9}.txt".utf8), kind: .file)
        file.mode = 0o644
        file.user = Array("anna".utf8)
        file.group = Array("users".utf8)
        file.size = 12_345
        file.mtime = Timestamp(seconds: 1_700_000_000, nanoseconds: 123_456_789)
        file.ctime = Timestamp(seconds: 999_999_999, nanoseconds: 1)
        file.btime = Timestamp(seconds: -5, nanoseconds: 0)
        file.inode = 9_999_999_999_999_999_999
        file.fingerprint = Fingerprint(high: 0x0123_4567_89ab_cdef, low: .max)
        file.chunks = [ChunkID(0xabcd_ef01_2345_6789, 0, .max, 3), ChunkID(1, 2, 3, 4)]
        var linked = file
        linked.path = Array("/srv/data/x".utf8)
        linked.links = 3
        linked.isUnsettled = true
        linked.btime = nil
        linked.user = nil
        var empty = file
        empty.path = Array("/srv/e".utf8)
        empty.size = 0
        empty.fingerprint = .empty
        empty.chunks = []
        var directory = Entry(path: Array("/srv".utf8), kind: .directory)
        directory.mode = 0o1777
        directory.group = Array("staff".utf8)
        var link = Entry(path: Array("/srv/link".utf8), kind: .symlink)
        link.target = Array("data/x".utf8)
        return [file, linked, empty, directory, link, file, directory]
    }

    @Test("Usual lines are read the quick way, into an entry that held any other")
    func usualLines() {
        var entry = Self.full()
        for expected in Self.usual() {
            let line = Self.line(expected)
            #expect(line.withUnsafeBytes { EntryCodec.readUsual($0, into: &entry) })
            #expect(entry == expected)
            #expect(line.dropLast().withUnsafeBytes { EntryCodec.readUsual($0, into: &entry) })
            #expect(entry == expected)
            #expect(line.withUnsafeBytes { EntryCodec.readAny($0) } == expected)
        }
        let full = Self.line(Self.full())
        #expect(full.withUnsafeBytes { EntryCodec.read($0, into: &entry) })
        #expect(entry == Self.full())
    }

    @Test("What the quick way reads, the general way reads alike", arguments: 0..<20)
    func waysAgree(seed: Int) {
        var state = UInt64(seed) &* 0x9e37_79b9 &+ 7
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let originals = Self.usual().map { Self.line($0) }
        let likely = Array("0123456789abcdef/.\",{}[]:\\g:A".utf8) + [0, 0x1F, 0x80, 0xC3, 0xFF]
        var entry = Self.full()
        var readings = 0
        for _ in 0..<4000 {
            var line = originals[random(originals.count)]
            for _ in 0...random(2) where !line.isEmpty {
                let byte = likely[random(likely.count)]
                switch random(5) {
                case 0: line[random(line.count)] = UInt8(random(256))
                case 1, 2: line[random(line.count)] = byte
                case 3: line.remove(at: random(line.count))
                default: line.insert(byte, at: random(line.count))
                }
            }
            line.withUnsafeBytes { bytes in
                guard EntryCodec.readUsual(bytes, into: &entry) else { return }
                readings += 1
                #expect(
                    EntryCodec.readAny(bytes) == entry, "\(String(decoding: bytes, as: UTF8.self))")
            }
        }
        // Else this would say nothing.
        #expect(readings > 200)
    }

    @Test("Mutated and truncated lines are refused or read, and never trap", arguments: 0..<20)
    func hostileLines(seed: Int) {
        var state = UInt64(seed) &* 0x9e37_79b9 &+ 1
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let original = Self.line(Self.full())
        for _ in 0..<2000 {
            var line = original
            for _ in 0...random(3) {
                switch random(3) {
                case 0: line[random(line.count)] = UInt8(random(256))
                case 1: line.removeSubrange(random(line.count)...)
                default: line.insert(UInt8(random(256)), at: random(line.count))
                }
                if line.isEmpty { line = [0x7B] }
            }
            var summary = EntrySummary()
            line.withUnsafeBytes { bytes in
                _ = summary.read(bytes)
                if let entry = EntryCodec.read(bytes) {
                    #expect(EntryPath.isCanonical(entry.path))
                    #expect(EntryCodec.areOrdered(entry.holes, size: entry.size))
                }
            }
        }
        for length in 0..<(original.count - 2) {
            #expect(original[..<length].withUnsafeBytes { EntryCodec.read($0) } == nil)
        }
    }

    @Test(
        "Entries that could harm a restore are not entries",
        arguments: [
            "/a/../b", "a", "/a//b", "/a/", "/./a", "", "/a\\u0000b",
        ])
    func hostilePaths(path: String) {
        let line =
            "{\"path\":\"\(path)\",\"type\":\"dir\",\"mode\":\"755\",\"uid\":0,\"gid\":0,\"mtime\":\"0.000000000\",\"ctime\":\"0.000000000\",\"fs\":0,\"ino\":1}\n"
        #expect(Array(line.utf8).withUnsafeBytes { EntryCodec.read($0) } == nil)
        let good = line.replacing("\"\(path)\"", with: "\"/good\"")
        #expect(Array(good.utf8).withUnsafeBytes { EntryCodec.read($0) } != nil)
    }

    @Test("A field marked critical that this reader lacks makes the line unreadable")
    func criticalField() {
        let line =
            "{\"path\":\"/a\",\"type\":\"dir\",\"mode\":\"755\",\"uid\":0,\"gid\":0,\"mtime\":\"0.000000000\",\"ctime\":\"0.000000000\",\"fs\":0,\"ino\":1,\"new\":[{\"a\":\"}]\"}]"
        #expect(Array((line + "}").utf8).withUnsafeBytes { EntryCodec.read($0) } != nil)
        #expect(
            Array((line + ",\"critical\":[\"new\"]}").utf8).withUnsafeBytes { EntryCodec.read($0) }
                == nil)
    }

    @Test("The numbers by which keys are told apart are those of their names")
    func keyCodes() {
        for (code, name) in EntryCodec.keyNames {
            #expect(Array(name.utf8).withUnsafeBytes { EntryCodec.code($0) } == code, "\(name)")
        }
        #expect(Set(EntryCodec.keyNames.map(\.code)).count == EntryCodec.keyNames.count)
    }

    @Test(
        "Times before 1970 are decimal numbers",
        arguments: [
            (Timestamp(seconds: -2, nanoseconds: 500_000_000), "-1.500000000"),
            (Timestamp(seconds: -1, nanoseconds: 0), "-1.000000000"),
            (Timestamp(seconds: -1, nanoseconds: 999_999_999), "-0.000000001"),
            (Timestamp(seconds: 0, nanoseconds: 1), "0.000000001"),
        ])
    func times(time: Timestamp, text: String) {
        #expect(time.text == text)
        #expect(Timestamp(text) == time)
    }
}

@Suite("The order of paths")
struct EntryPathTests {
    @Test("Comparing bytes with the slash lowest is comparing component by component")
    func order() {
        let names = ["/", "/a", "/a/b", "/a/b/c", "/a!", "/a-b", "/a.b", "/a0", "/ab", "/b"]
        for (i, left) in names.enumerated() {
            for (j, right) in names.enumerated() {
                let expected = i < j ? -1 : i > j ? 1 : 0
                #expect(
                    EntryPath.compare(Array(left.utf8), Array(right.utf8)).signum() == expected,
                    "\(left) \(right)")
            }
        }
    }

    @Test("A directory contains itself and what is below it, and no namesake")
    func contains() {
        #expect(EntryPath.contains(Array("/a".utf8), Array("/a/b".utf8)))
        #expect(EntryPath.contains(Array("/a".utf8), Array("/a".utf8)))
        #expect(EntryPath.contains(Array("/".utf8), Array("/a".utf8)))
        #expect(!EntryPath.contains(Array("/a".utf8), Array("/ab".utf8)))
    }
}

@Suite("Chunking")
struct ChunkerTests {
    static func random(_ count: Int, seed: UInt64) -> [UInt8] {
        var state = seed
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
    }

    static func cuts(_ bytes: [UInt8], _ chunker: Chunker) -> [Int] {
        bytes.withUnsafeBytes { bytes in
            var at = 0
            var lengths: [Int] = []
            while at < bytes.count {
                let length = chunker.cut(bytes.baseAddress! + at, count: bytes.count - at)
                lengths.append(length)
                at += length
            }
            return lengths
        }
    }

    @Test("Chunks keep to their bounds and are about the average")
    func bounds() {
        let parameters = ChunkerParameters.standard
        let lengths = Self.cuts(Self.random(32 << 20, seed: 1), Chunker(parameters))
        for length in lengths.dropLast() {
            #expect((parameters.minimum...parameters.maximum).contains(length))
        }
        let mean = (32 << 20) / lengths.count
        #expect((parameters.average / 2...parameters.average * 2).contains(mean))
    }

    @Test("An insertion moves only the chunks around it")
    func locality() {
        let original = Self.random(16 << 20, seed: 2)
        var edited = original
        edited.insert(contentsOf: [1, 2, 3], at: 8 << 20)
        let chunker = Chunker(.standard)
        func starts(_ bytes: [UInt8]) -> Set<[UInt8]> {
            var at = 0
            return Set(
                Self.cuts(bytes, chunker).map { length in
                    defer { at += length }
                    return Array(bytes[at..<(at + min(32, length))])
                })
        }
        let before = starts(original)
        #expect(starts(edited).subtracting(before).count <= 2)
    }

    /// The cut as format.md appendix A words it, byte by byte.
    static func plainCut(_ bytes: [UInt8], from start: Int, _ parameters: ChunkerParameters) -> Int
    {
        let bits = UInt64(parameters.average.trailingZeroBitCount)
        let count = min(bytes.count - start, parameters.maximum)
        var hash: UInt64 = 0
        var length = parameters.minimum
        while length < count {
            hash = hash << 1 &+ Chunker.gear[Int(bytes[start + length])]
            let zeros = length < min(parameters.average, count) ? bits + 2 : bits - 2
            length += 1
            if hash >> (64 - zeros) == 0 { return length }
        }
        return min(count, bytes.count - start)
    }

    @Test(
        "Cuts are those of the format page, wherever they fall and wherever the input ends",
        arguments: [
            (64, 256, 4096), (64, 4096, 65536), (1000, 16384, 50000), (65536, 262144, 1 << 20),
        ])
    func plainCuts(minimum: Int, average: Int, maximum: Int) throws {
        let parameters = try #require(
            ChunkerParameters(minimum: minimum, average: average, maximum: maximum))
        let chunker = Chunker(parameters)
        for (seed, count) in [
            (4, 3_000_001), (5, minimum + 8191), (6, minimum + 8192), (7, average),
        ] {
            var bytes = Self.random(count, seed: UInt64(seed))
            // A stretch without any cut, and one where the hash is the same all the time.
            for index in count / 2..<(count / 2 + count / 6) { bytes[index] = 7 }
            var at = 0
            for length in Self.cuts(bytes, chunker) {
                guard length == Self.plainCut(bytes, from: at, parameters) else {
                    Issue.record("seed \(seed), chunk at \(at)")
                    break
                }
                at += length
            }
        }
    }

    @Test("The table and the cuts of format 1 never change")
    func golden() {
        let lengths = Self.cuts(Self.random(4 << 20, seed: 3), Chunker(.standard))
        #expect(lengths.reduce(0, +) == 4 << 20)
        #expect(lengths == Self.goldenCuts)
    }
    static let goldenCuts = [
        357009, 485912, 319425, 266213, 139998, 279893, 401651, 263414, 351473, 345629, 175167,
        277493, 263395,
        267632,
    ]
}
