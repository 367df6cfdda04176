import Synchronization
import Transfer

/// Lets bytes flow at the rate of a timetable, evenly: what was not used is forgotten after an
/// eighth of a second, so that no pause is followed by a burst.
///
/// Two ways to use it. Who sends piece by piece asks `grant` before each. Who only knows afterwards,
/// or cannot stop in between, asks `take` before and corrects with `settle`; what went too fast then
/// is a debt for which the next one waits. Over any span of time no more flows than the rate allows,
/// an eighth of a second, and the calls under way. Counted in integers, so it does not drift.
package final class TokenBucket: Pacer {
    private struct State {
        /// What may flow, in bytes times nanoseconds of a second; below zero for a debt.
        var credit: Int128 = 0
        /// Bytes a second; nil for no limit.
        var rate: Int?
        var refilled: Int64
        /// When the timetable is asked again.
        var nextLook: Int64
    }

    private let state: Mutex<State>
    private let timetable: RateTimetable
    private let secondOfWeek: @Sendable () -> Int
    private let now: @Sendable () -> Int64

    /// - Parameter secondOfWeek: Seconds since Monday's midnight by the local clock on the wall.
    /// - Parameter now: Nanoseconds on a clock that nobody sets.
    package init(
        _ timetable: RateTimetable, secondOfWeek: @escaping @Sendable () -> Int,
        now: @escaping @Sendable () -> Int64
    ) {
        self.timetable = timetable
        self.secondOfWeek = secondOfWeek
        self.now = now
        let time = now()
        state = Mutex(
            State(
                rate: timetable.bytesPerSecond(atSecondOfWeek: secondOfWeek()), refilled: time,
                nextLook: time + Self.lookNanoseconds))
    }

    package func grant(_ wanted: Int) -> (bytes: Int, waitNanoseconds: Int64) {
        state.withLock { state in
            refill(&state)
            guard let rate = state.rate, wanted > 0 else { return (wanted, 0) }
            // Pieces of a few bytes would cost more than they carry.
            let piece = min(wanted, Self.pieceBytes, max(1, Self.burst(of: rate) / 2))
            let available = Int(state.credit / Self.second)
            guard available >= piece else {
                return (0, Self.wait(until: Int128(piece) * Self.second, state.credit, rate))
            }
            let granted = min(wanted, available)
            state.credit -= Int128(granted) * Self.second
            return (granted, 0)
        }
    }

    /// Takes so many bytes at once unless there is a debt.
    ///
    /// - Returns: 0 when they are taken, else the nanoseconds after which it is worth asking again.
    package func take(_ bytes: Int) -> Int64 {
        state.withLock { state in
            refill(&state)
            guard let rate = state.rate else { return 0 }
            guard state.credit >= 0 else { return Self.wait(until: 0, state.credit, rate) }
            state.credit -= Int128(bytes) * Self.second
            return 0
        }
    }

    /// Adds to what was taken, or gives back what is below zero: so many more bytes have flowed.
    package func settle(_ bytes: Int) {
        state.withLock { state in
            refill(&state)
            guard let rate = state.rate else { return }
            state.credit = min(
                state.credit - Int128(bytes) * Self.second,
                Int128(Self.burst(of: rate)) * Self.second)
        }
    }

    private func refill(_ state: inout State) {
        let time = now()
        if let rate = state.rate {
            let full = Int128(Self.burst(of: rate)) * Self.second
            state.credit = min(
                full, state.credit + Int128(max(0, time - state.refilled)) * Int128(rate))
        }
        state.refilled = max(state.refilled, time)
        guard time >= state.nextLook else { return }
        state.nextLook = time + Self.lookNanoseconds
        let rate = timetable.bytesPerSecond(atSecondOfWeek: secondOfWeek())
        // Where there is no limit there is no debt either.
        if rate == nil { state.credit = 0 }
        state.rate = rate
    }

    /// Nanoseconds until `credit` has grown to `target`, but no longer than until the rate may have
    /// changed.
    private static func wait(until target: Int128, _ credit: Int128, _ rate: Int) -> Int64 {
        let needed = (target - credit + Int128(rate) - 1) / Int128(rate)
        return Int64(min(max(needed, 1), Int128(lookNanoseconds)))
    }

    /// The most that is saved up while nothing flows, in bytes.
    private static func burst(of rate: Int) -> Int { max(1, rate / 8) }

    private static let second: Int128 = 1_000_000_000
    private static let lookNanoseconds: Int64 = 1_000_000_000
    private static let pieceBytes = 16 << 10
}
