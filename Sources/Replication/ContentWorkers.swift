import BundleFormat
import FileTree
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

/// One of the threads of `ContentWorkers`, with its buffers.
final class ContentWorker {
    private let workers: ContentWorkers
    private let around: ContentWorkers.Surroundings
    private var frame = FrameBuilder()
    private let compressor: FrameCompressor
    private let compressed = ByteBuffer(capacity: 2 << 20)
    private let buffer = ByteBuffer(capacity: 1 << 20)
    private let fingerprint = FingerprintStream()
    private let node = ByteBuffer(capacity: 4 << 10)

    init(_ workers: ContentWorkers) throws(ReplicationError) {
        self.workers = workers
        around = workers.surroundings
        let level = around.options.level
        compressor = try lifted { try FrameCompressor(level: level) }
    }

    // MARK: Frames

    func compress(_ frame: FrameBuilder) throws(ReplicationError) {
        guard let sink = around.sink, !frame.isEmpty else {
            frame.reset()
            return
        }
        let finished = try lifted { try compressor.compress(frame, into: compressed) }
        frame.reset()
        try sink.append(finished)
        around.monitor.counts.storedBytes.add(finished.bytes.count, ordering: .relaxed)
    }

    private func pack(_ member: MemberName, _ id: ChunkID, _ data: UnsafeRawBufferPointer)
        throws(ReplicationError)
    {
        around.counts.newChunks.add(1, ordering: .relaxed)
        around.counts.newBytes.add(data.count, ordering: .relaxed)
        if around.sink == nil { return }
        try lifted { try frame.add(member, id: id, data: data) }
        if frame.isFull {
            if let empty = workers.exchange(frame) { frame = empty } else { try compress(frame) }
        }
    }

    /// Compresses what is left. The bundle is finished by whoever waits for all threads.
    func finish() throws(ReplicationError) { try compress(frame) }

    // MARK: Parts

    func process(_ part: ContentPart) throws(ReplicationError) {
        try around.cancellation.check()
        if part.items.isEmpty {
            try around.manifest.add(
                .init(
                    number: part.number, lines: part.lines, isVerbatim: part.isVerbatim,
                    lineCount: part.lineCount))
            return
        }
        let out = ByteBuffer(capacity: part.lines.count + part.items.count * 512)
        var copied = 0
        var lines = part.lineCount
        for item in part.items {
            try around.cancellation.check()
            out.append(
                UnsafeRawBufferPointer(rebasing: part.lines.bytes[copied..<item.linesBefore]))
            copied = item.linesBefore
            let before = out.count
            try process(item, of: part, into: out)
            if out.count > before { lines += 1 }
        }
        out.append(UnsafeRawBufferPointer(rebasing: part.lines.bytes[copied...]))
        try around.manifest.add(
            .init(number: part.number, lines: out, isVerbatim: false, lineCount: lines))
    }

    private func process(_ item: ContentPart.Item, of part: ContentPart, into out: ByteBuffer)
        throws(ReplicationError)
    {
        let path = part.path(item)
        let oldLine = part.oldLine(item)
        if item.keepsContent, let oldLine, var entry = EntryCodec.read(oldLine) {
            entry.path = path
            entry.fileSystem = item.fileSystem
            EntryCodec.write(entry, to: out)
            around.counts.unchanged.add(1, ordering: .relaxed)
            if around.monitor.wantsPaths { around.monitor.path(path, .moved) }
            return
        }
        let start = out.count
        let old = oldLine.flatMap { EntryCodec.read($0) }
        guard let entry = try read(item, path: path, name: part.name(item)) else { return }
        EntryCodec.write(entry, to: out)
        let event = Self.event(
            entry, old: item.isMoved ? nil : old, line: out, from: start, oldLine: oldLine)
        switch event {
        case .new: around.counts.new.add(1, ordering: .relaxed)
        case .changed: around.counts.changed.add(1, ordering: .relaxed)
        case .touched: around.counts.touched.add(1, ordering: .relaxed)
        case .metadata: around.counts.metadata.add(1, ordering: .relaxed)
        default: around.counts.unchanged.add(1, ordering: .relaxed)
        }
        if around.monitor.wantsPaths { around.monitor.path(path, event) }
    }

