import BundleFormat
import SnapshotModel
package import SnapshotRepository
import Synchronization

/// A snapshot as an mtree(5) specification: `mtree -f` on the restored tree says whether it is what
/// was backed up.
///
/// Lines stand for themselves, with paths from `.`, the directory that is listed. Directories above
/// the source roots, which restore makes as well, are there with their type only.
package final class Mtree {
    private let inspect: Inspect
    private let snapshot: Snapshot
    private let base: [UInt8]
    private let wantsDigest: Bool
    private let out = ByteBuffer(capacity: 4096)
    private let fetcher: FrameFetcher
    /// Directories that have been written, as far as the next path lies below them.
    private var written: [[UInt8]] = []
    /// Files whose content could not be read: their lines lack the digest.
    package private(set) var unreadFiles = 0

    /// - Parameters: - path: What is listed; the whole snapshot where nil. A file is listed as the
    ///   one entry of its directory. - wantsDigest: Whether content is read and lines tell its
    ///   SHA-256.
    package init(
        _ inspect: Inspect, snapshot: Snapshot, path: [UInt8]?, wantsDigest: Bool
    ) throws(ReplicationError) {
        self.inspect = inspect
        self.snapshot = snapshot
        base = path ?? [0x2F]
        self.wantsDigest = wantsDigest
        // One frame of content is in use at a time; nodes of long lists lie elsewhere.
        fetcher = try inspect.makeFetcher(keeping: 3)
    }

    /// Hands the specification to `body`, a line or a few at a time, until it says no.
    package func write(
        _ body: (UnsafeRawBufferPointer) throws(ReplicationError) -> Bool
    ) throws(ReplicationError) {
        out.append("#mtree\n")
        guard try flush(body) else { return }
        var root: [UInt8]?
        try inspect.list(snapshot, path: base, isRecursive: true) {
            (entry) throws(ReplicationError) in
            if root == nil {
                root =
                    entry.path == base && entry.kind != .directory
                    ? EntryPath.parent(of: base) : base
            }
            writeParents(of: entry.path, root: root ?? base)
            try write(entry, root: root ?? base)
            return try flush(body)
        }
    }

    private func flush(
        _ body: (UnsafeRawBufferPointer) throws(ReplicationError) -> Bool
    ) throws(ReplicationError) -> Bool {
        let goesOn = try body(out.bytes)
        out.removeAll()
        return goesOn
    }

    /// Directories on the way to `path` that are no entries themselves.
    private func writeParents(of path: [UInt8], root: [UInt8]) {
        while let last = written.last, !EntryPath.contains(last, path) { written.removeLast() }
        guard path != root else { return }
        let parent = EntryPath.parent(of: path)
        if written.last == parent { return }
        var missing: [[UInt8]] = []
        var at = parent
        while at != written.last {
            missing.append(at)
            if at == root || at == [0x2F] { break }
            at = EntryPath.parent(of: at)
        }
        for directory in missing.reversed() {
            appendPath(directory, root: root)
            out.append(" type=dir\n")
            written.append(directory)
        }
    }

    private func write(_ entry: Entry, root: [UInt8]) throws(ReplicationError) {
        appendPath(entry.path, root: root)
        out.append(" type=")
        let type: StaticString =
            switch entry.kind {
            case .file: "file"
            case .directory: "dir"
            case .symlink: "link"
            case .fifo: "fifo"
            case .socket: "socket"
            case .characterDevice: "char"
            case .blockDevice: "block"
            }
        out.append(type)
        out.append(" mode=")
        appendOctal(entry.mode)
        out.append(" uid=")
        out.append(decimal: UInt64(entry.uid))
        out.append(" gid=")
        out.append(decimal: UInt64(entry.gid))
        out.append(" time=")
        appendTime(entry.mtime)
        if entry.kind == .file {
            out.append(" size=")
            out.append(decimal: entry.size)
            if wantsDigest, let digest = try digest(of: entry) {
                out.append(" sha256=")
                out.append(hex: digest)
            }
        }
        if entry.kind == .symlink {
            out.append(" link=")
            appendEscaped(entry.target)
        }
        if entry.kind.isDevice {
            out.append(" device=linux,")
            out.append(decimal: UInt64(entry.deviceMajor))
            out.append(0x2C)
            out.append(decimal: UInt64(entry.deviceMinor))
        }
        out.append(0x0A)
        if entry.kind == .directory { written.append(entry.path) }
    }

    // MARK: Fields

    private func appendPath(_ path: [UInt8], root: [UInt8]) {
        out.append(0x2E)
        guard path != root else { return }
        out.append(0x2F)
        appendEscaped(Array(path[(root == [0x2F] ? 1 : root.count + 1)...]))
    }

    /// What is not plainly printable, or means something to mtree, as three octal digits.
    private func appendEscaped(_ bytes: [UInt8]) {
        for byte in bytes {
            switch byte {
            case 0x23, 0x2A, 0x3D, 0x3F, 0x5B, 0x5C, 0x00...0x20, 0x7F...0xFF:
                out.append(0x5C)
                out.append(byte >> 6 + 0x30)
                out.append(byte >> 3 & 7 + 0x30)
                out.append(byte & 7 + 0x30)
            default: out.append(byte)
            }
        }
    }

    private func appendOctal(_ mode: UInt32) {
        for shift: UInt32 in [9, 6, 3, 0] { out.append(UInt8(mode >> shift & 7) + 0x30) }
    }

    /// Seconds, and nanoseconds that count up from them, also before 1970: mtree reads the two as
    /// separate numbers.
    private func appendTime(_ time: Timestamp) {
        if time.seconds < 0 { out.append(0x2D) }
        out.append(decimal: time.seconds.magnitude)
        out.append(0x2E)
        let digits = String(time.nanoseconds)
        for _ in digits.utf8.count..<9 { out.append(0x30) }
        out.append(digits)
    }

    // MARK: Content

    /// The SHA-256 of a file's content, holes and all; nil where a part of it cannot be read.
    private func digest(of entry: Entry) throws(ReplicationError) -> ChunkID? {
        do throws(RepositoryError) {
            var stream = MtreeDigest(size: entry.size, holes: try holes(of: entry))
            try forEachChunk(entry.chunks, depth: entry.listDepth) { stream.add($0) }
            guard let digest: ChunkID = stream.finish() else {
                throw RepositoryError(
                    .damaged, UTF8Text.display(entry.path), "its chunks do not make up its size")
            }
            return digest
        } catch {
            guard error.kind == .damaged else { throw ReplicationError(error) }
            unreadFiles += 1
            inspect.monitor.counts.problems.add(1, ordering: .relaxed)
            inspect.monitor.problem(entry.path, kind: "damaged", message: error.description)
            return nil
        }
    }

    private func holes(of entry: Entry) throws(RepositoryError) -> [Hole] {
        try ManifestReader(snapshot, fetcher: fetcher).holes(of: entry)
    }

    /// Chunks in order, below however many levels of list nodes; one node of each level in memory.
    private func forEachChunk(
        _ ids: [ChunkID], depth: Int, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(RepositoryError) {
        for id in ids {
            if inspect.cancellation.isCancelled { return }
            let bytes = try fetcher.chunk(id)
            if depth == 0 {
                body(bytes)
            } else if let children = ListNode.read(bytes) {
                try forEachChunk(children, depth: depth - 1, body)
            } else {
                throw RepositoryError(.damaged, "list node \(id)", "is not a node of format 1")
            }
        }
    }
}

/// The digest of a file that is put together from data and holes.
struct MtreeDigest {
    private static let zeros = [UInt8](repeating: 0, count: 64 << 10)
    private var stream = DigestStream()
    private let size: UInt64
    private let holes: [Hole]
    private var next = 0
    private var offset: UInt64 = 0

    init(size: UInt64, holes: [Hole]) {
        self.size = size
        self.holes = holes
    }

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty {
            skipHoles()
            let room = next < holes.count ? holes[next].offset - offset : .max
            let part = UnsafeRawBufferPointer(
                rebasing: rest.prefix(Int(clamping: min(room, UInt64(rest.count)))))
            stream.update(part)
            offset += UInt64(part.count)
            rest = UnsafeRawBufferPointer(rebasing: rest[part.count...])
        }
    }

    private mutating func skipHoles() {
        while next < holes.count, holes[next].offset == offset {
            var left = holes[next].length
            while left > 0 {
                let count = Int(min(left, UInt64(Self.zeros.count)))
                Self.zeros.withUnsafeBytes {
                    stream.update(UnsafeRawBufferPointer(rebasing: $0[..<count]))
                }
                left -= UInt64(count)
            }
            offset += holes[next].length
            next += 1
        }
    }

    /// Nil where data and holes do not make up the size.
    mutating func finish<Kind>() -> Identifier<Kind>? {
        skipHoles()
        return offset == size && next == holes.count ? stream.finish() : nil
    }
}
