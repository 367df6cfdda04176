import Glibc
import ObjectStorage
import Synchronization
import TestSupport
import Testing

@Suite("Calls at once")
struct AdaptiveStoreTests {
    private func key(_ text: String) -> ObjectKey { ObjectKey(validated: text) }
    private let large = [UInt8](repeating: 7, count: 2 << 20)

    @Test("No more large calls are made at once than the limit allows, and all of them are made")
    func limit() throws {
        let base = HoldingStore(MemoryStore())
        let store = AdaptiveStore(base, start: 3, maximum: 3)
        let threads = Threads(12) { index in
            try store.put(large, at: key("\(index)"))
        }
        base.waitUntil { $0.held == 3 }
        for released in 1...12 {
            base.release(1)
            base.waitUntil { $0.held == min(3, 12 - released) }
        }
        try threads.join()
        #expect(base.most == 3)
    }

    @Test("Two small calls pass a row of large ones that fills the limit")
    func smallCalls() throws {
        let base = HoldingStore(MemoryStore())
        let store = AdaptiveStore(base, start: 1, maximum: 1)
        let uploads = Threads(4) { index in try store.put(large, at: key("\(index)")) }
        base.waitUntil { $0.held == 1 }
        let looks = Threads(4) { index in _ = try store.head(key("\(index)")) }
        base.waitUntil { $0.held == 3 }
        base.release(.max)
        try uploads.join()
        try looks.join()
        #expect(base.most <= 3)
    }

    @Test("A listing takes no turn: who gets its objects may call the store about them")
    func nested() throws {
        let memory = MemoryStore()
        for index in 0..<5 { memory.plant(large, at: key("l/\(index)")) }
        let store = AdaptiveStore(memory, start: 1, maximum: 1)
        var lengths: [Int] = []
        try store.list(prefix: "l/") { object in
            try? store.list(prefix: "l/") { inner in
                lengths.append((try? store.get(inner.key).count) ?? 0)
                return true
            }
            return true
        }
        #expect(lengths == [Int](repeating: large.count, count: 25))
    }

    @Test("A turn is given back when a call fails, and a refusal lowers the limit")
    func failures() throws {
        let isRefusing = Atomic<Bool>(false)
        let guarded = GuardedStore(MemoryStore()) { (_, _) throws(StorageError) in
            throw transient(isOverload: isRefusing.load(ordering: .relaxed))
        }
        let store = AdaptiveStore(guarded, start: 4, maximum: 8)
        for index in 0..<20 {
            #expect(throws: StorageError.self) { try store.put(large, at: key("\(index)")) }
        }
        #expect(store.limit == 4)
        isRefusing.store(true, ordering: .relaxed)
        #expect(throws: StorageError.self) { _ = try store.head(key("x")) }
        #expect(store.limit == 2)
        for _ in 0..<5 { #expect(throws: StorageError.self) { _ = try store.head(key("x")) } }
        #expect(store.limit == 1)
        #expect(store.settled == 1)
    }

    @Test("It learns from real calls: where twice as many move twice as much, it doubles")
    func learns() throws {
        // Each call takes as long as the clock says it does, however many there are.
        let clock = Atomic<Int64>(0)
        let base = HoldingStore(MemoryStore())
        let store = AdaptiveStore(
            base, start: 2, maximum: 16,
            surroundings: StoreSurroundings(now: { clock.load(ordering: .sequentiallyConsistent) }))
        let isLearned = Atomic<Bool>(false)
        let threads = Threads(16) { worker in
            while !isLearned.load(ordering: .relaxed) { try store.put(large, at: key("\(worker)")) }
        }
        while store.settled < 16, base.released < 15_000 {
            let limit = store.limit
            base.waitUntil { $0.held >= limit }
            clock.add(1_000_000_000, ordering: .sequentiallyConsistent)
            let (held, released) = (base.held, base.released)
            base.release(held)
            base.waitUntil { $0.released >= released + held }
        }
        isLearned.store(true, ordering: .relaxed)
        base.release(.max)
        try threads.join()
        #expect(store.settled == 16)
    }
}

/// A store whose calls stay under way until the test lets them go.
private final class HoldingStore: StoreDecorator, @unchecked Sendable {
    // Sendable: the counts are touched only while the mutex is held.
    struct Counts {
        var held = 0
        var released = 0
        var most = 0
        var arrived = 0
        /// Calls go in the order in which they arrived.
        var allowed = 0
    }

    let base: any ObjectStore
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var counts = Counts()

    init(_ base: any ObjectStore) {
        self.base = base
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    private func locked<Value>(_ body: (inout Counts) -> Value) -> Value {
        pthread_mutex_lock(mutex)
        defer {
            pthread_cond_broadcast(condition)
            pthread_mutex_unlock(mutex)
        }
        return body(&counts)
    }

    func waitUntil(_ condition: (Counts) -> Bool) {
        pthread_mutex_lock(mutex)
        while !condition(counts) { pthread_cond_wait(self.condition, mutex) }
        pthread_mutex_unlock(mutex)
    }

    var held: Int { locked { $0.held } }
    var released: Int { locked { $0.released } }
    var most: Int { locked { $0.most } }

    /// Lets so many calls go, of those under way or to come.
    func release(_ count: Int) {
        locked { $0.allowed = count == .max ? .max : $0.allowed + count }
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        let number = locked { counts in
            counts.held += 1
            counts.most = max(counts.most, counts.held)
            counts.arrived += 1
            return counts.arrived
        }
        waitUntil { $0.allowed >= number }
        locked { counts in
            counts.held -= 1
            counts.released += 1
        }
        _ = try effect()
    }
}

/// Threads that run beside the test.
private final class Threads {
    private var threads: [pthread_t] = []
    private let failure = Box()

    private final class Box: Sendable {
        let error = Mutex<(any Error)?>(nil)
    }

    private final class Work {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
    }

    init(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Void) {
        let failure = failure
        for index in 0..<count {
            let work = Work {
                do { try body(index) } catch { failure.error.withLock { $0 = error } }
            }
            var thread = pthread_t()
            let created = pthread_create(
                &thread, nil,
                { argument in
                    Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue().body()
                    return nil
                }, Unmanaged.passRetained(work).toOpaque())
            precondition(created == 0)
            threads.append(thread)
        }
    }

    func join() throws {
        for thread in threads { pthread_join(thread, nil) }
        if let error = failure.error.withLock({ $0 }) { throw error }
    }
}
