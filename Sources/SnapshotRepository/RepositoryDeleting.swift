import ObjectStorage
package import SnapshotModel

/// What only prune does with a store: looking at the age of bundles, and deleting.
extension Repository {
    /// Whether the store keeps what is deleted, as a bucket with versions does.
    package var storeKeepsDeleted: Bool { store.capabilities.keepsDeleted }

    /// Hands each bundle's id, stored size and, where the listing tells, when it came (by the
    /// store's clock, in seconds since 1970) to `body`.
    package func listBundleAges(
        _ body: (BundleID, Int, Int64?) -> Void
    ) throws(RepositoryError) {
        try stored { () throws(StorageError) in
            try store.list(prefix: RepositoryLayout.bundles) { object in
                if let id = layout.bundleID(object.key) { body(id, object.length, object.modified) }
                return true
            }
        }
    }

    /// Deletes bundles, in as few requests as the store can, and hands each that could not be
    /// deleted to `failed`.
    package func deleteBundles(
        _ ids: [BundleID], _ failed: (BundleID, DeletionFailure) -> Void
    ) {
        store.delete(ids.map { layout.bundle($0) }) { key, error in
            if let id = layout.bundleID(key) { failed(id, DeletionFailure(error)) }
        }
    }

    /// The same for records.
    package func deleteRecords(
        _ names: [RecordName], _ failed: (RecordName, DeletionFailure) -> Void
    ) {
        var byKey: [ObjectKey: RecordName] = [:]
        for name in names { byKey[layout.record(name)] = name }
        store.delete(names.map { layout.record($0) }) { key, error in
            if let name = byKey[key] { failed(name, DeletionFailure(error)) }
        }
    }

    /// Asks the store to delete an object that it cannot have, to learn whether it lets this user
    /// delete at all.
    package func deniesDeleting() -> Bool {
        let random = Authentication.randomBytes(32)
        guard let id = BundleID(bytes: random) else { return false }
        var isDenied = false
        deleteBundles([id]) { _, failure in isDenied = failure.isDenied }
        return isDenied
    }
}

/// Why an object was not deleted.
package struct DeletionFailure: Sendable {
    package let error: RepositoryError
    /// The store does not let this user delete, or not this object now.
    package let isDenied: Bool
    /// Until when the store keeps the object whatever anybody asks, in seconds since 1970, where it
    /// tells.
    package let retainedUntil: Int64?

    init(_ error: StorageError) {
        self.error = .storage(error)
        isDenied = error.kind == .denied || error.kind == .readOnly
        retainedUntil = error.retainedUntil
    }
}
