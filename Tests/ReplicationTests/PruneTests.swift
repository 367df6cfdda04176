import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Prune")
struct PruneTests {
    @Test(
        "What only forgotten snapshots needed is condemned after one grace period and gone after another",
        arguments: [true, false])
    func bothPhases(isEncrypted: Bool) throws {
        let world = try PruneWorld(isEncrypted: isEncrypted)
        let nights = try world.nights(4)
        let all = world.count("bundles/")
        try world.forget(nights[0...1].map(\.snapshot))

        // What was forgotten just now can still be brought back.
        let early = try world.prune()
        #expect(early.condemned.bundles == 0 && early.snapshotsRemoved == [])
        #expect(world.count("snapshots/") == 4)

        world.letGracePass()
        let first = try world.prune()
        #expect(first.condemned.bundles > 0)
        #expect(first.deleted.bundles == 0)
        #expect(first.snapshotsRemoved.count == 2)
        #expect(world.count("bundles/") == all)
        #expect(world.count("condemned/") == 1)
        try world.expectWhole(Array(nights[2...]))

        // Within its grace period nothing happens to it.
        let between = try world.prune()
        #expect(between.condemned.bundles == 0 && between.deleted.bundles == 0)
        #expect(between.waiting == first.condemned)

        world.letGracePass()
        let second = try world.prune()
        #expect(second.deleted == first.condemned)
        #expect(world.count("bundles/") == all - first.condemned.bundles)
        #expect(world.count("condemned/") == 0)
        #expect(second.stored.bytes - second.deleted.bytes == second.needed.bytes)
        try world.expectWhole(Array(nights[2...]))
        try world.expectSound()

        // Nothing is left to do, and the next night is as any other.
        let calm = try world.prune()
        #expect(calm.condemned.bundles == 0 && calm.deleted.bundles == 0)
        let next = try world.nights(1, from: 4)
        try world.expectWhole(Array(nights[2...]) + next)
        try world.expectSound()
    }

    @Test("The index tells of nothing that was deleted, and of everything that was not")
    func index() throws {
        let world = try PruneWorld()
        let nights = try world.nights(3)
        try world.forget([nights[0].snapshot])
        world.letGracePass()
        try world.prune()
        world.letGracePass()
        try world.prune()
        let repository = try world.world.open()
        let listed = try repository.listBundles()
        let index = try ChunkIndex.load(repository)
        #expect(Set(index.bundles.map(\.id)) == Set(listed.keys))
        for (snapshot, _) in nights[1...] {
            let need = index.need(of: snapshot)
            #expect(need.missing == [])
            #expect(need.bundles.isSubset(of: listed.keys))
        }
    }

    @Test("Without a grace period forgetting and pruning give the space back in one run")
    func noGrace() throws {
        let world = try PruneWorld(graceSeconds: 0)
        let nights = try world.nights(6)
        let before = world.count("bundles/")
        try world.forget(nights[0..<3].map(\.snapshot))
        let report = try world.prune()
        #expect(report.deleted.bundles > 0)
        #expect(report.deleted == report.condemned)
        #expect(world.count("bundles/") == before - report.deleted.bundles)
        #expect(world.count("condemned/") == 0 && world.count("snapshots/") == 3)
        try world.expectWhole(Array(nights[3...]))
        try world.expectSound()
        try world.expectWhole(Array(nights[3...]) + (try world.nights(1, from: 6)))
    }

    @Test("A dry run changes nothing and tells what a run would do")
    func dryRun() throws {
        let world = try PruneWorld()
        let nights = try world.nights(3)
        try world.forget(nights[0...1].map(\.snapshot))
        world.letGracePass()
        let before = world.memory.contents
        let plan = try world.prune { $0.dryRun = true }
        #expect(world.memory.contents == before)
        let done = try world.prune()
        #expect(plan.condemned == done.condemned)
        #expect(plan.snapshotsRemoved == done.snapshotsRemoved)
        #expect(plan.stored == done.stored && plan.needed == done.needed)
        world.letGracePass()
        let deletion = try world.prune { $0.dryRun = true }
        #expect(deletion.deleted == (try world.prune()).deleted)
    }
}
