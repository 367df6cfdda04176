import ObjectStorage
import Synchronization

/// Records that were fetched before they are asked for.
///
/// Who reads many records reads them one after the other, and a line would make it wait for a round
/// trip for each. Here several are fetched at once, and each is handed out once.
final class RecordsAhead: Sendable {
    private let fetched = Mutex<[RecordName: Result<[UInt8], StorageError>]>([:])

    /// What came of a record, if it was fetched ahead.
    func take(_ name: RecordName) -> Result<[UInt8], StorageError>? {
        fetched.withLock { $0.removeValue(forKey: name) }
    }

    fileprivate func put(_ result: Result<[UInt8], StorageError>, as name: RecordName) {
        fetched.withLock { $0[name] = result }
    }

    /// What nobody has asked for is forgotten.
    fileprivate func clear() { fetched.withLock { $0.removeAll() } }
}

extension Repository {
    /// Stored bytes that are fetched ahead together.
    private static let aheadBytes = 16 << 20

    /// Fetches the first of `items`, several at once, for the calls of `readRecord` that follow. Does
    /// nothing where a record costs no round trip.
    ///
    /// - Returns: How many of `items` that concerns, at least one: the others are for a later call,
    ///   so that memory stays bounded.
    package func fetchAhead(_ items: ArraySlice<RecordListing.Item>) -> Int {
        ahead.clear()
        guard !isLocalStore else { return items.count }
        var bytes = 0
        let part = items.prefix { item in
            defer { bytes += item.length }
            return bytes == 0 || bytes + item.length <= Self.aheadBytes
        }
        let cache = cachesRecords ? RecordCache(self) : nil
        let wanted = part.map(\.name).filter { name in
            guard let cache, RecordCache.holds(name.type) else { return true }
            return !cache.mayHold(name)
        }
        guard wanted.count > 1 else { return part.count }
        let next = Atomic<Int>(0)
        runOnThreads(min(readersAtOnce, wanted.count)) { _ in
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < wanted.count else { return }
                let name = wanted[index]
                let limit = name.type.storedMaximumBytes
                let result: Result<[UInt8], StorageError>
                do throws(StorageError) {
                    result = .success(try store.get(layout.record(name), maximumBytes: limit))
                } catch {
                    result = .failure(error)
                }
                ahead.put(result, as: name)
            }
        }
        return part.count
    }

    /// The same for all records of some kinds, as far as they are small enough together.
    func fetchAhead(_ listing: RecordListing, _ types: [RecordType]) {
        _ = fetchAhead(types.flatMap { listing[$0] }[...])
    }
}
