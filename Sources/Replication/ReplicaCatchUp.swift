import SnapshotModel
import SnapshotRepository

/// Gives each store of a repository what it lacks of the others' snapshots, by name, without reading
/// a source: a store that was down for some nights, a new one, an emptied one.
///
/// A store gets the snapshots of a host that are newer than the newest it lists of that host, and
/// every one of a host of which it lists none. What it has forgotten stays forgotten, and what its
/// own prune has removed does not come back.
struct ReplicaCatchUp {
    let monitor: any Monitor
    let cancellation: Cancellation

    /// One store while it is brought up to date.
    struct Member {
        let repository: Repository
        var catalog: SnapshotCatalog
        var outcome: StoreOutcome

        init(_ repository: Repository) throws(ReplicationError) {
            self.repository = repository
            catalog = try lifted { try SnapshotCatalog.load(repository) }
            outcome = StoreOutcome(location: repository.location, failure: nil)
        }
    }

    /// What the target lacks and the source has, the oldest first.
    static func lacking(_ target: SnapshotCatalog, of source: SnapshotCatalog) -> [Snapshot] {
        var newest: [String: Timestamp] = [:]
        var known: Set<SnapshotID> = []
        for snapshot in target.snapshots {
            known.insert(snapshot.id)
            newest[snapshot.host] = max(newest[snapshot.host] ?? snapshot.time, snapshot.time)
        }
        return source.snapshots.filter { snapshot in
            guard snapshot.isWhole, !known.contains(snapshot.id),
                !target.forgotten.contains(snapshot.id)
            else { return false }
            guard let last = newest[snapshot.host] else { return true }
            return snapshot.time > last
        }
    }

    /// Brings every store up to date from each of the others. What fails on one is noted with it.
    func run(_ members: inout [Member]) throws(ReplicationError) {
        for target in members.indices {
            for source in members.indices where source != target {
                let missing = Self.lacking(members[target].catalog, of: members[source].catalog)
                guard !missing.isEmpty else { continue }
                try bring(missing, from: members[source], to: &members[target])
            }
        }
    }

    private func bring(
        _ snapshots: [Snapshot], from source: Member, to target: inout Member
    ) throws(ReplicationError) {
        let (from, to) = (source.repository, target.repository)
        let count = snapshots.count == 1 ? "1 snapshot" : "\(snapshots.count) snapshots"
        monitor.note("\(to.location) lacks \(count) that \(from.location) has: copying")
        do {
            var look = try StoreLook(to)
            // Where there is a choice of bundles, those that the target may still rely on.
            let index = try ChunkIndex.load(from, condemned: look.condemned)
            try to.takeFoundation(from: from)
            let copy = SnapshotCopy(
                source: from, sourceIndex: index, target: to, monitor: monitor,
                cancellation: cancellation)
            for snapshot in snapshots {
                do throws(ReplicationError) {
                    let copied = try copy.bring(snapshot, &look)
                    target.outcome.broughtSnapshots += 1
                    target.outcome.copiedBundles += copied.bundles
                    target.outcome.copiedBytes += copied.bytes
                } catch {
                    // One that cannot be copied does not keep the others away.
                    guard case .other = error.kind else { throw error }
                    monitor.note("snapshot \(snapshot.id.short): \(error.description)")
                }
            }
            if target.catalog.snapshots.isEmpty, target.catalog.forgotten.isEmpty {
                // A store that was emptied begins anew: what prune knew of it has been named by now.
                PruneMemory(to).forgetSnapshots()
            }
            try takeMarks(from: from, to: to)
            target.catalog = try SnapshotCatalog.load(to)
        } catch {
            try cancellation.check()
            monitor.note(
                "\(to.location) could not be brought up to date: \(BundleSink.wrap(error).description)"
            )
        }
    }

    /// Tags and pins that were given on the other store.
    private func takeMarks(from source: Repository, to target: Repository) throws {
        let known = Set(try target.listRecords(.mark).map(\.name))
        for mark in try source.listRecords(.mark) where !known.contains(mark.name) {
            try target.takeRecord(mark.name, from: source)
        }
    }
}
