import AgeEncryption
import BundleFormat
import CSystem
import FileTree
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// How long the campaigns are, and where their seeds begin.
enum Campaign {
    /// Rounds of each campaign; nil in `make test`, where each makes a small share.
    static let runs = variable("BATCHSYNC_TEST_RUNS").flatMap { Int($0) }
    static let firstSeed = variable("BATCHSYNC_TEST_SEED").flatMap { UInt64($0) } ?? 1
    static var isSoak: Bool { runs != nil }

    static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

    /// The seeds of a campaign: `share` of them in `make test`, one of `divisor` rounds in `make soak`.
    static func seeds(share: Int, soakDividedBy divisor: Int = 1) -> [UInt64] {
        let count = runs.map { max(share, $0 / divisor) } ?? share
        return (0..<UInt64(count)).map { firstSeed &+ $0 }
    }
}

// MARK: - A repository and its hosts

/// One machine: its own configuration, cache and state.
final class TestHost: Sendable {
    let name: String
    let folder: TemporaryDirectory
    let directories: HostDirectories

    init(_ name: String) {
        self.name = name
        folder = .inMemory()
        directories = HostDirectories(
            configuration: folder.path("config"), cache: folder.path("cache"),
            state: folder.path("state"))
    }

    /// What tells the built command to be this machine.
    var environment: [String: String] {
        [
            "BATCHSYNC_CONFIG_DIR": directories.configuration,
            "BATCHSYNC_CACHE_DIR": directories.cache, "BATCHSYNC_STATE_DIR": directories.state,
        ]
    }

    /// The disk with the cache was replaced.
    func loseCache() { removeTree(directories.cache) }
}

/// A repository in some store, whose owner and first host the test plays.
final class World: Sendable {
    let store: any ObjectStore
    let location: String
    let owner: X25519Identity?
    let host: TestHost
    let id: RepositoryID
    /// Where the sources of the first host lie.
    let source: TemporaryDirectory

    init(
        store: any ObjectStore = MemoryStore(), at location: String = "memory",
        isEncrypted: Bool = true,
        graceSeconds: Int = 86_400, sourceInMemory: Bool = false
    ) throws {
        self.store = store
        self.location = location
        owner = isEncrypted ? X25519Identity() : nil
        host = TestHost("first")
        source = sourceInMemory ? .inMemory() : TemporaryDirectory()
        let created = try Repository.create(
            store: store, location: location,
            protection: owner.map { .recipients([$0.recipient]) } ?? .none,
            now: Timestamp(nanosecondsSince1970: HostClock.now), graceSeconds: graceSeconds,
            directories: host.directories)
        id = created.repository.id
    }

    /// A further machine, equipped with the host key.
    func addHost(_ name: String) throws -> TestHost {
        let new = TestHost(name)
        let path = host.directories.hostKeyPath(id)
        guard owner != nil, let key = readFile(path) else { return new }
        try LocalFile.write(key, to: new.directories.hostKeyPath(id))
        return new
    }

    /// The repository as a host sees it, through the store that a test puts in between.
    func open(
        through other: (any ObjectStore)? = nil, on host: TestHost? = nil, asOwner: Bool = false
    ) throws -> Repository {
        try Repository.open(
            store: other ?? store, location: location,
            credential: asOwner ? owner.map { .identities([$0]) } ?? .none : .none,
            needsOwner: asOwner && owner != nil, acceptUnproven: true,
            directories: (host ?? self.host).directories)
    }

    /// Backs up `root`, or the first host's source.
    @discardableResult
    func backup(
        through other: (any ObjectStore)? = nil, on host: TestHost? = nil, roots: [String]? = nil,
        monitor: any Monitor = SilentMonitor(), _ change: (inout BackupOptions) -> Void = { _ in }
    ) throws -> BackupReport {
        let host = host ?? self.host
        let repository = try open(through: other, on: host)
        var options = BackupOptions(host: host.name, program: "batchsync tests")
        options.roots = try (roots ?? [source.path]).map { try SourceRoot(Array($0.utf8)) }
        change(&options)
        return try Backup(
            repository, options: options, monitor: monitor, cancellation: Cancellation()
        ).run()
    }

