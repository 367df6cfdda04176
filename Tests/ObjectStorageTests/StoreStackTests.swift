import ObjectStorage
import Synchronization
import TestSupport
import Testing

@Suite("Wrappers around a store")
struct StoreStackTests {
    private func key(_ text: String) -> ObjectKey { ObjectKey(validated: text) }

    /// Everything that can be put around a store, in virtual time.
    private func settings(_ time: VirtualTime) -> StoreSettings {
        var settings = StoreSettings(
            counter: TrafficCounter(), surroundings: time.surroundings, secondOfWeek: { 0 })
        settings.uploadLimit = RateTimetable(bytesPerSecond: 1_000_000_000)
        settings.downloadLimit = RateTimetable(bytesPerSecond: 1_000_000_000)
        settings.concurrency = .init(start: nil, maximum: 16)
        settings.countsCalls = true
        return settings
    }

    @Test("A store in all its wrappers keeps every promise")
    func contract() {
        let memory = MemoryStore()
        let (store, _) = StoreStack.wrap(memory, settings(VirtualTime()))
        #expect(StoreContract.run(store, listedObjects: 300) == [])
        #expect(memory.keys == [])
    }

    @Test(
        "A store in all its wrappers keeps every promise while its calls fail",
        arguments: 1...3 as ClosedRange<UInt64>)
    func contractWithFaults(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var faults: [FaultyStore.Fault] = []
        for (operation, calls, count) in [
            (StoreOperation.put, 200, 60), (.get, 60, 20), (.range, 60, 20), (.head, 8, 5),
            (.list, 20, 10), (.delete, 60, 20), (.clock, 2, 2),
        ] {
            for occurrence in (1...calls).shuffled(using: &generator).prefix(count) {
                faults.append(
                    .init(
                        operation, occurrence: occurrence,
                        Bool.random(using: &generator) ? .before : .after,
                        kind: Bool.random(using: &generator) ? .unavailable : .io,
                        isTransient: true))
            }
        }
        let memory = MemoryStore()
        let faulty = FaultyStore(memory, faults: faults)
        let settings = settings(VirtualTime(seed: seed))
        let (store, controls) = StoreStack.wrap(faulty, settings)
        #expect(StoreContract.run(store, listedObjects: 200) == [], "seed \(seed)")
        #expect(memory.keys == [], "seed \(seed)")
        #expect(faulty.pending.isEmpty, "seed \(seed)")
        // A call that is refused anyway, or a listing that was left, is not made again.
        #expect(controls.counter.now.retries > faulty.firedCount * 8 / 10, "seed \(seed)")
    }

    @Test("Objects are deleted together where the store can do so, and a refusal is heard")
    func bulkDelete() throws {
        let memory = MemoryStore()
        let spy = BulkSpy(memory)
        var settings = settings(VirtualTime())
        settings.countsCalls = false
        let (store, controls) = StoreStack.wrap(spy, settings)
        let keys = (0..<20).map { key("d/\($0)") }
        for key in keys { memory.plant([1], at: key) }
        spy.refusals.store(2, ordering: .relaxed)
        store.delete(keys) { _, _ in Issue.record("a delete failed") }
        #expect(memory.keys.isEmpty)
        #expect(spy.calls.value == 3)
        #expect(controls.counter.now.retries == 2)
        // Halved at the first refusal and again at the second.
        #expect(controls.concurrency == 1)
    }

    @Test("What is around a store shows through: its abilities, its time, its spool files")
    func forwarding() throws {
        let memory = MemoryStore(clock: { 1_234 })
        let (store, controls) = StoreStack.wrap(memory, settings(VirtualTime()))
        #expect(store.capabilities == memory.capabilities)
        #expect(try store.currentTime() == 1_234)
        #expect(try store.makeSpool().length == 0)
        #expect(controls.concurrency == 4)
        // Under a limit of the rate nothing is learned of the store.
        #expect(controls.settledConcurrency == nil)
    }

