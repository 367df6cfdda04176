import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ObjectStorage

/// The store over the system's ssh, on servers that are no part of this program.
@Suite("The SFTP store on real servers", .serialized)
struct SFTPStoreTests {
    // MARK: - The contract

    @Test("It keeps every promise on OpenSSH")
    func openSSH() throws {
        let server = try plainServer()
        #expect(StoreContract.run(try server.createdStore()) == [])
    }

    @Test("It keeps every promise in the jail of a dedicated user")
    func jail() throws {
        let server = try sftpServer(.openSSH, "--mode", "chroot")
        #expect(StoreContract.run(try server.createdStore(), listedObjects: 100) == [])
    }

    @Test(
        "It keeps every promise where OpenSSH refuses requests",
        arguments: ["posix-rename,fsync", "statvfs,limits,fsync", "posix-rename,hardlink,lsetstat"])
    func deniedRequests(requests: String) throws {
        let server = try sftpServer(.openSSH, "--deny", requests)
        #expect(StoreContract.run(try server.createdStore(), listedObjects: 100) == [])
    }

    @Test("It keeps every promise while keys are exchanged anew")
    func rekeying() throws {
        let server = try sftpServer(.openSSH, "--config", "RekeyLimit 1M")
        #expect(StoreContract.run(try server.createdStore(), listedObjects: 100) == [])
    }

    @Test("It keeps every promise on asyncssh")
    func asyncSSH() throws {
        let server = try sftpServer(.asyncSSH)
        #expect(StoreContract.run(try server.createdStore()) == [])
    }

    @Test("It keeps every promise on a server without extensions that reads short")
    func bareAsyncSSH() throws {
        let server = try sftpServer(
            .asyncSSH, "--drop-extensions", "all", "--fault", "short-read=1")
        #expect(StoreContract.run(try server.createdStore(), listedObjects: 100) == [])
        #expect(server.firedFaults == ["short-read"])
    }

    @Test("A server that is slow to write has written all of an object before it is published")
    func slowWrites() throws {
        let server = try sftpServer(.asyncSSH, "--fault", "slow=30")
        let store = try server.createdStore()
        var generator = SeededGenerator(seed: 2)
        let bytes = generator.bytes(3_000_000)
        try store.put(bytes, at: ObjectKey(validated: "a/b"))
        #expect(try store.get(ObjectKey(validated: "a/b")) == bytes)
        #expect(server.firedFaults == ["slow"])
    }

    @Test("Two clients that put the same keys at once both succeed")
    func twoClients() throws {
        let server = try plainServer()
        let stores = [try server.createdStore(), try server.openedStore()]
        let failures = Mutex<[String]>([])
        runOnThreads(8) { worker in
            for index in 0..<10 {
                let bytes = [UInt8](repeating: UInt8(index), count: 20_000)
                do {
                    try stores[worker % 2].put(bytes, at: ObjectKey(validated: "same/\(index)"))
                } catch {
                    failures.withLock { $0.append("\(error)") }
                }
            }
        }
        #expect(failures.withLock { $0 } == [])
        #expect(try stores[0].list(prefix: "").count == 10)
    }

    @Test("Of puts of different lengths at one key OpenSSH lets exactly one win")
    func racingLengths() throws {
        let server = try plainServer()
        let store = try server.createdStore()
        for round in 0..<5 {
            let key = ObjectKey(validated: "race/\(round)")
            let winners = Mutex<[Int]>([])
            runOnThreads(6) { worker in
                let bytes = [UInt8](repeating: 1, count: 1_000 + worker)
                if (try? store.put(bytes, at: key)) != nil {
                    winners.withLock { $0.append(worker) }
                }
            }
            #expect(winners.withLock { $0.count } == 1)
            #expect(try store.get(key).count == 1_000 + (winners.withLock { $0.first } ?? 0))
        }
    }

    // MARK: - Opening and making

