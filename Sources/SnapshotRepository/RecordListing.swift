import ObjectStorage

/// The names of all records, as one look at the store has shown them.
///
/// A directory is asked folder by folder, which costs nothing. A store behind a line is asked once
/// for everything that sorts behind `bundles/`: however many kinds of record there are, it is one
/// request for a thousand names.
package struct RecordListing: Sendable {
    package typealias Item = (name: RecordName, length: Int, modified: Int64?)

    private var items: [RecordType: [Item]] = [:]

    /// Records of a kind, in order of name.
    package subscript(type: RecordType) -> [Item] { items[type] ?? [] }

    package func names(_ type: RecordType) -> [RecordName] { self[type].map(\.name) }

    /// Keys that are greater than every key of a bundle, and smaller than those of all records.
    private static let behindBundles = ObjectKey(validated: "bundles0")

    /// A look at one kind alone.
    init(_ repository: Repository, only type: RecordType) throws(RepositoryError) {
        items[type] = try repository.listRecords(type)
    }

    init(_ repository: Repository) throws(RepositoryError) {
        guard !repository.isLocalStore else {
            for type in RecordType.allCases { items[type] = try repository.listRecords(type) }
            return
        }
        let store = repository.store
        let layout = repository.layout
        let found = try stored { () throws(StorageError) in
            var found: [RecordType: [Item]] = [:]
            try store.list(prefix: "", after: Self.behindBundles) { object in
                for type in RecordType.allCases {
                    if let name = layout.recordName(object.key, type: type) {
                        found[type, default: []].append((name, object.length, object.modified))
                    }
                }
                return true
            }
            return found
        }
        items = found
    }
}

extension Repository {
    /// One look at the names of all records.
    package func listAllRecords() throws(RepositoryError) -> RecordListing {
        try RecordListing(self)
    }

    /// The look that a caller has taken already, or else a fresh one, at one kind where that is
    /// enough.
    package func look(
        _ taken: RecordListing?, at type: RecordType? = nil
    ) throws(RepositoryError) -> RecordListing {
        if let taken { return taken }
        guard let type else { return try RecordListing(self) }
        return try RecordListing(self, only: type)
    }
}
