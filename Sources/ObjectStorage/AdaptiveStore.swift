/// Admits as many calls at once as the store sustains, which `ConcurrencyControl` finds out while
/// it goes; whoever comes when that many are under way waits for his turn.
///
/// Two small calls are admitted beyond the limit, and no more of large ones than the limit: a record
/// never waits for a row of bundles. A listing takes no turn, since it hands out objects while it
/// goes, and who gets them may call the store about them.
package final class AdaptiveStore: StoreWrapper {
    private struct State {
        var control: ConcurrencyControl
        var small = 0
        var large = 0

        /// Takes a turn; nil where there is none.
        mutating func admit(isSmall: Bool) -> ConcurrencyControl.Epoch? {
            let isFree = small + large < control.limit
            guard isFree || (isSmall && small < AdaptiveStore.smallReserve) else { return nil }
            if isSmall { small += 1 } else { large += 1 }
            return control.epoch
        }
    }

    /// What a turn was taken for, until it is given back.
    private struct Turn {
        let epoch: ConcurrencyControl.Epoch
        let isSmall: Bool
        let began: Int64
    }

    package let base: any ObjectStore
    private let state: GuardedState<State>
    private let now: @Sendable () -> Int64

    /// - Parameter start: Calls at once to begin with.
    /// - Parameter maximum: Calls at once that are never exceeded but for two small ones.
    package init(
        _ base: any ObjectStore, start: Int, maximum: Int,
        surroundings: StoreSurroundings = StoreSurroundings()
    ) {
        self.base = base
        now = surroundings.now
        state = GuardedState(State(control: ConcurrencyControl(start: start, maximum: maximum)))
    }

    /// Calls at once that are admitted now.
    package var limit: Int { state.read { $0.control.limit } }

    /// Calls at once that the store has proved to sustain, for the next run to begin with.
    package var settled: Int { state.read { $0.control.settled } }

    package func perform<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result
    ) throws(StorageError) -> Result {
        try admitted(call, effect) { _ in call.bytes }
    }

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        try admitted(StoreCall(.get, key)) { () throws(StorageError) in
            try base.get(key, maximumBytes: maximumBytes)
        } bytes: {
            $0.count
        }
    }

    package func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        // Told after the turn has been given back: who hears it may call the store again.
        var failures: [(ObjectKey, StorageError)] = []
        let turn = takeTurn(isSmall: true)
        base.delete(keys) { failures.append(($0, $1)) }
        end(turn) { control, _, _ in
            if failures.contains(where: { $0.1.isOverload }) {
                control.overloaded(admittedIn: turn.epoch)
            }
        }
        for (key, error) in failures { failed(key, error) }
    }

    private func admitted<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result,
        bytes: (Result) -> Int
    ) throws(StorageError) -> Result {
        guard call.takesTurn else { return try effect() }
        let turn = takeTurn(isSmall: call.bytes <= Self.smallBytes)
        do throws(StorageError) {
            let result = try effect()
            end(turn) { control, wasFull, nanoseconds in
                guard let direction = call.direction else { return }
                control.succeeded(
                    .init(direction, bytes: bytes(result)), nanoseconds: nanoseconds,
                    admittedIn: turn.epoch, wasFull: wasFull)
            }
            return result
        } catch {
            end(turn) { control, _, _ in
                if error.isOverload { control.overloaded(admittedIn: turn.epoch) }
            }
            throw error
        }
    }

    private func takeTurn(isSmall: Bool) -> Turn {
        let epoch = state.wait { $0.admit(isSmall: isSmall) }
        return Turn(epoch: epoch, isSmall: isSmall, began: now())
    }

    /// Gives a turn back and tells the control how the call went.
    private func end(
        _ turn: Turn, _ tell: (inout ConcurrencyControl, _ wasFull: Bool, Int64) -> Void
    ) {
        let nanoseconds = now() - turn.began
        state.change { state in
            tell(&state.control, state.small + state.large >= state.control.limit, nanoseconds)
            if turn.isSmall { state.small -= 1 } else { state.large -= 1 }
        }
    }

    /// Calls up to this size are small: what they wait for is the round trip, not the line.
    private static let smallBytes = 1 << 20
    fileprivate static let smallReserve = 2
}

extension StoreCall {
    /// Whether the call keeps the store busy for its caller alone.
    fileprivate var takesTurn: Bool {
        switch operation {
        case .put, .get, .head, .delete: true
        case .list, .clock, .spool, .open, .create: false
        }
    }

    /// Which way most of the call goes; nil where one call is not like another.
    fileprivate var direction: ConcurrencyControl.Work.Direction? {
        switch operation {
        case .put: .up
        case .get, .head: .down
        case .list, .delete, .clock, .spool, .open, .create: nil
        }
    }
}
