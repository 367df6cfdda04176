import BundleFormat
import CSystem
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// A store's clock that a test turns forward. The host's own stays within an hour of it, as prune
/// demands.
final class StoreClock: Sendable {
    private let offset = Atomic<Int64>(0)
    var now: Int64 { csys_realtime_ns() / 1_000_000_000 + offset.load(ordering: .relaxed) }
    func advance(_ seconds: Int64) { offset.add(seconds, ordering: .relaxed) }
}

/// A repository whose grace period is ten minutes, and a store whose clock can be turned over it.
final class PruneWorld: Sendable {
    static let grace = 600
    let clock = StoreClock()
    let memory: MemoryStore
    let world: World

    init(graceSeconds: Int = PruneWorld.grace, isEncrypted: Bool = true) throws {
        let clock = clock
        memory = MemoryStore(clock: { clock.now })
        world = try World(
            store: memory, isEncrypted: isEncrypted, graceSeconds: graceSeconds,
            sourceInMemory: true)
    }

    /// Longer than the grace period.
    func letGracePass() { clock.advance(Int64(Self.grace) + 2) }

    @discardableResult
    func prune(
        through store: (any ObjectStore)? = nil, on host: TestHost? = nil, asOwner: Bool = false,
        monitor: any Monitor = SilentMonitor(), cancellation: Cancellation = Cancellation(),
        _ change: (inout PruneOptions) -> Void = { _ in }
    ) throws -> PruneReport {
        let repository = try world.open(through: store, on: host, asOwner: asOwner)
        var options = PruneOptions(host: (host ?? world.host).name)
        change(&options)
        return try Prune(
            repository: repository, options: options, monitor: monitor, cancellation: cancellation
        ).run()
    }

    func forget(_ snapshots: [Snapshot]) throws {
        let repository = try world.open()
        let catalog = try SnapshotCatalog.load(repository)
        _ = try Forget(
            repository, host: "first", now: Timestamp(nanosecondsSince1970: HostClock.now)
        ).execute(try ForgetPlan.naming(snapshots), on: catalog)
    }

    /// Some nights: each changes some files and backs up. Gives what each snapshot must restore to.
    func nights(_ count: Int, from first: Int = 0) throws -> [(
        snapshot: Snapshot, image: TreeImage
    )] {
        try (first..<(first + count)).map { night in
            if night == 0 { plantTree(world.source, seed: 3, files: 24, largeBytes: 1 << 20) }
            var generator = SeededGenerator(seed: UInt64(100 + night))
            world.source.put(
                generator.bytes(200_000), "dir-1/changing",
                time: 1_650_000_000 + Int64(night))
            world.source.put(
                generator.bytes(50_000 + night), "dir-2/night-\(night)",
                time: 1_650_000_000 + Int64(night))
            let report = try world.backup()
            world.settle()
            return (report.snapshot, TreeImage(of: world.source.path))
        }
    }

    /// Objects below a prefix.
    func count(_ prefix: String) -> Int { memory.keys.count { $0.text.hasPrefix(prefix) } }

    /// Every snapshot that is listed and not incomplete restores to its image.
    func expectWhole(
        _ expected: [(snapshot: Snapshot, image: TreeImage)], _ comment: String = "",
        location: SourceLocation = #_sourceLocation
    ) throws {
        let listed = Set(try world.snapshots().map(\.id))
        for (snapshot, image) in expected {
            #expect(listed.contains(snapshot.id), "\(comment): has gone", sourceLocation: location)
            let differences = image.differences(
                try world.image(of: snapshot, sourceLocation: location))
            #expect(differences == [], "\(comment)", sourceLocation: location)
        }
    }

    func expectSound(_ comment: String = "", location: SourceLocation = #_sourceLocation) throws {
        let report = try world.verify()
        #expect(
            report.isSound, "\(comment): \(report.findings.filter(\.isDamage).map(\.description))",
            sourceLocation: location)
    }
}
