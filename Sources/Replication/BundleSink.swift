import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Where compressed frames become stored bundles.
///
/// Whoever brings a frame seals it, one at a time. A finished bundle is made durable in the
/// background, journal first, then the store; where the run has several stores the same spool file
/// goes to each.
final class BundleSink: @unchecked Sendable {
    // Sendable: the bundle being made is touched only under `making`.
    private struct Making {
        var writer: BundleWriter?
        var spool: BundleSpool?
        var ordinal: UInt32 = 0
        var chunks = 0
    }

    private let repository: Repository
    private let index: RunIndex
    private let kind: BundleKind
    /// Stored content at which a bundle closes.
    private let bundleBytes: Int
    private let making = Monitored(Making())
    private let uploader: BundleUploader
    /// One for each further store. What fails there does not stop the run.
    private let replicas: [(run: ReplicaRun, uploader: BundleUploader)]

    /// - Parameter onStored: Called on a storing thread after a bundle has become durable; several
    ///   threads may call it at once.
    init(
        _ repository: Repository, index: RunIndex, kind: BundleKind, journal: RunJournal,
        limits: UploadLimits, replicas: [ReplicaRun], bundleBytes: Int = BundleLimits.bundleBytes,
        counts: ProgressCounts, cancellation: Cancellation,
        onStored: @escaping @Sendable (SealedBundle) throws -> Void
    ) {
        self.repository = repository
        self.index = index
        self.kind = kind
        self.bundleBytes = bundleBytes
        uploader = BundleUploader(limits, counts: counts, cancellation: cancellation) { finished in
            try journal.append(finished.bundle)
            try repository.putBundle(finished.bundle, spool: finished.spool)
            index.stored(finished.bundle, as: finished.ordinal)
            try onStored(finished.bundle)
        }
        self.replicas = replicas.map { run in
            (
                run,
                BundleUploader(run.uploads, counts: counts, cancellation: cancellation) {
                    try run.store($0)
                }
            )
        }
    }

    /// Stores what is waiting and ends the storing threads. Without it both stay for ever, and with
    /// them the journal, whose lock says that its run is alive.
    func close() {
        uploader.close()
        for replica in replicas { replica.uploader.close() }
    }

    /// Seals one frame into the current bundle. The frame's bytes may be used again when this
    /// returns.
    func append(_ frame: CompressedFrame) throws(ReplicationError) {
        if let failure = uploader.failure { throw failure }
        let outcome: Result<FinishedBundle?, ReplicationError> = making.change { making in
            do {
                if making.writer == nil {
                    let spool = try repository.makeBundleSpool()
                    making.spool = spool
                    making.ordinal = index.openBundle()
                    making.chunks = 0
                    making.writer = try BundleWriter(
                        kind: kind, recipients: repository.contentRecipients,
                        wantsMD5: repository.wantsMD5
                            || replicas.contains { $0.run.repository.wantsMD5 },
                        emit: { try spool.append($0) })
                }
                guard let writer = making.writer else { return .success(nil) }
                try writer.append(frame)
                index.place(frame.chunks, in: making.ordinal)
                making.chunks += frame.chunks.count
                guard writer.plainBytes >= bundleBytes || making.chunks >= Limits.bundleChunks
                else {
                    return .success(nil)
                }
                return .success(try Self.finish(&making))
            } catch {
                return .failure(Self.wrap(error))
            }
        }
        if let finished = try outcome.get() { enqueue(finished) }
    }

    private static func finish(_ making: inout Making) throws -> FinishedBundle? {
        guard let writer = making.writer, let spool = making.spool else { return nil }
        making.writer = nil
        making.spool = nil
        return FinishedBundle(
            bundle: try writer.finish(), spool: spool, ordinal: making.ordinal)
    }

    static func wrap(_ error: any Error) -> ReplicationError {
        if let error = error as? ReplicationError { return error }
        if let error = error as? RepositoryError { return ReplicationError(error) }
        if let error = error as? BundleError {
            if let inner = error.underlying as? RepositoryError { return ReplicationError(inner) }
            return ReplicationError(.other, "", error.description)
        }
        return ReplicationError(.other, "", "\(error)")
    }

    private func enqueue(_ finished: FinishedBundle) {
        uploader.enqueue(finished)
        for replica in replicas { replica.uploader.enqueue(finished) }
    }

    /// Finishes the bundle in progress, if there is one, and waits until all are durable. What a
    /// further store could not take is that store's failure.
    func flush() throws(ReplicationError) {
        let outcome: Result<FinishedBundle?, ReplicationError> = making.change { making in
            do { return .success(try Self.finish(&making)) } catch {
                return .failure(Self.wrap(error))
            }
        }
        if let finished = try outcome.get() { enqueue(finished) }
        if let failure = uploader.drain() { throw failure }
        for replica in replicas {
            if let failure = replica.uploader.drain() { replica.run.fail(failure) }
        }
    }

    /// Stored bytes and bundles so far.
    var stored: (bytes: Int, bundles: Int) { uploader.stored }
}
