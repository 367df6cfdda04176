import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Checkpoint and lease of a run: what it has stored becomes part of the index while it goes on, and prune is told what it uses.
final class Lease: @unchecked Sendable {
    // Sendable: `draft` and `manifest` are set before the first bundle; the rest is under `state`.
    private struct State {
        var record: RunRecord
        var name: RecordName?
        var last: Int64
        var bytes = 0
    }

    private let repository: Repository
    private let index: RunIndex
    private let seconds: Int
    private let state: Mutex<State>
    var draft: ManifestDraft?
    var manifest: ManifestWriter?

    init(
        repository: Repository, index: RunIndex, run: String, began: Timestamp, host: String, roots: [[UInt8]], seconds: Int
    ) {
        self.repository = repository
        self.index = index
        self.seconds = seconds
        state = Mutex(
            State(record: RunRecord(run: run, started: began, host: host, roots: roots), last: HostClock.monotonic))
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
        let isDue = state.withLock { HostClock.monotonic - $0.last >= Int64(seconds) * 1_000_000_000 }
        if isDue { try checkpoint() }
    }

    private func checkpoint() throws {
        state.withLock {
            $0.last = HostClock.monotonic
            $0.bytes = 0
        }
        try flushIndex()
        draft?.requestSynchronisation()
        var (record, old) = state.withLock { state in
            state.record.sequence += 1
            return (state.record, state.name)
        }
        record.bundles = index.madeBundles
        record.uses = index.usedBundles
        record.segments = manifest?.segmentIDs ?? []
        let name = try record.store(
            in: repository, time: Timestamp(nanosecondsSince1970: HostClock.now), replacing: old)
        old = name
        state.withLock { $0.name = name }
    }

    /// Puts what is durable and not yet indexed into an index record.
    func flushIndex() throws {
        guard let taken = index.takeLines() else { return }
        let name = try repository.putRecord(.index, time: nil, payload: taken.lines.bytes)
        try index.indexed(taken.lines, bundles: taken.bundles, as: name, in: repository)
    }

    /// The run has committed or given up its claim.
    func end() {
        guard let name = state.withLock({ $0.name }) else { return }
        try? repository.deleteRecord(name)
    }
}
