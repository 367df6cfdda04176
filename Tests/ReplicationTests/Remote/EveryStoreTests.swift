import CSystem
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// One suite on every kind of store: what holds for a directory holds wherever a repository lies.
@Suite("A repository on every store")
struct EveryStoreTests {
    private static let kinds = StoreKind.allCases.filter { $0 != .ceph }

    @Test(
        "Every verb does there what it does in a directory, before and after a damage",
        .timeLimit(.minutes(60)), arguments: kinds)
    func life(kind: StoreKind) throws {
        var life = try RepositoryLife(StorePlace(kind))
        try life.run()
    }
}

/// The same on a real distributed object store; in a suite of its own, since it takes its time to
/// come up.
@Suite("A repository on Ceph")
struct CephTests {
    @Test("The store keeps every promise on a Ceph RADOS Gateway", .timeLimit(.minutes(60)))
    func contract() throws {
        let place = try StorePlace(.ceph)
        #expect(StoreContract.run(try place.bareStore()) == [])
    }

    @Test(
        "Every verb does on a Ceph RADOS Gateway what it does in a directory",
        .timeLimit(.minutes(60)))
    func life() throws {
        var life = try RepositoryLife(StorePlace(.ceph))
        try life.run()
    }
}

/// The life of a repository, from `init` to the night after a damage.
private struct RepositoryLife {
    private let place: StorePlace
    private let world: World
    /// What the snapshots have to restore to, the oldest first.
    private var images: [TreeImage] = []

    init(_ place: StorePlace) throws {
        self.place = place
        world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
    }

    mutating func run() throws {
        plantTree(world.source, files: 40, largeBytes: 9 << 20)
        try nights()
        try looking()
        try interruption()
        try allRestore()
        try soundness()
        try forgetting()
        try damage()
        try forgery()
    }

    @discardableResult
    private mutating func backup() throws -> BackupReport {
        images.append(TreeImage(of: world.source.path))
        return try world.backup { change(&$0) }
    }

    /// Several bundles, so that several are under way at once.
    private func change(_ options: inout BackupOptions) {
        options.uploads = place.uploads
        options.bundleBytes = 1 << 20
    }

    /// A first night, one without changes, and one with some.
    private mutating func nights() throws {
        let first = try backup()
        #expect(first.statistics.newBytes > 9 << 20 && first.statistics.bundles >= 3)
        world.settle()
        let second = try backup()
        #expect(second.statistics.readBytes == 0 && second.statistics.storedBytes == 0)
        world.settle()
        world.source.put(SeededGenerator.numbers(2, 500_000), "dir-2/new")
        #expect(unlink(world.source.path("dir-1/sub-1/file-1")) == 0)
        let third = try backup()
        #expect(third.statistics.new == 1 && third.statistics.readBytes < 1 << 20)
    }

    /// `ls`, `diff` and `dump`.
    private func looking() throws {
        let snapshots = try world.snapshots()
        let repository = try world.open(on: try world.addHost("reader"), asOwner: true)
        let inspect = try Inspect(
            repository: repository, monitor: SilentMonitor(), cancellation: Cancellation())
        var listed = 0
        try inspect.list(snapshots[0], path: Array(world.source.path.utf8), isRecursive: true) {
            _ in
            listed += 1
            return true
        }
        // The root itself is listed as well.
        #expect(listed == images[0].count + 1)
        var lines: [String] = []
        let totals = try inspect.difference(snapshots[0], snapshots[2]) { difference in
            if difference.new?.kind != .directory {
                let path = String(decoding: difference.path, as: UTF8.self)
                lines.append(
                    "\(difference.kind.rawValue) \(path.dropFirst(world.source.path.count))")
            }
            return true
        }
        #expect(totals.added == 1 && totals.removed == 1)
        #expect(lines == ["removed /dir-1/sub-1/file-1", "added /dir-2/new"])

        let directory = TemporaryDirectory.inMemory()
        let descriptor = csys_open(directory.path("large"), O_WRONLY | O_CREAT, 0o600)
        defer { _ = csys_close(descriptor) }
        _ = try Dump(
            repository: repository, index: try ChunkIndex.load(repository), snapshot: snapshots[0],
            monitor: SilentMonitor(), cancellation: Cancellation()
        ).run(path: Array(world.source.path("large").utf8), to: descriptor)
        #expect(directory.read("large") == readFile(world.source.path("large")))
    }

