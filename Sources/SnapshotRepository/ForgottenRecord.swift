package import SnapshotModel

/// What one forgotten record says: which snapshots are no longer listed, and which are again
/// (format.md section 11).
package struct ForgottenRecord: Sendable {
    package let name: RecordName
    package let time: Timestamp
    package let host: String
    package let snapshots: [SnapshotID]
    /// Applied after `snapshots`.
    package let restored: [SnapshotID]

    private init(_ name: RecordName, _ value: JSONValue, _ time: Timestamp) {
        func ids(_ field: String) -> [SnapshotID] {
            (value[field]?.array ?? []).compactMap { $0.string.flatMap { SnapshotID($0) } }
        }
        self.name = name
        self.time = time
        host = value["host"]?.string ?? ""
        snapshots = ids("snapshots")
        restored = ids("restored")
    }

    /// All that can be read, in the order in which they apply.
    package static func load(
        _ repository: Repository, in listing: RecordListing, damaged: inout [RepositoryError]
    ) throws(RepositoryError) -> [ForgottenRecord] {
        var records: [ForgottenRecord] = []
        for name in listing.names(.forgotten) {
            do throws(RepositoryError) {
                let value = try repository.readJSON(name)
                guard let time = value["time"]?.timestamp else {
                    throw RepositoryError.damaged(repository.recordKey(name), "states no time")
                }
                records.append(ForgottenRecord(name, value, time))
            } catch {
                // Prune removes one with the last snapshot that it names.
                if error.isMissing { continue }
                damaged.append(error)
            }
        }
        return records.sorted { $0.time != $1.time ? $0.time < $1.time : $0.name < $1.name }
    }

    /// Stores a record that forgets some snapshots, or takes that back; it is durable when this
    /// returns.
    ///
    /// - Parameter records: What is there already. The new record is dated behind all of them that
    ///   name one of these snapshots, so that it has the last word also where clocks disagree.
    @discardableResult
    package static func store(
        forgetting snapshots: [SnapshotID] = [], restoring restored: [SnapshotID] = [],
        in repository: Repository, after records: [ForgottenRecord], now: Timestamp, host: String
    ) throws(RepositoryError) -> ForgottenRecord {
        let named = Set(snapshots + restored)
        let last = records.last { !named.isDisjoint(with: $0.snapshots + $0.restored) }
        let behind = last.map { Timestamp(nanosecondsSince1970: $0.time.nanosecondsSince1970 + 1) }
        let time = behind.map { max(now, $0) } ?? now
        var fields: [(key: String, value: JSONValue)] = [
            ("time", .string(time.text)), ("host", .string(host)),
        ]
        if !snapshots.isEmpty { fields.append(("snapshots", JSONValue(ids: snapshots))) }
        if !restored.isEmpty { fields.append(("restored", JSONValue(ids: restored))) }
        let name = try repository.putRecord(.forgotten, time: time, .object(fields))
        return ForgottenRecord(name, .object(fields), time)
    }
}

extension [ForgottenRecord] {
    /// What is forgotten once all of these have applied, each with the record that forgot it last.
    package var forgotten: [SnapshotID: ForgottenRecord] {
        var forgotten: [SnapshotID: ForgottenRecord] = [:]
        for record in self {
            for id in record.snapshots { forgotten[id] = record }
            for id in record.restored { forgotten[id] = nil }
        }
        return forgotten
    }
}
