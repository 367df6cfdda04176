import CSystem
import Glibc
import ObjectStorage
import TestSupport
import Testing

@Suite("The directory store, when something fails")
struct LocalStoreFailureTests {
    private let directory = TemporaryDirectory()
    private var path: String { directory.path("store") }

    private func key(_ text: String) -> ObjectKey { ObjectKey(validated: text) }

    private static let isRoot = geteuid() == 0

    /// Everything that a put asks of the file system, to be failed in turn.
    private static let calls: [(FaultyFileOperations.Call, Int32)] = [
        (.makeDirectory, ENOSPC), (.createFile, ENOSPC), (.write, ENOSPC), (.write, EIO),
        (.synchronizeFile, EIO), (.synchronizeFile, ENOSPC), (.synchronizeDirectory, EIO),
        (.renameWithoutReplacing, ENOSPC), (.renameWithoutReplacing, EACCES),
    ]

    @Test(
        "A put whose system calls fail leaves nothing behind and can be repeated", arguments: calls)
    func failingCall(call: FaultyFileOperations.Call, code: Int32) throws {
        _ = try LocalStore.create(at: path)
        var generator = SeededGenerator(seed: 4)
        let bytes = generator.bytes(100_000)
        // The n-th call of this kind fails, for every n that a put makes.
        var failures = 0
        for round in 1...20 {
            let seen = Counter()
            let operations = FaultyFileOperations { _, made in
                made == call && seen.next() == round ? .fail(code) : .pass
            }
            let store = try LocalStore.open(at: path, operations: operations)
            let name = key("a\(round)/b/object")
            let result = Result { () throws(StorageError) in try store.put(bytes, at: name) }
            guard case .failure(let error) = result else {
                // No call of this kind is left to be failed.
                #expect(seen.value < round)
                break
            }
            failures += 1
            #expect(error.key == name)
            #expect(error.description.contains(String(cString: strerror(code))))
            #expect(treeContents(directory.path("store/+tmp")) == [])
            // Where only the directory could not be synchronised the object may be seen, and is
            // whole.
            let isSeen = try store.head(name) != nil
            #expect(!isSeen || call == .synchronizeDirectory)
            if isSeen { #expect(try store.get(name) == bytes) }
            try store.put(bytes, at: name)
            #expect(try store.get(name) == bytes)
        }
        #expect(failures > 0)
    }

    @Test("A spool file whose synchronisation failed is never taken again")
    func damagedSpool() throws {
        let seen = Counter()
        let operations = FaultyFileOperations { _, call in
            call == .synchronizeFile && seen.next() == 1 ? .fail(EIO) : .pass
        }
        let store = try LocalStore.create(at: path, operations: operations)
        let spool = try store.makeSpool()
        try spool.append([1])
        let content = ObjectContent(file: spool, digest: sha256([1]))
        for _ in 0..<2 {
            let error = #expect(throws: StorageError.self) {
                try store.put(content, at: key("object"))
            }
            #expect(error?.kind == .io)
        }
        #expect(try store.list(prefix: "") == [])
    }

    @Test("A put whose rename took effect and was reported as failed is settled by the next one")
    func lostAnswer() throws {
        let seen = Counter()
        let operations = FaultyFileOperations { _, call in
            call == .renameWithoutReplacing && seen.next() == 1 ? .failAfterEffect(EIO) : .pass
        }
        let store = try LocalStore.create(at: path, operations: operations)
        #expect(throws: StorageError.self) { try store.put([1, 2], at: key("object")) }
        try store.put([1, 2], at: key("object"))
        #expect(try store.get(key("object")) == [1, 2])
    }

    // MARK: - Real ends of real processes

