import CSystem
import Glibc
import SnapshotModel
import Testing

@testable import FileTree

@Suite("Walking a tree")
struct WalkerTests {
    /// Makes a random tree and says what is in it.
    private func grow(_ scratch: WalkScratch, seed: UInt64) -> [[UInt8]] {
        var dice = WalkDice(state: seed)
        var directories: [[UInt8]] = [[]]
        var paths: [[UInt8]] = [scratch.path]
        var known = Set<[UInt8]>()
        // Bytes around the slash, below and above letters: where wrong orders show.
        let alphabet: [UInt8] = [
            0x01, 0x0A, 0x20, 0x2D, 0x2E, 0x30, 0x41, 0x61, 0x62, 0x7F, 0x80, 0xC3, 0xFF,
        ]
        for _ in 0..<400 {
            let place = directories[dice.roll(directories.count)]
            var name: [UInt8] = []
            let length = dice.roll(20) == 0 ? 255 : 1 + dice.roll(12)
            for _ in 0..<length { name.append(alphabet[dice.roll(alphabet.count)]) }
            if name == [0x2E] || name == [0x2E, 0x2E] { continue }
            let path = place.isEmpty ? name : place + [0x2F] + name
            if path.count > 3000 || !known.insert(path).inserted { continue }
            if dice.roll(3) == 0 {
                let made = withName(path) { csys_mkdirat(scratch.handle.descriptor, $0, 0o755) }
                precondition(made == 0)
                directories.append(path)
            } else {
                scratch.write(path, [UInt8](repeating: 0x78, count: dice.roll(50)))
            }
            paths.append(scratch.path + [0x2F] + path)
        }
        return paths
    }

