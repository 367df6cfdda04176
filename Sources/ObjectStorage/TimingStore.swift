/// Tells the counter how long each call of a store took, whether it succeeded or not.
///
/// Stands next to the store, so that nobody's waiting for a turn, a rate or another attempt is taken
/// for slowness of the store. A listing hands out objects while it goes: what is done with them
/// counts.
package struct TimingStore: StoreWrapper {
    package let base: any ObjectStore
    private let counter: TrafficCounter
    private let now: @Sendable () -> Int64

    /// - Parameter now: A clock in nanoseconds.
    package init(
        _ base: any ObjectStore, counter: TrafficCounter, now: @escaping @Sendable () -> Int64
    ) {
        self.base = base
        self.counter = counter
        self.now = now
    }

    package func perform<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result
    ) throws(StorageError) -> Result {
        let kind: TrafficCounter.Request
        switch call.operation {
        case .put: kind = .put
        case .get: kind = .get
        case .head: kind = .head
        case .list: kind = .list
        case .delete: kind = .delete
        case .open, .create, .clock: kind = .other
        // A spool file lies on this host.
        case .spool: return try effect()
        }
        let began = now()
        defer { counter.count(kind, nanoseconds: now() - began) }
        return try effect()
    }
}
