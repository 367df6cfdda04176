import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("What prune leaves alone, and where it stops")
struct PruneRuleTests {
    /// A world in which a prune would condemn and delete.
    private func world() throws -> (PruneWorld, [(snapshot: Snapshot, image: TreeImage)]) {
        let world = try PruneWorld()
        let nights = try world.nights(4)
        try world.forget([nights[0].snapshot])
        world.letGracePass()
        try world.prune()
        try world.forget([nights[1].snapshot])
        world.letGracePass()
        return (world, nights)
    }

    /// A prune that must refuse, and leave the store as it is.
    private func expectRefusal(
        _ world: PruneWorld, _ comment: Comment, location: SourceLocation = #_sourceLocation
    ) {
        let before = world.memory.contents
        #expect(throws: ReplicationError.self, comment, sourceLocation: location) {
            try world.prune()
        }
        let isUntouched = world.memory.contents == before
        #expect(isUntouched, comment, sourceLocation: location)
    }

    @Test(
        "Any record that cannot be read and authenticated stops it",
        arguments: ["snapshots/", "index/", "condemned/", "forgotten/", "runs/"])
    func damagedRecord(prefix: String) throws {
        let (world, _) = try world()
        if prefix == "runs/" {
            let now = Timestamp(nanosecondsSince1970: HostClock.now)
            let record = RunRecord(
                run: String(repeating: "a", count: 32), started: now, host: "first", roots: [])
            _ = try record.store(in: try world.world.open(), time: now, replacing: nil)
        }
        // Where this host has opened a record before, it knows its content: another host does not.
        world.world.host.loseCache()
        let key = try #require(world.memory.keys.last { $0.text.hasPrefix(prefix) })
        world.memory.alter(key) { $0[$0.count / 2] ^= 1 }
        expectRefusal(world, "\(prefix) altered")
    }

    @Test("A snapshot that has gone without being forgotten stops it")
    func vanished() throws {
        let (world, nights) = try world()
        let name = try #require(nights[3].snapshot.name)
        try world.world.open().deleteRecord(name)
        expectRefusal(world, "a snapshot vanished")
    }

    @Test("A bundle that is missing or cut stops it", arguments: [true, false])
    func missingBundle(isGone: Bool) throws {
        let (world, nights) = try world()
        let repository = try world.world.open()
        let need = try ChunkIndex.load(repository).need(of: nights[3].snapshot)
        let id = try #require(need.bundles.sorted().first)
        let key = try #require(world.memory.keys.first { $0.text.contains(id.description) })
        if isGone {
            try world.memory.delete(key)
        } else {
            world.memory.alter(key) { $0.removeLast() }
        }
        expectRefusal(world, "a needed bundle is damaged")
    }

    @Test("An index object that is missing stops it")
    func missingIndex() throws {
        let (world, nights) = try world()
        let before = world.memory.contents
        // One that describes only what nobody needs any more would be missed by nobody.
        for key in world.memory.keys where key.text.hasPrefix("index/") {
            try world.memory.delete(key)
            let index = try ChunkIndex.load(try world.world.open())
            if !index.need(of: nights[3].snapshot).missing.isEmpty { break }
            world.memory.plant(try #require(before[key]), at: key)
        }
        #expect(world.memory.keys.count == before.count - 1)
        expectRefusal(world, "an index object is missing")
    }

    @Test("A bundle that is there and that the index does not describe stops it")
    func undescribed() throws {
        let (world, nights) = try world()
        let repository = try world.world.open()
        let need = try ChunkIndex.load(repository).need(of: nights[3].snapshot)
        for (name, _, _) in try repository.listRecords(.index) {
            // Its lines are lost; those of the segments that need it are not.
            var copy = IndexCopy(dropping: need.bundles)
            try copy.add(try repository.readRecord(name), of: "index", keepsSegments: true)
            if copy.lines.count > 0 {
                try repository.putRecord(.index, time: nil, payload: copy.lines.bytes)
            }
            try repository.deleteRecord(name)
        }
        expectRefusal(world, "nobody knows what is in the bundles")
    }

    @Test("A store whose clock is two hours off stops it", arguments: [-7200, 7200])
    func clock(seconds: Int64) throws {
        let (world, _) = try world()
        world.clock.advance(seconds)
        expectRefusal(world, "clocks disagree")
    }

    @Test("Objects of unknown name stay, and so does what a run's lease names")
    func leftAlone() throws {
        let (world, nights) = try world()
        let unknown = [
            "bundles/README", "bundles/00/notes.txt", "condemned/old.txt", "future/thing", "x",
        ]
        for name in unknown {
            world.memory.plant(Array("mine".utf8), at: try #require(ObjectKey(name)))
        }
        let repository = try world.world.open()
        let lease = try #require(
            try repository.listRecords(.condemned).first.map {
                try CondemnedRecord($0, in: repository)
            })
        guard case .condemned(let doomed, _) = lease.state else { return }
        let now = Timestamp(nanosecondsSince1970: HostClock.now)
        var record = RunRecord(
            run: String(repeating: "a", count: 32), started: now, host: "first", roots: [])
        record.uses = doomed
        let name = try record.store(in: repository, time: now, replacing: nil)
        let held = try world.prune()
        #expect(held.deleted.bundles == 0 && held.held.bundles == doomed.count)
        try repository.deleteRecord(name)
        let report = try world.prune()
        #expect(report.deleted.bundles == doomed.count)
        for name in unknown {
            #expect(world.memory.bytes(try #require(ObjectKey(name))) != nil, "\(name)")
        }
        try world.expectWhole(Array(nights[2...]))
    }

    @Test("A lease is no reason any more after seven days by the store's clock")
    func oldLease() throws {
        let world = try PruneWorld()
        let nights = try world.nights(2)
        try world.forget([nights[0].snapshot])
        let repository = try world.world.open()
        let now = Timestamp(nanosecondsSince1970: HostClock.now)
        var record = RunRecord(
            run: String(repeating: "b", count: 32), started: now, host: "first", roots: [])
        record.uses = Array(try repository.listBundles().keys)
        _ = try record.store(in: repository, time: now, replacing: nil)
        world.letGracePass()
        #expect(try world.prune().condemned.bundles == 0)
        // The host's own clock cannot be turned here, so the lease is the older one.
        let key = try #require(world.memory.keys.first { $0.text.hasPrefix("runs/") })
        let bytes = try #require(world.memory.bytes(key))
        world.clock.advance(-8 * 86_400)
        world.memory.plant(bytes, at: key)
        world.clock.advance(8 * 86_400)
        #expect(try world.prune().condemned.bundles > 0)
        #expect(world.count("runs/") == 0)
    }

    @Test("What is condemned and needed all the same stays until nobody needs it")
    func held() throws {
        let world = try PruneWorld()
        let nights = try world.nights(2)
        let repository = try world.world.open()
        let need = try ChunkIndex.load(repository).need(of: nights[0].snapshot)
        _ = try HandMade.condemn(need.bundles, in: repository)
        world.letGracePass()
        let report = try world.prune()
        #expect(report.deleted.bundles == 0 && report.held.bundles == need.bundles.count)
        try world.expectWhole(nights)
        try world.expectSound()
    }

    @Test("A second copy is no reason to delete the first where it is condemned itself")
    func twoCopies() throws {
        let world = try PruneWorld()
        let nights = try world.nights(1)
        let repository = try world.world.open()
        let first = Set(try repository.listBundles().keys)
        let one = try HandMade.condemn(first, in: repository)
        // Packed again, and then condemned by somebody as well.
        let again = try world.nights(1, from: 0)
        let second = Set(try repository.listBundles().keys).subtracting(first)
        #expect(!second.isEmpty)
        _ = try HandMade.condemn(second, in: repository)
        world.letGracePass()
        let report = try world.prune()
        #expect(report.deleted.bundles == 0, "\(one.text)")
        try world.expectWhole(nights + again)
    }

    @Test("A store that lets nobody delete is told of, and nothing is announced there")
    func denied() throws {
        let (world, nights) = try world()
        let store = InterferingStore(world.memory) { (operation, subject) throws(StorageError) in
            guard operation == .delete else { return }
            throw StorageError(
                .denied, .delete, key: ObjectKey(subject), location: "a test",
                cause: "no deleting here")
        }
        let report = try world.prune(through: store)
        #expect(report.deletesDenied && report.deleted.bundles == 0)
        #expect(report.condemned.bundles == 0)
        try world.expectWhole(Array(nights[2...]))
        #expect(try world.prune().deleted.bundles > 0)
    }

    @Test("A bundle that the store keeps is reported with its date, and goes when that is over")
    func retained() throws {
        let (world, nights) = try world()
        let repository = try world.world.open()
        let record = try #require(try repository.listRecords(.condemned).first)
        guard case .condemned(let doomed, _) = try CondemnedRecord(record, in: repository).state
        else { return }
        let locked = try #require(doomed.first).description
        let until: Int64 = 2_000_000_000
        let store = InterferingStore(world.memory) { (operation, subject) throws(StorageError) in
            guard operation == .delete, subject.contains(locked) else { return }
            throw StorageError(
                .denied, .delete, key: ObjectKey(subject), location: "a test",
                cause: "under retention", retainedUntil: until)
        }
        let report = try world.prune(through: store)
        #expect(report.deleted.bundles == doomed.count - 1)
        #expect(report.retained.map(\.until) == [Timestamp(seconds: until)])
        world.letGracePass()
        #expect(try world.prune().deleted.bundles >= 1)
        try world.expectWhole(Array(nights[2...]))
        try world.expectSound()
    }

    @Test("A commit is begun early enough to arrive before what its look has seen can be deleted")
    func commitDeadline() throws {
        let config = try PruneWorld(graceSeconds: 1000).world.open().config
        let second: Int64 = 1_000_000_000
        #expect(CommitRule.deadline(lookedAt: 7 * second, config) == 757 * second)
        #expect(CommitRule.isYoung(lookedAt: HostClock.monotonic - 499 * second, config))
        #expect(!CommitRule.isYoung(lookedAt: HostClock.monotonic - 501 * second, config))
        let none = try PruneWorld(graceSeconds: 0).world.open().config
        #expect(CommitRule.deadline(lookedAt: 7 * second, none) == .max)
    }

    @Test("Many small index objects become few, and every snapshot stays whole")
    func mergesIndex() throws {
        let world = try PruneWorld()
        let nights = try world.nights(40)
        let before = world.count("index/")
        #expect(before >= 32)
        let merging = try world.prune()
        #expect(merging.indexMerged == before)
        world.letGracePass()
        let report = try world.prune()
        #expect(report.indexDeleted == before)
        #expect(world.count("index/") <= 2 && world.count("condemned/") == 0)
        try world.expectWhole(nights.suffix(3) + nights.prefix(2))
        try world.expectSound()
        try world.expectWhole(try world.nights(1, from: 40))
    }
}
