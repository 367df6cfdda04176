import ObjectStorage
import Synchronization
import TestSupport
import Testing
import Transfer

@Suite("Bytes at a rate")
struct TokenBucketTests {
    private func bucket(_ time: VirtualTime, rate: Int?) -> TokenBucket {
        TokenBucket(
            RateTimetable(bytesPerSecond: rate), secondOfWeek: { 0 }, now: { time.now })
    }

    @Test(
        "What is sent piece by piece keeps to the rate, in any second and in the long run",
        arguments: [1_000, 20_000, 1_000_000, 125_000_000, 5_000_000_000])
    func rate(rate: Int) {
        let time = VirtualTime()
        let bucket = bucket(time, rate: rate)
        let began = time.now
        var sent = 0
        var inSecond: [Int64: Int] = [:]
        while time.now - began < 20_000_000_000 {
            let (bytes, wait) = bucket.grant(1 << 20)
            #expect(bytes > 0 || wait > 0)
            #expect(wait <= 1_000_000_000)
            sent += bytes
            inSecond[(time.now - began) / 1_000_000_000, default: 0] += bytes
            if bytes == 0 { time.advance(seconds: Double(wait) / 1e9) }
        }
        #expect(abs(sent - 20 * rate) <= rate / 4)
        #expect(inSecond.values.max()! <= rate + rate / 8 + 1)
        #expect(inSecond.values.min()! >= rate - rate / 4)
    }

    @Test("A pause is not followed by a burst")
    func burst() {
        let time = VirtualTime()
        let bucket = bucket(time, rate: 1_000_000)
        time.advance(seconds: 3_600)
        var sent = 0
        while true {
            let bytes = bucket.grant(4_096).bytes
            if bytes == 0 { break }
            sent += bytes
        }
        #expect(sent <= 125_000)
        #expect(sent > 100_000)
    }

    @Test("Without a limit everything flows at once")
    func unlimited() {
        let time = VirtualTime()
        let bucket = bucket(time, rate: nil)
        #expect(bucket.grant(1 << 40) == (1 << 40, 0))
        #expect(bucket.take(1 << 40) == 0)
        #expect(bucket.take(1) == 0)
    }

    @Test("What went too fast is a debt for which the next one waits")
    func debt() {
        let time = VirtualTime()
        let bucket = bucket(time, rate: 1_000_000)
        #expect(bucket.take(3_000_000) == 0)
        // No wait is longer than until the rate may have changed.
        #expect(bucket.take(1) == 1_000_000_000)
        time.advance(seconds: 2.5)
        #expect(bucket.take(1) == 500_000_000)
        time.advance(seconds: 0.5)
        #expect(bucket.take(0) == 0)
        bucket.settle(500_000)
        #expect(bucket.take(1) == 500_000_000)
        bucket.settle(-500_000)
        #expect(bucket.take(1) == 0)
        // What is given back is no store for a burst.
        bucket.settle(-100_000_000)
        #expect(bucket.grant(1 << 30).bytes <= 125_000)
    }

    @Test("A new hour has a new rate, and no debt outlives the limit")
    func timetable() throws {
        let time = VirtualTime()
        let began = time.now
        let timetable = try RateTimetable(parsing: "mon 00:00-01:00 1000000, else unlimited") {
            UInt64($0)
        }
        let bucket = TokenBucket(
            timetable, secondOfWeek: { Int((time.now - began) / 1_000_000_000) + 3_590 },
            now: { time.now })
        #expect(bucket.take(1_000_000_000) == 0)
        #expect(bucket.take(1) > 0)
        time.advance(seconds: 9)
        #expect(bucket.take(1) > 0)
        time.advance(seconds: 1.5)
        #expect(bucket.take(1) == 0)
        #expect(bucket.grant(1 << 30).bytes == 1 << 30)
    }

    @Test("Several threads together keep to one rate")
    func threads() {
        let clock = Atomic<Int64>(0)
        let bucket = TokenBucket(
            RateTimetable(bytesPerSecond: 1_000_000), secondOfWeek: { 0 },
            now: { clock.load(ordering: .sequentiallyConsistent) })
        let sent = Atomic<Int>(0)
        runOnThreads(4) { _ in
            for _ in 0..<2_000 {
                sent.add(bucket.grant(700).bytes, ordering: .relaxed)
                clock.add(250_000, ordering: .sequentiallyConsistent)
            }
        }
        let seconds = Double(clock.load(ordering: .relaxed)) / 1e9
        #expect(seconds == 2)
        #expect(Double(sent.load(ordering: .relaxed)) <= seconds * 1_000_000 + 125_000)
        #expect(sent.load(ordering: .relaxed) > 1_000_000)
    }

