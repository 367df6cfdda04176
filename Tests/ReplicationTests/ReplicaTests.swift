import FileTree
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// A repository on two stores, as one host sees it.
struct TwoStores {
    let world: World
    let second: MemoryStore
    static let secondLocation = "second memory"

    /// - Parameter nightsBefore: Backups to the first store alone, before there is a second.
    init(nightsBefore: Int = 0) throws {
        world = try World(store: MemoryStore(), at: "first memory", sourceInMemory: true)
        second = MemoryStore()
        plantTree(world.source, files: 30, largeBytes: 1 << 20)
        for night in 0..<nightsBefore {
            change(night)
            try world.backup()
        }
        _ = try world.open().createReplica(in: second, location: Self.secondLocation)
    }

    /// A night's work of the user.
    func change(_ night: Int) {
        world.source.put(SeededGenerator.numbers(UInt64(night) + 77, 300_000), "night-\(night)")
        world.source.put(Array("small \(night)".utf8), "small")
    }

    func open(
        _ store: any ObjectStore, at location: String, asOwner: Bool = false
    ) throws -> Repository {
        try Repository.open(
            store: store, location: location,
            credential: asOwner ? world.owner.map { .identities([$0]) } ?? .none : .none,
            needsOwner: asOwner, acceptUnproven: true, directories: world.host.directories)
    }

    @discardableResult
    func backup(
        first: (any ObjectStore)? = nil, second other: (any ObjectStore)? = nil,
        _ change: (inout BackupOptions) -> Void = { _ in }
    ) throws -> BackupReport {
        var options = BackupOptions(host: world.host.name, program: "batchsync tests")
        options.roots = [try SourceRoot(Array(world.source.path.utf8))]
        change(&options)
        let leader = try open(first ?? world.store, at: world.location)
        let replica = try open(other ?? second, at: Self.secondLocation)
        return try Backup(
            leader, replicas: [ReplicaTarget(replica, uploads: .remote(threads: 2))],
            options: options, monitor: SilentMonitor(), cancellation: Cancellation()
        ).run()
    }

    func snapshots(_ store: any ObjectStore, at location: String) throws -> [SnapshotID] {
        try SnapshotCatalog.load(try open(store, at: location)).snapshots.map(\.id)
    }

    var onFirst: [SnapshotID] { get throws { try snapshots(world.store, at: world.location) } }
    var onSecond: [SnapshotID] { get throws { try snapshots(second, at: Self.secondLocation) } }

    /// Verifies one store with all its data, and restores its newest snapshot.
    func expectWhole(
        _ store: any ObjectStore, at location: String, _ comment: Comment = "",
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let repository = try open(store, at: location, asOwner: true)
        let report = try Verify(
            repository: repository,
            options: VerifyOptions(
                readData: .everything, host: "verifier",
                now: Timestamp(nanosecondsSince1970: HostClock.now)),
            monitor: SilentMonitor(), cancellation: Cancellation()
        ).run()
        #expect(
            report.findings.filter(\.isDamage).map(\.description) == [], comment,
            sourceLocation: sourceLocation)
        let catalog = try SnapshotCatalog.load(repository)
        guard let last = catalog.snapshots.last else { return }
        let target = TemporaryDirectory.inMemory()
        let restored = try Restore(
            repository: repository, index: try ChunkIndex.load(repository), snapshot: last,
            options: RestoreOptions(), monitor: SilentMonitor(), cancellation: Cancellation()
        ).run(path: Array(world.source.path.utf8), target: target.path("out"))
        #expect(restored.damagedCount == 0, comment, sourceLocation: sourceLocation)
        #expect(
            TreeImage(of: world.source.path).differences(TreeImage(of: target.path("out"))) == [],
            comment, sourceLocation: sourceLocation)
    }

    func expectBothWhole(
        _ comment: Comment = "", sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try expectWhole(
            world.store, at: world.location, comment, sourceLocation: sourceLocation)
        try expectWhole(
            second, at: Self.secondLocation, comment, sourceLocation: sourceLocation)
    }

    func bundles(_ store: any ObjectStore) throws -> [String] {
        try store.list(prefix: "bundles/").map(\.key.text)
    }
}

