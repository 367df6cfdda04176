import CSystem
import Glibc
import SnapshotModel
import Testing

@testable import FileTree

@Suite("Reading a file")
struct ReaderTests {
    private func open(_ name: String, in scratch: WalkScratch) throws -> [UInt8] {
        let reader = try FileReader(opening: name, in: scratch.handle)
        return try content(of: reader)
    }

    private func content(of reader: borrowing FileReader) throws -> [UInt8] {
        reader.adviseSequential()
        var content: [UInt8] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1000, alignment: 1)
        defer { buffer.deallocate() }
        while true {
            let got = try reader.read(into: buffer, at: UInt64(content.count))
            if got == 0 { return content }
            content += buffer[..<got]
        }
    }

    @Test("The bytes of a file come back")
    func bytes() throws {
        let scratch = try WalkScratch()
        let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        scratch.file("file", bytes)
        scratch.file("empty")
        #expect(try open("file", in: scratch) == bytes)
        #expect(try open("empty", in: scratch).isEmpty)
        let reader = try FileReader(opening: "file", in: scratch.handle)
        #expect(try reader.status() == scratch.handle.status(of: "file"))
        #expect(reader.statusWhenOpened == (try reader.status()))
        #expect(try reader.statusWithBirth() == scratch.handle.statusWithBirth(of: "file"))
    }

    @Test("What took the place of a file is refused, and nobody waits for it")
    func imposters() throws {
        let scratch = try WalkScratch()
        _ = csys_mknodat(scratch.handle.descriptor, "pipe", 0o010600, 0, 0)
        _ = csys_mknodat(scratch.handle.descriptor, "socket", 0o140600, 0, 0)
        scratch.directory("directory")
        scratch.file("file")
        scratch.symlink("file", "link")
        func kind(_ name: String) -> FileTreeError.Kind? {
            do throws(FileTreeError) {
                _ = try FileReader(opening: name, in: scratch.handle)
                return nil
            } catch {
                return error.kind
            }
        }
        #expect(kind("pipe") == .changed)
        #expect(kind("directory") == .changed)
        #expect(kind("link") == .changed)
        #expect(kind("socket") != nil)
        #expect(kind("missing") == .notFound)
        #expect(kind("file") == nil)
    }

    @Test("Reading leaves the access time alone")
    func accessTime() throws {
        let scratch = try WalkScratch()
        scratch.file("file", "content")
        // Older than the modification: the kernel would renew it at the next ordinary reading.
        run(["/usr/bin/touch", "-a", "-d", "2001-01-01", scratch.text + "/file"])
        func accessed() -> Int {
            var status = stat()
            precondition(stat(scratch.text + "/file", &status) == 0)
            return status.st_atim.tv_sec
        }
        let before = accessed()
        _ = try open("file", in: scratch)
        #expect(accessed() == before)
    }

    /// Pieces of 64 KiB: data where true.
    @Test(
        "Holes are where nothing was written",
        arguments: [
            [true, false, true], [false, true], [true, false], [false],
            [false, false, true, true, false],
            [true, false, true, false, true, false, false, false, true], [true],
        ])
    func holes(pieces: [Bool]) throws {
        let scratch = try WalkScratch()
        let piece = 65_536
        scratch.file("sparse")
        scratch.withDescriptor(Array("sparse".utf8), O_WRONLY) { descriptor in
            precondition(csys_ftruncate(descriptor, Int64(pieces.count * piece)) == 0)
            let bytes = [UInt8](repeating: 0x55, count: piece)
            for (index, hasData) in pieces.enumerated() where hasData {
                let written = bytes.withUnsafeBytes {
                    csys_pwrite(descriptor, $0.baseAddress!, piece, Int64(index * piece))
                }
                precondition(written == piece)
            }
        }
        var expected: [Hole] = []
        for (index, hasData) in pieces.enumerated() where !hasData {
            if let last = expected.last, last.offset + last.length == UInt64(index * piece) {
                expected[expected.count - 1].length += UInt64(piece)
            } else {
                expected.append(Hole(offset: UInt64(index * piece), length: UInt64(piece)))
            }
        }
        let reader = try FileReader(opening: "sparse", in: scratch.handle)
        #expect(try reader.holes(reader.statusWhenOpened) == expected)
    }

    @Test(
        "Holes do not reach beyond a size that is no multiple of a block, nor beyond one that has changed"
    )
    func oddHoles() throws {
        let scratch = try WalkScratch()
        scratch.file("sparse", [UInt8](repeating: 1, count: 10_000))
        let size: UInt64 = 1_000_003
        scratch.withDescriptor(Array("sparse".utf8), O_WRONLY) {
            _ = csys_ftruncate($0, Int64(size))
        }
        let reader = try FileReader(opening: "sparse", in: scratch.handle)
        let found = try reader.holes(reader.statusWhenOpened)
        #expect(found == [Hole(offset: 12_288, length: size - 12_288)])
        // Shorter by now: what lies behind the end is no business of whoever holds the old status.
        scratch.withDescriptor(Array("sparse".utf8), O_WRONLY) { _ = csys_ftruncate($0, 5000) }
        #expect(
            try reader.holes(reader.statusWhenOpened).allSatisfy { $0.offset + $0.length <= size })
        let small = try WalkScratch()
        small.file("tiny")
        small.withDescriptor(Array("tiny".utf8), O_WRONLY) { _ = csys_ftruncate($0, 100) }
        let tiny = try FileReader(opening: "tiny", in: small.handle)
        #expect(try tiny.holes(tiny.statusWhenOpened) == [Hole(offset: 0, length: 100)])
    }

    @Test("A file whose path is longer than the kernel takes is read")
    func longPath() throws {
        let scratch = try WalkScratch(below: quickPlace)
        var place = scratch.handle
        let name = String(repeating: "n", count: 250)
        for _ in 0..<40 {
            precondition(csys_mkdirat(place.descriptor, name, 0o755) == 0)
            let path = name.withCString { place.path(of: $0) }
            let next = csys_openat(place.descriptor, name, O_RDONLY | CSYS_O_CLOEXEC, 0)
            place = DirectoryHandle(owning: next, path: path)
        }
        let file = csys_openat(place.descriptor, "file", O_WRONLY | O_CREAT | CSYS_O_CLOEXEC, 0o644)
        _ = csys_pwrite(file, "deep", 4, 0)
        _ = csys_close(file)
        #expect(place.path.count > 10_000)
        let again = try DirectoryHandle(opening: place.path)
        let reader = try FileReader(opening: "file", in: again)
        #expect(try content(of: reader) == Array("deep".utf8))
        let root = try SourceRoot(place.path + Array("/file".utf8))
        #expect(try walk([root]).map(\.path) == [place.path + Array("/file".utf8)])
        let explained = try ExclusionExplanation.explain(
            root.path, roots: [scratch.root()], options: WalkOptions())
        #expect(explained.isIncluded && explained.exists)
    }
}