    @Test("A missing directory is said to be missing, and made with its parents")
    func creation() throws {
        let server = try plainServer()
        let missing = try #require(
            #expect(throws: StorageError.self) { try server.openedStore("a b/ü/c") })
        #expect(missing.kind == .notFound)
        let store = try server.createdStore("a b/ü/c")
        try store.put([1], at: ObjectKey(validated: "x"))
        let taken = try #require(
            #expect(throws: StorageError.self) { try server.createdStore("a b/ü/c") })
        #expect(taken.kind == .exists)
        #expect(taken.cause.contains("x lies in it"))
        #expect(try server.openedStore("a b/ü/c").list(prefix: "").map(\.key.text) == ["x"])
    }

    @Test("What was made for a store can be taken away again where nothing lies in it")
    func takingAway() throws {
        let server = try plainServer()
        let root = server["SFTP_DATA_DIR"] + "/looked"
        let key = ObjectKey(validated: "a/b")
        let store = try server.createdStore("looked/at/it")
        try store.put([1], at: key)
        store.removeMade()
        #expect(try store.get(key) == [1])
        try store.delete(key)
        store.removeEmptyDirectories(below: "")
        store.removeMade()
        #expect(access(root, F_OK) != 0)
        // Nor is anything removed that was there before.
        makeDirectory(root)
        let second = try server.createdStore("looked/at")
        second.removeMade()
        #expect(access(root + "/at", F_OK) != 0 && access(root, F_OK) == 0)
        let opened = try server.openedStore("looked")
        opened.removeMade()
        #expect(access(root, F_OK) == 0)
    }

    @Test("A file where the store should be is no store")
    func fileAsStore() throws {
        let server = try plainServer()
        writeFile([1], to: server["SFTP_DATA_DIR"] + "/file")
        for attempt in [server.openedStore, server.createdStore] {
            let error = try #require(
                #expect(throws: StorageError.self) { try attempt("file") })
            #expect(error.kind == .notADirectory)
        }
    }

    @Test("Objects and directories are for their owner, or for the group where the store is")
    func permissions() throws {
        let server = try plainServer()
        let path = server["SFTP_DATA_DIR"] + "/\(#function)"
        for (mode, directory, file) in [(0o700, 0o700, 0o600), (0o770, 0o750, 0o640)] {
            removeTree(path)
            makeDirectory(path)
            #expect(chmod(path, mode_t(mode)) == 0)
            try server.openedStore().put([1], at: ObjectKey(validated: "a/b"))
            var status = stat()
            #expect(lstat("\(path)/a", &status) == 0 && status.st_mode & 0o777 == directory)
            #expect(lstat("\(path)/a/b", &status) == 0 && status.st_mode & 0o777 == file)
        }
    }

