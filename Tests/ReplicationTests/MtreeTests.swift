import CSystem
import FileTree
import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("mtree specifications")
struct MtreeTests {
    /// A tree with all that an mtree specification can tell of, and names that it must escape.
    private static func plant(_ source: TemporaryDirectory) {
        func path(_ name: String) -> String { source.path(name) }
        var generator = SeededGenerator(seed: 5)
        makeDirectory(path("dir"))
        makeDirectory(path("dir/inner"))
        makeDirectory(path("empty"))
        writeFile(Array("plain\n".utf8), to: path("dir/plain"))
        writeFile([], to: path("dir/empty file"))
        writeFile(generator.bytes(3_000_000), to: path("dir/inner/large"))
        for name in [
            "hash#tag", "glob*[a]?", "back\\slash", "equals=sign", "line\nfeed", "tab\tulator",
            "snow☃", "-dash", "quote\"'",
        ] {
            writeFile(Array(name.utf8), to: path("dir/\(name)"))
        }
        // A name that is no text, and one as long as names get.
        let raw = Array(path("dir/").utf8) + [0xFF, 0xFE, 0x80]
        raw.map { CChar(bitPattern: $0) }.withUnsafeBufferPointer { name in
            var ended = Array(name) + [0]
            let fd = csys_open(&ended, O_WRONLY | O_CREAT, 0o644)
            _ = csys_pwrite(fd, "raw", 3, 0)
            _ = csys_close(fd)
        }
        writeFile([1], to: path("dir/" + String(repeating: "n", count: 255)))
        let sparse = csys_open(path("sparse"), O_RDWR | O_CREAT, 0o640)
        _ = csys_pwrite(sparse, "middle", 6, 5 << 20)
        _ = csys_ftruncate(sparse, 12 << 20)
        _ = csys_close(sparse)
        _ = csys_linkat(AT_FDCWD, path("dir/plain"), AT_FDCWD, path("hard link"))
        _ = csys_symlinkat("dir/plain", AT_FDCWD, path("link"))
        _ = csys_symlinkat("no such # thing\n", AT_FDCWD, path("dangling"))
        _ = csys_mknodat(AT_FDCWD, path("fifo"), 0o010644, 0, 0)
        if geteuid() == 0 {
            _ = csys_mknodat(AT_FDCWD, path("null"), 0o020666, 1, 3)
            _ = csys_mknodat(AT_FDCWD, path("loop"), 0o060660, 7, 77)
            _ = csys_lchownat(AT_FDCWD, path("dir/inner/large"), 12345, 54321)
        }
        _ = csys_fchmodat(AT_FDCWD, path("dir/plain"), 0o4751)
        _ = csys_fchmodat(AT_FDCWD, path("empty"), 0o1777)
        _ = csys_lutimensat(AT_FDCWD, path("dir/empty file"), -2, 250_000_000)
        _ = csys_lutimensat(AT_FDCWD, path("dir/hash#tag"), 1_600_000_000, 7)
        _ = csys_lutimensat(AT_FDCWD, path("dangling"), 1_500_000_000, 123_456_789)
        _ = csys_lutimensat(AT_FDCWD, path("dir"), 1_400_000_000, 5)
    }

    private static func specification(
        _ world: World, _ snapshot: Snapshot, path: String?, digest: Bool
    ) throws -> [UInt8] {
        let inspect = try Inspect(
            repository: try world.open(asOwner: true), monitor: SilentMonitor(),
            cancellation: Cancellation())
        let mtree = try Mtree(
            inspect, snapshot: snapshot, path: path.map { Array($0.utf8) }, wantsDigest: digest)
        var text: [UInt8] = []
        try mtree.write { bytes in
            text += bytes
            return true
        }
        #expect(mtree.unreadFiles == 0)
        return text
    }

