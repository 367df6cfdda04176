import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

@Suite("Forgetting, and taking it back")
struct ForgetTests {
    // 2026-03-31T22:00:00Z
    private static let evening: Int64 = 1_774_994_400
    private static let now = Timestamp(seconds: evening + 3600)

    /// A repository with snapshots of nothing, one a night up to that evening.
    private struct Nights {
        let world: World
        /// The oldest first.
        let snapshots: [Snapshot]

        init(_ count: Int, hosts: [String] = ["first"], store: any ObjectStore = MemoryStore())
            throws
        {
            world = try World(store: store, sourceInMemory: true)
            let repository = try world.open()
            var made: [Snapshot] = []
            for night in 0..<count {
                for host in hosts {
                    var snapshot = Snapshot(
                        time: Timestamp(seconds: evening - Int64(count - 1 - night) * 86_400),
                        host: host, roots: [Array("/srv".utf8)], program: "tests")
                    snapshot.name = try repository.putRecord(
                        .snapshot, time: snapshot.time, snapshot.json)
                    made.append(snapshot)
                }
            }
            snapshots = made
        }

        func catalog() throws -> SnapshotCatalog { try SnapshotCatalog.load(try world.open()) }
        func listed() throws -> [SnapshotID] { try catalog().snapshots.map(\.id) }

        func plan(_ rules: [RetentionRule], isWanted: (Snapshot) -> Bool = { _ in true }) throws
            -> ForgetPlan
        {
            try ForgetPlan.byPolicy(
                RetentionPolicy(rules), on: try catalog(), now: now, calendar: .utc,
                isWanted: isWanted)
        }

        @discardableResult
        func forget(_ plan: ForgetPlan, host: String = "first", at now: Timestamp = ForgetTests.now)
            throws -> Timestamp?
        {
            try Forget(try world.open(), host: host, now: now).execute(plan, on: try catalog())
        }

        @discardableResult
        func undo(_ undo: ForgetUndo, at now: Timestamp = ForgetTests.now) throws -> [SnapshotID] {
            try Forget(try world.open(), host: "first", now: now).undo(undo, on: try catalog())
        }

        func remove(_ snapshot: Snapshot) throws {
            let repository = try world.open()
            try repository.deleteRecord(try #require(snapshot.name))
        }
    }

    private static func last(_ count: Int) -> RetentionRule { .last(RetentionCount(count)!) }

    private func failure(_ body: () throws -> Void) -> ReplicationError? {
        do {
            try body()
            return nil
        } catch {
            return error as? ReplicationError
        }
    }

    @Test("What no rule keeps is no longer listed, and is brought back by an undo")
    func thereAndBack() throws {
        let nights = try Nights(5)
        let ids = nights.snapshots.map(\.id)
        let plan = try nights.plan([Self.last(2)])
        #expect(plan.forgotten.map(\.id) == Array(ids[..<3]))
        #expect(plan.keptCount == 2)
        let until = try nights.forget(plan)
        #expect(until == Timestamp(seconds: Self.now.seconds + 86_400))
        #expect(try nights.listed() == Array(ids[3...]))
        #expect(try nights.catalog().forgottenSnapshots.map(\.id) == Array(ids[..<3]))
        let undo = try ForgetUndo.last(in: try nights.catalog(), host: "first")
        #expect(try nights.undo(undo) == [])
        #expect(try nights.listed() == ids)
        #expect(try nights.catalog().forgotten.isEmpty)
    }

    @Test("Only a record is written: nothing is deleted, and nothing but records is looked at")
    func onlyRecord() throws {
        let store = RecordingStore(MemoryStore())
        let nights = try Nights(3, store: store)
        store.reset()
        try nights.forget(try nights.plan([Self.last(1)]))
        #expect(store.count(of: .put) == 1 && store.count(of: .put, below: "forgotten/") == 1)
        #expect(store.count(of: .delete) == 0)
        #expect(store.calls.allSatisfy { !$0.subject.hasPrefix("bundles/") })
        store.reset()
        try nights.undo(try ForgetUndo.last(in: try nights.catalog(), host: "first"))
        #expect(store.count(of: .put) == 1 && store.count(of: .put, below: "forgotten/") == 1)
        #expect(store.count(of: .delete) == 0)
    }

    @Test("Where everything stays nothing is written")
    func nothing() throws {
        let store = RecordingStore(MemoryStore())
        let nights = try Nights(3, store: store)
        store.reset()
        #expect(try nights.forget(try nights.plan([Self.last(3)])) == nil)
        #expect(store.count(of: .put) == 0)
    }

    @Test("A policy judges only what is selected, each host by itself")
    func selection() throws {
        let nights = try Nights(3, hosts: ["first", "second"])
        let plan = try nights.plan([Self.last(1)]) { $0.host == "second" }
        #expect(plan.forgotten.map(\.host) == ["second", "second"])
        #expect(plan.groups.count == 1)
        #expect(try nights.plan([Self.last(1)]).groups.map(\.key.host) == ["first", "second"])
    }

