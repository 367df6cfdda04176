import SnapshotModel
import SnapshotRepository

/// Puts lines as index objects and remembers their names.
struct PruneIndexWriter {
    /// Raw bytes at which a new index object closes: a reader holds one in memory.
    static let recordBytes = 32 << 20

    let repository: Repository
    let look: PruneLook
    private(set) var names: Set<RecordName> = []

    init(repository: Repository, look: PruneLook) {
        self.repository = repository
        self.look = look
    }

    mutating func put(_ lines: ByteBuffer, ifLonger limit: Int = 0) throws(PruneInterruption) {
        guard lines.count > limit else { return }
        try look.confirm()
        do throws(RepositoryError) {
            names.insert(try repository.putRecord(.index, time: nil, payload: lines.bytes))
        } catch {
            throw .failed(ReplicationError(error))
        }
        lines.removeAll()
    }
}

/// What prune does to the index: new objects first, and only then the old ones go.
extension Prune {
    private func payload(_ name: RecordName) throws(PruneInterruption) -> [UInt8] {
        do throws(RepositoryError) {
            return try repository.readRecord(name)
        } catch {
            // Replaced by another prune since it was listed.
            throw error.isMissing ? .superseded : .failed(ReplicationError(error))
        }
    }

    /// Takes the lines of what is to be deleted out of the index, and deletes index objects that
    /// were replaced a grace period ago.
    ///
    /// - Returns: The new objects.
    func dropLines(
        _ view: PruneView, _ plan: PrunePlan, _ look: PruneLook
    ) throws(PruneInterruption) -> Set<RecordName> {
        let dropped = Set(plan.doomed.members.map { view.state.bundles[$0].id })
        let replaced = Set(plan.indexToDelete)
        var copy = IndexCopy(dropping: dropped, keepingLinesOf: telling(view, plan))
        var writer = PruneIndexWriter(repository: repository, look: look)
        var old: [RecordName] = []
        for item in view.index {
            try check()
            if replaced.contains(item.name.id) {
                old.append(item.name)
                continue
            }
            let payload = try payload(item.name)
            var names = IndexedBundleNames()
            _ = payload.withUnsafeBytes { IndexCodec.read($0, into: &names) }
            guard !names.bundles.isDisjoint(with: dropped) else { continue }
            // A young one may be that of a run that goes on: it is left to tell what that needs.
            let isYoung = item.modified.map { !view.state.isPast($0) } ?? false
            try add(payload, item.name, to: &copy, keepsSegments: isYoung)
            old.append(item.name)
            try writer.put(copy.lines, ifLonger: PruneIndexWriter.recordBytes)
        }
        try writer.put(copy.lines)
        report.indexWritten += writer.names.count
        try check()
        let gone = delete(old)
        report.indexDeleted += gone.count
        return writer.names
    }

    /// A snapshot that lacks what is deleted keeps its lines: they tell that, and what else it needs.
    /// Where another line does without what is deleted, that one tells enough.
    private func telling(_ view: PruneView, _ plan: PrunePlan) -> Set<ChunkID> {
        var kept: Set<ChunkID> = []
        for id in view.snapshots.flatMap(\.topIDs) where !kept.contains(id) {
            let lasts = view.needs.lines(ofSegment: id).contains {
                $0.allSatisfy { !plan.doomed.contains($0) && plan.bundles.isThere.contains($0) }
            }
            if !lasts { kept.insert(id) }
        }
        return kept
    }

    private func add(
        _ payload: [UInt8], _ name: RecordName, to copy: inout IndexCopy,
        keepsSegments: Bool = false
    ) throws(PruneInterruption) {
        do throws(RepositoryError) {
            try copy.add(payload, of: repository.recordKey(name), keepsSegments: keepsSegments)
        } catch {
            throw .failed(ReplicationError(error))
        }
    }

    /// Makes few index objects out of many.
    ///
    /// - Returns: Those that are told again, to be condemned.
    func mergeIndex(
        _ view: PruneView, _ plan: PrunePlan, _ look: PruneLook
    ) throws(PruneInterruption) -> [RecordID] {
        let wanted = Set(plan.indexToMerge)
        guard wanted.count > 1 else { return [] }
        monitor.phase("merging the index")
        // What tells of condemned bundles is left to their delete phase: told again here, it could
        // outlive them.
        var condemned: Set<BundleID> = []
        for record in view.state.condemned {
            for bundle in record.bundles { condemned.insert(view.state.bundles[bundle].id) }
        }
        var copy = IndexCopy()
        var writer = PruneIndexWriter(repository: repository, look: look)
        var merged: [RecordName] = []
        for item in view.index where wanted.contains(item.name.id) {
            try check()
            let payload = try payload(item.name)
            var names = IndexedBundleNames()
            _ = payload.withUnsafeBytes { IndexCodec.read($0, into: &names) }
            guard names.bundles.isDisjoint(with: condemned) else { continue }
            try add(payload, item.name, to: &copy)
            merged.append(item.name)
            try writer.put(copy.lines, ifLonger: PruneIndexWriter.recordBytes)
        }
        try writer.put(copy.lines)
        report.indexMerged += merged.count
        report.indexWritten += writer.names.count
        return merged.map(\.id)
    }
}
