import FileTree
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Tells the progress line how much there is to do, so that it can say how long that takes.
enum ExpectedTotals {
    /// What the last snapshot of the same host and sources had. Nil where there is none.
    static func previous(_ repository: Repository, host: String, roots: [SourceRoot]) -> Snapshot? {
        let paths = Set(roots.map(\.path))
        guard let catalog = try? SnapshotCatalog.load(repository) else { return nil }
        return catalog.snapshots.last { $0.host == host && Set($0.roots) == paths }
    }

    /// Counts the sources beside the first backup of them, which reads far longer than that takes.
    ///
    /// - Parameter isOver: The backup has ended: nobody asks any more.
    static func count(
        _ roots: [SourceRoot], _ options: WalkOptions, into counts: ProgressCounts,
        until isOver: () -> Bool
    ) {
        var options = options
        options.threads = 0
        guard let walker = try? TreeWalker(roots: roots, options: options) else { return }
        var entries = 0
        var bytes: UInt64 = 0
        while let event = walker.next() {
            if entries & 1023 == 0, isOver() { return }
            guard event == .entry else { continue }
            entries += 1
            if walker.kind == .file { bytes += walker.status.size }
        }
        counts.entriesExpected.store(entries, ordering: .relaxed)
        counts.bytesExpected.store(Int(clamping: bytes), ordering: .relaxed)
    }
}
