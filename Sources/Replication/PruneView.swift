import BundleFormat
import SnapshotModel
import SnapshotRepository

/// One look at everything that a prune decides by, taken in the order that makes it safe to decide
/// by (docs/protocol.md): condemned records, runs, snapshots, what was forgotten, the index,
/// bundles.
///
/// It fails closed: what is listed and cannot be read, authenticated and understood stops it.
struct PruneView {
    struct Run {
        let name: RecordName
        let record: RunRecord
        /// By the store's clock.
        let since: Int64
    }

    /// When the look began, on the clock that runs through suspend.
    let lookedAt: Int64
    let state: PruneState
    /// By the numbers of `state.snapshots`.
    let snapshots: [Snapshot]
    /// When each of them was committed, by the store's clock, where that tells.
    let committed: [Int64?]
    let condemned: [CondemnedRecord]
    let forgotten: [ForgottenRecord]
    let runs: [Run]
    let index: [RecordListing.Item]
    let needs: IndexedNeeds

    /// By how much the store's clock and this host's may differ.
    static let clockTolerance: Int64 = 3600
    /// How long what a run has named last counts as needed.
    static let leaseSeconds: Int64 = 7 * 86_400
    /// How often a look begins anew where something it had listed has vanished.
    private static let attempts = 5

    /// - Parameters:
    ///   - asOneTable: For who goes through the whole index: `ChunkIndex.load`.
    ///   - isOver: Whether the delete phase that a record tells of is known to be over.
    static func take(
        _ repository: Repository, asOneTable: Bool = false, cancellation: Cancellation,
        isOver: (RecordName) -> Bool
    ) throws(ReplicationError) -> PruneView {
        var attempt = 1
        while true {
            try cancellation.check()
            do throws(RepositoryError) {
                return try PruneView(repository, asOneTable: asOneTable, isOver: isOver)
            } catch {
                // Somebody else has deleted between the listing and the reading.
                guard error.isMissing, attempt < attempts else { throw stopped(error) }
                attempt += 1
            }
        }
    }

    private static func stopped(_ error: RepositoryError) -> ReplicationError {
        ReplicationError(
            .repository(error.kind), error.subject,
            "\(error.message); nothing was deleted, since it may say what is needed",
            remedy: error.remedy)
    }

    private init(
        _ repository: Repository, asOneTable: Bool, isOver: (RecordName) -> Bool
    ) throws(RepositoryError) {
        lookedAt = HostClock.monotonic
        let now = try repository.storeTime()
        let own = HostClock.now / 1_000_000_000
        guard abs(now - own) <= Self.clockTolerance else {
            throw RepositoryError(
                .refused, "",
                "the store's clock says \(Timestamp(seconds: now).compactUTC) and this host's \(Timestamp(seconds: own).compactUTC): prune goes by both",
                remedy: "set the one that is wrong")
        }
        var condemned: [CondemnedRecord] = []
        for item in try repository.listRecords(.condemned) {
            condemned.append(try CondemnedRecord(item, in: repository))
        }
        // Leases before snapshots: a run lets its lease go when its snapshot is there.
        var runs: [Run] = []
        for item in try repository.listRecords(.run) {
            // One that has vanished was renewed or let go: the next attempt finds the renewal, or the
            // snapshot.
            let record = try RunRecord(item.name, in: repository)
            runs.append(
                Run(
                    name: item.name, record: record,
                    since: item.modified ?? item.name.time?.seconds ?? now))
        }
        var snapshots: [Snapshot] = []
        var committed: [Int64?] = []
        for item in try repository.listRecords(.snapshot) {
            committed.append(item.modified)
            let value = try repository.readJSON(item.name)
            snapshots.append(
                try Snapshot(
                    name: item.name, json: value, key: repository.recordKey(item.name)))
        }
        let listing = try repository.look(nil, at: .forgotten)
        var damaged: [RepositoryError] = []
        let forgotten = try ForgottenRecord.load(repository, in: listing, damaged: &damaged)
        if let first = damaged.first { throw first }
        guard forgotten.count == listing[.forgotten].count else {
            throw RepositoryError(
                .storage, "forgotten/", "a record has vanished", isMissing: true)
        }
        let indexListing = try repository.look(nil, at: .index)
        let index = try ChunkIndex.load(
            repository, in: indexListing, asOneTable: asOneTable)
        if let first = index.damaged.first { throw first }
        guard Set(index.records) == Set(indexListing.names(.index).map(\.id)) else {
            throw RepositoryError(.storage, "index/", "a record has vanished", isMissing: true)
        }
        var listed: [BundleID: (size: Int, modified: Int64?)] = [:]
        try repository.listBundleAges { listed[$0] = ($1, $2) }

        var named: Set<BundleID> = []
        for record in condemned {
            if case .condemned(let bundles, _) = record.state { named.formUnion(bundles) }
        }
        let living = Self.living(runs, now: now)
        for run in living { named.formUnion(run.record.bundles + run.record.uses) }
        let needs = IndexedNeeds(index, and: named.union(listed.keys))
        self.needs = needs
        let bundles = needs.bundles.indices.map { number in
            let id = needs.bundles[number]
            return PruneState.Bundle(
                id: id, stored: listed[id]?.size, described: needs.described[number]?.size,
                modified: listed[id]?.modified,
                isManifest: needs.described[number]?.kind == .manifest)
        }
        var leased = BundleSet(capacity: bundles.count)
        for run in living {
            for id in run.record.bundles + run.record.uses {
                if let number = needs.number(id) { leased.insert(number) }
            }
        }
        var times: [RecordName: Int64] = [:]
        for item in listing[.forgotten] {
            if let modified = item.modified { times[item.name] = modified }
        }
        let inForce = forgotten.forgotten
        state = PruneState(
            bundles: bundles,
            snapshots: snapshots.map { snapshot in
                let record = inForce[snapshot.id]
                return PruneState.Snapshot(
                    id: snapshot.id,
                    forgotten: record.map { times[$0.name] ?? $0.time.seconds },
                    seen: Set(snapshot.seen))
            },
            condemned: Self.condemned(condemned, needs),
            deleting: Self.deleting(condemned, isOver),
            leased: leased,
            index: indexListing[.index].map {
                PruneState.IndexObject(id: $0.name.id, stored: $0.length)
            },
            now: now, graceSeconds: Int64(repository.config.graceSeconds))
        self.snapshots = snapshots
        self.committed = committed
        self.condemned = condemned
        self.forgotten = forgotten
        self.runs = runs
        self.index = indexListing[.index]
    }

