/// How long, and how patiently, a call that may yet succeed is made again.
package struct RetryPolicy: Sendable, Equatable {
    /// The ceiling of the first wait; each further one is twice as high.
    package var firstWaitSeconds = 0.5
    /// No ceiling is higher. Short enough that a run goes on soon after the line is back.
    package var longestWaitSeconds = 30.0
    /// How often a call may fail although the store was reached and was not overloaded: what fails
    /// so often for another reason will not succeed by waiting.
    package var attempts = 8
    /// How long after its first failure a call is still made again. Fifteen minutes outlast a
    /// router's restart, a nightly new address and a store's deployment.
    package var patienceSeconds = 900.0
    /// Whether patience begins with the call and not with its first failure: for questions that are
    /// answered soon if at all.
    package var countsFirstAttempt = false

    package init() {}

    /// What is waited after the `attempt`-th failure in a row: by `chance` (0 up to 1) anything up
    /// to a ceiling that doubles, so that many who failed together do not come back together, but
    /// never so little that failing fast becomes a storm.
    func waitSeconds(after attempt: Int, chance: Double) -> Double {
        var ceiling = firstWaitSeconds
        var doublings = attempt - 1
        while doublings > 0, ceiling < longestWaitSeconds {
            ceiling *= 2
            doublings -= 1
        }
        return max(Self.shortestWaitSeconds, min(ceiling, longestWaitSeconds) * chance)
    }

    private static let shortestWaitSeconds = 0.05
}

/// Decides after each failure of one call whether it is made again, and waits until then.
struct Retrial: ~Copyable {
    private let policy: RetryPolicy
    private let surroundings: StoreSurroundings
    private let deadline: Int64?
    /// Failures in a row.
    private(set) var failures = 0
    /// Those of them in which the store was there and had no excuse.
    private var answeredFailures = 0
    /// When the first of them was noticed, or its attempt began, moved on by what the host has slept
    /// through since.
    private var firstFailure: Int64 = 0
    private var began: Int64

    init(_ policy: RetryPolicy, _ surroundings: StoreSurroundings, deadline: Int64? = nil) {
        self.policy = policy
        self.surroundings = surroundings
        self.deadline = deadline
        began = surroundings.now()
    }

    /// How long the call has been failing.
    var failingNanoseconds: Int64 { failures == 0 ? 0 : surroundings.now() - firstFailure }

    private var attempts: String { failures == 1 ? "1 attempt" : "\(failures) attempts" }

    /// Part of the work was done: what follows is judged by itself.
    mutating func advanced() {
        failures = 0
        answeredFailures = 0
        began = surroundings.now()
    }

    /// Returns when the call is to be made again.
    ///
    /// - Parameter announce: Hears the wait and the patience left before the wait begins, in
    ///   seconds.
    /// - Throws: `error`, perhaps with a word on the attempts, where there is no further attempt.
    mutating func wait(
        after error: StorageError, announce: (_ wait: Double, _ left: Double) -> Void
    ) throws(StorageError) {
        guard error.isTransient else { throw error }
        let now = surroundings.now()
        if failures == 0 { firstFailure = policy.countsFirstAttempt ? began : now }
        failures += 1
        if error.kind != .unavailable && !error.isOverload { answeredFailures += 1 }
        guard answeredFailures < policy.attempts else {
            throw error.adding("given up after \(attempts)")
        }
        let left = nanoseconds(in: policy.patienceSeconds) - (now - firstFailure)
        let asked = nanoseconds(in: error.retryAfterSeconds ?? 0)
        guard left > 0, asked <= left else {
            throw error.adding(
                asked > left && left > 0
                    ? "the store asks to be left alone for \(asked / 1_000_000_000) s"
                    : "given up after \(attempts) in \((now - firstFailure) / 1_000_000_000) s"
            )
        }
        let backOff = nanoseconds(
            in: policy.waitSeconds(after: failures, chance: surroundings.chance()))
        // The last attempt is made when patience ends, and not before.
        let wait = min(asked + backOff, left)
        if let deadline, now + wait >= deadline {
            throw error.adding("the time by which it had to be done leaves no further attempt")
        }
        announce(seconds(in: wait), seconds(in: left))
        guard surroundings.wait(until: now + wait) else {
            throw error.adding("interrupted while waiting to try again")
        }
        // What is past is more than was waited for only where the host slept, and a host that wakes
        // needs a moment for its network.
        let overslept = surroundings.now() - (now + wait)
        if overslept > Self.sleepNanoseconds { firstFailure += overslept }
    }

    private static let sleepNanoseconds: Int64 = 5_000_000_000
}
