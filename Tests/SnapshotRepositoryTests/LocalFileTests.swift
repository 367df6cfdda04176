import CSystem
import Glibc
import SnapshotRepository
import TestSupport
import Testing

/// Permission bits of what lies at `path`; nil where nothing does.
func permissions(_ path: String) -> UInt32? {
    var status = csys_stat()
    return csys_lstatat(AT_FDCWD, path, &status) == 0 ? status.mode & 0o7777 : nil
}

@Suite("A host's own files")
struct LocalFileTests {
    @Test(
        "A file is written whole for this user alone, directories too, and nothing is left beside it"
    )
    func writing() throws {
        let home = TemporaryDirectory.inMemory()
        let path = home.path("a/b/c.json")
        try LocalFile.write([1, 2, 3], to: path)
        #expect(try LocalFile.read(path) == [1, 2, 3])
        #expect(permissions(path) == 0o600)
        #expect(permissions(home.path("a")) == 0o700)
        #expect(permissions(home.path("a/b")) == 0o700)
        try LocalFile.write([4], to: path)
        #expect(try LocalFile.read(path) == [4])
        try LocalFile.write([], to: path)
        #expect(try LocalFile.read(path) == [])
        #expect(home.contents() == ["a/", "a/b/", "a/b/c.json"])
    }

    @Test("Whoever read the old file keeps it: a write replaces the name, not the bytes")
    func replacing() throws {
        let home = TemporaryDirectory.inMemory()
        let path = home.path("f")
        try LocalFile.write([1, 1, 1, 1], to: path)
        let old = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        defer { _ = csys_close(old) }
        try LocalFile.write([2, 2, 2, 2], to: path)
        var bytes: [UInt8] = [0, 0, 0, 0]
        #expect(bytes.withUnsafeMutableBytes { csys_pread(old, $0.baseAddress!, 4, 0) } == 4)
        #expect(bytes == [1, 1, 1, 1])
    }

    @Test("A write that cannot be finished leaves the old file and nothing else")
    func failing() throws {
        let home = TemporaryDirectory.inMemory()
        makeDirectory(home.path("taken"))
        // A directory stands where the file belongs: the rename fails.
        #expect(failure { try LocalFile.write([1], to: home.path("taken")) }?.kind == .local)
        #expect(home.contents() == ["taken/"])
        home.write([7], to: "file")
        #expect(failure { try LocalFile.write([1], to: home.path("file/below")) }?.kind == .local)
        #expect(home.read("file") == [7])
    }

    @Test("What is no file, or too large a one, is not read; what is not there is nil")
    func reading() throws {
        let home = TemporaryDirectory.inMemory()
        #expect(try LocalFile.read(home.path("none")) == nil)
        home.write([1, 2, 3], to: "file")
        #expect(try LocalFile.read(home.path("file/below")) == nil)
        #expect(failure { _ = try LocalFile.read(home.path) }?.kind == .local)
        #expect(
            failure { _ = try LocalFile.read(home.path("file"), maximumBytes: 2) }?.kind == .local)
        #expect(try LocalFile.read(home.path("file"), maximumBytes: 3) == [1, 2, 3])
    }

    @Test("Names come sorted, also of a directory that takes several calls to list")
    func names() {
        let home = TemporaryDirectory.inMemory()
        #expect(LocalFile.names(in: home.path("none")) == [])
        let names = (0..<3000).map { "file-\($0)-" + String(repeating: "x", count: $0 % 60) }
        for name in names { home.write([], to: name) }
        #expect(LocalFile.names(in: home.path) == names.sorted())
    }

    @Test(
        "Directories are those of the environment, of root, or of the XDG base directories",
        arguments: [
            (
                ["HOME": "/home/u"], false, "/home/u/.config/batchsync", "/home/u/.cache/batchsync",
                "/home/u/.local/state/batchsync"
            ),
            (
                ["HOME": "/home/u", "XDG_CONFIG_HOME": "/x", "XDG_CACHE_HOME": "relative"], false,
                "/x/batchsync",
                "/home/u/.cache/batchsync", "/home/u/.local/state/batchsync"
            ),
            (
                ["HOME": "/root", "XDG_CONFIG_HOME": "/x"], true, "/etc/batchsync",
                "/var/cache/batchsync", "/var/lib/batchsync"
            ),
            (
                [
                    "BATCHSYNC_CONFIG_DIR": "/c", "BATCHSYNC_CACHE_DIR": "/d",
                    "BATCHSYNC_STATE_DIR": "/e",
                ], true, "/c", "/d",
                "/e"
            ),
        ] as [([String: String], Bool, String, String, String)])
    func directories(
        _ environment: [String: String], _ isRoot: Bool, _ config: String, _ cache: String,
        _ state: String
    ) {
        let directories = HostDirectories(environment: environment, isRoot: isRoot)
        #expect(directories.configuration == config)
        #expect(directories.cache == cache)
        #expect(directories.state == state)
    }
}
