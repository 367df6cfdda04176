import BundleFormat
import FileTree
import Glibc
import SnapshotModel
package import SnapshotRepository
import Synchronization

/// What a dump wrote.
package struct DumpReport: Sendable {
    /// Whether a tar archive was written, and not one file's content.
    package var isArchive = false
    package var entries = 0
    package var bytes: UInt64 = 0
    /// What an archive cannot hold, such as sockets.
    package var problems: [RestoreReport.Problem] = []
    /// Files of which only zeros went into the archive.
    package var damaged: [RestoreReport.Damage] = []
}

/// Writes the content of one file, or a directory as a pax archive, to an open descriptor. In
/// order, with bounded memory.
package final class Dump {
    private let repository: Repository
    private let index: ChunkIndex
    private let snapshot: Snapshot
    private let monitor: any Monitor
    private let cancellation: Cancellation
    private let fetcher: FrameFetcher
    private let content: FrameFetcher
    private var report = DumpReport()
    private var output = DumpOutput(-1)
    private struct LinkKey: Hashable {
        let fileSystem: UInt32
        let inode: UInt64
    }
    private var firstNames: [LinkKey: (path: [UInt8], names: UInt32)] = [:]

    package init(
        repository: Repository, index: ChunkIndex, snapshot: Snapshot, monitor: any Monitor,
        cancellation: Cancellation
    ) throws(ReplicationError) {
        self.repository = repository
        self.index = index
        self.snapshot = snapshot
        self.monitor = monitor
        self.cancellation = cancellation
        let accesses = BundleAccessCache(repository)
        fetcher = try lifted {
            try FrameFetcher(repository, index: index, accesses: accesses, keeping: 2)
        }
        content = try lifted {
            try FrameFetcher(repository, index: index, accesses: accesses, keeping: 4)
        }
    }

    /// Dumps what the snapshot has at `path`.
    ///
    /// In an archive names are relative to the directory, which itself is `./`, so that unpacking
    /// it somewhere does what a restore of that path does.
    /// - Parameter descriptor: Open for writing; it stays open.
    /// - Throws: Where the path is not there, a single file cannot be read whole, or nobody takes
    ///   the output any more. Damage below a directory is in the report; the file then is zeros
    ///   from there on.
    package func run(path: [UInt8], to descriptor: Int32) throws(ReplicationError) -> DumpReport {
        var path = path
        while path.count > 1, path.last == 0x2F { path.removeLast() }
        guard EntryPath.isCanonical(path) else {
            throw ReplicationError(
                .usage, UTF8Text.display(path), "is no absolute path without '.' and '..'",
                remedy: "write it as 'batchsync ls' shows it")
        }
        output = DumpOutput(descriptor)
        report = DumpReport()
        monitor.phase("dump")
        var archive: TarStream?
        var isFirst = true
        let reader = ManifestReader(snapshot, fetcher: fetcher)
        // Segments are read one by one, since hole lists and list nodes use the same memory.
        let segments = try lifted { try reader.segments(below: path) }
        for segment in segments {
            let bytes = Array(try lifted { try fetcher.chunk(segment.id) })
            var failure: ReplicationError?
            _ = try lifted {
                try ManifestReader.forEach(bytes, segment: segment.id) {
                    (entry, _) throws(RepositoryError) in
                    guard failure == nil, EntryPath.contains(path, entry.path) else {
                        return failure == nil
                    }
                    do throws(ReplicationError) {
                        try cancellation.check()
                        if isFirst, entry.path == path, entry.kind != .directory {
                            try dumpFile(entry)
                        } else {
                            if archive == nil { archive = try beginArchive() }
                            if let archive { try add(entry, below: path, to: archive) }
                        }
                    } catch {
                        failure = error
                    }
                    isFirst = false
                    return failure == nil
                }
            }
            if let failure { throw failure }
        }
        guard !isFirst else {
            throw ReplicationError(
                .repository(.notFound), UTF8Text.display(path),
                "is not in snapshot \(snapshot.id.short)",
                remedy: "'batchsync ls' shows what is in it")
        }
        if let archive { try tar { () throws(BundleError) in try archive.finish() } }
        try output.flush()
        return report
    }

    private func beginArchive() throws(ReplicationError) -> TarStream {
        report.isArchive = true
        let output = output
        return try tar { () throws(BundleError) in
            try TarStream { try output.append($0) }
        }
    }

    /// Gives errors of the archive their shape; what the output itself said stays what it is.
    private func tar<Value>(_ body: () throws(BundleError) -> Value) throws(ReplicationError)
        -> Value
    {
        do throws(BundleError) {
            return try body()
        } catch {
            if let underlying = error.underlying as? ReplicationError { throw underlying }
            throw ReplicationError(.other, "", error.description)
        }
    }

    // MARK: One file

    private func dumpFile(_ entry: Entry) throws(ReplicationError) {
        guard entry.kind == .file else {
            throw ReplicationError(
                .usage, UTF8Text.display(entry.path),
                "is no file and no directory, so it has no content",
                remedy: "restore it with 'batchsync restore'")
        }
        let output = output
        try lifted { try forEachPiece(entry) { try output.append($0) } }
        report.entries = 1
        report.bytes = entry.size
    }

    private func damage(_ message: String) -> RepositoryError {
        RepositoryError(
            .damaged, "manifest", message,
            remedy: "run 'batchsync verify' to see which snapshots this affects")
    }

    private static let zeros = [UInt8](repeating: 0, count: 256 << 10)

    /// Hands out the content of a file in order, zeros of holes included.
    private func forEachPiece(
        _ entry: Entry, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let holes = try ManifestReader(snapshot, fetcher: fetcher).holes(of: entry)
        var pieces = RestorePieces(holes: holes, size: entry.size)
        var list = RestoreChunkList(entry.chunks, depth: entry.listDepth, fetcher: fetcher)
        var written: UInt64 = 0
        func fill(to place: UInt64) throws {
            while written < place {
                let count = Int(min(place - written, UInt64(Self.zeros.count)))
                try Self.zeros.withUnsafeBytes {
                    try body(UnsafeRawBufferPointer(rebasing: $0[..<count]))
                }
                written += UInt64(count)
            }
        }
        while let id = try list.next() {
            try cancellation.check()
            let chunk = try content.chunk(id)
            let fits = try pieces.take(chunk.count) { (place, offset, count) throws(any Error) in
                try fill(to: place)
                try body(UnsafeRawBufferPointer(rebasing: chunk[offset..<offset + count]))
                written += UInt64(count)
            }
            guard fits else { throw damage("the chunks of a file do not make its size") }
            monitor.counts.bytes.wrappingAdd(chunk.count, ordering: .relaxed)
        }
        guard pieces.isComplete else { throw damage("the chunks of a file do not make its size") }
        try fill(to: entry.size)
    }

    // MARK: A directory

    private func add(
        _ entry: Entry, below path: [UInt8], to archive: TarStream
    ) throws(ReplicationError) {
        guard EntryPath.isCanonical(entry.path) else {
            report.damaged.append(
                RestoreReport.Damage(
                    object: "manifest", path: entry.path, message: "this path is refused"))
            return
        }
        let name = Self.name(entry, below: path)
        var linkedTo: [UInt8]?
        if entry.links > 1, entry.kind != .directory {
            let key = LinkKey(fileSystem: entry.fileSystem, inode: entry.inode)
            if let first = firstNames[key] {
                linkedTo = first.path
                // Nobody asks for it again once all names have come.
                firstNames[key] = first.names > 2 ? (first.path, first.names - 1) : nil
            } else {
                firstNames[key] = (name, entry.links)
            }
        }
        let isWritten = try tar { () throws(BundleError) in
            try archive.begin(entry, path: name, linkedTo: linkedTo)
        }
        guard isWritten else {
            report.problems.append(
                RestoreReport.Problem(
                    path: entry.path, kind: "unsupported",
                    message: "a socket cannot lie in a tar archive"))
            monitor.problem(
                entry.path, kind: "unsupported", message: "a socket cannot lie in a tar archive")
            return
        }
        report.entries += 1
        monitor.counts.entries.wrappingAdd(1, ordering: .relaxed)
        guard archive.missing > 0 else { return }
        report.bytes += entry.size
        do {
            try forEachPiece(entry) { try archive.write($0) }
        } catch let error as RepositoryError {
            if RestoreOutcome.concernsAll(error) { throw ReplicationError(error) }
            report.damaged.append(
                RestoreReport.Damage(
                    object: error.subject, path: entry.path, message: error.message))
            monitor.problem(entry.path, kind: "damaged", message: error.description)
            // The header has said how much follows.
            while archive.missing > 0 {
                let count = Int(min(archive.missing, UInt64(Self.zeros.count)))
                try tar { () throws(BundleError) in
                    try Self.zeros.withRawBytes { (zeros) throws(BundleError) in
                        try archive.write(UnsafeRawBufferPointer(rebasing: zeros[..<count]))
                    }
                }
            }
        } catch let error as ReplicationError {
            throw error
        } catch let error as BundleError {
            try tar { () throws(BundleError) in throw error }
        } catch {
            throw ReplicationError(.other, "", "\(error)")
        }
    }

    /// `./` and what follows the dumped directory's own path.
    private static func name(_ entry: Entry, below path: [UInt8]) -> [UInt8] {
        let start = path.count == 1 ? 1 : min(path.count + 1, entry.path.count)
        return [0x2E, 0x2F] + entry.path[start...]
    }
}

/// Gathers small pieces before it writes.
private final class DumpOutput {
    private let descriptor: Int32
    private let buffer = ByteBuffer(capacity: 1 << 20)

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    func append(_ bytes: UnsafeRawBufferPointer) throws(ReplicationError) {
        if buffer.count + bytes.count > buffer.capacity { try flush() }
        if bytes.count >= buffer.capacity {
            try write(bytes)
        } else {
            buffer.append(bytes)
        }
    }

    func flush() throws(ReplicationError) {
        try write(buffer.bytes)
        buffer.removeAll()
    }

    private func write(_ bytes: UnsafeRawBufferPointer) throws(ReplicationError) {
        var done = 0
        while done < bytes.count {
            let count = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if count < 0 {
                let code = errno
                if code == EINTR { continue }
                guard code != EPIPE else {
                    throw ReplicationError(.outputClosed, "the output", "whoever read it has gone")
                }
                throw ReplicationError(
                    .files, "the output", "cannot be written: \(FileTreeError.text(of: code))")
            }
            done += count
        }
    }
}
