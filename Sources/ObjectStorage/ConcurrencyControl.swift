/// Finds how many calls at once a store sustains. Pure: it has no clock and starts nothing.
///
/// It works in rounds of calls that were all made at one limit while all of it was used, and every
/// decision compares two neighbouring rounds: by Little's law the throughput of a limit is the limit
/// divided by the time that a call takes, so times alone tell whether more calls at once move more.
///
/// - It begins by doubling, as long as each doubling brings at least half of what it promises. If
///   the first brings nothing, the beginning was too high, and it halves instead while that costs
///   nothing.
/// - After that it rests for some rounds, then tries a quarter more, then a quarter less, and keeps
///   what proved better; when neither does, it rests longer.
/// - Calls that suddenly take more than twice their time make it try half the limit; where the
///   queue was not of our making, that costs throughput, and it goes back.
/// - A store that says it is asked too much has the limit halved at once, down to one call. What
///   was refused is not tried again for a while.
///
/// No time is remembered for longer than two rounds, so neither a slower hour nor an added delay is
/// mistaken for a queue. Calls are compared with calls of the same direction and about the same
/// size only.
package struct ConcurrencyControl: Sendable {
    /// What a call moved, and which way.
    package struct Work: Sendable {
        package enum Direction: Int, Sendable { case up, down }

        package let direction: Direction
        package let bytes: Int

        package init(_ direction: Direction, bytes: Int) {
            self.direction = direction
            self.bytes = bytes
        }
    }

    /// A limit in force, to tell a call that was admitted under it from later ones.
    package struct Epoch: Sendable, Equatable {
        fileprivate var number = 0
    }

    private enum Phase {
        /// Nothing has been measured since the beginning, or since the store refused calls.
        case unknown
        /// At a limit that was accepted; so many rounds from now another is tried.
        case resting(Int)
        /// At the accepted limit, where calls have suddenly become slow: this round shows how slow.
        case alarmed
        /// Trying another limit than the accepted one. Drastic: twice or half of it.
        case trying(isDrastic: Bool)
    }

    /// How many calls may be under way.
    package private(set) var limit: Int
    /// Changes with the limit.
    package private(set) var epoch = Epoch()
    private let maximum: Int

    private var phase = Phase.unknown
    /// Times of the round that is going on.
    private var round = RoundTimes()
    /// The limit that was accepted last, and the times of its latest round.
    private var accepted: (limit: Int, times: RoundTimes)
    /// The times of the round at the accepted limit before its latest.
    private var beforeAccepted = RoundTimes()
    /// Whether doubling is still the way up.
    private var isStarting = true
    /// Whether any trial has been kept since the beginning.
    private var hasMoved = false
    /// Whether the next trial after a rest goes up.
    private var nextGoesUp = true
    private var restRounds = Self.shortestRest
    /// The limit that was tried and refused lately, and for how many more rounds it is left alone.
    private var refused: (limit: Int, rounds: Int)?
    /// Calls admitted before this belong to a refusal that has been answered already.
    private var cutEpoch = Epoch()

    /// - Parameter start: Where to begin: what an earlier run settled on, or a careful guess.
    /// - Parameter maximum: No limit is higher.
    package init(start: Int, maximum: Int) {
        precondition(maximum >= 1)
        self.maximum = maximum
        limit = min(max(1, start), maximum)
        accepted = (limit, RoundTimes())
    }

    /// The limit that has stood every comparison so far, for the next run to begin with.
    package var settled: Int { accepted.limit }

    /// A call has succeeded.
    ///
    /// - Parameter epoch: The one in which it was admitted.
    /// - Parameter wasFull: Whether all of the limit was in use when it ended. Where it was not, the
    ///   caller asks less than the store gives, and there is nothing to learn.
    package mutating func succeeded(
        _ work: Work, nanoseconds: Int64, admittedIn epoch: Epoch, wasFull: Bool
    ) {
        guard wasFull, epoch == self.epoch else { return }
        round.add(work, nanoseconds)
        if round.calls >= max(Self.leastCalls, limit) { endRound() }
    }

    /// The store has refused a call because it is asked too much.
    package mutating func overloaded(admittedIn epoch: Epoch) {
        // All calls that were under way at the cut tell of the same overload.
        guard epoch.number >= cutEpoch.number else { return }
        // Only a limit that was just being tried is refused for its height; one that the store took
        // before will be taken again when the storm is over.
        if limit > accepted.limit { refused = (limit, Self.refusedRounds) }
        isStarting = false
        hasMoved = true
        set(max(1, limit / 2))
        cutEpoch = self.epoch
        accepted = (limit, RoundTimes())
        beforeAccepted = RoundTimes()
        phase = .unknown
        restRounds = Self.shortestRest
        nextGoesUp = true
    }

    // MARK: - Rounds

    private mutating func endRound() {
        let times = round
        round = RoundTimes()
        if let (limit, rounds) = refused { refused = rounds > 1 ? (limit, rounds - 1) : nil }
        switch phase {
        case .unknown:
            accepted = (limit, times)
            tryNext()
        case .resting(let rounds):
            // A change in the middle of a round shows half in that one and half in the next.
            let slowdown = [accepted.times, beforeAccepted]
                .compactMap { times.slowdown(from: $0) }.max()
            beforeAccepted = accepted.times
            accepted.times = times
            if let slowdown, slowdown > Self.alarmingSlowdown, limit > Self.leastByMeasure {
                phase = .alarmed
            } else if rounds > 1 {
                phase = .resting(rounds - 1)
            } else {
                tryNext()
            }
        case .alarmed:
            accepted.times = times
            beforeAccepted = times
            descend()
        case .trying(let isDrastic):
            judge(times, isDrastic: isDrastic)
        }
    }

    /// Keeps the limit that was tried, or goes back to the accepted one.
    private mutating func judge(_ times: RoundTimes, isDrastic: Bool) {
        let ratio = Double(limit) / Double(accepted.limit)
        // Unlike calls cannot be compared; then nothing speaks for the change.
        let gain = times.slowdown(from: accepted.times).map { ratio / $0 }
        let isUp = limit > accepted.limit
        let least =
            isUp
            ? 1 + (ratio - 1) * Self.leastShareGained
            : 1 - (1 - ratio) * (isDrastic ? Self.mostShareLostByHalving : Self.mostShareLost)
        if let gain, gain >= least {
            accepted = (limit, times)
            beforeAccepted = RoundTimes()
            hasMoved = true
            restRounds = Self.shortestRest
            // What proved right is tried again in the same direction.
            nextGoesUp = isUp
            if isDrastic && !isUp {
                descend()
            } else {
                tryNext()
            }
            return
        }
        set(accepted.limit)
        if isStarting, isUp, !hasMoved {
            isStarting = false
            return descend()
        }
        isStarting = false
        nextGoesUp = !isUp
        phase = .resting(restRounds)
        restRounds = min(restRounds * 2, Self.longestRest)
    }

    /// Tries the next limit in the direction that is due, the other one where there is none.
    private mutating func tryNext() {
        let up = isStarting ? limit * 2 : limit + max(1, limit / 4)
        var highest = maximum
        if let refused { highest = min(highest, max(1, refused.limit - 1)) }
        let higher = min(up, highest)
        let lower = max(Self.leastByMeasure, limit - max(1, limit / 5))
        if nextGoesUp || isStarting, higher > limit {
            attempt(higher, isDrastic: isStarting)
        } else if lower < limit, !isStarting {
            attempt(lower, isDrastic: false)
        } else {
            isStarting = false
            nextGoesUp.toggle()
            phase = .resting(restRounds)
        }
    }

    private mutating func descend() {
        let lower = max(Self.leastByMeasure, limit / 2)
        if lower < limit {
            attempt(lower, isDrastic: true)
        } else {
            phase = .resting(restRounds)
        }
    }

    private mutating func attempt(_ other: Int, isDrastic: Bool) {
        set(other)
        phase = .trying(isDrastic: isDrastic)
    }

    private mutating func set(_ limit: Int) {
        self.limit = limit
        epoch.number += 1
        round = RoundTimes()
    }

    // MARK: - Bounds

    /// A round has at least so many calls: fewer say more about chance than about the store.
    private static let leastCalls = 4
    /// Measuring never goes below: between two calls, one alone leaves the line idle.
    private static let leastByMeasure = 2
    /// More calls at once must bring this share of what they promise.
    private static let leastShareGained = 0.5
    /// Fewer calls at once may cost this share of what was taken away.
    private static let mostShareLost = 0.1
    /// Where a queue is suspected, more is allowed for chance: what was lost comes back by steps.
    private static let mostShareLostByHalving = 0.2
    private static let alarmingSlowdown = 2.0
    /// Rounds between two trials.
    private static let shortestRest = 2
    private static let longestRest = 8
    /// For how long a limit that the store refused is not tried again.
    private static let refusedRounds = 32
}

