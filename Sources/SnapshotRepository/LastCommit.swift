package import SnapshotModel

/// The last snapshot that this host committed, in its own state: tells a repository that was rolled
/// back.
package struct LastCommit: Sendable {
    package var snapshot: SnapshotID
    package var name: String
    package var time: Timestamp
    package var host: String

    package init(snapshot: SnapshotID, name: String, time: Timestamp, host: String) {
        self.snapshot = snapshot
        self.name = name
        self.time = time
        self.host = host
    }

    private static func path(_ repository: Repository) -> String {
        repository.statePath + "/last-commit.json"
    }

    package func store(for repository: Repository) throws(RepositoryError) {
        let value = JSONValue.object([
            ("snapshot", .string(snapshot.description)), ("name", .string(name)),
            ("time", .string(time.text)),
            ("host", .string(host)),
        ])
        try LocalFile.write(value.bytes + [0x0A], to: Self.path(repository))
    }

    /// Nil where this host has committed nothing yet, or lost its state.
    package static func load(for repository: Repository) -> LastCommit? {
        guard let bytes = try? LocalFile.read(path(repository)),
            let value = JSONValue(parsing: bytes),
            let snapshot = value["snapshot"]?.string.flatMap({ SnapshotID($0) }),
            let name = value["name"]?.string,
            let time = value["time"]?.timestamp, let host = value["host"]?.string
        else { return nil }
        return LastCommit(snapshot: snapshot, name: name, time: time, host: host)
    }
}
