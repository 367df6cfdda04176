import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// Records that prune will make, made by hand.
enum HandMade {
    private static func put(
        _ type: RecordType, _ repository: Repository, _ fields: [(key: String, value: JSONValue)]
    ) throws -> RecordName {
        let now = Timestamp(nanosecondsSince1970: HostClock.now)
        return try repository.putRecord(
            type, time: now,
            .object([("time", .string(now.text)), ("host", .string("pruner"))] + fields))
    }

    static func condemn(_ bundles: some Sequence<BundleID>, in repository: Repository) throws
        -> RecordName
    {
        try put(
            .condemned, repository,
            [
                ("state", .string("condemned")),
                ("bundles", .array(bundles.sorted().map { .string($0.description) })),
                ("index", .array([])),
            ])
    }

    static func startDeleting(
        _ records: [RecordName], seen snapshots: [SnapshotID], in repository: Repository
    ) throws -> RecordName {
        try put(
            .condemned, repository,
            [
                ("state", .string("deleting")),
                ("records", .array(records.map { .string($0.text) })),
                ("snapshots", .array(snapshots.map { .string($0.description) })),
            ])
    }
}

@Suite("The commit rule, the fence, the lease, and finality")
struct CommitRuleTests {
    private func world(graceSeconds: Int = 86_400, store: any ObjectStore = MemoryStore()) throws
        -> World
    {
        let world = try World(store: store, graceSeconds: graceSeconds, sourceInMemory: true)
        plantTree(world.source, files: 20, largeBytes: 1 << 20)
        return world
    }

    private func bundles(_ world: World, _ kind: BundleKind) throws -> Set<BundleID> {
        Set(try ChunkIndex.load(try world.open()).bundles.filter { $0.kind == kind }.map(\.id))
    }

    /// What a snapshot needs that is not condemned, wherever there is a choice.
    private func need(_ world: World, _ snapshot: Snapshot) throws -> Set<BundleID> {
        let repository = try world.open()
        var damaged: [RepositoryError] = []
        let condemned = try CondemnedView.load(repository, damaged: &damaged)
        let listed = try repository.listBundles()
        let need = try ChunkIndex.load(repository, condemned: condemned, listed: listed).need(
            of: snapshot)
        #expect(need.missing == [])
        return need.bundles
    }

    private func incomplete(_ world: World) throws -> [Bool] {
        let repository = try world.open()
        var catalog = try SnapshotCatalog.load(repository)
        catalog.markIncomplete(try ChunkIndex.load(repository))
        return catalog.snapshots.map(\.isIncomplete)
    }

    private func expectWhole(
        _ world: World, _ report: BackupReport, _ comment: Comment = "",
        location: SourceLocation = #_sourceLocation
    ) throws {
        let differences = TreeImage(of: world.source.path).differences(
            try world.image(of: report.snapshot))
        #expect(differences == [], comment, sourceLocation: location)
    }

