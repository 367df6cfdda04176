package import ObjectStorage

/// The calls of a store that a test counts or makes fail.
package enum StoreOperation: String, Sendable, CaseIterable {
    case put, get, range, head, list, delete, clock

    package var isWrite: Bool { self == .put || self == .delete }

    var errorOperation: StorageError.Operation {
        switch self {
        case .put: .put
        case .get, .range: .get
        case .head: .head
        case .list: .list
        case .delete: .delete
        case .clock: .clock
        }
    }
}

/// A store around another one: each call passes through one function, which may look and may fail.
package protocol StoreDecorator: ObjectStore {
    var base: any ObjectStore { get }

    /// Called once for each call of the store, with a key or, for a listing, a prefix. Makes the
    /// call by `effect`, which gives the count of bytes or objects concerned.
    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError)
}

extension StoreDecorator {
    package var capabilities: StoreCapabilities { base.capabilities }

    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        try perform(.put, key.text) { () throws(StorageError) in
            try base.put(content, at: key)
            return content.length
        }
    }

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        var bytes: [UInt8] = []
        try perform(.get, key.text) { () throws(StorageError) in
            bytes = try base.get(key, maximumBytes: maximumBytes)
            return bytes.count
        }
        return bytes
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        var count = 0
        try perform(.range, key.text) { () throws(StorageError) in
            count = try base.get(key, range: range, into: buffer)
            return count
        }
        return count
    }

    package func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        var found: StoredObject?
        try perform(.head, key.text) { () throws(StorageError) in
            found = try base.head(key)
            return 0
        }
        return found
    }

    package func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        try perform(.list, prefix) { () throws(StorageError) in
            var count = 0
            try base.list(prefix: prefix) { object in
                count += 1
                return body(object)
            }
            return count
        }
    }

    package func delete(_ key: ObjectKey) throws(StorageError) {
        try perform(.delete, key.text) { () throws(StorageError) in
            try base.delete(key)
            return 0
        }
    }

    package func currentTime() throws(StorageError) -> Int64 {
        var time: Int64 = 0
        try perform(.clock, "") { () throws(StorageError) in
            time = try base.currentTime()
            return 0
        }
        return time
    }

    package func makeSpool() throws(StorageError) -> SpoolFile { try base.makeSpool() }

    package func removeEmptyDirectories(below prefix: String) {
        base.removeEmptyDirectories(below: prefix)
    }

    package func noteAlteredTransfer() { base.noteAlteredTransfer() }
}
