import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Reads manifests and writes a line for each segment and node of which everything below is there.
///
/// What is not whole gets no line: a line that keeps silent about something would let prune delete
/// what is needed, and without one the next backup looks at the segment anew. One thread.
final class RepairIndexSegments {
    /// What lies below a piece of a manifest, as numbers of bundles, ascending; nil where it is not
    /// whole.
    private typealias Need = [UInt32]?

    private let repository: Repository
    private let chunks: RepairIndexChunks
    private let writer: RepairIndexWriter
    private let monitor: any Monitor
    private let cancellation: Cancellation
    private let fetcher: FrameFetcher
    private var known: [ChunkID: Need] = [:]
    private(set) var lineCount = 0
    private(set) var harmedPaths: [[UInt8]] = []
    private(set) var harmedPathCount = 0

    init(
        _ repository: Repository, chunks: RepairIndexChunks, writer: RepairIndexWriter,
        monitor: any Monitor,
        cancellation: Cancellation
    ) throws(ReplicationError) {
        self.repository = repository
        self.chunks = chunks
        self.writer = writer
        self.monitor = monitor
        self.cancellation = cancellation
        // What is fetched proves itself by its digest, whichever record, old or new, said where it
        // lies.
        fetcher = try lifted {
            let index = try ChunkIndex.load(repository)
            return try FrameFetcher(
                repository, index: index, accesses: BundleAccessCache(repository), keeping: 3)
        }
    }

    /// Writes the lines of one snapshot. False where it is not whole.
    func add(_ snapshot: Snapshot) throws(ReplicationError) -> Bool {
        var isWhole = true
        for id in snapshot.problemIDs {
            // Problems refer to nothing, and are read here to see that they are there.
            if known[id] == nil { try note(id, need: try fetch(id) == nil ? nil : []) }
            if known[id]! == nil { isWhole = false }
        }
        for id in snapshot.manifestIDs {
            if try node(id, level: snapshot.manifestDepth) == nil { isWhole = false }
        }
        return isWhole
    }

    /// The bytes of a piece; nil where they are not there or not sound.
    ///
    /// - Throws: where the store fails: what could not be looked at must not lose its line.
    private func fetch(_ id: ChunkID) throws(ReplicationError) -> UnsafeRawBufferPointer? {
        guard chunks.bundle(id) != nil else { return nil }
        do {
            return try fetcher.chunk(id)
        } catch {
            if error.kind == .storage { throw ReplicationError(error) }
            return nil
        }
    }

    private func note(_ id: ChunkID, need: Need) throws(ReplicationError) {
        known[id] = need
        guard let need, chunks.bundle(id) != nil else { return }
        lineCount += 1
        let bundles = need.map { chunks.name($0) }.sorted()
        try writer.add { IndexCodec.write(segment: id, bundles: bundles, to: $0) }
    }

    /// Adds what a piece needs and the bundle that holds it; false where something is missing.
    private func include(_ id: ChunkID, _ below: Need, in need: inout Set<UInt32>) -> Bool {
        guard let below, let holder = chunks.bundle(id) else { return false }
        need.formUnion(below)
        need.insert(holder)
        return true
    }

    private func node(_ id: ChunkID, level: Int) throws(ReplicationError) -> Need {
        if let need = known[id] { return need }
        try cancellation.check()
        guard let bytes = try fetch(id), let children = ManifestChild.read(bytes) else {
            try note(id, need: nil)
            return nil
        }
        var need: Set<UInt32> = []
        var isWhole = chunks.bundle(id) != nil
        for child in children {
            let below = level > 1 ? try node(child.id, level: level - 1) : try segment(child)
            if !include(child.id, below, in: &need) { isWhole = false }
        }
        let outcome: Need = isWhole ? need.sorted() : nil
        try note(id, need: outcome)
        return outcome
    }

