import BundleFormat
package import SnapshotModel

/// How prune is to go about it.
package struct PruneOptions: Sendable {
    package var host: String
    /// Only look and decide.
    package var dryRun = false
    /// How much may be written anew to free what is dead in bundles of which a snapshot needs a
    /// part; nil to leave them alone. An owner's identity is needed for more than an estimate.
    package var rewrite: RewriteBudget?
    /// Of what is written anew.
    package var compressionLevel = BundleLimits.defaultLevel

    package init(host: String) { self.host = host }
}

/// Bundles of one verdict.
package struct PruneTally: Sendable, Equatable {
    package var bundles = 0
    package var bytes = 0

    package init() {}

    mutating func add(_ size: Int) {
        bundles += 1
        bytes += size
    }
}

/// What prune has done, or with a dry run would do.
package struct PruneReport: Sendable {
    /// An object that the store keeps whatever is asked of it.
    package struct Retained: Sendable {
        package let object: String
        /// By the store's clock, where it tells.
        package let until: Timestamp?
        package let message: String
    }

    package var isDryRun = false
    /// How the look began: all bundles that are there, and those that a listed snapshot needs.
    package var stored = PruneTally()
    package var needed = PruneTally()
    package var deleted = PruneTally()
    package var condemned = PruneTally()
    /// Condemned earlier, with their grace period still going on.
    package var waiting = PruneTally()
    /// Condemned, and needed by a snapshot all the same.
    package var held = PruneTally()
    /// Needed by nobody, and too young to tell.
    package var young = PruneTally()
    /// Rewritten because too much of them is dead, and because they are small and many; condemned
    /// ones, too.
    package var rewritten = PruneTally()
    package var merged = PruneTally()
    /// New bundles.
    package var written = PruneTally()
    /// Bytes that nobody needs, in bundles of which a snapshot needs a part: before, and with what
    /// is rewritten. Nil where only an owner could tell.
    package var unused: Int?
    package var unusedLeft: Int?
    /// What an owner could give back at most, where no identity is at hand.
    package var reclaimableAtMost: Int?
    /// A manifest is damaged, so that nothing was rewritten.
    package var foundDamage = false
    /// Index objects that became fewer, and into how many.
    package var indexMerged = 0
    package var indexWritten = 0
    package var indexDeleted = 0
    /// Records of forgotten snapshots that were removed.
    package var snapshotsRemoved: [SnapshotID] = []
    package var snapshotsCounted = 0
    /// Listed snapshots that lack what was deleted before they came.
    package var incomplete: [SnapshotID] = []
    /// When the first of what waits can be deleted.
    package var waitingUntil: Timestamp?
    package var retained: [Retained] = []
    /// The store does not let this user delete anything.
    package var deletesDenied = false
    /// The store keeps what is deleted as older versions.
    package var keepsDeleted = false
    /// Another prune was at work, and was left to it.
    package var leftToAnother = false
    /// Requests that a dry run expects.
    package var requests = 0
    package var notes: [String] = []

    package init() {}
}
