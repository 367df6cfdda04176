package import ObjectStorage
import Synchronization

/// Keeps a log of every call to the store that it wraps, to count requests by.
package final class RecordingStore: StoreDecorator {
    package struct Call: Sendable, Equatable {
        package let operation: StoreOperation
        /// The key, or the prefix of a listing.
        package let subject: String
        /// Bytes put or read; objects listed.
        package let count: Int
        package let failed: Bool
    }

    package let base: any ObjectStore
    private let log = Mutex<[Call]>([])

    package init(_ base: any ObjectStore) { self.base = base }

    package func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        do throws(StorageError) {
            let count = try effect()
            append(Call(operation: operation, subject: subject, count: count, failed: false))
        } catch {
            append(Call(operation: operation, subject: subject, count: 0, failed: true))
            throw error
        }
    }

    private func append(_ call: Call) { log.withLock { $0.append(call) } }

    /// Every call since the beginning or the last `reset`, in the order in which they ended.
    package var calls: [Call] { log.withLock { $0 } }

    /// Forgets the calls so far and gives them.
    @discardableResult
    package func reset() -> [Call] {
        log.withLock { log in
            defer { log = [] }
            return log
        }
    }

    /// Calls of one kind, of those whose key or prefix begins with `prefix`.
    package func count(of operation: StoreOperation, below prefix: String = "") -> Int {
        calls.count { $0.operation == operation && $0.subject.hasPrefix(prefix) }
    }

    /// Calls by kind; a kind that did not occur is not in it.
    package var counts: [StoreOperation: Int] {
        calls.reduce(into: [:]) { $0[$1.operation, default: 0] += 1 }
    }

    /// Requests that S3 would be sent: one a call, one for each begun thousand of a listing.
    package var requests: Int {
        calls.reduce(0) { sum, call in
            sum + (call.operation == .list ? max(1, (call.count + 999) / 1_000) : 1)
        }
    }

    /// Bytes that went to and came from the store.
    package var bytesPut: Int { calls.reduce(0) { $1.operation == .put ? $0 + $1.count : $0 } }
    package var bytesRead: Int {
        calls.reduce(0) { $1.operation == .get || $1.operation == .range ? $0 + $1.count : $0 }
    }
}