    @Test("What dead processes left is removed, and nothing else")
    func leftovers() throws {
        let server = try plainServer()
        let store = try server.createdStore()
        try store.put([1], at: ObjectKey(validated: "a"))
        let name = SFTPTemporaries.newName()
        let parts = name.split(separator: "-")
        let directory = server["SFTP_DATA_DIR"] + "/\(#function)/"
        let foreign = "+tmp/sftp-0123456789abcdef-1-1-1"
        // This process lives; its number with another time of starting is somebody who is dead.
        let dead = "\(parts[0])-\(parts[1])-\(parts[2])-1-77"
        for left in [name, dead, foreign, foreign + "0", "+tmp/other"] {
            writeFile([1], to: directory + left)
        }
        var old = utimbuf(actime: 1_000_000_000, modtime: 1_000_000_000)
        for left in [foreign + "0", "+tmp/other"] { #expect(utime(directory + left, &old) == 0) }
        try store.put(
            [UInt8](repeating: 1, count: SFTPStore.transferBytes), at: ObjectKey(validated: "b"))
        // The removals were not awaited; the next answer comes after them.
        _ = try store.head(ObjectKey(validated: "b"))
        let there = treeContents(directory + "+tmp").map { "+tmp/\($0)" }
        #expect(there == [name, foreign, "+tmp/other"].sorted())
    }

    // MARK: - Failures

    @Test("A full disk is said to be full, and leaves room as it was")
    func fullDisk() throws {
        let server = try sftpServer(.openSSH, "--mode", "full", "--size", "4m")
        let store = try server.createdStore()
        try store.put([UInt8](repeating: 1, count: 1 << 20), at: ObjectKey(validated: "small"))
        let large = [UInt8](repeating: 2, count: 8 << 20)
        for _ in 0..<2 {
            let error = try #require(
                #expect(throws: StorageError.self) {
                    try store.put(large, at: ObjectKey(validated: "large"))
                })
            #expect(error.kind == .noSpace)
            #expect(!error.isTransient)
        }
        #expect(try store.list(prefix: "").map(\.key.text) == ["small"])
        try store.put([UInt8](repeating: 1, count: 2 << 20), at: ObjectKey(validated: "next"))
    }

    @Test("A server that lets nothing be written can be read")
    func readOnly() throws {
        let writable = try plainServer()
        let bytes = [UInt8](repeating: 3, count: 70_000)
        try writable.createdStore().put(bytes, at: ObjectKey(validated: "a/b"))
        let server = try sftpServer(
            .openSSH, "--mode", "readonly", "--data", writable["SFTP_DATA_DIR"])
        let store = try server.openedStore()
        #expect(try store.get(ObjectKey(validated: "a/b")) == bytes)
        let error = try #require(
            #expect(throws: StorageError.self) { try store.put([1], at: ObjectKey(validated: "c")) }
        )
        #expect(error.kind == .denied)
        #expect(try store.list(prefix: "").count == 1)
    }

    @Test("The words of a server say what kind of failure it was")
    func faults() throws {
        let server = try sftpServer(.asyncSSH)
        let store = try server.createdStore()
        for (fault, kind) in [
            ("enospc-after=100000", StorageError.Kind.noSpace), ("eio-every=2", .io),
        ] {
            server.tell("faults", fault)
            let error = try #require(
                #expect(throws: StorageError.self) {
                    try store.put(
                        [UInt8](repeating: 1, count: 500_000), at: ObjectKey(validated: "a/b"))
                })
            #expect(error.kind == kind)
            #expect(server.firedFaults.count == 1)
        }
        server.tell("faults")
        #expect(try store.list(prefix: "") == [])
        #expect(treeContents(server["SFTP_DATA_DIR"] + "/\(#function)/+tmp") == [])
    }

    @Test(
        "A transfer whose line breaks is made again",
        arguments: ["drop-once=3000000", "read-drop-once=2000000"])
    func brokenLine(fault: String) throws {
        let server = try sftpServer(.asyncSSH)
        let traffic = TrafficCounter()
        let store = try server.createdStore(traffic: traffic)
        server.tell("faults", fault)
        var generator = SeededGenerator(seed: 1)
        let bytes = generator.bytes(6_000_000)
        try store.put(bytes, at: ObjectKey(validated: "a/b"))
        #expect(try store.get(ObjectKey(validated: "a/b")) == bytes)
        #expect(server.firedFaults.count == 1)
        #expect(traffic.now.retries == 1)
    }

    @Test("A line that falls silent is given up, and the transfer made again")
    func stalledLine() throws {
        let server = try sftpServer(.asyncSSH, "--fault", "stall-once=1000000")
        let store = try server.createdStore(stallSeconds: 2)
        let bytes = [UInt8](repeating: 7, count: 3_000_000)
        try store.put(bytes, at: ObjectKey(validated: "a/b"))
        #expect(try store.get(ObjectKey(validated: "a/b")) == bytes)
        #expect(server.firedFaults == ["stall-once"])
    }

    @Test("A store whose ssh was killed dials again")
    func killedConnection() throws {
        let server = try plainServer()
        let store = try server.createdStore()
        try store.put([1], at: ObjectKey(validated: "a"))
        #expect(killSessions(of: server) > 0)
        #expect(try store.get(ObjectKey(validated: "a")) == [1])
    }

    @Test("A server that refuses connections which begin is dialled again after a moment")
    func refusedAtFirst() throws {
        let server = try sftpServer(.asyncSSH, "--fault", "refuse=2")
        let store = try server.createdStore()
        #expect(try store.list(prefix: "") == [])
        #expect(server.firedFaults == ["refuse"])
    }

    @Test("Many threads get along with a server that takes two connections that begin")
    func fewStartups() throws {
        let server = try sftpServer(.openSSH, "--config", "MaxStartups 1:100:1")
        let store = try server.createdStore()
        let failures = Mutex<[String]>([])
        runOnThreads(8) { worker in
            do {
                try store.put(
                    [UInt8](repeating: 1, count: 2 << 20), at: ObjectKey(validated: "\(worker)"))
            } catch {
                failures.withLock { $0.append("\(error)") }
            }
        }
        #expect(failures.withLock { $0 } == [])
    }

    // MARK: - What ssh says

    @Test("An unknown host is not trusted, and the message says what to do")
    func unknownHost() throws {
        let server = try plainServer()
        let error = try #require(
            #expect(throws: StorageError.self) {
                try server.openedStore("", ssh: "-o UserKnownHostsFile=/dev/null")
            })
        #expect(error.kind == .untrusted)
        #expect(error.remedy.contains("fingerprint"))
    }

    @Test("A host with another key than before is not trusted")
    func changedHost() throws {
        let server = try plainServer()
        let other = try sftpServer(.openSSH)
        let lines = String(decoding: readFile(other["SFTP_KNOWN_HOSTS"]) ?? [], as: UTF8.self)
        let moved = lines.split(separator: " ").dropFirst()
            .reduce("[127.0.0.1]:\(server["SFTP_PORT"])") { "\($0) \($1)" }
        let file = server.state.path("other_hosts")
        writeFile(Array(moved.utf8), to: file)
        let error = try #require(
            #expect(throws: StorageError.self) {
                try server.openedStore("", ssh: "-o UserKnownHostsFile=\(file)")
            })
        #expect(error.kind == .untrusted)
        #expect(error.remedy.contains("ssh-keygen -R"))
    }

    @Test("A key that the server does not take is a matter of rights")
    func refusedKey() throws {
        let server = try plainServer()
        let error = try #require(
            #expect(throws: StorageError.self) {
                try server.openedStore("", ssh: "-o PubkeyAuthentication=no")
            })
        #expect(error.kind == .denied)
        #expect(!error.isTransient)
    }

    @Test("A server without SFTP is said to have none")
    func noSubsystem() throws {
        let server = try plainServer()
        let error = try #require(
            #expect(throws: StorageError.self) {
                try server.openedStore("", ssh: "", subsystem: false)
            })
        #expect(error.kind == .unsupported)
    }

    @Test("A server that is not there may be there later")
    func nobodyListens() throws {
        let server = try sftpServer(.openSSH)
        server.stop()
        let error = try #require(
            #expect(throws: StorageError.self) { try server.openedStore("") })
        #expect(error.kind == .unavailable)
        #expect(error.isTransient)
        #expect(error.cause.contains("Connection refused"))
    }

    @Test(
        "A name that is not found may be found later",
        arguments: ["Name or service not known", "Temporary failure in name resolution"])
    func unknownName(words: String) {
        let line = "ssh: Could not resolve hostname nas.invalid: \(words)"
        for wasConnected in [false, true] {
            let failure = SSHFailure.ended(
                saying: [line], exitCode: 255, wasConnected: wasConnected)
            #expect(failure.kind == .unavailable && failure.isTransient)
            #expect(failure.cause == line)
        }
    }

    @Test("An ssh command that does not exist is named")
    func noProgram() throws {
        var options = SFTPStore.Options()
        options.command = try SSHCommand("/nowhere/ssh -v")
        let error = #expect(throws: StorageError.self) {
            try SFTPStore.open(at: SFTPLocation("sftp://host/x"), options: options)
        }
        #expect(error?.cause == "cannot start /nowhere/ssh: No such file or directory")
        #expect(error?.isTransient == false)
    }

    @Test("A login script that prints is found out")
    func talkativeLogin() throws {
        var options = SFTPStore.Options()
        // What stands in front of the subsystem is what a login script would have printed.
        options.command = try SSHCommand("sh -c 'echo Welcome to the server; cat > /dev/null' ssh")
        let error = #expect(throws: StorageError.self) {
            try SFTPStore.open(at: SFTPLocation("sftp://host/x"), options: options)
        }
        #expect(error?.cause.contains("\"Welcome to the server\"") == true)
    }

    // MARK: - Sums computed by the server

    @Test("The server computes digests, whatever the path of the store")
    func digests() throws {
        let server = try plainServer()
        let store = try server.createdStore("it's a 'store'", hashesRemotely: true)
        #expect(store.capabilities.remoteDigests)
        var expected: [ObjectKey: [UInt8]] = [:]
        for index in 0..<30 {
            let key = ObjectKey(validated: index == 0 ? "-n" : "bundles/\(index % 3)/\(index)")
            let bytes = [UInt8](repeating: UInt8(index), count: index * 100)
            try store.put(bytes, at: key)
            expected[key] = sha256(bytes)
        }
        var found: [ObjectKey: [UInt8]] = [:]
        let asked = expected.keys.sorted() + [ObjectKey(validated: "missing")]
        try store.digests(of: asked) { key, digest in
            found[key] = digest
            return true
        }
        #expect(found == expected)
        var count = 0
        try store.digests(of: asked) { _, _ in
            count += 1
            return count < 3
        }
        #expect(count == 3)
    }

    @Test("An object that cannot be read does not pass for a missing one")
    func unreadableObject() throws {
        let server = try plainServer()
        let store = try server.createdStore(hashesRemotely: true)
        try store.put([1], at: ObjectKey(validated: "good"))
        makeDirectory(server["SFTP_DATA_DIR"] + "/\(#function)/bad")
        let error = try #require(
            #expect(throws: StorageError.self) {
                try store.digests(of: ["bad", "good"].map(ObjectKey.init(validated:))) { _, _ in
                    true
                }
            })
        #expect(error.kind == .io)
    }

    @Test("An account without a shell cannot compute, and the message says so")
    func noShell() throws {
        let server = try sftpServer(.openSSH, "--mode", "sftp-only")
        let store = try server.createdStore(hashesRemotely: true)
        try store.put([1], at: ObjectKey(validated: "a"))
        let error = try #require(
            #expect(throws: StorageError.self) {
                try store.digests(of: [ObjectKey(validated: "a")]) { _, _ in true }
            })
        #expect(error.kind == .unsupported)
        #expect(error.remedy.contains("--remote-hash"))
    }

    @Test("Nothing is run on the server where that was not allowed")
    func notAllowed() throws {
        let server = try plainServer()
        let store = try server.createdStore()
        #expect(!store.capabilities.remoteDigests)
        #expect(throws: StorageError.self) { try store.digests(of: []) { _, _ in true } }
    }
}

