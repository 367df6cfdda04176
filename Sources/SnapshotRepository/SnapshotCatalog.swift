package import SnapshotModel

/// The snapshots of a repository as they are to be listed: marks applied, forgotten ones left out,
/// incomplete ones named.
package struct SnapshotCatalog: Sendable {
    /// In order of time, then id.
    package private(set) var snapshots: [Snapshot]
    /// Records that could not be read, as findings.
    package let damaged: [RepositoryError]
    package let condemned: CondemnedView
    package let forgotten: Set<SnapshotID>
    /// What was forgotten and has not been removed yet, in order of time, then id.
    package private(set) var forgottenSnapshots: [Snapshot]
    /// What `forgotten` comes from, in the order in which it applies.
    package let forgottenRecords: [ForgottenRecord]

    /// Reads all snapshot records and what later records say of them.
    ///
    /// One record that cannot be read does not hide the others: it is in `damaged`.
    ///
    /// - Parameter listing: The look at the store to go by; a fresh one where there is none.
    package static func load(
        _ repository: Repository, in listing: RecordListing? = nil
    ) throws(RepositoryError) -> SnapshotCatalog {
        var snapshots: [Snapshot] = []
        var damaged: [RepositoryError] = []
        let listing = try repository.look(listing)
        if repository.cachesRecords { RecordCache(repository).keep(listing) }
        repository.fetchAhead(listing, [.snapshot, .forgotten, .mark, .condemned])
        let records = try ForgottenRecord.load(repository, in: listing, damaged: &damaged)
        let forgotten = Set(records.forgotten.keys)
        for name in listing.names(.snapshot) {
            do {
                let value = try repository.readJSON(name)
                snapshots.append(
                    try Snapshot(name: name, json: value, key: repository.recordKey(name)))
            } catch {
                // Deleted between the listing and the reading: it is not there.
                if error.isMissing { continue }
                damaged.append(error)
            }
        }
        snapshots.sort { $0.time != $1.time ? $0.time < $1.time : $0.id < $1.id }
        try MarkRecord.apply(to: &snapshots, repository, in: listing, damaged: &damaged)
        let condemned = try CondemnedView.load(repository, in: listing, damaged: &damaged)
        return SnapshotCatalog(
            snapshots: snapshots.filter { !forgotten.contains($0.id) }, damaged: damaged,
            condemned: condemned, forgotten: forgotten,
            forgottenSnapshots: snapshots.filter { forgotten.contains($0.id) },
            forgottenRecords: records)
    }

    /// Marks those snapshots incomplete that need what a delete phase removed which had not seen
    /// them, and those of whose need the index tells nothing (format.md section 11).
    package mutating func markIncomplete(_ index: ChunkIndex) {
        let described = Set(index.bundles.map(\.id))
        for position in snapshots.indices {
            let snapshot = snapshots[position]
            let unseen = condemned.bundlesDeletedUnseen(by: snapshot)
            if !unseen.isEmpty {
                snapshots[position].isIncomplete = index.lacks(snapshot, without: unseen)
            }
            // The records of a delete phase go when it has ended, and a snapshot may arrive later.
            if !snapshots[position].isIncomplete, index.damaged.isEmpty {
                let need = index.need(of: snapshot)
                snapshots[position].isUndescribed =
                    !need.missing.isEmpty || !need.bundles.isSubset(of: described)
            }
        }
    }

    package enum Selector: Sendable {
        /// Id prefix, `latest`, `latest~2`, or a date or time.
        case text(String)
    }

    /// Finds the one snapshot that `text` names among those that `isWanted` lets pass.
    ///
    /// `latest` means the last of `host`; where that host has none and several others have some,
    /// the user must choose.
    package func find(_ text: String, host: String?, isWanted: (Snapshot) -> Bool = { _ in true })
        throws(RepositoryError) -> Snapshot
    {
        let candidates = snapshots.filter(isWanted)
        guard !candidates.isEmpty else {
            throw RepositoryError(
                .notFound, text,
                snapshots.isEmpty
                    ? "the repository has no snapshot yet" : "no snapshot fits the selection",
                remedy: snapshots.isEmpty
                    ? "make one with 'batchsync backup'" : "'batchsync snapshots' lists them")
        }
        if text == "latest" || text.hasPrefix("latest~") {
            guard let back = text == "latest" ? 0 : Int(text.dropFirst(7)), back >= 0 else {
                throw RepositoryError(
                    .notFound, text, "is not a snapshot",
                    remedy: "'latest~N' counts back from the last: latest~1 is the one before it")
            }
            var own = candidates
            if let host {
                own = candidates.filter { $0.host == host }
                if own.isEmpty {
                    let hosts = Set(candidates.map(\.host)).sorted()
                    throw RepositoryError(
                        .notFound, text,
                        "host '\(host)' has no snapshot here; hosts that have: \(hosts.joined(separator: ", "))",
                        remedy: "choose one with --host NAME, or name the snapshot by its id")
                }
            }
            guard back < own.count else {
                throw RepositoryError(
                    .notFound, text,
                    own.count == 1
                        ? "there is only 1 snapshot to count back through"
                        : "there are only \(own.count) snapshots to count back through",
                    remedy: "'batchsync snapshots' lists them")
            }
            return own[own.count - 1 - back]
        }
        if text.count >= 4,
            text.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        {
            let found = candidates.filter { $0.id.description.hasPrefix(text) }
            if found.count == 1 { return found[0] }
            if found.count > 1 {
                throw RepositoryError(
                    .notFound, text,
                    "\(found.count) snapshots begin like this: \(found.map { $0.id.short }.joined(separator: ", "))",
                    remedy: "give more digits")
            }
        }
        if let moment = Self.moment(text) {
            let own = candidates.filter { $0.time <= moment && (host == nil || $0.host == host) }
            guard let last = own.last else {
                throw RepositoryError(
                    .notFound, text, "no snapshot is as old as this",
                    remedy: "'batchsync snapshots' lists them")
            }
            return last
        }
        throw RepositoryError(
            .notFound, text, "no snapshot has this id",
            remedy:
                "'batchsync snapshots' lists them; a date is written 2026-03-31 or 2026-03-31T22:00:00Z"
        )
    }

    /// `2026-03-31` (its last second), `2026-03-31T22:00[:30][Z]` or with a space; UTC.
    package static func moment(_ text: String) -> Timestamp? {
        let bytes = Array(text.utf8)
        func number(_ start: Int, _ count: Int) -> Int? {
            guard start + count <= bytes.count else { return nil }
            var value = 0
            for index in start..<(start + count) {
                guard (0x30...0x39).contains(bytes[index]) else { return nil }
                value = value * 10 + Int(bytes[index] - 48)
            }
            return value
        }
        guard bytes.count >= 10, bytes[4] == 0x2D, bytes[7] == 0x2D, let year = number(0, 4),
            let month = number(5, 2),
            let day = number(8, 2), (1...12).contains(month), (1...31).contains(day)
        else { return nil }
        // What the calendar does not have, such as 30 February, would count on into the next month.
        let isDate = Timestamp(year: year, month: month, day: day).civil.day == day
        if bytes.count == 10 {
            guard isDate else { return nil }
            return Timestamp(
                seconds: Timestamp(
                    year: year, month: month, day: day, hour: 23, minute: 59, second: 59
                ).seconds,
                nanoseconds: 999_999_999)
        }
        guard bytes[10] == 0x54 || bytes[10] == 0x20, bytes.count >= 16, bytes[13] == 0x3A,
            let hour = number(11, 2),
            let minute = number(14, 2), hour < 24, minute < 60
        else { return nil }
        var second = 59
        var rest = 16
        if bytes.count >= 19, bytes[16] == 0x3A {
            guard let given = number(17, 2), given < 61 else { return nil }
            second = given
            rest = 19
        }
        guard bytes.count == rest || bytes.count == rest + 1 && bytes[rest] == 0x5A else {
            return nil
        }
        let whole = Timestamp(
            year: year, month: month, day: day, hour: hour, minute: minute, second: second)
        guard isDate else { return nil }
        return Timestamp(seconds: whole.seconds, nanoseconds: 999_999_999)
    }
}

extension ChunkIndex {
    /// Whether a snapshot can no longer be whole once `gone` has gone: a top node lies in nothing
    /// else, or each of its lines names some of it (format.md section 11). One line without is
    /// enough. Where there is none at all, prune has taken what there was out of the index.
    func lacks(_ snapshot: Snapshot, without gone: Set<BundleID>) -> Bool {
        for id in snapshot.topIDs {
            if locations(id).allSatisfy({ gone.contains($0.bundle) }) { return true }
            if alternatives(ofSegment: id).allSatisfy({ !gone.isDisjoint(with: $0) }) {
                return true
            }
        }
        return false
    }

    /// What each line for a segment or node says, in no particular order.
    func alternatives(ofSegment id: ChunkID) -> [[BundleID]] {
        var lines: [[BundleID]] = []
        for table in tables {
            guard var index = table.findSegment(id) else { continue }
            while index < table.counts.segments, table.segmentID(index) == id {
                lines.append(table.segment(index).map { table.bundleID($0) })
                index += 1
            }
        }
        return lines
    }
}
