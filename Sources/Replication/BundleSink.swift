import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Where compressed frames become stored bundles.
///
/// Whoever brings a frame seals it, one at a time; threads of its own make finished bundles
/// durable: journal first, then the store. Where the store is slower than the reading, finished
/// bundles wait in their spool files, as many as `UploadLimits` allows; then the reading waits.
final class BundleSink: @unchecked Sendable {
    // Sendable: the bundle being made is touched only under `making`.
    private struct Making {
        var writer: BundleWriter?
        var spool: BundleSpool?
        var ordinal: UInt32 = 0
        var chunks = 0
    }

    private struct Finished {
        let bundle: SealedBundle
        let spool: BundleSpool
        let ordinal: UInt32
    }

    private struct Queue {
        var waiting: [Finished] = []
        /// Bundles that threads are storing now.
        var storing = 0
        /// Stored bytes of the bundles that wait or are being stored.
        var spooledBytes = 0
        var isClosed = false
        var failure: ReplicationError?
        var storedBytes = 0
        var bundles = 0
    }

    private let repository: Repository
    private let index: RunIndex
    private let kind: BundleKind
    private let onStored: @Sendable (SealedBundle) throws -> Void
    private let journal: RunJournal
    private let limits: UploadLimits
    private let making = Monitored(Making())
    private let queue = Monitored(Queue())
    private var threads: [WorkThread] = []

    /// - Parameter onStored: Called on a storing thread after a bundle has become durable; several
    ///   threads may call it at once.
    init(
        _ repository: Repository, index: RunIndex, kind: BundleKind, journal: RunJournal,
        limits: UploadLimits, onStored: @escaping @Sendable (SealedBundle) throws -> Void
    ) {
        self.repository = repository
        self.index = index
        self.kind = kind
        self.journal = journal
        self.onStored = onStored
        self.limits = limits
        threads = (0..<max(limits.threads, 1)).map { _ in
            WorkThread { [unowned self] in storeAll() }
        }
    }

    /// Stores what is waiting and ends the storing threads. Without it both stay for ever, and with
    /// them the journal, whose lock says that its run is alive: a thread at work keeps its object.
    func close() {
        queue.change { $0.isClosed = true }
        for thread in threads { thread.join() }
        threads = []
    }

    /// Seals one frame into the current bundle. The frame's bytes may be used again when this
    /// returns.
    func append(_ frame: CompressedFrame) throws(ReplicationError) {
        if let failure = queue.read({ $0.failure }) { throw failure }
        let outcome: Result<Finished?, ReplicationError> = making.change { making in
            do {
                if making.writer == nil {
                    let spool = try repository.makeBundleSpool()
                    making.spool = spool
                    making.ordinal = index.openBundle()
                    making.chunks = 0
                    making.writer = try BundleWriter(
                        kind: kind, recipients: repository.contentRecipients,
                        wantsMD5: repository.wantsMD5,
                        emit: { try spool.append($0) })
                }
                guard let writer = making.writer else { return .success(nil) }
                try writer.append(frame)
                index.place(frame.chunks, in: making.ordinal)
                making.chunks += frame.chunks.count
                guard writer.isFull || making.chunks >= Limits.bundleChunks else {
                    return .success(nil)
                }
                return .success(try Self.finish(&making))
            } catch {
                return .failure(Self.wrap(error))
            }
        }
        if let finished = try outcome.get() { enqueue(finished) }
    }

    private static func finish(_ making: inout Making) throws -> Finished? {
        guard let writer = making.writer, let spool = making.spool else { return nil }
        making.writer = nil
        making.spool = nil
        return Finished(bundle: try writer.finish(), spool: spool, ordinal: making.ordinal)
    }

    private static func wrap(_ error: any Error) -> ReplicationError {
        if let error = error as? RepositoryError { return ReplicationError(error) }
        if let error = error as? BundleError {
            if let inner = error.underlying as? RepositoryError { return ReplicationError(inner) }
            return ReplicationError(.other, "", error.description)
        }
        return ReplicationError(.other, "", "\(error)")
    }

    private func enqueue(_ finished: Finished) {
        queue.wait { queue -> Void? in
            if queue.failure != nil { return () }
            // One bundle is always let in, however small the spool may be.
            let isIdle = queue.waiting.isEmpty && queue.storing == 0
            let fits =
                queue.waiting.count < limits.bundlesWaiting
                && queue.spooledBytes + finished.bundle.size <= limits.spoolBytes
            guard isIdle || fits else { return nil }
            queue.spooledBytes += finished.bundle.size
            queue.waiting.append(finished)
            return ()
        }
    }

    private func storeAll() {
        while true {
            let next: Finished? = queue.wait { queue -> Finished?? in
                if !queue.waiting.isEmpty {
                    queue.storing += 1
                    return .some(queue.waiting.removeFirst())
                }
                return queue.isClosed ? .some(nil) : nil
            }
            guard let next else { return }
            var failure: ReplicationError?
            do {
                try journal.append(next.bundle)
                try repository.putBundle(next.bundle, spool: next.spool)
                index.stored(next.bundle, as: next.ordinal)
                try onStored(next.bundle)
            } catch {
                failure = Self.wrap(error)
            }
            queue.change { queue in
                queue.storing -= 1
                queue.spooledBytes -= next.bundle.size
                if let failure {
                    if queue.failure == nil { queue.failure = failure }
                    for left in queue.waiting { queue.spooledBytes -= left.bundle.size }
                    queue.waiting.removeAll()
                } else {
                    queue.storedBytes += next.bundle.size
                    queue.bundles += 1
                }
            }
        }
    }

    /// Finishes the bundle in progress, if there is one, and waits until all are durable.
    func flush() throws(ReplicationError) {
        let outcome: Result<Finished?, ReplicationError> = making.change { making in
            do { return .success(try Self.finish(&making)) } catch {
                return .failure(Self.wrap(error))
            }
        }
        if let finished = try outcome.get() { enqueue(finished) }
        let failure: ReplicationError? = queue.wait { queue -> ReplicationError?? in
            if let failure = queue.failure { return .some(failure) }
            return queue.waiting.isEmpty && queue.storing == 0 ? .some(nil) : nil
        }
        if let failure { throw failure }
    }

    /// Stored bytes and bundles so far.
    var stored: (bytes: Int, bundles: Int) { queue.read { ($0.storedBytes, $0.bundles) } }
}