/// A server for one test; where this machine cannot have it, the test ends and says why.
func sftpServer(_ kind: TestServer.Kind, _ options: String...) throws -> TestServer {
    do {
        return try TestServer(kind, options)
    } catch let lack as TestServer.Unavailable {
        try Test.cancel("\(lack)")
    }
}

/// An OpenSSH server that tests share which do not stop it, each in a directory of its own.
private func plainServer() throws -> TestServer {
    do {
        return try sharedServer.get()
    } catch let lack as TestServer.Unavailable {
        try Test.cancel("\(lack)")
    }
}

private let sharedServer = Result { try TestServer(.openSSH) }

extension TestServer {
    /// The store `name` on this server, made.
    func createdStore(
        _ name: String = #function, traffic: TrafficCounter = TrafficCounter(),
        stallSeconds: Int = 60, hashesRemotely: Bool = false
    ) throws -> SFTPStore {
        try SFTPStore.create(
            at: try location(name),
            options: try options(
                traffic: traffic, stallSeconds: stallSeconds, hashesRemotely: hashesRemotely))
    }

    fileprivate func createdStore(_ name: String) throws -> SFTPStore {
        try createdStore(name, traffic: TrafficCounter())
    }

    /// The store `name` on this server, which is there.
    func openedStore(_ name: String = #function) throws -> SFTPStore {
        try SFTPStore.open(at: try location(name), options: try options())
    }