    @Test("A policy without rules, or one that leaves nothing, is refused in words")
    func refusals() throws {
        let nights = try Nights(3, hosts: ["first", "second"])
        let noRules = try #require(failure { _ = try nights.plan([]) })
        #expect(noRules.kind == .usage)
        let nothing = try #require(failure { _ = try nights.plan([.tag("monthly")]) })
        #expect(nothing.kind == .repository(.refused))
        #expect(nothing.message.contains("host second, paths /srv"))
    }

    @Test("A pinned snapshot is refused by name, and goes once the pin is away")
    func pins() throws {
        let nights = try Nights(3)
        let repository = try nights.world.open()
        func pin(_ isPinned: Bool, at seconds: Int64) throws {
            var mark = MarkRecord(snapshot: nights.snapshots[0].id)
            mark.pin = isPinned
            try mark.store(in: repository, time: Timestamp(seconds: seconds), host: "first")
        }
        try pin(true, at: 10)
        #expect(try nights.plan([Self.last(1)]).forgotten.count == 1)
        let refused = try #require(
            failure { _ = try ForgetPlan.naming(try nights.catalog().snapshots) })
        #expect(refused.kind == .repository(.refused) && refused.remedy.contains("--no-pin"))
        try pin(false, at: 20)
        try nights.forget(try ForgetPlan.naming(try nights.catalog().snapshots))
        #expect(try nights.listed() == [])
    }

    @Test("Snapshots named twice are forgotten once")
    func twice() throws {
        let nights = try Nights(2)
        let plan = try ForgetPlan.naming([
            nights.snapshots[1], nights.snapshots[0], nights.snapshots[1],
        ])
        #expect(plan.forgotten.map(\.id) == nights.snapshots.map(\.id))
    }

    // MARK: What cannot be read

    @Test(
        "What cannot be read may be a pin: no rule is applied, but names are",
        arguments: [RecordType.mark, .forgotten, .condemned])
    func unreadable(_ type: RecordType) throws {
        let store = MemoryStore()
        let nights = try Nights(3, store: store)
        let repository = try nights.world.open()
        let name = try repository.putRecord(
            type, time: Self.now,
            .object([("time", .string(Self.now.text)), ("host", .string("x"))]))
        let key = try #require(ObjectKey(repository.recordKey(name)))
        store.alter(key) { $0[$0.count / 2] ^= 1 }
        let refused = try #require(failure { _ = try nights.plan([Self.last(1)]) })
        #expect(refused.kind == .repository(.damaged))
        #expect(refused.subject == key.text)
        try nights.forget(try ForgetPlan.naming([nights.snapshots[0]]))
        #expect(try nights.listed().count == 2)
    }

    @Test("A snapshot that cannot be read makes no other one go")
    func unreadableSnapshot() throws {
        let store = MemoryStore()
        let nights = try Nights(4, store: store)
        let repository = try nights.world.open()
        let name = try #require(nights.snapshots[3].name)
        let key = try #require(ObjectKey(repository.recordKey(name)))
        store.alter(key) { $0[$0.count / 2] ^= 1 }
        let plan = try nights.plan([Self.last(2)])
        #expect(plan.forgotten.map(\.id) == [nights.snapshots[0].id])
    }

    // MARK: Undo

    @Test("An undo takes back the last forgetting of this host, then the one before")
    func inTurn() throws {
        let nights = try Nights(5)
        let ids = nights.snapshots.map(\.id)
        try nights.forget(try ForgetPlan.naming([nights.snapshots[0]]))
        try nights.forget(try ForgetPlan.naming([nights.snapshots[1]]), host: "second")
        try nights.forget(
            try ForgetPlan.naming([nights.snapshots[2]]),
            at: Timestamp(seconds: Self.evening + 9999))
        func undoLast() throws -> [SnapshotID] {
            let undo = try ForgetUndo.last(in: try nights.catalog(), host: "first")
            try nights.undo(undo)
            return undo.snapshots.map(\.id)
        }
        #expect(try undoLast() == [ids[2]])
        #expect(try undoLast() == [ids[0]])
        let error = try #require(failure { _ = try undoLast() })
        #expect(error.kind == .repository(.notFound))
        #expect(error.remedy.contains(ids[1].short))
        try nights.undo(try ForgetUndo.naming([ids[1].short], in: try nights.catalog()))
        #expect(try nights.listed() == ids)
    }

