import BundleFormat
import SnapshotModel
package import SnapshotRepository

/// What a repository holds and what that costs. The host key is enough.
package struct RepositoryStatistics: Sendable {
    /// Objects of one folder of the repository.
    package struct Objects: Sendable, Equatable {
        /// `bundles`, `index`, `snapshots`, …; the files at the top are `repository`.
        package let kind: String
        package var count = 0
        package var bytes = 0
    }

    /// What one snapshot costs.
    package struct SnapshotSize: Sendable {
        package let snapshot: Snapshot
        /// Files of the snapshot, and their bytes.
        package var files: Int { snapshot.statistics.files }
        package var bytes: Int { snapshot.statistics.bytes }
        /// Bundles that it needs, and their stored bytes.
        package var bundles = 0
        package var storedBytes = 0
        /// Stored bytes of bundles that no other snapshot needs: what forgetting it alone may give
        /// back.
        package var ownBytes = 0
    }

    /// In order of kind.
    package var objects: [Objects] = []
    package var objectCount: Int { objects.reduce(0) { $0 + $1.count } }
    package var storedBytes: Int { objects.reduce(0) { $0 + $1.bytes } }
    package var snapshots: [SnapshotSize] = []
    /// Bytes of all files of all snapshots together, as if each lay there in full.
    package var snapshotBytes = 0
    package var snapshotCount = 0
    /// Chunks of files in the index, their bytes, and the stored bytes of the bundles they lie in.
    package var chunks = 0
    package var chunkBytes = 0
    package var contentStoredBytes = 0
    /// The same of manifests.
    package var manifestChunks = 0
    package var manifestBytes = 0
    package var manifestStoredBytes = 0
    package var bundles = 0
    /// Records that could not be read: what only they know is not counted.
    package var damagedRecords = 0

    /// Bytes of the snapshots for one byte of chunks; nil while there is nothing.
    package var deduplication: Double? {
        chunkBytes > 0 ? Double(snapshotBytes) / Double(chunkBytes) : nil
    }
    /// Bytes of chunks for one stored byte.
    package var compression: Double? {
        contentStoredBytes > 0 ? Double(chunkBytes) / Double(contentStoredBytes) : nil
    }

    private struct Sums: IndexCodec.Receiver {
        var seen: Set<BundleID> = []
        var kind = BundleKind.content
        var isNew = false
        var content = (chunks: 0, bytes: 0, stored: 0)
        var manifest = (chunks: 0, bytes: 0, stored: 0)

        mutating func bundle(_ bundle: IndexedBundle) {
            kind = bundle.kind
            isNew = seen.insert(bundle.id).inserted
            guard isNew else { return }
            if kind == .content {
                content.stored += bundle.size
            } else {
                manifest.stored += bundle.size
            }
        }
        mutating func frame(_ frame: IndexedFrame) {}
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
            guard isNew else { return }
            if kind == .content {
                content.chunks += 1
                content.bytes += Int(length)
            } else {
                manifest.chunks += 1
                manifest.bytes += Int(length)
            }
        }
        mutating func segment(_ id: ChunkID, bundles: [BundleID]) {}
    }

    /// Reads the records and lists all objects.
    ///
    /// - Parameter isWanted: Which snapshots are shown by themselves.
    package init(
        of repository: Repository, cancellation: Cancellation,
        isWanted: (Snapshot) -> Bool = { _ in true }
    ) throws(ReplicationError) {
        var catalog = try lifted { try SnapshotCatalog.load(repository) }
        damagedRecords = catalog.damaged.count
        var sums = Sums()
        for (name, _, _) in try lifted({ try repository.listRecords(.index) }) {
            try cancellation.check()
            do {
                let payload = try repository.readRecord(name)
                if payload.withUnsafeBytes({ IndexCodec.read($0, into: &sums) }) != nil {
                    damagedRecords += 1
                }
            } catch {
                damagedRecords += 1
            }
        }
        (chunks, chunkBytes, contentStoredBytes) = sums.content
        (manifestChunks, manifestBytes, manifestStoredBytes) = sums.manifest
        bundles = sums.seen.count
        let index = try lifted { try ChunkIndex.load(repository) }
        catalog.markIncomplete(index)
        try cancellation.check()
        measure(catalog.snapshots, index: index, isWanted: isWanted)
        var kinds: [String: Objects] = [:]
        for (name, length) in try lifted({ try repository.listAll() }) {
            let kind =
                name.split(separator: "/").count > 1
                ? String(name.prefix { $0 != "/" }) : "repository"
            kinds[kind, default: Objects(kind: kind)].count += 1
            kinds[kind]?.bytes += length
        }
        objects = kinds.values.sorted { $0.kind < $1.kind }
    }

    private mutating func measure(
        _ all: [Snapshot], index: ChunkIndex, isWanted: (Snapshot) -> Bool
    ) {
        var sizes: [BundleID: Int] = [:]
        for bundle in index.bundles { sizes[bundle.id] = bundle.size }
        // Which bundles only one snapshot needs; -1 where several do.
        var user: [BundleID: Int] = [:]
        for (number, snapshot) in all.enumerated() {
            var size = SnapshotSize(snapshot: snapshot)
            for id in index.need(of: snapshot).bundles {
                size.bundles += 1
                size.storedBytes += sizes[id] ?? 0
                user[id] = user[id] == nil ? number : -1
            }
            snapshots.append(size)
        }
        for (id, number) in user where number >= 0 { snapshots[number].ownBytes += sizes[id] ?? 0 }
        snapshotCount = all.count
        snapshotBytes = all.reduce(0) { $0 + $1.statistics.bytes }
        snapshots.removeAll { !isWanted($0.snapshot) }
    }
}
