import ObjectStorage
import Synchronization
import TestSupport

/// A clock that goes on only where somebody waits, and notes what is reported meanwhile.
final class VirtualTime: Sendable {
    private struct State {
        var now: Int64
        var generator: SeededGenerator
        var events: [StoreEvent] = []
        var pauses = 0
        var stopsAt = Int64.max
        var oversleeps: Int64 = 0
    }

    private let state: Mutex<State>
    /// What chance gives; drawn by the seed where nil.
    private let chance: Double?

    init(seed: UInt64 = 1, chance: Double? = nil, now: Int64 = 1_000_000_000_000) {
        self.chance = chance
        state = Mutex(State(now: now, generator: SeededGenerator(seed: seed)))
    }

    var now: Int64 { state.withLock { $0.now } }
    var seconds: Double { Double(now) / 1e9 }
    var events: [StoreEvent] { state.withLock { $0.events } }

    func advance(seconds: Double) { state.withLock { $0.now += Int64(seconds * 1e9) } }
    /// From so many seconds on, whoever waits is told to stop.
    func stop(afterSeconds seconds: Double) {
        state.withLock { $0.stopsAt = $0.now + Int64(seconds * 1e9) }
    }
    /// The next pause lasts so much longer, as when the host is suspended.
    func oversleep(seconds: Double) { state.withLock { $0.oversleeps = Int64(seconds * 1e9) } }

    var surroundings: StoreSurroundings {
        StoreSurroundings(
            now: { self.now },
            pause: { nanoseconds in
                precondition(nanoseconds > 0)
                self.state.withLock { state in
                    state.now += nanoseconds + state.oversleeps
                    state.oversleeps = 0
                }
            },
            chance: {
                self.chance
                    ?? self.state.withLock { Double.random(in: 0..<1, using: &$0.generator) }
            },
            shouldStop: { self.state.withLock { $0.now >= $0.stopsAt } },
            report: { event in self.state.withLock { $0.events.append(event) } })
    }
}

/// A store that asks before each call whether it may succeed.
struct GuardedStore: StoreDecorator {
    let base: any ObjectStore
    private let check: @Sendable (StoreOperation, String) throws(StorageError) -> Void

    init(
        _ base: any ObjectStore,
        _ check: @escaping @Sendable (StoreOperation, String) throws(StorageError) -> Void
    ) {
        self.base = base
        self.check = check
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        try check(operation, subject)
        _ = try effect()
    }
}

func transient(
    _ kind: StorageError.Kind = .unavailable, isOverload: Bool = false,
    retryAfterSeconds: Double? = nil
) -> StorageError {
    StorageError(
        kind, .get, location: "a store", cause: "on purpose", isTransient: true,
        isOverload: isOverload, retryAfterSeconds: retryAfterSeconds)
}