    @Test("A process killed at any call of a put leaves whole objects and no debris")
    func killed() async throws {
        // Learns how many calls three puts make.
        let count = FaultyFileOperations { _, _ in .pass }
        try LocalStoreFailureTests.putThree(
            LocalStore.create(at: directory.path("count"), operations: count))
        let total = count.calls
        #expect(total > 15)
        for number in stride(from: 1, through: total, by: 2) {
            let path = directory.path("killed-\(number)")
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [path = path as String, number = number as Int] in
                let operations = FaultyFileOperations { made, _ in made == number ? .kill : .pass }
                try LocalStoreFailureTests.putThree(
                    LocalStore.create(at: path, operations: operations))
            }
            guard directory.contents().contains("killed-\(number)/") else { continue }
            let store = try LocalStore.open(at: path)
            #expect(treeContents(path + "/+tmp") == [])
            for object in try store.list(prefix: "") {
                #expect(object.length == 70_000)
                #expect(sha256Hex(try store.get(object.key)) == object.key.name)
            }
            try LocalStoreFailureTests.putThree(store)
            #expect(try store.list(prefix: "").count == 3)
        }
    }

    private static func putThree(_ store: LocalStore) throws {
        var generator = SeededGenerator(seed: 5)
        for index in 0..<3 {
            let bytes = generator.bytes(70_000)
            let spool = try store.makeSpool()
            try spool.append(bytes)
            let name = ObjectKey(validated: "bundles/\(index)/\(sha256Hex(bytes))")
            try store.put(ObjectContent(file: spool, digest: sha256(bytes)), at: name)
        }
    }

    // MARK: - Real disks

    @Test(
        "A full disk is reported as such, leaves no debris and stays readable",
        .enabled(if: isRoot, "mounting a small file system needs root"))
    func fullDisk() throws {
        try withMount("size=1m") { mountPoint in
            let store = try LocalStore.create(at: mountPoint)
            var generator = SeededGenerator(seed: 6)
            let small = generator.bytes(300_000)
            let large = generator.bytes(2_000_000)
            try store.put(small, at: key("bundles/small"))
            for _ in 0..<3 {
                let error = #expect(throws: StorageError.self) {
                    try store.put(large, at: key("bundles/large"))
                }
                #expect(error?.kind == .noSpace)
                #expect(error?.isTransient == false)
                #expect(treeContents(mountPoint) == ["+tmp/", "bundles/", "bundles/small"])
            }
            let spoolError = #expect(throws: StorageError.self) {
                let spool = try store.makeSpool()
                while true { try spool.append(small) }
            }
            #expect(spoolError?.kind == .noSpace)
            #expect(spoolError?.operation == .spool)
            #expect(try store.get(key("bundles/small")) == small)
            // What was freed can be used again: nothing of the failures has stayed.
            try store.put(generator.bytes(500_000), at: key("bundles/other"))
        }
    }

    @Test(
        "A disk without inodes left is reported as full",
        .enabled(if: isRoot, "mounting a small file system needs root"))
    func noInodes() throws {
        try withMount("size=1m,nr_inodes=8") { mountPoint in
            let store = try LocalStore.create(at: mountPoint)
            var kind: StorageError.Kind?
            for index in 0..<10 where kind == nil {
                do throws(StorageError) {
                    try store.put([1], at: key("object\(index)"))
                } catch {
                    kind = error.kind
                }
            }
            #expect(kind == .noSpace)
            #expect(treeContents(mountPoint + "/+tmp") == [])
        }
    }

    @Test(
        "A store on read-only media can be read, and says why it cannot be written",
        .enabled(if: isRoot, "mounting a file system needs root"))
    func readOnly() throws {
        try withMount("size=1m") { mountPoint in
            try LocalStore.create(at: mountPoint).put([1], at: key("a/object"))
            #expect(run(["mount", "-o", "remount,ro", mountPoint]))
            let store = try LocalStore.open(at: mountPoint)
            #expect(try store.get(key("a/object")) == [1])
            #expect(try store.list(prefix: "").count == 1)
            let put = #expect(throws: StorageError.self) { try store.put([2], at: key("a/b")) }
            #expect(put?.kind == .readOnly)
            let delete = #expect(throws: StorageError.self) { try store.delete(key("a/object")) }
            #expect(delete?.kind == .readOnly)
            let spool = #expect(throws: StorageError.self) { try store.makeSpool() }
            #expect(spool?.kind == .readOnly)
        }
    }

    @Test(
        "Another user is told that she may not, and changes nothing",
        .enabled(if: isRoot, "becoming another user needs root"))
    func anotherUser() async throws {
        let store = try LocalStore.create(at: path)
        try store.put([1], at: key("a/object"))
        #expect(chmod(directory.path, 0o755) == 0)
        await #expect(processExitsWith: .success) { [path = path as String] in
            try #require(setgid(65_534) == 0 && setuid(65_534) == 0)
            let error = #expect(throws: StorageError.self) { try LocalStore.open(at: path) }
            #expect(error?.kind == .denied)
        }
        // May look but not touch.
        #expect(chmod(path, 0o755) == 0 && chmod(path + "/a", 0o755) == 0)
        await #expect(processExitsWith: .success) { [path = path as String] in
            try #require(setgid(65_534) == 0 && setuid(65_534) == 0)
            let store = try LocalStore.open(at: path)
            let object = ObjectKey(validated: "a/object")
            #expect(try store.list(prefix: "").map(\.key) == [object])
            let get = #expect(throws: StorageError.self) { try store.get(object) }
            #expect(get?.kind == .denied)
            let put = #expect(throws: StorageError.self) {
                try store.put([2], at: ObjectKey(validated: "a/b"))
            }
            #expect(put?.kind == .denied)
            let delete = #expect(throws: StorageError.self) { try store.delete(object) }
            #expect(delete?.kind == .denied)
        }
        #expect(try store.list(prefix: "").count == 1)
        #expect(try store.get(key("a/object")) == [1])
    }

    // MARK: -

    private func withMount(_ options: String, _ body: (String) throws -> Void) throws {
        let mountPoint = directory.path("mount")
        makeDirectory(mountPoint)
        try #require(run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", mountPoint]))
        defer { #expect(run(["umount", "-l", mountPoint])) }
        try body(mountPoint)
    }

    private func run(_ words: [String]) -> Bool {
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var process = pid_t()
        guard posix_spawnp(&process, words[0], nil, nil, &arguments, environ) == 0 else {
            return false
        }
        var status: Int32 = 0
        guard waitpid(process, &status, 0) == process else { return false }
        return status == 0
    }
}
