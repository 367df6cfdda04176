import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Reads the manifests of all snapshots, each segment once, and looks every chunk up that an entry
/// names. Needs an owner's identity.
///
/// Memory: a number for each segment in each distinct node, an id and a path for each segment;
/// nothing for chunks.
final class VerifyManifests {
    struct Outcome {
        var harm = VerifyHarm()
        /// Snapshots concerned by each cause, by their place in the catalog.
        var snapshots: [VerifyHarm.Cause: Set<Int>] = [:]
        /// Snapshots whose manifest could not be read to its end.
        var unread: Set<Int> = []
        /// Snapshots that a damaged segment belongs to, by their places in the catalog.
        var snapshotsOfSegment: [Int: Set<Int>] = [:]
    }

    struct Segment: Sendable {
        let id: ChunkID
        /// What the node above says the first path is.
        let first: [UInt8]
    }

    /// Children by number: segments below a node of level 1, else nodes.
    private struct Node {
        var level: Int
        var children: [Int32]
    }

    private let repository: Repository
    private let structure: VerifyStructure
    private let bad: VerifyBadPlaces
    private let accesses: BundleAccessCache
    private let monitor: any Monitor
    private let cancellation: Cancellation
    private let fetcher: FrameFetcher

    private var segments: [Segment] = []
    private var segmentNumbers: [ChunkID: Int32] = [:]
    private var nodes: [Node?] = []
    private var nodeNumbers: [ChunkID: Int32] = [:]
    private var nodeFailures: [Int32: (cause: VerifyHarm.Cause, message: String)] = [:]
    private var outcome = Outcome()

    init(
        _ repository: Repository, structure: VerifyStructure, bad: VerifyBadPlaces,
        accesses: BundleAccessCache,
        monitor: any Monitor, cancellation: Cancellation
    ) throws(ReplicationError) {
        self.repository = repository
        self.structure = structure
        self.bad = bad
        self.accesses = accesses
        self.monitor = monitor
        self.cancellation = cancellation
        let index = structure.index
        fetcher = try lifted {
            try FrameFetcher(repository, index: index, accesses: accesses, keeping: 3)
        }
    }

    func run() throws(ReplicationError) -> Outcome {
        let snapshots = structure.catalog.snapshots
        var tops: [[Int32]] = []
        for (number, snapshot) in snapshots.enumerated() {
            try cancellation.check()
            tops.append(snapshot.manifestIDs.map { expand($0, level: snapshot.manifestDepth) })
            for failed in failures(below: tops[number]) {
                outcome.harm.note(failed.cause, failed.message, snapshot: number)
                outcome.unread.insert(number)
            }
            checkProblems(of: snapshot, number: number)
        }
        try checkSegments()
        // Which snapshots a damaged segment belongs to is only asked where there is one.
        var snapshotsOf: [Int: Set<Int>] = [:]
        let damaged = outcome.harm.damages.values.reduce(into: Set<Int>()) {
            $0.formUnion($1.segments)
        }
        if !damaged.isEmpty {
            for (number, top) in tops.enumerated() {
                for segment in numbers(below: top) where damaged.contains(segment) {
                    snapshotsOf[segment, default: []].insert(number)
                }
            }
        }
        for (cause, damage) in outcome.harm.damages {
            var concerned = damage.snapshots
            for segment in damage.segments { concerned.formUnion(snapshotsOf[segment] ?? []) }
            outcome.snapshots[cause] = concerned
        }
        for segment in outcome.harm.unreadSegments {
            outcome.unread.formUnion(snapshotsOf[segment] ?? [])
        }
        outcome.snapshotsOfSegment = snapshotsOf
        return outcome
    }

    // MARK: Nodes

    /// The cause of a chunk that could not be had.
    static func cause(
        _ id: ChunkID, _ index: ChunkIndex, _ error: RepositoryError
    ) -> VerifyHarm.Cause {
        if error.kind == .wrongKey { return .sealedToOthers }
        return index.location(id).map { .bundle($0.bundle) } ?? .notIndexed
    }

