import SnapshotModel
import SnapshotRepository
import Synchronization

/// Reads the manifests of the snapshots that count, each piece once, and marks every chunk that
/// they name. Needs an owner's identity.
final class PruneManifests {
    /// What cannot be read, so that nothing can be said of what is live.
    struct Obstacle: Error {
        let error: RepositoryError
        let snapshot: SnapshotID?
    }

    private let repository: Repository
    private let needs: IndexedNeeds
    private let cancellation: Cancellation
    private let monitor: any Monitor
    private let accesses: BundleAccessCache
    private let fetcher: FrameFetcher
    private var live: LiveChunks
    // A piece of a manifest may be the content of a file as well: that it is live does not say that
    // it has been read.
    private var readNodes: LiveChunks
    private var readSegments: LiveChunks
    private var segments: [Piece] = []

    /// A segment and where it lies, so that each frame is opened once.
    private struct Piece {
        let id: ChunkID
        let frame: UInt64
        let offset: Int
    }

    init(
        _ repository: Repository, needs: IndexedNeeds, monitor: any Monitor,
        cancellation: Cancellation
    ) throws(ReplicationError) {
        self.repository = repository
        self.needs = needs
        self.monitor = monitor
        self.cancellation = cancellation
        let accesses = BundleAccessCache(repository)
        self.accesses = accesses
        fetcher = try lifted {
            try FrameFetcher(repository, index: needs.index, accesses: accesses, keeping: 3)
        }
        live = LiveChunks(needs)
        readNodes = live
        readSegments = live
    }

    /// - Returns: What is live, or what stands in the way of knowing it.
    /// - Throws: Where the store fails, and where the work is cut short.
    func run(
        _ snapshots: [Snapshot]
    ) throws(ReplicationError) -> Result<LiveChunks, Obstacle> {
        for snapshot in snapshots {
            do throws(RepositoryError) {
                try readNodes(of: snapshot)
            } catch {
                guard Self.isObstacle(error) else { throw ReplicationError(error) }
                return .failure(Obstacle(error: error, snapshot: snapshot.id))
            }
            try cancellation.check()
        }
        if let error = try readAllSegments() {
            return .failure(Obstacle(error: error, snapshot: nil))
        }
        return .success(live)
    }

    /// A store that does not answer may do so next time; what is missing or damaged stays so.
    private static func isObstacle(_ error: RepositoryError) -> Bool {
        error.kind != .storage || error.isMissing
    }

    private static func unknown(_ id: ChunkID) -> RepositoryError {
        .damaged("chunk \(id)", "is in no bundle that the index knows")
    }

    private func readNodes(of snapshot: Snapshot) throws(RepositoryError) {
        for id in snapshot.problemIDs where live.insert(id) == .unknown { throw Self.unknown(id) }
        var level = snapshot.manifestIDs
        var depth = snapshot.manifestDepth
        while true {
            for id in level where live.insert(id) == .unknown { throw Self.unknown(id) }
            if depth == 0 { break }
            var next: [ChunkID] = []
            for id in level where readNodes.insert(id) == .new {
                guard let children = ManifestChild.read(try fetcher.chunk(id)) else {
                    throw .damaged("manifest node \(id)", "is not a node of format 1")
                }
                next += children.map(\.id)
            }
            level = next
            depth -= 1
        }
        for id in level where readSegments.insert(id) == .new {
            guard let location = needs.index.location(id) else { throw Self.unknown(id) }
            segments.append(
                Piece(id: id, frame: location.frameNumber, offset: location.offset))
        }
    }

    // MARK: Segments

    private struct Outcome {
        var live: LiveChunks
        var obstacle: RepositoryError?
        var failure: ReplicationError?
    }

