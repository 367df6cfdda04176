package import SnapshotModel
package import SnapshotRepository
import Synchronization

/// One path at which two snapshots differ.
package struct SnapshotDifference: Sendable {
    package enum Kind: String, Sendable, CaseIterable {
        case added, removed
        /// The content, the target of a link, or the number of a device.
        case changed
        /// Only what is known of the file, not what is in it.
        case metadata
        /// A file has become a directory, or the like.
        case type
    }

    package let kind: Kind
    /// Nil where it was added.
    package let old: Entry?
    /// Nil where it was removed.
    package let new: Entry?
    /// What differs of the metadata: `mode` `owner` `mtime` `acl` `xattrs` `flags` `links`.
    package let aspects: [String]

    package var path: [UInt8] { new?.path ?? old?.path ?? [] }
}

/// Sums over all differences.
package struct DifferenceTotals: Sendable, Equatable {
    package var added = 0, removed = 0, changed = 0, metadata = 0, type = 0
    /// Sizes of added and of removed files; of changed ones what they grew and shrank.
    package var addedBytes: UInt64 = 0
    package var removedBytes: UInt64 = 0
    /// Sizes that changed files have now.
    package var changedBytes: UInt64 = 0
    /// Segments that both have, passed over unread.
    package var sharedPieces = 0

    package var isEmpty: Bool { added + removed + changed + metadata + type == 0 }
}

extension Inspect {
    /// Shows where two snapshots differ, in path order: a merge of two sorted lists that passes
    /// over what both share without reading it.
    ///
    /// Inode numbers and change times do not count as differences.
    /// - Parameter path: Only this path and what lies below it.
    package func difference(
        _ old: Snapshot, _ new: Snapshot, path: [UInt8]? = nil,
        _ body: (SnapshotDifference) throws(ReplicationError) -> Bool
    ) throws(ReplicationError) -> DifferenceTotals {
        let left = InspectCursor(old, fetcher: try makeFetcher(keeping: 2), below: path)
        let right = InspectCursor(new, fetcher: try makeFetcher(keeping: 2), below: path)
        var totals = DifferenceTotals()
        func show(_ difference: SnapshotDifference) throws(ReplicationError) -> Bool {
            totals.add(difference)
            return try body(difference)
        }
        while true {
            switch (left.position, right.position) {
            case (.end, .end):
                return totals
            case (.piece(let a), .piece(let b)):
                try cancellation.check()
                if a.id == b.id, a.level == b.level {
                    totals.sharedPieces += 1
                    try lifted {
                        try left.skip()
                        try right.skip()
                    }
                } else {
                    try openNext(a, left, b, right)
                }
            case (.line(let a), .line(let b)):
                // Most lines that are read at all are equal: they are compared whole, without a
                // look inside.
                if Memory.equal(a, b) {
                    try lifted {
                        try left.skip()
                        try right.skip()
                    }
                    continue
                }
                let order = EntryPath.compare(left.path(of: a), right.path(of: b))
                if order == 0 {
                    let difference = try lifted {
                        Self.compare(try left.entry(a), try right.entry(b))
                    }
                    if let difference, try !show(difference) { return totals }
                } else if order < 0 {
                    if try !show(try Self.removed(left, a)) { return totals }
                } else if try !show(try Self.added(right, b)) {
                    return totals
                }
                try lifted {
                    if order <= 0 { try left.skip() }
                    if order >= 0 { try right.skip() }
                }
            case (.line(let line), let other):
                if case .piece(let piece) = other, Self.mayHold(piece, left.path(of: line)) {
                    try lifted { try right.open() }
                    continue
                }
                if try !show(try Self.removed(left, line)) { return totals }
                try lifted { try left.skip() }
            case (let other, .line(let line)):
                if case .piece(let piece) = other, Self.mayHold(piece, right.path(of: line)) {
                    try lifted { try left.open() }
                    continue
                }
                if try !show(try Self.added(right, line)) { return totals }
                try lifted { try right.skip() }
            case (.piece, .end):
                try lifted { try left.open() }
            case (.end, .piece):
                try lifted { try right.open() }
            }
        }
    }

    /// Opens the piece that stands higher, or begins earlier: the other may still be met unopened
    /// by its equal.
    private func openNext(
        _ a: InspectCursor.Piece, _ left: InspectCursor, _ b: InspectCursor.Piece,
        _ right: InspectCursor
    ) throws(ReplicationError) {
        var order = b.level - a.level
        if order == 0, let first = a.first, let other = b.first {
            order = EntryPath.compare(first, other)
        }
        try lifted {
            if order <= 0 { try left.open() }
            if order >= 0 { try right.open() }
        }
    }

    /// Whether a piece may hold a path, or anything before it.
    private static func mayHold(_ piece: InspectCursor.Piece, _ path: UnsafeRawBufferPointer)
        -> Bool
    {
        guard let first = piece.first else { return true }
        return first.withUnsafeBytes { EntryPath.compare($0, path) <= 0 }
    }

    private static func removed(
        _ cursor: InspectCursor, _ line: UnsafeRawBufferPointer
    ) throws(ReplicationError) -> SnapshotDifference {
        SnapshotDifference(
            kind: .removed, old: try lifted { try cursor.entry(line) }, new: nil, aspects: [])
    }

    private static func added(
        _ cursor: InspectCursor, _ line: UnsafeRawBufferPointer
    ) throws(ReplicationError) -> SnapshotDifference {
        SnapshotDifference(
            kind: .added, old: nil, new: try lifted { try cursor.entry(line) }, aspects: [])
    }

    /// What differs between two entries of one path; nil where it is nothing that counts.
    static func compare(_ old: Entry, _ new: Entry) -> SnapshotDifference? {
        guard old.kind == new.kind else {
            return SnapshotDifference(kind: .type, old: old, new: new, aspects: [])
        }
        var aspects: [String] = []
        if old.mode != new.mode { aspects.append("mode") }
        if old.uid != new.uid || old.gid != new.gid { aspects.append("owner") }
        if old.mtime != new.mtime { aspects.append("mtime") }
        if old.acl != new.acl || old.defaultACL != new.defaultACL { aspects.append("acl") }
        if old.xattrs != new.xattrs { aspects.append("xattrs") }
        if old.flags != new.flags { aspects.append("flags") }
        if old.links != new.links { aspects.append("links") }
        let isSame =
            switch old.kind {
            case .file:
                old.size == new.size && old.chunks == new.chunks && old.listDepth == new.listDepth
                    && old.holes == new.holes && old.holesList == new.holesList
            case .symlink: old.target == new.target
            case .characterDevice, .blockDevice:
                old.deviceMajor == new.deviceMajor && old.deviceMinor == new.deviceMinor
            case .directory, .fifo, .socket: true
            }
        if isSame && aspects.isEmpty { return nil }
        return SnapshotDifference(
            kind: isSame ? .metadata : .changed, old: old, new: new, aspects: aspects)
    }
}

extension DifferenceTotals {
    mutating func add(_ difference: SnapshotDifference) {
        let before = difference.old?.size ?? 0
        let now = difference.new?.size ?? 0
        switch difference.kind {
        case .added:
            added += 1
            addedBytes += now
        case .removed:
            removed += 1
            removedBytes += before
        case .type:
            type += 1
            addedBytes += now
            removedBytes += before
        case .changed:
            changed += 1
            changedBytes += now
            if now > before { addedBytes += now - before } else { removedBytes += before - now }
        case .metadata:
            metadata += 1
        }
    }
}
