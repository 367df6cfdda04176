import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Reads all bundles and writes their index lines.
final class RepairIndexBundles: Sendable {
    /// A bundle that could not be read to its end, and the frames that could.
    struct Torn: Sendable {
        let id: BundleID
        let message: String
        var kind: BundleKind?
        var frames: [FrameRecord]
    }

    private struct Outcome {
        var torn: [Torn] = []
        var failure: ReplicationError?
    }

    private let repository: Repository
    private let listed: [BundleID: Int]
    private let writer: RepairIndexWriter
    private let chunks: RepairIndexChunks
    private let monitor: any Monitor
    private let cancellation: Cancellation
    private let outcome = Mutex(Outcome())

    init(
        _ repository: Repository, listed: [BundleID: Int], writer: RepairIndexWriter,
        chunks: RepairIndexChunks,
        monitor: any Monitor, cancellation: Cancellation
    ) {
        self.repository = repository
        self.listed = listed
        self.writer = writer
        self.chunks = chunks
        self.monitor = monitor
        self.cancellation = cancellation
    }

    /// Scans every bundle, several at once.
    func run() throws(ReplicationError) -> [Torn] {
        let jobs = listed.sorted { $0.value != $1.value ? $0.value > $1.value : $0.key < $1.key }
        monitor.counts.bytesExpected.add(jobs.reduce(0) { $0 + $1.value }, ordering: .relaxed)
        VerifyCrew.run(
            threads: repository.readersAtOnce, jobs: jobs.count, cancellation: cancellation
        ) { [self] next in
            let buffer = ByteBuffer(capacity: repository.readStepBytes)
            while let job = next() {
                do throws(ReplicationError) {
                    try scan(jobs[job].key, buffer, isAgain: false)
                } catch {
                    outcome.withLock { if $0.failure == nil { $0.failure = error } }
                    return
                }
            }
        }
        if let failure = outcome.withLock({ $0.failure }) { throw failure }
        try cancellation.check()
        return outcome.withLock { $0.torn }.sorted { $0.id < $1.id }
    }

    /// - Throws: where the store fails: what could not be looked at must not lose its lines.
    private func scan(
        _ id: BundleID, _ buffer: ByteBuffer, isAgain: Bool
    ) throws(ReplicationError) {
        var frames: [FrameRecord] = []
        var kind: BundleKind?
        func visit(_ frame: ScannedFrame) {
            frames.append(frame.record)
            if let member = frame.members.first { kind = member.kind.bundleKind }
        }
        do {
            let scanner = try BundleScanner(
                identities: repository.contentIdentities, wantsMD5: repository.wantsMD5)
            let step = repository.readStepBytes
            var offset = 0
            while true {
                try cancellation.check()
                let count = try repository.readBundle(
                    id, range: offset..<(offset + step),
                    into: UnsafeMutableRawBufferPointer(start: buffer.base, count: step))
                if !isAgain { monitor.counts.bytes.add(count, ordering: .relaxed) }
                try scanner.feed(UnsafeRawBufferPointer(start: buffer.base, count: count), visit)
                offset += count
                if count < step { break }
            }
            let bundle = try scanner.finish(expecting: id, visit)
            if isAgain { repository.noteAlteredTransfer() }
            chunks.add(bundle)
            try writer.add { IndexCodec.write(bundle, to: $0) }
        } catch let error as BundleError
            where error.kind == .noIdentity && (isAgain || repository.isLocalStore)
            && isWhole(id, buffer)
        {
            // Nothing is damaged, and without looking inside its lines would be lost.
            throw ReplicationError(BundleAccessCache(repository).notForThisOwner(id, error))
        } catch let error as BundleError {
            // A byte that was altered on its way is no damage.
            if !isAgain, !repository.isLocalStore { return try scan(id, buffer, isAgain: true) }
            outcome.withLock {
                $0.torn.append(Torn(id: id, message: error.description, kind: kind, frames: frames))
            }
        } catch {
            throw ReplicationError.lifting(error)
        }
    }

    /// Whether the bytes of a bundle are what its name says.
    private func isWhole(_ id: BundleID, _ buffer: ByteBuffer) -> Bool {
        var stream = DigestStream()
        let step = repository.readStepBytes
        var offset = 0
        while true {
            guard
                let count = try? repository.readBundle(
                    id, range: offset..<(offset + step),
                    into: UnsafeMutableRawBufferPointer(start: buffer.base, count: step))
            else { return false }
            stream.update(UnsafeRawBufferPointer(start: buffer.base, count: count))
            offset += count
            if count < step { break }
        }
        let found: BundleID = stream.finish()
        return found == id
    }

    // MARK: Damaged bundles

