import BundleFormat
import SnapshotModel
import SnapshotRepository

/// Walks one manifest in path order. Nodes and segments are opened only when asked for, so whole
/// pieces can be passed over unread.
///
/// One thread at a time.
final class InspectCursor {
    /// A node (level 1 and up) or a segment (level 0) that has not been opened.
    struct Piece {
        let id: ChunkID
        let level: Int
        /// Path of its first entry; nil for the nodes at the top, of which the snapshot does not
        /// say it.
        let first: [UInt8]?
        /// All its paths come before this one, where it is known.
        let end: [UInt8]?
    }

    enum Position {
        case piece(Piece)
        /// The line of an entry, without its LF. Valid until the cursor moves.
        case line(UnsafeRawBufferPointer)
        case end
    }

    private let fetcher: FrameFetcher
    private let below: [UInt8]?
    /// The next one last.
    private var pieces: [Piece] = []
    private let segment = ByteBuffer(capacity: ManifestLimits.segmentMaximumBytes + (64 << 10))
    private var segmentID = ChunkID(0, 0, 0, 0)
    private var lineStart = 0
    private var lineEnd = 0
    private let scratch = ByteBuffer(capacity: 1024)

    /// - Parameter below: Only this path and what lies below it.
    init(_ snapshot: Snapshot, fetcher: FrameFetcher, below: [UInt8]? = nil) {
        self.fetcher = fetcher
        self.below = below.flatMap { $0 == [0x2F] ? nil : $0 }
        pieces = snapshot.manifestIDs.reversed().map {
            Piece(id: $0, level: snapshot.manifestDepth, first: nil, end: nil)
        }
    }

    var position: Position {
        if lineStart < segment.count {
            return .line(UnsafeRawBufferPointer(rebasing: segment.bytes[lineStart..<lineEnd]))
        }
        return pieces.last.map { .piece($0) } ?? .end
    }

    /// Passes over the piece or line at the position.
    func skip() throws(RepositoryError) {
        if lineStart < segment.count {
            lineStart = lineEnd + 1
            try findLine()
        } else {
            _ = pieces.popLast()
        }
    }

    /// Opens the piece at the position. Where that fails the piece has been passed over.
    func open() throws(RepositoryError) {
        guard lineStart >= segment.count, let piece = pieces.popLast() else { return }
        let bytes = try fetcher.chunk(piece.id)
        guard piece.level > 0 else {
            segment.removeAll()
            segment.append(bytes)
            segmentID = piece.id
            lineStart = 0
            return try findLine()
        }
        guard let children = ManifestChild.read(bytes), !children.isEmpty,
            zip(children, children.dropFirst()).allSatisfy({
                EntryPath.precedes($0.first, $1.first)
            }),
            // Within the bounds that the node above states: so no piece is met twice, whatever
            // names it.
            piece.first.map({ $0 == children[0].first }) ?? true,
            piece.end.map({ EntryPath.precedes(children[children.count - 1].first, $0) }) ?? true
        else {
            throw RepositoryError(
                .damaged, "manifest node \(piece.id)", "is not a node of format 1",
                remedy: "run 'batchsync verify' to see which snapshots this affects")
        }
        for (index, child) in children.enumerated().reversed() {
            let end = index + 1 < children.count ? children[index + 1].first : piece.end
            if let below {
                if let end, EntryPath.compare(end, below) <= 0 { continue }
                if EntryPath.compare(child.first, below) > 0,
                    !EntryPath.contains(below, child.first)
                {
                    continue
                }
            }
            pieces.append(Piece(id: child.id, level: piece.level - 1, first: child.first, end: end))
        }
    }

    private func findLine() throws(RepositoryError) {
        while lineStart < segment.count {
            guard let end = JSONLines.lineEnd(segment.bytes, from: lineStart) else {
                segment.removeAll()
                throw RepositoryError(
                    .damaged, "manifest segment \(segmentID)", "its last line is cut short",
                    remedy: "run 'batchsync verify' to see which snapshots this affects")
            }
            lineEnd = end
            guard let below else { return }
            let line = UnsafeRawBufferPointer(rebasing: segment.bytes[lineStart..<end])
            if below.withUnsafeBytes({ EntryPath.contains($0, path(of: line)) }) { return }
            lineStart = end + 1
        }
    }

    /// The path of a line, in place where it stands there plainly. Valid until the next call.
    func path(of line: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        EntryCodec.path(of: line, scratch: scratch)
    }

    func entry(_ line: UnsafeRawBufferPointer) throws(RepositoryError) -> Entry {
        guard let entry = EntryCodec.read(line) else {
            throw RepositoryError(
                .damaged, "manifest segment \(segmentID)",
                "holds a line that is not an entry of format 1",
                remedy: "run 'batchsync verify' to see which snapshots this affects")
        }
        return entry
    }
}
