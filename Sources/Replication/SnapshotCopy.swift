import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// What one look at a store has shown, as far as copying to it needs to know.
struct StoreLook: Sendable {
    var condemned: CondemnedView
    /// Bundles that are there, by stored size.
    var listed: [BundleID: Int]
    var index: ChunkIndex
    /// When the look began, on the clock that runs through suspend.
    let lookedAt: Int64

    init(_ repository: Repository) throws(RepositoryError) {
        lookedAt = HostClock.monotonic
        let listing = try repository.listAllRecords()
        var damaged: [RepositoryError] = []
        condemned = try CondemnedView.load(repository, in: listing, damaged: &damaged)
        if let first = damaged.first { throw first }
        listed = try repository.listBundles()
        index = try ChunkIndex.load(repository, in: listing, condemned: condemned, listed: listed)
    }

    /// Bundles that a new snapshot may rely on here.
    func holds(_ id: BundleID, size: Int?) -> Bool {
        guard let there = listed[id], !condemned.bundles.contains(id) else { return false }
        return size == nil || size == there
    }
}

/// Makes a snapshot of one store of a repository complete on another: bundles by name, what the
/// index says of them, and the snapshot's own record last, byte for byte. No content is opened, so
/// the host key is enough.
struct SnapshotCopy {
    let source: Repository
    let sourceIndex: ChunkIndex
    let target: Repository
    let monitor: any Monitor
    let cancellation: Cancellation

    private static let bundlesAtOnce = 4

    /// What was copied beside the snapshot's record.
    struct Copied: Sendable {
        var bundles = 0
        var bytes = 0
    }

    /// - Parameter look: What the target holds; brought up to date.
    /// - Throws: Where prune has condemned on the target what the snapshot needs: a snapshot must
    ///   never rely on it again, and the next backup stores it anew.
    func bring(_ snapshot: Snapshot, _ look: inout StoreLook) throws(ReplicationError) -> Copied {
        guard let name = snapshot.name else { preconditionFailure("only what is stored is copied") }
        let need = sourceIndex.need(of: snapshot)
        guard need.missing.isEmpty else {
            throw ReplicationError(
                .other, source.recordKey(name),
                "is not whole in \(source.location), so that it cannot be copied from there",
                remedy: "run 'batchsync verify' there")
        }
        if let condemned = need.bundles.first(where: { look.condemned.bundles.contains($0) }) {
            throw ReplicationError(
                .other, target.bundleKey(condemned),
                "is condemned in \(target.location), so that snapshot \(snapshot.id.short) cannot be completed there",
                remedy: "the next backup stores what it needs anew")
        }
        let copied = try copyBundles(need.bundles, &look)
        try copyLines(snapshot, need.bundles, &look)
        try cancellation.check()
        // Without a grace period every look is too old, and the fence alone is what holds.
        guard
            target.config.graceSeconds == 0
                || CommitRule.isYoung(lookedAt: look.lookedAt, target.config)
        else {
            // What was seen is too old to rely on: look again, and copy what has gone meanwhile.
            look = try lifted { try StoreLook(target) }
            return try bring(snapshot, &look)
        }
        let (from, to) = (source, target)
        let deadline = CommitRule.deadline(lookedAt: look.lookedAt, target.config)
        try lifted { try to.takeRecord(name, from: from, by: deadline) }
        return copied
    }

    private func copyBundles(
        _ need: Set<BundleID>, _ look: inout StoreLook
    ) throws(ReplicationError) -> Copied {
        var sizes: [BundleID: Int] = [:]
        for bundle in sourceIndex.bundles where need.contains(bundle.id) {
            sizes[bundle.id] = bundle.size
        }
        let missing = need.filter { !look.holds($0, size: sizes[$0]) }.sorted()
        guard !missing.isEmpty else { return Copied() }
        monitor.phase(
            "copying \(missing.count == 1 ? "1 bundle" : "\(missing.count) bundles") to \(target.location)"
        )
        let state = Mutex<(copied: Copied, failure: ReplicationError?)>((Copied(), nil))
        let (source, target, monitor) = (source, target, monitor)
        let known = sizes
        VerifyCrew.run(
            threads: Self.bundlesAtOnce, jobs: missing.count, cancellation: cancellation
        ) { next in
            while let job = next(), state.withLock({ $0.failure == nil }) {
                let size = known[missing[job]] ?? 0
                do throws(ReplicationError) {
                    try lifted { try target.takeBundle(missing[job], size: size, from: source) }
                    monitor.counts.storedBytes.wrappingAdd(size, ordering: .relaxed)
                    state.withLock {
                        $0.copied.bundles += 1
                        $0.copied.bytes += size
                    }
                } catch {
                    state.withLock { if $0.failure == nil { $0.failure = error } }
                }
            }
        }
        try cancellation.check()
        let (copied, failure) = state.withLock { $0 }
        if let failure { throw failure }
        for id in missing { look.listed[id] = known[id] }
        return copied
    }