    private let key = ObjectKey(validated: "a")

    @Test("A download waits until what came before is paid for")
    func downloads() throws {
        let time = VirtualTime()
        let memory = MemoryStore()
        memory.plant([UInt8](repeating: 1, count: 3_000_000), at: key)
        let store = ThrottledStore(
            memory, upload: nil, download: bucket(time, rate: 1_000_000),
            surroundings: time.surroundings)
        let began = time.seconds
        for _ in 0..<5 { _ = try store.get(key) }
        // Four of five are waited for; the last one's time is owed by whoever comes next.
        #expect((11.8...12.1).contains(time.seconds - began))
        var buffer = [UInt8](repeating: 0, count: 1_000_000)
        let count = try buffer.withUnsafeMutableBytes {
            try store.get(key, range: 2_500_000..<3_500_000, into: $0)
        }
        #expect(count == 500_000)
        #expect((14.8...15.1).contains(time.seconds - began))
        // Only what came is owed.
        _ = try store.get(key)
        #expect((15.3...15.6).contains(time.seconds - began))
        // And nothing where nothing came.
        let missing = ObjectKey(validated: "missing")
        buffer.withUnsafeMutableBytes { bytes in
            for _ in 0..<10 {
                _ = try? store.get(missing, range: 0..<1_000_000, into: bytes)
            }
        }
        #expect(time.seconds - began <= 18.7)
        // What is small and what goes up is not held up by it.
        let before = time.seconds
        _ = try store.head(key)
        try store.put([1], at: ObjectKey(validated: "b"))
        #expect(time.seconds == before)
    }

    @Test("An upload takes its pacer along; one to a directory is waited for")
    func uploads() throws {
        let time = VirtualTime()
        let upload = bucket(time, rate: 1_000_000)
        let spy = PacerSpy(MemoryStore(), isLocal: false)
        try ThrottledStore(
            spy, upload: upload, download: nil, surroundings: time.surroundings
        ).put([1, 2, 3], at: key)
        #expect(spy.pacers.withLock { $0 } == [true])
        let local = PacerSpy(MemoryStore(), isLocal: true)
        let store = ThrottledStore(
            local, upload: upload, download: nil, surroundings: time.surroundings)
        let began = time.seconds
        for index in 0..<5 {
            try store.put(
                [UInt8](repeating: 0, count: 2_000_000), at: ObjectKey(validated: "\(index)"))
        }
        #expect((7.8...8.1).contains(time.seconds - began))
        let without = PacerSpy(MemoryStore(), isLocal: false)
        try ThrottledStore(
            without, upload: nil, download: upload, surroundings: time.surroundings
        ).put([1], at: key)
        #expect(without.pacers.withLock { $0 } == [false])
    }

    @Test("Who is to stop is not held up by a rate")
    func interruption() throws {
        let time = VirtualTime()
        let memory = MemoryStore()
        memory.plant([UInt8](repeating: 1, count: 1_000_000), at: key)
        let store = ThrottledStore(
            memory, upload: nil, download: bucket(time, rate: 1_000),
            surroundings: time.surroundings)
        _ = try store.get(key)
        time.stop(afterSeconds: 10)
        let began = time.seconds
        #expect(try store.get(key).count == 1_000_000)
        #expect((10...10.2).contains(time.seconds - began))
    }
}

/// Notes for each put whether its content has a pacer.
private final class PacerSpy: StoreDecorator {
    let base: any ObjectStore
    let pacers = Mutex<[Bool]>([])
    private let isLocal: Bool

    init(_ base: any ObjectStore, isLocal: Bool) {
        self.base = base
        self.isLocal = isLocal
    }

    var capabilities: StoreCapabilities {
        var capabilities = base.capabilities
        capabilities.isLocal = isLocal
        return capabilities
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        _ = try effect()
    }

    func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        pacers.withLock { $0.append(content.pacer != nil) }
        try base.put(content, at: key)
    }
}