    /// What mtree says of a tree, and its exit status.
    private static func mtree(_ specification: [UInt8], _ tree: String) throws -> (
        status: Int32, output: String
    ) {
        let scratch = TemporaryDirectory()
        scratch.write(specification, to: "spec")
        scratch.write([], to: "out")
        let line = "mtree -f '\(scratch.path("spec"))' -p '\(tree)' > '\(scratch.path("out"))' 2>&1"
        var arguments: [UnsafeMutablePointer<CChar>?] =
            ["sh", "-c", line].map { (word: String) in strdup(word) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var pid = pid_t()
        #expect(posix_spawnp(&pid, "sh", nil, nil, &arguments, environ) == 0)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        return (
            status >> 8 & 0xFF, String(decoding: try #require(scratch.read("out")), as: UTF8.self)
        )
    }

    private static let hasMtree =
        access("/usr/sbin/mtree", X_OK) == 0 || access("/usr/bin/mtree", X_OK) == 0

    @Test(
        "mtree says nothing of a restored tree, and names one flipped byte",
        .enabled(if: hasMtree, "mtree-netbsd"))
    func restoredTree() throws {
        let world = try World()
        Self.plant(world.source)
        let snapshot = try world.backup().snapshot
        let (_, target) = try world.restore(snapshot)
        let tree = target.path("out")
        for digest in [false, true] {
            let text = try Self.specification(
                world, snapshot, path: world.source.path, digest: digest)
            let said = try Self.mtree(text, tree)
            #expect(said.output == "")
            #expect(said.status == 0)
        }
        // The same length, the same time: only content tells.
        let large = tree + "/dir/inner/large"
        let fd = csys_open(large, O_RDWR, 0)
        var byte: UInt8 = 0
        _ = csys_pread(fd, &byte, 1, 2_000_000)
        byte ^= 1
        _ = csys_pwrite(fd, &byte, 1, 2_000_000)
        _ = csys_close(fd)
        let entry = try #require(try Self.entry(world, snapshot, "/dir/inner/large"))
        _ = csys_lutimensat(AT_FDCWD, large, entry.mtime.seconds, entry.mtime.nanoseconds)
        let shallow = try Self.specification(
            world, snapshot, path: world.source.path, digest: false)
        #expect(try Self.mtree(shallow, tree).status == 0)
        let deep = try Self.specification(world, snapshot, path: world.source.path, digest: true)
        let said = try Self.mtree(deep, tree)
        #expect(said.status == 2)
        #expect(said.output.contains("dir/inner/large") && said.output.contains("sha256"))
        #expect(
            said.output.split(separator: "\n").filter { !$0.hasPrefix("\t") }.count == 1,
            "\(said.output)")
    }

    private static func entry(_ world: World, _ snapshot: Snapshot, _ name: String) throws -> Entry?
    {
        let inspect = try Inspect(
            repository: try world.open(asOwner: true), monitor: SilentMonitor(),
            cancellation: Cancellation())
        var found: Entry?
        try inspect.list(snapshot, path: Array((world.source.path + name).utf8), isRecursive: false)
        { entry in
            found = entry
            return false
        }
        return found
    }

    @Test(
        "A whole snapshot restored below a target is described from there, with the directories above the roots",
        .enabled(if: hasMtree, "mtree-netbsd"))
    func wholeSnapshot() throws {
        let world = try World()
        makeDirectory(world.source.path("one"))
        makeDirectory(world.source.path("two"))
        makeDirectory(world.source.path("two/deeper"))
        writeFile([1, 2, 3], to: world.source.path("one/file"))
        writeFile([4], to: world.source.path("two/deeper/file"))
        writeFile([5], to: world.source.path("two/not kept"))
        let snapshot = try world.backup(
            roots: [world.source.path("one"), world.source.path("two/deeper")]
        ).snapshot
        let repository = try world.open(asOwner: true)
        let target = TemporaryDirectory()
        _ = try Restore(
            repository: repository, index: try ChunkIndex.load(repository), snapshot: snapshot,
            options: RestoreOptions(),
            monitor: SilentMonitor(), cancellation: Cancellation()
        ).run(path: nil, target: target.path("out"))
        let text = try Self.specification(world, snapshot, path: nil, digest: true)
        let said = try Self.mtree(text, target.path("out"))
        #expect(said.output == "")
        #expect(said.status == 0)
        writeFile([9], to: target.path("out") + world.source.path + "/two/extra")
        #expect(
            try Self.mtree(text, target.path("out")).output.contains("extra: "),
            "what is there beside it is named")
    }

    @Test("One file is described as the only entry of its directory")
    func oneFile() throws {
        let world = try World()
        writeFile(Array("abc".utf8), to: world.source.path("a b"))
        _ = csys_fchmodat(AT_FDCWD, world.source.path("a b"), 0o640)
        _ = csys_lutimensat(AT_FDCWD, world.source.path("a b"), -2, 5)
        let snapshot = try world.backup().snapshot
        let text = try Self.specification(
            world, snapshot, path: world.source.path("a b"), digest: true)
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        #expect(
            String(decoding: text, as: UTF8.self)
                == "#mtree\n. type=dir\n./a\\040b type=file mode=0640 uid=\(geteuid()) gid=\(getegid()) time=-2.000000005 size=3 sha256=\(abc)\n"
        )
    }

    @Test("A file that cannot be read is listed without its digest, and counted")
    func damaged() throws {
        let made = try MadeRepository(encrypted: false)
        let snapshot = try made.commit(MadeRepository.files(4))
        let frame = try ChunkIndex.load(made.repository).frames(of: made.contentBundles[0])[0]
        made.store.alter(made.key(made.contentBundles[0])) {
            $0[frame.offset + frame.length / 2] ^= 1
        }
        let inspect = try InspectTests.inspect(made)
        let mtree = try Mtree(
            inspect, snapshot: snapshot, path: Array("/data".utf8), wantsDigest: true)
        var text: [UInt8] = []
        try mtree.write { bytes in
            text += bytes
            return true
        }
        #expect(mtree.unreadFiles == 2)
        let lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
        #expect(lines.count == 6)
        #expect(lines.filter { $0.contains("sha256=") }.count == 2)
    }
}
