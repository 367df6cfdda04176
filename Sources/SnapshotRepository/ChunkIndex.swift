import BundleFormat
import CSystem
package import SnapshotModel
import Synchronization

/// Where a chunk's bytes lie.
package struct ChunkLocation: Sendable {
    package var bundle: BundleID
    /// Stored bytes of the bundle.
    package var bundleSize: Int
    package var frame: IndexedFrame
    /// Which frame this is, unique within one index: chunks with equal numbers share a frame.
    package var frameNumber: UInt64
    /// In the opened frame.
    package var offset: Int
    package var length: Int
}

/// What a snapshot needs to be whole.
package struct SnapshotNeed: Sendable {
    package var bundles: Set<BundleID> = []
    /// Top nodes that no bundle holds, as far as the index knows, or that have no segment line.
    package var missing: [ChunkID] = []
}

/// The index of a repository as this host sees it: tables in its cache, one lookup for all.
///
/// Loading reads the index records that the cache does not have yet; a host without a cache reads
/// them all.
package final class ChunkIndex: Sendable {
    let tables: [IndexTable]
    /// For each table and bundle row: whether a new snapshot may rely on it.
    private let usable: [[Bool]]
    /// Index records that are listed.
    package let records: [RecordID]
    /// Records that could not be read: everything only they know is missing from this index.
    package let damaged: [RepositoryError]

    private init(
        tables: [IndexTable], usable: [[Bool]], records: [RecordID], damaged: [RepositoryError]
    ) {
        self.tables = tables
        self.usable = usable
        self.records = records
        self.damaged = damaged
    }

    package var chunkCount: Int { tables.reduce(0) { $0 + $1.counts.chunks } }
    package var bundleCount: Int { bundles.count }

    private static let mergeAbove = 8

    /// Loads the index. Where `condemned` is given, bundles it names are not offered for reuse;
    /// where `listed` is given, only bundles that the store lists at the indexed length are.
    ///
    /// - Parameters:
    ///   - listing: The look at the store to go by; a fresh one where there is none.
    ///   - asOneTable: For who goes through all of it: every chunk's places stand side by side then.
    package static func load(
        _ repository: Repository, in listing: RecordListing? = nil,
        condemned: CondemnedView = CondemnedView(), listed: [BundleID: Int]? = nil,
        asOneTable: Bool = false
    ) throws(RepositoryError) -> ChunkIndex {
        var listing = listing
        let limit = asOneTable ? 1 : mergeAbove
        for _ in 0..<looksMaximum {
            let index = try attempt(
                repository, in: listing, condemned: condemned, listed: listed, tables: limit)
            // A record that was listed and has gone was replaced by another one meanwhile.
            guard index.damaged.contains(where: \.isMissing) else { return index }
            listing = nil
        }
        return try attempt(
            repository, in: nil, condemned: condemned, listed: listed, tables: limit)
    }

    /// How often the records are listed again where some of them have vanished since.
    private static let looksMaximum = 4

    private static func attempt(
        _ repository: Repository, in listing: RecordListing?, condemned: CondemnedView,
        listed: [BundleID: Int]?, tables limit: Int
    ) throws(RepositoryError) -> ChunkIndex {
        let records = try repository.look(listing, at: .index).names(.index)
        let wanted = Set(records.map(\.id))
        let folder = folder(repository)
        try LocalFile.makeDirectory(folder)
        var tables: [IndexTable] = []
        var paths: [String] = []
        var covered: Set<RecordID> = []
        for file in LocalFile.names(in: folder) {
            let path = folder + "/" + file
            guard file.hasSuffix(".table") else {
                // Left by a process that died while writing; those of living ones carry their pid
                // and are young.
                if file.contains(".table.tmp-"), !isOfLivingProcess(file) { LocalFile.remove(path) }
                continue
            }
            guard let table = IndexTable(path: path) else {
                LocalFile.remove(path)
                continue
            }
            let sources = (0..<table.counts.sources).map { table.source($0) }
            // A table that covers a record which has gone may tell of bundles that went with it.
            guard sources.allSatisfy({ wanted.contains($0) }),
                !sources.contains(where: { covered.contains($0) })
            else {
                LocalFile.remove(path)
                continue
            }
            covered.formUnion(sources)
            tables.append(table)
            paths.append(path)
        }
        var damaged: [RepositoryError] = []
        for name in records where !covered.contains(name.id) {
            do throws(RepositoryError) {
                let payload = try repository.readRecord(name)
                tables.append(
                    try payload.withRawBytes { (bytes) throws(RepositoryError) in
                        try add(bytes, record: name, to: repository)
                    })
                paths.append(path(of: name, in: folder))
            } catch {
                if error.kind == .local { throw error }
                damaged.append(error)
            }
        }
        if tables.count > limit {
            let path = folder + "/merged-\(UInt64.random(in: 0 ... .max)).table"
            try IndexTable.merge(tables, to: path)
            if let merged = IndexTable(path: path, verifying: false) {
                for old in paths { LocalFile.remove(old) }
                tables = [merged]
            } else if limit == 1 {
                throw RepositoryError(
                    .local, path, "was written and cannot be read back",
                    remedy: "check the disk of the cache")
            }
        }
        let usable = tables.map { table in
            (0..<table.counts.bundles).map { row in
                let (bundle, frames) = table.bundle(row)
                if frames.isEmpty || condemned.bundles.contains(bundle.id) { return false }
                if let listed { return listed[bundle.id] == bundle.size }
                return true
            }
        }
        return ChunkIndex(
            tables: tables, usable: usable, records: records.map(\.id), damaged: damaged)
    }

    private static func isOfLivingProcess(_ file: String) -> Bool {
        guard let pid = file.split(separator: "-").last.flatMap({ Int($0) }) else { return false }
        return LocalFile.exists("/proc/\(pid)")
    }

    private static func folder(_ repository: Repository) -> String {
        repository.storeCachePath + "/index"
    }
    private static func path(of record: RecordName, in folder: String) -> String {
        folder + "/\(record.id).table"
    }

    /// Keeps what an index record says that this host has just put, so that it need not be fetched.
    package static func noteRecord(
        _ payload: UnsafeRawBufferPointer, record: RecordName, of repository: Repository
    ) throws(RepositoryError) {
        try LocalFile.makeDirectory(folder(repository))
        _ = try add(payload, record: record, to: repository)
    }

    /// Turns the payload of one index record into a table in the cache.
    static func add(
        _ payload: UnsafeRawBufferPointer, record: RecordName, to repository: Repository
    ) throws(RepositoryError) -> IndexTable {
        var builder = IndexTable.Builder()
        if let bad = IndexCodec.read(payload, into: &builder) {
            throw .damaged(repository.recordKey(record), "line \(bad) is not a line of an index")
        }
        let path = path(of: record, in: folder(repository))
        try builder.write(to: path, sources: [record.id])
        guard let table = IndexTable(path: path, verifying: false) else {
            throw RepositoryError(
                .local, path, "was written and cannot be read back",
                remedy: "check the disk of the cache")
        }
        return table
    }

    // MARK: Looking up

    /// Whether a new snapshot may rely on a chunk that is stored already.
    package func isUsable(_ id: ChunkID) -> Bool { usablePosition(id) != nil }

    private func usablePosition(_ id: ChunkID) -> (table: Int, position: ChunkPosition)? {
        for (tableIndex, table) in tables.enumerated() {
            guard var index = table.find(id) else { continue }
            while index < table.counts.chunks, table.chunkID(index) == id {
                let position = table.position(index)
                if usable[tableIndex][Int(position.bundle)] { return (tableIndex, position) }
                index += 1
            }
        }
        return nil
    }

    /// The bundle that a new snapshot may rely on for this chunk.
    package func usableBundle(_ id: ChunkID) -> BundleID? {
        usablePosition(id).map { tables[$0.table].bundleID(Int($0.position.bundle)) }
    }

    /// Every place where a chunk lies, those that are neither condemned nor missing first.
    package func locations(_ id: ChunkID) -> [ChunkLocation] {
        var good: [ChunkLocation] = []
        var others: [ChunkLocation] = []
        for (tableIndex, table) in tables.enumerated() {
            guard var index = table.find(id) else { continue }
            while index < table.counts.chunks, table.chunkID(index) == id {
                let position = table.position(index)
                let bundle = table.bundle(Int(position.bundle)).bundle
                let location = ChunkLocation(
                    bundle: bundle.id, bundleSize: bundle.size,
                    frame: table.frame(Int(position.frame)),
                    frameNumber: UInt64(tableIndex) << 32 | UInt64(position.frame),
                    offset: Int(position.offset),
                    length: Int(position.length))
                if usable[tableIndex][Int(position.bundle)] {
                    good.append(location)
                } else {
                    others.append(location)
                }
                index += 1
            }
        }
        return good + others
    }

    /// One place of a chunk: one that is neither condemned nor missing where there is any, in
    /// whichever table.
    package func location(_ id: ChunkID) -> ChunkLocation? {
        var fallback: ChunkLocation?
        for (tableIndex, table) in tables.enumerated() {
            guard var index = table.find(id) else { continue }
            while index < table.counts.chunks, table.chunkID(index) == id {
                let position = table.position(index)
                let isUsable = usable[tableIndex][Int(position.bundle)]
                if isUsable || fallback == nil {
                    let bundle = table.bundle(Int(position.bundle)).bundle
                    let location = ChunkLocation(
                        bundle: bundle.id, bundleSize: bundle.size,
                        frame: table.frame(Int(position.frame)),
                        frameNumber: UInt64(tableIndex) << 32 | UInt64(position.frame),
                        offset: Int(position.offset),
                        length: Int(position.length))
                    if isUsable { return location }
                    fallback = location
                }
                index += 1
            }
        }
        return fallback
    }

    /// Bundles of all lines for a segment or node; nil where it has none. Where several lines are
    /// there, the first whose bundles are all usable.
    package func bundles(ofSegment id: ChunkID) -> [BundleID]? {
        var fallback: [BundleID]?
        for (tableIndex, table) in tables.enumerated() {
            guard var index = table.findSegment(id) else { continue }
            while index < table.counts.segments, table.segmentID(index) == id {
                let rows = table.segment(index)
                let ids = rows.map { table.bundleID($0) }
                // A row without frames stands for a bundle of another table: ask there.
                if rows.allSatisfy({
                    usable[tableIndex][$0] || isUsableElsewhere(table.bundleID($0))
                }) {
                    return ids
                }
                if fallback == nil { fallback = ids }
                index += 1
            }
        }
        return fallback
    }

    private func isUsableElsewhere(_ id: BundleID) -> Bool {
        usableBundles.withLock { cache in
            if cache == nil {
                var ids: Set<BundleID> = []
                for (tableIndex, table) in tables.enumerated() {
                    for row in 0..<table.counts.bundles where usable[tableIndex][row] {
                        ids.insert(table.bundleID(row))
                    }
                }
                cache = ids
            }
            return cache?.contains(id) ?? false
        }
    }
    private let usableBundles = Mutex<Set<BundleID>?>(nil)

    /// Whether a bundle is indexed and a new snapshot may rely on it.
    package func isUsable(bundle id: BundleID) -> Bool { isUsableElsewhere(id) }

    /// What the index says a snapshot needs.
    package func need(of snapshot: Snapshot) -> SnapshotNeed {
        var need = SnapshotNeed()
        for id in snapshot.topIDs {
            guard let holder = location(id)?.bundle, let below = bundles(ofSegment: id) else {
                need.missing.append(id)
                continue
            }
            need.bundles.insert(holder)
            need.bundles.formUnion(below)
        }
        return need
    }

    /// All bundles that the index describes, with what it says of their size and kind.
    package var bundles: [IndexedBundle] {
        var seen: Set<BundleID> = []
        var list: [IndexedBundle] = []
        for table in tables {
            for row in 0..<table.counts.bundles {
                let (bundle, frames) = table.bundle(row)
                if !frames.isEmpty, seen.insert(bundle.id).inserted { list.append(bundle) }
            }
        }
        return list
    }

    /// The frames of one bundle with their chunks, in order; empty where it is not indexed.
    package func frames(of id: BundleID) -> [IndexedFrame] {
        for table in tables {
            for row in 0..<table.counts.bundles where table.bundleID(row) == id {
                let frames = table.bundle(row).frames
                if !frames.isEmpty { return frames.map { table.frame($0) } }
            }
        }
        return []
    }
}
