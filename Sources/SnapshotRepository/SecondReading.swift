import ObjectStorage

/// A byte that was altered on its way looks like damage. What seems damaged in a store behind a line
/// is therefore fetched once more: what comes the same way again, or wrong again, is damaged; what
/// comes right was altered on its way, which the store's wrappers count.
extension Repository {
    /// Fetches an object and gives what `judge` makes of it. What `judge` calls damaged is fetched
    /// once more.
    ///
    /// - Parameter ahead: What came of it, where it was fetched already.
    static func fetch<Value>(
        _ key: ObjectKey, maximumBytes: Int, from store: any ObjectStore,
        ahead: Result<[UInt8], StorageError>? = nil,
        judge: ([UInt8]) throws(RepositoryError) -> Value
    ) throws(RepositoryError) -> Value {
        func bytes() throws(RepositoryError) -> [UInt8] {
            try stored { () throws(StorageError) in
                try store.get(key, maximumBytes: maximumBytes)
            }
        }
        let first =
            if let ahead { try stored { () throws(StorageError) in try ahead.get() } } else {
                try bytes()
            }
        do throws(RepositoryError) {
            return try judge(first)
        } catch {
            guard error.kind == .damaged, !store.capabilities.isLocal else { throw error }
            let second = try bytes()
            guard second != first else { throw error }
            let value = try judge(second)
            store.noteAlteredTransfer()
            return value
        }
    }

    /// Fetches an object and gives it as it came; where `isSound` says no, as it came when it was
    /// fetched once more.
    static func fetch(
        _ key: ObjectKey, maximumBytes: Int, from store: any ObjectStore,
        isSound: ([UInt8]) -> Bool
    ) throws(RepositoryError) -> [UInt8] {
        func bytes() throws(RepositoryError) -> [UInt8] {
            try stored { () throws(StorageError) in
                try store.get(key, maximumBytes: maximumBytes)
            }
        }
        let first = try bytes()
        if store.capabilities.isLocal || isSound(first) { return first }
        let second = try bytes()
        if isSound(second) { store.noteAlteredTransfer() }
        return second
    }

    /// To be told where something was read twice elsewhere, and was right the second time only.
    package func noteAlteredTransfer() { store.noteAlteredTransfer() }

    /// How many threads read from the store at once: a disk of this host is kept busy by two, a line
    /// has its round trips to hide.
    package var readersAtOnce: Int { isLocalStore ? 2 : 6 }

    /// How much of a bundle is asked for at once by who reads all of it: from a line so much that the
    /// round trip does not count beside it.
    package var readStepBytes: Int { isLocalStore ? 1 << 20 : 4 << 20 }
}