    private static func condemned(
        _ records: [CondemnedRecord], _ needs: IndexedNeeds
    ) -> [PruneState.Condemned] {
        records.compactMap { record in
            guard case .condemned(let bundles, let index) = record.state else { return nil }
            return PruneState.Condemned(
                name: record.name.text, since: record.since,
                bundles: bundles.compactMap { needs.number($0) }, index: index)
        }
    }

    private static func deleting(
        _ records: [CondemnedRecord], _ isOver: (RecordName) -> Bool
    ) -> [PruneState.Deleting] {
        records.compactMap { record in
            guard case .deleting(let records, let snapshots) = record.state else { return nil }
            return PruneState.Deleting(
                name: record.name.text, since: record.since, records: Set(records),
                snapshots: snapshots, isOver: isOver(record.name))
        }
    }

    /// The last record of each run, unless it is older than a lease lasts.
    static func living(_ runs: [Run], now: Int64) -> [Run] {
        var last: [String: Run] = [:]
        for run in runs where now - run.since <= leaseSeconds {
            if let other = last[run.record.run], other.record.sequence >= run.record.sequence {
                continue
            }
            last[run.record.run] = run
        }
        return last.values.sorted { $0.name < $1.name }
    }

    /// Snapshots that are neither there nor forgotten, among those that somebody knows.
    func vanished(_ known: some Sequence<SnapshotID>) -> [SnapshotID] {
        var there = Set(snapshots.map(\.id))
        there.formUnion(forgotten.forgotten.keys)
        return known.filter { !there.contains($0) }
    }
}

extension CondemnedRecord {
    /// When it came, by the store's clock where that tells.
    var since: Int64 { modified ?? time.seconds }
}

/// The tops of a look's snapshots, numbered: what two snapshots share has one number.
struct IndexNeedSource: SnapshotNeedSource {
    private let needs: IndexedNeeds
    private let ids: [ChunkID]
    private let tops: [[Int]]

    init(_ view: PruneView) {
        needs = view.needs
        var numbers: [ChunkID: Int] = [:]
        var ids: [ChunkID] = []
        tops = view.snapshots.map { snapshot in
            snapshot.topIDs.map { id in
                if let known = numbers[id] { return known }
                numbers[id] = ids.count
                ids.append(id)
                return ids.count - 1
            }
        }
        self.ids = ids
    }

    var topCount: Int { ids.count }
    func tops(ofSnapshot snapshot: Int) -> [Int] { tops[snapshot] }
    func top(_ number: Int) -> (holders: [Int], lines: [[Int]]) {
        (needs.holders(ids[number]), needs.lines(ofSegment: ids[number]))
    }
}
