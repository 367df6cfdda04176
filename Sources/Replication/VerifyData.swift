import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Where stored bytes are known not to be what they should be.
struct VerifyBadPlaces: Sendable {
    struct Frame: Hashable, Sendable {
        let bundle: BundleID
        /// In the bundle's plain text.
        let offset: Int
    }
    /// Bundles of which nothing can be read.
    var bundles: Set<BundleID> = []
    var frames: Set<Frame> = []

    var isEmpty: Bool { bundles.isEmpty && frames.isEmpty }

    func isSound(_ location: ChunkLocation) -> Bool {
        !bundles.contains(location.bundle)
            && !frames.contains(Frame(bundle: location.bundle, offset: location.frame.offset))
    }
}

/// Reads whole bundles back, several at once, in steps as large as the store makes worth while.
///
/// What seems damaged in a store behind a line is read once more: a byte that was altered on its way
/// is no damage.
struct VerifyData {
    enum Outcome: Sendable {
        case sound
        /// The object's bytes are not what its name says, or do not open.
        case damaged(String)
        /// The bytes are sound, but the index says something else of them.
        case misindexed
        /// The bytes are sound, and sealed to other owners than those at hand.
        case sealedToOthers
        /// The store failed: nothing is known.
        case unreadable(RepositoryError)
    }

    let repository: Repository
    let structure: VerifyStructure
    let monitor: any Monitor
    let cancellation: Cancellation

    private final class Outcomes: Sendable {
        let list = Mutex<[(id: BundleID, size: Int, outcome: Outcome)]>([])
    }

    /// The bundles to read: those that have waited longest at the depth that can be reached now,
    /// until their bytes make up the share.
    static func choose(
        _ bundles: [(id: BundleID, size: Int)], share: VerifyOptions.Share,
        read: VerifiedRecord, depth: VerifiedRecord.Depth
    ) -> [(id: BundleID, size: Int)] {
        let wanted = share.bytes(of: bundles.reduce(0) { $0 + $1.size })
        let never = Timestamp(seconds: .min)
        func rank(_ id: BundleID) -> (atDepth: Timestamp, atAll: Timestamp) {
            (
                read.lastReading(of: id, atLeast: depth) ?? never,
                read.lastReading(of: id, atLeast: .digest) ?? never
            )
        }
        let ordered = bundles.map { (bundle: $0, rank: rank($0.id)) }.sorted { left, right in
            if left.rank.atDepth != right.rank.atDepth {
                return left.rank.atDepth < right.rank.atDepth
            }
            if left.rank.atAll != right.rank.atAll { return left.rank.atAll < right.rank.atAll }
            return left.bundle.id < right.bundle.id
        }
        var sum = 0
        var chosen: [(id: BundleID, size: Int)] = []
        for (bundle, _) in ordered where sum < wanted {
            chosen.append(bundle)
            sum += bundle.size
        }
        return chosen
    }

    /// Reads bundles against their names, with the host key alone, until `isOver`: what a thread can
    /// do that waits for the owner's identity.
    /// - Returns: Those whose bytes are what their names say.
    func digestAhead(
        _ bundles: [(id: BundleID, size: Int)], until isOver: () -> Bool
    ) -> Set<BundleID> {
        let buffer = ByteBuffer(capacity: repository.readStepBytes)
        var sound: Set<BundleID> = []
        for (id, _) in Self.inOrder(bundles) {
            let outcome = twice { _ in digest(id, buffer, isCounted: false, until: isOver) }
            guard let outcome else { break }
            if case .sound = outcome { sound.insert(id) }
        }
        return sound
    }

    /// The largest first, so that the threads end together.
    private static func inOrder(
        _ bundles: [(id: BundleID, size: Int)]
    ) -> [(id: BundleID, size: Int)] {
        bundles.sorted { $0.size != $1.size ? $0.size > $1.size : $0.id < $1.id }
    }

    /// Reads bundles; what was not reached before a cancellation is not in the outcome.
    /// - Parameter digested: Those whose bytes are known to be what their names say.
    func read(
        _ bundles: [(id: BundleID, size: Int)], digested: Set<BundleID> = []
    ) -> [(id: BundleID, size: Int, outcome: Outcome)] {
        monitor.counts.bytesExpected.add(bundles.reduce(0) { $0 + $1.size }, ordering: .relaxed)
        let jobs = Self.inOrder(bundles)
        let outcomes = Outcomes()
        let work = self
        VerifyCrew.run(
            threads: repository.readersAtOnce, jobs: jobs.count, cancellation: cancellation
        ) { next in
            let buffer = ByteBuffer(capacity: work.repository.readStepBytes)
            while let job = next() {
                let (id, size) = jobs[job]
                let outcome = work.twice { isFirst in
                    work.repository.access.canReadContent
                        ? work.scan(
                            id, buffer, isDigested: digested.contains(id), isCounted: isFirst)
                        : work.digest(id, buffer, isCounted: isFirst)
                }
                guard let outcome else { return }
                outcomes.list.withLock { $0.append((id, size, outcome)) }
            }
        }
        return outcomes.list.withLock { $0 }.sorted { $0.id < $1.id }
    }

