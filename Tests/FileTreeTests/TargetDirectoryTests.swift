import CSystem
import FileTree
import Glibc
import SnapshotModel
import Testing

@Suite("The target of a restore")
struct TargetDirectoryTests {
    private typealias Scratch = TargetScratch

    @Test(
        "A path that is not plainly below the target is refused by every call",
        arguments: [
            "..", "../x", "a/..", "a/../../x", ".", "a/.", "./a", "/tmp/x", "/", "a//b", "a/", "//",
            "a␀b", "a␀/../x", "a/␀",
        ])
    func unsafePaths(path: String) throws {
        let scratch = try Scratch()
        try scratch.put("victim")
        mkdir(scratch.inside + "/a", 0o755)
        // Zero bytes are written as their symbol, so that a log of this test stays text.
        let path = Array(path.unicodeScalars.map { $0 == "␀" ? 0 : UInt8(ascii: $0) })
        let writer = scratch.writer
        let target = scratch.target
        let attempts: [(String, () throws -> Void)] = [
            ("directory", { _ = try target.directory(path) }),
            ("children", { _ = try target.children(of: path) }),
            ("status", { _ = try target.status(path) }),
            ("openFile", { _ = try target.openFile(path) }),
            ("remove", { _ = try target.remove(path) }),
            ("makeDirectory", { _ = try writer.makeDirectory(path) }),
            (
                "createFile",
                { _ = try writer.createFile(path, entry: scratch.entry(.file, "x")) }
            ),
            (
                "symlink",
                { _ = try writer.makeSymlink(path, entry: scratch.entry(.symlink, "x")) }
            ),
            ("fifo", { _ = try writer.makeSpecial(path, entry: scratch.entry(.fifo, "x")) }),
            ("link to", { try writer.makeHardLink(from: bytes("victim"), to: path) }),
            ("link from", { try writer.makeHardLink(from: path, to: bytes("new")) }),
            (
                "metadata",
                { _ = try writer.applyMetadata(path, entry: scratch.entry(.file, "x")) }
            ),
            (
                "directory metadata",
                {
                    _ = try writer.applyDirectoryMetadata(
                        path, entry: scratch.entry(.directory, "x"))
                }
            ),
        ]
        for (name, attempt) in attempts {
            #expect(thrownKind(attempt) == .malformed, "\(name)")
        }
        #expect(Scratch.names(in: scratch.inside) == ["a", "victim"])
        #expect(Scratch.names(in: scratch.path) == ["outside", "target"])
    }

    @Test("A directory that is a symlink leads nowhere", arguments: [false, true])
    func symlinkedDirectory(walksByComponent: Bool) throws {
        let scratch = try Scratch(walksByComponent: walksByComponent)
        Scratch.write("precious", to: scratch.outside + "/file")
        mkdir(scratch.outside + "/deep", 0o755)
        symlink(scratch.outside, scratch.inside + "/a")
        symlink("../outside", scratch.inside + "/relative")
        try scratch.put("source")
        let before = Scratch.status(scratch.outside)

        let writer = scratch.writer
        let target = scratch.target
        for place in ["a", "relative"] {
            let new = bytes(place + "/new")
            let old = bytes(place + "/file")
            let attempts: [() throws -> Void] = [
                { _ = try writer.createFile(new, entry: scratch.entry(.file, "x")) },
                {
                    _ = try writer.createFile(
                        old, entry: scratch.entry(.file, "x"), placement: .inPlace)
                },
                {
                    _ = try writer.createFile(
                        old, entry: scratch.entry(.file, "x"), placement: .replacing)
                },
                {
                    _ = try writer.createFile(
                        bytes(place + "/deep/new"), entry: scratch.entry(.file, "x"))
                },
                { try writer.makeDirectory(new) },
                { _ = try writer.makeSymlink(new, entry: scratch.entry(.symlink, "x")) },
                { _ = try writer.makeSpecial(new, entry: scratch.entry(.fifo, "x")) },
                { try writer.makeHardLink(from: bytes("source"), to: new) },
                { try writer.makeHardLink(from: old, to: bytes("stolen")) },
                { _ = try writer.applyMetadata(old, entry: scratch.entry(.file, "x")) },
                {
                    _ = try writer.applyDirectoryMetadata(
                        bytes(place), entry: scratch.entry(.directory, "x"))
                },
                { try target.remove(old) },
                { _ = try target.openFile(old) },
                { _ = try target.status(old) },
                { _ = try target.children(of: bytes(place)) },
            ]
            for (index, attempt) in attempts.enumerated() {
                let kind = thrownKind(attempt)
                #expect(kind == .changed || kind == .notADirectory, "attempt \(index)")
            }
        }
        #expect(Scratch.names(in: scratch.outside) == ["deep", "file"])
        #expect(Scratch.names(in: scratch.outside + "/deep") == [])
        #expect(Scratch.content(of: scratch.outside + "/file") == bytes("precious"))
        #expect(Scratch.status(scratch.outside)?.mode == before?.mode)
        #expect(Scratch.status(scratch.outside)?.mtime_nsec == before?.mtime_nsec)
        #expect(Scratch.names(in: scratch.inside) == ["a", "relative", "source"])
    }

