import ObjectStorage
import Synchronization
import TestSupport
import Testing

@Suite("Calls that are made again")
struct RetryingStoreTests {
    private let key = ObjectKey(validated: "bundles/ab/c")

    /// A store in memory that fails as `check` says, and the store that retries it.
    private func retrying(
        _ time: VirtualTime, _ policy: RetryPolicy = RetryPolicy(),
        counter: TrafficCounter? = nil,
        _ check: @escaping @Sendable (Int) throws(StorageError) -> Void
    ) -> (RetryingStore, MemoryStore, Counter) {
        let memory = MemoryStore()
        let calls = Counter()
        let guarded = GuardedStore(memory) { (_, _) throws(StorageError) in
            try check(calls.next())
        }
        let store = RetryingStore(
            guarded, policy: policy, surroundings: time.surroundings, counter: counter)
        return (store, memory, calls)
    }

    @Test("Waits double up to their ceiling, and chance takes from them what it likes")
    func backOff() throws {
        let time = VirtualTime(chance: 0.999_999)
        let counter = TrafficCounter()
        let (store, _, calls) = retrying(time, counter: counter) { (call) throws(StorageError) in
            if call <= 10 { throw transient() }
        }
        let began = time.seconds
        #expect(try store.head(key) == nil)
        #expect(calls.value == 11)
        #expect(counter.now.retries == 10)
        let ceilings = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
        var waits: [Double] = []
        for event in time.events {
            if case .retrying(_, let attempt, let wait) = event {
                waits.append(wait)
                #expect(attempt == waits.count)
            }
        }
        #expect(waits.map { ($0 * 100).rounded() / 100 } == ceilings)
        #expect(abs(time.seconds - began - ceilings.reduce(0, +)) < 0.01)
        guard case .recovered(10, let failing) = time.events.last else {
            Issue.record("no recovery is told: \(time.events)")
            return
        }
        #expect(abs(failing - ceilings.reduce(0, +)) < 0.01)
    }

    @Test("Who failed together does not come back together", arguments: 0..<5 as Range<UInt64>)
    func jitter(seed: UInt64) throws {
        var waits: Set<Double> = []
        let time = VirtualTime(seed: seed)
        for _ in 0..<20 {
            let (store, _, _) = retrying(time) { (call) throws(StorageError) in
                if call == 1 { throw transient() }
            }
            _ = try store.head(key)
        }
        for event in time.events {
            if case .retrying(_, _, let wait) = event {
                #expect((0.05...0.5).contains(wait))
                waits.insert(wait)
            }
        }
        #expect(waits.count > 10)
        #expect(waits.max()! - waits.min()! > 0.2)
    }

    @Test("What the store says will not pass is thrown at once, unaltered")
    func permanent() {
        let time = VirtualTime()
        let (store, _, calls) = retrying(time) { (_) throws(StorageError) in
            throw StorageError(.denied, .put, location: "a store", cause: "no")
        }
        let error = #expect(throws: StorageError.self) { try store.put([1], at: key) }
        #expect(error?.kind == .denied)
        #expect(error?.cause == "no")
        #expect(calls.value == 1)
        #expect(time.events.isEmpty)
    }

    @Test("A store that is not there is waited for as long as patience lasts, and no longer")
    func patience() {
        for seed in 0..<20 as Range<UInt64> {
            let time = VirtualTime(seed: seed)
            let (store, _, _) = retrying(time) { (_) throws(StorageError) in throw transient() }
            let began = time.seconds
            let error = #expect(throws: StorageError.self) { try store.head(key) }
            // The last attempt comes exactly when patience ends.
            #expect(abs(time.seconds - began - 900) < 0.001, "seed \(seed)")
            #expect(error?.isTransient == true)
            #expect(error?.cause.contains("given up after") == true)
        }
    }

    @Test("A line that is lost for ten minutes costs a run nothing but the time")
    func lostLine() throws {
        let time = VirtualTime(seed: 7)
        let back = time.now + 600_000_000_000
        let (store, memory, _) = retrying(time) { (_) throws(StorageError) in
            if time.now < back { throw transient() }
        }
        try store.put([1, 2, 3], at: key)
        #expect(memory.bytes(key) == [1, 2, 3])
        // It goes on soon after.
        #expect(time.now - back <= 30_000_000_000)
    }

    @Test("What fails for another reason is tried a few times only, overload as long as patience")
    func attempts() {
        for (kind, isOverload, expected) in [
            (StorageError.Kind.io, false, 8...8), (.lost, false, 8...8), (.io, true, 30...1_000),
        ] {
            let time = VirtualTime(seed: 3)
            let (store, _, calls) = retrying(time) { (_) throws(StorageError) in
                throw transient(kind, isOverload: isOverload)
            }
            let error = #expect(throws: StorageError.self) { try store.head(key) }
            #expect(error?.kind == kind)
            #expect(expected.contains(calls.value))
        }
    }

