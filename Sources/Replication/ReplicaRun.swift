import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// How a run ended on one store.
package struct StoreOutcome: Sendable {
    package let location: String
    /// Nil where the snapshot lies there, whole.
    package let failure: ReplicationError?
    /// Snapshots of earlier runs that it lacked and got now.
    package var broughtSnapshots = 0
    /// Bundles copied to it from another store, and their bytes.
    package var copiedBundles = 0
    package var copiedBytes = 0

    package init(location: String, failure: ReplicationError?) {
        self.location = location
        self.failure = failure
    }
}

/// A further store of the repository during one backup: it gets every bundle from the spool file
/// that the leading store gets it from, every index record, the lease, and at the end the snapshot.
///
/// What fails here is remembered and stops nothing else.
final class ReplicaRun: @unchecked Sendable {
    // Sendable: what changes is under `state`; `look` changes only before the run's threads begin
    // and after they have ended.
    private struct State {
        var failure: ReplicationError?
        var made: [BundleID: Int] = [:]
        /// Index records whose bundles are not all here yet.
        var waiting: [(record: SealedRecordBytes, bundles: Set<BundleID>, lines: [UInt8])] = []
        var lease: RecordName?
    }

    let repository: Repository
    let uploads: UploadLimits
    private(set) var look: StoreLook
    private let watch: BundleWatch
    private let journal: RunJournal
    private let leftPaths: [String]
    private let state = Mutex(State())
    /// Held while index records are put, so that each is put once.
    private let putting = Mutex(())

    init(
        _ repository: Repository, look: StoreLook, uploads: UploadLimits, run: String
    ) throws(RepositoryError) {
        self.repository = repository
        self.look = look
        watch = BundleWatch(repository, lookedAt: look.lookedAt)
        self.uploads = uploads
        leftPaths = RunJournal.leftBehind(repository).paths
        journal = try RunJournal(repository, run: run)
    }

    var failure: ReplicationError? { state.withLock { $0.failure } }

    func fail(_ error: ReplicationError) {
        state.withLock { if $0.failure == nil { $0.failure = error } }
    }

    /// Runs a step unless the store has failed before, and remembers its failure.
    private func attempt(_ body: () throws -> Void) {
        guard failure == nil else { return }
        do { try body() } catch { fail(BundleSink.wrap(error)) }
    }

    // MARK: While the run goes on

    /// A bundle that an interrupted run has stored here already.
    func adopt(_ bundle: SealedBundle) {
        state.withLock { $0.made[bundle.id] = bundle.size }
    }

    /// Makes a bundle durable here. On a thread of this store's uploader.
    func store(_ finished: FinishedBundle) throws {
        try journal.append(finished.bundle)
        try repository.putBundle(finished.bundle, spool: finished.spool)
        state.withLock { $0.made[finished.bundle.id] = finished.bundle.size }
        try putWaiting()
    }

    /// An index record that the leading store has got: it is put here as soon as the bundles that it
    /// tells of are here.
    func take(_ record: SealedRecordBytes, bundles: Set<BundleID>, lines: [UInt8]) {
        state.withLock { $0.waiting.append((record, bundles, lines)) }
        attempt { try putWaiting() }
    }

    private func putWaiting() throws {
        try putting.withLock { _ in
            while true {
                let next = state.withLock { state in
                    state.waiting.firstIndex { item in
                        item.bundles.allSatisfy { state.made[$0] != nil }
                    }.map { state.waiting.remove(at: $0) }
                }
                guard let next else { return }
                try watch.confirm(next.bundles)
                try repository.put(next.record)
                try next.lines.withUnsafeBytes {
                    try ChunkIndex.noteRecord($0, record: next.record.name, of: repository)
                }
            }
        }
    }

    /// Renews the lease here.
    func renew(_ record: RunRecord) {
        attempt {
            let old = state.withLock { $0.lease }
            let name = try record.store(
                in: repository, time: Timestamp(nanosecondsSince1970: HostClock.now),
                replacing: old)
            state.withLock { $0.lease = name }
        }
    }

    // MARK: At its end

    /// Commits here what has been committed on the leading store.
    func commit(
        _ snapshot: Snapshot, leader: Repository, leaderIndex: ChunkIndex, monitor: any Monitor,
        cancellation: Cancellation
    ) -> StoreOutcome {
        var copied = SnapshotCopy.Copied()
        attempt {
            try putWaiting()
            look.listed.merge(state.withLock { $0.made }) { _, new in new }
            look.index = try ChunkIndex.load(
                repository, condemned: look.condemned, listed: look.listed)
            copied = try SnapshotCopy(
                source: leader, sourceIndex: leaderIndex, target: repository, monitor: monitor,
                cancellation: cancellation
            ).bring(snapshot, &look)
            if let name = snapshot.name {
                try LastCommit(
                    snapshot: snapshot.id, name: name.text, time: snapshot.time,
                    host: snapshot.host,
                    vanished: LastCommit.load(for: repository)?.vanished ?? []
                ).store(for: repository)
            }
            journal.remove()
            for path in leftPaths { LocalFile.remove(path) }
            if let lease = state.withLock({ $0.lease }) { try? repository.deleteRecord(lease) }
        }
        var outcome = StoreOutcome(location: repository.location, failure: failure)
        outcome.copiedBundles = copied.bundles
        outcome.copiedBytes = copied.bytes
        return outcome
    }
}
