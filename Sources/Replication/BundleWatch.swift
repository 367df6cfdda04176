import SnapshotModel
import SnapshotRepository
import Synchronization

/// Makes sure that bundles which a run has stored are still there when it describes them in the
/// index.
///
/// A run that stood still for longer than prune waits, in a machine that slept, may have lost what
/// nothing described yet. Lines put for it afterwards would make a snapshot look whole that is not.
final class BundleWatch: Sendable {
    private let repository: Repository
    /// When the store was last looked at, on the clock that runs through suspend.
    private let lookedAt: Mutex<Int64>
    private let lost = Atomic<Bool>(false)

    /// Whether something that the run had stored has gone: it has to go over the sources once more.
    var hasLost: Bool { lost.load(ordering: .relaxed) }

    init(_ repository: Repository, lookedAt: Int64) {
        self.repository = repository
        self.lookedAt = Mutex(lookedAt)
    }

    /// Looks at the store again where the last look is older than half the grace period.
    /// - Throws: Where one of `bundles` is condemned or not there.
    func confirm(_ bundles: Set<BundleID>) throws(ReplicationError) {
        let last = lookedAt.withLock { $0 }
        if bundles.isEmpty || CommitRule.isYoung(lookedAt: last, repository.config) { return }
        let now = HostClock.monotonic
        let repository = repository
        var damaged: [RepositoryError] = []
        let (condemned, listed) = try lifted {
            (try CondemnedView.load(repository, damaged: &damaged), try repository.listBundles())
        }
        if let first = damaged.first { throw ReplicationError(first) }
        for id in bundles where condemned.bundles.contains(id) || listed[id] == nil {
            lost.store(true, ordering: .relaxed)
            throw ReplicationError(
                .other, repository.bundleKey(id),
                "was condemned or removed before it was described, while the run stood still",
                remedy: "run it again")
        }
        lookedAt.withLock { $0 = max($0, now) }
    }
}