    @Test("The time for which a store asks to be left alone is kept")
    func retryAfter() throws {
        let time = VirtualTime(chance: 0)
        let (store, _, _) = retrying(time) { (call) throws(StorageError) in
            if call == 1 { throw transient(isOverload: true, retryAfterSeconds: 120) }
        }
        let began = time.seconds
        _ = try store.head(key)
        #expect((120..<120.5).contains(time.seconds - began))
        // Longer than patience lasts: there is nothing to wait for.
        let (hopeless, _, calls) = retrying(time) { (_) throws(StorageError) in
            throw transient(isOverload: true, retryAfterSeconds: 3_600)
        }
        let before = time.seconds
        let error = #expect(throws: StorageError.self) { try hopeless.head(key) }
        #expect(calls.value == 1)
        #expect(time.seconds == before)
        #expect(error?.cause.contains("3600 s") == true)
    }

    @Test(
        "A store may ask for any nonsense of a time", arguments: [-1, 0, .nan, .infinity, 1e300])
    func nonsenseTimes(seconds: Double) {
        let time = VirtualTime(chance: 0)
        let (store, _, _) = retrying(time) { (call) throws(StorageError) in
            if call == 1 { throw transient(retryAfterSeconds: seconds) }
        }
        let answer = Result { try store.head(key) }
        #expect((try? answer.get()) == .some(.none) || seconds > 900)
        #expect(time.events.isEmpty == (seconds > 900))
    }

    @Test("No attempt begins at the deadline or behind it")
    func deadline() throws {
        let time = VirtualTime(chance: 0.5)
        let (store, memory, calls) = retrying(time) { (_) throws(StorageError) in
            throw transient()
        }
        let deadline = time.now + 20_000_000_000
        let bounded = store.withDeadline(deadline)
        let error = #expect(throws: StorageError.self) { try bounded.put([1], at: key) }
        #expect(error?.cause.contains("leaves no further attempt") == true)
        #expect(time.now < deadline)
        #expect(calls.value > 3)
        let before = calls.value
        time.advance(seconds: 30)
        let late = #expect(throws: StorageError.self) { try bounded.put([1], at: key) }
        #expect(late?.isTransient == false)
        #expect(late?.cause.contains("is over") == true)
        #expect(calls.value == before)
        #expect(memory.keys.isEmpty)
        // The store itself is as patient as before.
        _ = #expect(throws: StorageError.self) { try store.head(key) }
        #expect(time.now > deadline + 900_000_000_000)
    }

