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
            configuration: folder.path("config"), cache: folder.path("cache"), state: folder.path("state"))
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
        store: any ObjectStore = MemoryStore(), at location: String = "memory", isEncrypted: Bool = true,
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
        return try Backup(repository, options: options, monitor: monitor, cancellation: Cancellation()).run()
    }

    func snapshots() throws -> [Snapshot] { try SnapshotCatalog.load(try open()).snapshots }

    /// Restores one root of a snapshot into a directory of its own.
    func restore(
        _ snapshot: Snapshot, root: String? = nil, on host: TestHost? = nil
    ) throws -> (report: RestoreReport, target: TemporaryDirectory) {
        let repository = try open(on: host ?? TestHost("reader"), asOwner: true)
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
            readData: data ? .everything : nil, host: "verifier", now: Timestamp(nanosecondsSince1970: HostClock.now))
        return try Verify(
            repository: repository, options: options, monitor: SilentMonitor(), cancellation: Cancellation()
        ).run()
    }

    /// Says in the host's cache that the last reading began an hour from now, as if the files had been old by then. Files just
    /// written count as racy otherwise, and no test waits for that to pass.
    func settle(on host: TestHost? = nil) {
        setReadingBegan(Timestamp(nanosecondsSince1970: HostClock.now + 3_600_000_000_000), on: host)
    }

    func setReadingBegan(_ time: Timestamp, on host: TestHost? = nil) {
        let folder = (host ?? self.host).directories.cachePath(id) + "/manifests"
        for name in treeContents(folder) where name.hasSuffix(".head") {
            let path = "\(folder)/\(name)"
            let text = String(decoding: readFile(path) ?? [], as: UTF8.self)
            let mark = "\"reading_began\":\""
            guard let start = text.range(of: mark), let end = text[start.upperBound...].firstIndex(of: "\"")
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
            _ = csys_renameat(AT_FDCWD, "\(folder)/\(name)", AT_FDCWD, "\(folder)/\(parts.joined(separator: "-"))")
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
        onPhase: @escaping @Sendable (String) -> Void = { _ in }, onPath: @escaping @Sendable (String) -> Void = { _ in }
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
    func kinds(_ path: String) -> [String] { problems.withLock { $0.filter { $0.path == path }.map(\.kind) } }
    func count(_ event: PathEvent) -> Int { events.withLock { $0.values.count { $0 == event } } }
}

/// A store that does something of the test's just before certain calls.
final class InterferingStore: StoreDecorator {
    let base: any ObjectStore
    private let before: @Sendable (StoreOperation, String) throws(StorageError) -> Void

    init(_ base: any ObjectStore, before: @escaping @Sendable (StoreOperation, String) throws(StorageError) -> Void) {
        self.base = base
        self.before = before
    }

    /// A store that takes nothing below a prefix.
    static func failing(_ base: any ObjectStore, below prefix: String) -> InterferingStore {
        InterferingStore(base) { (operation, subject) throws(StorageError) in
            guard operation == .put, subject.hasPrefix(prefix) else { return }
            throw StorageError(.unavailable, .put, key: ObjectKey(subject), location: "a test", cause: "refused on purpose")
        }
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        try before(operation, subject)
        _ = try effect()
    }
}

// MARK: - Trees

/// All that a test compares of a tree: content, and what Linux keeps beside it.
struct TreeImage: Equatable {
    struct Node: Equatable, CustomStringConvertible {
        var mode: UInt32
        var uid: UInt32
        var gid: UInt32
        var seconds: Int64
        var nanoseconds: UInt32
        var size: UInt64
        var digest: [UInt8]
        var target: [UInt8]
        /// The first path by which the same file stands in the tree.
        var firstName: [UInt8]
        var holes: [ClosedRange<Int64>]

        var description: String {
            "mode \(String(mode, radix: 8)) owner \(uid):\(gid) time \(seconds).\(nanoseconds) size \(size) digest \(digest.prefix(4)) target \(target) holes \(holes)"
        }
    }

    private(set) var nodes: [[UInt8]: Node] = [:]

    init(of path: String, withHoles: Bool = false) {
        var names: [UInt64: [UInt8]] = [:]
        func visit(_ relative: [UInt8]) {
            for name in Self.names(Array(path.utf8) + [0x2F] + relative) {
                let inner = relative.isEmpty ? name : relative + [0x2F] + name
                let full = Array(path.utf8) + [0x2F] + inner
                var status = csys_stat()
                guard Self.withPath(full, { csys_lstatat(AT_FDCWD, $0, &status) }) == 0 else { continue }
                var node = Node(
                    mode: status.mode, uid: status.uid, gid: status.gid, seconds: status.mtime_sec,
                    nanoseconds: status.mtime_nsec, size: 0, digest: [], target: [], firstName: inner, holes: [])
                switch csys_kind(status.mode) {
                case CSYS_FILE:
                    node.size = status.size
                    (node.digest, node.holes) = Self.content(full, withHoles: withHoles)
                case CSYS_SYMLINK: node.target = Self.link(full)
                default: break
                }
                if status.links > 1, csys_kind(status.mode) != CSYS_DIRECTORY {
                    node.firstName = names[status.inode] ?? inner
                    names[status.inode] = node.firstName
                }
                nodes[inner] = node
                if csys_kind(status.mode) == CSYS_DIRECTORY { visit(inner) }
            }
        }
        visit([])
    }

    /// How `other` is not this tree, as text; empty where it is.
    func differences(_ other: TreeImage) -> [String] {
        var found: [String] = []
        for path in Set(nodes.keys).union(other.nodes.keys) {
            let (one, two) = (nodes[path], other.nodes[path])
            guard one != two else { continue }
            found.append(
                "\(String(decoding: path, as: UTF8.self)): \(one?.description ?? "missing") / \(two?.description ?? "missing")")
        }
        return found.sorted()
    }

    subscript(path: String) -> Node? { nodes[Array(path.utf8)] }
    var count: Int { nodes.count }
    /// Bytes of all files, each name counted.
    var bytes: Int { nodes.values.reduce(0) { $0 + Int($1.size) } }

    private static func withPath<Value>(_ path: [UInt8], _ body: (UnsafePointer<CChar>) -> Value) -> Value {
        (path + [0]).withUnsafeBytes { body($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
    }

    private static func names(_ path: [UInt8]) -> [[UInt8]] {
        guard let directory = withPath(path, { opendir($0) }) else { return [] }
        defer { closedir(directory) }
        var names: [[UInt8]] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if name != [0x2E] && name != [0x2E, 0x2E] { names.append(name) }
        }
        return names.sorted { $0.lexicographicallyPrecedes($1) }
    }

    private static func link(_ path: [UInt8]) -> [UInt8] {
        var bytes = [CChar](repeating: 0, count: 4096)
        let count = withPath(path) { csys_readlinkat(AT_FDCWD, $0, &bytes, bytes.count) }
        return bytes.prefix(max(0, Int(count))).map { UInt8(bitPattern: $0) }
    }

    private static func content(_ path: [UInt8], withHoles: Bool) -> ([UInt8], [ClosedRange<Int64>]) {
        let file = withPath(path) { csys_open($0, O_RDONLY | CSYS_O_CLOEXEC, 0) }
        guard file >= 0 else { return ([], []) }
        defer { _ = csys_close(file) }
        var status = csys_stat()
        _ = csys_fstat(file, &status)
        var bytes = [UInt8](repeating: 0, count: Int(status.size))
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                csys_pread(file, $0.baseAddress! + filled, $0.count - filled, Int64(filled))
            }
            if count <= 0 { break }
            filled += count
        }
        var holes: [ClosedRange<Int64>] = []
        var offset: Int64 = 0
        while withHoles, offset < Int64(status.size) {
            let hole = csys_seek_hole(file, offset)
            if hole < 0 || hole >= Int64(status.size) { break }
            let data = csys_seek_data(file, hole)
            let end = data < 0 ? Int64(status.size) : data
            holes.append(hole...end)
            offset = end
        }
        return (sha256(bytes), holes)
    }
}

