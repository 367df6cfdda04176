/// Counts calls and bytes for a store that does not count its own requests.
///
/// A store that sends requests counts them itself, since one call may be several of them.
package struct CountingStore: StoreWrapper {
    package let base: any ObjectStore
    private let counter: TrafficCounter

    package init(_ base: any ObjectStore, counter: TrafficCounter) {
        self.base = base
        self.counter = counter
    }

    package func perform<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result
    ) throws(StorageError) -> Result {
        switch call.operation {
        case .put: counter.count(.put)
        case .get: counter.count(.get)
        case .head: counter.count(.head)
        case .list: counter.count(.list)
        case .delete: counter.count(.delete)
        case .open, .create, .clock: counter.count(.other)
        // A spool file lies on this host.
        case .spool: break
        }
        let result = try effect()
        if call.operation == .put { counter.count(sent: call.bytes) }
        return result
    }

    package func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        for _ in keys { counter.count(.delete) }
        base.delete(keys, failed)
    }

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        let bytes = try perform(StoreCall(.get, key)) { () throws(StorageError) in
            try base.get(key, maximumBytes: maximumBytes)
        }
        counter.count(received: bytes.count)
        return bytes
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        let count = try perform(StoreCall(.get, key)) { () throws(StorageError) in
            try base.get(key, range: range, into: buffer)
        }
        counter.count(received: count)
        return count
    }
}