    /// Reads a node and those below it, unless they are known already.
    private func expand(_ id: ChunkID, level: Int) -> Int32 {
        if let known = nodeNumbers[id] { return known }
        let number = Int32(nodes.count)
        nodeNumbers[id] = number
        nodes.append(nil)
        let children: [ManifestChild]
        do {
            guard let read = ManifestChild.read(try fetcher.chunk(id)), !read.isEmpty else {
                nodeFailures[number] = (.manifest, "manifest node \(id) is not a node of format 1")
                return number
            }
            children = read
        } catch {
            nodeFailures[number] = (Self.cause(id, structure.index, error), error.description)
            return number
        }
        var node = Node(level: level, children: [])
        node.children.reserveCapacity(children.count)
        for child in children {
            if level > 1 {
                node.children.append(expand(child.id, level: level - 1))
            } else if let known = segmentNumbers[child.id] {
                node.children.append(known)
            } else {
                segmentNumbers[child.id] = Int32(segments.count)
                node.children.append(Int32(segments.count))
                segments.append(Segment(id: child.id, first: child.first))
            }
        }
        nodes[Int(number)] = node
        for index in children.indices.dropFirst()
        where EntryPath.compare(children[index - 1].first, children[index].first) >= 0 {
            nodeFailures[number] = (.manifest, "manifest node \(id) has children out of order")
            break
        }
        return number
    }

    private func failures(below top: [Int32]) -> [(cause: VerifyHarm.Cause, message: String)] {
        if nodeFailures.isEmpty { return [] }
        return all(below: top).compactMap { nodeFailures[$0] }
    }

    /// Numbers of segments.
    private func numbers(below top: [Int32]) -> [Int] {
        all(below: top).flatMap { number -> [Int] in
            guard let node = nodes[Int(number)], node.level == 1 else { return [] }
            return node.children.map { Int($0) }
        }
    }

    /// Nodes, each once, however often something names it.
    private func all(below top: [Int32]) -> [Int32] {
        var found = top
        var seen = Set(top)
        var next = 0
        while next < found.count {
            if let node = nodes[Int(found[next])], node.level > 1 {
                for child in node.children where seen.insert(child).inserted { found.append(child) }
            }
            next += 1
        }
        return found
    }

    private func checkProblems(of snapshot: Snapshot, number: Int) {
        guard !snapshot.problemIDs.isEmpty else { return }
        do {
            _ = try ManifestReader(snapshot, fetcher: fetcher).problems()
        } catch {
            var cause = VerifyHarm.Cause.manifest
            for id in snapshot.problemIDs where (try? fetcher.chunk(id)) == nil {
                cause = Self.cause(id, structure.index, error)
            }
            outcome.harm.note(cause, error.description, snapshot: number)
        }
    }

    // MARK: Segments

    private final class Shared: Sendable {
        let harm = Mutex(VerifyHarm())
        let failure = Mutex<ReplicationError?>(nil)
    }

    private func checkSegments() throws(ReplicationError) {
        // Neighbours in a frame are one job, so that each frame is opened once.
        var placed: [(frame: UInt64, offset: Int, segment: Int)] = []
        for (number, segment) in segments.enumerated() {
            let location = structure.index.location(segment.id)
            placed.append((location?.frameNumber ?? .max, location?.offset ?? 0, number))
        }
        placed.sort { $0.frame != $1.frame ? $0.frame < $1.frame : $0.offset < $1.offset }
        var jobs: [[Int]] = []
        for (index, place) in placed.enumerated() {
            if index == 0 || placed[index - 1].frame != place.frame { jobs.append([]) }
            jobs[jobs.count - 1].append(place.segment)
        }
        // A small repository has a single frame of segments: two threads share it rather than one
        // doing all the work.
        let most = max(16, (segments.count + 7) / 8)
        let work = jobs.flatMap { job in
            stride(from: 0, to: job.count, by: most).map {
                Array(job[$0..<min($0 + most, job.count)])
            }
        }
        let shared = Shared()
        let segments = segments
        let index = structure.index
        let (repository, bad, accesses, monitor) = (repository, bad, accesses, monitor)
        VerifyCrew.run(
            threads: repository.readersAtOnce, jobs: work.count, cancellation: cancellation
        ) { next in
            do throws(ReplicationError) {
                let worker = try VerifySegments(
                    repository, index: index, bad: bad, accesses: accesses, monitor: monitor)
                while let job = next() {
                    for number in work[job] { worker.check(segments[number], number: number) }
                }
                shared.harm.withLock { $0.add(worker.harm) }
            } catch {
                shared.failure.withLock { $0 = error }
            }
        }
        if let failure = shared.failure.withLock({ $0 }) { throw failure }
        try cancellation.check()
        outcome.harm.add(shared.harm.withLock { $0 })
    }
}
