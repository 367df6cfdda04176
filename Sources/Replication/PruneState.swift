package import SnapshotModel

/// What one look at the store has shown, as far as a plan depends on it. Bundles have numbers, in
/// the order of their ids.
package struct PruneState: Sendable {
    package struct Bundle: Sendable {
        package var id: BundleID
        /// Stored bytes as the listing tells; nil where the bundle is not there.
        package var stored: Int?
        /// Stored bytes as the index tells; nil where it does not describe the bundle.
        package var described: Int?
        /// When it came, by the store's clock; nil where the listing does not tell.
        package var modified: Int64?
        /// Pieces of manifests, not of files.
        package var isManifest: Bool

        package init(
            id: BundleID, stored: Int?, described: Int?, modified: Int64?, isManifest: Bool = false
        ) {
            self.id = id
            self.stored = stored
            self.described = described
            self.modified = modified
            self.isManifest = isManifest
        }
    }

    package struct Snapshot: Sendable {
        package var id: SnapshotID
        /// When it was forgotten, by the store's clock; nil where it is listed.
        package var forgotten: Int64?
        /// Condemned records that its run had seen.
        package var seen: Set<String>

        package init(id: SnapshotID, forgotten: Int64?, seen: Set<String>) {
            self.id = id
            self.forgotten = forgotten
            self.seen = seen
        }
    }

    package struct Condemned: Sendable {
        package var name: String
        /// By the store's clock.
        package var since: Int64
        package var bundles: [Int]
        package var index: [RecordID]

        package init(name: String, since: Int64, bundles: [Int], index: [RecordID]) {
            self.name = name
            self.since = since
            self.bundles = bundles
            self.index = index
        }
    }

    package struct Deleting: Sendable {
        package var name: String
        package var since: Int64
        package var records: Set<String>
        package var snapshots: Set<SnapshotID>
        /// Whether its phase is known to be over: this host began it, and it has died.
        package var isOver: Bool

        package init(
            name: String, since: Int64, records: Set<String>, snapshots: Set<SnapshotID>,
            isOver: Bool
        ) {
            self.name = name
            self.since = since
            self.records = records
            self.snapshots = snapshots
            self.isOver = isOver
        }
    }

    package struct IndexObject: Sendable {
        package var id: RecordID
        package var stored: Int

        package init(id: RecordID, stored: Int) {
            self.id = id
            self.stored = stored
        }
    }

    package var bundles: [Bundle]
    package var snapshots: [Snapshot]
    package var condemned: [Condemned]
    package var deleting: [Deleting]
    /// What runs that are alive name, by number of the bundle.
    package var leased: BundleSet
    package var index: [IndexObject]
    /// By the store's clock, before anything was looked at.
    package var now: Int64
    package var graceSeconds: Int64

    package init(
        bundles: [Bundle], snapshots: [Snapshot], condemned: [Condemned] = [],
        deleting: [Deleting] = [], leased: BundleSet? = nil, index: [IndexObject] = [],
        now: Int64, graceSeconds: Int64
    ) {
        self.bundles = bundles
        self.snapshots = snapshots
        self.condemned = condemned
        self.deleting = deleting
        self.leased = leased ?? BundleSet(capacity: bundles.count)
        self.index = index
        self.now = now
        self.graceSeconds = graceSeconds
    }

    /// Whether the grace period has gone by since then. Stores tell whole seconds, so it takes one
    /// more.
    package func isPast(_ since: Int64) -> Bool {
        graceSeconds == 0 || now - since > graceSeconds
    }

    /// Whether what was forgotten then counts as needed still.
    func counts(_ snapshot: Snapshot) -> Bool { snapshot.forgotten.map { !isPast($0) } ?? true }
}