    @Test(
        "What is condemned is packed again, never used, and stays condemned for ever",
        arguments: [BundleKind.content, .manifest], [false, true])
    func condemned(kind: BundleKind, withCache: Bool) throws {
        let world = try world()
        try world.backup()
        world.settle()
        let condemned = try bundles(world, kind)
        #expect(!condemned.isEmpty)
        let record = try HandMade.condemn(condemned, in: try world.open())
        if !withCache { world.host.loseCache() }
        // A night without changes, and another one with some.
        for night in 0..<2 {
            let report = try world.backup()
            #expect(try need(world, report.snapshot).isDisjoint(with: condemned), "night \(night)")
            #expect(report.snapshot.seen == [record.text])
            try expectWhole(world, report)
            world.settle()
            world.source.put(Array("night".utf8), "night")
            if night == 1, kind == .content { #expect(report.statistics.newChunks == 1) }
            if night == 0, kind == .content { #expect(report.statistics.readBytes > 1 << 20) }
            if kind == .manifest { #expect(report.statistics.newBytes <= 5) }
        }
        #expect(try incomplete(world).allSatisfy { !$0 })
    }

    @Test("What only one of two copies of a chunk is condemned for is used from the other")
    func secondCopy() throws {
        let world = try world()
        try world.backup()
        let first = try bundles(world, .content)
        _ = try HandMade.condemn(first, in: try world.open())
        try world.backup()
        let second = try bundles(world, .content).subtracting(first)
        #expect(!second.isEmpty)
        world.host.loseCache()
        let report = try world.backup()
        #expect(report.statistics.newChunks == 0)
        #expect(try need(world, report.snapshot).isSuperset(of: second))
    }

    /// Backs up, and just before the commit something happens to the repository, once.
    private func backup(_ world: World, beforeCommit body: @escaping @Sendable () -> Void) throws
        -> BackupReport
    {
        let once = Atomic<Bool>(false)
        let monitor = EventMonitor(onPhase: { phase in
            if phase == "committing", !once.exchange(true, ordering: .relaxed) { body() }
        })
        let report = try world.backup(monitor: monitor)
        let hasHappened = once.load(ordering: .relaxed)
        #expect(hasHappened)
        return report
    }

    @Test(
        "With a view older than half the grace period, what was condemned meanwhile is packed again before the commit",
        arguments: [BundleKind.content, .manifest])
    func condemnedMeanwhile(kind: BundleKind) throws {
        let world = try world(graceSeconds: 0)
        try world.backup()
        world.settle()
        let condemned = try bundles(world, kind)
        let report = try backup(
            world,
            beforeCommit: {
                do { _ = try HandMade.condemn(condemned, in: try world.open()) } catch {
                    Issue.record(error)
                }
            })
        #expect(try need(world, report.snapshot).isDisjoint(with: condemned))
        #expect(report.snapshot.seen.count == 1)
        try expectWhole(world, report)
        #expect(try world.snapshots().count == 2)
    }

    @Test("What the run itself has just stored, and prune condemned meanwhile, is packed again")
    func ownBundlesCondemned() throws {
        let world = try world(graceSeconds: 0)
        let condemned = Mutex<Set<BundleID>>([])
        let report = try backup(
            world,
            beforeCommit: {
                do {
                    let repository = try world.open()
                    let listed = Set(try repository.listBundles().keys)
                    condemned.withLock { $0 = listed }
                    _ = try HandMade.condemn(listed, in: repository)
                } catch { Issue.record(error) }
            })
        let gone = condemned.withLock { $0 }
        #expect(!gone.isEmpty)
        #expect(try need(world, report.snapshot).isDisjoint(with: gone))
        try expectWhole(world, report)
        // Nothing may describe what was condemned before it was described: with such lines a
        // snapshot looks whole that is not.
        let described = Set(try ChunkIndex.load(try world.open()).bundles.map(\.id))
        #expect(described.isDisjoint(with: gone))
    }

    @Test(
        "A snapshot that arrives when a delete phase has ended and left no record is not whole, and stays"
    )
    func arrivesLate() throws {
        let world = try world()
        try world.backup()
        let repository = try world.open()
        func marked() throws -> SnapshotCatalog {
            var catalog = try SnapshotCatalog.load(repository)
            catalog.markIncomplete(try ChunkIndex.load(repository))
            return catalog
        }
        #expect(try marked().snapshots.map(\.isWhole) == [true])
        // The phase took the index lines and the bundles, and then its own records.
        for name in try repository.listRecords(.index).map(\.name) {
            try repository.deleteRecord(name)
        }
        for id in try repository.listBundles().keys {
            try world.store.delete(try #require(ObjectKey(repository.bundleKey(id))))
        }
        let late = try marked()
        #expect(late.snapshots.map(\.isWhole) == [false])
        let candidates = late.snapshots.map(\.retentionCandidate)
        #expect(candidates.allSatisfy { $0.isIncomplete && $0.isUndescribed })
        // The next run heals it.
        world.settle()
        try expectWhole(world, try world.backup())
        #expect(try marked().snapshots.map(\.isWhole) == [true, true])
    }

    @Test(
        "Within half the grace period the look at the beginning holds, and the snapshot says what it had seen"
    )
    func withinGrace() throws {
        let world = try world()
        let first = try world.backup()
        world.settle()
        let condemned = try bundles(world, .content)
        let report = try backup(
            world,
            beforeCommit: {
                do { _ = try HandMade.condemn(condemned, in: try world.open()) } catch {
                    Issue.record(error)
                }
            })
        #expect(report.snapshot.seen == [])
        // Prune will count this snapshot before it deletes: grace is longer than the look was old.
        #expect(try need(world, report.snapshot) == need(world, first.snapshot))
    }

    @Test(
        "A bundle that was removed, or cut short, while the run went on is packed again before the commit",
        arguments: [true, false])
    func damagedMeanwhile(isRemoved: Bool) throws {
        let store = MemoryStore()
        let world = try world(graceSeconds: 0, store: store)
        try world.backup()
        world.settle()
        let victims = try bundles(world, .content)
        let repository = try world.open()
        let report = try backup(
            world,
            beforeCommit: {
                for id in victims {
                    guard let key = ObjectKey(repository.bundleKey(id)) else { continue }
                    if isRemoved {
                        try? store.delete(key)
                    } else {
                        store.alter(key) { $0.removeLast() }
                    }
                }
            })
        #expect(try need(world, report.snapshot).isDisjoint(with: victims))
        try expectWhole(world, report)
    }

    @Test("A directory is always listed: bundles that somebody deleted are missed and packed again")
    func listedAtOnce() throws {
        let directory = TemporaryDirectory.inMemory()
        let world = try World(
            store: try LocalStore.create(at: directory.path("store")), at: directory.path("store"),
            sourceInMemory: true)
        plantTree(world.source, files: 20, largeBytes: 1 << 20)
        try world.backup()
        world.settle()
        let repository = try world.open()
        for id in try bundles(world, .content) {
            try world.store.delete(try #require(ObjectKey(repository.bundleKey(id))))
        }
        try expectWhole(world, try world.backup())
    }

    @Test(
        "A snapshot that needs what a delete phase removed without having seen it is incomplete, until the next run"
    )
    func fence() throws {
        let world = try world()
        let first = try world.backup()
        world.settle()
        let content = try bundles(world, .content)
        let repository = try world.open()
        let record = try HandMade.condemn(content, in: repository)
        #expect(try incomplete(world) == [false])

        // A phase that saw the snapshot keeps what it needs; one that did not deletes it.
        _ = try HandMade.startDeleting([record], seen: [first.snapshot.id], in: repository)
        #expect(try incomplete(world) == [false])
        _ = try HandMade.startDeleting([record], seen: [], in: repository)
        #expect(try incomplete(world) == [true])
        let verdict = try world.verify()
        #expect(
            verdict.findings.contains {
                $0.kind == .incomplete && $0.snapshots == [first.snapshot.id]
            })
        for id in content {
            try world.store.delete(try #require(ObjectKey(repository.bundleKey(id))))
        }

        // The next run of the host had seen the record: it uses nothing of what has gone.
        let second = try world.backup()
        #expect(second.snapshot.seen == [record.text])
        #expect(try need(world, second.snapshot).isDisjoint(with: content))
        try expectWhole(world, second)
        // What it stored again completes the first one, which is whole by other copies now.
        #expect(try incomplete(world) == [false, false])
        try expectWhole(world, first)
        let report = try world.verify(data: true)
        #expect(report.damagedSnapshots == 0)
    }

    @Test(
        "A long run holds one lease that names what it made and what it uses, and gives it up when it commits"
    )
    func lease() throws {
        let world = try world()
        try world.backup()
        let old = try bundles(world, .content)
        world.source.put(SeededGenerator.numbers(9, 400_000), "new")
        let seen = Mutex<[JSONValue]>([])
        let monitor = EventMonitor(onPhase: { phase in
            guard phase == "committing" else { return }
            do {
                let repository = try world.open()
                for (name, _, _) in try repository.listRecords(.run) {
                    let value = try repository.readJSON(name)
                    seen.withLock { $0.append(value) }
                }
            } catch { Issue.record(error) }
        })
        let report = try world.backup(monitor: monitor) { $0.checkpointSeconds = 0 }
        let records = seen.withLock { $0 }
        #expect(records.count == 1)
        let record = try #require(records.first)
        func ids(_ field: String) -> Set<BundleID> {
            Set((record[field]?.array ?? []).compactMap { $0.string.flatMap { BundleID($0) } })
        }
        let need = try need(world, report.snapshot)
        #expect(ids("bundles").union(ids("uses")).isSuperset(of: need))
        #expect(ids("uses").isSuperset(of: old.intersection(need)))
        #expect((record["segments"]?.array ?? []).count >= 1)
        #expect((record["sequence"]?.integer ?? 0) >= 2)
        #expect(try world.open().listRecords(.run).isEmpty)
    }

    @Test("A repository that changes under every attempt fails the run, and nothing is committed")
    func neverSettles() throws {
        let world = try world(graceSeconds: 0)
        try world.backup()
        let monitor = EventMonitor(onPhase: { phase in
            guard phase == "committing" else { return }
            do {
                let repository = try world.open()
                _ = try HandMade.condemn(try repository.listBundles().keys, in: repository)
            } catch { Issue.record(error) }
        })
        #expect(throws: ReplicationError.self) { try world.backup(monitor: monitor) }
        #expect(try world.snapshots().count == 1)
        // And the next quiet run succeeds.
        try expectWhole(world, try world.backup())
    }

    @Test(
        "A condemned record that cannot be read stops the run: it might name what the run would use"
    )
    func unreadableRecord() throws {
        let store = MemoryStore()
        let world = try world(store: store)
        try world.backup()
        let name = try HandMade.condemn(try bundles(world, .content), in: try world.open())
        let key = try #require(ObjectKey(try world.open().recordKey(name)))
        store.alter(key) { $0[$0.count / 2] ^= 1 }
        #expect(throws: ReplicationError.self) { try world.backup() }
        #expect(try world.snapshots().count == 1)
    }
}

extension SeededGenerator {
    static func numbers(_ seed: UInt64, _ count: Int) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        return generator.bytes(count)
    }
}
