import BundleFormat
import FileTree
import SnapshotModel
import SnapshotRepository

/// The threads that look at files: open, read, cut, hash, pack; and compress what they have packed.
///
/// All threads are alike. Filled frames go before new parts, so one thread that reads a large file
/// is helped by the others.
final class ContentWorkers: @unchecked Sendable {
    // Sendable: what is shared is under `queue` or made for it.
    struct Surroundings {
        let index: RunIndex
        /// Nil in a dry run.
        let sink: BundleSink?
        let chunks: ManifestChunks
        let manifest: ManifestWriter
        let chunker: Chunker
        let options: BackupOptions
        let monitor: any Monitor
        let problems: ProblemList
        let counts: RunCounts
        let cancellation: Cancellation
    }

    private struct Queue {
        var frames: [FrameBuilder] = []
        var parts: [ContentPart] = []
        var spares: [FrameBuilder] = []
        var isClosed = false
        var failure: ReplicationError?
    }

    enum Job {
        case frame(FrameBuilder)
        case part(ContentPart)
        case end
    }

    let surroundings: Surroundings
    let linkedFiles = LinkedFiles()
    private let queue: Monitored<Queue>
    private var threads: [WorkThread] = []

    init(_ surroundings: Surroundings) {
        self.surroundings = surroundings
        var state = Queue()
        for _ in 0..<Limits.sparesOfFrames { state.spares.append(FrameBuilder()) }
        queue = Monitored(state)
        for _ in 0..<max(surroundings.options.readers, 1) {
            threads.append(WorkThread { [unowned self] in work() })
        }
    }

    deinit { stop() }

    private func work() {
        do throws(ReplicationError) {
            let worker = try ContentWorker(self)
            while true {
                let job: Job = queue.wait { queue -> Job? in
                    if queue.failure != nil { return .end }
                    if !queue.frames.isEmpty { return .frame(queue.frames.removeFirst()) }
                    if !queue.parts.isEmpty { return .part(queue.parts.removeFirst()) }
                    if queue.isClosed { return .end }
                    return nil
                }
                switch job {
                case .frame(let frame):
                    try worker.compress(frame)
                    queue.change { $0.spares.append(frame) }
                case .part(let part): try worker.process(part)
                case .end:
                    if queue.read({ $0.failure }) == nil { try worker.finish() }
                    return
                }
            }
        } catch {
            fail(error)
        }
    }

    func fail(_ error: ReplicationError) {
        queue.change { if $0.failure == nil { $0.failure = error } }
        // Whoever waits for room behind a part that will never come must learn of it.
        surroundings.manifest.fail(error)
    }

    /// Hands a part over; waits where too many are under way.
    func add(_ part: ContentPart) throws(ReplicationError) {
        surroundings.manifest.waitForRoom(before: part.number, limit: Limits.partsInFlight)
        let failure = queue.change { queue -> ReplicationError? in
            queue.parts.append(part)
            return queue.failure
        }
        if let failure { throw failure }
    }

    /// A full frame for another thread to compress, in exchange for an empty one; nil where the
    /// caller had better do it itself.
    func exchange(_ frame: FrameBuilder) -> FrameBuilder? {
        queue.change { queue in
            guard queue.parts.isEmpty, let spare = queue.spares.popLast() else { return nil }
            queue.frames.append(frame)
            return spare
        }
    }

    /// No more parts come: waits until all are done.
    func finish() throws(ReplicationError) {
        queue.change { $0.isClosed = true }
        for thread in threads { thread.join() }
        if let failure = queue.read({ $0.failure }) { throw failure }
    }

    /// Gives everything up.
    func stop() {
        queue.change {
            $0.isClosed = true
            if $0.failure == nil { $0.failure = .interrupted }
        }
        for thread in threads { thread.join() }
    }
}