    @Test("An undo by name says why a name is none")
    func names() throws {
        let nights = try Nights(3)
        try nights.forget(try ForgetPlan.naming([nights.snapshots[0], nights.snapshots[1]]))
        try nights.remove(nights.snapshots[1])
        let catalog = try nights.catalog()
        func message(_ name: String) -> String {
            failure { _ = try ForgetUndo.naming([name], in: catalog) }.map {
                "\($0.message); \($0.remedy)"
            } ?? ""
        }
        #expect(message("latest").contains("beginning of an id"))
        #expect(message("abc").contains("beginning of an id"))
        #expect(message(nights.snapshots[2].id.short).contains("is not forgotten"))
        #expect(message(nights.snapshots[1].id.short).contains("prune has removed it"))
        #expect(message(String(repeating: "0", count: 64)).contains(nights.snapshots[0].id.short))
        #expect(message(nights.snapshots[0].id.short) == "")
    }

    @Test("What prune removes during an undo stays forgotten, and nobody is said to have taken it")
    func removedMeanwhile() throws {
        let nights = try Nights(3)
        try nights.forget(try ForgetPlan.naming([nights.snapshots[0], nights.snapshots[1]]))
        let undo = try ForgetUndo.last(in: try nights.catalog(), host: "first")
        try nights.remove(nights.snapshots[1])
        #expect(try nights.undo(undo) == [nights.snapshots[1].id])
        #expect(try nights.listed() == [nights.snapshots[0].id, nights.snapshots[2].id])
        #expect(try nights.catalog().forgotten == [nights.snapshots[1].id])
    }

    @Test(
        "The last word counts, whichever of the hosts has a clock that is ahead",
        arguments: [-7200, 0, 7200] as [Int64])
    func clocks(_ ahead: Int64) throws {
        let nights = try Nights(2)
        let other = Timestamp(seconds: Self.now.seconds + ahead)
        let id = nights.snapshots[0].id
        for round in 0..<3 {
            try nights.forget(try ForgetPlan.naming([nights.snapshots[0]]))
            #expect(try nights.listed().contains(id) == false, "round \(round)")
            try nights.undo(try ForgetUndo.naming([id.short], in: try nights.catalog()), at: other)
            #expect(try nights.listed().contains(id), "round \(round)")
        }
    }

    // MARK: Beside others

    @Test("Two hosts that forget at once forget what both of them would")
    func atOnce() throws {
        let nights = try Nights(12)
        let catalogs = [try nights.catalog(), try nights.catalog()]
        let counts = [4, 3]
        let failures = Mutex<[String]>([])
        inParallel(2) { number in
            do {
                let plan = try ForgetPlan.byPolicy(
                    RetentionPolicy([Self.last(counts[number])]), on: catalogs[number],
                    now: Self.now, calendar: .utc)
                _ = try Forget(try nights.world.open(), host: "host-\(number)", now: Self.now)
                    .execute(plan, on: catalogs[number])
            } catch {
                failures.withLock { $0.append("\(error)") }
            }
        }
        #expect(failures.withLock { $0 } == [])
        #expect(try nights.listed() == nights.snapshots.suffix(3).map(\.id))
    }

    @Test(
        "Forgetting the snapshot that a backup builds on, at any phase of it, leaves the new one whole",
        arguments: 0..<8)
    func besideBackup(phase: Int) throws {
        let world = try World(sourceInMemory: true)
        plantTree(world.source, files: 12, largeBytes: 500_000)
        try world.backup()
        world.settle()
        world.source.put(Array("more".utf8), "more")
        let phases = Atomic<Int>(0)
        let failure = Mutex<String?>(nil)
        let monitor = EventMonitor(onPhase: { _ in
            guard phases.add(1, ordering: .relaxed).oldValue == phase else { return }
            do {
                let repository = try world.open()
                let catalog = try SnapshotCatalog.load(repository)
                _ = try Forget(repository, host: "second", now: Self.now).execute(
                    try ForgetPlan.naming(catalog.snapshots), on: catalog)
            } catch {
                failure.withLock { $0 = "\(error)" }
            }
        })
        let report = try world.backup(monitor: monitor)
        #expect(failure.withLock { $0 } == nil)
        let isForgotten = phases.load(ordering: .relaxed) > phase
        #expect(try world.snapshots().count == (isForgotten ? 1 : 2))
        #expect(
            TreeImage(of: world.source.path).differences(try world.image(of: report.snapshot)) == []
        )
        #expect(try world.verify(data: true).isSound)
    }

    @Test("A forgotten snapshot restores whole once it is back")
    func restored() throws {
        let world = try World(sourceInMemory: true)
        plantTree(world.source, files: 12, largeBytes: 500_000)
        let image = TreeImage(of: world.source.path)
        let first = try world.backup().snapshot
        world.source.put(Array("more".utf8), "more")
        try world.backup()
        let repository = try world.open()
        let forget = Forget(repository, host: "first", now: Self.now)
        var catalog = try SnapshotCatalog.load(repository)
        _ = try forget.execute(try ForgetPlan.naming([first]), on: catalog)
        catalog = try SnapshotCatalog.load(repository)
        _ = try forget.undo(try ForgetUndo.last(in: catalog, host: "first"), on: catalog)
        #expect(image.differences(try world.image(of: first)) == [])
    }
}
