import CSystem
import FileTree
import Glibc
import SnapshotModel
import Synchronization
import Testing

@Suite("Writing a tree")
struct TreeWriterTests {
    private typealias Scratch = TargetScratch

    // MARK: Content

    @Test("Content arrives in any order and from many threads")
    func threads() throws {
        let scratch = try Scratch()
        let size = 3_000_001
        let content = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            for index in 0..<size {
                buffer[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 7)
            }
            count = size
        }
        var entry = scratch.entry(.file, "file")
        entry.size = UInt64(size)
        let file = try scratch.writer.createFile(bytes("file"), entry: entry)
        let piece = 65_537
        let pieces = (size + piece - 1) / piece
        let failures = Atomic<Int>(0)
        inParallel(4) { thread in
            for index in stride(from: pieces - 1 - thread, through: 0, by: -4) {
                let range = index * piece..<min((index + 1) * piece, size)
                do {
                    try content.withUnsafeBytes { content in
                        try file.write(
                            UnsafeRawBufferPointer(rebasing: content[range]),
                            at: UInt64(range.lowerBound))
                    }
                } catch {
                    failures.add(1, ordering: .relaxed)
                }
            }
        }
        #expect(failures.load(ordering: .relaxed) == 0)
        #expect(try file.finish(entry) == [])
        #expect(Scratch.content(of: scratch.inside + "/file") == content)
    }

    @Test("Many threads make files in the same directories at once")
    func parallelFiles() throws {
        let scratch = try Scratch(openDirectories: 4)
        for directory in 0..<10 { try scratch.writer.makeDirectory(bytes("d\(directory)")) }
        let failures = Atomic<Int>(0)
        let writer = scratch.writer
        let model = scratch.entry(.file, "x")
        inParallel(4) { thread in
            for number in 0..<200 {
                var entry = model
                let content = bytes("\(thread)-\(number)")
                entry.size = UInt64(content.count)
                do {
                    let file = try writer.createFile(
                        bytes("d\(number % 10)/\(thread)-\(number)"), entry: entry)
                    try content.withUnsafeBytes { try file.write($0, at: 0) }
                    if try !file.finish(entry).isEmpty { failures.add(1, ordering: .relaxed) }
                } catch {
                    failures.add(1, ordering: .relaxed)
                }
            }
        }
        #expect(failures.load(ordering: .relaxed) == 0)
        for directory in 0..<10 {
            #expect(Scratch.names(in: scratch.inside + "/d\(directory)").count == 80)
        }
        #expect(Scratch.content(of: scratch.inside + "/d7/3-197") == bytes("3-197"))
    }

    @Test("What is not written is a hole, also at the end")
    func holes() throws {
        let scratch = try Scratch()
        var entry = scratch.entry(.file, "sparse")
        entry.size = 64 << 20
        let file = try scratch.writer.createFile(bytes("sparse"), entry: entry)
        try bytes("middle").withUnsafeBytes { try file.write($0, at: 32 << 20) }
        try file.makeHole(at: 0, length: 32 << 20)
        #expect(try file.finish(entry) == [])
        let status = try #require(Scratch.status(scratch.inside + "/sparse"))
        #expect(status.size == 64 << 20)
        #expect(status.blocks * 512 < 1 << 20)
    }

    @Test("Ranges of an old file are taken over into a new one")
    func reuse() throws {
        let scratch = try Scratch()
        let old = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        try scratch.put("old", old)
        let source = try #require(try scratch.target.openFile(bytes("old")))
        var entry = scratch.entry(.file, "new")
        entry.size = 150_005
        let file = try scratch.writer.createFile(bytes("new"), entry: entry)
        #expect(try file.reuse(source, from: 50_000, length: 150_000, at: 5))
        #expect(try !file.reuse(source, from: 199_999, length: 2, at: 0))
        try bytes("abcde").withUnsafeBytes { try file.write($0, at: 0) }
        #expect(try file.finish(entry) == [])
        #expect(Scratch.content(of: scratch.inside + "/new") == bytes("abcde") + old[50_000...])
        #expect(Scratch.content(of: scratch.inside + "/old") == old)
        #expect(try scratch.target.openFile(bytes("none")) == nil)
        symlink("old", scratch.inside + "/link")
        #expect(try scratch.target.openFile(bytes("link")) == nil)
    }

    // MARK: What stands there already

    @Test("Nothing is overwritten unless that was asked for", arguments: EntryKind.allCases)
    func refusal(kind: EntryKind) throws {
        let scratch = try Scratch()
        try scratch.put("old", bytes("old"))
        let path = bytes("old")
        let entry = scratch.entry(kind, "old")
        let thrown = thrownKind {
            switch kind {
            case .file: _ = try scratch.writer.createFile(path, entry: entry)
            case .directory: try scratch.writer.makeDirectory(path)
            case .symlink:
                var entry = entry
                entry.target = bytes("x")
                _ = try scratch.writer.makeSymlink(path, entry: entry)
            default: _ = try scratch.writer.makeSpecial(path, entry: entry)
            }
        }
        #expect(thrown == .exists)
        try scratch.put("other", bytes("other"))
        #expect(
            thrownKind { try scratch.writer.makeHardLink(from: bytes("other"), to: path) }
                == .exists)
        #expect(Scratch.content(of: scratch.inside + "/old") == bytes("old"))
        #expect(Scratch.names(in: scratch.inside) == ["old", "other"])
    }

    @Test(
        "Until it is finished, a replacement leaves the old file whole", arguments: [false, true])
    func replacing(aborts: Bool) throws {
        let scratch = try Scratch()
        try scratch.put("file", bytes("old content"))
        let path = scratch.inside + "/file"
        link(path, scratch.outside + "/second")
        var entry = scratch.entry(.file, "file")
        entry.size = 3
        let file = try scratch.writer.createFile(
            bytes("file"), entry: entry, placement: .replacing)
        try bytes("new").withUnsafeBytes { try file.write($0, at: 0) }
        #expect(Scratch.content(of: path) == bytes("old content"))
        let names = Scratch.names(in: scratch.inside)
        #expect(names.count == 2)
        #expect(names.filter { TreeWriter.isTemporaryName(bytes($0)) }.count == 1)
        if aborts {
            file.abort()
            #expect(Scratch.content(of: path) == bytes("old content"))
        } else {
            #expect(try file.finish(entry) == [])
            #expect(Scratch.content(of: path) == bytes("new"))
        }
        #expect(Scratch.names(in: scratch.inside) == ["file"])
        #expect(Scratch.content(of: scratch.outside + "/second") == bytes("old content"))
    }

    @Test("A forgotten file leaves nothing behind")
    func forgotten() throws {
        let scratch = try Scratch()
        do {
            let entry = scratch.entry(.file, "file")
            let file = try scratch.writer.createFile(bytes("file"), entry: entry)
            try bytes("x").withUnsafeBytes { try file.write($0, at: 0) }
            // Nobody takes what is half written for the file.
            let names = Scratch.names(in: scratch.inside)
            #expect(names.count == 1)
            #expect(names.allSatisfy { TreeWriter.isTemporaryName(bytes($0)) })
        }
        #expect(Scratch.names(in: scratch.inside) == [])
    }

    @Test(
        "Everything but a directory with contents makes way when asked",
        arguments: EntryKind.allCases)
    func replacingKinds(kind: EntryKind) throws {
        let scratch = try Scratch()
        func occupy(_ name: String, _ occupant: Int) throws {
            let path = scratch.inside + "/" + name
            switch occupant {
            case 0: Scratch.write("old", to: path)
            case 1: symlink(scratch.outside, path)
            case 2: mkfifo(path, 0o600)
            default: mkdir(path, 0o755)
            }
        }
        func place(_ name: String) throws {
            var entry = scratch.entry(kind, name)
            let path = bytes(name)
            switch kind {
            case .file:
                let file = try scratch.writer.createFile(path, entry: entry, placement: .replacing)
                _ = try file.finish(entry)
            case .directory: try scratch.writer.makeDirectory(path, replacing: true)
            case .symlink:
                entry.target = bytes("x")
                _ = try scratch.writer.makeSymlink(path, entry: entry, placement: .replacing)
            default:
                entry.deviceMajor = 1
                entry.deviceMinor = 3
                _ = try scratch.writer.makeSpecial(path, entry: entry, placement: .replacing)
            }
        }
        if kind.isDevice, !Scratch.isRoot { return }
        for occupant in 0..<4 {
            try occupy("n\(occupant)", occupant)
            try place("n\(occupant)")
            let mode = Scratch.status(scratch.inside + "/n\(occupant)")?.mode ?? 0
            #expect(EntryKind(mode: mode) == kind, "over occupant \(occupant)")
        }
        mkdir(scratch.inside + "/full", 0o755)
        Scratch.write("kept", to: scratch.inside + "/full/kept")
        let thrown = thrownKind { try place("full") }
        #expect(thrown == (kind == .directory ? nil : .exists))
        #expect(Scratch.content(of: scratch.inside + "/full/kept") == bytes("kept"))
        #expect(Scratch.names(in: scratch.inside) == ["full", "n0", "n1", "n2", "n3"])
        #expect(Scratch.names(in: scratch.outside) == [])
    }

    @Test("In place, a file keeps its inode and gets the entry's content, length and holes")
    func inPlace() throws {
        let scratch = try Scratch()
        let old = [UInt8](repeating: 7, count: 1 << 20)
        try scratch.put("file", old) { $0.mode = 0o4755 }
        let path = scratch.inside + "/file"
        if Scratch.keepsAttributes { Scratch.setAttribute("user.stale", [1], of: path) }
        let before = try #require(Scratch.status(path))
        var entry = scratch.entry(.file, "file")
        entry.size = 600_000
        let file = try scratch.writer.createFile(bytes("file"), entry: entry, placement: .inPlace)
        #expect(Scratch.status(path).map { $0.mode & 0o7777 } == 0o755)
        #expect(file.existingSize == 1 << 20)
        var block = [UInt8](repeating: 0, count: 10)
        let count = try block.withUnsafeMutableBytes { try file.read(into: $0, at: (1 << 20) - 4) }
        #expect(count == 4)
        #expect(block == [7, 7, 7, 7, 0, 0, 0, 0, 0, 0])
        try bytes("new").withUnsafeBytes { try file.write($0, at: 100) }
        try file.makeHole(at: 131_072, length: 262_144)
        #expect(try file.finish(entry) == [])

        var expected = Array(old[..<600_000])
        expected.replaceSubrange(100..<103, with: bytes("new"))
        for index in 131_072..<393_216 { expected[index] = 0 }
        #expect(Scratch.content(of: path) == expected)
        let after = try #require(Scratch.status(path))
        #expect(after.inode == before.inode)
        #expect(after.blocks < before.blocks)
        #expect(Scratch.attribute("user.stale", of: path) == nil)
        #expect(Scratch.time(path) == entry.mtime)
    }

    @Test("In place, a missing file is made")
    func inPlaceMissing() throws {
        let scratch = try Scratch()
        try scratch.put("file", bytes("new"), placement: .inPlace)
        #expect(Scratch.content(of: scratch.inside + "/file") == bytes("new"))
        #expect(Scratch.names(in: scratch.inside) == ["file"])
    }

    // MARK: Links

    @Test("Names of one file share it, and linking again is no error")
    func hardLinks() throws {
        let scratch = try Scratch()
        try scratch.writer.makeDirectory(bytes("d"))
        try scratch.put("first", bytes("shared"))
        try scratch.writer.makeHardLink(from: bytes("first"), to: bytes("d/second"))
        try scratch.writer.makeHardLink(from: bytes("first"), to: bytes("d/second"))
        try scratch.put("d/third", bytes("other"))
        try scratch.writer.makeHardLink(
            from: bytes("first"), to: bytes("d/third"), placement: .replacing)
        let first = try #require(Scratch.status(scratch.inside + "/first"))
        #expect(first.links == 3)
        #expect(Scratch.status(scratch.inside + "/d/third")?.inode == first.inode)
        #expect(Scratch.names(in: scratch.inside + "/d") == ["second", "third"])
        #expect(
            thrownKind {
                try scratch.writer.makeHardLink(from: bytes("none"), to: bytes("d/fourth"))
            } == .notFound)
    }

    // MARK: Speed

    @Test("Fifty thousand small files are written whole")
    func manyFiles() throws {
        let scratch = try Scratch()
        let content = [UInt8](repeating: 0x61, count: 200)
        var entry = scratch.entry(.file, "x")
        entry.size = 200
        let writer = scratch.writer
        var problems = 0
        let clock = ContinuousClock()
        let time = try clock.measure {
            for directory in 0..<500 {
                try writer.makeDirectory(bytes("d\(directory)"))
                for number in 0..<100 {
                    let file = try writer.createFile(
                        bytes("d\(directory)/f\(number)"), entry: entry)
                    try content.withUnsafeBytes { try file.write($0, at: 0) }
                    problems += try file.finish(entry).count
                }
            }
        }
        print("50,000 files of 200 bytes written in \(time)")
        #expect(problems == 0)
        #expect(Scratch.content(of: scratch.inside + "/d499/f99") == content)
        #expect(try scratch.target.children(of: bytes("d250")).count == 100)
    }
}

/// Runs `body` on threads of its own, and waits for them.
func inParallel(_ threads: Int, _ body: @escaping @Sendable (Int) -> Void) {
    final class Work: Sendable {
        let number: Int
        let body: @Sendable (Int) -> Void
        init(_ number: Int, _ body: @escaping @Sendable (Int) -> Void) {
            self.number = number
            self.body = body
        }
    }
    var handles: [pthread_t] = []
    for number in 0..<threads {
        var handle = pthread_t()
        let work = Unmanaged.passRetained(Work(number, body)).toOpaque()
        let status = pthread_create(
            &handle, nil,
            { argument in
                let work = Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue()
                work.body(work.number)
                return nil
            }, work)
        precondition(status == 0)
        handles.append(handle)
    }
    for handle in handles { pthread_join(handle, nil) }
}