@Suite("A repository on two stores")
struct ReplicaTests {
    @Test("Every bundle, index record and snapshot is on both, equal by name, night after night")
    func both() throws {
        let stores = try TwoStores()
        for night in 0..<3 {
            stores.change(night)
            let report = try stores.backup { $0.checkpointSeconds = night == 1 ? 0 : 300 }
            #expect(report.stores.map(\.failure?.description) == [nil, nil])
            #expect(!report.isPartial)
            stores.world.settle()
        }
        for prefix in ["bundles/", "index/", "snapshots/", "keys/"] {
            #expect(
                try stores.world.store.list(prefix: prefix).map(\.key)
                    == stores.second.list(prefix: prefix).map(\.key), "below \(prefix)")
        }
        #expect(try stores.second.list(prefix: "runs/") == [])
        try stores.expectBothWhole()
    }

    @Test("The sources are read once, and an unchanged night puts one snapshot on each")
    func once() throws {
        let stores = try TwoStores()
        try stores.backup()
        stores.world.settle()
        let (first, second) = (
            RecordingStore(stores.world.store), RecordingStore(stores.second)
        )
        let report = try stores.backup(first: first, second: second)
        #expect(report.statistics.readBytes == 0)
        for store in [first, second] {
            #expect(store.count(of: .put) == 1 && store.count(of: .put, below: "snapshots/") == 1)
            #expect(store.count(of: .range) == 0)
        }
    }

    @Test("A store that is down is named, stops nothing, and gets what it lacks without a source")
    func down() throws {
        let stores = try TwoStores()
        try stores.backup()
        let dead = FaultyStore(stores.second, faults: [.init(.list, isCrash: true)])
        for night in 0..<2 {
            stores.change(night)
            let report = try stores.backup(second: night == 0 ? dead : nil)
            if night == 0 {
                #expect(dead.firedCount == 1)
                #expect(report.isPartial)
                #expect(
                    report.stores.first { $0.failure != nil }?.location
                        == TwoStores.secondLocation)
                #expect(try stores.onSecond.count == 1)
            } else {
                let outcome = report.stores.first { $0.location == TwoStores.secondLocation }
                #expect(outcome?.broughtSnapshots == 1 && outcome?.failure == nil)
                #expect((outcome?.copiedBundles ?? 0) > 0)
            }
            stores.world.settle()
        }
        #expect(try stores.onFirst == stores.onSecond)
        try stores.expectBothWhole()
    }

    @Test("The first store may fail in the middle of a run: the second gets the snapshot")
    func leaderFails() throws {
        let stores = try TwoStores()
        try stores.backup()
        stores.world.settle()
        stores.change(1)
        let dying = FaultyStore(
            stores.world.store, faults: [.init(.put, below: "bundles/", isCrash: true)])
        let report = try stores.backup(first: dying)
        #expect(dying.firedCount == 1)
        #expect(report.isPartial)
        #expect(report.stores.first { $0.failure == nil }?.location == TwoStores.secondLocation)
        #expect(try stores.onFirst.count == 1)
        #expect(try stores.onSecond.count == 2)
        try stores.expectWhole(stores.second, at: TwoStores.secondLocation)
        // And gets it back the next night.
        stores.world.settle()
        try stores.backup()
        #expect(try stores.onFirst == stores.onSecond)
        try stores.expectBothWhole()
    }

    @Test("A new store gets every snapshot, an emptied one again")
    func new() throws {
        let stores = try TwoStores(nightsBefore: 3)
        let report = try stores.backup()
        #expect(
            report.stores.first { $0.location == TwoStores.secondLocation }?.broughtSnapshots == 3)
        #expect(try stores.onFirst == stores.onSecond)
        try stores.expectBothWhole()
        func prune() throws {
            _ = try Prune(
                repository: try stores.open(stores.second, at: TwoStores.secondLocation),
                options: PruneOptions(host: "first"), monitor: SilentMonitor(),
                cancellation: Cancellation()
            ).run()
        }
        try prune()
        for object in try stores.second.list(prefix: "")
        where object.key.text != "config.json" {
            try stores.second.delete(object.key)
        }
        #expect(throws: ReplicationError.self, "what it knew has gone") { try prune() }
        stores.change(9)
        try stores.backup()
        #expect(try stores.onFirst == stores.onSecond)
        try stores.expectWhole(stores.second, at: TwoStores.secondLocation)
        try prune()
    }

    @Test("What one store has condemned is relied on in neither")
    func condemned() throws {
        let stores = try TwoStores()
        try stores.backup()
        stores.world.settle()
        let replica = try stores.open(stores.second, at: TwoStores.secondLocation)
        let doomed = Set(try replica.listBundles().keys)
        _ = try HandMade.condemn(doomed, in: replica)
        let report = try stores.backup()
        #expect(report.stores.allSatisfy { $0.failure == nil })
        for (store, location) in [
            (stores.world.store, stores.world.location),
            (stores.second as any ObjectStore, TwoStores.secondLocation),
        ] {
            let repository = try stores.open(store, at: location)
            let index = try ChunkIndex.load(
                repository, listed: try repository.listBundles().filter { !doomed.contains($0.key) }
            )
            #expect(
                index.need(of: report.snapshot).bundles.isDisjoint(with: doomed), "\(location)")
        }
        try stores.expectBothWhole()
    }

    @Test("The second store may fail at any call: the first is whole, and the next night both are")
    func failsAnywhere() throws {
        let calls: Int = try {
            let stores = try TwoStores()
            try stores.backup()
            stores.change(1)
            let counting = CrashingStore(stores.second, crashAt: nil)
            try stores.backup(second: counting)
            return counting.operations
        }()
        #expect(calls > 8)
        for call in 2...calls {
            let stores = try TwoStores()
            try stores.backup()
            stores.change(1)
            let dying = CrashingStore(
                stores.second, crashAt: call, call % 2 == 0 ? .before : .after)
            let report = try stores.backup(second: dying)
            #expect(dying.hasCrashed, "call \(call) of \(calls)")
            #expect(report.stores.contains { $0.failure == nil }, "call \(call)")
            #expect(try stores.onFirst.count == 2, "call \(call)")
            try stores.backup()
            #expect(try stores.onFirst == stores.onSecond, "call \(call)")
            if call % 3 == 0 { try stores.expectBothWhole("call \(call)") }
        }
    }

    @Test("What a store has forgotten does not come back from the other")
    func forgotten() throws {
        let stores = try TwoStores()
        for night in 0..<2 {
            stores.change(night)
            try stores.backup()
        }
        let replica = try stores.open(stores.second, at: TwoStores.secondLocation)
        let first = try stores.onSecond[0]
        let now = Timestamp(nanosecondsSince1970: HostClock.now)
        try replica.putRecord(
            .forgotten, time: now,
            .object([
                ("time", .string(now.text)), ("host", .string("pruner")),
                ("snapshots", .array([.string(first.description)])),
            ]))
        try stores.backup()
        #expect(try stores.onFirst.count == 3)
        #expect(try stores.onSecond == Array(try stores.onFirst.dropFirst()))
    }
}