    /// The same with further words for ssh.
    func openedStore(
        _ name: String, ssh words: String, subsystem: Bool = true
    ) throws -> SFTPStore {
        var options = try options()
        let config = self["SFTP_SSH_CONFIG"]
        options.command = try SSHCommand(
            subsystem
                ? "ssh \(words) -F \(config)"
                // The name of the subsystem is the last word, which a shell can leave out.
                : #"sh -c 'exec ssh -F \#(config) -s store nothing' ssh"#)
        return try SFTPStore.open(at: try location(name), options: options)
    }

    private func location(_ name: String) throws -> SFTPLocation {
        let root = self["SFTP_PATH"] == "/" ? "" : self["SFTP_PATH"]
        return try SFTPLocation("sftp://store" + percentEncodedPath("\(root)/\(name)"))
    }

    private func options(
        traffic: TrafficCounter = TrafficCounter(), stallSeconds: Int = 60,
        hashesRemotely: Bool = false
    ) throws -> SFTPStore.Options {
        var options = SFTPStore.Options()
        options.command = try SSHCommand("ssh -F \(self["SFTP_SSH_CONFIG"])")
        options.traffic = traffic
        options.stallSeconds = stallSeconds
        options.hashesRemotely = hashesRemotely
        options.spoolDirectory = state.path
        return options
    }

    /// Names of the faults that have happened at least once.
    var firedFaults: [String] {
        tell("fired").compactMap { line in
            let parts = line.split(separator: "\t")
            return parts.count == 2 && parts[0] != "0" ? String(parts[1]) : nil
        }.sorted()
    }
}

/// A path as an address holds it.
func percentEncodedPath(_ path: String) -> String {
    path.utf8.reduce(into: "") { text, byte in
        let isPlain = byte > 0x20 && byte < 0x7F && byte != UInt8(ascii: "%")
        text += isPlain ? String(UnicodeScalar(byte)) : "%" + String(byte, radix: 16)
    }
}

/// Kills the ssh processes that this process has started for a server; gives their number.
private func killSessions(of server: TestServer) -> Int {
    var killed = 0
    for process in directories(in: "/proc") {
        guard let number = pid_t(process),
            let status = readProcess("/proc/\(process)/stat"),
            let close = status.lastIndex(of: ")"),
            status[close...].split(separator: " ").dropFirst(2).first == "\(getpid())",
            let words = readProcess("/proc/\(process)/cmdline"),
            words.contains(server["SFTP_SSH_CONFIG"])
        else { continue }
        kill(number, SIGKILL)
        killed += 1
    }
    return killed
}

private func directories(in path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        names.append(
            withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            })
    }
    return names
}

private func readProcess(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var buffer = [UInt8](repeating: 0, count: 8192)
    return String(decoding: buffer[..<fread(&buffer, 1, buffer.count, file)], as: UTF8.self)
}
