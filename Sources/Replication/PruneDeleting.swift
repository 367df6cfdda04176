import SnapshotModel
import SnapshotRepository
import Synchronization

/// The second phase: what was condemned a grace period ago and is not needed still is deleted, in
/// the order new index objects, old index objects, bundles, records.
extension Prune {
    func deletePhase(
        _ view: PruneView, _ plan: PrunePlan, _ look: PruneLook
    ) throws(PruneInterruption) {
        let doomed = plan.doomed.members
        let hasWork =
            !plan.indexToDelete.isEmpty
            || doomed.contains { number in
                let bundle = view.state.bundles[number]
                return bundle.stored != nil || bundle.described != nil
            }
        guard hasWork || !plan.due.isEmpty || !view.state.deleting.isEmpty else { return }
        var phase: Announced?
        var told = Set(view.state.bundles.filter { $0.described != nil }.map(\.id))
        var known = Set(view.index.map(\.name))
        if hasWork {
            monitor.phase("deleting")
            phase = try announce(view, plan, look)
            known.formUnion(try dropLines(view, plan, look))
            told.subtract(doomed.map { view.state.bundles[$0].id })
            try deleteBundles(doomed.filter { view.state.bundles[$0].stored != nil }, view)
        }
        try removeCondemned(view, plan, look, phase, Told(bundles: told, index: known))
    }

    /// What the index objects that this prune has read or written tell of.
    private struct Told {
        var bundles: Set<BundleID>
        var index: Set<RecordName>
    }

    // MARK: Announcing

    /// A delete phase of this prune and its record.
    struct Announced {
        let record: RecordName
        let mark: PruneMemory.Phase
    }

    /// Writes which snapshots this phase has seen, then looks whether anybody else has begun one
    /// meanwhile, or ended one: what that had not seen would not be in this plan.
    private func announce(
        _ view: PruneView, _ plan: PrunePlan, _ look: PruneLook
    ) throws(PruneInterruption) -> Announced {
        try check()
        let (repository, host, memory) = (repository, options.host, memory)
        let state = CondemnedRecord.State.deleting(
            records: plan.due, snapshots: Set(plan.snapshotsCounted.map { view.snapshots[$0].id }))
        let phase = try interruptible {
            let sealed = try CondemnedRecord.seal(
                state, for: repository, time: Timestamp(nanosecondsSince1970: HostClock.now),
                host: host)
            // Noted first: who dies between the two has begun nothing.
            let mark = try memory.begin(sealed.name)
            try repository.put(sealed)
            return Announced(record: sealed.name, mark: mark)
        }
        look.add(phase.record)
        if try isOvertaken(view, phase.record) {
            delete([phase.record])
            phase.mark.forget()
            throw .superseded
        }
        return phase
    }

    private func isOvertaken(
        _ view: PruneView, _ own: RecordName
    ) throws(PruneInterruption) -> Bool {
        let repository = repository
        let items = try interruptible { try repository.listRecords(.condemned) }
        let names = Set(items.map(\.name))
        for record in view.condemned {
            if case .condemned = record.state, !names.contains(record.name) { return true }
        }
        let known = Set(view.condemned.map(\.name))
        for item in items where item.name != own && !known.contains(item.name) {
            do throws(RepositoryError) {
                let record = try CondemnedRecord(item, in: repository)
                if case .deleting = record.state { return true }
            } catch {
                // Put and taken back again.
                guard error.isMissing else { throw .failed(ReplicationError(error)) }
            }
        }
        return false
    }

    // MARK: Objects

    /// Bundles in one request, on a store that takes so many.
    private static let deletedAtOnce = 1000

    private func deleteBundles(
        _ numbers: [Int], _ view: PruneView
    ) throws(PruneInterruption) {
        var rest = numbers[...]
        while !rest.isEmpty {
            try check()
            let part = rest.prefix(Self.deletedAtOnce)
            rest = rest.dropFirst(part.count)
            var failed: Set<BundleID> = []
            var failure: ReplicationError?
            repository.deleteBundles(part.map { view.state.bundles[$0].id }) { id, why in
                failed.insert(id)
                if let error = note(why, object: repository.bundleKey(id)) { failure = error }
            }
            for number in part where !failed.contains(view.state.bundles[number].id) {
                report.deleted.add(view.state.bundles[number].stored ?? 0)
                monitor.counts.entries.add(1, ordering: .relaxed)
                monitor.counts.bytes.add(
                    view.state.bundles[number].stored ?? 0, ordering: .relaxed)
            }
            if let failure { throw .failed(failure) }
        }
        report.keepsDeleted = repository.storeKeepsDeleted
    }

    /// What the store keeps on purpose is reported; anything else ends the prune.
    private func note(_ why: DeletionFailure, object: String) -> ReplicationError? {
        guard why.isDenied else { return ReplicationError(why.error) }
        report.retained.append(
            PruneReport.Retained(
                object: object, until: why.retainedUntil.map { Timestamp(seconds: $0) },
                message: why.error.message))
        return nil
    }