    private static func event(
        _ entry: Entry, old: Entry?, line: ByteBuffer, from start: Int,
        oldLine: UnsafeRawBufferPointer?
    ) -> PathEvent {
        guard let old else { return .new }
        if let oldLine,
            Memory.equal(
                oldLine, UnsafeRawBufferPointer(rebasing: line.bytes[start..<(line.count - 1)]))
        {
            return .unchanged
        }
        if entry.kind != old.kind { return .changed }
        if entry.kind == .file {
            guard entry.size == old.size, entry.fingerprint == old.fingerprint,
                entry.chunks == old.chunks
            else { return .changed }
            return entry.mtime != old.mtime ? .touched : .metadata
        }
        if entry.kind == .symlink, entry.target != old.target { return .changed }
        return .metadata
    }

    /// The entry as it is on disk now; nil where it cannot be kept, which has been named then.
    private func read(
        _ item: ContentPart.Item, path: [UInt8], name: UnsafePointer<CChar>
    ) throws(ReplicationError) -> Entry? {
        if item.kind == .file { return try readFile(item, path: path, name: name) }
        var entry = Entry(path: path, kind: item.kind, status: item.status)
        entry.fileSystem = item.fileSystem
        let problems = FileMetadata.complete(
            &entry, status: item.status, descriptor: item.directory?.descriptor, name: name,
            in: item.parent)
        // What cannot be opened is one problem, and the walk has named it.
        if !item.isUnreadable {
            for problem in problems { around.problems.add(path, .metadata, problem.message) }
        }
        return entry
    }

    /// A file with several names is read at the first of them.
    private func readFile(
        _ item: ContentPart.Item, path: [UInt8], name: UnsafePointer<CChar>
    ) throws(ReplicationError) -> Entry? {
        guard item.status.links > 1 else {
            return try readFileItself(item, path: path, name: name).entry
        }
        switch workers.linkedFiles.claim(item.status) {
        case .known(var entry):
            entry.path = path
            entry.fileSystem = item.fileSystem
            around.monitor.counts.bytes.add(Int(clamping: entry.size), ordering: .relaxed)
            return entry
        case .unknown:
            return try readFileItself(item, path: path, name: name).entry
        case .first:
            var outcome: (opened: FileStatus, entry: Entry)?
            defer { workers.linkedFiles.finish(item.status, outcome) }
            let read = try readFileItself(item, path: path, name: name)
            if let entry = read.entry, let opened = read.settled { outcome = (opened, entry) }
            return read.entry
        }
    }

    /// - Returns: The entry, nil where the file could not be kept; and how the file was when it was
    ///   opened, where it was kept whole and without a problem.
    private func readFileItself(
        _ item: ContentPart.Item, path: [UInt8], name: UnsafePointer<CChar>
    ) throws(ReplicationError) -> (entry: Entry?, settled: FileStatus?) {
        var attempt = 1
        do {
            while true {
                let reader = try FileReader(opening: name, in: item.parent)
                let status = reader.statusWhenOpened
                var entry = Entry(path: path, kind: .file, status: status)
                entry.fileSystem = item.fileSystem
                let problems = FileMetadata.complete(
                    &entry, status: status, descriptor: reader.descriptor, name: name,
                    in: item.parent)
                let holes = try reader.holes(status)
                let whole = try readContent(reader, size: status.size, holes: holes, into: &entry)
                let after = try reader.status()
                if whole, after.isUnchanged(since: status) {
                    try keep(holes, in: &entry)
                    for problem in problems {
                        around.problems.add(path, .metadata, problem.message)
                    }
                    return (entry, problems.isEmpty ? status : nil)
                }
                if attempt >= Limits.readAttempts {
                    // Kept as it was read, with a mark: better an uncertain copy than none.
                    entry.isUnsettled = true
                    try keep(whole ? holes : Self.clipped(holes, to: entry.size), in: &entry)
                    around.problems.add(
                        path, .changed,
                        "changed while it was read, \(attempt) times; the copy may be a mixture")
                    return (entry, nil)
                }
                attempt += 1
            }
        } catch let error as FileTreeError {
            let kind: SnapshotProblem.Kind =
                switch error.kind {
                case .notFound: .vanished
                case .changed: .changed
                default: .unreadable
                }
            around.problems.add(path, kind, error.description)
            return (nil, nil)
        } catch let error as ReplicationError {
            throw error
        } catch {
            throw ReplicationError(.other, UTF8Text.display(path), "\(error)")
        }
    }

