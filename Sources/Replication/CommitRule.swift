package import SnapshotRepository

/// How long a look at the store holds (docs/protocol.md): times on the clock that runs through
/// suspend, in nanoseconds.
package enum CommitRule {
    /// Whether what was seen then may be relied on still, half the grace period long.
    package static func isYoung(lookedAt: Int64, _ config: RepositoryConfig) -> Bool {
        HostClock.monotonic - lookedAt <= Int64(config.graceSeconds) * 500_000_000
    }

    /// When the last attempt to commit may begin. The quarter that is left is for an attempt that
    /// takes its time to arrive: what the look has seen can be deleted when the whole grace period
    /// is over.
    package static func deadline(lookedAt: Int64, _ config: RepositoryConfig) -> Int64 {
        // Without a grace period no time would be left at all, and the fence alone is what holds.
        guard config.graceSeconds > 0 else { return .max }
        return lookedAt + Int64(config.graceSeconds) * 750_000_000
    }
}
