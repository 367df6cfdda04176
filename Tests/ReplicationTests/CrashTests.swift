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
    private func check(_ world: World, _ before: [TreeImage], _ now: TreeImage, _ what: String) throws {
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
        .timeLimit(.minutes(10)), arguments: Ending.allCases, [false, true])
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
                let what = "\(ending) at call \(number) of \(operations), second \(second), checkpoints \(checkpoints)"
                let (world, before, now) = try world(second: second)
                let store = ending.store(world.store, at: number)
                do {
                    try world.backup(through: store) { change(&$0, checkpoints: checkpoints) }
                } catch {
                    #expect(error is ReplicationError || error is RepositoryError, "\(what): \(error)")
                }
                try check(world, before, now, what)
                let left = try world.open().listBundles()
                let report = try world.backup()
                let waste = try world.waste()
                #expect(waste.twice == 0, "\(what): \(waste.twice) chunks were stored again")
                #expect(waste.unindexed == 0, "\(what): \(waste.unindexed) bundles were stored for nothing")
                #expect(try Set(left.keys).isSubset(of: world.open().listBundles().keys), "\(what)")
                #expect(try storedContent(world) == stored, "\(what): not the same chunks in the end")
                try check(world, before, now, "\(what), after the next run")
                #expect(report.problemCount == 0)
                #expect(treeContents(world.host.directories.statePath(world.id) + "/runs") == [], "\(what): a journal stays")
            }
        }
    }

    /// The content chunks of all bundles, each as often as it is stored.
    private func storedContent(_ world: World) throws -> [ChunkID] {
        struct Collector: IndexCodec.Receiver {
            var ids: [ChunkID] = []
            var isContent = false
            mutating func bundle(_ bundle: IndexedBundle) { isContent = bundle.kind == .content }
            mutating func frame(_ frame: IndexedFrame) {}
            mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) { if isContent { ids.append(id) } }
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
