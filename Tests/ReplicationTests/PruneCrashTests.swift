import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("A prune that dies at any store operation")
struct PruneCrashTests {
    /// A repository in which both phases have something to do: what two forgotten snapshots needed
    /// is condemned and its grace period over, and what a third needed is neither.
    private func world(
        graceSeconds: Int
    ) throws -> (world: PruneWorld, kept: [(snapshot: Snapshot, image: TreeImage)]) {
        let world = try PruneWorld(graceSeconds: graceSeconds)
        let nights = try world.nights(5)
        try world.forget(nights[0...1].map(\.snapshot))
        if graceSeconds > 0 {
            world.letGracePass()
            try world.prune()
            try world.forget([nights[2].snapshot])
            world.letGracePass()
        }
        return (world, graceSeconds > 0 ? Array(nights[3...]) : Array(nights[2...]))
    }

    @Test(
        "Whichever call it is, all listed snapshots restore, and the next prunes complete it",
        .timeLimit(.minutes(60)),
        arguments: [0, PruneWorld.grace],
        [FaultyStore.Fault.Timing.before, .after])
    func everyOperation(graceSeconds: Int, timing: FaultyStore.Fault.Timing) throws {
        let (calm, calmKept) = try world(graceSeconds: graceSeconds)
        let counting = CrashingStore(calm.memory, crashAt: nil)
        let whole = try calm.prune(through: counting)
        #expect(whole.deleted.bundles > 0 && counting.operations > 8)
        try finish(calm)
        let expected = try contents(calm)
        try calm.expectWhole(calmKept)

        for number in 1...counting.operations {
            let what = "grace \(graceSeconds), \(timing) call \(number) of \(counting.operations)"
            let (world, kept) = try world(graceSeconds: graceSeconds)
            do {
                try world.prune(
                    through: CrashingStore(world.memory, crashAt: number, timing))
            } catch {
                #expect(error is ReplicationError || error is RepositoryError, "\(what): \(error)")
            }
            try world.expectWhole(kept, what)
            try world.expectSound(what)
            // A backup between the dead prune and the next one finds nothing amiss.
            if number % 3 == 0 {
                try world.expectWhole(kept + (try world.nights(1, from: 5)), what)
                try finish(world)
            } else {
                try finish(world)
                let left = try contents(world)
                #expect(left == expected, "\(what)")
            }
            #expect(world.count("condemned/") == 0, "\(what): a condemned record stays")
            try world.expectWhole(kept, "\(what), in the end")
            try world.expectSound("\(what), in the end")
        }
    }

    /// Prunes until nothing is left to do.
    private func finish(_ world: PruneWorld) throws {
        for _ in 0..<3 {
            world.letGracePass()
            try world.prune()
        }
    }

    /// What the repository holds in the end: how many bundles and snapshots, the bundles being those
    /// that the index tells of. Names differ from world to world, since each bundle begins with
    /// random bytes; and lines that a dead prune had told again stay told twice until index objects
    /// are merged.
    private func contents(_ world: PruneWorld) throws -> [Int] {
        let repository = try world.world.open()
        let listed = try repository.listBundles()
        let index = try ChunkIndex.load(repository)
        #expect(Set(index.bundles.map(\.id)) == Set(listed.keys))
        return [listed.count, world.count("snapshots/")]
    }
}
