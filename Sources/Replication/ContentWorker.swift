import BundleFormat
import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// One of the threads of `ContentWorkers`, with its buffers.
final class ContentWorker {
    private let workers: ContentWorkers
    let around: ContentWorkers.Surroundings
    private var frame = FrameBuilder()
    private let compressor: FrameCompressor
    private let compressed = ByteBuffer(capacity: 2 << 20)
    let buffer = ByteBuffer(capacity: 1 << 20)
    let fingerprint = FingerprintStream()
    let node = ByteBuffer(capacity: 4 << 10)

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

    func pack(_ member: MemberName, _ id: ChunkID, _ data: UnsafeRawBufferPointer)
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
            around.problems.add(path, kind, error.message(after: path))
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
}