    func snapshots() throws -> [Snapshot] { try SnapshotCatalog.load(try open()).snapshots }

    /// Restores one root of a snapshot into a directory of its own.
    func restore(
        _ snapshot: Snapshot, root: String? = nil, on host: TestHost? = nil
    ) throws -> (report: RestoreReport, target: TemporaryDirectory) {
        let host = host ?? TestHost("reader")
        // Its cache is written until the end, and goes with it.
        defer { withExtendedLifetime(host) {} }
        let repository = try open(on: host, asOwner: true)
        let index = try ChunkIndex.load(repository)
        let target = TemporaryDirectory(in: source.path.hasPrefix("/dev/shm") ? "/dev/shm" : nil)
        let report = try Restore(
            repository: repository, index: index, snapshot: snapshot, options: RestoreOptions(),
            monitor: SilentMonitor(), cancellation: Cancellation()
        ).run(path: Array((root ?? source.path).utf8), target: target.path("out"))
        return (report, target)
    }

    /// What a snapshot restores to. Records an issue where the restore names anything.
    func image(
        of snapshot: Snapshot, root: String? = nil, withHoles: Bool = false,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> TreeImage {
        let (report, target) = try restore(snapshot, root: root)
        #expect(report.damagedCount == 0, "\(report.damaged)", sourceLocation: sourceLocation)
        #expect(report.problemCount == 0, "\(report.problems)", sourceLocation: sourceLocation)
        return TreeImage(of: target.path("out"), withHoles: withHoles)
    }

    func verify(data: Bool = false, on host: TestHost? = nil) throws -> VerifyReport {
        let repository = try open(on: host, asOwner: true)
        let options = VerifyOptions(
            readData: data ? .everything : nil, host: "verifier",
            now: Timestamp(nanosecondsSince1970: HostClock.now))
        return try Verify(
            repository: repository, options: options, monitor: SilentMonitor(),
            cancellation: Cancellation()
        ).run()
    }

    /// Says in the host's cache that the last reading began an hour from now, as if the files had been old by then. Files just
    /// written count as racy otherwise, and no test waits for that to pass.
    func settle(on host: TestHost? = nil) {
        setReadingBegan(
            Timestamp(nanosecondsSince1970: HostClock.now + 3_600_000_000_000), on: host)
    }

    func setReadingBegan(_ time: Timestamp, on host: TestHost? = nil) {
        let folder = (host ?? self.host).directories.cachePath(id) + "/manifests"
        for name in treeContents(folder) where name.hasSuffix(".head") {
            let path = "\(folder)/\(name)"
            let text = String(decoding: readFile(path) ?? [], as: UTF8.self)
            let mark = "\"reading_began\":\""
            guard let start = text.range(of: mark),
                let end = text[start.upperBound...].firstIndex(of: "\"")
            else { continue }
            writeFile(Array((text[..<start.upperBound] + time.text + text[end...]).utf8), to: path)
        }
    }

    /// As `settle`, for what interrupted runs left behind: their names tell when they began.
    func ageDrafts() {
        let folder = host.directories.cachePath(id) + "/manifests"
        for name in treeContents(folder) where name.hasSuffix(".draft") {
            var parts = name.split(separator: "-").map(String.init)
            guard parts.count == 3 else { continue }
            parts[1] = String(HostClock.now + 3_600_000_000_000)
            _ = csys_renameat(
                AT_FDCWD, "\(folder)/\(name)", AT_FDCWD, "\(folder)/\(parts.joined(separator: "-"))"
            )
        }
    }

    /// Chunks that lie in more than one bundle, and bundles that no index record tells of.
    func waste() throws -> (twice: Int, unindexed: Int) {
        let repository = try open()
        let index = try ChunkIndex.load(repository)
        let listed = try repository.listBundles()
        let known = Set(index.bundles.map(\.id))
        var counter = ChunkCounter()
        for name in try repository.listRecords(.index).map(\.name) {
            let payload = try repository.readRecord(name)
            _ = payload.withUnsafeBytes { IndexCodec.read($0, into: &counter) }
        }
        return (counter.twice, listed.keys.count { !known.contains($0) })
    }

    private struct ChunkCounter: IndexCodec.Receiver {
        var places: [ChunkID: Set<BundleID>] = [:]
        var current: BundleID?
        mutating func bundle(_ bundle: IndexedBundle) { current = bundle.id }
        mutating func frame(_ frame: IndexedFrame) {}
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
            if let current { places[id, default: []].insert(current) }
        }
        mutating func segment(_ id: ChunkID, bundles: [BundleID]) {}
        var twice: Int { places.values.count { $0.count > 1 } }
    }
}

