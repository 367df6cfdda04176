import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ObjectStorage

/// The store over libssh2, on servers that are no part of this program.
@Suite("The SFTP store without ssh", .serialized)
struct DirectSFTPStoreTests {
    // MARK: - The contract

    @Test("It keeps every promise on OpenSSH, logged in with a key")
    func openSSH() throws {
        let server = try sftpServer(.openSSH)
        let store = try server.createdDirectStore()
        #expect(StoreContract.run(store, listedObjects: 120) == [])
    }

    @Test("It keeps every promise on asyncssh, logged in with a password")
    func password() throws {
        let server = try sftpServer(.asyncSSH, "--password", "--drop-extensions", "all")
        let store = try server.createdDirectStore()
        #expect(StoreContract.run(store, listedObjects: 120) == [])
    }

    @Test("What was made on asyncssh is opened there again, and named where it is in the way")
    func openingAgain() throws {
        let server = try sftpServer(.asyncSSH, "--password")
        let store = try server.createdDirectStore("again")
        try store.put([1, 2], at: ObjectKey(validated: "a/b"))
        let opened = try server.openedDirectStore("again")
        #expect(try opened.get(ObjectKey(validated: "a/b")) == [1, 2])
        let taken = try #require(
            #expect(throws: StorageError.self) { try server.createdDirectStore("again") })
        #expect(taken.kind == .exists)
        let missing = try #require(
            #expect(throws: StorageError.self) { try server.openedDirectStore("none") })
        #expect(missing.kind == .notFound)
        writeFile([1], to: server["SFTP_DATA_DIR"] + "/file")
        let file = try #require(
            #expect(throws: StorageError.self) { try server.openedDirectStore("file") })
        #expect(file.kind == .notADirectory)
    }

    @Test("What one way of reaching a server stored the other reads, and lists alike")
    func bothWays() throws {
        let server = try sftpServer(.openSSH)
        let direct = try server.createdDirectStore("both")
        let overSSH = try server.openedStore("both")
        for index in 0..<20 {
            let store: any ObjectStore = index % 2 == 0 ? direct : overSSH
            try store.put(
                [UInt8](repeating: 1, count: index),
                at: ObjectKey(validated: "\(index % 3)/\(index)"))
        }
        // Names that make a server's lines unclear.
        for name in ["with blank", "x", "a b/c"] {
            let path = server["SFTP_DATA_DIR"] + "/both/0/" + name
            if name.contains("/") { makeDirectory(server["SFTP_DATA_DIR"] + "/both/0/a b") }
            writeFile([1, 2, 3], to: path)
        }
        let (a, b) = (try direct.list(prefix: ""), try overSSH.list(prefix: ""))
        #expect(a.map(\.key) == b.map(\.key))
        #expect(a.map(\.length) == b.map(\.length))
        #expect(a.count == 21)
        for object in a { #expect(try direct.get(object.key) == overSSH.get(object.key)) }
    }

    @Test("A listing can begin behind a key")
    func listingAfter() throws {
        let server = try sftpServer(.openSSH)
        let store = try server.createdDirectStore()
        let keys = ["a/1", "a/2", "a-b/1", "b/1/x", "b/2", "c"].map(ObjectKey.init(validated:))
            .sorted()
        for key in keys { try store.put([1], at: key) }
        for (index, key) in keys.enumerated() {
            var found: [ObjectKey] = []
            try store.list(prefix: "", after: key) { object in
                found.append(object.key)
                return true
            }
            #expect(found == Array(keys[(index + 1)...]))
        }
    }

    @Test("A missing directory is said to be missing, and made with its parents")
    func creation() throws {
        let server = try sftpServer(.openSSH)
        let missing = try #require(
            #expect(throws: StorageError.self) { try server.openedDirectStore("a b/ü'\"/c") })
        #expect(missing.kind == .notFound)
        let store = try server.createdDirectStore("a b/ü'\"/c")
        try store.put([1], at: ObjectKey(validated: "x"))
        let taken = try #require(
            #expect(throws: StorageError.self) { try server.createdDirectStore("a b/ü'\"/c") })
        #expect(taken.kind == .exists)
        #expect(
            try server.openedDirectStore("a b/ü'\"/c").list(prefix: "").map(\.key.text) == ["x"])
        writeFile([1], to: server["SFTP_DATA_DIR"] + "/file")
        let file = try #require(
            #expect(throws: StorageError.self) { try server.openedDirectStore("file") })
        #expect(file.kind == .notADirectory)
    }