    @Test("A symlink at a file's place is never written through")
    func symlinkedFile() throws {
        let scratch = try Scratch()
        let victim = scratch.outside + "/file"
        Scratch.write("precious", to: victim)
        for name in ["a", "b", "c"] { symlink(victim, scratch.inside + "/" + name) }

        #expect(thrownKind { try scratch.put("a", bytes("evil")) } == .exists)
        try scratch.put("b", bytes("new b"), placement: .replacing)
        try scratch.put("c", bytes("new c"), placement: .inPlace)

        #expect(Scratch.content(of: victim) == bytes("precious"))
        #expect(Scratch.content(of: scratch.inside + "/b") == bytes("new b"))
        #expect(Scratch.content(of: scratch.inside + "/c") == bytes("new c"))
        #expect(Scratch.status(victim).map { $0.mode & 0o7777 } == 0o644)
    }

    @Test("A file with a name outside of the target is replaced, not rewritten")
    func hardLinkOutside() throws {
        let scratch = try Scratch()
        let victim = scratch.outside + "/file"
        Scratch.write("precious", to: victim)
        link(victim, scratch.inside + "/a")
        try scratch.put("a", bytes("new"), placement: .inPlace)
        #expect(Scratch.content(of: victim) == bytes("precious"))
        #expect(Scratch.content(of: scratch.inside + "/a") == bytes("new"))
    }

    @Test(
        "A directory that becomes a symlink in the middle leads nowhere", arguments: [false, true])
    func swapped(walksByComponent: Bool) throws {
        let scratch = try Scratch(walksByComponent: walksByComponent)
        try scratch.writer.makeDirectory(bytes("a"))
        try scratch.writer.makeDirectory(bytes("a/b"))
        try scratch.put("a/b/1")
        rename(scratch.inside + "/a", scratch.inside + "/moved")
        symlink(scratch.outside, scratch.inside + "/a")
        mkdir(scratch.outside + "/b", 0o755)

        // Directories that are open still are the ones that they were.
        try scratch.put("a/b/2")
        #expect(Scratch.names(in: scratch.inside + "/moved/b") == ["1", "2"])
        // Looked up again, the way is barred.
        #expect(thrownKind { try scratch.put("a/new/3") } != nil)
        let again = try TargetDirectory.open(
            path: bytes(scratch.inside), create: false, walksByComponent: walksByComponent)
        let kind = thrownKind { _ = try again.directory(bytes("a/b")) }
        #expect(kind == .changed || kind == .notADirectory)
        #expect(Scratch.names(in: scratch.outside) == ["b"])
        #expect(Scratch.names(in: scratch.outside + "/b") == [])
    }

    @Test("Paths may be longer than the kernel takes at once", arguments: [false, true])
    func longPaths(walksByComponent: Bool) throws {
        let scratch = try Scratch(openDirectories: 8, walksByComponent: walksByComponent)
        let name = String(repeating: "n", count: 200)
        var path = ""
        for level in 0..<60 {
            path += (level == 0 ? "" : "/") + name
            try scratch.writer.makeDirectory(bytes(path))
        }
        try scratch.put(path + "/file", bytes("far down"))
        #expect(path.utf8.count > 12_000)

        let fresh = try TargetDirectory.open(
            path: bytes(scratch.inside), create: false, walksByComponent: walksByComponent)
        let file = try #require(try fresh.openFile(bytes(path + "/file")))
        var content = [UInt8](repeating: 0, count: 20)
        let count = try content.withUnsafeMutableBytes { try file.read(into: $0, at: 0) }
        #expect(Array(content[..<count]) == bytes("far down"))
        #expect(try fresh.remove(bytes(name)) == 61)
        #expect(try fresh.isEmpty)
    }