    @Test("Any store can be asked to keep a deadline, and the nearer one holds")
    func deadlines() throws {
        let time = VirtualTime()
        let memory = MemoryStore()
        let plain: any ObjectStore = memory
        try plain.withDeadline(0).put([1], at: key)
        let store: any ObjectStore = RetryingStore(memory, surroundings: time.surroundings)
        let early = store.withDeadline(time.now + 1_000)
        try early.put([1], at: key)
        time.advance(seconds: 1)
        #expect(throws: StorageError.self) { try early.put([1], at: key) }
        #expect(throws: StorageError.self) {
            try early.withDeadline(time.now + 1_000_000).put([1], at: key)
        }
    }

    @Test("Who is to stop does not wait another moment, but a first attempt is made")
    func interruption() throws {
        let time = VirtualTime(chance: 0.9)
        let (store, _, calls) = retrying(time) { (_) throws(StorageError) in throw transient() }
        time.stop(afterSeconds: 3)
        let began = time.seconds
        let error = #expect(throws: StorageError.self) { try store.head(key) }
        #expect(time.seconds - began <= 3.2)
        #expect(error?.cause.contains("interrupted") == true)
        #expect(calls.value > 1)
        let before = calls.value
        _ = #expect(throws: StorageError.self) { try store.head(key) }
        #expect(calls.value == before + 1)
        #expect(time.seconds - began <= 3.2)
    }

    @Test("A host that was asleep while it waited has lost no patience")
    func suspend() throws {
        let time = VirtualTime(chance: 0.5)
        let awake = Mutex<Int64?>(nil)
        let (store, _, _) = retrying(time) { (call) throws(StorageError) in
            if call == 3 { time.oversleep(seconds: 8 * 3_600) }
            if call == 4 { awake.withLock { $0 = time.now + 60_000_000_000 } }
            // The network needs a minute after the night.
            if call < 4 || time.now < awake.withLock({ $0! }) { throw transient() }
        }
        #expect(try store.head(key) == nil)
    }

    @Test("A put whose answer was lost is made again, and once is enough")
    func lostAnswer() throws {
        let time = VirtualTime()
        let memory = MemoryStore()
        let faulty = FaultyStore(
            memory, faults: [.init(.put, .after, isTransient: true)])
        let store = RetryingStore(faulty, surroundings: time.surroundings)
        try store.put([7, 8], at: key)
        #expect(faulty.pending.isEmpty)
        #expect(memory.bytes(key) == [7, 8])
    }

    @Test("A listing that breaks off anywhere hands out each object once, in order")
    func brokenListing() throws {
        let memory = MemoryStore()
        let names = (0..<40).map { "l/\(100 + $0)" }
        for name in names { memory.plant([1], at: ObjectKey(validated: name)) }
        for seed in 0..<20 as Range<UInt64> {
            let time = VirtualTime(seed: seed)
            let broken = BreakingStore(memory, seed: seed)
            let store = RetryingStore(broken, surroundings: time.surroundings)
            #expect(try store.list(prefix: "l/").map(\.key.text) == names, "seed \(seed)")
            #expect(broken.breaks.value > 0, "seed \(seed)")
            var some: [String] = []
            try store.list(prefix: "l/") { object in
                some.append(object.key.text)
                return some.count < 7
            }
            #expect(some == Array(names.prefix(7)), "seed \(seed)")
            var rest: [String] = []
            try store.list(prefix: "l/", after: ObjectKey(validated: names[4])) { object in
                rest.append(object.key.text)
                return true
            }
            #expect(rest == Array(names.dropFirst(5)), "seed \(seed)")
        }
    }

    @Test("A listing that gets on is not given up, however often it breaks off")
    func slowListing() throws {
        let memory = MemoryStore()
        for index in 0..<200 { memory.plant([1], at: ObjectKey(validated: "l/\(1_000 + index)")) }
        let broken = BreakingStore(memory, every: 1, kind: .io)
        let store = RetryingStore(broken, surroundings: VirtualTime().surroundings)
        #expect(try store.list(prefix: "l/").count == 200)
        #expect(broken.breaks.value >= 200)
    }

    @Test("Digests that break off are asked for what is missing only")
    func brokenDigests() throws {
        let memory = MemoryStore()
        let keys = (0..<30).map { ObjectKey(validated: "d/\($0)") }
        for (index, key) in keys.enumerated() { memory.plant([UInt8(index)], at: key) }
        let broken = BreakingStore(memory, seed: 5)
        let store = RetryingStore(broken, surroundings: VirtualTime().surroundings)
        var found: [ObjectKey: [UInt8]] = [:]
        try store.digests(of: keys) { key, digest in
            #expect(found.updateValue(digest, forKey: key) == nil)
            return true
        }
        #expect(found.count == 30)
        #expect(found[keys[3]] == sha256([3]))
        #expect(broken.breaks.value > 0)
    }

    @Test("Of many objects deleted at once, those are deleted again that may yet be deleted")
    func bulkDelete() {
        let memory = MemoryStore()
        let keys = (0..<50).map { ObjectKey(validated: "d/\($0)") }
        for key in keys { memory.plant([1], at: key) }
        for seed in 0..<10 as Range<UInt64> {
            let generator = Mutex(SeededGenerator(seed: seed))
            let time = VirtualTime(seed: seed)
            let counter = TrafficCounter()
            let guarded = GuardedStore(memory.copy()) { (_, subject) throws(StorageError) in
                if subject == "d/7" {
                    throw StorageError(.denied, .delete, location: "a store", cause: "no")
                }
                if generator.withLock({ Bool.random(using: &$0) }) { throw transient(.io) }
            }
            let store = RetryingStore(
                guarded, surroundings: time.surroundings, counter: counter)
            var failed: [ObjectKey: StorageError.Kind] = [:]
            store.delete(keys) { failed[$0] = $1.kind }
            #expect(failed == [keys[7]: .denied], "seed \(seed)")
            #expect((try? store.list(prefix: ""))?.map(\.key) == [keys[7]], "seed \(seed)")
            #expect((2...30).contains(counter.now.retries), "seed \(seed)")
        }
    }

    @Test("Objects that cannot be deleted are all named when patience or time is over")
    func hopelessBulkDelete() {
        let keys = (0..<5).map { ObjectKey(validated: "d/\($0)") }
        let time = VirtualTime()
        let (store, _, calls) = retrying(time) { (_) throws(StorageError) in throw transient() }
        var failed: [ObjectKey] = []
        let began = time.seconds
        store.delete(keys) { key, _ in failed.append(key) }
        #expect(failed == keys)
        #expect(abs(time.seconds - began - 900) < 0.001)
        let before = calls.value
        failed = []
        store.withDeadline(time.now).delete(keys) { key, _ in failed.append(key) }
        #expect(failed == keys)
        #expect(calls.value == before)
    }

    @Test("Waiting for a store tells what it waits for, and that it came")
    func waitingOnline() throws {
        let time = VirtualTime(seed: 2)
        let back = time.now + 3_000_000_000_000
        let store = GuardedStore(MemoryStore()) { (_, _) throws(StorageError) in
            if time.now < back { throw transient() }
        }
        var policy = RetryPolicy()
        policy.patienceSeconds = 7_200
        try waitUntilReachable(
            store, probing: key, policy: policy, surroundings: time.surroundings)
        guard case .unreachable(let error, let wait, let left) = time.events.first,
            case .reachable(let seconds) = time.events.last
        else {
            Issue.record("the events are \(time.events)")
            return
        }
        #expect(error.kind == .unavailable)
        #expect(wait <= 0.5)
        #expect(left == 7_200)
        #expect((3_000...3_030).contains(seconds))
        // At once where it answers, and not for ever where it does not.
        let events = time.events.count
        try waitUntilReachable(
            store, probing: key, policy: policy, surroundings: time.surroundings)
        #expect(time.events.count == events)
        let never = GuardedStore(MemoryStore()) { (_, _) throws(StorageError) in
            throw transient(.io)
        }
        let began = time.seconds
        #expect(throws: StorageError.self) {
            try waitUntilReachable(
                never, probing: key, policy: policy, surroundings: time.surroundings)
        }
        #expect(abs(time.seconds - began - 7_200) < 0.001)
    }

    @Test("Patience that begins with the call is used up by the first attempt as well")
    func patienceFromTheBeginning() {
        var policy = RetryPolicy()
        policy.patienceSeconds = 10
        policy.countsFirstAttempt = true
        let expected: [(Double, ClosedRange<Double>)] = [
            (30, 29.999...30.001), (4, 12...13.6), (0, 9.999...10.001),
        ]
        for (attemptSeconds, takes) in expected {
            let time = VirtualTime()
            let began = time.seconds
            let error = #expect(throws: StorageError.self) {
                try waitUntilReachable(policy: policy, surroundings: time.surroundings) {
                    () throws(StorageError) in
                    time.advance(seconds: attemptSeconds)
                    throw transient()
                }
            }
            #expect(error?.cause.contains("given up after") == true)
            let taken = time.seconds - began
            #expect(takes.contains(taken), "\(attemptSeconds): \(taken)")
        }
    }

    @Test("A store that answers with a refusal is not waited for")
    func refusal() {
        let time = VirtualTime()
        let store = GuardedStore(MemoryStore()) { (_, _) throws(StorageError) in
            throw StorageError(.denied, .head, location: "a store", cause: "no")
        }
        #expect(throws: StorageError.self) {
            try waitUntilReachable(
                store, probing: key, policy: RetryPolicy(), surroundings: time.surroundings)
        }
        #expect(time.events.isEmpty)
    }
}

