/// Refuses whatever would change the store, for a run that is only to show what it would do.
package struct ReadOnlyStore: StoreWrapper {
    package let base: any ObjectStore
    private let reason: String
    private let remedy: String

    /// - Parameter reason: Why nothing may be written, as the end of a sentence.
    /// - Parameter remedy: What its reader can do to have it written after all.
    package init(_ base: any ObjectStore, reason: String, remedy: String) {
        self.base = base
        self.reason = reason
        self.remedy = remedy
    }

    package func perform<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result
    ) throws(StorageError) -> Result {
        switch call.operation {
        // A spool file may lie in the store's own place.
        case .put, .delete, .create, .spool: throw refusal(call)
        case .get, .head, .list, .open, .clock: return try effect()
        }
    }

    package func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        for key in keys { failed(key, refusal(StoreCall(.delete, key))) }
    }

    private func refusal(_ call: StoreCall) -> StorageError {
        call.failure(.readOnly, reason, hint: remedy)
    }

    package func removeEmptyDirectories(below prefix: String) {}
}
