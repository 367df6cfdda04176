import BundleFormat
import CSystem
import FileTree
import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Restoring into an empty place")
struct RestoreTests {
    @Test("Every kind of entry comes back with content, mode and time")
    func kinds() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/srv") { $0.mode = 0o750 }
        scratch.add(.directory, "/srv/empty") { $0.mode = 0o700 }
        scratch.file("/srv/a", [Array("hello".utf8)]) { $0.mode = 0o640 }
        scratch.file("/srv/none", [])
        scratch.add(.symlink, "/srv/link") { $0.target = Array("../else where".utf8) }
        scratch.add(.fifo, "/srv/pipe") { $0.mode = 0o600 }
        let report = try scratch.restore()
        #expect(
            scratch.names == ["srv/", "srv/a", "srv/empty/", "srv/link", "srv/none", "srv/pipe"])
        #expect(scratch.content("srv/a") == Array("hello".utf8))
        #expect(scratch.content("srv/none") == [])
        #expect(scratch.link("srv/link") == "../else where")
        #expect(scratch.status("srv/a")?.mode == 0o100640)
        #expect(scratch.status("srv")?.mode == 0o040750)
        #expect(scratch.status("srv/pipe")?.mode == 0o010600)
        for name in ["srv", "srv/a", "srv/empty", "srv/link", "srv/none", "srv/pipe"] {
            #expect(
                scratch.mtime(name) == Timestamp(seconds: 1_600_000_000, nanoseconds: 123_456_789))
        }
        #expect(report.files == 2)
        #expect(report.directories == 2)
        #expect(report.links == 1)
        #expect(report.others == 1)
        #expect(report.writtenBytes == 5)
        #expect(report.problemCount == 0)
        #expect(report.damagedCount == 0)
    }

    @Test("A directory that was named goes into the target itself, a file to its name")
    func paths() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/srv")
        scratch.add(.directory, "/srv/www") { $0.mode = 0o711 }
        scratch.add(.directory, "/srv/www/sub")
        scratch.file("/srv/www/sub/x", [[1]])
        scratch.file("/srv/www.old", [[2]])
        scratch.file("/srv/zzz", [[3]])
        try scratch.restore("/srv/www/")
        #expect(scratch.names == ["sub/", "sub/x"])
        #expect(scratch.status("")?.mode == 0o040711)
        let other = scratch.directory.path("other")
        try scratch.restore("/srv/zzz", to: other)
        #expect(treeContents(other) == ["zzz"])
        let error = restoreFailure {
            try scratch.restore("/srv/nothing", to: scratch.directory.path("third"))
        }
        #expect(error?.kind == .repository(.notFound))
    }

    @Test("Directories above the roots are made where the snapshot does not have them")
    func missingParents() throws {
        let scratch = try RestoreScratch()
        scratch.file("/home/ada/data/x", [[1, 2]])
        scratch.file("/home/bob/y", [[3]])
        let report = try scratch.restore()
        #expect(
            scratch.names == [
                "home/", "home/ada/", "home/ada/data/", "home/ada/data/x", "home/bob/",
                "home/bob/y",
            ])
        #expect(scratch.status("home/ada")?.mode == 0o040755)
        #expect(report.problemCount == 0)
    }

    @Test(
        "A file of holes alone takes no room, and one whose content has no place between its holes is refused"
    )
    func holes() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 1)
        scratch.file("/hollow", [], holes: [Hole(offset: 0, length: 3 << 20)])
        // The content ends before the second hole begins.
        scratch.file(
            "/impossible", [generator.bytes(100_000)],
            holes: [Hole(offset: 65_536, length: 1 << 20), Hole(offset: 2 << 20, length: 1 << 20)])
        let report = try scratch.restore()
        #expect(report.damaged.map(\.path) == [Array("/impossible".utf8)])
        #expect(scratch.content("hollow") == [UInt8](repeating: 0, count: 3 << 20))
        #expect(scratch.status("hollow")?.blocks == 0)
        #expect(scratch.content("impossible") == nil)
    }

    @Test("A chunk that crosses holes is written around them")
    func chunkAroundHoles() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 2)
        let data = generator.bytes(300_000)
        let holes = [
            Hole(offset: 0, length: 65_536), Hole(offset: 131_072, length: 65_536),
            Hole(offset: 400_000, length: 31_072 + 65_536),
        ]
        scratch.file("/x", [Array(data[..<200_000]), Array(data[200_000...])], holes: holes)
        try scratch.restore { $0.verify = true }
        var expected: [UInt8] = [UInt8](repeating: 0, count: 65_536)
        expected += data[..<65_536]
        expected += [UInt8](repeating: 0, count: 65_536)
        expected += data[65_536..<(65_536 + 400_000 - 196_608)]
        expected += [UInt8](repeating: 0, count: 31_072 + 65_536)
        expected += data[(65_536 + 400_000 - 196_608)...]
        #expect(scratch.content("x") == expected)
    }

    @Test("All names of a hard-linked file are one file again, and its content is written once")
    func hardLinks() throws {
        let scratch = try RestoreScratch()
        for path in ["/a/one", "/b/two", "/z"] {
            scratch.file(path, [[7, 7, 7]]) {
                $0.links = 3
                $0.inode = 99
            }
        }
        // The same number on another file system is another file.
        scratch.file("/b/other", [[8]]) {
            $0.links = 2
            $0.inode = 99
            $0.fileSystem = 1
        }
        for path in ["/p1", "/p2"] {
            scratch.add(.symlink, path) {
                $0.target = [0x78]
                $0.links = 2
                $0.inode = 5
            }
        }
        let report = try scratch.restore()
        let inode = scratch.status("a/one")?.inode
        #expect(scratch.status("b/two")?.inode == inode)
        #expect(scratch.status("z")?.inode == inode)
        #expect(scratch.status("z")?.links == 3)
        #expect(scratch.status("b/other")?.inode != inode)
        #expect(scratch.status("p1")?.inode == scratch.status("p2")?.inode)
        #expect(report.writtenBytes == 4)
        #expect(report.files == 2)
        #expect(report.links == 4)
    }

    @Test("A chunk that many files share is fetched once and written to all of them")
    func sharedChunks() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 3)
        let shared = generator.bytes(20_000)
        for number in 0..<50 {
            if number % 10 == 0 { scratch.beginFrame() }
            scratch.file("/f\(number)", [shared, [UInt8(number)], shared])
        }
        let report = try scratch.restore { $0.verify = true }
        for number in 0..<50 {
            #expect(scratch.content("f\(number)") == shared + [UInt8(number)] + shared)
        }
        #expect(report.verified == 50)
        #expect(report.fetchedBytes < 60_000)
    }

    @Test("A file whose chunks lie in many frames, in any order, is put together")
    func scatteredFile() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 4)
        let chunks = (0..<40).map { _ in generator.bytes(1000) }
        // Stored backwards, each in a frame of its own.
        for chunk in chunks.reversed() {
            scratch.beginFrame()
            _ = scratch.storeChunk(chunk)
        }
        scratch.file("/big", chunks)
        scratch.file("/other", Array(chunks[5..<9]))
        try scratch.restore { $0.threads = 4 }
        #expect(scratch.content("big") == Array(chunks.joined()))
        #expect(scratch.content("other") == Array(chunks[5..<9].joined()))
    }

    @Test("More scattered files than may be open at once are restored")
    func manyScatteredFiles() throws {
        let scratch = try RestoreScratch()
        for number in 0..<700 {
            scratch.file("/\(number)", [[1, UInt8(number & 255), UInt8(number >> 8)]])
        }
        scratch.beginFrame()
        var second: [[UInt8]] = []
        for number in 0..<700 {
            let chunk: [UInt8] = [2, UInt8(number & 255), UInt8(number >> 8)]
            second.append(chunk)
            _ = scratch.storeChunk(chunk)
        }
        for number in 0..<700 {
            scratch.file(
                "/d\(number)", [[1, UInt8(number & 255), UInt8(number >> 8)], second[number]])
        }
        try scratch.restore()
        for number in stride(from: 0, to: 700, by: 13) {
            #expect(
                scratch.content("d\(number)") == [1, UInt8(number & 255), UInt8(number >> 8)]
                    + second[number])
        }
        #expect(scratch.names.count == 1400)
    }

    @Test("A long list of chunks is read through its nodes")
    func longList() throws {
        let scratch = try RestoreScratch()
        var ids: [ChunkID] = []
        var expected: [UInt8] = []
        for number in 0..<3000 {
            if number % 1000 == 0 { scratch.beginFrame() }
            let chunk = [UInt8(number & 255), UInt8(number >> 8), 9]
            ids.append(scratch.storeChunk(chunk))
            expected += chunk
        }
        let (top, depth) = ListNode.build(ids) { bytes, _, _ in scratch.storeNode(Array(bytes)) }
        #expect(depth > 0)
        scratch.add(.file, "/long") {
            $0.size = UInt64(expected.count)
            $0.chunks = top
            $0.listDepth = depth
        }
        let report = try scratch.restore { $0.verify = true }
        #expect(scratch.content("long") == expected)
        #expect(report.verified == 1)
    }

    @Test("Patterns choose what is restored, with the directories above it")
    func patterns() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/a") { $0.mode = 0o711 }
        scratch.add(.directory, "/a/keep")
        scratch.file("/a/keep/x.txt", [[1]])
        scratch.file("/a/keep/x.bin", [[2]])
        scratch.add(.directory, "/a/tmp")
        scratch.file("/a/tmp/y.txt", [[3]])
        scratch.add(.directory, "/b")
        try scratch.restore { $0.exclude = [Array("tmp/".utf8), Array("*.bin".utf8)] }
        #expect(scratch.names == ["a/", "a/keep/", "a/keep/x.txt", "b/"])
        let other = scratch.directory.path("other")
        try scratch.restore(nil, to: other) { $0.include = [Array("*.txt".utf8)] }
        #expect(treeContents(other) == ["a/", "a/keep/", "a/keep/x.txt", "a/tmp/", "a/tmp/y.txt"])
        let third = scratch.directory.path("third")
        try scratch.restore(nil, to: third) { $0.include = [Array("keep".utf8)] }
        #expect(treeContents(third) == ["a/", "a/keep/", "a/keep/x.bin", "a/keep/x.txt"])
        var status = csys_stat()
        #expect(csys_lstatat(AT_FDCWD, third + "/a", &status) == 0)
        #expect(status.mode == 0o040711)
    }

    @Test("A dry run counts what would be fetched and written, and makes nothing")
    func dryRun() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 6)
        scratch.add(.directory, "/d")
        scratch.file("/d/a", [generator.bytes(10_000)])
        scratch.file("/d/b", [generator.bytes(20_000)], frameForEach: true)
        let plan = try scratch.makeRestore().plan(path: nil)
        #expect(plan.files == 2)
        #expect(plan.directories == 1)
        #expect(plan.writeBytes == 30_000)
        #expect(plan.fetchBytes == scratch.contentFrames.dropLast().reduce(0) { $0 + $1.length })
        let report = try scratch.restore { $0.dryRun = true }
        #expect(report.files == 2)
        #expect(report.writtenBytes == 30_000)
        #expect(!scratch.directory.contents().contains("target/"))
    }

    @Test("An encrypted snapshot is restored")
    func encrypted() throws {
        let scratch = try RestoreScratch(protection: .passphrase(Array("secret".utf8)))
        scratch.file("/a", [[1, 2, 3], [4, 5]], frameForEach: true)
        scratch.file("/b", [[4, 5], [6]])
        let report = try scratch.restore { $0.verify = true }
        #expect(scratch.content("a") == [1, 2, 3, 4, 5])
        #expect(scratch.content("b") == [4, 5, 6])
        #expect(report.verified == 2)
    }

    @Test("Many segments make one tree")
    func manySegments() throws {
        let scratch = try RestoreScratch()
        scratch.segmentEntries = 7
        for directory in 0..<20 {
            scratch.add(.directory, "/d\(directory)") { $0.mode = 0o555 }
            for file in 0..<20 {
                scratch.file("/d\(directory)/f\(file)", [[UInt8(directory), UInt8(file)]])
            }
        }
        let report = try scratch.restore()
        #expect(report.files == 400)
        for directory in 0..<20 {
            #expect(scratch.status("d\(directory)")?.mode == 0o040555)
            #expect(scratch.mtime("d\(directory)")?.seconds == 1_600_000_000)
            for file in 0..<20 {
                #expect(
                    scratch.content("d\(directory)/f\(file)") == [UInt8(directory), UInt8(file)])
            }
        }
        try scratch.restore("/d7", to: scratch.directory.path("part"))
        #expect(treeContents(scratch.directory.path("part")).count == 20)
    }

    @Test("A cancelled restore says so and leaves no half-written file")
    func cancelled() throws {
        let scratch = try RestoreScratch()
        scratch.file("/a", [[1]])
        let cancellation = Cancellation()
        cancellation.cancel()
        let restore = try scratch.makeRestore(cancellation: cancellation)
        let error = restoreFailure { _ = try restore.run(path: nil, target: scratch.target) }
        #expect(error?.kind == .interrupted)
        #expect(scratch.content("a") == nil)
    }
}
