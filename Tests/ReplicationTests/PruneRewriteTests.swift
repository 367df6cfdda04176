import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Prune rewrites what is dead in part")
struct PruneRewriteTests {
    /// Nights of which some are forgotten, with their grace period over: the first bundle and those
    /// of the nights hold what is dead beside what is not.
    private func world(
        graceSeconds: Int = PruneWorld.grace, isEncrypted: Bool = true, nights count: Int = 5,
        forgetting forgotten: Int = 3
    ) throws -> (world: PruneWorld, kept: [(snapshot: Snapshot, image: TreeImage)]) {
        let world = try PruneWorld(graceSeconds: graceSeconds, isEncrypted: isEncrypted)
        let nights = try world.nights(count)
        try world.forget(nights[..<forgotten].map(\.snapshot))
        world.letGracePass()
        return (world, Array(nights[forgotten...]))
    }

    @discardableResult
    private func rewrite(
        _ world: PruneWorld, through store: (any ObjectStore)? = nil,
        budget: RewriteBudget = .share(1), dryRun: Bool = false
    ) throws -> PruneReport {
        try world.prune(through: store, asOwner: true) {
            $0.rewrite = budget
            $0.dryRun = dryRun
        }
    }

    /// Stored bytes of all bundles.
    private func bytes(_ world: PruneWorld) throws -> Int {
        try world.world.open().listBundles().values.reduce(0, +)
    }

