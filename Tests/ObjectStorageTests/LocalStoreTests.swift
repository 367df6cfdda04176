import CSystem
import Glibc
import ObjectStorage
import TestSupport
import Testing

@Suite("The directory store")
struct LocalStoreTests {
    private let directory = TemporaryDirectory()
    private var path: String { directory.path("store") }

    private func key(_ text: String) -> ObjectKey { ObjectKey(validated: text) }

    @Test("It keeps every promise of the contract")
    func contract() throws {
        let store = try LocalStore.create(at: path)
        #expect(StoreContract.run(store) == [])
        #expect(directory.contents() == ["store/", "store/+tmp/"])
    }

    @Test("It keeps every promise below a directory that is open to its group")
    func contractInGroup() throws {
        makeDirectory(path, mode: 0o770)
        #expect(chmod(path, 0o2770) == 0)
        let store = try LocalStore.create(at: path)
        #expect(StoreContract.run(store, listedObjects: 20) == [])
        try store.put([1], at: key("a/b/object"))
        #expect(mode("a/b/object") == 0o440)
        #expect(mode("a") == 0o2770)
        #expect(mode("a/b") == 0o2770)
    }

    @Test("Objects can be read by their owner only, and are not writable")
    func modes() throws {
        let store = try LocalStore.create(at: path)
        try store.put([1, 2, 3], at: key("a/b/object"))
        #expect(mode("a/b/object") == 0o400)
        #expect(mode("a/b") == 0o700)
        #expect(mode("a") == 0o700)
        #expect(mode("+tmp") == 0o700)
        #expect(mode(".") == 0o700)
    }

    // MARK: - Creating and opening

    @Test("A store is made in a new directory, with its parents, or in an empty one")
    func create() throws {
        let nested = directory.path("x/y/z")
        try LocalStore.create(at: nested).put([1], at: key("object"))
        #expect(try LocalStore.open(at: nested).get(key("object")) == [1])
        makeDirectory(directory.path("empty"))
        makeDirectory(directory.path("empty/lost+found"))
        try LocalStore.create(at: directory.path("empty")).put([2], at: key("object"))
        #expect(try LocalStore.open(at: directory.path("empty")).list(prefix: "").count == 1)
    }

    @Test("A store is not made where something lies already")
    func createInFull() throws {
        makeDirectory(path)
        directory.write([1], to: "store/letter.txt")
        let error = #expect(throws: StorageError.self) { try LocalStore.create(at: path) }
        #expect(error?.kind == .exists)
        #expect(error?.description.contains("letter.txt") == true)
        #expect(directory.contents() == ["store/", "store/letter.txt"])
    }

