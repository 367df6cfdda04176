package import SnapshotModel

/// The last snapshot that this host committed, in its own state: tells a repository that was rolled
/// back.
package struct LastCommit: Sendable {
    package var snapshot: SnapshotID
    package var name: String
    package var time: Timestamp
    package var host: String
    /// Earlier ones that had vanished when a later one was committed, the latest first: a later
    /// commit must not make the host forget them.
    package var vanished: [Vanished]

    /// A snapshot that this host committed and that is neither there nor forgotten.
    package struct Vanished: Sendable, Equatable {
        package var snapshot: SnapshotID
        package var name: String
    }

    /// More of them tell nothing new.
    private static let mostVanished = 16

    package init(
        snapshot: SnapshotID, name: String, time: Timestamp, host: String,
        vanished: [Vanished] = []
    ) {
        self.snapshot = snapshot
        self.name = name
        self.time = time
        self.host = host
        self.vanished = Array(vanished.prefix(Self.mostVanished))
    }

    /// What this host committed and the repository has no more.
    ///
    /// - Parameters:
    ///   - isListed: Whether the store lists a snapshot of that id in its name.
    ///   - forgotten: The snapshots that were forgotten; asked only where one is not listed.
    package func missing(
        isListed: (RecordID) -> Bool,
        forgotten: () throws(RepositoryError) -> Set<SnapshotID>
    ) throws(RepositoryError) -> [Vanished] {
        let known = [Vanished(snapshot: snapshot, name: name)] + vanished
        let absent = known.filter {
            let id = $0.snapshot
            return !isListed(RecordID(id.word0, id.word1, id.word2, id.word3))
        }
        guard !absent.isEmpty else { return [] }
        let forgotten = try forgotten()
        return absent.filter { !forgotten.contains($0.snapshot) }
    }

    /// What this host committed and `catalog` does not have: neither listed, nor forgotten, nor there
    /// and unreadable.
    package static func vanished(
        from catalog: SnapshotCatalog, of repository: Repository
    ) -> [Vanished] {
        guard let last = load(for: repository) else { return [] }
        let readable = Set((catalog.snapshots + catalog.forgottenSnapshots).map(\.id))
        func isThere(_ id: RecordID) -> Bool {
            readable.contains(SnapshotID(id.word0, id.word1, id.word2, id.word3))
                || catalog.damaged.contains { $0.subject.contains(id.description) }
        }
        return (try? last.missing(isListed: isThere, forgotten: { catalog.forgotten })) ?? []
    }

    /// What there is to say of one that has vanished.
    package static let vanishedMessage =
        "this host committed it and it has vanished without being forgotten: the repository has been rolled back, or it was deleted"

    package static func vanishedRemedy(_ repository: Repository) -> String {
        "compare with another copy of the repository, and find out who can write to this one; once that is settled, delete \(place(for: repository))"
    }

    /// The file in which `repository`'s last commit is noted.
    package static func place(for repository: Repository) -> String { path(repository) }

    private static func path(_ repository: Repository) -> String {
        repository.statePath + "/last-commit.json"
    }

    package func store(for repository: Repository) throws(RepositoryError) {
        let value = JSONValue.object([
            ("snapshot", .string(snapshot.description)), ("name", .string(name)),
            ("time", .string(time.text)),
            ("host", .string(host)),
            (
                "vanished",
                .array(
                    vanished.map {
                        .object([
                            ("snapshot", .string($0.snapshot.description)),
                            ("name", .string($0.name)),
                        ])
                    })
            ),
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
        let vanished = (value["vanished"]?.array ?? []).compactMap { item -> Vanished? in
            guard let snapshot = item["snapshot"]?.string.flatMap({ SnapshotID($0) }),
                let name = item["name"]?.string
            else { return nil }
            return Vanished(snapshot: snapshot, name: name)
        }
        return LastCommit(
            snapshot: snapshot, name: name, time: time, host: host, vanished: vanished)
    }
}