/// Sets the modification time of a file, a directory or a link itself.
func setTime(_ path: String, _ seconds: Int64, _ nanoseconds: UInt32 = 0) {
    let result = csys_lutimensat(AT_FDCWD, path, seconds, nanoseconds)
    precondition(result == 0, "cannot set the time of \(path): \(result)")
}

extension TemporaryDirectory {
    /// Writes a file, whose directories are made, with a modification time of its own.
    func put(_ bytes: [UInt8], _ name: String, time: Int64 = 1_700_000_000) {
        var prefix = ""
        for part in name.split(separator: "/").dropLast() {
            prefix += "/\(part)"
            makeDirectory(path + prefix)
        }
        writeFile(bytes, to: path(name))
        setTime(path(name), time)
    }
}

/// A tree of some two hundred entries of every common shape: small files, one of several chunks, links, an empty directory.
func plantTree(_ directory: TemporaryDirectory, seed: UInt64 = 1, files: Int = 60, largeBytes: Int = 3 << 20) {
    var generator = SeededGenerator(seed: seed)
    for number in 0..<files {
        let size = Int.random(in: 0...6000, using: &generator)
        directory.put(
            number % 3 == 0 ? generator.bytes(size) : generator.text(size), "dir-\(number % 7)/sub-\(number % 3)/file-\(number)",
            time: 1_600_000_000 + Int64(number))
    }
    directory.put([], "empty")
    if largeBytes > 0 { directory.put(generator.bytes(largeBytes), "large") }
    makeDirectory(directory.path("empty-directory"))
    _ = csys_symlinkat("dir-1/nothing", AT_FDCWD, directory.path("link"))
    _ = csys_linkat(AT_FDCWD, directory.path("empty"), AT_FDCWD, directory.path("empty-too"))
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
