import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Lines in path order become segments and nodes; those that are stored already are only named.
///
/// Lines come as numbered parts from several threads; whoever brings the next one in order carries
/// on with all that wait.
final class ManifestWriter: @unchecked Sendable {
    // Sendable: everything below is touched only by the thread that `turn` lets in.

    /// The lines of one part, whole, in path order.
    struct Part {
        let number: Int
        let lines: ByteBuffer
        /// Whether the lines are the previous manifest's, one for one, so far.
        let isVerbatim: Bool
        let lineCount: Int
    }

    private struct Turn {
        var next = 0
        var waiting: [Int: Part] = [:]
        var isBusy = false
        var failure: ReplicationError?
    }

    private let turn = Monitored(Turn())
    private let index: RunIndex
    private let chunks: ManifestChunks
    private let segment = ByteBuffer(capacity: ManifestLimits.segmentMaximumBytes + (64 << 10))
    private var first: [UInt8] = []
    private var segmentIsEmpty = true
    private var levels: [[ManifestChild]] = [[]]
    private var finishedNodes: [[ManifestChild]] = [[]]
    private let node = ByteBuffer(capacity: 256 << 10)
    private let scratchPath = ByteBuffer(capacity: 1024)
    private let draft: ManifestDraft
    private let segments = Monitored<[ChunkID]>([])
    /// Segments finished so far.
    var segmentIDs: [ChunkID] { segments.read { $0 } }

    init(index: RunIndex, chunks: ManifestChunks, draft: ManifestDraft) {
        self.index = index
        self.chunks = chunks
        self.draft = draft
    }

    /// Takes a part; returns at once unless it is this thread's turn to write.
    func add(_ part: Part) throws(ReplicationError) {
        let isMine = turn.change { turn -> Bool in
            turn.waiting[part.number] = part
            if turn.isBusy || turn.waiting[turn.next] == nil { return false }
            turn.isBusy = true
            return true
        }
        guard isMine else {
            if let failure = turn.read({ $0.failure }) { throw failure }
            return
        }
        while true {
            let next = turn.change { turn -> Part? in
                if let part = turn.waiting.removeValue(forKey: turn.next), turn.failure == nil {
                    return part
                }
                turn.isBusy = false
                return nil
            }
            guard let next else { break }
            do throws(ReplicationError) {
                try write(next)
            } catch {
                turn.change {
                    $0.failure = error
                    $0.isBusy = false
                }
                throw error
            }
            turn.change { $0.next += 1 }
        }
        if let failure = turn.read({ $0.failure }) { throw failure }
    }

    /// Parts are missing that will never come: nothing more is written, and nobody waits any
    /// longer.
    func fail(_ error: ReplicationError) {
        turn.change { if $0.failure == nil { $0.failure = error } }
    }

    /// How many parts have been written.
    var written: Int { turn.read { $0.next } }

    /// Waits until fewer than `limit` parts are between `number` and what has been written, or the
    /// writing has failed.
    func waitForRoom(before number: Int, limit: Int) {
        turn.wait { turn -> Void? in number - turn.next < limit || turn.failure != nil ? () : nil }
    }

    private func write(_ part: Part) throws(ReplicationError) {
        try lifted { try draft.append(part) }
        let bytes = part.lines.bytes
        var start = 0
        while let end = JSONLines.lineEnd(bytes, from: start) {
            let line = UnsafeRawBufferPointer(rebasing: bytes[start...end])
            if segmentIsEmpty {
                first = Array(EntryCodec.path(of: line, scratch: scratchPath))
                segmentIsEmpty = false
            }
            segment.append(line)
            start = end + 1
            if segment.count >= ManifestLimits.segmentMinimumBytes,
                ManifestLimits.segmentEnds(
                    bytes: segment.count, path: EntryCodec.path(of: line, scratch: scratchPath))
            {
                try endSegment()
            }
        }
    }

    private func endSegment() throws(ReplicationError) {
        guard !segmentIsEmpty else { return }
        let id: ChunkID = ContentHash.sha256(segment.bytes)
        segments.change { $0.append(id) }
        // A segment that is stored and whole below needs nothing: neither its bytes nor its line.
        if !(index.contains(id) && index.isWhole(segment: id)) {
            var referenced: [ChunkID] = []
            var nodes: [ChunkID] = []
            JSONLines.forEach(segment.bytes) {
                EntryCodec.references($0, chunks: &referenced, nodes: &nodes)
            }
            index.describe(id, chunks: referenced, nodes: nodes)
            try chunks.store(id, segment.bytes, as: .segment)
        }
        try add(ManifestChild(id: id, first: first), level: 0)
        segment.removeAll()
        segmentIsEmpty = true
    }

    private func add(_ child: ManifestChild, level: Int) throws(ReplicationError) {
        if levels.count == level { levels.append([]) }
        if finishedNodes.count == level { finishedNodes.append([]) }
        levels[level].append(child)
        if ManifestLimits.nodeEnds(children: levels[level].count, id: child.id) {
            try endNode(level)
        }
    }