    /// A run that comes to nothing when all its bundles are stored, and the one after it.
    private mutating func interruption() throws {
        world.source.put(SeededGenerator.numbers(3, 6 << 20), "dir-3/new")
        #expect(throws: (any Error).self) {
            try world.backup(through: InterferingStore.failing(world.store, below: "index/")) {
                change(&$0)
            }
        }
        let report = try backup()
        #expect(report.resumedBundles > 0 && report.statistics.newChunks == 0)
        let waste = try world.waste()
        #expect(waste.twice == 0 && waste.unindexed == 0)
    }

    private func allRestore() throws {
        let snapshots = try world.snapshots()
        #expect(snapshots.count == images.count)
        for (snapshot, image) in zip(snapshots, images) {
            #expect(image.differences(try world.image(of: snapshot)) == [])
        }
    }

    /// `verify` at each depth.
    private func soundness() throws {
        let now = Timestamp(nanosecondsSince1970: HostClock.now)
        for share: VerifyOptions.Share? in [nil, .fraction(1, of: 3), .everything] {
            for asOwner in [false, true] {
                let report = try Verify(
                    repository: try world.open(asOwner: asOwner),
                    options: VerifyOptions(readData: share, host: "verifier", now: now),
                    monitor: SilentMonitor(), cancellation: Cancellation()
                ).run()
                #expect(
                    report.isSound && report.snapshots == images.count,
                    "\(String(describing: share)): \(report.findings.map(\.description))")
            }
        }
    }

    /// `forget` and its way back.
    private func forgetting() throws {
        let ids = try world.snapshots().map(\.id)
        let now = Timestamp(nanosecondsSince1970: HostClock.now)
        func forget() throws -> (verb: Forget, catalog: SnapshotCatalog) {
            let repository = try world.open()
            return (
                Forget(repository, host: world.host.name, now: now),
                try SnapshotCatalog.load(repository)
            )
        }
        var (verb, catalog) = try forget()
        let plan = try ForgetPlan.naming(Array(catalog.snapshots[..<2]))
        #expect(try verb.execute(plan, on: catalog) != nil)
        #expect(try world.snapshots().map(\.id) == Array(ids[2...]))
        (verb, catalog) = try forget()
        let undone = try verb.undo(
            try ForgetUndo.last(in: catalog, host: world.host.name), on: catalog)
        #expect(undone.isEmpty)
        #expect(try world.snapshots().map(\.id) == ids)
    }

    /// A bundle is altered, then gone; the next night packs it again.
    private mutating func damage() throws {
        let store = try place.bareStore()
        // It holds a part of the large file, which every snapshot needs.
        let largest = try #require(
            try store.list(prefix: "bundles/").max { $0.length < $1.length }
        ).key
        try alter(largest, in: store)
        var report = try world.verify(data: true)
        #expect(report.findings.contains { $0.isDamage && $0.object == largest.text })
        #expect(report.soundSnapshots == 0)
        try store.delete(largest)
        report = try world.verify()
        #expect(
            report.findings.contains { $0.kind == .bundleMissing && $0.object == largest.text })

        try backup()
        try allRestore()
        report = try world.verify(data: true)
        #expect(report.soundSnapshots == images.count, "\(report.findings.map(\.description))")
    }

    /// A record that was altered where it lies is believed by nobody who has not read it before.
    private func forgery() throws {
        let store = try place.bareStore()
        let snapshot = try #require(try store.list(prefix: "snapshots/").first).key
        try alter(snapshot, in: store)
        let report = try world.verify(on: try world.addHost("stranger"))
        #expect(report.findings.contains { $0.isDamage && $0.object == snapshot.text })
    }

    /// Replaces an object by one of the same length with another byte in its middle.
    private func alter(_ key: ObjectKey, in store: any ObjectStore) throws {
        var bytes = try store.get(key)
        bytes[bytes.count / 2] ^= 1
        try store.delete(key)
        try store.put(bytes, at: key)
    }
}