    @Test(
        "Of half-dead bundles what is live is kept and the rest given back, in two phases",
        arguments: [true, false])
    func bothPhases(isEncrypted: Bool) throws {
        let (world, kept) = try world(isEncrypted: isEncrypted)
        let before = try bytes(world)
        let first = try rewrite(world)
        #expect(first.rewritten.bundles > 0 && first.written.bundles > 0)
        #expect(first.written.bytes < first.rewritten.bytes)
        let (unused, left) = (try #require(first.unused), try #require(first.unusedLeft))
        #expect(unused > 0 && left < unused)
        // Both copies are there: whoever looked before goes by the old ones.
        #expect(try bytes(world) == before + first.written.bytes)
        try world.expectWhole(kept, "between the phases")
        try world.expectSound("between the phases")

        world.letGracePass()
        let second = try rewrite(world)
        #expect(second.deleted == first.condemned)
        #expect(second.rewritten.bundles == 0, "what was rewritten is dense")
        #expect(try #require(second.unused) * 100 <= 5 * second.needed.bytes)
        #expect(try bytes(world) == before + first.written.bytes - second.deleted.bytes)
        #expect(world.count("condemned/") == 0)
        try world.expectWhole(kept, "in the end")
        try world.expectSound("in the end")
        let next = try world.nights(1, from: 5)
        try world.expectWhole(kept + next, "a night later")
        try world.expectSound("a night later")
    }

    @Test("The index tells of new bundles only, and of what each snapshot needs")
    func index() throws {
        let (world, kept) = try world(graceSeconds: 0)
        let report = try rewrite(world)
        #expect(report.deleted == report.condemned && report.deleted.bundles > 0)
        let repository = try world.world.open()
        let listed = try repository.listBundles()
        let index = try ChunkIndex.load(repository)
        #expect(Set(index.bundles.map(\.id)) == Set(listed.keys))
        for (snapshot, _) in kept {
            let need = index.need(of: snapshot)
            #expect(need.missing == [] && need.bundles.isSubset(of: listed.keys))
        }
        try world.expectWhole(kept)
        try world.expectSound()
    }

    @Test("With the host key alone nothing is rewritten, and what an owner could give back is told")
    func hostKeyAlone() throws {
        let world = try PruneWorld()
        let forgotten = try world.nights(3)
        // Later nights, by the store's clock, which tells whole seconds.
        world.clock.advance(5)
        let kept = try world.nights(2, from: 3)
        try world.forget(forgotten.map(\.snapshot))
        world.letGracePass()
        let report = try world.prune { $0.rewrite = .share(1) }
        #expect(report.written.bundles == 0 && report.unused == nil)
        let most = try #require(report.reclaimableAtMost)
        let dry = try rewrite(world, dryRun: true)
        #expect(most >= (dry.unused ?? .max), "no less than there is")
        #expect(most < report.needed.bytes, "what runs of listed snapshots have stored they need")
        try world.expectWhole(kept)
    }

    @Test("A dry run changes nothing and tells what is rewritten")
    func dryRun() throws {
        let (world, _) = try world()
        let before = world.memory.contents
        let plan = try rewrite(world, dryRun: true)
        #expect(world.memory.contents == before)
        #expect(plan.requests > 0)
        let done = try rewrite(world)
        #expect(plan.rewritten == done.rewritten && plan.condemned == done.condemned)
        #expect(plan.written.bundles == done.written.bundles)
        #expect(plan.unused == done.unused && plan.unusedLeft == done.unusedLeft)
    }

    @Test("No more is written than the budget allows")
    func budget() throws {
        let (world, kept) = try world()
        let all = try rewrite(world, dryRun: true)
        let half = try rewrite(world, budget: .bytes(all.written.bytes / 2), dryRun: true)
        #expect(half.written.bytes <= all.written.bytes / 2)
        #expect(half.rewritten.bundles < all.rewritten.bundles)
        let none = try rewrite(world, budget: .bytes(0))
        #expect(none.written.bytes == 0 && none.unused == all.unused)
        try world.expectWhole(kept)
    }

    @Test("Small bundles of many nights become few")
    func merges() throws {
        let world = try PruneWorld()
        let nights = try world.nights(34)
        world.letGracePass()
        let before = world.count("bundles/")
        let report = try rewrite(world)
        #expect(report.merged.bundles >= 64)
        world.letGracePass()
        try rewrite(world)
        #expect(world.count("bundles/") < before / 8)
        try world.expectWhole(nights.suffix(2) + nights.prefix(2))
        try world.expectSound()
        try world.expectWhole(try world.nights(1, from: 34))
        let calm = try rewrite(world)
        #expect(calm.merged.bundles == 0 && calm.rewritten.bundles == 0)
    }

    @Test("What a run's lease names is left as it is")
    func lease() throws {
        let (world, kept) = try world()
        let repository = try world.world.open()
        let now = Timestamp(nanosecondsSince1970: HostClock.now)
        var record = RunRecord(
            run: String(repeating: "c", count: 32), started: now, host: "first", roots: [])
        record.uses = Array(try repository.listBundles().keys)
        let name = try record.store(in: repository, time: now, replacing: nil)
        let report = try rewrite(world)
        #expect(report.rewritten.bundles == 0 && report.condemned.bundles == 0)
        try repository.deleteRecord(name)
        #expect(try rewrite(world).rewritten.bundles > 0)
        try world.expectWhole(kept)
    }

    @Test(
        "A backup that relies on a bundle while it is rewritten keeps it, and a later prune frees it"
    )
    func backupMeanwhile() throws {
        let (world, kept) = try world()
        var during: [(snapshot: Snapshot, image: TreeImage)] = []
        // The backup looks before the bundles are condemned, and commits after that.
        var generator = SeededGenerator(seed: 77)
        world.world.source.put(generator.bytes(5000), "dir-3/new")
        let image = TreeImage(of: world.world.source.path)
        let store = InterferingStore(world.memory) { (operation, subject) throws(StorageError) in
            guard operation == .put, subject.hasPrefix("snapshots/") else { return }
            _ = try? rewrite(world)
        }
        world.world.host.loseCache()
        let report = try world.world.backup(through: store, on: try world.world.addHost("other"))
        during.append((report.snapshot, image))
        world.letGracePass()
        let held = try rewrite(world)
        #expect(held.held.bundles > 0, "the snapshot needs what is condemned")
        try world.expectWhole(kept + during, "while it is held")
        for _ in 0..<3 {
            world.letGracePass()
            try rewrite(world)
        }
        #expect(world.count("condemned/") == 0)
        try world.expectWhole(kept + during, "in the end")
        try world.expectSound()
    }

    @Test("Two copies of a chunk, each named by another snapshot, survive whichever is forgotten")
    func twoCopies() throws {
        for forgetFirst in [true, false] {
            let world = try PruneWorld(graceSeconds: 0)
            let source = world.world.source
            let second = try world.world.addHost("second")
            var generator = SeededGenerator(seed: 9)
            /// A night that is forgotten, whose content shares a bundle with that of the next one.
            func nights(
                on host: TestHost, _ name: String
            ) throws -> (gone: Snapshot, kept: (snapshot: Snapshot, image: TreeImage)) {
                source.put(generator.bytes(300_000), "dir-1/\(name)")
                let gone = try world.world.backup(on: host).snapshot
                removeTree(source.path("dir-1/\(name)"))
                source.put(generator.bytes(1000), "dir-2/\(name)")
                let kept = try world.world.backup(on: host).snapshot
                return (gone, (kept, TreeImage(of: source.path)))
            }
            plantTree(source, seed: 5, files: 12, largeBytes: 1 << 18)
            let one = try nights(on: world.world.host, "one")
            // The second host packs the same content again, since it must not rely on the first's.
            let repository = try world.world.open()
            let record = try HandMade.condemn(try repository.listBundles().keys, in: repository)
            let two = try nights(on: second, "two")
            try repository.deleteRecord(record)
            #expect(try world.world.waste().twice > 10)

            try world.forget([one.gone, two.gone])
            let report = try rewrite(world)
            #expect(report.rewritten.bundles >= 2)
            try world.expectWhole([one.kept, two.kept])
            try world.forget([forgetFirst ? one.kept.snapshot : two.kept.snapshot])
            for _ in 0..<2 { try rewrite(world) }
            try world.expectWhole([forgetFirst ? two.kept : one.kept])
            try world.expectSound()
        }
    }

    @Test("Damage is not carried on: a bundle that cannot be read whole is not condemned")
    func damage() throws {
        let (world, kept) = try world()
        let index = try ChunkIndex.load(try world.world.open())
        let content = Set(index.bundles.filter { $0.kind == .content }.map(\.id.description))
        let whole = world.memory.contents
        for key in world.memory.keys
        where content.contains(String(key.text.split(separator: "/").last?.prefix(64) ?? "")) {
            world.memory.alter(key) { $0[$0.count / 2] ^= 1 }
        }
        #expect(throws: ReplicationError.self) { try rewrite(world) }
        #expect(world.count("condemned/") == 0)
        for (key, bytes) in whole where world.memory.bytes(key) != nil {
            world.memory.alter(key) { $0 = bytes }
        }
        #expect(try rewrite(world).rewritten.bundles > 0)
        try world.expectWhole(kept)
    }

    @Test(
        "Where a manifest cannot be read nothing is rewritten, and what is wholly dead still goes")
    func damagedManifest() throws {
        let (world, kept) = try world()
        let index = try ChunkIndex.load(try world.world.open())
        let need = index.need(of: kept[1].snapshot)
        let manifest = try #require(
            index.bundles.first { $0.kind == .manifest && need.bundles.contains($0.id) }?.id)
        let key = try #require(world.memory.keys.first { $0.text.contains(manifest.description) })
        world.memory.alter(key) { $0[$0.count - 40] ^= 1 }
        let report = try rewrite(world)
        #expect(report.foundDamage && report.written.bundles == 0)
        #expect(report.condemned.bundles > 0)
        #expect(report.notes.contains { $0.contains("nothing is rewritten") })
    }