    private static func clipped(_ holes: [Hole], to size: UInt64) -> [Hole] {
        holes.compactMap { hole in
            guard hole.offset < size else { return nil }
            return Hole(offset: hole.offset, length: min(hole.length, size - hole.offset))
        }
    }

    /// Reads and packs the content outside of holes. False where the file ended early: then
    /// `entry.size` is what was there.
    private func readContent(
        _ reader: borrowing FileReader, size: UInt64, holes: [Hole], into entry: inout Entry
    ) throws -> Bool {
        let data = size - holes.reduce(0) { $0 + $1.length }
        around.monitor.counts.bytes.add(Int(clamping: size - data), ordering: .relaxed)
        entry.chunks = []
        entry.fingerprint = .empty
        if data == 0 { return true }
        var stream = DataStream(size: size, holes: holes)
        let minimum = around.chunker.parameters.minimum
        buffer.removeAll()
        if data <= UInt64(minimum) {
            buffer.reserve(Int(data))
            let whole = try fill(&stream, reader, upTo: Int(data))
            note(buffer.count)
            if !whole { entry.size = stream.offset }
            if buffer.count > 0 {
                entry.fingerprint = ContentHash.fingerprint(buffer.bytes)
                let id: ChunkID = ContentHash.sha256(buffer.bytes)
                entry.chunks = [id]
                if around.index.claim(id) == .claimed {
                    try pack(
                        holes.isEmpty
                            ? .wholeFile(MemberMetadata(entry)) : .chunk(path: entry.path), id,
                        buffer.bytes)
                }
            }
            return whole
        }
        reader.adviseSequential()
        let room = max(Limits.readBufferBytes, around.chunker.parameters.maximum * 2)
        buffer.reserve(min(room, Int(clamping: data)))
        defer { buffer.shrink(to: room) }
        fingerprint.reset()
        var ids: [ChunkID] = []
        var isWhole = true
        var left = data
        while left > 0 || buffer.count > 0 {
            let had = buffer.count
            if left > 0 {
                let wanted = Int(min(UInt64(room), UInt64(had) + left))
                buffer.reserve(wanted - had)
                if try !fill(&stream, reader, upTo: wanted) {
                    isWhole = false
                    entry.size = stream.offset
                    left = 0
                } else {
                    left -= UInt64(buffer.count - had)
                }
                fingerprint.update(UnsafeRawBufferPointer(rebasing: buffer.bytes[had...]))
                note(buffer.count - had)
            }
            var at = 0
            while at < buffer.count,
                left == 0 || buffer.count - at >= around.chunker.parameters.maximum
            {
                let length = around.chunker.cut(buffer.base + at, count: buffer.count - at)
                let bytes = UnsafeRawBufferPointer(start: buffer.base + at, count: length)
                let id: ChunkID = ContentHash.sha256(bytes)
                let isOnly = ids.isEmpty && left == 0 && length == buffer.count && holes.isEmpty
                ids.append(id)
                if around.index.claim(id) == .claimed {
                    try pack(
                        isOnly ? .wholeFile(MemberMetadata(entry)) : .chunk(path: entry.path), id,
                        bytes)
                }
                at += length
            }
            let rest = buffer.count - at
            if at > 0, rest > 0 { buffer.base.copyMemory(from: buffer.base + at, byteCount: rest) }
            buffer.count = rest
            try around.cancellation.check()
        }
        entry.fingerprint = fingerprint.finish()
        try keep(ids, in: &entry)
        return isWhole
    }

    /// Reads on until the buffer holds `count` bytes. False where the file ended before.
    private func fill(
        _ stream: inout DataStream, _ reader: borrowing FileReader, upTo count: Int
    ) throws -> Bool {
        while buffer.count < count {
            let run = stream.run
            if run == 0 { return false }
            let wanted = min(UInt64(count - buffer.count), run)
            let got = try reader.read(
                into: UnsafeMutableRawBufferPointer(
                    start: buffer.base + buffer.count, count: Int(wanted)), at: stream.offset)
            if got == 0 { return false }
            buffer.count += got
            stream.advance(UInt64(got))
        }
        return true
    }

    private func note(_ count: Int) {
        around.counts.readBytes.add(count, ordering: .relaxed)
        around.monitor.counts.bytes.add(count, ordering: .relaxed)
    }

