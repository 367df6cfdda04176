import SnapshotModel

extension RunRecord {
    /// Reads one. All that it names must be understood: prune keeps it.
    package init(_ name: RecordName, in repository: Repository) throws(RepositoryError) {
        let value = try repository.readJSON(name)
        let key = repository.recordKey(name)
        func list<Kind>(_ field: String) throws(RepositoryError) -> [Identifier<Kind>] {
            let items = value[field]?.array ?? []
            let ids = items.compactMap { $0.string.flatMap { Identifier<Kind>($0) } }
            guard ids.count == items.count else {
                throw .damaged(key, "has a field '\(field)' that is none of format 1")
            }
            return ids
        }
        guard let run = value["run"]?.string, let sequence = value["sequence"]?.count,
            let started = value["started"]?.timestamp, let host = value["host"]?.string
        else { throw .damaged(key, "is not the record of a run of format 1") }
        self.init(
            run: run, started: started, host: host,
            roots: (value["roots"]?.array ?? []).compactMap(\.path))
        self.sequence = sequence
        bundles = try list("bundles")
        uses = try list("uses")
        segments = try list("segments")
    }
}
