package import SnapshotModel

/// Tags and pins given to snapshots after their commit.
package struct MarkRecord: Sendable {
    package var snapshot: SnapshotID
    package var add: [String] = []
    package var remove: [String] = []
    package var pin: Bool?
    package var description: String?

    package init(snapshot: SnapshotID) { self.snapshot = snapshot }

    package func store(in repository: Repository, time: Timestamp, host: String)
        throws(RepositoryError)
    {
        var fields: [(key: String, value: JSONValue)] = [
            ("time", .string(time.text)), ("host", .string(host)),
            ("snapshot", .string(snapshot.description)),
        ]
        if !add.isEmpty { fields.append(("add", .array(add.map { .string($0) }))) }
        if !remove.isEmpty { fields.append(("remove", .array(remove.map { .string($0) }))) }
        if let pin { fields.append(("pin", .bool(pin))) }
        if let description { fields.append(("description", .string(description))) }
        try repository.putRecord(.mark, time: time, .object(fields))
    }

    static func apply(
        to snapshots: inout [Snapshot], _ repository: Repository, in listing: RecordListing,
        damaged: inout [RepositoryError]
    ) throws(RepositoryError) {
        let names = listing.names(.mark)
        guard !names.isEmpty else { return }
        var positions: [SnapshotID: Int] = [:]
        for (position, snapshot) in snapshots.enumerated() { positions[snapshot.id] = position }
        var marks: [(time: Timestamp, name: RecordName, value: JSONValue)] = []
        for name in names {
            do {
                let value = try repository.readJSON(name)
                guard let time = value["time"]?.timestamp else { continue }
                marks.append((time, name, value))
            } catch {
                damaged.append(error)
            }
        }
        marks.sort { $0.time != $1.time ? $0.time < $1.time : $0.name < $1.name }
        for mark in marks {
            guard let id = mark.value["snapshot"]?.string.flatMap({ SnapshotID($0) }),
                let position = positions[id]
            else { continue }
            let removed = Set((mark.value["remove"]?.array ?? []).compactMap(\.string))
            snapshots[position].tags.removeAll { removed.contains($0) }
            for tag in (mark.value["add"]?.array ?? []).compactMap(\.string)
            where !snapshots[position].tags.contains(tag) {
                snapshots[position].tags.append(tag)
            }
            if let pin = mark.value["pin"]?.bool { snapshots[position].isPinned = pin }
            if let text = mark.value["description"]?.string {
                snapshots[position].description = text
            }
        }
    }
}

/// What prune has condemned and deleted, as far as this look at the store has seen it.
package struct CondemnedView: Sendable {
    /// Names as snapshots carry them in `seen`.
    package private(set) var names: [String] = []
    /// No new snapshot may need any of these.
    package private(set) var bundles: Set<BundleID> = []
    package private(set) var indexes: Set<RecordID> = []
    package private(set) var byName: [String: Set<BundleID>] = [:]
    package private(set) var deletions: [(records: [String], snapshots: Set<SnapshotID>)] = []

    package init() {}

    /// - Parameter listing: The look at the store to go by; a fresh one where there is none.
    package static func load(
        _ repository: Repository, in listing: RecordListing? = nil,
        damaged: inout [RepositoryError]
    ) throws(RepositoryError) -> CondemnedView {
        var view = CondemnedView()
        for name in try repository.look(listing, at: .condemned).names(.condemned) {
            let value: JSONValue
            do {
                value = try repository.readJSON(name)
            } catch {
                // Records go last: what this one named has gone, and whoever lists bundles after
                // this look misses it there.
                if !error.isMissing { damaged.append(error) }
                continue
            }
            switch value["state"]?.string {
            case "condemned":
                let ids = Set(
                    (value["bundles"]?.array ?? []).compactMap {
                        $0.string.flatMap { BundleID($0) }
                    })
                view.names.append(name.text)
                view.bundles.formUnion(ids)
                view.byName[name.text] = ids
                view.indexes.formUnion(
                    (value["index"]?.array ?? []).compactMap { $0.string.flatMap { RecordID($0) } })
            case "deleting":
                view.deletions.append(
                    (
                        (value["records"]?.array ?? []).compactMap(\.string),
                        Set(
                            (value["snapshots"]?.array ?? []).compactMap {
                                $0.string.flatMap { SnapshotID($0) }
                            })
                    ))
            default:
                damaged.append(
                    .damaged(
                        repository.recordKey(name), "is a condemned record of an unknown state"))
            }
        }
        return view
    }

    /// What another store of the repository has condemned counts as well: a snapshot that goes to
    /// both relies on neither.
    package mutating func formUnion(_ other: CondemnedView) {
        names.append(contentsOf: other.names.filter { byName[$0] == nil })
        bundles.formUnion(other.bundles)
        byName.merge(other.byName) { own, _ in own }
    }

    /// Bundles removed by delete phases that had not seen this snapshot, under records that its run
    /// had not seen.
    func bundlesDeletedUnseen(by snapshot: Snapshot) -> Set<BundleID> {
        var deleted: Set<BundleID> = []
        for deletion in deletions where !deletion.snapshots.contains(snapshot.id) {
            for record in deletion.records where !snapshot.seen.contains(record) {
                deleted.formUnion(byName[record] ?? [])
            }
        }
        return deleted
    }
}