    /// Deletes records; gives those that have gone.
    @discardableResult
    func delete(_ names: [RecordName]) -> Set<RecordName> {
        guard !names.isEmpty else { return [] }
        var gone = Set(names)
        repository.deleteRecords(names) { name, why in
            gone.remove(name)
            if note(why, object: repository.recordKey(name)) != nil {
                report.notes.append("\(repository.recordKey(name)): \(why.error.message)")
            }
        }
        return gone
    }

    // MARK: Records

    /// Removes condemned records of which nothing is left, then the delete phases' of which no
    /// condemned record is left.
    ///
    /// Both stay as long as anybody else may still be deleting by them, and as long as a snapshot
    /// is incomplete because of them.
    private func removeCondemned(
        _ view: PruneView, _ plan: PrunePlan, _ look: PruneLook, _ phase: Announced?, _ told: Told
    ) throws(PruneInterruption) {
        try check()
        let repository = repository
        let items = try interruptible { try repository.listRecords(.condemned) }
        var names = Set(items.map(\.name))
        let over = Set(view.state.deleting.filter { isOver($0, view) }.map(\.name))
        var deleting: [CondemnedRecord] = []
        for item in items {
            guard let record = try read(item, view) else { continue }
            guard case .deleting = record.state else { continue }
            if record.name != phase?.record, !over.contains(record.name.text) { return }
            deleting.append(record)
        }
        let incomplete = plan.incomplete.map { view.state.snapshots[$0].seen }
        let due = Set(plan.due)
        let candidates = view.condemned.filter { record in
            due.contains(record.name.text) && names.contains(record.name)
                && incomplete.allSatisfy { $0.contains(record.name.text) }
        }
        var removable: [RecordName] = []
        if !candidates.isEmpty {
            let left = try whatIsLeft(told)
            for record in candidates {
                guard case .condemned(let bundles, let index) = record.state,
                    !bundles.contains(where: { left.bundles.contains($0) }),
                    !index.contains(where: { left.index.contains($0) })
                else { continue }
                removable.append(record.name)
            }
        }
        let gone = delete(removable)
        look.remove(gone)
        names.subtract(gone)
        let kept = Set(names.map(\.text))
        let ended = deleting.filter { record in
            guard case .deleting(let records, _) = record.state else { return false }
            return !records.contains { kept.contains($0) }
        }
        let removed = delete(ended.map(\.name))
        look.remove(removed)
        if let phase, removed.contains(phase.record) { phase.mark.forget() }
    }

    /// Whether nobody deletes by this record any more: its process has died, or it is so old that
    /// whoever began it looks again before it goes on.
    private func isOver(_ phase: PruneState.Deleting, _ view: PruneView) -> Bool {
        phase.isOver || view.state.isPast(phase.since)
    }

    private func read(
        _ item: RecordListing.Item, _ view: PruneView
    ) throws(PruneInterruption) -> CondemnedRecord? {
        if let known = view.condemned.first(where: { $0.name == item.name }) { return known }
        do throws(RepositoryError) {
            return try CondemnedRecord(item, in: repository)
        } catch {
            guard error.isMissing else { throw .failed(ReplicationError(error)) }
            return nil
        }
    }

    /// What the store still has: bundles that are there or that any index object tells of, and
    /// index objects. Those that have come meanwhile are read.
    private func whatIsLeft(
        _ told: Told
    ) throws(PruneInterruption) -> (bundles: Set<BundleID>, index: Set<RecordID>) {
        let repository = repository
        return try interruptible {
            var names = IndexedBundleNames()
            var index: Set<RecordID> = []
            for item in try repository.listRecords(.index) {
                index.insert(item.name.id)
                guard !told.index.contains(item.name) else { continue }
                let payload = try repository.readRecord(item.name)
                _ = payload.withUnsafeBytes { IndexCodec.read($0, into: &names) }
            }
            var bundles = told.bundles.union(names.bundles)
            try repository.listBundleAges { id, _, _ in bundles.insert(id) }
            return (bundles, index)
        }
    }

    /// Removes what the grace period has run out for: forgotten snapshots, and leases of runs that
    /// nobody has renewed.
    func removeRecords(_ view: PruneView, _ plan: PrunePlan) throws(PruneInterruption) {
        try check()
        try removeSnapshots(view, plan)
        let living = Set(PruneView.living(view.runs, now: view.state.now).map(\.name))
        let ended = view.runs.filter { !living.contains($0.name) && view.state.isPast($0.since) }
        delete(ended.map(\.name))
    }

    private func removeSnapshots(
        _ view: PruneView, _ plan: PrunePlan
    ) throws(PruneInterruption) {
        guard !plan.snapshotsToRemove.isEmpty else { return }
        let repository = repository
        // Who takes forgetting back at this very moment is heard.
        let now = try interruptible { Set(try repository.listRecords(.forgotten).map(\.name)) }
        guard now == Set(view.forgotten.map(\.name)) else { return }
        let names = plan.snapshotsToRemove.compactMap { view.snapshots[$0].name }
        let gone = delete(names)
        for number in plan.snapshotsToRemove {
            let snapshot = view.snapshots[number]
            if let name = snapshot.name, gone.contains(name) {
                report.snapshotsRemoved.append(snapshot.id)
            }
        }
    }
}