    @Test("Opening what is not there, or is no directory, says so")
    func openMissing() {
        let missing = #expect(throws: StorageError.self) { try LocalStore.open(at: path) }
        #expect(missing?.kind == .notFound)
        directory.write([1], to: "file")
        let file = #expect(throws: StorageError.self) {
            try LocalStore.open(at: directory.path("file"))
        }
        #expect(file?.kind == .notADirectory)
        let below = #expect(throws: StorageError.self) {
            try LocalStore.create(at: directory.path("file/store"))
        }
        #expect(below?.kind == .notADirectory)
    }

    // MARK: - What else may lie in the directory

    @Test("What is no object is neither listed nor read, and does not stop a reader")
    func strangers() throws {
        let store = try LocalStore.create(at: path)
        try store.put([1], at: key("a/object"))
        directory.write([2], to: "store/a/not a key")
        directory.write([2], to: "store/a/name~")
        #expect(mkfifo(directory.path("store/a/fifo"), 0o600) == 0)
        #expect(try store.list(prefix: "").map(\.key.text) == ["a/object"])
        #expect(try store.head(key("a")) == nil)
        for name in ["a", "a/fifo", "a/object/below"] {
            let error = #expect(throws: StorageError.self) { try store.get(key(name)) }
            #expect(error?.kind == .notFound)
        }
        for name in ["a", "a/fifo"] {
            let error = #expect(throws: StorageError.self) { try store.put([1], at: key(name)) }
            #expect(error?.kind == .exists)
        }
        try store.delete(key("a"))
        #expect(try store.get(key("a/object")) == [1])
    }

    @Test("An object where a directory is needed is an error and stays what it was")
    func objectInTheWay() throws {
        let store = try LocalStore.create(at: path)
        try store.put([1], at: key("a"))
        let error = #expect(throws: StorageError.self) { try store.put([2], at: key("a/b")) }
        #expect(error?.kind == .notADirectory)
        #expect(try store.get(key("a")) == [1])
        #expect(try store.list(prefix: "a/") == [])
        try store.delete(key("a/b"))
        #expect(directory.contents() == ["store/", "store/+tmp/", "store/a"])
    }

    @Test("A symbolic link is never followed, and never left out of a listing in silence")
    func symbolicLinks() throws {
        let store = try LocalStore.create(at: path)
        try store.put([1], at: key("a/b/object"))
        #expect(rename(directory.path("store/a/b"), directory.path("elsewhere")) == 0)
        #expect(symlink(directory.path("elsewhere"), directory.path("store/a/b")) == 0)
        #expect(symlink("../elsewhere/object", directory.path("store/link")) == 0)
        for prefix in ["", "a/", "a/b/"] {
            #expect(throws: StorageError.self) { try store.list(prefix: prefix) }
        }
        let link = #expect(throws: StorageError.self) { try store.list(prefix: "a/") }
        #expect(link?.description.contains("a/b is a symbolic link") == true)
        let get = #expect(throws: StorageError.self) { try store.get(key("link")) }
        #expect(get?.kind != .notFound)
        #expect(try store.head(key("link")) == nil)
        let taken = #expect(throws: StorageError.self) { try store.put([1], at: key("link")) }
        #expect(taken?.kind == .exists)
        let put = #expect(throws: StorageError.self) {
            try LocalStore.open(at: path).put([1], at: key("a/b/new"))
        }
        #expect(put?.kind == .notADirectory)
    }

    // MARK: - Temporary files

    @Test("A spool file is removed when it is dropped, and is the object once it is put")
    func spool() throws {
        let store = try LocalStore.create(at: path)
        var spool: SpoolFile? = try store.makeSpool()
        try spool?.append([1, 2, 3])
        try spool?.append([])
        try spool?.append([4])
        #expect(spool?.length == 4)
        #expect(temporaries().count == 1)
        #expect(try store.list(prefix: "") == [])
        spool = nil
        #expect(temporaries() == [])

        let put = try store.makeSpool()
        try put.append([5, 6])
        var before = csys_stat()
        #expect(csys_fstat(put.fileDescriptor, &before) == 0)
        try store.put(ObjectContent(file: put, digest: sha256([5, 6])), at: key("a/object"))
        var after = csys_stat()
        #expect(csys_lstatat(AT_FDCWD, directory.path("store/a/object"), &after) == 0)
        #expect(before.inode == after.inode)
        #expect(temporaries() == [])
        #expect(try put.contents() == [5, 6])
    }

    @Test("A spool file of another store, or without a name, is copied into place")
    func foreignSpool() throws {
        let store = try LocalStore.create(at: path)
        let other = try LocalStore.create(at: directory.path("other"))
        var generator = SeededGenerator(seed: 2)
        let bytes = generator.bytes(3_000_000)
        for spool in [try other.makeSpool(), try SpoolFile.temporary(in: directory.path)] {
            try spool.append(bytes)
            let content = ObjectContent(file: spool, digest: sha256(bytes))
            let name = key("copy/\(spool.fileDescriptor)")
            try store.put(content, at: name)
            #expect(try store.get(name) == bytes)
            try other.put(content, at: name)
            #expect(try other.get(name) == bytes)
        }
        #expect(temporaries() == [])
    }

    @Test("Opening clears away the temporary files of the dead and leaves those of the living")
    func abandoned() throws {
        let store = try LocalStore.create(at: path)
        let living = try store.makeSpool()
        try living.append([7])
        let name = try #require(temporaries().first)
        // The same host, a process that has ended: nobody holds the lock.
        let dead = name.replacing("-\(getpid())-", with: "-1-")
        let strange = ["notes.txt", "0-0-0-0"]
        for file in [dead] + strange { directory.write([1], to: "store/+tmp/\(file)") }
        // Another host's file: locks may not be seen from here, so only time tells.
        let foreign = "0123456789abcdef-77-1-ff"
        let foreignOld = "0123456789abcdef-77-2-ff"
        for file in [foreign, foreignOld] { directory.write([1], to: "store/+tmp/\(file)") }
        let twoDaysAgo = csys_realtime_ns() / 1_000_000_000 - 2 * 86_400
        let set = csys_lutimensat(
            AT_FDCWD, directory.path("store/+tmp/\(foreignOld)"), twoDaysAgo, 0)
        #expect(set == 0)
        let again = try LocalStore.open(at: path)
        #expect(Set(temporaries()) == Set([name, foreign] + strange))
        try store.put(ObjectContent(file: living, digest: sha256([7])), at: key("object"))
        #expect(try again.get(key("object")) == [7])
    }

    @Test("A temporary file that somebody removes is reported, and nothing is stored")
    func stolen() throws {
        let store = try LocalStore.create(at: path)
        let spool = try store.makeSpool()
        try spool.append([1])
        let name = try #require(temporaries().first)
        #expect(unlink(directory.path("store/+tmp/\(name)")) == 0)
        let error = #expect(throws: StorageError.self) {
            try store.put(ObjectContent(file: spool, digest: sha256([1])), at: key("a/object"))
        }
        #expect(error?.kind == .lost)
        #expect(try store.list(prefix: "") == [])
    }

    // MARK: - File systems that can do less

    @Test(
        "Every promise is kept where a rename cannot refuse to replace",
        arguments: [
            [FaultyFileOperations.Call.renameWithoutReplacing],
            [.renameWithoutReplacing, .link],
        ])
    func lesserFileSystems(missing: [FaultyFileOperations.Call]) throws {
        let operations = FaultyFileOperations { _, call in
            missing.contains(call) ? .fail(call == .link ? EPERM : EINVAL) : .pass
        }
        let directory = TemporaryDirectory.inMemory()
        let path = directory.path("store")
        let store = try LocalStore.create(at: path, operations: operations)
        let broken = StoreContract.run(store, listedObjects: 50)
        // Without either, a look comes before the rename, and puts of different objects may race.
        if missing.contains(.link) {
            #expect(broken.allSatisfy { $0.contains("at once") })
        } else {
            #expect(broken == [])
        }
        #expect(directory.contents() == ["store/", "store/+tmp/"])
    }

    @Test("A file system that keeps no modes and synchronises no directories is good enough")
    func modelessFileSystem() throws {
        let operations = FaultyFileOperations { _, call in
            switch call {
            case .setMode: .fail(EPERM)
            case .synchronizeDirectory: .fail(EINVAL)
            default: .pass
            }
        }
        let store = try LocalStore.create(at: path, operations: operations)
        try store.put([1], at: key("a/object"))
        #expect(try store.get(key("a/object")) == [1])
    }

    @Test("Short writes are continued")
    func shortWrites() throws {
        let operations = FaultyFileOperations { _, call in call == .write ? .shorten(1000) : .pass }
        let store = try LocalStore.create(at: path, operations: operations)
        var generator = SeededGenerator(seed: 3)
        let bytes = generator.bytes(12_345)
        try store.put(bytes, at: key("object"))
        #expect(try store.get(key("object")) == bytes)
    }

    @Test("A directory that is removed as empty at the same time is made again")
    func vanishingDirectory() throws {
        let store = try LocalStore.create(at: path)
        for round in 0..<3 {
            try store.put([1], at: key("a/b/\(round)"))
            try store.delete(key("a/b/\(round)"))
            store.removeEmptyDirectories(below: "a/")
            #expect(try store.list(prefix: "") == [])
            #expect(!directory.contents().contains("store/a/"))
        }
    }

    @Test("A hundred thousand objects are listed in order")
    func manyObjects() throws {
        let directory = TemporaryDirectory.inMemory()
        let store = try LocalStore.create(at: directory.path("store"))
        // Written past the store: durability is not the matter here.
        makeDirectory(directory.path("store/b"))
        for shard in 0..<100 {
            makeDirectory(directory.path("store/b/\(shard)"))
            for file in 0..<1_000 {
                directory.write([], to: "store/b/\(shard)/\(file * 7_919 % 1_000)-\(file)")
            }
        }
        let listed = try store.list(prefix: "b/").map(\.key)
        #expect(listed.count == 100_000)
        #expect(zip(listed, listed.dropFirst()).allSatisfy { $0 < $1 })
    }

    private func temporaries() -> [String] {
        treeContents(directory.path("store/+tmp"))
    }

    private func mode(_ name: String) -> UInt32 {
        var status = csys_stat()
        guard csys_lstatat(AT_FDCWD, directory.path("store/\(name)"), &status) == 0 else {
            return 0
        }
        return status.mode & 0o7777
    }
}