    // MARK: Index

    /// Lines of the source's index that the target's lacks.
    private struct Wanted: IndexCodec.Receiver {
        let bundles: Set<BundleID>
        let segments: (ChunkID, [BundleID]) -> Bool
        let lines = ByteBuffer(capacity: 1 << 20)
        private var current: SealedBundle?
        private var frames: [FrameRecord] = []
        private var written: Set<BundleID> = []

        init(_ bundles: Set<BundleID>, segments: @escaping (ChunkID, [BundleID]) -> Bool) {
            self.bundles = bundles
            self.segments = segments
        }

        mutating func bundle(_ bundle: IndexedBundle) {
            close()
            guard bundles.contains(bundle.id), !written.contains(bundle.id) else { return }
            current = SealedBundle(
                id: bundle.id, kind: bundle.kind, size: bundle.size, plain: bundle.plain,
                md5: bundle.md5, frames: [])
        }
        mutating func frame(_ frame: IndexedFrame) {
            guard current != nil else { return }
            frames.append(
                FrameRecord(
                    offset: frame.offset, length: frame.length, raw: frame.raw,
                    fingerprint: frame.fingerprint, chunks: []))
        }
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
            guard current != nil, !frames.isEmpty else { return }
            frames[frames.count - 1].chunks.append(
                ChunkPlace(id: id, offset: offset, length: length))
        }
        mutating func segment(_ id: ChunkID, bundles: [BundleID]) {
            close()
            if segments(id, bundles) {
                IndexCodec.write(segment: id, bundles: bundles, to: lines)
            }
        }

        /// To be called at the end of each record.
        mutating func close() {
            guard let bundle = current else { return }
            current = nil
            written.insert(bundle.id)
            IndexCodec.write(
                SealedBundle(
                    id: bundle.id, kind: bundle.kind, size: bundle.size, plain: bundle.plain,
                    md5: bundle.md5, frames: frames), to: lines)
            frames = []
        }
    }

    private static let linesBytes = 64 << 20

    /// Brings the target's index so far that it tells where all of the snapshot lies.
    private func copyLines(
        _ snapshot: Snapshot, _ need: Set<BundleID>, _ look: inout StoreLook
    ) throws(ReplicationError) {
        var known: Set<BundleID> = []
        for bundle in look.index.bundles { known.insert(bundle.id) }
        let isTold =
            need.isSubset(of: known)
            && snapshot.topIDs.allSatisfy { id in
                guard let below = look.index.bundles(ofSegment: id) else { return false }
                return below.allSatisfy { look.listed[$0] != nil }
            }
        guard !isTold else { return }
        let index = look.index
        let listed = look.listed
        var wanted = Wanted(need.subtracting(known)) { id, bundles in
            guard bundles.allSatisfy({ need.contains($0) && listed[$0] != nil }) else {
                return false
            }
            guard let there = index.bundles(ofSegment: id) else { return true }
            return !there.allSatisfy { listed[$0] != nil }
        }
        let (source, target) = (source, target)
        func put() throws(ReplicationError) {
            guard wanted.lines.count > 0 else { return }
            let bytes = wanted.lines.bytes
            try lifted { _ = try target.putRecord(.index, time: nil, payload: bytes) }
            wanted.lines.removeAll()
        }
        for record in try lifted({ try source.listRecords(.index) }) {
            try cancellation.check()
            let payload = try lifted { try source.readRecord(record.name) }
            let bad = payload.withUnsafeBytes { IndexCodec.read($0, into: &wanted) }
            guard bad == nil else {
                throw ReplicationError(
                    .other, source.recordKey(record.name), "is not a whole index record",
                    remedy: "run 'batchsync repair index' on \(source.location)")
            }
            wanted.close()
            if wanted.lines.count >= Self.linesBytes { try put() }
        }
        try put()
        let condemned = look.condemned
        look.index = try lifted {
            try ChunkIndex.load(target, condemned: condemned, listed: listed)
        }
        guard look.index.need(of: snapshot).missing.isEmpty else {
            throw ReplicationError(
                .other, target.location,
                "the index there does not tell where all of snapshot \(snapshot.id.short) lies",
                remedy: "run 'batchsync repair index' there")
        }
    }
}
