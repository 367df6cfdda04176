import Synchronization
import TestSupport
import Testing
import Transfer

@testable import ObjectStorage

@Suite("SFTP over one connection")
struct SFTPConnectionTests {
    typealias Behaviour = SFTPServerDouble.Behaviour

    @Test("Answers in any order reach whoever asked", arguments: 0..<4)
    func shuffled(seed: UInt64) throws {
        var behaviour = Behaviour()
        behaviour.shufflesAnswers = seed
        let server = SFTPServerDouble(behaviour)
        #expect(StoreContract.run(try server.store(), listedObjects: 150) == [])
        #expect(server.openHandles <= 0, "handles are left open")
    }

    @Test("Another server than OpenSSH, with all extensions, keeps the contract")
    func other() throws {
        var behaviour = Behaviour()
        behaviour.extensions.removeAll { $0 == "expand-path@openssh.com" }
        let server = SFTPServerDouble(behaviour)
        #expect(StoreContract.run(try server.store(), listedObjects: 150) == [])
    }

    @Test("A server without extensions is enough")
    func plain() throws {
        var behaviour = Behaviour()
        behaviour.extensions = []
        let server = SFTPServerDouble(behaviour)
        #expect(StoreContract.run(try server.store(), listedObjects: 150) == [])
        #expect(server.requests(SFTPKind.extended) == 0)
    }

    @Test("A server whose rename replaces keeps the contract all the same")
    func replacingRename() throws {
        var behaviour = Behaviour()
        behaviour.extensions = ["posix-rename@openssh.com", "statvfs@openssh.com"]
        behaviour.renameReplaces = true
        let server = SFTPServerDouble(behaviour)
        #expect(StoreContract.run(try server.store(), listedObjects: 150) == [])
    }

    @Test("Short reads and bare names are filled up")
    func shortReads() throws {
        var behaviour = Behaviour()
        behaviour.readBytes = 1_001
        behaviour.listsBareNames = true
        let server = SFTPServerDouble(behaviour)
        #expect(StoreContract.run(try server.store(), listedObjects: 150) == [])
    }

    @Test(
        "Limits are kept to", arguments: [[34_000, 0, 0, 0], [0, 5_000, 3_000, 0], [0, 0, 0, 0]])
    func limits(limits: [UInt64]) throws {
        var behaviour = Behaviour()
        behaviour.limits = limits
        let server = SFTPServerDouble(behaviour)
        let store = try server.store()
        let bytes = [UInt8](repeating: 7, count: 300_000)
        for key in ["first", "second"] {
            try store.put(bytes, at: ObjectKey(validated: key))
            #expect(try store.get(ObjectKey(validated: key)) == bytes)
        }
    }

    @Test("A listing that is told to stop leaves no directory open on the server")
    func stoppedListing() throws {
        let server = SFTPServerDouble()
        let store = try server.store(limit: 1)
        for index in 0..<90 {
            try store.put([1], at: ObjectKey(validated: "many/\(index)/object"))
        }
        try store.list(prefix: "") { _ in false }
        // The handles are closed without waiting; the next answer comes after that.
        _ = try store.head(ObjectKey(validated: "none"))
        #expect(server.openHandles == 0)
    }

    @Test("Hundreds of directories are read side by side, and not all at once")
    func manyDirectories() throws {
        let server = SFTPServerDouble()
        let store = try server.store(limit: 1)
        server.plant(directory: "/store/bundles")
        for index in 0..<256 {
            server.plant(directory: "/store/bundles/\(index)")
            server.plant(file: "/store/bundles/\(index)/a", [1, 2, 3])
        }
        #expect(try store.list(prefix: "").count == 256)
        #expect((2...64).contains(server.mostOpenHandles))
        #expect(server.dialledConnections == 1)
    }