/// How long the calls of a round took, by direction and by size.
private struct RoundTimes: Sendable {
    private var counts = [Int](repeating: 0, count: Self.classes)
    private var nanoseconds = [Int64](repeating: 0, count: Self.classes)
    private(set) var calls = 0

    /// Sizes within a factor of four count as alike, from 4 KiB to 64 MiB and what is larger.
    private static let sizes = 9
    private static let classes = 2 * sizes

    mutating func add(_ work: ConcurrencyControl.Work, _ nanoseconds: Int64) {
        let magnitude = Int.bitWidth - (work.bytes >> 12).leadingZeroBitCount
        let index =
            work.direction.rawValue * Self.sizes + min((magnitude + 1) / 2, Self.sizes - 1)
        counts[index] += 1
        self.nanoseconds[index] += max(nanoseconds, 1)
        calls += 1
    }

    /// How many times as long a call takes in this round as in an earlier one; nil where they have
    /// no calls in common that could be compared.
    func slowdown(from earlier: RoundTimes) -> Double? {
        var expected = 0.0
        var measured = 0.0
        for index in 0..<Self.classes where counts[index] > 0 && earlier.counts[index] > 0 {
            expected +=
                Double(earlier.nanoseconds[index]) / Double(earlier.counts[index])
                * Double(counts[index])
            measured += Double(nanoseconds[index])
        }
        return expected > 0 ? measured / expected : nil
    }
}
