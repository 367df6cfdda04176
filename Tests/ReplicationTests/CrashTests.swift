import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("A backup that fails or dies at any store operation")
struct CrashTests {
    /// How the N-th call ends.
    enum Ending: String, Sendable, CaseIterable {
        case crashBefore, crashAfter, errorBefore, errorAfter

        var timing: FaultyStore.Fault.Timing {
            self == .crashBefore || self == .errorBefore ? .before : .after
        }
        var isCrash: Bool { self == .crashBefore || self == .crashAfter }

        func store(_ base: any ObjectStore, at number: Int) -> any ObjectStore {
            isCrash
                ? CrashingStore(base, crashAt: number, timing)
                : FaultyStore(base, faults: [.init(occurrence: number, timing)])
        }
    }

    /// Makes the world anew, as it is before the run that dies, with the images that its snapshots must restore to.
    private func world(
        second: Bool, files: Int = 24, largeBytes: Int = 1 << 20
    ) throws -> (world: World, before: [TreeImage], now: TreeImage) {
        let world = try World(sourceInMemory: true)
        plantTree(world.source, seed: 5, files: files, largeBytes: largeBytes)
        var before: [TreeImage] = []
        if second {
            try world.backup()
            world.settle()
            before.append(TreeImage(of: world.source.path))
            var generator = SeededGenerator(seed: 6)
            world.source.put(generator.bytes(300_000), "dir-1/new", time: 1_650_000_000)
            world.source.put(generator.text(5_000), "dir-2/sub-0/file-9", time: 1_650_000_001)
            removeTree(world.source.path("dir-3"))
        }
        return (world, before, TreeImage(of: world.source.path))
    }

    private func change(_ options: inout BackupOptions, checkpoints: Bool) {
        options.readers = 1
        if checkpoints { options.checkpointSeconds = 0 }
    }

    /// Every snapshot that is listed restores to one of the trees that were backed up, the earlier ones to theirs.
    private func check(_ world: World, _ before: [TreeImage], _ now: TreeImage, _ what: String)
        throws
    {
        let snapshots = try world.snapshots()
        #expect(snapshots.count >= before.count, "\(what): an earlier snapshot has gone")
        for (position, snapshot) in snapshots.enumerated() {
            let expected = position < before.count ? before[position] : now
            let differences = expected.differences(try world.image(of: snapshot))
            #expect(differences == [], "\(what): snapshot \(position + 1) of \(snapshots.count)")
        }
    }