    @Test("Entries come in the one order of paths, whoever lists them", arguments: UInt64(1)...8)
    func order(seed: UInt64) throws {
        let scratch = try WalkScratch(below: quickPlace)
        let expected = grow(scratch, seed: seed).sorted { EntryPath.precedes($0, $1) }
        var first: [WalkRecord]?
        for (threads, ahead) in [(0, 1000), (1, 1000), (2, 1), (2, 20), (8, 100_000)] {
            var options = WalkOptions()
            options.threads = threads
            options.entriesAhead = ahead
            options.directoriesAhead = ahead == 20 ? 2 : nil
            options.openAncestors = ahead == 20 ? 2 : nil
            let records = try walk([scratch.root()], options)
            #expect(records.map(\.path) == expected)
            #expect(records.allSatisfy { $0.event == "entry" })
            if let first { #expect(records == first) } else { first = records }
        }
    }

    @Test("Each status is what lstat says")
    func statuses() throws {
        let scratch = try WalkScratch()
        scratch.file("a/file", "content")
        scratch.symlink("a/file", "link")
        _ = csys_mknodat(scratch.handle.descriptor, "pipe", 0o010600, 0, 0)
        _ = csys_mknodat(scratch.handle.descriptor, "socket", 0o140600, 0, 0)
        _ = csys_linkat(scratch.handle.descriptor, "a/file", scratch.handle.descriptor, "z")
        let records = try walk([scratch.root()])
        #expect(
            names(records, below: scratch.path) == [
                ".", "a", "a/file", "link", "pipe", "socket", "z",
            ])
        for record in records.dropFirst() {
            let name = Array(record.path[(scratch.path.count + 1)...])
            let status = try withName(name) { name in try scratch.handle.status(of: name) }
            #expect(record.status == status)
        }
        #expect(
            records.map { $0.status?.kind } == [
                .directory, .directory, .file, .symlink, .fifo, .socket, .file,
            ])
        #expect(records.last?.status?.links == 2)
        #expect(records[2].status?.size == 7)
    }

    @Test("Ten thousand levels need neither stack nor descriptors", arguments: [0, 3])
    func depth(threads: Int) throws {
        let scratch = try WalkScratch(below: quickPlace)
        var place = try DirectoryHandle(opening: scratch.path)
        let levels = 10_000
        for _ in 0..<levels {
            precondition(csys_mkdirat(place.descriptor, "d", 0o755) == 0)
            // Comes after what lies in the directory beside it, so the walk needs each level again.
            let file = csys_openat(
                place.descriptor, "e", O_WRONLY | O_CREAT | CSYS_O_CLOEXEC, 0o644)
            precondition(file >= 0)
            _ = csys_close(file)
            let next = csys_openat(place.descriptor, "d", O_RDONLY | CSYS_O_CLOEXEC, 0)
            precondition(next >= 0)
            place = DirectoryHandle(owning: next, path: [0x2F])
        }
        var options = WalkOptions()
        options.threads = threads
        options.openAncestors = 8
        options.directoriesAhead = 16
        let walker = try TreeWalker(roots: [scratch.root()], options: options)
        var entries = 0
        var longest = 0
        var isRight = true
        while let event = walker.next() {
            entries += 1
            longest = max(longest, walker.path.count)
            let again = try? walker.parent.status(of: walker.name)
            isRight = isRight && event == .entry && again?.inode == walker.status.inode
        }
        #expect(isRight)
        #expect(entries == 2 * levels + 1)
        #expect(longest == scratch.path.count + 2 * levels)

        // Left in the middle, it neither hangs nor falls over what was listed ahead.
        do {
            let walker = try TreeWalker(roots: [scratch.root()], options: WalkOptions())
            for _ in 0..<(levels / 2) { _ = walker.next() }
        }
    }

    @Test("A directory that becomes a link is a problem and not a way out")
    func exchangedForLink() throws {
        let scratch = try WalkScratch()
        scratch.file("tree/a")
        scratch.file("tree/b/inside")
        scratch.file("tree/c")
        scratch.file("secret/outside")
        var options = WalkOptions()
        options.threads = 0
        let walker = try TreeWalker(roots: [scratch.root("tree")], options: options)
        #expect(walker.next() == .entry)
        #expect(walker.next() == .entry)
        #expect(Array(walker.path) == scratch.path("tree/a"))
        run(["/bin/rm", "-r", scratch.text + "/tree/b"])
        scratch.symlink("../secret", "tree/b")
        #expect(walker.next() == .problem)
        #expect(Array(walker.path) == scratch.path("tree/b"))
        #expect(walker.problem?.kind == .changed)
        #expect(walker.next() == .entry)
        #expect(Array(walker.path) == scratch.path("tree/c"))
        #expect(walker.next() == nil)
    }

    @Test("A directory that vanishes is said to have vanished")
    func vanished() throws {
        let scratch = try WalkScratch()
        scratch.file("a")
        scratch.file("b/inside")
        var options = WalkOptions()
        options.threads = 0
        let walker = try TreeWalker(roots: [scratch.root()], options: options)
        _ = walker.next()
        _ = walker.next()
        run(["/bin/rm", "-r", scratch.text + "/b"])
        #expect(walker.next() == .problem)
        #expect(walker.problem?.kind == .vanished)
        #expect(walker.next() == nil)
    }

    @Test(
        "A directory that was moved away from above the walk is found again, or said to be incomplete"
    )
    func moved() throws {
        for movesBoth in [false, true] {
            let scratch = try WalkScratch()
            scratch.file("r/a/b/c/d/e/f/deep")
            scratch.file("r/a/z")
            scratch.file("r/zz")
            scratch.directory("elsewhere")
            var options = WalkOptions()
            options.threads = 0
            options.openAncestors = 2
            let walker = try TreeWalker(roots: [scratch.root("r")], options: options)
            while Array(walker.path) != scratch.path("r/a/b/c/d/e/f/deep") {
                #expect(walker.next() == .entry)
            }
            let place = scratch.handle.descriptor
            precondition(csys_renameat(place, "r/a/b", place, "elsewhere/b") == 0)
            if movesBoth { precondition(csys_renameat(place, "r/a", place, "elsewhere/a") == 0) }
            if movesBoth {
                #expect(walker.next() == .problem)
                #expect(walker.problem?.kind == .changed)
                #expect(Array(walker.path) == scratch.path("r/a"))
            } else {
                #expect(walker.next() == .entry)
                #expect(Array(walker.path) == scratch.path("r/a/z"))
                #expect(try walker.parent.status(of: walker.name).inode == walker.status.inode)
            }
            #expect(walker.next() == .entry)
            #expect(Array(walker.path) == scratch.path("r/zz"))
            #expect(walker.next() == nil)
        }
    }

    @Test(
        "Changes underneath never break the order, nor bring an entry twice",
        arguments: UInt64(1)...3)
    func commotion(seed: UInt64) throws {
        let scratch = try WalkScratch(below: quickPlace)
        _ = grow(scratch, seed: seed)
        for round in 0..<6 {
            var dice = WalkDice(state: seed &* 100 &+ UInt64(round))
            var options = WalkOptions()
            options.threads = 3
            options.openAncestors = 2
            options.entriesAhead = 30
            let walker = try TreeWalker(roots: [scratch.root()], options: options)
            var last: [UInt8] = []
            while let event = walker.next() {
                let path = Array(walker.path)
                if event == .entry {
                    #expect(EntryPath.precedes(last, path))
                    last = path
                    // Rename what was just seen to somewhere that is still to come, or has been.
                    if dice.roll(10) == 0, !walker.isRoot {
                        let name = [UInt8(0x21 + dice.roll(90)), UInt8(0x30 + dice.roll(70))]
                        if !name.contains(0x2F) {
                            _ = withName(name) {
                                csys_renameat_noreplace(
                                    walker.parent.descriptor, walker.name,
                                    scratch.handle.descriptor, $0)
                            }
                        }
                    }
                }
            }
        }
    }

    @Test("Roots come in order, and a file or a link can be one")
    func kindsOfRoots() throws {
        let scratch = try WalkScratch()
        scratch.file("b/x")
        scratch.file("a")
        scratch.symlink("b", "c")
        let roots = try ["c", "b", "a"].map { try scratch.root($0) }
        let records = try walk(roots)
        #expect(names(records, below: scratch.path) == ["a", "b", "b/x", "c"])
        #expect(records.last?.status?.kind == .symlink)

        let followed = try walk([SourceRoot(scratch.path("c/"))])
        #expect(names(followed, below: scratch.path) == ["c", "c/x"])
        #expect(followed.first?.status?.kind == .directory)
    }

    @Test("A root that has gone since it was named is a problem, and the others are walked")
    func goneRoot() throws {
        let scratch = try WalkScratch()
        scratch.file("a/x")
        scratch.file("b")
        let roots = [try scratch.root("a"), try scratch.root("b")]
        run(["/bin/rm", "-r", scratch.text + "/a"])
        let records = try walk(roots)
        #expect(records.map(\.event) == ["problem", "entry"])
        #expect(records[0].path == scratch.path("a"))
        #expect(records[0].detail.hasPrefix("vanished"))
    }

    @Test("Another file system is an empty directory where the walk stays on its own")
    func oneFileSystem() throws {
        let scratch = try WalkScratch()
        scratch.file("a/before")
        scratch.file("z")
        guard isRoot, run(["/bin/mount", "-t", "tmpfs", "none", scratch.text + "/a"]) == 0 else {
            skipped("mounting a tmpfs", because: "this user may not")
            return
        }
        defer { run(["/bin/umount", scratch.text + "/a"]) }
        scratch.file("a/mounted")
        var options = WalkOptions()
        #expect(
            try names(walk([scratch.root()], options), below: scratch.path) == [
                ".", "a", "a/mounted", "z",
            ])
        options.rules.staysOnFileSystem = true
        let records = try walk([scratch.root()], options)
        #expect(names(records, below: scratch.path) == [".", "a", "z"])
        #expect(records.map(\.detail) == ["", "mount point", ""])
        // The mounted file system as a root of its own is walked.
        #expect(
            try names(walk([scratch.root("a")], options), below: scratch.path("a")) == [
                ".", "mounted",
            ])

        let table = FileSystemTable()
        let inside = try #require(walk([scratch.root("a")]).first?.status)
        #expect(
            table.description(device: inside.device, path: scratch.path("a")).type
                == Array("tmpfs".utf8))
    }

    @Test("What this user may not read is a problem, and the rest is walked")
    func unreadable() throws {
        let scratch = try WalkScratch()
        scratch.file("a/closed/inside")
        scratch.file("a/open/inside")
        scratch.file("b")
        precondition(csys_fchmodat(scratch.handle.descriptor, "a/closed", 0) == 0)
        defer { _ = csys_fchmodat(scratch.handle.descriptor, "a/closed", 0o755) }
        _ = csys_fchmod(scratch.handle.descriptor, 0o755)
        var records: [WalkRecord] = []
        var options = WalkOptions()
        options.threads = 0
        if isRoot {
            let root = try scratch.root()
            guard let found = asNobody({ try walk([root], options) }) else {
                skipped("walking as another user", because: "setfsuid is missing")
                return
            }
            records = try found.get()
        } else {
            records = try walk([scratch.root()], options)
        }
        #expect(
            names(records, below: scratch.path) == [
                ".", "a", "a/closed", "a/open", "a/open/inside", "b",
            ])
        #expect(names(records, below: scratch.path, event: "problem") == ["a/closed"])
        #expect(records[3].detail.hasPrefix("unreadable"))
    }

    private final class Box { var work: () -> Void = {} }

    /// Runs `body` on a thread of its own that accesses files as the user nobody: setfsuid is a
    /// matter of one thread.
    private func asNobody<Value>(
        _ body: @escaping () throws -> Value
    ) -> Result<Value, any Error>? {
        typealias Function = @convention(c) (UInt32) -> Int32
        guard let symbol = dlsym(nil, "setfsuid") else { return nil }
        let change = unsafeBitCast(symbol, to: Function.self)
        var result: Result<Value, any Error>?
        let box = Box()
        box.work = {
            _ = change(65_534)
            result = Result { try body() }
        }
        var thread = pthread_t()
        let started = pthread_create(
            &thread, nil,
            { context in
                Unmanaged<Box>.fromOpaque(context!).takeUnretainedValue().work()
                return nil
            }, Unmanaged.passUnretained(box).toOpaque())
        guard started == 0 else { return nil }
        pthread_join(thread, nil)
        return result
    }
}
