package import SnapshotModel
package import SnapshotRepository

/// Takes snapshots off the list, and puts them back on it.
///
/// All that is written is one small record; no snapshot and no bundle is touched, so a backup, a
/// restore or another forgetting at the same time is in nobody's way. Space comes back with prune,
/// which leaves what was forgotten alone for the grace period: until then forgetting can be undone.
package struct Forget {
    private let repository: Repository
    /// Who forgets: `ForgetUndo.last` goes by it.
    private let host: String
    private let now: Timestamp

    package init(_ repository: Repository, host: String, now: Timestamp) {
        self.repository = repository
        self.host = host
        self.now = now
    }

    /// Forgets what the plan says; does nothing where that is nothing.
    ///
    /// - Parameter catalog: What the plan was made from.
    /// - Returns: Until when prune leaves the snapshots alone. Nil where nothing was forgotten.
    package func execute(
        _ plan: ForgetPlan, on catalog: SnapshotCatalog
    ) throws(ReplicationError) -> Timestamp? {
        guard !plan.forgotten.isEmpty else { return nil }
        let record = try store(forgetting: plan.forgotten.map(\.id), after: catalog)
        return Timestamp(
            seconds: record.time.seconds + Int64(repository.config.graceSeconds),
            nanoseconds: record.time.nanoseconds)
    }

    /// Puts snapshots back on the list.
    ///
    /// - Parameter catalog: What the undo was chosen from.
    /// - Returns: Those that prune has removed in the meantime. They stay forgotten.
    package func undo(
        _ undo: ForgetUndo, on catalog: SnapshotCatalog
    ) throws(ReplicationError) -> [SnapshotID] {
        guard !undo.snapshots.isEmpty else { return [] }
        let record = try store(restoring: undo.snapshots.map(\.id), after: catalog)
        let repository = repository
        let listed = try lifted { Set(try repository.listRecords(.snapshot).map(\.name)) }
        let lost = undo.snapshots.filter { $0.name.map { !listed.contains($0) } ?? true }.map(\.id)
        if !lost.isEmpty {
            // A snapshot that is neither there nor forgotten would look as if somebody had taken it.
            try store(forgetting: lost, after: catalog, and: record)
        }
        return lost
    }

    @discardableResult
    private func store(
        forgetting: [SnapshotID] = [], restoring: [SnapshotID] = [], after catalog: SnapshotCatalog,
        and last: ForgottenRecord? = nil
    ) throws(ReplicationError) -> ForgottenRecord {
        let (repository, now, host) = (repository, now, host)
        return try lifted {
            try ForgottenRecord.store(
                forgetting: forgetting, restoring: restoring, in: repository,
                after: catalog.forgottenRecords + (last.map { [$0] } ?? []), now: now, host: host)
        }
    }
}