    @Test(
        "Whichever call it is, earlier snapshots are whole, and the next run completes and stores nothing twice",
        .timeLimit(.minutes(60)), arguments: Ending.allCases, [false, true])
    func everyOperation(ending: Ending, second: Bool) throws {
        for checkpoints in [false, true] {
            // How many calls a run makes that nobody disturbs.
            let (calm, _, _) = try world(second: second)
            let counting = CrashingStore(calm.store, crashAt: nil)
            try calm.backup(through: counting) { change(&$0, checkpoints: checkpoints) }
            let operations = counting.operations
            #expect(operations >= 6)
            let stored = try storedContent(calm)
            for number in 1...operations {
                let what =
                    "\(ending) at call \(number) of \(operations), second \(second), checkpoints \(checkpoints)"
                let (world, before, now) = try world(second: second)
                let store = ending.store(world.store, at: number)
                do {
                    try world.backup(through: store) { change(&$0, checkpoints: checkpoints) }
                } catch {
                    #expect(
                        error is ReplicationError || error is RepositoryError, "\(what): \(error)")
                }
                try check(world, before, now, what)
                let left = try world.open().listBundles()
                let report = try world.backup()
                let waste = try world.waste()
                #expect(waste.twice == 0, "\(what): \(waste.twice) chunks were stored again")
                #expect(
                    waste.unindexed == 0,
                    "\(what): \(waste.unindexed) bundles were stored for nothing")
                #expect(try Set(left.keys).isSubset(of: world.open().listBundles().keys), "\(what)")
                #expect(
                    try storedContent(world) == stored, "\(what): not the same chunks in the end")
                try check(world, before, now, "\(what), after the next run")
                #expect(report.problemCount == 0)
                #expect(
                    treeContents(world.host.directories.statePath(world.id) + "/runs") == [],
                    "\(what): a journal stays")
            }
        }
    }

    @Test(
        "A run of several bundles that dies is taken up: what was stored is not stored again",
        .timeLimit(.minutes(60)), arguments: Campaign.seeds(share: 1, soakDividedBy: 100))
    func severalBundles(seed: UInt64) throws {
        // Incompressible, more than two bundles of 64 MiB.
        let bytes = 24 << 20
        func world() throws -> World {
            let world = try World(sourceInMemory: true)
            for number in 0..<6 {
                world.source.put(
                    SeededGenerator.numbers(seed &* 10 &+ UInt64(number), bytes), "file-\(number)")
            }
            return world
        }
        let calm = try world()
        let counting = CrashingStore(calm.store, crashAt: nil, writesOnly: true)
        try calm.backup(through: counting) { $0.checkpointSeconds = 0 }
        // Three content bundles and one of the manifest, each with an index record and a lease, and the snapshot.
        #expect(counting.operations >= 10)
        var choice = SeededGenerator(seed: seed)
        let image = TreeImage(of: calm.source.path)
        // The last one only gives up the lease: the run does not fail for it.
        for number in 1..<counting.operations where Campaign.isSoak || choice.next() % 3 == 0 {
            let what = "seed \(seed), write \(number) of \(counting.operations)"
            let world = try world()
            let timing: FaultyStore.Fault.Timing = choice.next() % 2 == 0 ? .before : .after
            #expect(throws: (any Error).self, "\(what)") {
                try world.backup(
                    through: CrashingStore(world.store, crashAt: number, timing, writesOnly: true)
                ) {
                    $0.checkpointSeconds = 0
                }
            }
            let stored = try world.open().listBundles().values.reduce(0, +)
            let report = try world.backup { $0.checkpointSeconds = 0 }
            #expect(report.statistics.storedBytes < 6 * bytes - stored + (8 << 20), "\(what)")
            let waste = try world.waste()
            #expect(waste.twice == 0 && waste.unindexed == 0, "\(what): \(waste)")
            // Times differ from those of the calm world's directory only.
            let restored = try world.image(of: report.snapshot)
            #expect(
                restored.nodes.count == image.nodes.count
                    && image.nodes.allSatisfy { restored.nodes[$0.key]?.digest == $0.value.digest },
                "\(what)")
        }
    }

    @Test("What a checkpoint covers is not read again after a death", .timeLimit(.minutes(60)))
    func resumedReading() throws {
        let world = try World(sourceInMemory: true)
        let (count, bytes) = (40, 4 << 20)
        for number in 0..<count {
            world.source.put(SeededGenerator.numbers(UInt64(number), bytes), "file-\(10 + number)")
        }
        #expect(throws: (any Error).self) {
            // The last thing that a run writes: everything was read by then, and checkpoints have told most of it.
            try world.backup(through: InterferingStore.failing(world.store, below: "snapshots/")) {
                $0.checkpointSeconds = 0
            }
        }
        world.ageDrafts()
        let report = try world.backup()
        #expect(
            report.statistics.readBytes < count * bytes / 2,
            "read \(report.statistics.readBytes) of \(count * bytes)")
        #expect(report.statistics.newChunks == 0)
        #expect(
            TreeImage(of: world.source.path).differences(try world.image(of: report.snapshot)) == []
        )
    }

    /// The content chunks of all bundles, each as often as it is stored.
    private func storedContent(_ world: World) throws -> [ChunkID] {
        struct Collector: IndexCodec.Receiver {
            var ids: [ChunkID] = []
            var isContent = false
            mutating func bundle(_ bundle: IndexedBundle) { isContent = bundle.kind == .content }
            mutating func frame(_ frame: IndexedFrame) {}
            mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
                if isContent { ids.append(id) }
            }
            mutating func segment(_ id: ChunkID, bundles: [BundleID]) {}
        }
        let repository = try world.open()
        var collector = Collector()
        for name in try repository.listRecords(.index).map(\.name) {
            let payload = try repository.readRecord(name)
            _ = payload.withUnsafeBytes { IndexCodec.read($0, into: &collector) }
        }
        return collector.ids.sorted()
    }
}