    @Test(
        "Whichever store call it dies at, all listed snapshots restore, and the next prunes complete it",
        .timeLimit(.minutes(60)), arguments: [0, PruneWorld.grace],
        [FaultyStore.Fault.Timing.before, .after])
    func everyOperation(graceSeconds: Int, timing: FaultyStore.Fault.Timing) throws {
        func finish(_ world: PruneWorld) throws {
            for _ in 0..<3 {
                world.letGracePass()
                try rewrite(world)
            }
        }
        let (calm, calmKept) = try world(graceSeconds: graceSeconds)
        let counting = CrashingStore(calm.memory, crashAt: nil, writesOnly: true)
        #expect(try rewrite(calm, through: counting).written.bundles > 0)
        try finish(calm)
        try calm.expectWhole(calmKept)
        for number in 1...counting.operations {
            let what = "grace \(graceSeconds), \(timing) call \(number) of \(counting.operations)"
            let (world, kept) = try world(graceSeconds: graceSeconds)
            do {
                try rewrite(
                    world,
                    through: CrashingStore(
                        world.memory, crashAt: number, timing, writesOnly: true))
            } catch {
                #expect(error is ReplicationError || error is RepositoryError, "\(what): \(error)")
            }
            try world.expectWhole(kept, what)
            try world.expectSound(what)
            var expected = kept
            if number % 3 == 0 { expected += try world.nights(1, from: 5) }
            try finish(world)
            #expect(world.count("condemned/") == 0, "\(what): a condemned record stays")
            let last = try rewrite(world)
            #expect(last.condemned.bundles == 0 && last.stored == last.needed, "\(what)")
            #expect(
                try #require(last.unused) * 100 <= 5 * last.needed.bytes,
                "\(what): \(last.unused ?? 0) unused of \(last.needed.bytes)")
            try world.expectWhole(expected, "\(what), in the end")
            try world.expectSound("\(what), in the end")
        }
    }
}