    /// What old index lines say of damaged bundles, from the records that still prove themselves.
    private struct OldLines: IndexCodec.Receiver {
        let wanted: Set<BundleID>
        var kinds: [BundleID: BundleKind] = [:]
        var frames: [BundleID: [FrameRecord]] = [:]
        private var current: BundleID?

        init(wanted: Set<BundleID>) { self.wanted = wanted }

        mutating func bundle(_ bundle: IndexedBundle) {
            // The first description is as good as any other: frames prove themselves.
            current = wanted.contains(bundle.id) && kinds[bundle.id] == nil ? bundle.id : nil
            if let current { kinds[current] = bundle.kind }
        }
        mutating func frame(_ frame: IndexedFrame) {
            guard let current else { return }
            frames[current, default: []].append(
                FrameRecord(
                    offset: frame.offset, length: frame.length, raw: frame.raw,
                    fingerprint: frame.fingerprint, chunks: []))
        }
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
            guard let current, let last = frames[current]?.indices.last else { return }
            frames[current]?[last].chunks.append(ChunkPlace(id: id, offset: offset, length: length))
        }
        mutating func segment(_ id: ChunkID, bundles: [BundleID]) {}
    }

    /// Writes lines for the frames of damaged bundles that are sound: those that the scan had seen,
    /// and those that an old line tells of and that prove it, frame by frame and chunk by chunk.
    func salvage(_ torn: [Torn], from old: [RecordName]) throws(ReplicationError)
        -> [RepairIndexReport.Damage]
    {
        guard !torn.isEmpty else { return [] }
        var lines = OldLines(wanted: Set(torn.map(\.id)))
        for name in old {
            try cancellation.check()
            do {
                let payload = try repository.readRecord(name)
                _ = payload.withUnsafeBytes { IndexCodec.read($0, into: &lines) }
            } catch {
                // A record that does not prove itself tells nothing; one that the store cannot give
                // now may be sound.
                if error.kind == .storage || error.kind == .newerFormat {
                    throw ReplicationError(error)
                }
            }
        }
        let accesses = BundleAccessCache(repository)
        var damage: [RepairIndexReport.Damage] = []
        for bundle in torn {
            let size = listed[bundle.id] ?? 0
            var frames = bundle.frames
            var plain = frames.last.map { $0.offset + $0.length } ?? 0
            if let access = try access(bundle.id, size: size, accesses) {
                plain = max(plain, (try? access.plainLength(storedSize: size)) ?? 0)
                let seen = Set(frames.map(\.offset))
                for frame in lines.frames[bundle.id] ?? [] where !seen.contains(frame.offset) {
                    try cancellation.check()
                    if try isSound(frame, of: bundle.id, size: size, accesses) {
                        frames.append(frame)
                    }
                }
            }
            frames.sort { $0.offset < $1.offset }
            if let kind = bundle.kind ?? lines.kinds[bundle.id], !frames.isEmpty {
                let part = SealedBundle(
                    id: bundle.id, kind: kind, size: size, plain: plain, md5: nil, frames: frames)
                chunks.add(part)
                try writer.add { IndexCodec.write(part, to: $0) }
            }
            damage.append(
                RepairIndexReport.Damage(
                    object: repository.bundleKey(bundle.id), message: bundle.message,
                    frames: frames.count))
        }
        return damage
    }

    /// Nil where the seal of a bundle does not open.
    private func access(
        _ id: BundleID, size: Int, _ accesses: BundleAccessCache
    ) throws(ReplicationError) -> BundleAccess? {
        do {
            return try accesses.access(id, size: size)
        } catch {
            if error.kind == .storage { throw ReplicationError(error) }
            return nil
        }
    }

    private func isSound(
        _ frame: FrameRecord, of id: BundleID, size: Int, _ accesses: BundleAccessCache
    ) throws(ReplicationError) -> Bool {
        do {
            let opener = try FrameOpener()
            let sealed = ByteBuffer(capacity: frame.length)
            let raw = ByteBuffer(capacity: frame.raw)
            _ = try accesses.read(
                id, size: size, offset: frame.offset, length: frame.length, into: sealed
            ) { (access, bytes) throws(BundleError) in
                try opener.openFrame(bytes, frame, access: access, storedSize: size, into: raw)
            }
            for chunk in frame.chunks {
                _ = try FrameFetcher.chunk(
                    chunk.id, offset: Int(chunk.offset), length: Int(chunk.length), in: raw.bytes)
            }
            return true
        } catch let error as RepositoryError where error.kind == .storage {
            throw ReplicationError(error)
        } catch {
            return false
        }
    }
}

extension ReplicationError {
    /// An error of any room in the shape of this one.
    static func lifting(_ error: any Error) -> ReplicationError {
        switch error {
        case let error as ReplicationError: error
        case let error as RepositoryError: ReplicationError(error)
        default: ReplicationError(.other, "", "\(error)")
        }
    }
}
