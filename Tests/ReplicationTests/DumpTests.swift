import BundleFormat
import CSystem
import FileTree
import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Dumping content and archives")
struct DumpTests {
    /// Dumps into a file and gives what came.
    private func dump(
        _ scratch: RestoreScratch, _ path: String
    ) throws -> (report: DumpReport, bytes: [UInt8], file: String) {
        let snapshot = try scratch.snapshot ?? scratch.commit()
        let dump = try Dump(
            repository: scratch.repository, index: try #require(scratch.index), snapshot: snapshot,
            monitor: SilentMonitor(), cancellation: Cancellation())
        let file = scratch.directory.path("dump")
        let descriptor = csys_open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        defer { _ = csys_close(descriptor) }
        let report = try dump.run(path: Array(path.utf8), to: descriptor)
        return (report, try #require(readFile(file)), file)
    }

    /// Unpacks an archive with the system's tar.
    private func unpack(_ file: String, into directory: String, _ options: [String] = []) throws {
        mkdir(directory, 0o700)
        var pid = pid_t()
        let words = ["tar", "-xf", file, "-C", directory] + options
        var arguments = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        try #require(posix_spawnp(&pid, "tar", nil, nil, &arguments, environ) == 0)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        #expect(status == 0)
    }

    @Test("A file comes out byte for byte, zeros of holes included")
    func file() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 31)
        let chunks = [generator.bytes(100_000), generator.bytes(60_000)]
        scratch.file(
            "/x", chunks,
            holes: [Hole(offset: 0, length: 4096), Hole(offset: 50_000, length: 300_000)],
            frameForEach: true)
        scratch.file("/y", [])
        let bytes = chunks[0] + chunks[1]
        var expected = [UInt8](repeating: 0, count: 4096) + bytes[..<45_904]
        expected += [UInt8](repeating: 0, count: 300_000) + bytes[45_904...]
        let (report, out, _) = try dump(scratch, "/x")
        #expect(out == expected)
        #expect(!report.isArchive)
        #expect(report.bytes == UInt64(expected.count))
        #expect(try dump(scratch, "/y").bytes == [])
    }

    @Test("A directory comes out as an archive that tar unpacks to the same tree")
    func directory() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/srv")
        scratch.add(.directory, "/srv/d") { $0.mode = 0o711 }
        scratch.file("/srv/d/a", [[1, 2, 3]]) {
            $0.mode = 0o640
            $0.links = 2
            $0.inode = 9
        }
        scratch.file("/srv/d/b", [[1, 2, 3]]) {
            $0.links = 2
            $0.inode = 9
        }
        scratch.add(.symlink, "/srv/d/l") { $0.target = Array("a".utf8) }
        scratch.add(.fifo, "/srv/d/p")
        scratch.add(.socket, "/srv/d/s")
        scratch.file("/srv/d/old", [[4]]) {
            $0.mtime = Timestamp(seconds: -100, nanoseconds: 500_000_000)
        }
        let long = String(repeating: "n", count: 200)
        scratch.file("/srv/d/\(long)/\(long)", [[5]])
        scratch.file("/srv/d/zürich", [[6]])
        scratch.add(.file, "/srv/d/zz") {
            $0.path = Array("/srv/d/z".utf8) + [0xFF, 0xFE]
            $0.chunks = [scratch.storeChunk([7])]
            $0.size = 1
        }
        scratch.file("/srv/other", [[8]])
        let (report, _, file) = try dump(scratch, "/srv/d")
        #expect(report.isArchive)
        #expect(report.problems.map(\.path) == [Array("/srv/d/s".utf8)])
        try unpack(file, into: scratch.target)
        #expect(scratch.content("a") == [1, 2, 3])
        #expect(scratch.status("a")?.mode == 0o100640)
        #expect(scratch.status("a")?.inode == scratch.status("b")?.inode)
        #expect(scratch.link("l") == "a")
        #expect(scratch.status("p")?.mode == 0o010644)
        #expect(scratch.content("\(long)/\(long)") == [5])
        #expect(scratch.content("zürich") == [6])
        #expect(scratch.mtime("a") == Timestamp(seconds: 1_600_000_000, nanoseconds: 123_456_789))
        #expect(scratch.mtime("old") == Timestamp(seconds: -100))
        let raw = Array((scratch.target + "/z").utf8) + [0xFF, 0xFE, 0]
        var status = csys_stat()
        let found = raw.withUnsafeBufferPointer { buffer in
            buffer.withMemoryRebound(to: CChar.self) {
                csys_lstatat(AT_FDCWD, $0.baseAddress!, &status)
            }
        }
        #expect(found == 0)
        #expect(scratch.content("other") == nil)
    }

    @Test("Extended attributes and access control lists are in the archive")
    func attributes() throws {
        let scratch = try RestoreScratch()
        scratch.file("/d/a", [[1]]) {
            $0.xattrs = [ExtendedAttribute(name: Array("user.note".utf8), value: [0, 1, 0xFF])]
            $0.acl = Array("u::rw-,u:1234:r--,g::r--,m::r--,o::---".utf8)
        }
        let (_, bytes, _) = try dump(scratch, "/d")
        let text = String(decoding: bytes, as: UTF8.self)
        #expect(text.contains("SCHILY.xattr.user.note="))
        #expect(text.contains("SCHILY.acl.access="))
        #expect(text.contains("1234:r--"))
    }

    @Test("Damage makes zeros of a file in an archive, and an error of a single file")
    func damage() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 33)
        scratch.file("/d/a", [generator.bytes(20_000)])
        scratch.beginFrame()
        scratch.file("/d/b", [[9]])
        try scratch.commit()
        try scratch.damage(.content, frame: 0)
        let (report, _, file) = try dump(scratch, "/d")
        #expect(report.damaged.map(\.path) == [Array("/d/a".utf8)])
        try unpack(file, into: scratch.target)
        #expect(scratch.content("a") == [UInt8](repeating: 0, count: 20_000))
        #expect(scratch.content("b") == [9])
        let error = restoreFailure { _ = try dump(scratch, "/d/a") }
        #expect(error?.kind == .repository(.damaged))
    }

    @Test("What is not there, and what has no content, is an error")
    func refused() throws {
        let scratch = try RestoreScratch()
        scratch.add(.symlink, "/l") { $0.target = [0x78] }
        #expect(
            restoreFailure { _ = try dump(scratch, "/nothing") }?.kind == .repository(.notFound))
        #expect(restoreFailure { _ = try dump(scratch, "/l") }?.kind == .usage)
        #expect(restoreFailure { _ = try dump(scratch, "l/../x") }?.kind == .usage)
    }

    @Test("A whole snapshot is one archive")
    func whole() throws {
        let scratch = try RestoreScratch()
        for number in 0..<50 { scratch.file("/d\(number % 5)/f\(number)", [[UInt8(number)]]) }
        let (report, _, file) = try dump(scratch, "/")
        #expect(report.entries == 50)
        try unpack(file, into: scratch.target)
        for number in 0..<50 {
            #expect(scratch.content("d\(number % 5)/f\(number)") == [UInt8(number)])
        }
    }
}
