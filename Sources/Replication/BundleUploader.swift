import BundleFormat
import SnapshotRepository
import Synchronization

/// A bundle that is complete, in its spool file.
struct FinishedBundle: Sendable {
    let bundle: SealedBundle
    let spool: BundleSpool
    /// What the run's index calls it until it is stored.
    let ordinal: UInt32
}

/// Makes finished bundles durable on one store, over threads of its own.
///
/// Where the store is slower than the reading, bundles wait in their spool files, as many as
/// `UploadLimits` allows; then whoever brings the next one waits.
final class BundleUploader: @unchecked Sendable {
    // Sendable: `threads` changes only in `init` and `close`, which its one owner calls.
    private struct Queue {
        var waiting: [FinishedBundle] = []
        /// Bundles that threads are storing now.
        var storing = 0
        /// Stored bytes of the bundles that wait or are being stored.
        var spooledBytes = 0
        var isClosed = false
        var failure: ReplicationError?
        var storedBytes = 0
        var bundles = 0
    }

    private let limits: UploadLimits
    private let counts: ProgressCounts
    private let cancellation: Cancellation
    private let store: @Sendable (FinishedBundle) throws -> Void
    private let queue = Monitored(Queue())
    private var threads: [WorkThread] = []

    /// - Parameter counts: Told what waits for the store.
    /// - Parameter cancellation: Once it is cancelled, what waits is given up.
    /// - Parameter store: Makes one bundle durable; called on several threads at once.
    init(
        _ limits: UploadLimits, counts: ProgressCounts, cancellation: Cancellation,
        store: @escaping @Sendable (FinishedBundle) throws -> Void
    ) {
        self.limits = limits
        self.counts = counts
        self.cancellation = cancellation
        self.store = store
        threads = (0..<max(limits.threads, 1)).map { _ in
            WorkThread { [unowned self] in storeAll() }
        }
    }

    /// Stores what is waiting, unless the run is cancelled, and ends the threads. Without it they stay
    /// for ever: a thread at work keeps its object.
    func close() {
        queue.change { $0.isClosed = true }
        for thread in threads { thread.join() }
        threads = []
    }

    /// What stopped it; nothing that comes after that is stored.
    var failure: ReplicationError? { queue.read { $0.failure } }

    /// Stored bytes and bundles so far.
    var stored: (bytes: Int, bundles: Int) { queue.read { ($0.storedBytes, $0.bundles) } }

    func enqueue(_ finished: FinishedBundle) {
        var isWaiting = false
        defer { if isWaiting { counts.waitingForStore.subtract(1, ordering: .relaxed) } }
        queue.wait { queue -> Void? in
            if queue.failure != nil { return () }
            // One bundle is always let in, however small the spool may be.
            let isIdle = queue.waiting.isEmpty && queue.storing == 0
            let fits =
                queue.waiting.count < limits.bundlesWaiting
                && queue.spooledBytes + finished.bundle.size <= limits.spoolBytes
            guard isIdle || fits else {
                if !isWaiting {
                    isWaiting = true
                    counts.waitingForStore.add(1, ordering: .relaxed)
                }
                return nil
            }
            queue.spooledBytes += finished.bundle.size
            counts.spooledBytes.add(finished.bundle.size, ordering: .relaxed)
            queue.waiting.append(finished)
            return ()
        }
    }

    private func storeAll() {
        while true {
            let next: FinishedBundle? = queue.wait { queue -> FinishedBundle?? in
                if !queue.waiting.isEmpty, cancellation.isCancelled {
                    giveUpWaiting(&queue, because: .interrupted)
                }
                if !queue.waiting.isEmpty {
                    queue.storing += 1
                    return .some(queue.waiting.removeFirst())
                }
                return queue.isClosed ? .some(nil) : nil
            }
            guard let next else { return }
            var failure: ReplicationError?
            do { try store(next) } catch { failure = BundleSink.wrap(error) }
            queue.change { queue in
                queue.storing -= 1
                if let failure {
                    giveUpWaiting(&queue, because: failure)
                } else {
                    queue.storedBytes += next.bundle.size
                    queue.bundles += 1
                }
                leaveSpool(&queue, next.bundle.size)
            }
        }
    }

    /// Nothing that waits is stored any more. The next run makes what is lost anew.
    private func giveUpWaiting(_ queue: inout Queue, because failure: ReplicationError) {
        if queue.failure == nil { queue.failure = failure }
        let bytes = queue.waiting.reduce(0) { $0 + $1.bundle.size }
        queue.waiting.removeAll()
        leaveSpool(&queue, bytes)
    }

    private func leaveSpool(_ queue: inout Queue, _ bytes: Int) {
        queue.spooledBytes -= bytes
        counts.spooledBytes.subtract(bytes, ordering: .relaxed)
    }

    /// Waits until everything is durable or something has failed, and gives the failure.
    func drain() -> ReplicationError? {
        queue.wait { queue -> ReplicationError?? in
            if let failure = queue.failure { return .some(failure) }
            return queue.waiting.isEmpty && queue.storing == 0 ? .some(nil) : nil
        }
    }
}
