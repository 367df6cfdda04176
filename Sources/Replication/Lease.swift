import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Checkpoint and lease of a run: what it has stored becomes part of the index while it goes on,
/// and prune is told what it uses.
final class Lease: @unchecked Sendable {
    // Sendable: everything that changes is under `state` or `current`.
    private struct State {
        var record: RunRecord
        var last: Int64
        var bytes = 0
        var draft: ManifestDraft?
        var manifest: ManifestWriter?
    }

    private let repository: Repository
    private let index: RunIndex
    private let seconds: Int
    private let watch: BundleWatch
    private let replicas: [ReplicaRun]
    private let state: Mutex<State>
    /// The name of the record that lies in the store. Held while it is renewed: two threads
    /// renewing at once would each replace the same one, and one of theirs would stay behind.
    private let current = Mutex<RecordName?>(nil)

    init(
        repository: Repository, index: RunIndex, run: String, began: Timestamp, host: String,
        roots: [[UInt8]], seconds: Int, watch: BundleWatch, replicas: [ReplicaRun]
    ) {
        self.repository = repository
        self.index = index
        self.seconds = seconds
        self.watch = watch
        self.replicas = replicas
        state = Mutex(
            State(
                record: RunRecord(run: run, started: began, host: host, roots: roots),
                last: HostClock.monotonic))
    }

    /// Whose progress checkpoints tell of from now on.
    func follow(_ manifest: ManifestWriter, draft: ManifestDraft) {
        state.withLock {
            $0.manifest = manifest
            $0.draft = draft
        }
    }

    /// Lets go of the manifest, whose sinks refer back to this object: otherwise neither they nor
    /// the journal would ever be closed.
    func unfollow() {
        // What is released here may wait for a thread that wants `state`: not under the lock.
        let released = state.withLock { state in
            defer { (state.manifest, state.draft) = (nil, nil) }
            return (state.manifest, state.draft)
        }
        withExtendedLifetime(released) {}
    }

    /// A bundle has become durable.
    func bundleStored(_ bundle: SealedBundle) throws {
        let isDue = state.withLock { state in
            state.bytes += bundle.size
            return state.bytes >= Limits.checkpointBytes
        }
        if isDue {
            try checkpoint()
        } else if index.pendingChunks >= Limits.pendingChunks {
            try flushIndex()
        } else {
            try checkpointIfDue()
        }
    }

    /// Renews the lease where the last renewal was long ago. Cheap to ask.
    func checkpointIfDue() throws {
        let isDue = state.withLock {
            HostClock.monotonic - $0.last >= Int64(seconds) * 1_000_000_000
        }
        if isDue { try checkpoint() }
    }

    private func checkpoint() throws {
        try current.withLock { name in
            try flushIndex()
            var record = state.withLock { state in
                state.last = HostClock.monotonic
                state.bytes = 0
                state.draft?.requestSynchronisation()
                state.record.sequence += 1
                state.record.segments = state.manifest?.segmentIDs ?? []
                return state.record
            }
            record.bundles = index.madeBundles
            record.uses = index.usedBundles
            name = try record.store(
                in: repository, time: Timestamp(nanosecondsSince1970: HostClock.now),
                replacing: name)
            for replica in replicas { replica.renew(record) }
        }
    }

    /// Puts what is durable and not yet indexed into an index record.
    func flushIndex() throws {
        guard let taken = index.takeLines() else { return }
        try watch.confirm(taken.bundles)
        let record = try repository.seal(.index, time: nil, payload: taken.lines.bytes)
        try repository.put(record)
        try index.indexed(taken.lines, bundles: taken.bundles, as: record.name, in: repository)
        for replica in replicas {
            replica.take(record, bundles: taken.bundles, lines: Array(taken.lines.bytes))
        }
    }

    /// The run has committed or given up its claim.
    func end() {
        guard let name = current.withLock({ $0 }) else { return }
        try? repository.deleteRecord(name)
    }
}
