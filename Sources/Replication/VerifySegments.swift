import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Checks segments, entry by entry. One thread at a time; make one for each.
final class VerifySegments {
    private(set) var harm = VerifyHarm()
    private let index: ChunkIndex
    private let bad: VerifyBadPlaces
    private let hasBadPlaces: Bool
    private let monitor: any Monitor
    private let fetcher: FrameFetcher
    private let repository: Repository
    private let bytes = ByteBuffer(capacity: ManifestLimits.segmentMaximumBytes + (64 << 10))

    // Of the segment that is being checked.
    private var number = 0
    private var line: Set<BundleID> = []
    private var lastOnLine: BundleID?

    init(
        _ repository: Repository, index: ChunkIndex, bad: VerifyBadPlaces,
        accesses: BundleAccessCache,
        monitor: any Monitor
    ) throws(ReplicationError) {
        self.repository = repository
        self.index = index
        self.bad = bad
        hasBadPlaces = !bad.isEmpty
        self.monitor = monitor
        fetcher = try lifted {
            try FrameFetcher(repository, index: index, accesses: accesses, keeping: 3)
        }
    }

    func check(_ segment: VerifyManifests.Segment, number: Int) {
        self.number = number
        harm.segments += 1
        do {
            let read = try fetcher.chunk(segment.id)
            bytes.removeAll()
            bytes.append(read)
        } catch {
            let place =
                "the part of a manifest that begins with \(UTF8Text.display(segment.first)) cannot be read: "
            harm.note(
                VerifyManifests.cause(segment.id, index, error), place + error.description,
                segment: number)
            return
        }
        guard let needed = index.bundles(ofSegment: segment.id) else {
            harm.note(
                .needLine, "has no line for manifest segment \(segment.id)", segment: number,
                path: segment.first)
            line = []
            lastOnLine = nil
            checkEntries(segment, hasLine: false)
            return
        }
        line = Set(needed)
        lastOnLine = nil
        checkEntries(segment, hasLine: true)
    }

    private func checkEntries(_ segment: VerifyManifests.Segment, hasLine: Bool) {
        var previous: [UInt8] = []
        var count = 0
        var entry = Entry(path: [], kind: .file)
        let isWhole = JSONLines.forEach(bytes.bytes) { line in
            guard EntryCodec.read(line, into: &entry) else { return false }
            let isInOrder =
                count == 0
                ? entry.path == segment.first : EntryPath.compare(previous, entry.path) < 0
            guard isInOrder else { return false }
            previous.replaceSubrange(0..., with: entry.path)
            count += 1
            if entry.kind == .file { check(entry, hasLine: hasLine) }
            return true
        }
        harm.entries += count
        monitor.counts.entries.add(count, ordering: .relaxed)
        if !isWhole {
            harm.note(
                .manifest,
                "manifest segment \(segment.id), line \(count + 1), is not an entry of format 1 or out of order",
                segment: number)
        }
    }

    /// Every chunk of a file is where the index says, and their lengths add up.
    private func check(_ entry: Entry, hasLine: Bool) {
        var data: UInt64 = 0
        var fault: (cause: VerifyHarm.Cause, message: String)?
        for id in entry.holesList {
            _ = use(id, &fault, hasLine: hasLine)
        }
        if entry.listDepth == 0 {
            for id in entry.chunks { data += UInt64(use(id, &fault, hasLine: hasLine)) }
        } else {
            data = walk(entry.chunks, depth: entry.listDepth, &fault, hasLine: hasLine)
        }
        if fault == nil {
            var holes: UInt64 = 0
            if entry.holesList.isEmpty {
                holes = entry.holes.reduce(0) { $0 + $1.length }
            } else {
                holes = readHoles(entry, &fault)
            }
            if fault == nil, data != entry.size - holes {
                fault = (
                    .manifest,
                    "the chunks of a file hold \(data) bytes where its entry asks for \(entry.size - holes)"
                )
            }
        }
        guard let fault else { return }
        harm.note(fault.cause, fault.message, segment: number, path: entry.path)
        // It is named in the end, once for all its versions.
        monitor.counts.problems.add(1, ordering: .relaxed)
    }

    /// The length of a chunk; `fault` is set where it cannot be had.
    private func use(
        _ id: ChunkID, _ fault: inout (cause: VerifyHarm.Cause, message: String)?, hasLine: Bool
    ) -> Int {
        guard var location = index.location(id) else {
            if fault == nil {
                fault = (.notIndexed, "chunk \(id) is in no bundle that the index knows")
            }
            return 0
        }
        if hasBadPlaces, !bad.isSound(location) {
            guard let other = index.locations(id).first(where: { bad.isSound($0) }) else {
                if fault == nil {
                    fault = (
                        .bundle(location.bundle),
                        "a part of it lies in \(repository.bundleKey(location.bundle)), which is damaged"
                    )
                }
                return location.length
            }
            location = other
        }
        if hasLine, location.bundle != lastOnLine {
            if line.contains(location.bundle) {
                lastOnLine = location.bundle
            } else if !index.locations(id).contains(where: { line.contains($0.bundle) }),
                fault == nil
            {
                fault = (
                    .needLine,
                    "does not say that a manifest segment needs \(repository.bundleKey(location.bundle))"
                )
            }
        }
        return location.length
    }

    /// Bytes below list nodes, one node in memory at each level.
    private func walk(
        _ ids: [ChunkID], depth: Int, _ fault: inout (cause: VerifyHarm.Cause, message: String)?,
        hasLine: Bool
    ) -> UInt64 {
        var sum: UInt64 = 0
        for id in ids {
            if depth == 0 {
                sum += UInt64(use(id, &fault, hasLine: hasLine))
                continue
            }
            _ = use(id, &fault, hasLine: hasLine)
            do {
                guard let children = ListNode.read(try fetcher.chunk(id)) else {
                    if fault == nil {
                        fault = (.manifest, "list node \(id) is not a node of format 1")
                    }
                    continue
                }
                sum += walk(children, depth: depth - 1, &fault, hasLine: hasLine)
            } catch {
                if fault == nil {
                    fault = (VerifyManifests.cause(id, index, error), error.description)
                }
            }
        }
        return sum
    }

    private func readHoles(
        _ entry: Entry, _ fault: inout (cause: VerifyHarm.Cause, message: String)?
    ) -> UInt64 {
        let joined = ByteBuffer(capacity: 64 << 10)
        for id in entry.holesList {
            do {
                joined.append(try fetcher.chunk(id))
            } catch {
                fault = (VerifyManifests.cause(id, index, error), error.description)
                return 0
            }
            if joined.count > 1 << 30 { break }
        }
        guard let holes = EntryCodec.readHoleLines(joined.bytes, size: entry.size) else {
            fault = (.manifest, "a list of holes is not one of format 1")
            return 0
        }
        return holes.reduce(0) { $0 + $1.length }
    }
}
