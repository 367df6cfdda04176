import CSystem
import FileTree
import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

@Suite("Files that do not hold still")
struct BackupUnsettledTests {
    /// So much takes a tenth of a second to read: the thread that changes the file has its turn in every attempt.
    private static let unsettledBytes = 160 << 20

    /// Backs up while another thread goes on with `body`.
    private func backup(_ world: World, whileDoing body: @escaping @Sendable () -> Void) throws
        -> BackupReport
    {
        let isDone = Atomic<Bool>(false)
        let outcome = Mutex<Result<BackupReport, any Error>?>(nil)
        let isRunning = Atomic<Bool>(false)
        inParallel(2) { number in
            if number == 0 {
                while !isDone.load(ordering: .relaxed) {
                    body()
                    isRunning.store(true, ordering: .relaxed)
                }
            } else {
                while !isRunning.load(ordering: .relaxed) {}
                let result = Result { try world.backup() }
                outcome.withLock { $0 = result }
                isDone.store(true, ordering: .relaxed)
            }
        }
        return try #require(outcome.withLock { $0 }).get()
    }

    private func expectProblem(
        _ world: World, _ report: BackupReport, _ path: String, _ kind: SnapshotProblem.Kind
    ) throws {
        let path = Array(world.source.path(path).utf8)
        #expect(
            report.problems.contains { $0.path == path && $0.kind == kind }, "\(report.problems)")
        // It is kept with the snapshot, for whoever looks later.
        let repository = try world.open(asOwner: true)
        let snapshot = try #require(try world.snapshots().last)
        let fetcher = try FrameFetcher(
            repository, index: try ChunkIndex.load(repository),
            accesses: BundleAccessCache(repository))
        let kept = try ManifestReader(snapshot, fetcher: fetcher).problems()
        #expect(snapshot.problemCount == report.problemCount && kept.count == report.problemCount)
        #expect(kept.contains { $0.path == path && $0.kind == kind })
    }

    private func isUnsettled(_ world: World, _ path: String) throws -> Bool? {
        let repository = try world.open(asOwner: true)
        let snapshot = try #require(try world.snapshots().last)
        let fetcher = try FrameFetcher(
            repository, index: try ChunkIndex.load(repository),
            accesses: BundleAccessCache(repository))
        var found: Bool?
        try ManifestReader(snapshot, fetcher: fetcher).forEach(
            below: Array(world.source.path(path).utf8)
        ) { entry, _ in
            if entry.path == Array(world.source.path(path).utf8) { found = entry.isUnsettled }
            return true
        }
        return found
    }

    @Test(
        "A file that grows all the time is kept with a mark, named, and read again the next time",
        .timeLimit(.minutes(60)))
    func growing() throws {
        let world = try World(sourceInMemory: true)
        let start = [UInt8](repeating: 0x42, count: Self.unsettledBytes)
        world.source.put(start, "log")
        let path = world.source.path("log")
        let file = csys_open(path, O_RDWR | O_APPEND | CSYS_O_CLOEXEC, 0)
        let report = try backup(
            world,
            whileDoing: {
                _ = [0x2A].withUnsafeBytes { csys_pwrite(file, $0.baseAddress, 1, 0) }
            })
        _ = csys_close(file)
        try expectProblem(world, report, "log", .changed)
        #expect(try isUnsettled(world, "log") == true)
        // What was there from the beginning is right in the copy.
        let (_, target) = try world.restore(report.snapshot)
        let copy = try #require(readFile(target.path("out/log")))
        #expect(copy.count >= start.count && copy.prefix(start.count).elementsEqual(start))
        world.settle()
        let next = try world.backup { $0.ignoresCtime = true }
        #expect(next.statistics.readBytes >= start.count)
        #expect(next.problemCount == 0)
        #expect(try isUnsettled(world, "log") == false)
    }

    @Test(
        "A file that shrinks while it is read is kept as far as it was there",
        .timeLimit(.minutes(60)))
    func shrinking() throws {
        let world = try World(sourceInMemory: true)
        world.source.put([UInt8](repeating: 0x41, count: Self.unsettledBytes), "database")
        let path = world.source.path("database")
        let file = csys_open(path, O_RDWR | CSYS_O_CLOEXEC, 0)
        let size = Atomic<Int>(Self.unsettledBytes)
        let report = try backup(
            world,
            whileDoing: {
                _ = csys_ftruncate(
                    file, Int64(max(0, size.wrappingSubtract(1, ordering: .relaxed).newValue)))
            })
        _ = csys_close(file)
        try expectProblem(world, report, "database", .changed)
        let (restored, target) = try world.restore(report.snapshot)
        #expect(restored.damagedCount == 0)
        #expect(readFile(target.path("out/database")) != nil)
    }

    /// Does something to `b` between its being listed and its being read: `a`, which stands before it in the same part, is done.
    private func backup(
        _ world: World, betweenListingAndReading body: @escaping @Sendable () -> Void
    ) throws -> BackupReport {
        let first = world.source.path("a")
        let monitor = EventMonitor(onPath: { if $0 == first { body() } })
        return try world.backup(monitor: monitor) { $0.readers = 1 }
    }

    @Test("A file that vanishes after it was listed is named; the others are kept")
    func vanished() throws {
        let world = try World()
        for name in ["a", "b", "c"] { world.source.put(Array(name.utf8), name) }
        let path = world.source.path("b")
        let report = try backup(
            world, betweenListingAndReading: { _ = csys_unlinkat(AT_FDCWD, path, 0) })
        try expectProblem(world, report, "b", .vanished)
        #expect(report.problemCount == 1)
        let image = try world.image(of: report.snapshot)
        #expect(image["a"] != nil && image["b"] == nil && image["c"] != nil)
    }

    @Test(
        "A file that became something else after it was listed is named, and not followed",
        arguments: ["link", "fifo", "directory"])
    func replaced(by kind: String) throws {
        let world = try World()
        for name in ["a", "b", "c"] { world.source.put(Array(name.utf8), name) }
        let path = world.source.path("b")
        let report = try backup(
            world,
            betweenListingAndReading: {
                _ = csys_unlinkat(AT_FDCWD, path, 0)
                switch kind {
                case "link": _ = csys_symlinkat("/etc/passwd", AT_FDCWD, path)
                case "fifo": _ = csys_mknodat(AT_FDCWD, path, 0o010600, 0, 0)
                default: _ = csys_mkdirat(AT_FDCWD, path, 0o700)
                }
            })
        #expect(report.problemCount == 1)
        #expect(report.problems.first?.path == Array(path.utf8), "\(report.problems)")
        let image = try world.image(of: report.snapshot)
        #expect(image["a"] != nil && image["b"] == nil && image["c"] != nil)
        // The next run keeps what stands there now.
        let next = try world.backup()
        #expect(next.problemCount == 0)
        #expect(
            TreeImage(of: world.source.path).differences(try world.image(of: next.snapshot)) == [])
    }

    @Test("A file that may not be read is named, and the others are kept")
    func unreadable() throws {
        let world = try World()
        _ = csys_fchmodat(AT_FDCWD, world.source.path, 0o755)
        for name in ["a", "b", "c"] {
            world.source.put(Array(name.utf8), name)
            _ = csys_fchmodat(AT_FDCWD, world.source.path(name), name == "b" ? 0 : 0o644)
        }
        let report: BackupReport
        if getuid() == 0 {
            // Root may read everything: this thread, and those that it makes, give that up for the run.
            typealias SetUser = @convention(c) (UInt32) -> Int32
            let symbol = try #require(dlsym(nil, "setfsuid"))
            let setUser = unsafeBitCast(symbol, to: SetUser.self)
            for place in [world.host.folder.path]
                + world.host.folder.contents().map({ world.host.folder.path($0) })
            {
                _ = csys_lchownat(
                    AT_FDCWD, place.hasSuffix("/") ? String(place.dropLast()) : place, 65_534,
                    65_534)
            }
            _ = setUser(65_534)
            defer { _ = setUser(0) }
            report = try world.backup()
        } else {
            report = try world.backup()
        }
        #expect(report.problemCount == 1)
        try expectProblem(world, report, "b", .unreadable)
        let image = try world.image(of: report.snapshot)
        #expect(image["a"] != nil && image["b"] == nil && image["c"] != nil)
    }

    @Test("A root that is not there fails the run before anything is written")
    func missingRoot() throws {
        let world = try World()
        plantTree(world.source, files: 4)
        let objects = try world.open().listAll().map(\.name)
        #expect(throws: (any Error).self) {
            try world.backup(roots: [world.source.path, world.source.path("missing")])
        }
        #expect(try world.open().listAll().map(\.name) == objects)
    }
}