    private func segment(_ child: ManifestChild) throws(ReplicationError) -> Need {
        if let need = known[child.id] { return need }
        try cancellation.check()
        guard let fetched = try fetch(child.id) else {
            harm(child.first)
            try note(child.id, need: nil)
            return nil
        }
        let bytes = Array(fetched)
        var need: Set<UInt32> = []
        var isWhole = chunks.bundle(child.id) != nil
        var failure: ReplicationError?
        let isRead = bytes.withUnsafeBytes { bytes in
            JSONLines.forEach(bytes) { line in
                do throws(ReplicationError) {
                    guard let entry = EntryCodec.read(line) else { return false }
                    monitor.counts.entries.add(1, ordering: .relaxed)
                    if try !add(entry, to: &need) {
                        isWhole = false
                        harm(entry.path)
                    }
                    return true
                } catch {
                    failure = error
                    return false
                }
            }
        }
        if let failure { throw failure }
        let outcome: Need = isRead && isWhole ? need.sorted() : nil
        try note(child.id, need: outcome)
        return outcome
    }

    private func harm(_ path: [UInt8]) {
        harmedPathCount += 1
        if harmedPaths.count < VerifyFinding.pathsKept { harmedPaths.append(path) }
        monitor.counts.problems.add(1, ordering: .relaxed)
        monitor.problem(
            path, kind: "damaged", message: "is not whole: a part of its content could not be read")
    }

    /// Adds the bundles of everything that an entry names; false where something is missing.
    private func add(_ entry: Entry, to need: inout Set<UInt32>) throws(ReplicationError) -> Bool {
        var isWhole = true
        var last: UInt32?
        func add(_ ids: [ChunkID]) {
            for id in ids {
                guard let bundle = chunks.bundle(id) else {
                    isWhole = false
                    continue
                }
                if bundle != last { need.insert(bundle) }
                last = bundle
            }
        }
        add(entry.holesList)
        if entry.listDepth == 0 {
            add(entry.chunks)
            return isWhole
        }
        for id in entry.chunks where !include(id, try list(id, level: entry.listDepth), in: &need) {
            isWhole = false
        }
        return isWhole
    }

    /// A node of a long list of chunks: it has a line of its own, which later runs build on.
    private func list(_ id: ChunkID, level: Int) throws(ReplicationError) -> Need {
        if let need = known[id] { return need }
        guard let bytes = try fetch(id), let children = ListNode.read(bytes) else {
            try note(id, need: nil)
            return nil
        }
        var need: Set<UInt32> = []
        var isWhole = true
        for child in children {
            if level > 1 {
                if !include(child, try list(child, level: level - 1), in: &need) { isWhole = false }
            } else if let bundle = chunks.bundle(child) {
                need.insert(bundle)
            } else {
                isWhole = false
            }
        }
        let outcome: Need = isWhole ? need.sorted() : nil
        try note(id, need: outcome)
        return outcome
    }

    // MARK: Lines of others

    /// Segment lines of old records about what no snapshot names: those of runs that are still
    /// going on.
    private struct OtherLines: IndexCodec.Receiver {
        let known: (ChunkID) -> Bool
        let isThere: (BundleID) -> Bool
        let out = ByteBuffer(capacity: 64 << 10)
        var count = 0

        mutating func bundle(_ bundle: IndexedBundle) {}
        mutating func frame(_ frame: IndexedFrame) {}
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {}
        mutating func segment(_ id: ChunkID, bundles: [BundleID]) {
            guard !known(id), bundles.allSatisfy(isThere) else { return }
            IndexCodec.write(segment: id, bundles: bundles, to: out)
            count += 1
        }
    }

    func carryOver(_ old: [RecordName], listed: [BundleID: Int]) throws(ReplicationError) {
        for name in old {
            try cancellation.check()
            let payload: [UInt8]
            do {
                payload = try repository.readRecord(name)
            } catch {
                if error.kind == .storage || error.kind == .newerFormat {
                    throw ReplicationError(error)
                }
                continue
            }
            var lines = OtherLines(known: { self.known[$0] != nil }, isThere: { listed[$0] != nil })
            _ = payload.withUnsafeBytes { IndexCodec.read($0, into: &lines) }
            lineCount += lines.count
            let out = lines.out
            if out.count > 0 { try writer.add { $0.append(out.bytes) } }
        }
    }
}
