package import BundleFormat
package import SnapshotModel
import Synchronization

/// The index during one run: what was stored before it, and what it stores itself. Decides which of
/// two threads packs a chunk that both have met, and knows for each segment of the new manifest
/// which bundles it needs.
package final class RunIndex: Sendable {
    private struct State {
        /// Chunks of this run: the ordinal of the bundle they went to, or `pending`.
        var chunks: [ChunkID: UInt32] = [:]
        /// Ordinal → name, once the bundle is stored.
        var bundles: [BundleID?] = []
        /// Stored bytes of those that are stored.
        var sizes: [BundleID: Int] = [:]
        /// Segments whose line has not been written yet.
        var waiting: [Segment] = []
        /// Bundles of segments that this run has described, for the nodes above them.
        var described: [ChunkID: Set<Reference>] = [:]
        var sealed: [SealedBundle] = []
        /// What this run has written into the index already: no longer in `chunks`.
        var tables: [IndexTable] = []
    }

    private struct Segment {
        var id: ChunkID
        var known: Set<Reference>
        var unresolved: [ChunkID]
    }

    /// A bundle by name, or one of this run by its ordinal.
    private enum Reference: Hashable {
        case stored(BundleID)
        case made(UInt32)
    }

    private static let pending = UInt32.max
    private let stored: ChunkIndex
    private let state = Mutex(State())

    package init(_ stored: ChunkIndex) { self.stored = stored }

    package enum Claim { case known, claimed }

    /// `.claimed` once for each chunk that is stored nowhere yet: the caller must pack it.
    package func claim(_ id: ChunkID) -> Claim {
        if stored.isUsable(id) { return .known }
        return state.withLock { state in
            if state.chunks[id] != nil || Self.isIndexed(id, state) { return .known }
            state.chunks[id] = Self.pending
            return .claimed
        }
    }

    package func contains(_ id: ChunkID) -> Bool {
        stored.isUsable(id) || state.withLock { $0.chunks[id] != nil || Self.isIndexed(id, $0) }
    }

    private static func isIndexed(_ id: ChunkID, _ state: borrowing State) -> Bool {
        for table in state.tables where table.find(id) != nil { return true }
        return false
    }

    /// Opens the next bundle of this run; chunks placed from now on may name it.
    package func openBundle() -> UInt32 {
        state.withLock { state in
            state.bundles.append(nil)
            return UInt32(state.bundles.count - 1)
        }
    }

    /// A frame has been put into a bundle of this run.
    package func place(_ chunks: [ChunkPlace], in bundle: UInt32) {
        state.withLock { state in
            for chunk in chunks { state.chunks[chunk.id] = bundle }
        }
    }

    /// A bundle of this run is durable.
    package func stored(_ bundle: SealedBundle, as ordinal: UInt32) {
        state.withLock { state in
            state.bundles[Int(ordinal)] = bundle.id
            state.sizes[bundle.id] = bundle.size
            state.sealed.append(bundle)
        }
    }

    /// Chunks that an earlier, interrupted run of this host has stored, known from its journal.
    package func adopt(_ bundle: SealedBundle) {
        state.withLock { state in
            state.bundles.append(bundle.id)
            state.sizes[bundle.id] = bundle.size
            let ordinal = UInt32(state.bundles.count - 1)
            for frame in bundle.frames {
                for chunk in frame.chunks where state.chunks[chunk.id] == nil {
                    state.chunks[chunk.id] = ordinal
                }
            }
            state.sealed.append(bundle)
        }
    }

    // MARK: Segments

    private func reference(_ id: ChunkID, _ state: borrowing State) -> Reference? {
        if let ordinal = state.chunks[id] { return ordinal == Self.pending ? nil : .made(ordinal) }
        for table in state.tables {
            if let found = table.find(id) {
                return .stored(table.bundleID(Int(table.position(found).bundle)))
            }
        }
        return stored.usableBundle(id).map { .stored($0) }
    }

    /// Describes a segment or node that this run has written: everything below it lies in `chunks`,
    /// in `nodes`, and in what is below those. Nodes are described before whatever names them.
    package func describe(_ id: ChunkID, chunks: [ChunkID], nodes: [ChunkID]) {
        state.withLock { state in
            var known: Set<Reference> = []
            var unresolved: [ChunkID] = []
            // Neighbours mostly lie in the same bundle: the set is asked only where it changes.
            var last: Reference?
            for chunk in chunks {
                if let reference = reference(chunk, state) {
                    if reference != last { known.insert(reference) }
                    last = reference
                } else {
                    unresolved.append(chunk)
                }
            }
            for node in nodes {
                if let reference = reference(node, state) {
                    known.insert(reference)
                } else {
                    unresolved.append(node)
                }
                if let below = state.described[node] {
                    known.formUnion(below)
                } else if let waiting = state.waiting.first(where: { $0.id == node }) {
                    known.formUnion(waiting.known)
                    unresolved += waiting.unresolved
                } else {
                    for bundle in stored.bundles(ofSegment: node) ?? [] {
                        known.insert(.stored(bundle))
                    }
                }
            }
            add(Segment(id: id, known: known, unresolved: unresolved), to: &state)
        }
    }

    private func add(_ segment: Segment, to state: inout State) {
        if state.described[segment.id] != nil { return }
        if segment.unresolved.isEmpty {
            state.described[segment.id] = segment.known
        }
        state.waiting.append(segment)
    }

    /// Whether the bundles below a segment that an earlier run wrote are all still to be relied on.
    package func isWhole(segment id: ChunkID) -> Bool {
        if state.withLock({ $0.described[id] != nil }) { return true }
        guard let bundles = stored.bundles(ofSegment: id) else { return false }
        return bundles.allSatisfy { stored.isUsable(bundle: $0) }
    }

    /// Whether everything that an earlier manifest needs is stored and condemned by nobody.
    package func canRely(on top: [ChunkID]) -> Bool {
        top.allSatisfy { stored.isUsable($0) && isWhole(segment: $0) }
    }

    // MARK: Flushing

    /// Takes what an index record can say now: bundles that are durable and segments all of whose
    /// bundles are. Nil where there is nothing to say.
    package func takeLines() -> (lines: ByteBuffer, bundles: Set<BundleID>)? {
        state.withLock { state in
            var rest: [Segment] = []
            var lines: [(ChunkID, [BundleID])] = []
            for var segment in state.waiting {
                if !segment.unresolved.isEmpty {
                    segment.unresolved.removeAll { id in
                        guard let reference = reference(id, state) else { return false }
                        segment.known.insert(reference)
                        return true
                    }
                    if segment.unresolved.isEmpty { state.described[segment.id] = segment.known }
                }
                var ids: [BundleID] = []
                var isReady = segment.unresolved.isEmpty
                for reference in segment.known {
                    switch reference {
                    case .stored(let id): ids.append(id)
                    case .made(let ordinal):
                        if let id = state.bundles[Int(ordinal)] {
                            ids.append(id)
                        } else {
                            isReady = false
                        }
                    }
                }
                if isReady {
                    lines.append((segment.id, ids.sorted()))
                } else {
                    rest.append(segment)
                }
            }
            state.waiting = rest
            guard !state.sealed.isEmpty || !lines.isEmpty else { return nil }
            let out = ByteBuffer(capacity: 1 << 20)
            for bundle in state.sealed { IndexCodec.write(bundle, to: out) }
            for (id, bundles) in lines { IndexCodec.write(segment: id, bundles: bundles, to: out) }
            let ids = Set(state.sealed.map(\.id))
            state.sealed.removeAll()
            return (out, ids)
        }
    }

    /// The bundles that the manifest described by these top ids needs, all of them durable.
    /// Nil where one of them is not described: a bug, or an index that has lost a line.
    package func need(of top: [ChunkID]) -> Set<BundleID>? {
        state.withLock { state in
            var need: Set<BundleID> = []
            func add(_ reference: Reference) -> Bool {
                switch reference {
                case .stored(let id): need.insert(id)
                case .made(let ordinal):
                    guard let id = state.bundles[Int(ordinal)] else { return false }
                    need.insert(id)
                }
                return true
            }
            for id in top {
                guard let holder = reference(id, state), add(holder) else { return nil }
                if let below = state.described[id] {
                    for reference in below where !add(reference) { return nil }
                } else if let below = stored.bundles(ofSegment: id) {
                    need.formUnion(below)
                } else {
                    return nil
                }
            }
            return need
        }
    }

    /// What was taken stands in the index now: looked up in a table of this host's cache from here
    /// on, so that the memory of a run does not grow with what it stores.
    package func indexed(
        _ lines: ByteBuffer, bundles: Set<BundleID>, as record: RecordName,
        in repository: Repository
    ) throws(RepositoryError) {
        let table = try ChunkIndex.add(lines.bytes, record: record, to: repository)
        state.withLock { state in
            state.tables.append(table)
            var flushed: Set<UInt32> = []
            for (ordinal, id) in state.bundles.enumerated() {
                if let id, bundles.contains(id) { flushed.insert(UInt32(ordinal)) }
            }
            state.chunks = state.chunks.filter { !flushed.contains($0.value) }
        }
    }

    /// Bytes of index lines that are waiting, roughly: decides when to flush.
    package var pendingChunks: Int {
        state.withLock { $0.sealed.reduce(0) { $0 + $1.frames.reduce(0) { $0 + $1.chunks.count } } }
    }

    /// Bundles of earlier runs that what was described so far relies on.
    package var usedBundles: [BundleID] {
        state.withLock { state in
            var used: Set<BundleID> = []
            for references in state.described.values {
                for case .stored(let id) in references { used.insert(id) }
            }
            return used.sorted()
        }
    }

    /// Stored bytes of these bundles, as the index tells or as this run has stored them.
    package func sizes(of bundles: Set<BundleID>) -> [BundleID: Int] {
        var sizes = state.withLock { $0.sizes }
        for bundle in stored.bundles where bundles.contains(bundle.id) {
            sizes[bundle.id] = bundle.size
        }
        return sizes
    }

    /// Bundles that this run has stored so far.
    package var madeBundles: [BundleID] { state.withLock { $0.bundles.compactMap { $0 } } }
}
