import SnapshotModel
import SnapshotRepository
import Synchronization

/// What one run has counted, from all threads.
final class RunCounts: Sendable {
    let new = Atomic<Int>(0), changed = Atomic<Int>(0), touched = Atomic<Int>(0),
        metadata = Atomic<Int>(0)
    let unchanged = Atomic<Int>(0), readBytes = Atomic<Int>(0), newChunks = Atomic<Int>(0),
        newBytes = Atomic<Int>(0)
}

/// The problems of a run: all of them go into the snapshot, the first are shown.
final class ProblemList: Sendable {
    private let list = Mutex<[SnapshotProblem]>([])
    private let monitor: any Monitor
    init(_ monitor: any Monitor) { self.monitor = monitor }

    func add(_ path: [UInt8], _ kind: SnapshotProblem.Kind, _ message: String) {
        list.withLock { $0.append(SnapshotProblem(path: path, kind: kind, message: message)) }
        monitor.counts.problems.add(1, ordering: .relaxed)
        monitor.problem(path, kind: kind.rawValue, message: message)
    }

    /// In path order.
    var all: [SnapshotProblem] {
        list.withLock { $0 }.sorted { EntryPath.precedes($0.path, $1.path) }
    }
}
