import ObjectStorage
import Synchronization
import TestSupport
import Testing

@Suite("How long calls take")
struct TimingStoreTests {
    /// A clock that goes on by so much at each look.
    private final class Clock: Sendable {
        private let time = Mutex<Int64>(0)
        private let step = Mutex<Int64>(0)

        func tick(by nanoseconds: Int64) { step.withLock { $0 = nanoseconds } }
        func now() -> Int64 {
            time.withLock { time in
                time += step.withLock { $0 }
                return time
            }
        }
    }

    @Test("Each kind of call has its count, its sum and its longest, failures included")
    func latencies() throws {
        let counter = TrafficCounter()
        let clock = Clock()
        let store = TimingStore(MemoryStore(), counter: counter, now: { clock.now() })
        let key = try #require(ObjectKey("a/b"))
        clock.tick(by: 7)
        try store.put(
            ObjectContent(bytes: [1, 2, 3], digest: [UInt8](repeating: 0, count: 32)), at: key)
        clock.tick(by: 30)
        _ = try store.get(key, maximumBytes: 10)
        clock.tick(by: 50)
        #expect(throws: StorageError.self) {
            _ = try store.get(#require(ObjectKey("missing")), maximumBytes: 10)
        }
        clock.tick(by: 10)
        _ = try store.get(key, maximumBytes: 10)
        _ = try store.head(key)
        try store.list(prefix: "a/") { _ in true }
        try store.delete(key)
        let found = counter.now.latencies
        #expect(found[.put] == .init(count: 1, totalNanoseconds: 7, longestNanoseconds: 7))
        #expect(found[.get] == .init(count: 3, totalNanoseconds: 90, longestNanoseconds: 50))
        for kind in [TrafficCounter.Request.head, .list, .delete] {
            #expect(found[kind] == .init(count: 1, totalNanoseconds: 10, longestNanoseconds: 10))
        }
        // It counts no request: others do.
        #expect(counter.now.total == 0)
    }

    @Test("A spool file is on this host and no call to the store")
    func spool() throws {
        let counter = TrafficCounter()
        let store = TimingStore(MemoryStore(), counter: counter, now: { 1 })
        _ = try store.makeSpool()
        #expect(counter.now.latencies.isEmpty)
    }
}