    /// Puts the ids into the entry, as a tree of nodes where they are many.
    private func keep(_ ids: [ChunkID], in entry: inout Entry) throws(ReplicationError) {
        guard ids.count > Entry.inlineListLimit else {
            entry.chunks = ids
            entry.listDepth = 0
            return
        }
        let chunks = around.chunks
        let index = around.index
        let built = try ListNode.build(ids) {
            (bytes, children, level) throws(ReplicationError) -> ChunkID in
            let id: ChunkID = ContentHash.sha256(bytes)
            if !(index.contains(id) && index.isWhole(segment: id)) {
                if level == 1 {
                    index.describe(id, chunks: children, nodes: [])
                } else {
                    index.describe(id, chunks: [], nodes: children)
                }
                try chunks.store(id, bytes, as: .node)
            }
            return id
        }
        entry.chunks = built.ids
        entry.listDepth = built.depth
    }

    private func keep(_ holes: [Hole], in entry: inout Entry) throws(ReplicationError) {
        guard holes.count > Entry.inlineListLimit else {
            entry.holes = holes
            return
        }
        entry.holes = []
        entry.holesList = []
        node.removeAll()
        for (index, hole) in holes.enumerated() {
            EntryCodec.appendHole(hole, to: node)
            node.append(0x0A)
            if node.count >= Limits.problemPieceBytes || index == holes.count - 1 {
                let id: ChunkID = ContentHash.sha256(node.bytes)
                try around.chunks.store(id, node.bytes, as: .node)
                entry.holesList.append(id)
                node.removeAll()
            }
        }
    }

    // MARK: Streams

    /// Reads a descriptor to its end and packs it as the content of `entry`, whose size is set.
    func readStream(_ descriptor: Int32, into entry: inout Entry) throws(ReplicationError) {
        var ids: [ChunkID] = []
        var total: UInt64 = 0
        var isAtEnd = false
        fingerprint.reset()
        buffer.removeAll()
        buffer.reserve(Limits.readBufferBytes)
        let maximum = around.chunker.parameters.maximum
        while !isAtEnd || buffer.count > 0 {
            while !isAtEnd, buffer.count < Limits.readBufferBytes {
                let room = UnsafeMutableRawBufferPointer(
                    start: buffer.base + buffer.count, count: Limits.readBufferBytes - buffer.count)
                let got = try StreamReading.read(
                    descriptor, into: room, cancellation: around.cancellation)
                guard got >= 0 else {
                    throw ReplicationError(
                        .files, "standard input", "cannot be read (error \(-got))")
                }
                if got == 0 { isAtEnd = true }
                fingerprint.update(UnsafeRawBufferPointer(start: room.baseAddress, count: got))
                buffer.count += got
                total += UInt64(got)
                note(got)
            }
            var at = 0
            while at < buffer.count, isAtEnd || buffer.count - at >= maximum {
                let length = around.chunker.cut(buffer.base + at, count: buffer.count - at)
                let bytes = UnsafeRawBufferPointer(start: buffer.base + at, count: length)
                let id: ChunkID = ContentHash.sha256(bytes)
                ids.append(id)
                if around.index.claim(id) == .claimed {
                    try pack(.chunk(path: entry.path), id, bytes)
                }
                at += length
            }
            let rest = buffer.count - at
            if at > 0, rest > 0 { buffer.base.copyMemory(from: buffer.base + at, byteCount: rest) }
            buffer.count = rest
        }
        entry.size = total
        entry.fingerprint = total == 0 ? .empty : fingerprint.finish()
        try keep(ids, in: &entry)
        try compress(frame)
    }
}

/// Walks over the data of a file between its holes.
struct DataStream {
    private(set) var offset: UInt64
    private let size: UInt64
    private let holes: [Hole]
    private var nextHole = 0

    init(size: UInt64, holes: [Hole]) {
        self.size = size
        self.holes = holes
        offset = 0
        skipHole()
    }

    private mutating func skipHole() {
        while nextHole < holes.count, holes[nextHole].offset <= offset {
            offset = max(offset, holes[nextHole].offset + holes[nextHole].length)
            nextHole += 1
        }
    }

    /// Bytes of data from `offset` up to the next hole or the end.
    var run: UInt64 {
        let end = nextHole < holes.count ? holes[nextHole].offset : size
        return end > offset ? end - offset : 0
    }

    mutating func advance(_ count: UInt64) {
        offset += count
        skipHole()
    }
}