    @Test("A symbolic link in the store is an error, not an omission")
    func link() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        server.plant(link: "/store/bundles")
        #expect(throws: StorageError.self) { try store.list(prefix: "") }
    }

    @Test("Names that are no keys are not listed")
    func foreignNames() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        for name in ["a b", "+tmp-x", "ü", "line\nbreak", "ok"] {
            server.plant(file: "/store/\(name)", [1])
        }
        #expect(try store.list(prefix: "").map(\.key.text) == ["ok"])
    }

    @Test(
        "A bundle that nobody wants any more is given up, and a record that follows is stored",
        arguments: [300_000, 1_000_000])
    func cancelled(after bytes: Int) throws {
        let server = SFTPServerDouble()
        let pacer = CancellingPacer(after: bytes)
        let store = try server.store(isCancelled: { pacer.isCancelled })
        // Where all has been sent, one piece is never confirmed.
        if bytes == 1_000_000 { server.plan(.silence, for: SFTPKind.write) }
        let bundle = try pacer.bundle(of: 1_000_000, for: store)
        let error = try #require(
            #expect(throws: StorageError.self) {
                try store.put(bundle, at: ObjectKey(validated: "bundles/a"))
            })
        #expect(error.cause == "interrupted" && !error.isTransient)
        try store.put([1], at: ObjectKey(validated: "index/a"))
        #expect(try store.get(ObjectKey(validated: "index/a")) == [1])
        #expect(
            !server.paths.contains {
                $0.hasPrefix("/store/+tmp/") || $0.hasPrefix("/store/bundles")
            })
    }

    // MARK: - Lost connections

    /// Every kind of request that a put makes.
    static let kindsOfPut: [UInt8] = [
        SFTPKind.lstat, SFTPKind.open, SFTPKind.write, SFTPKind.extended, SFTPKind.close,
        SFTPKind.rename,
    ]

    @Test(
        "A put whose connection is lost is repeated and stores the object once",
        arguments: kindsOfPut, [true, false])
    func lostDuringPut(kind: UInt8, effect: Bool) throws {
        try lose(kind, effect, Behaviour())
    }

    @Test(
        "A put whose connection is lost is repeated on a server without extensions",
        arguments: kindsOfPut.filter { $0 != SFTPKind.extended }, [true, false])
    func lostDuringPlainPut(kind: UInt8, effect: Bool) throws {
        var behaviour = Behaviour()
        behaviour.extensions = []
        behaviour.renameReplaces = true
        try lose(kind, effect, behaviour)
    }

    private func lose(_ kind: UInt8, _ effect: Bool, _ behaviour: Behaviour) throws {
        let server = SFTPServerDouble(behaviour)
        let traffic = TrafficCounter()
        let store = try server.store(traffic: traffic)
        let bytes = [UInt8](repeating: 3, count: 700_000)
        // The one before makes the directories and takes the limits.
        try store.put([1], at: ObjectKey(validated: "a/before"))
        // Its handle is closed without waiting for the answer, and the fault is not meant for that:
        // the next answer comes after it.
        _ = try store.head(ObjectKey(validated: "a/before"))
        server.plan(effect ? .cutAfter : .cutBefore, for: kind)
        try store.put(bytes, at: ObjectKey(validated: "a/object"))
        #expect(server.firedFaults == 1)
        #expect(traffic.now.retries == 1)
        #expect(try store.get(ObjectKey(validated: "a/object")) == bytes)
        // What the first attempt left goes with the next put.
        try store.put([1], at: ObjectKey(validated: "a/after"))
        _ = try store.head(ObjectKey(validated: "a/after"))
        #expect(server.paths.filter { $0.contains("+tmp/") } == [])
    }

    @Test("A connection that is lost twice in a row is a passing failure")
    func lostTwice() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        server.plan(.cutBefore, for: SFTPKind.lstat)
        server.plan(.cutBefore, for: SFTPKind.lstat)
        let error = #expect(throws: StorageError.self) {
            try store.head(ObjectKey(validated: "a"))
        }
        #expect(error?.kind == .unavailable)
        #expect(error?.isTransient == true)
        #expect(server.firedFaults == 2)
        #expect(try store.head(ObjectKey(validated: "a")) == nil)
    }

    @Test("A listing whose connection is lost goes on where it was")
    func lostListing() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        for index in 0..<300 {
            try store.put([1], at: ObjectKey(validated: "many/\(index % 100)/\(index)"))
        }
        server.plan(.cutBefore, for: SFTPKind.readdir, after: 150)
        var keys: [ObjectKey] = []
        try store.list(prefix: "") { object in
            keys.append(object.key)
            return true
        }
        #expect(server.firedFaults == 1)
        #expect(keys.count == 300)
        #expect(keys == keys.sorted())
    }

    @Test("An answer that never comes ends the connection")
    func silence() throws {
        let server = SFTPServerDouble()
        let store = try server.store(stallSeconds: 1)
        server.plan(.silence, for: SFTPKind.lstat)
        // The second attempt is answered.
        #expect(try store.head(ObjectKey(validated: "a")) == nil)
        #expect(server.firedFaults == 1)
        #expect(server.dialledConnections == 2)
    }

    @Test("Many threads that lose their connection all go on")
    func lostByMany() throws {
        let server = SFTPServerDouble()
        let store = try server.store(limit: 2)
        server.plan(.cutBefore, for: SFTPKind.write, after: 20)
        let failures = Mutex<[String]>([])
        runOnThreads(8) { worker in
            for index in 0..<10 {
                do {
                    let bytes = [UInt8](repeating: UInt8(worker), count: 50_000 + index)
                    let key = ObjectKey(validated: "\(worker)/\(index)")
                    try store.put(bytes, at: key)
                    guard try store.get(key) == bytes else { throw Failure() }
                } catch {
                    failures.withLock { $0.append("\(error)") }
                }
            }
        }
        #expect(failures.withLock { $0 } == [])
        #expect(server.firedFaults == 1)
    }

    private struct Failure: Error {}

    // MARK: - Refusals

    @Test("A full disk is told from other failures by asking")
    func fullDisk() throws {
        var behaviour = Behaviour()
        behaviour.availableBytes = 1_000
        let server = SFTPServerDouble(behaviour)
        let store = try server.store()
        server.plan(.refuse(SFTPStatus.failure, ""), for: SFTPKind.write)
        let error = #expect(throws: StorageError.self) {
            try store.put([1, 2, 3], at: ObjectKey(validated: "a/object"))
        }
        #expect(error?.kind == .noSpace)
        #expect(error?.isTransient == false)
        #expect(try store.head(ObjectKey(validated: "a/object")) == nil)
        #expect(server.paths.filter { $0.contains("+tmp/") } == [])
    }

    @Test("A failure without a reason is a failure of the server's disk")
    func unclearFailure() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        server.plan(.refuse(SFTPStatus.failure, ""), for: SFTPKind.write)
        let error = #expect(throws: StorageError.self) {
            try store.put([1, 2, 3], at: ObjectKey(validated: "a/object"))
        }
        #expect(error?.kind == .io)
    }

    @Test("A synchronisation that fails keeps the object from appearing")
    func failedSynchronisation() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        try store.put([1], at: ObjectKey(validated: "a/before"))
        server.plan(.refuse(SFTPStatus.failure, ""), for: SFTPKind.extended)
        #expect(throws: StorageError.self) {
            try store.put([1, 2, 3], at: ObjectKey(validated: "a/object"))
        }
        #expect(server.firedFaults == 1)
        #expect(try store.head(ObjectKey(validated: "a/object")) == nil)
    }

    @Test("A server that knows only the rename that replaces is asked for that")
    func onlyPosixRename() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        for _ in 0..<2 {
            server.plan(.refuse(SFTPStatus.unsupported, ""), for: SFTPKind.rename)
        }
        try store.put([1, 2, 3], at: ObjectKey(validated: "a/object"))
        #expect(server.firedFaults == 2)
        #expect(try store.get(ObjectKey(validated: "a/object")) == [1, 2, 3])
    }

    // MARK: - Hostile servers

    /// What a server might send instead of an answer; `ID` stands for the number of the request.
    static let hostileAnswers: [(String, [UInt8])] = [
        ("no packet", [0, 0, 0, 0]),
        ("too short for a number", [0, 0, 0, 3, 101, 0, 0]),
        ("a packet of 4 GiB", [0xFF, 0xFF, 0xFF, 0xFF, 101] + Array("ID".utf8)),
        ("a packet of 1 GiB of data", [0x40, 0, 0, 0, 103] + Array("ID".utf8) + [0x3F, 0, 0, 0]),
        (
            "data that were not asked for",
            [0, 0, 0, 10, 103] + Array("ID".utf8) + [0, 0, 0, 1, 65]
        ),
        ("an answer of an unknown kind", [0, 0, 0, 5, 77] + Array("ID".utf8)),
        ("an answer to nobody", [0, 0, 0, 9, 101, 1, 2, 3, 4, 0, 0, 0, 0]),
        (
            "a text that is longer than its packet",
            [0, 0, 0, 13, 101] + Array("ID".utf8) + [0, 0, 0, 4, 0xFF, 0xFF, 0xFF, 0xFF]
        ),
        (
            "more names than fit",
            [0, 0, 0, 9, 104] + Array("ID".utf8) + [0x7F, 0xFF, 0xFF, 0xFF]
        ),
        ("attributes without end", [0, 0, 0, 9, 105] + Array("ID".utf8) + [0x80, 0, 0, 0x0F]),
    ]

    @Test("What is no SFTP ends the connection with words", arguments: hostileAnswers.indices)
    func hostile(index: Int) throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        server.plan(.answer(Self.hostileAnswers[index].1), for: SFTPKind.lstat)
        let error = #expect(throws: StorageError.self) {
            try store.head(ObjectKey(validated: "a"))
        }
        #expect(error?.kind == .io, "\(Self.hostileAnswers[index].0)")
        #expect(error?.isTransient == false)
        #expect(server.firedFaults == 1)
    }

    @Test("A read that is answered with more than was asked for writes nothing beyond its buffer")
    func tooMuchData() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        try store.put([UInt8](repeating: 1, count: 100), at: ObjectKey(validated: "a"))
        let answer =
            [0, 0, 0x03, 0xF1, 103] + Array("ID".utf8) + [0, 0, 0x03, 0xE8]
            + [UInt8](repeating: 0xEE, count: 1_000)
        server.plan(.answer(answer), for: SFTPKind.read)
        var target = [UInt8](repeating: 0x55, count: 200)
        let error = #expect(throws: StorageError.self) {
            try target.withUnsafeMutableBytes { target in
                let buffer = UnsafeMutableRawBufferPointer(rebasing: target[..<10])
                _ = try store.get(ObjectKey(validated: "a"), range: 0..<10, into: buffer)
            }
        }
        #expect(error?.kind == .io)
        #expect(target.allSatisfy { $0 == 0x55 })
    }

    @Test("A length without measure is refused before anything is allocated")
    func hugeLength() throws {
        let server = SFTPServerDouble()
        let store = try server.store()
        try store.put([1], at: ObjectKey(validated: "a"))
        server.plan(
            .answer(
                [0, 0, 0, 21, 105] + Array("ID".utf8) + [0, 0, 0, 5]
                    + [0x7F] + [UInt8](repeating: 0xFF, count: 7) + [0, 0, 0x81, 0x80]),
            for: SFTPKind.fstat)
        let error = #expect(throws: StorageError.self) {
            try store.get(ObjectKey(validated: "a"))
        }
        #expect(error?.kind == .tooLarge)
        #expect(server.firedFaults == 1)
    }

    @Test("Another version of the protocol is refused")
    func wrongVersion() {
        var behaviour = Behaviour()
        behaviour.version = 2
        let server = SFTPServerDouble(behaviour)
        let error = #expect(throws: SSHFailure.self) { try server.dial() }
        #expect(error?.cause.contains("version 2 instead of 3") == true)
    }
}

/// Lets so many bytes through, then cancels and holds the rest back for two seconds.
final class CancellingPacer: Pacer {
    private struct State {
        var granted = 0
        var refusals = 0
    }

    private let limit: Int
    private let state = Mutex(State())

    init(after limit: Int) { self.limit = limit }

    var isCancelled: Bool { state.withLock { $0.granted >= limit } }

    func grant(_ wanted: Int) -> (bytes: Int, waitNanoseconds: Int64) {
        state.withLock { state in
            if state.granted >= limit, state.refusals < 40 {
                state.refusals += 1
                return (0, 50_000_000)
            }
            let bytes = min(wanted, 100_000)
            state.granted += bytes
            return (bytes, 0)
        }
    }

    /// A spool file to put that it paces.
    func bundle(of length: Int, for store: any ObjectStore) throws -> ObjectContent {
        let spool = try store.makeSpool()
        try spool.append([UInt8](repeating: 5, count: length))
        var content = ObjectContent(file: spool, digest: [UInt8](repeating: 0, count: 32))
        content.pacer = self
        return content
    }
}