extension String {
    /// The first place of `text`.
    func range(of text: String) -> Range<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}

// MARK: - What a run says

/// Keeps what became of each path, and calls back where a test wants to interfere at a certain moment.
final class EventMonitor: Monitor {
    let counts = ProgressCounts()
    let wantsPaths = true
    private let events = Mutex<[String: PathEvent]>([:])
    private let problems = Mutex<[(path: String, kind: String)]>([])
    private let onPhase: @Sendable (String) -> Void
    private let onPath: @Sendable (String) -> Void

    init(
        onPhase: @escaping @Sendable (String) -> Void = { _ in },
        onPath: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.onPhase = onPhase
        self.onPath = onPath
    }

    func phase(_ name: String) { onPhase(name) }
    func path(_ path: [UInt8], _ event: PathEvent) {
        let text = String(decoding: path, as: UTF8.self)
        events.withLock { $0[text] = event }
        onPath(text)
    }
    func problem(_ path: [UInt8], kind: String, message: String) {
        problems.withLock { $0.append((String(decoding: path, as: UTF8.self), kind)) }
    }
    func note(_ text: String) {}

    subscript(path: String) -> PathEvent? { events.withLock { $0[path] } }
    func kinds(_ path: String) -> [String] {
        problems.withLock { $0.filter { $0.path == path }.map(\.kind) }
    }
    func count(_ event: PathEvent) -> Int { events.withLock { $0.values.count { $0 == event } } }
}

/// A store that does something of the test's just before certain calls.
final class InterferingStore: StoreDecorator {
    let base: any ObjectStore
    private let before: @Sendable (StoreOperation, String) throws(StorageError) -> Void

    init(
        _ base: any ObjectStore,
        before: @escaping @Sendable (StoreOperation, String) throws(StorageError) -> Void
    ) {
        self.base = base
        self.before = before
    }

    /// A store that takes nothing below a prefix.
    static func failing(_ base: any ObjectStore, below prefix: String) -> InterferingStore {
        InterferingStore(base) { (operation, subject) throws(StorageError) in
            guard operation == .put, subject.hasPrefix(prefix) else { return }
            throw StorageError(
                .unavailable, .put, key: ObjectKey(subject), location: "a test",
                cause: "refused on purpose")
        }
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        try before(operation, subject)
        _ = try effect()
    }
}

// MARK: - Threads

/// Runs `body` on so many threads of their own and comes back when all are done.
func inParallel(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    final class Work: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
    var threads: [pthread_t] = []
    for number in 0..<count {
        var thread = pthread_t()
        let work = Unmanaged.passRetained(Work { body(number) })
        let made = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, work.toOpaque())
        precondition(made == 0, "no thread can be made")
        threads.append(thread)
    }
    for thread in threads { pthread_join(thread, nil) }
}
