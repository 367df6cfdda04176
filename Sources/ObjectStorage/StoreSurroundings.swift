import CSystem
import Glibc

/// What the wrappers of a store take from the world: time, chance, the wish to stop, and an ear.
///
/// Handed in, so that a test turns the clock itself and a command's Ctrl-C ends every wait.
package struct StoreSurroundings: Sendable {
    /// Nanoseconds on a clock that nobody sets and that runs through suspend.
    package let now: @Sendable () -> Int64
    /// Lets about so many nanoseconds pass on the calling thread.
    package let pause: @Sendable (Int64) -> Void
    /// A random number from 0 up to but not including 1.
    package let chance: @Sendable () -> Double
    /// Whether waiting makes no sense any more. Asked ten times a second while a call waits.
    package let shouldStop: @Sendable () -> Bool
    /// Hears what happens, on the thread to which it happens; must be quick.
    package let report: @Sendable (StoreEvent) -> Void

    package init(
        now: @escaping @Sendable () -> Int64 = { csys_boottime_ns() },
        pause: @escaping @Sendable (Int64) -> Void = { sleepNanoseconds($0) },
        chance: @escaping @Sendable () -> Double = { Double.random(in: 0..<1) },
        shouldStop: @escaping @Sendable () -> Bool = { false },
        report: @escaping @Sendable (StoreEvent) -> Void = { _ in }
    ) {
        self.now = now
        self.pause = pause
        self.chance = chance
        self.shouldStop = shouldStop
        self.report = report
    }

    /// Waits until the clock shows `time`, or shows more because the host was asleep.
    ///
    /// - Returns: False, at once, where the wait was asked to stop.
    func wait(until time: Int64) -> Bool {
        while !shouldStop() {
            let left = time - now()
            guard left > 0 else { return true }
            // A signal's handler can only set a flag, so the flag is looked at often.
            pause(min(left, Self.sliceNanoseconds))
        }
        return false
    }

    private static let sliceNanoseconds: Int64 = 100_000_000
}

/// What a wrapper tells while it goes, so that progress can say what a run is waiting for.
package enum StoreEvent: Sendable {
    /// A call has failed, for the `attempt`-th time in a row, and is made again after the wait.
    case retrying(StorageError, attempt: Int, waitSeconds: Double)
    /// A call that had failed so often has succeeded, so long after its first failure.
    case recovered(attempts: Int, failingSeconds: Double)
    /// The store does not answer yet; it is asked again after the wait, and for so much longer at
    /// most.
    case unreachable(StorageError, waitSeconds: Double, patienceLeftSeconds: Double)
    /// The store that did not answer does, after so long.
    case reachable(afterSeconds: Double)
}

private func sleepNanoseconds(_ nanoseconds: Int64) {
    var time = timespec(
        tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    // A signal may end it early; who waits looks at the clock again.
    nanosleep(&time, nil)
}

/// Seconds as nanoseconds; nothing for what is no time, and a century for what is longer.
func nanoseconds(in seconds: Double) -> Int64 {
    guard seconds > 0 else { return 0 }
    return Int64(min(seconds, 3_155_760_000) * 1e9)
}

func seconds(in nanoseconds: Int64) -> Double { Double(nanoseconds) / 1e9 }
