package import SnapshotModel

/// The entries of a snapshot, segment by segment, in path order. One thread at a time.
package final class ManifestReader {
    package let snapshot: Snapshot
    private let fetcher: FrameFetcher

    package init(_ snapshot: Snapshot, fetcher: FrameFetcher) {
        self.snapshot = snapshot
        self.fetcher = fetcher
    }

    /// Most children on one level, of a manifest or of a file's list: a forged tree whose nodes
    /// name one node again and again must not take all memory. Half a billion files, and sixteen
    /// tebibytes in one file, come to about as many.
    private static let segmentsMaximum = 1 << 20
    private static let chunksMaximum = 64 << 20

    /// The segments of the manifest in order; where `below` is given, only those that can hold it
    /// or what lies below it.
    package func segments(below path: [UInt8]? = nil) throws(RepositoryError) -> [ManifestChild] {
        var level = snapshot.manifestIDs
        var depth = snapshot.manifestDepth
        var children: [ManifestChild] = []
        while depth > 0 {
            children = []
            for id in level {
                let bytes = try fetcher.chunk(id)
                guard let read = ManifestChild.read(bytes), !read.isEmpty else {
                    throw .damaged("manifest node \(id)", "is not a node of format 1")
                }
                children += read
                guard children.count <= Self.segmentsMaximum else {
                    throw .damaged(
                        "manifest of snapshot \(snapshot.id.short)",
                        "has more segments than a manifest can have")
                }
            }
            if let path { children = Self.narrow(children, to: path) }
            level = children.map(\.id)
            depth -= 1
        }
        return children
    }

    /// Of children in order, those whose range of paths may hold `path` or anything below it.
    static func narrow(_ children: [ManifestChild], to path: [UInt8]) -> [ManifestChild] {
        var kept: [ManifestChild] = []
        for (index, child) in children.enumerated() {
            // A child's paths run from its first up to the next one's.
            if index + 1 < children.count, EntryPath.compare(children[index + 1].first, path) <= 0 {
                continue
            }
            if EntryPath.compare(child.first, path) > 0, !EntryPath.contains(path, child.first) {
                break
            }
            kept.append(child)
        }
        return kept
    }

    /// The bytes of one segment. Valid until the next call.
    package func segment(_ id: ChunkID) throws(RepositoryError) -> UnsafeRawBufferPointer {
        try fetcher.chunk(id)
    }

    /// Calls `body` with each entry in order until it says no. Where `below` is given: that path
    /// and what lies below it.
    package func forEach(
        below path: [UInt8]? = nil,
        _ body: (Entry, UnsafeRawBufferPointer) throws(RepositoryError) -> Bool
    ) throws(RepositoryError) {
        for child in try segments(below: path) {
            // The fetcher's memory is used again by whatever `body` fetches.
            let bytes = Array(try fetcher.chunk(child.id))
            let goesOn = try Self.forEach(bytes, segment: child.id) {
                (entry, line) throws(RepositoryError) in
                if let path, !EntryPath.contains(path, entry.path) { return true }
                return try body(entry, line)
            }
            if !goesOn { return }
        }
    }

    /// Calls `body` with each entry of one segment.
    @discardableResult
    package static func forEach(
        _ bytes: [UInt8], segment id: ChunkID,
        _ body: (Entry, UnsafeRawBufferPointer) throws(RepositoryError) -> Bool
    ) throws(RepositoryError) -> Bool {
        try bytes.withRawBytes { (bytes) throws(RepositoryError) -> Bool in
            var start = 0
            var number = 0
            var entry = Entry(path: [], kind: .file)
            while start < bytes.count {
                number += 1
                guard let end = JSONLines.lineEnd(bytes, from: start) else {
                    throw RepositoryError.damaged(
                        "manifest segment \(id)", "its last line is cut short")
                }
                let line = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
                guard EntryCodec.read(line, into: &entry) else {
                    throw RepositoryError.damaged(
                        "manifest segment \(id)", "line \(number) is not an entry of format 1")
                }
                if try !body(entry, line) { return false }
                start = end + 1
            }
            return true
        }
    }

    /// The chunks of a file in order, however many levels of list nodes lie above them.
    package func chunks(of entry: Entry) throws(RepositoryError) -> [ChunkID] {
        var ids = entry.chunks
        var depth = entry.listDepth
        while depth > 0 {
            var next: [ChunkID] = []
            for id in ids {
                guard let read = ListNode.read(try fetcher.chunk(id)) else {
                    throw .damaged("list node \(id)", "is not a node of format 1")
                }
                next += read
                // Each chunk holds a byte at least.
                guard next.count <= Self.chunksMaximum, next.count <= entry.size else {
                    throw .damaged(
                        "list of \(UTF8Text.display(entry.path))",
                        "has more chunks than a file can have")
                }
            }
            ids = next
            depth -= 1
        }
        return ids
    }

    /// The holes of a file, wherever its entry keeps them.
    package func holes(of entry: Entry) throws(RepositoryError) -> [Hole] {
        if entry.holesList.isEmpty { return entry.holes }
        let joined = ByteBuffer(capacity: 1 << 20)
        for id in entry.holesList {
            joined.append(try fetcher.chunk(id))
            guard joined.count <= 1 << 30 else {
                throw .damaged("chunk \(id)", "makes a list of holes too long")
            }
        }
        guard let holes = EntryCodec.readHoleLines(joined.bytes, size: entry.size) else {
            throw .damaged("list of holes of \(UTF8Text.display(entry.path))", "is not one")
        }
        return holes
    }

    /// The problems that the run named.
    package func problems() throws(RepositoryError) -> [SnapshotProblem] {
        let joined = ByteBuffer(capacity: 64 << 10)
        for id in snapshot.problemIDs {
            joined.append(try fetcher.chunk(id))
            guard joined.count <= 1 << 30 else {
                throw .damaged("chunk \(id)", "makes a list of problems too long")
            }
        }
        guard let problems = SnapshotProblem.read(joined.bytes) else {
            throw .damaged("problems of snapshot \(snapshot.id.short)", "are not lines of format 1")
        }
        return problems
    }
}