    /// Reads them frame by frame on two threads.
    private func readAllSegments() throws(ReplicationError) -> RepositoryError? {
        segments.sort { ($0.frame, $0.offset) < ($1.frame, $1.offset) }
        var jobs: [Range<Int>] = []
        for position in segments.indices {
            if let last = jobs.last, segments[last.lowerBound].frame == segments[position].frame {
                jobs[jobs.count - 1] = last.lowerBound..<(position + 1)
            } else {
                jobs.append(position..<(position + 1))
            }
        }
        let (repository, needs, accesses, monitor) = (repository, needs, accesses, monitor)
        let (pieces, work) = (segments, jobs)
        let outcome = Mutex(Outcome(live: live))
        VerifyCrew.run(jobs: work.count, cancellation: cancellation) { next in
            var marks = LiveChunks(needs)
            do throws(RepositoryError) {
                let reader = try PruneSegmentReader(repository, needs, accesses)
                while let job = next(),
                    outcome.withLock({ $0.obstacle == nil && $0.failure == nil }
                    )
                {
                    for piece in pieces[work[job]] {
                        let entries = try reader.read(piece.id, into: &marks)
                        monitor.counts.entries.add(entries, ordering: .relaxed)
                    }
                }
            } catch {
                let isObstacle = Self.isObstacle(error)
                outcome.withLock {
                    if isObstacle {
                        $0.obstacle = $0.obstacle ?? error
                    } else {
                        $0.failure = $0.failure ?? ReplicationError(error)
                    }
                }
            }
            let marked = marks
            outcome.withLock { $0.live.formUnion(marked) }
        }
        let (marked, obstacle, failure) = outcome.withLock { ($0.live, $0.obstacle, $0.failure) }
        if let failure { throw failure }
        try cancellation.check()
        live = marked
        return obstacle
    }
}

/// Marks what the entries of segments name. One thread; make one for each.
private final class PruneSegmentReader {
    private let fetcher: FrameFetcher
    private var readLists: LiveChunks
    private var entry = Entry(path: [], kind: .file)

    init(
        _ repository: Repository, _ needs: IndexedNeeds, _ accesses: BundleAccessCache
    ) throws(RepositoryError) {
        fetcher = try FrameFetcher(repository, index: needs.index, accesses: accesses, keeping: 3)
        readLists = LiveChunks(needs)
    }

    /// - Returns: How many entries there were.
    func read(_ id: ChunkID, into live: inout LiveChunks) throws(RepositoryError) -> Int {
        let bytes = try fetcher.chunk(id)
        var count = 0
        var missing: ChunkID?
        // Fetching uses the memory of `bytes` again, so long lists come behind the entries.
        var lists: [(ids: [ChunkID], depth: Int)] = []
        let isWhole = JSONLines.forEach(bytes) { line in
            guard EntryCodec.read(line, into: &entry) else { return false }
            count += 1
            for id in entry.holesList where live.insert(id) == .unknown { missing = id }
            for id in entry.chunks where live.insert(id) == .unknown { missing = id }
            if entry.listDepth > 0 { lists.append((entry.chunks, entry.listDepth)) }
            return missing == nil
        }
        if let missing { throw Self.unknown(missing) }
        guard isWhole else {
            throw .damaged(
                "manifest segment \(id)", "line \(count + 1) is not an entry of format 1")
        }
        for list in lists { try walk(list.ids, depth: list.depth, into: &live) }
        return count
    }

    private func walk(
        _ ids: [ChunkID], depth: Int, into live: inout LiveChunks
    ) throws(RepositoryError) {
        for id in ids where readLists.insert(id) == .new {
            guard let children = ListNode.read(try fetcher.chunk(id)) else {
                throw .damaged("list node \(id)", "is not a node of format 1")
            }
            for child in children where live.insert(child) == .unknown {
                throw Self.unknown(child)
            }
            if depth > 1 { try walk(children, depth: depth - 1, into: &live) }
        }
    }

    private static func unknown(_ id: ChunkID) -> RepositoryError {
        .damaged("chunk \(id)", "is in no bundle that the index knows")
    }
}