    /// Looks at a bundle, and once more where damage may be the line's doing. Nil where it was asked
    /// to stop.
    private func twice(_ look: (_ isFirst: Bool) -> Outcome?) -> Outcome? {
        let first = look(true)
        switch first {
        // A byte of a header that was altered on its way looks like another owner's.
        case .damaged, .sealedToOthers: break
        default: return first
        }
        guard !repository.isLocalStore else { return first }
        let second = look(false)
        if case .sound = second { repository.noteAlteredTransfer() }
        return second
    }

    /// Hands all bytes of a bundle to `body`. False where it was asked to stop.
    private func forEachStep<Failure: Error>(
        _ id: BundleID, _ buffer: ByteBuffer, isCounted: Bool = true,
        until isOver: () -> Bool = { false },
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws -> Bool {
        let step = repository.readStepBytes
        var offset = 0
        while true {
            if cancellation.isCancelled || isOver() { return false }
            let count = try repository.readBundle(
                id, range: offset..<(offset + step),
                into: UnsafeMutableRawBufferPointer(start: buffer.base, count: step))
            if isCounted { monitor.counts.bytes.add(count, ordering: .relaxed) }
            try body(UnsafeRawBufferPointer(start: buffer.base, count: count))
            offset += count
            if count < step { return true }
        }
    }

    private func outcome(_ error: any Error) -> Outcome {
        switch error {
        case let error as RepositoryError:
            error.kind == .storage ? .unreadable(error) : .damaged(error.message)
        case let error as BundleError: .damaged(error.description)
        default: .damaged("\(error)")
        }
    }

    /// Without an identity: the bytes against the name. Nil where it was asked to stop.
    private func digest(
        _ id: BundleID, _ buffer: ByteBuffer, isCounted: Bool, until isOver: () -> Bool = { false }
    ) -> Outcome? {
        var stream = DigestStream()
        do {
            let goesOn = try forEachStep(id, buffer, isCounted: isCounted, until: isOver) {
                stream.update($0)
            }
            guard goesOn else { return nil }
        } catch {
            return outcome(error)
        }
        let found: BundleID = stream.finish()
        return found == id ? .sound : .damaged("its bytes hash to \(found.short)…")
    }

    /// With an identity: name, seal, frames, every chunk, and what the index says of them.
    private func scan(
        _ id: BundleID, _ buffer: ByteBuffer, isDigested: Bool, isCounted: Bool
    ) -> Outcome? {
        do {
            let scanner = try BundleScanner(
                identities: repository.contentIdentities, known: isDigested ? id : nil)
            let goesOn = try forEachStep(id, buffer, isCounted: isCounted) {
                (bytes) throws(BundleError) in
                try scanner.feed(bytes) { _ in }
            }
            guard goesOn else { return nil }
            let bundle = try scanner.finish(expecting: id) { _ in }
            if let said = structure.audit.bundles[id], said != VerifyIndexAudit.Summary(bundle) {
                return .misindexed
            }
            return .sound
        } catch let error as BundleError where error.kind == .noIdentity {
            // Mostly it was stored before this owner was added. Its bytes tell whether it is whole.
            let outcome = digest(id, buffer, isCounted: false)
            if case .sound = outcome { return .sealedToOthers }
            return outcome
        } catch {
            return outcome(error)
        }
    }

    /// Looks which frames of a damaged bundle can still be read, and adds the others to `bad`.
    /// Needs an identity.
    func probe(_ id: BundleID, accesses: BundleAccessCache, bad: inout VerifyBadPlaces) {
        let frames = structure.index.frames(of: id)
        guard let size = structure.listed[id], !frames.isEmpty, let opener = try? FrameOpener(),
            (try? accesses.access(id, size: size)) != nil
        else {
            bad.bundles.insert(id)
            return
        }
        let sealed = ByteBuffer(capacity: 2 << 20)
        let raw = ByteBuffer(capacity: 5 << 20)
        for frame in frames {
            let record = FrameRecord(
                offset: frame.offset, length: frame.length, raw: frame.raw,
                fingerprint: frame.fingerprint, chunks: [])
            do throws(RepositoryError) {
                _ = try accesses.read(
                    id, size: size, offset: frame.offset, length: frame.length, into: sealed
                ) { (access, bytes) throws(BundleError) in
                    try opener.openFrame(
                        bytes, record, access: access, storedSize: size, into: raw)
                }
            } catch {
                bad.frames.insert(VerifyBadPlaces.Frame(bundle: id, offset: frame.offset))
            }
        }
    }
}
