import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// What all threads of a restore share.
final class RestoreContext: @unchecked Sendable {
    // Sendable: `strip` and `tree` are set before there are workers.
    let repository: Repository
    let index: ChunkIndex
    let accesses: BundleAccessCache
    let snapshot: Snapshot
    let options: RestoreOptions
    let outcome: RestoreOutcome
    let monitor: any Monitor
    let cancellation: Cancellation
    /// Nil in a dry run whose target does not exist.
    var target: TargetDirectory?
    /// Nil in a dry run.
    var tree: TreeWriter?
    /// Bytes of a path that the target stands for.
    var strip = 1
    /// Where the repository itself lies relative to the target, if it lies in it.
    var repositoryInTarget: [UInt8]?
    /// What the backup named; read where it matters.
    var problems: [SnapshotProblem] = []
    /// What `--delete` must leave alone.
    var spared = RestoreSpared()

    init(
        repository: Repository, index: ChunkIndex, snapshot: Snapshot, options: RestoreOptions,
        monitor: any Monitor, cancellation: Cancellation
    ) {
        self.repository = repository
        self.index = index
        self.snapshot = snapshot
        self.options = options
        self.monitor = monitor
        self.cancellation = cancellation
        accesses = BundleAccessCache(repository)
        outcome = RestoreOutcome(monitor, spoolDirectory: options.spoolDirectory)
    }

    /// Whether what is there already may be changed.
    var mayReplace: Bool { options.ifExists == .replace || options.ifExists == .newer }

    /// Where an entry goes, relative to the target.
    func relative(_ path: [UInt8]) -> [UInt8] {
        path.count <= strip ? [] : Array(path[strip...])
    }

    func makeFetcher(keeping frames: Int) throws(ReplicationError) -> FrameFetcher {
        try lifted {
            try FrameFetcher(repository, index: index, accesses: accesses, keeping: frames)
        }
    }

    /// Runs `body` for pieces of `0..<count` on all workers and comes back when everything is done.
    func parallel(
        _ count: Int, grain: Int, _ workers: [RestoreWorker],
        _ body: @escaping @Sendable (RestoreWorker, Int) -> Void
    ) throws(ReplicationError) {
        let share = RestoreShare()
        @Sendable func work(_ worker: RestoreWorker) {
            while true {
                let start = share.take(grain)
                if start >= count { return }
                for item in start..<min(start + grain, count) {
                    if outcome.isStopped { return }
                    if cancellation.isCancelled { return outcome.stop(.interrupted) }
                    body(worker, item)
                }
            }
        }
        if count <= grain {
            work(workers[0])
        } else {
            let threads = workers.map { worker in WorkThread { work(worker) } }
            for thread in threads { thread.join() }
        }
        try outcome.check()
    }

    /// Removes something that the snapshot does not have. False where it stays.
    ///
    /// - Parameter path: Its path as the snapshot would have it.
    func removeExtra(_ relative: [UInt8], path: [UInt8]) -> Bool {
        if let reason = spared.reason(for: path) {
            outcome.problem(path, kind: "spared", "stays, since \(reason)")
            return false
        }
        if let own = repositoryInTarget,
            own == relative
                || (own.starts(with: relative) && own.count > relative.count
                    && own[relative.count] == 0x2F)
        {
            outcome.problem(relative, "stays, since the repository lies in it")
            return false
        }
        guard let target else { return false }
        if !options.dryRun {
            do throws(FileTreeError) {
                try target.remove(relative)
            } catch {
                outcome.problem(relative, error)
                return false
            }
        }
        outcome.removed(relative)
        return true
    }
}

/// Hands out the next piece of work.
private final class RestoreShare: Sendable {
    private let next = Atomic<Int>(0)
    func take(_ grain: Int) -> Int { next.wrappingAdd(grain, ordering: .relaxed).oldValue }
}