    @Test("No more directories stay open than asked for")
    func boundedDescriptors() throws {
        let scratch = try Scratch(openDirectories: 8)
        for number in 0..<100 {
            try scratch.writer.makeDirectory(bytes("d\(number)"))
            try scratch.put("d\(number)/file", bytes("\(number)"))
        }
        var open = 0
        for name in Scratch.names(in: "/proc/self/fd") {
            var buffer = [CChar](repeating: 0, count: 4096)
            let count = readlink("/proc/self/fd/" + name, &buffer, buffer.count)
            guard count > 0 else { continue }
            let link = String(
                decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if link.hasPrefix(scratch.inside) { open += 1 }
        }
        #expect(open > 0)
        #expect(open <= 10)
        #expect(Scratch.content(of: scratch.inside + "/d0/file") == bytes("0"))
    }

    @Test("A target is made with its parents, closed to others, and opened through a symlink")
    func opening() throws {
        let scratch = try Scratch()
        let deep = scratch.path + "/p/q/r"
        #expect(
            thrownKind { _ = try TargetDirectory.open(path: bytes(deep), create: false) }
                == .notFound)
        let target = try TargetDirectory.open(path: bytes(deep), create: true)
        #expect(try target.isEmpty)
        #expect(Scratch.status(deep).map { $0.mode & 0o7777 } == 0o700)
        symlink(deep, scratch.path + "/alias")
        let alias = try TargetDirectory.open(path: bytes(scratch.path + "/alias"), create: true)
        try TreeWriter(target: alias).makeDirectory(bytes("made"))
        #expect(Scratch.names(in: deep) == ["made"])
        #expect(try !target.isEmpty)
        Scratch.write("", to: scratch.path + "/file")
        #expect(
            thrownKind {
                _ = try TargetDirectory.open(path: bytes(scratch.path + "/file"), create: true)
            } == .notADirectory)
    }

    @Test("Children come sorted by their bytes, with their kinds")
    func children() throws {
        let scratch = try Scratch()
        for name in ["b", "a.txt", "a", "Z", "é"] { try scratch.put(name) }
        try scratch.writer.makeDirectory(bytes("dir"))
        symlink("nowhere", scratch.inside + "/link")
        mkfifo(scratch.inside + "/pipe", 0o600)
        let children = try scratch.target.children(of: [])
        #expect(
            children.map { String(decoding: $0.name, as: UTF8.self) } == [
                "Z", "a", "a.txt", "b", "dir", "link", "pipe", "é",
            ])
        #expect(
            children.map(\.kind) == [
                .file, .file, .file, .file, .directory, .symlink, .fifo, .file,
            ])
    }

    @Test("Removing takes symlinks away and leaves what they point to")
    func removal() throws {
        let scratch = try Scratch()
        Scratch.write("precious", to: scratch.outside + "/file")
        for directory in ["a", "a/b", "a/b/c", "a/empty", "ab"] {
            try scratch.writer.makeDirectory(bytes(directory))
        }
        for file in ["a/1", "a/b/2", "a/b/c/3", "ab/kept"] { try scratch.put(file) }
        symlink(scratch.outside, scratch.inside + "/a/b/link")
        symlink(scratch.outside + "/file", scratch.inside + "/a/file")
        symlink(scratch.outside, scratch.inside + "/alias")

        #expect(try scratch.target.remove(bytes("a")) == 9)
        #expect(try scratch.target.remove(bytes("alias")) == 1)
        #expect(try scratch.target.remove(bytes("a")) == 0)
        #expect(try scratch.target.remove(bytes("missing/too")) == 0)
        #expect(Scratch.names(in: scratch.inside) == ["ab"])
        #expect(Scratch.names(in: scratch.inside + "/ab") == ["kept"])
        #expect(Scratch.content(of: scratch.outside + "/file") == bytes("precious"))
        // What was removed may be made again.
        try scratch.writer.makeDirectory(bytes("a"))
        try scratch.writer.makeDirectory(bytes("a/b"))
        try scratch.put("a/b/2", bytes("again"))
        #expect(Scratch.content(of: scratch.inside + "/a/b/2") == bytes("again"))
    }

    @Test("A tree of a thousand levels is removed")
    func deepRemoval() throws {
        let scratch = try Scratch(openDirectories: 16)
        var path = "d"
        try scratch.writer.makeDirectory(bytes(path))
        for _ in 1..<1000 {
            path += "/d"
            try scratch.writer.makeDirectory(bytes(path))
        }
        #expect(try scratch.target.remove(bytes("d")) == 1000)
        #expect(try scratch.target.isEmpty)
    }

    @Test("What stands at an entry's place is compared by kind, size and time")
    func comparison() throws {
        let scratch = try Scratch()
        let target = scratch.target
        try scratch.put("file", bytes("12345"))
        var entry = scratch.entry(.file, "file")
        entry.size = 5
        let path = bytes("file")
        #expect(try target.compareExisting(path, entry: entry) == .same)
        #expect(try target.compareExisting(bytes("other"), entry: entry) == .absent)
        #expect(try target.compareExisting(bytes("no/way"), entry: entry) == .absent)
        var other = entry
        other.size = 6
        #expect(try target.compareExisting(path, entry: other) == .different)
        other.mtime.nanoseconds += 1
        #expect(try target.compareExisting(path, entry: other) == .older)
        other.mtime.nanoseconds -= 2
        #expect(try target.compareExisting(path, entry: other) == .newer)
        let directory = scratch.entry(.directory, "file")
        #expect(try target.compareExisting(path, entry: directory) == .otherKind(.file))

        symlink("here", scratch.inside + "/link")
        var link = scratch.entry(.symlink, "link")
        link.target = bytes("here")
        #expect(try target.compareExisting(bytes("link"), entry: link) == .same)
        link.target = bytes("there")
        #expect(try target.compareExisting(bytes("link"), entry: link) == .newer)
    }
}