    @Test("Without settings a store is only made patient")
    func bare() throws {
        let time = VirtualTime()
        let settings = StoreSettings(
            counter: TrafficCounter(), surroundings: time.surroundings, secondOfWeek: { 0 })
        let (store, controls) = StoreStack.wrap(MemoryStore(), settings)
        #expect(controls.concurrency == nil)
        #expect(controls.settledConcurrency == nil)
        #expect(store is RetryingStore)
        try store.put([1], at: key("a"))
        #expect(controls.counter.now.requests == [:])
        #expect(controls.counter.now.bytesSent == 0)
        #expect(throws: StorageError.self) {
            try store.withDeadline(time.now - 1).put([2], at: key("b"))
        }
    }

    @Test("Where a run settled, the next one begins")
    func remembered() {
        var settings = StoreSettings(
            counter: TrafficCounter(), surroundings: VirtualTime().surroundings,
            secondOfWeek: { 0 })
        settings.concurrency = .init(start: 11, maximum: 32)
        #expect(StoreStack.wrap(MemoryStore(), settings).controls.settledConcurrency == 11)
        settings.concurrency = .init(start: 200, maximum: 8)
        #expect(StoreStack.wrap(MemoryStore(), settings).controls.settledConcurrency == 8)
        settings.concurrency = .init(start: 0, maximum: 0)
        #expect(StoreStack.wrap(MemoryStore(), settings).controls.settledConcurrency == 1)
    }

    @Test("Calls and bytes are counted, those that fail and those made again too")
    func counting() throws {
        let time = VirtualTime()
        let faulty = FaultyStore(MemoryStore(), faults: [.init(.put, isTransient: true)])
        var settings = StoreSettings(
            counter: TrafficCounter(), surroundings: time.surroundings, secondOfWeek: { 0 })
        settings.countsCalls = true
        let (store, controls) = StoreStack.wrap(faulty, settings)
        try store.put([1, 2, 3], at: key("a"))
        _ = try store.get(key("a"))
        var buffer = [UInt8](repeating: 0, count: 10)
        _ = try buffer.withUnsafeMutableBytes {
            try store.get(key("a"), range: 1..<11, into: $0)
        }
        _ = try store.head(key("a"))
        _ = try store.list(prefix: "")
        _ = try store.currentTime()
        _ = try store.makeSpool()
        try store.delete(key("a"))
        store.delete([key("b"), key("c")]) { _, _ in Issue.record("a delete failed") }
        _ = try? store.get(key("a"))
        var expected = TrafficCounter.Counts()
        expected.requests = [.put: 2, .get: 3, .head: 1, .list: 1, .other: 1, .delete: 3]
        expected.bytesSent = 3
        expected.bytesReceived = 5
        expected.retries = 1
        // Each attempt of a call was timed.
        var counted = controls.counter.now
        #expect(counted.latencies[.get]?.count == 3)
        #expect(counted.latencies[.put]?.count == 2)
        counted.latencies = [:]
        #expect(counted == expected)
        #expect(controls.counter.now.total == 11)
    }

    @Test("Where nothing may be written nothing is, and the error says why and what to do")
    func readOnly() throws {
        let memory = MemoryStore()
        memory.plant([1, 2], at: key("a"))
        let before = memory.contents
        var settings = settings(VirtualTime())
        settings.readOnly = (
            reason: "this run only shows what it would do", remedy: "leave out --dry-run"
        )
        let (store, _) = StoreStack.wrap(memory, settings)
        for error in [
            #expect(throws: StorageError.self) { try store.put([3], at: key("b")) },
            #expect(throws: StorageError.self) { try store.delete(key("a")) },
            #expect(throws: StorageError.self) { try store.makeSpool() },
        ] {
            #expect(error?.kind == .readOnly)
            #expect(error?.isTransient == false)
            #expect(error?.cause == "this run only shows what it would do")
            #expect(error?.remedy == "leave out --dry-run")
        }
        var refused: [StorageError.Kind] = []
        store.delete([key("a"), key("b")]) { refused.append($1.kind) }
        #expect(refused == [.readOnly, .readOnly])
        store.removeEmptyDirectories(below: "")
        #expect(memory.contents == before)
        #expect(try store.get(key("a")) == [1, 2])
        #expect(try store.head(key("a"))?.length == 2)
        #expect(try store.list(prefix: "").count == 1)
    }
}

/// Counts deletes of many objects, and refuses some of them because it is asked too much.
private final class BulkSpy: StoreDecorator {
    let base: any ObjectStore
    let calls = Counter()
    let refusals = Atomic<Int>(0)

    init(_ base: any ObjectStore) { self.base = base }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        _ = try effect()
    }

    func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        _ = calls.next()
        if refusals.subtract(1, ordering: .relaxed).oldValue > 0 {
            for key in keys { failed(key, transient(isOverload: true)) }
        } else {
            base.delete(keys, failed)
        }
    }
}