    @Test("A bundle that nobody wants any more is given up, and a record that follows is stored")
    func cancelled() throws {
        let server = try sftpServer(.openSSH)
        let pacer = CancellingPacer(after: 300_000)
        var options = try server.directOptions()
        options.isCancelled = { pacer.isCancelled }
        let store = try DirectSFTPStore.create(
            at: try server.directLocation("cancelled"), options: options)
        let bundle = try pacer.bundle(of: 1_000_000, for: store)
        let error = try #require(
            #expect(throws: StorageError.self) {
                try store.put(bundle, at: ObjectKey(validated: "bundles/a"))
            })
        #expect(error.cause == "interrupted" && !error.isTransient)
        try store.put([1], at: ObjectKey(validated: "index/a"))
        #expect(try store.list(prefix: "").map(\.key.text) == ["index/a"])
    }

    @Test("What was made for a store can be taken away again where nothing lies in it")
    func takingAway() throws {
        let server = try sftpServer(.openSSH)
        let root = server["SFTP_DATA_DIR"] + "/looked"
        let key = ObjectKey(validated: "a/b")
        let store = try server.createdDirectStore("looked/at/it")
        try store.put([1], at: key)
        store.removeMade()
        #expect(try store.get(key) == [1])
        try store.delete(key)
        store.removeEmptyDirectories(below: "")
        store.removeMade()
        #expect(access(root, F_OK) != 0)
        // Nor is anything removed that was there before.
        makeDirectory(root)
        let second = try server.createdDirectStore("looked/at")
        second.removeMade()
        #expect(access(root + "/at", F_OK) != 0 && access(root, F_OK) == 0)
        let opened = try server.openedDirectStore("looked")
        opened.removeMade()
        #expect(access(root, F_OK) == 0)
    }

    // MARK: - Who answers

    @Test("An unknown host is refused with its fingerprint, accepted when told so, and then known")
    func unknownHost() throws {
        let server = try sftpServer(.openSSH)
        let file = server.state.path("mine/known_hosts")
        func open(accepting accepts: Bool) throws -> DirectSFTPStore {
            try DirectSFTPStore.open(
                at: try server.directLocation(""),
                options: try server.directOptions(knownHosts: file, accepts: accepts))
        }
        let refused = try #require(
            #expect(throws: StorageError.self) { try open(accepting: false) })
        #expect(refused.kind == .untrusted)
        let fingerprint = try #require(server.hostKeyFingerprint)
        #expect(refused.cause.contains(fingerprint))
        #expect(refused.remedy.contains("--accept-new-host-key"))
        #expect(readFile(file) == nil)
        #expect(try open(accepting: true).list(prefix: "") == [])
        #expect(try open(accepting: false).list(prefix: "") == [])
    }

    @Test("A host with another key than before is refused, also where new hosts are accepted")
    func changedHost() throws {
        let (server, other) = (try sftpServer(.openSSH), try sftpServer(.openSSH))
        let line = String(decoding: readFile(other["SFTP_KNOWN_HOSTS"]) ?? [], as: UTF8.self)
        let file = server.state.path("changed")
        let moved = line.replacing(":\(other["SFTP_PORT"]) ", with: ":\(server["SFTP_PORT"]) ")
        writeFile(Array(moved.utf8), to: file)
        for accepts in [false, true] {
            let error = try #require(
                #expect(throws: StorageError.self) {
                    try DirectSFTPStore.open(
                        at: try server.directLocation(""),
                        options: try server.directOptions(knownHosts: file, accepts: accepts))
                })
            #expect(error.kind == .untrusted)
            #expect(error.remedy.contains("ssh-keygen -R"))
            #expect(readFile(file) == Array(moved.utf8))
        }
    }

    @Test("An RSA line before the right one does not make the host unreachable")
    func rsaLineFirst() throws {
        let server = try sftpServer(.openSSH)
        let known = String(decoding: readFile(server["SFTP_KNOWN_HOSTS"]) ?? [], as: UTF8.self)
        let name = known.prefix { $0 != " " }
        let file = server.state.path("rsa")
        writeFile(
            Array("\(name) ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQc=\n\(known)".utf8), to: file)
        let store = try DirectSFTPStore.open(
            at: try server.directLocation(""),
            options: try server.directOptions(knownHosts: file))
        #expect(try store.list(prefix: "") == [])
    }

    @Test("A wrong password is a matter of rights, and is not shown")
    func wrongPassword() throws {
        let server = try sftpServer(.asyncSSH, "--password")
        var options = try server.directOptions()
        options.password = "not the right one"
        let error = try #require(
            #expect(throws: StorageError.self) {
                try DirectSFTPStore.open(at: try server.directLocation(""), options: options)
            })
        #expect(error.kind == .denied)
        #expect(!error.isTransient)
        #expect(!"\(error) \(error.remedy)".contains("not the right one"))
    }

    // MARK: - Failures

    @Test("A server that is not there may be there later")
    func nobodyListens() throws {
        let server = try sftpServer(.openSSH)
        server.stop()
        let error = try #require(
            #expect(throws: StorageError.self) { try server.openedDirectStore("") })
        #expect(error.kind == .unavailable)
        #expect(error.isTransient)
    }

    @Test("A full disk is said to be full")
    func fullDisk() throws {
        let server = try sftpServer(.openSSH, "--mode", "full", "--size", "4m")
        let store = try server.createdDirectStore()
        let error = try #require(
            #expect(throws: StorageError.self) {
                try store.put(
                    [UInt8](repeating: 2, count: 8 << 20), at: ObjectKey(validated: "large"))
            })
        #expect(error.kind == .noSpace)
        #expect(try store.list(prefix: "") == [])
        try store.put([UInt8](repeating: 1, count: 1 << 20), at: ObjectKey(validated: "small"))
    }

    @Test(
        "A transfer whose line breaks is made again",
        arguments: ["drop-once=3000000", "read-drop-once=2000000"])
    func brokenLine(fault: String) throws {
        let server = try sftpServer(.asyncSSH, "--password")
        let traffic = TrafficCounter()
        let store = try server.createdDirectStore(traffic: traffic)
        server.tell("faults", fault)
        var generator = SeededGenerator(seed: 1)
        let bytes = generator.bytes(6_000_000)
        try store.put(bytes, at: ObjectKey(validated: "a/b"))
        #expect(try store.get(ObjectKey(validated: "a/b")) == bytes)
        #expect(server.firedFaults.count == 1)
        #expect(traffic.now.retries == 1)
        #expect(treeContents(server["SFTP_DATA_DIR"] + "/\(#function)/+tmp") == [])
    }

    @Test("A line that falls silent is given up")
    func stalledLine() throws {
        let server = try sftpServer(.asyncSSH, "--password", "--fault", "stall-once=1000000")
        let store = try server.createdDirectStore(stallSeconds: 2)
        let bytes = [UInt8](repeating: 7, count: 3_000_000)
        let error = try #require(
            #expect(throws: StorageError.self) {
                try store.put(bytes, at: ObjectKey(validated: "a/b"))
            })
        #expect(error.kind == .unavailable)
        #expect(error.isTransient)
        #expect(server.firedFaults == ["stall-once"])
        try store.put(bytes, at: ObjectKey(validated: "a/b"))
        #expect(try store.get(ObjectKey(validated: "a/b")) == bytes)
    }

    // MARK: - Lines of a listing

    @Test(
        "A line of the usual columns tells kind, length and name",
        arguments: [
            ("-rw-r--r--    1 root     root         5000 Nov 26 20:22 name", "-", 5000, "name"),
            ("drwx------+ 2 0 0 40 Jan  1  1970 a-b.c", "d", 40, "a-b.c"),
        ])
    func clearLine(line: String, kind: Character, length: Int, name: String) throws {
        let columns = try #require(DirectSFTPListing.columns(of: Array(line.utf8)))
        #expect(columns.kind == kind.asciiValue)
        #expect(columns.length == length)
        #expect(columns.name == Array(name.utf8))
    }

    @Test(
        "Any other line is unclear",
        arguments: [
            "", "name", "-rw-r--r-- 1 root root 5 Nov 26 20:22 two words",
            "-rw-r--r-- 1 domain users root 5 Nov 26 20:22 name",
            "lrwxrwxrwx 1 root root 4 Nov 26 21:07 link",
            "-rw-r--r-- 1 root root -5 Nov 26 20:22 n",
            "-rw-r--r-- 1 root root x Nov 26 20:22 n", "-rw 1 root root 5 Nov 26 20:22 n",
        ])
    func unclearLine(line: String) {
        #expect(DirectSFTPListing.columns(of: Array(line.utf8)) == nil)
    }
}

