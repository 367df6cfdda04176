import BundleFormat
import FileTree
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Restoring from a repository that is damaged or hostile")
struct RestoreDamageTests {
    private func paths(_ report: RestoreReport) -> [String] {
        report.damaged.map { String(decoding: $0.path, as: UTF8.self) }.sorted()
    }

    @Test("A damaged frame costs the files in it and no other")
    func damagedFrame() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 21)
        let chunks = (0..<5).map { _ in generator.bytes(20_000) }
        for (number, chunk) in chunks.enumerated() {
            scratch.beginFrame()
            scratch.file("/f\(number)", [chunk])
            scratch.file("/g\(number)", [chunk, [UInt8(number)]])
        }
        scratch.file("/all", chunks)
        try scratch.commit()
        try scratch.damage(.content, frame: 2)
        let report = try scratch.restore()
        #expect(paths(report) == ["/all", "/f2", "/g2"])
        #expect(report.damaged.allSatisfy { $0.object.hasPrefix("bundles/") })
        #expect(report.damagedCount == 3)
        #expect(scratch.names == ["f0", "f1", "f3", "f4", "g0", "g1", "g3", "g4"])
        #expect(scratch.content("f3") == chunks[3])
    }

    @Test("Where a second copy of a chunk is sound, nothing is lost")
    func secondCopy() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 22)
        let chunk = generator.bytes(30_000)
        scratch.file("/a", [chunk])
        scratch.beginFrame()
        _ = scratch.storeChunk(chunk, again: true)
        scratch.file("/b", [[1]])
        try scratch.commit()
        for frame in [0, 1] {
            let other = scratch.directory.path("target\(frame)")
            try scratch.damage(.content, frame: frame)
            let report = try scratch.restore("/a", to: other)
            #expect(report.damagedCount == 0)
            #expect(readFile(other + "/a") == chunk)
            // Flipped back.
            try scratch.damage(.content, frame: frame)
        }
    }

    @Test("Other names of a damaged file are named, too")
    func damagedLinks() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 23)
        let chunk = generator.bytes(10_000)
        for path in ["/a", "/b"] {
            scratch.file(path, [chunk]) {
                $0.links = 2
                $0.inode = 3
            }
        }
        scratch.beginFrame()
        scratch.file("/c", [[1]])
        try scratch.commit()
        try scratch.damage(.content, frame: 0)
        let report = try scratch.restore()
        #expect(paths(report) == ["/a", "/b"])
        #expect(scratch.names == ["c"])
    }

    @Test("A damaged segment costs the files that it names")
    func damagedSegment() throws {
        let scratch = try RestoreScratch()
        scratch.segmentEntries = 5
        for number in 10..<30 { scratch.file("/f\(number)", [[UInt8(number)]]) }
        try scratch.commit()
        try scratch.damage(.manifest, frame: 1)
        let report = try scratch.restore()
        #expect(paths(report) == ["/f15"])
        #expect(scratch.names == (10..<30).filter { !(15..<20).contains($0) }.map { "f\($0)" })
    }

    @Test("A missing bundle costs its files, and the rest is restored")
    func missingBundle() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/d")
        scratch.file("/d/a", [[1]])
        scratch.add(.symlink, "/d/l") { $0.target = [0x78] }
        try scratch.commit()
        let id = try #require(scratch.bundle)
        try scratch.store.delete(try #require(ObjectKey(scratch.repository.bundleKey(id))))
        let report = try scratch.restore()
        #expect(paths(report) == ["/d/a"])
        #expect(scratch.names == ["d/", "d/l"])
    }

    @Test("A chunk that no index knows costs its file")
    func unknownChunk() throws {
        let scratch = try RestoreScratch()
        scratch.file("/a", [[1], [2]])
        scratch.file("/b", [[3]])
        let gone = scratch.storeChunk([2])
        scratch.unindexed = [gone]
        try scratch.commit()
        let report = try scratch.restore()
        #expect(paths(report) == ["/a"])
        #expect(scratch.names == ["b"])
    }

    @Test("Paths that lead out of the target are refused and named")
    func escapes() throws {
        let scratch = try RestoreScratch()
        scratch.file("/ok", [[1]])
        let outside = scratch.directory.path("escaped")
        func line(_ path: String) -> String {
            let out = ByteBuffer()
            var entry = RestoreScratch.entry(.file, "/x")
            entry.path = Array(path.utf8)
            EntryCodec.write(entry, to: out)
            return String(decoding: out.bytes.dropLast(), as: UTF8.self)
        }
        scratch.rawLines = [
            "/../escaped", "relative", "/zz/../../escaped", "/zz//x", "/zz/./x", "/zz/",
            "/zz\\u0000/a",
        ]
        .map { line($0).replacing("\\\\u0000", with: "\\u0000") }
        let report = try scratch.restore()
        #expect(report.damagedCount == 7)
        #expect(scratch.names == ["ok"])
        #expect(readFile(outside) == nil)
    }

    @Test("A path through a link of the same snapshot writes nothing behind the link")
    func throughLink() throws {
        let scratch = try RestoreScratch()
        let outside = scratch.directory.path("outside")
        mkdir(outside, 0o700)
        scratch.add(.symlink, "/d") { $0.target = Array(outside.utf8) }
        scratch.file("/d/evil", [[1]])
        scratch.add(.directory, "/d/sub")
        let report = try scratch.restore()
        #expect(treeContents(outside) == [])
        #expect(report.problemCount + report.damagedCount > 0)
    }

    @Test("Entries out of order, and twice the same one, are refused")
    func disorder() throws {
        let scratch = try RestoreScratch()
        scratch.file("/b", [[1]])
        scratch.file("/a", [[2]])
        scratch.file("/b", [[3]])
        scratch.file("/c", [[4]])
        try scratch.commit(sorted: false)
        let report = try scratch.restore()
        #expect(paths(report) == ["/a", "/b"])
        #expect(scratch.content("b") == [1])
        #expect(scratch.names == ["b", "c"])
    }

    @Test("Lines that are no entries are named and passed over")
    func badLines() throws {
        let scratch = try RestoreScratch()
        scratch.file("/a", [[1]])
        scratch.rawLines = [
            "{}", "nonsense", "{\"path\":\"/b\",\"type\":\"file\",\"ino\":1}",
            "{\"path\":\"/b\",\"critical\":[\"x\"],\"type\":\"dir\",\"ino\":1}",
        ]
        let report = try scratch.restore()
        #expect(report.damagedCount == 4)
        #expect(scratch.names == ["a"])
    }

    @Test("Chunks that do not make the file's size are refused")
    func wrongSize() throws {
        let scratch = try RestoreScratch()
        for (name, size) in [("/long", UInt64(5)), ("/right", 3), ("/short", 1)] {
            scratch.file(name, [[1, 2, 3]]) { $0.size = size }
        }
        scratch.add(.file, "/huge") { $0.size = 1 << 50 }
        let report = try scratch.restore()
        #expect(paths(report) == ["/huge", "/long", "/short"])
        #expect(scratch.names == ["right"])
    }

    @Test("A node that names itself many times over ends at once")
    func repeatedNodes() throws {
        let scratch = try RestoreScratch()
        for number in 10..<90 { scratch.file("/f\(number)", [[UInt8(number)]]) }
        scratch.segmentEntries = 1
        let report = try scratch.restore()
        #expect(report.files == 80)
        #expect(report.damagedCount == 0)
    }

    @Test("A target in the repository is refused, and the repository is never an extra file")
    func insideRepository() throws {
        let directory = TemporaryDirectory()
        let scratch = try RestoreScratch(in: directory, local: true)
        scratch.add(.directory, "/d")
        scratch.file("/d/a", [[1]])
        try scratch.commit()
        let place = scratch.repository.location
        for target in [place, place + "/new", place + "/bundles/../x/y"] {
            let error = restoreFailure { try scratch.restore(nil, to: target) }
            #expect(error?.kind == .usage)
        }
        let report = try scratch.restore("/d", to: directory.path) {
            $0.ifExists = .replace
            $0.delete = true
            $0.exclude = [Array("cache/".utf8), Array("state/".utf8), Array("etc/".utf8)]
        }
        #expect(report.problemCount == 1)
        #expect(readFile(place + "/config.json") != nil)
        #expect(readFile(directory.path("a")) == [1])
    }
}
