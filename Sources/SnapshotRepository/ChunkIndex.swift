import BundleFormat
import CSystem
import Glibc
package import SnapshotModel
import Synchronization

private func letPass(seconds: Double) {
    var time = timespec(
        tv_sec: Int(seconds), tv_nsec: Int(seconds.truncatingRemainder(dividingBy: 1) * 1e9))
    // A signal may end it early: then the store is asked a moment earlier.
    nanosleep(&time, nil)
}

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
    /// A record that is listed and is not there was either replaced by another one since, which the
    /// next listing shows, or is just being stored by a host whose server lists names early: it is
    /// waited for, not for long.
    ///
    /// - Parameters:
    ///   - listing: The look at the store to go by; a fresh one where there is none.
    ///   - asOneTable: For who goes through all of it: every chunk's places stand side by side then.
    ///   - pause: Lets so many seconds pass.
    package static func load(
        _ repository: Repository, in listing: RecordListing? = nil,
        condemned: CondemnedView = CondemnedView(), listed: [BundleID: Int]? = nil,
        asOneTable: Bool = false, pause: (Double) -> Void = { letPass(seconds: $0) }
    ) throws(RepositoryError) -> ChunkIndex {
        let limit = asOneTable ? 1 : mergeAbove
        var (index, missing) = try attempt(
            repository, in: listing, condemned: condemned, listed: listed, tables: limit)
        var pauses = (repository.isLocalStore ? [] : pausesInSeconds)[...]
        // Others may go on merging; each time it is different records that have gone.
        for _ in 0..<looksMaximum where !missing.isEmpty {
            let before = missing
            (index, missing) = try attempt(
                repository, in: nil, condemned: condemned, listed: listed, tables: limit)
            while !before.isDisjoint(with: missing), let seconds = pauses.popFirst() {
                pause(seconds)
                (index, missing) = try attempt(
                    repository, in: nil, condemned: condemned, listed: listed, tables: limit)
            }
            if !before.isDisjoint(with: missing) { break }
        }
        return index
    }

    /// How often the records are listed again where some of them have vanished since.
    private static let looksMaximum = 4

    /// How long a record is waited for that is listed and cannot be read yet, together: longer than it
    /// takes to store one, shorter than a person would wait for an answer.
    private static let pausesInSeconds = [0.25, 0.5, 1, 2, 4, 8]

    /// What can be loaded now, and the records that are listed and not there.
    private static func attempt(
        _ repository: Repository, in listing: RecordListing?, condemned: CondemnedView,
        listed: [BundleID: Int]?, tables limit: Int
    ) throws(RepositoryError) -> (index: ChunkIndex, missing: Set<RecordID>) {
        let items = try repository.look(listing, at: .index)[.index]
        let records = items.map(\.name)
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
        var missing: Set<RecordID> = []
        let unread = items.filter { !covered.contains($0.name.id) }
        var fetched = 0
        for (position, (name, _, _)) in unread.enumerated() {
            if position == fetched { fetched += repository.fetchAhead(unread[position...]) }
            do throws(RepositoryError) {
                let payload = try repository.readRecord(name)
                tables.append(
                    try payload.withRawBytes { (bytes) throws(RepositoryError) in
                        try add(bytes, record: name, to: repository)
                    })
                paths.append(path(of: name, in: folder))
            } catch {
                if error.kind == .local { throw error }
                guard error.isMissing else {
                    damaged.append(error)
                    continue
                }
                missing.insert(name.id)
                damaged.append(
                    RepositoryError(
                        .storage, repository.recordKey(name),
                        "is listed by the store and cannot be read",
                        remedy:
                            "if another host is storing it now, try again when that is done; else run 'batchsync repair index' with the owner's identity",
                        isTransient: error.isTransient, isMissing: true))
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
        let index = ChunkIndex(
            tables: tables, usable: usable, records: records.map(\.id), damaged: damaged)
        return (index, missing)
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