/// A store whose listings and digests break off after some objects.
private final class BreakingStore: StoreDecorator {
    let base: any ObjectStore
    let breaks = Counter()
    private let generator: Mutex<SeededGenerator>
    private let every: Int?
    private let kind: StorageError.Kind

    /// - Parameter every: Objects until it breaks; by chance where nil.
    init(
        _ base: any ObjectStore, seed: UInt64 = 0, every: Int? = nil,
        kind: StorageError.Kind = .unavailable
    ) {
        self.base = base
        self.every = every
        self.kind = kind
        generator = Mutex(SeededGenerator(seed: seed))
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        _ = try effect()
    }

    private func count() -> Int {
        every ?? generator.withLock { Int.random(in: 0..<20, using: &$0) }
    }

    func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        var left = count()
        var isBroken = false
        try base.list(prefix: prefix, after: last) { object in
            isBroken = left == 0
            left -= 1
            return !isBroken && body(object)
        }
        // The last answer may be lost as well.
        if isBroken || left == 0 {
            // A caller that does not get on is not kept for ever.
            guard breaks.next() < 1_000 else {
                throw StorageError(.lost, .list, location: "a store", cause: "asked too often")
            }
            throw transient(kind)
        }
    }

    func digests(
        of keys: [ObjectKey], _ body: (ObjectKey, [UInt8]) -> Bool
    ) throws(StorageError) {
        let some = keys.prefix(count())
        for key in some where !body(key, sha256(try base.get(key))) { return }
        if some.count < keys.count {
            _ = breaks.next()
            throw transient(kind)
        }
    }
}