/// When each bundle was last read, and how deeply.
package struct VerifiedRecord: Sendable {
    package enum Depth: String, Sendable, Comparable {
        case digest, content
        package static func < (left: Depth, right: Depth) -> Bool {
            left == .digest && right == .content
        }
    }

    package struct Mark: Sendable {
        package var depth: Depth
        package var time: Timestamp
        package init(depth: Depth, time: Timestamp) {
            self.depth = depth
            self.time = time
        }
    }

    /// The latest reading of each, however deep it went.
    package private(set) var marks: [BundleID: Mark] = [:]
    /// The latest reading of each with an owner's identity, which a later one without does not undo.
    private var contentTimes: [BundleID: Timestamp] = [:]
    /// The records this was read from: they are replaced by the next one that is stored.
    private var sources: [RecordName] = []

    package init() {}

    package static func load(_ repository: Repository) throws(RepositoryError) -> VerifiedRecord {
        var record = VerifiedRecord()
        for (name, _, _) in try repository.listRecords(.verified) {
            // An unreadable record only makes bundles look longer unverified than they are.
            guard let value = try? repository.readJSON(name) else { continue }
            record.sources.append(name)
            for item in value["bundles"]?.array ?? [] {
                guard let parts = item.array, parts.count == 3,
                    let id = parts[0].string.flatMap({ BundleID($0) }),
                    let depth = parts[1].string.flatMap(Depth.init(rawValue:)),
                    let time = parts[2].timestamp
                else { continue }
                record.note(id, Mark(depth: depth, time: time))
            }
        }
        return record
    }

    package mutating func note(_ id: BundleID, _ mark: Mark) {
        if mark.depth == .content {
            contentTimes[id] = max(contentTimes[id] ?? mark.time, mark.time)
        }
        if let known = marks[id], known.time > mark.time { return }
        marks[id] = mark
    }

    /// When a bundle was last read at least so deeply; nil where that is not known.
    package func lastReading(of id: BundleID, atLeast depth: Depth) -> Timestamp? {
        depth == .content ? contentTimes[id] : marks[id]?.time
    }

    /// Stores what is known now, then removes the records it was read from.
    package mutating func store(
        in repository: Repository, time: Timestamp, host: String, keeping: Set<BundleID>
    ) throws(RepositoryError) {
        var list: [JSONValue] = []
        func add(_ id: BundleID, _ depth: Depth, _ time: Timestamp) {
            list.append(
                .array([
                    .string(id.description), .string(depth.rawValue), .string(time.text),
                ]))
        }
        for (id, mark) in marks.filter({ keeping.contains($0.key) }).sorted(by: { $0.key < $1.key })
        {
            add(id, mark.depth, mark.time)
            if mark.depth == .digest, let time = contentTimes[id] { add(id, .content, time) }
        }
        let name = try repository.putRecord(
            .verified, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string(host)), ("bundles", .array(list)),
            ]))
        for source in sources where source != name { try repository.deleteRecord(source) }
        sources = [name]
    }
}

/// Checkpoint and lease of a run in progress.
package struct RunRecord: Sendable {
    package var run: String
    package var sequence: Int
    package var started: Timestamp
    package var host: String
    package var roots: [[UInt8]]
    package var bundles: [BundleID]
    package var uses: [BundleID]
    package var segments: [ChunkID]

    package init(run: String, started: Timestamp, host: String, roots: [[UInt8]]) {
        self.run = run
        sequence = 0
        self.started = started
        self.host = host
        self.roots = roots
        bundles = []
        uses = []
        segments = []
    }

    /// Stores the record and removes the one before it.
    package func store(in repository: Repository, time: Timestamp, replacing old: RecordName?)
        throws(RepositoryError) -> RecordName
    {
        let name = try repository.putRecord(
            .run, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string(host)), ("run", .string(run)),
                ("sequence", .integer(Int64(sequence))), ("started", .string(started.text)),
                ("roots", .array(roots.map { JSONValue(path: $0) })),
                ("bundles", JSONValue(ids: bundles)),
                ("uses", JSONValue(ids: uses)), ("segments", JSONValue(ids: segments)),
            ]))
        if let old, old != name { try repository.deleteRecord(old) }
        return name
    }
}
