package import FileTree
package import SnapshotModel
package import SnapshotRepository
import Synchronization

/// Looks into snapshots: their entries, and the differences between two of them. Needs an owner's
/// identity.
///
/// Everything comes as values, in path order, through callbacks that say whether to go on. One
/// thread at a time.
package final class Inspect {
    let repository: Repository
    let monitor: any Monitor
    let cancellation: Cancellation
    let index: ChunkIndex
    let accesses: BundleAccessCache
    private let fetcher: FrameFetcher
    /// Pieces of manifests that could not be read: what they name is missing from what was shown.
    package private(set) var damagedPieces = 0

    package init(
        repository: Repository, monitor: any Monitor, cancellation: Cancellation
    ) throws(ReplicationError) {
        self.repository = repository
        self.monitor = monitor
        self.cancellation = cancellation
        let index = try lifted { try ChunkIndex.load(repository) }
        let accesses = BundleAccessCache(repository)
        self.index = index
        self.accesses = accesses
        fetcher = try lifted {
            try FrameFetcher(repository, index: index, accesses: accesses, keeping: 2)
        }
    }

    func makeFetcher(keeping frames: Int) throws(ReplicationError) -> FrameFetcher {
        let (repository, index, accesses) = (repository, index, accesses)
        return try lifted {
            try FrameFetcher(repository, index: index, accesses: accesses, keeping: frames)
        }
    }

    // MARK: Listing

    /// Shows the entry at `path` and those below it: all, or those one level down.
    ///
    /// Above the source roots the level below is the roots themselves. Without a path: the
    /// snapshot's only root, or all its roots.
    /// - Throws: `.repository(.notFound)` where nothing is there.
    package func list(
        _ snapshot: Snapshot, path: [UInt8]? = nil, isRecursive: Bool,
        _ body: (Entry) throws(ReplicationError) -> Bool
    ) throws(ReplicationError) {
        let base = path ?? (snapshot.roots.count == 1 ? snapshot.roots[0] : [0x2F])
        // Roots far below are shown as well: nothing between here and there is an entry.
        let roots = snapshot.roots.filter { root in
            EntryPath.contains(base, root)
                && !root.withUnsafeBytes { Self.isLevel($0, below: base) }
        }
        let passesOver = { (piece: InspectCursor.Piece) in
            !isRecursive && Self.liesDeeper(base, piece, roots: roots)
        }
        var isFound = false
        try forEachLine(snapshot, below: base, passesOver: passesOver) {
            (cursor, line) throws(ReplicationError) in
            isFound = true
            if !isRecursive {
                let found = cursor.path(of: line)
                guard
                    Self.isLevel(found, below: base)
                        || !roots.isEmpty && roots.contains(Array(found))
                else { return true }
            }
            let entry = try lifted { try cursor.entry(line) }
            return try body(entry)
        }
        guard isFound || damagedPieces > 0 || path == nil || base == [0x2F] else {
            throw ReplicationError(
                .repository(.notFound), UTF8Text.display(base),
                "is not in snapshot \(snapshot.id.short)",
                remedy: "'batchsync ls \(snapshot.id.short)' shows what is, 'batchsync find' where")
        }
    }

    /// Whether a path is `base` or one component longer.
    private static func isLevel(_ path: UnsafeRawBufferPointer, below base: [UInt8]) -> Bool {
        let start = base == [0x2F] ? 1 : base.count + 1
        if path.count < start { return true }
        return !path[start...].contains(0x2F)
    }

    /// Whether everything in a piece lies below one child of `base`, with that child itself before
    /// it.
    private static func liesDeeper(_ base: [UInt8], _ piece: InspectCursor.Piece, roots: [[UInt8]])
        -> Bool
    {
        guard let first = piece.first, let end = piece.end, EntryPath.contains(base, first) else {
            return false
        }
        let start = base == [0x2F] ? 1 : base.count + 1
        guard first.count > start, let slash = first[start...].firstIndex(of: 0x2F) else {
            return false
        }
        let child = Array(first[..<slash])
        // Roots below `base` are shown too, wherever they lie.
        return EntryPath.contains(child, end) && !roots.contains { EntryPath.contains(child, $0) }
    }

    // MARK: Finding

    /// What `find` looks for: any of the patterns, and all of the rest.
    package struct Query: Sendable {
        /// One without a slash speaks of names at any depth, any other of whole paths.
        package var patterns: [GlobPattern] = []
        /// Empty: any.
        package var kinds: Set<EntryKind> = []
        package var sizeAtLeast: UInt64?
        package var sizeAtMost: UInt64?
        /// Modification times, both ends included.
        package var modifiedSince: Timestamp?
        package var modifiedUntil: Timestamp?
        /// Only this path and what lies below it.
        package var below: [UInt8]?

        package init() {}

        func isWanted(_ entry: EntrySummary) -> Bool {
            if !kinds.isEmpty, !kinds.contains(entry.kind) { return false }
            if sizeAtLeast != nil || sizeAtMost != nil {
                guard entry.kind == .file else { return false }
                if let sizeAtLeast, entry.size < sizeAtLeast { return false }
                if let sizeAtMost, entry.size > sizeAtMost { return false }
            }
            if let modifiedSince, entry.mtime < modifiedSince { return false }
            if let modifiedUntil, entry.mtime > modifiedUntil { return false }
            return true
        }

        func isWanted(path: UnsafeRawBufferPointer, isDirectory: Bool) -> Bool {
            if patterns.isEmpty { return true }
            guard path.count > 1 else { return false }
            let relative = Array(path[1...])
            return patterns.contains {
                $0.matches(relative, isDirectory: isDirectory) != $0.isNegated
            }
        }
    }

    /// Matches that segments shared by several snapshots keep for the next one.
    private static let keptMatches = 50_000

    /// Shows what fits in each of the snapshots, one after the other.
    package func find(
        _ query: Query, in snapshots: [Snapshot],
        _ body: (Snapshot, Entry) throws(ReplicationError) -> Bool
    ) throws(ReplicationError) {
        var known: [ChunkID: [Entry]] = [:]
        var kept = 0
        for snapshot in snapshots {
            let cursor = InspectCursor(snapshot, fetcher: fetcher, below: query.below)
            while case .piece(let piece) = cursor.position {
                try cancellation.check()
                if piece.level > 0 {
                    try open(cursor, piece)
                    continue
                }
                let matches: [Entry]
                if let before = known[piece.id] {
                    matches = before
                    try lifted { try cursor.skip() }
                } else {
                    matches = try match(query, cursor, piece)
                    kept += matches.count + 1
                    if kept < Self.keptMatches, snapshots.count > 1 { known[piece.id] = matches }
                }
                for entry in matches {
                    if try !body(snapshot, entry) { return }
                }
            }
        }
    }

    private func match(
        _ query: Query, _ cursor: InspectCursor, _ piece: InspectCursor.Piece
    ) throws(ReplicationError) -> [Entry] {
        var matches: [Entry] = []
        var summary = EntrySummary()
        try open(cursor, piece)
        while case .line(let line) = cursor.position {
            monitor.counts.entries.add(1, ordering: .relaxed)
            let isEntry = summary.read(line)
            if !isEntry || query.isWanted(summary),
                query.isWanted(
                    path: cursor.path(of: line), isDirectory: isEntry && summary.kind == .directory)
            {
                matches.append(try lifted { try cursor.entry(line) })
            }
            try lifted { try cursor.skip() }
        }
        return matches
    }

    // MARK: Walking

    /// Calls `body` with each line; passes over the pieces that `passesOver` names. Damage is told,
    /// counted and passed over.
    func forEachLine(
        _ snapshot: Snapshot, below: [UInt8]?,
        passesOver: (InspectCursor.Piece) -> Bool = { _ in false },
        _ body: (InspectCursor, UnsafeRawBufferPointer) throws(ReplicationError) -> Bool
    ) throws(ReplicationError) {
        let cursor = InspectCursor(snapshot, fetcher: fetcher, below: below)
        while true {
            switch cursor.position {
            case .end: return
            case .piece(let piece):
                try cancellation.check()
                if piece.level == 0, passesOver(piece) {
                    try lifted { try cursor.skip() }
                } else {
                    try open(cursor, piece)
                }
            case .line(let line):
                monitor.counts.entries.add(1, ordering: .relaxed)
                if try !body(cursor, line) { return }
                try lifted { try cursor.skip() }
            }
        }
    }

    private func open(_ cursor: InspectCursor, _ piece: InspectCursor.Piece)
        throws(ReplicationError)
    {
        do {
            try cursor.open()
        } catch {
            guard error.kind == .damaged else { throw ReplicationError(error) }
            damagedPieces += 1
            monitor.counts.problems.add(1, ordering: .relaxed)
            monitor.problem(
                piece.first ?? [0x2F], kind: "damaged",
                message: "what the manifest names from here on cannot be read: \(error.description)"
            )
        }
    }
}

extension Entry {
    /// Kind and permissions as `ls -l` shows them: `drwxr-xr-x`, with a `+` where an access control
    /// list says more.
    package var permissionText: String {
        let kindLetter: Character =
            switch kind {
            case .file: "-"
            case .directory: "d"
            case .symlink: "l"
            case .fifo: "p"
            case .socket: "s"
            case .characterDevice: "c"
            case .blockDevice: "b"
            }
        var text = String(kindLetter)
        for (shift, special, set, unset) in [
            (6, 0o4000, "s", "S"), (3, 0o2000, "s", "S"), (0, 0o1000, "t", "T"),
        ] {
            let bits = mode >> UInt32(shift)
            text += bits & 4 != 0 ? "r" : "-"
            text += bits & 2 != 0 ? "w" : "-"
            let runs = bits & 1 != 0
            text += mode & UInt32(special) != 0 ? (runs ? set : unset) : (runs ? "x" : "-")
        }
        return acl != nil || defaultACL != nil ? text + "+" : text
    }
}