extension TestServer {
    func directLocation(_ name: String) throws -> SFTPLocation {
        let root = self["SFTP_PATH"] == "/" ? "" : self["SFTP_PATH"]
        return try SFTPLocation(
            "sftp://\(self["SFTP_USER"])@\(self["SFTP_HOST"]):\(self["SFTP_PORT"])"
                + percentEncodedPath("\(root)/\(name)"))
    }

    func directOptions(
        knownHosts: String? = nil, accepts: Bool = false,
        traffic: TrafficCounter = TrafficCounter(),
        stallSeconds: Int = 60
    ) throws -> DirectSFTPStore.Options {
        var options = DirectSFTPStore.Options(
            user: "nobody", knownHostsFiles: [knownHosts ?? self["SFTP_KNOWN_HOSTS"]])
        if let file = environment["SFTP_PASSWORD_FILE"] {
            options.password = String(decoding: (readFile(file) ?? []).dropLast(), as: UTF8.self)
        } else {
            options.privateKeyFile = self["SFTP_KEY_FILE"]
        }
        options.acceptsNewHostKey = accepts
        options.spoolDirectory = state.path
        options.stallSeconds = stallSeconds
        options.traffic = traffic
        return options
    }

    func createdDirectStore(
        _ name: String = #function, traffic: TrafficCounter = TrafficCounter(),
        stallSeconds: Int = 60
    ) throws -> DirectSFTPStore {
        try DirectSFTPStore.create(
            at: try directLocation(name),
            options: try directOptions(traffic: traffic, stallSeconds: stallSeconds))
    }

    func openedDirectStore(_ name: String) throws -> DirectSFTPStore {
        try DirectSFTPStore.open(at: try directLocation(name), options: try directOptions())
    }

    /// What `ssh-keygen -l` would show of the host's key.
    var hostKeyFingerprint: String? {
        let line = String(decoding: readFile(self["SFTP_KNOWN_HOSTS"]) ?? [], as: UTF8.self)
        guard let key = line.split(whereSeparator: \.isWhitespace).last else { return nil }
        return KnownHosts.fingerprint(of: KnownHostsTests.key(String(key)))
    }
}
