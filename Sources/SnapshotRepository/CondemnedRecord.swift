package import SnapshotModel

/// One record below `condemned/` (format.md section 11): what no later snapshot may need, or what a
/// delete phase set out to do.
package struct CondemnedRecord: Sendable {
    package enum State: Sendable {
        case condemned(bundles: [BundleID], index: [RecordID])
        /// `records` are names without folder and ending, `snapshots` those that the phase had seen.
        case deleting(records: [String], snapshots: Set<SnapshotID>)
    }

    package let name: RecordName
    /// By its writer's clock.
    package let time: Timestamp
    package let host: String
    /// By the store's clock, in seconds since 1970, where its listing tells.
    package let modified: Int64?
    package let state: State

    /// Reads one. Nothing in it may be other than this release knows it: whoever deletes by it must
    /// understand all of it.
    package init(
        _ item: RecordListing.Item, in repository: Repository
    ) throws(RepositoryError) {
        let value = try repository.readJSON(item.name)
        let key = repository.recordKey(item.name)
        func list<Value>(
            _ field: String, _ parse: (String) -> Value?
        ) throws(RepositoryError) -> [Value] {
            let items = value[field]?.array ?? []
            let parsed = items.compactMap { $0.string.flatMap(parse) }
            guard parsed.count == items.count else {
                throw .damaged(key, "has a field '\(field)' that is none of format 1")
            }
            return parsed
        }
        switch value["state"]?.string {
        case "condemned":
            state = .condemned(
                bundles: try list("bundles") { BundleID($0) },
                index: try list("index") { RecordID($0) })
        case "deleting":
            state = .deleting(
                records: try list("records") { $0 },
                snapshots: Set(try list("snapshots") { SnapshotID($0) }))
        default:
            throw .damaged(key, "is a condemned record of an unknown state")
        }
        name = item.name
        time = value["time"]?.timestamp ?? Timestamp(seconds: 0)
        host = value["host"]?.string ?? ""
        modified = item.modified
    }

    /// Seals a record without storing it: its name is known before it is there.
    package static func seal(
        _ state: State, for repository: Repository, time: Timestamp, host: String
    ) throws(RepositoryError) -> SealedRecordBytes {
        var fields: [(key: String, value: JSONValue)] = [
            ("time", .string(time.text)), ("host", .string(host)),
        ]
        switch state {
        case .condemned(let bundles, let index):
            fields += [
                ("state", .string("condemned")), ("bundles", JSONValue(ids: bundles)),
                ("index", JSONValue(ids: index)),
            ]
        case .deleting(let records, let snapshots):
            fields += [
                ("state", .string("deleting")),
                ("records", .array(records.map { .string($0) })),
                ("snapshots", JSONValue(ids: snapshots.sorted())),
            ]
        }
        let payload = JSONValue.object(fields).bytes + [0x0A]
        return try payload.withRawBytes { (bytes) throws(RepositoryError) in
            try repository.seal(.condemned, time: time, payload: bytes)
        }
    }

    /// Stores a record; it is durable when this returns.
    package static func put(
        _ state: State, in repository: Repository, time: Timestamp, host: String
    ) throws(RepositoryError) -> RecordName {
        let sealed = try seal(state, for: repository, time: time, host: host)
        try repository.put(sealed)
        return sealed.name
    }
}
