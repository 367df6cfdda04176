/// A store around another one, of which it knows nothing but the contract: each call passes through
/// `perform`, and whoever wraps only says there what is special about it.
package protocol StoreWrapper: ObjectStore {
    var base: any ObjectStore { get }

    /// Called for each call of the store. Makes the call by `effect`, perhaps more than once.
    func perform<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result
    ) throws(StorageError) -> Result
}

/// One call of a store, as a wrapper sees it.
package struct StoreCall: Sendable {
    package let operation: StorageError.Operation
    package let key: ObjectKey?
    /// Bytes that the call is going to move; 0 where that is little or not known before.
    package let bytes: Int

    package init(_ operation: StorageError.Operation, _ key: ObjectKey? = nil, bytes: Int = 0) {
        self.operation = operation
        self.key = key
        self.bytes = bytes
    }

    /// An error of the wrapper itself about this call. Only the store knows its own name.
    func failure(
        _ kind: StorageError.Kind, _ cause: String, hint: String? = nil
    ) -> StorageError {
        StorageError(kind, operation, key: key, location: "", cause: cause, hint: hint)
    }
}

extension StoreWrapper {
    package var capabilities: StoreCapabilities { base.capabilities }

    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        try perform(StoreCall(.put, key, bytes: content.length)) { () throws(StorageError) in
            try base.put(content, at: key)
        }
    }

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        try perform(StoreCall(.get, key)) { () throws(StorageError) in
            try base.get(key, maximumBytes: maximumBytes)
        }
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        try perform(StoreCall(.get, key, bytes: range.count)) { () throws(StorageError) in
            try base.get(key, range: range, into: buffer)
        }
    }

    package func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        try perform(StoreCall(.head, key)) { () throws(StorageError) in try base.head(key) }
    }

    package func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        try perform(StoreCall(.list)) { () throws(StorageError) in
            try base.list(prefix: prefix, after: last, body)
        }
    }

    package func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        try list(prefix: prefix, after: nil, body)
    }

    package func delete(_ key: ObjectKey) throws(StorageError) {
        try perform(StoreCall(.delete, key)) { () throws(StorageError) in try base.delete(key) }
    }

    package func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        base.delete(keys, failed)
    }

    package func makeSpool() throws(StorageError) -> SpoolFile {
        try perform(StoreCall(.spool)) { () throws(StorageError) in try base.makeSpool() }
    }

    package func currentTime() throws(StorageError) -> Int64 {
        try perform(StoreCall(.clock)) { () throws(StorageError) in try base.currentTime() }
    }

    package func digests(
        of keys: [ObjectKey], _ body: (ObjectKey, [UInt8]) -> Bool
    ) throws(StorageError) {
        try perform(StoreCall(.list)) { () throws(StorageError) in
            try base.digests(of: keys, body)
        }
    }

    package func removeEmptyDirectories(below prefix: String) {
        base.removeEmptyDirectories(below: prefix)
    }

    package func noteAlteredTransfer() { base.noteAlteredTransfer() }
}