    /// Closes the node of level `level + 1` that holds the children collected at `level`.
    private func endNode(_ level: Int) throws(ReplicationError) {
        let children = levels[level]
        guard !children.isEmpty else { return }
        levels[level] = []
        node.removeAll()
        ManifestChild.write(children, to: node)
        let id: ChunkID = ContentHash.sha256(node.bytes)
        if !(index.contains(id) && index.isWhole(segment: id)) {
            index.describe(id, chunks: [], nodes: children.map(\.id))
            try chunks.store(id, node.bytes, as: .node)
        }
        finishedNodes[level].append(ManifestChild(id: id, first: children[0].first))
    }

    /// Ends the manifest: its top ids and their level.
    func finish() throws(ReplicationError) -> (depth: Int, ids: [ChunkID]) {
        if let failure = turn.read({ $0.failure }) { throw failure }
        try endSegment()
        try endNode(0)
        var depth = 1
        var top = finishedNodes[0]
        while top.count > Entry.inlineListLimit {
            for child in top { try add(child, level: depth) }
            try endNode(depth)
            top = finishedNodes[depth]
            depth += 1
        }
        return (depth, top.map(\.id))
    }
}

/// Segments and nodes on their way into manifest bundles.
final class ManifestChunks: @unchecked Sendable {
    // Sendable: builder and compressor are touched only under `state`.
    private struct State {
        let frame = FrameBuilder()
        let compressor: FrameCompressor
        let output = ByteBuffer(capacity: 1 << 20)
    }

    private let state: Monitored<State>
    private let index: RunIndex
    private let sink: BundleSink?

    /// - Parameter sink: Nil in a dry run: nothing is kept.
    init(index: RunIndex, sink: BundleSink?) throws(ReplicationError) {
        self.index = index
        self.sink = sink
        state = Monitored(
            State(compressor: try lifted { try FrameCompressor(level: BundleLimits.defaultLevel) }))
    }

    /// Stores a chunk of the manifest unless it is stored already.
    func store(_ id: ChunkID, _ bytes: UnsafeRawBufferPointer, as member: MemberName)
        throws(ReplicationError)
    {
        guard let sink, index.claim(id) == .claimed else { return }
        let outcome: Result<Void, ReplicationError> = state.change { state in
            Result { () throws(ReplicationError) in
                try lifted { try state.frame.add(member, id: id, data: bytes) }
                if state.frame.isFull { try Self.flush(state, to: sink) }
            }
        }
        try outcome.get()
    }

    private static func flush(_ state: State, to sink: BundleSink) throws(ReplicationError) {
        guard !state.frame.isEmpty else { return }
        let frame = try lifted { try state.compressor.compress(state.frame, into: state.output) }
        state.frame.reset()
        try sink.append(frame)
    }

    func finish() throws(ReplicationError) {
        guard let sink else { return }
        let outcome: Result<Void, ReplicationError> = state.change { state in
            Result { () throws(ReplicationError) in try Self.flush(state, to: sink) }
        }
        try outcome.get()
        try sink.flush()
    }
}

/// The manifest as it is being made, in this host's cache. As long as it is the previous one's
/// lines, one for one, nothing is written.
final class ManifestDraft: @unchecked Sendable {
    // Sendable: touched only by the thread whose turn it is to write the manifest, and at the end.
    private let path: String
    private let previousBody: String?
    private var writer: ManifestBodyWriter?
    private var verbatimLines = 0
    private let isActive: Bool
    private let wantsSynchronisation = Atomic<Bool>(false)

    init(path: String, previousBody: String?, isActive: Bool) {
        self.path = path
        self.previousBody = previousBody
        self.isActive = isActive
    }

    func append(_ part: ManifestWriter.Part) throws(RepositoryError) {
        guard isActive, part.lines.count > 0 || !part.isVerbatim else { return }
        if writer == nil {
            if part.isVerbatim {
                verbatimLines += part.lineCount
                return
            }
            let writer = try ManifestBodyWriter(path: path)
            try copyVerbatim(to: writer)
            self.writer = writer
        }
        writer?.append(part.lines.bytes)
        if wantsSynchronisation.exchange(false, ordering: .relaxed) { writer?.synchronise() }
    }

    /// Has what was appended so far brought to the disk with the next part. From any thread.
    func requestSynchronisation() { wantsSynchronisation.store(true, ordering: .relaxed) }

    /// Brings over the lines that were not written because they were the previous body's.
    private func copyVerbatim(to writer: ManifestBodyWriter) throws(RepositoryError) {
        guard verbatimLines > 0, let previousBody,
            let reader = ManifestBodyReader(path: previousBody)
        else { return }
        var left = verbatimLines
        while left > 0, reader.next() {
            var start = 0
            while left > 0, let end = JSONLines.lineEnd(reader.block.bytes, from: start) {
                left -= 1
                start = end + 1
            }
            writer.append(UnsafeRawBufferPointer(rebasing: reader.block.bytes[..<start]))
        }
    }

    /// The path of a whole body that differs from the previous one; nil where there is none.
    func finish() -> String? {
        guard let writer, writer.finish() else { return nil }
        return writer.path
    }
}
