import BundleFormat
import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// One thread's hands: fetches frames, opens and checks them, and writes what is in them where it
/// belongs.
///
/// One thread at a time.
final class RestoreWorker: @unchecked Sendable {
    // Sendable: has one owner at a time, the thread that runs with it.
    let context: RestoreContext
    let outcome: RestoreOutcome
    private let opener: FrameOpener
    private let sealed = ByteBuffer(capacity: 1 << 20)
    private let plain = ByteBuffer(capacity: 1 << 20)
    private let raw = ByteBuffer(capacity: 5 << 20)
    private var spareFetcher: FrameFetcher?
    /// Chunks of the current frame that have been checked: where they begin, and which they are.
    private var checked: [UInt32: UInt32] = [:]
    let copyBuffer = ByteBuffer(capacity: 64)

    init(_ context: RestoreContext) throws(ReplicationError) {
        self.context = context
        outcome = context.outcome
        do throws(BundleError) { opener = try FrameOpener() } catch {
            throw ReplicationError(.other, "", error.description)
        }
    }

    /// For what is not read in the order of frames: nodes of lists, second copies of damaged
    /// chunks.
    func fetcher() throws(RepositoryError) -> FrameFetcher {
        if let spareFetcher { return spareFetcher }
        let made = try FrameFetcher(
            context.repository, index: context.index, accesses: context.accesses, keeping: 1)
        spareFetcher = made
        return made
    }

    var spareFetchedBytes: Int { spareFetcher?.fetchedBytes ?? 0 }

    // MARK: Frames

    /// Fetches neighbouring frames at once and writes all that is wanted of them.
    ///
    /// - Parameter isAgain: Whether the frame, a single one, has been fetched before and could not be
    ///   decompressed.
    func write(
        _ run: Range<Int>, of set: RestoreWorkSet, _ round: RestoreRound, isAgain: Bool = false
    ) {
        let first = set.frames[Int(set.frameOrder[run.lowerBound])]
        let last = set.frames[Int(set.frameOrder[run.upperBound - 1])]
        let start = first.frame.offset
        let length = last.frame.offset + last.frame.length - start
        do throws(RepositoryError) {
            try open(first, offset: start, length: length)
        } catch {
            if RestoreOutcome.concernsAll(error) { return outcome.stop(ReplicationError(error)) }
            if run.count > 1 {
                // One of them is damaged: the others are read without it.
                for position in run where !outcome.isStopped {
                    write(position..<position + 1, of: set, round)
                }
            } else {
                write(run.lowerBound, of: set, round, raw: nil, error)
            }
            return
        }
        var altered: [Int] = []
        for position in run where !outcome.isStopped {
            let frame = set.frames[Int(set.frameOrder[position])]
            let from = frame.frame.offset - start
            let bytes = UnsafeRawBufferPointer(
                rebasing: plain.bytes[from..<from + frame.frame.length])
            var failure: RepositoryError?
            do throws(BundleError) {
                try opener.decompress(
                    bytes,
                    FrameRecord(
                        offset: frame.frame.offset, length: frame.frame.length,
                        raw: frame.frame.raw, fingerprint: frame.frame.fingerprint, chunks: []),
                    into: raw)
                if isAgain { context.repository.noteAlteredTransfer() }
            } catch {
                // Without a seal nothing else tells that it was altered on its way.
                if !isAgain, !context.repository.isLocalStore {
                    altered.append(position)
                    continue
                }
                failure = RepositoryError(
                    .damaged, context.repository.bundleKey(frame.bundle), error.description)
            }
            write(position, of: set, round, raw: failure == nil ? raw.bytes : nil, failure)
        }
        raw.shrink(to: max(raw.count, 6 << 20))
        for position in altered where !outcome.isStopped {
            write(position..<position + 1, of: set, round, isAgain: true)
        }
    }

    /// Fetches a range of a bundle and opens its seal into `plain`.
    private func open(_ frame: RestoreFrame, offset: Int, length: Int) throws(RepositoryError) {
        let plain = plain
        do throws(RepositoryError) {
            let fetched = try context.accesses.read(
                frame.bundle, size: frame.bundleSize, offset: offset, length: length, into: sealed
            ) { (access, bytes) throws(BundleError) in
                try access.open(
                    bytes, offset: offset, length: length, storedSize: frame.bundleSize, into: plain
                )
            }
            outcome.fetchedBytes.wrappingAdd(fetched, ordering: .relaxed)
            context.monitor.counts.storedBytes.wrappingAdd(fetched, ordering: .relaxed)
        } catch {
            guard error.subject.isEmpty else { throw error }
            throw RepositoryError(
                error.kind, context.repository.bundleKey(frame.bundle), error.message,
                remedy: error.remedy, isTransient: error.isTransient)
        }
    }

    // MARK: Files

    /// Writes all pieces that come from one frame; `raw` is nil where the frame could not be opened
    /// for the reason given.
    private func write(
        _ position: Int, of set: RestoreWorkSet, _ round: RestoreRound,
        raw: UnsafeRawBufferPointer?, _ failure: RepositoryError?
    ) {
        checked.removeAll(keepingCapacity: true)
        let number = set.frames[Int(set.frameOrder[position])].number
        let end = set.starts[position + 1]
        var start = set.starts[position]
        while start < end {
            if outcome.isStopped { return }
            if context.cancellation.isCancelled { return outcome.stop(.interrupted) }
            let record = set.pieces[Int(set.order[start])].record
            var next = start + 1
            while next < end, set.pieces[Int(set.order[next])].record == record { next += 1 }
            writeFile(
                Int(record), start..<next, of: set, round,
                RestoreSource(frame: number, raw: raw, failure: failure))
            start = next
        }
    }

    /// Where the bytes of pieces come from.
    private struct RestoreSource {
        let frame: UInt64
        let raw: UnsafeRawBufferPointer?
        let failure: RepositoryError?
    }

    /// Writes the pieces of one file that come from one frame.
    private func writeFile(
        _ index: Int, _ pieces: Range<Int>, of set: RestoreWorkSet, _ round: RestoreRound,
        _ source: RestoreSource
    ) {
        let record = round.records[index]
        guard record.open >= 0 else {
            if round.hasFailed(index) { return }
            writeWhole(index, record, pieces, of: set, round, source)
            return
        }
        let file = round.openFiles[Int(record.open)]
        if !file.hasFailed.load(ordering: .relaxed), !round.hasFailed(index) {
            do throws(RestoreFailure) {
                let (writer, _) = try file.open { () throws(RestoreFailure) in
                    let entry = try decode(record, round)
                    return (try create(record, entry, round), entry)
                }
                try write(pieces, of: set, to: writer, source)
            } catch {
                if !file.hasFailed.exchange(true, ordering: .relaxed) {
                    report(error, record, round)
                }
            }
        }
        release(file, pieces.count, round)
    }

    /// Says that pieces of a file are done with; the last one finishes it.
    func release(_ file: RestoreOpenFile, _ count: Int, _ round: RestoreRound) {
        guard
            file.remaining.wrappingSubtract(count, ordering: .acquiringAndReleasing).newValue == 0
        else { return }
        let failed = file.hasFailed.load(ordering: .relaxed) || round.hasFailed(file.record)
        if failed { round.setFailed(file.record) }
        guard let (writer, entry) = file.take() else { return }
        if failed {
            writer.abort()
        } else {
            finish(writer, entry, file.record, round)
        }
    }

    private func writeWhole(
        _ index: Int, _ record: RestoreRecord, _ pieces: Range<Int>, of set: RestoreWorkSet,
        _ round: RestoreRound, _ source: RestoreSource
    ) {
        do throws(RestoreFailure) {
            if pieces.count == 1 {
                // Checked before anything is made: what is damaged leaves no trace.
                _ = try bytes(
                    of: Int(set.pieces[Int(set.order[pieces.lowerBound])].chunk), set, source)
            }
            let entry = try decode(record, round)
            let writer = try create(record, entry, round)
            do throws(RestoreFailure) {
                try write(pieces, of: set, to: writer, source)
            } catch {
                writer.abort()
                throw error
            }
            finish(writer, entry, index, round)
        } catch {
            round.setFailed(index)
            report(error, record, round)
        }
    }

    private func write(
        _ pieces: Range<Int>, of set: RestoreWorkSet, to writer: FileWriter, _ source: RestoreSource
    ) throws(RestoreFailure) {
        var count = 0
        for position in pieces {
            let piece = set.pieces[Int(set.order[position])]
            let chunk = try bytes(of: Int(piece.chunk), set, source)
            let start = Int(piece.offset)
            try onTarget { () throws(FileTreeError) in
                try writer.write(
                    UnsafeRawBufferPointer(rebasing: chunk[start..<start + Int(piece.length)]),
                    at: piece.fileOffset)
            }
            count += Int(piece.length)
        }
        outcome.wrote(count)
    }

    /// A chunk's bytes, checked against its id, from this frame or from another that holds it, too.
    private func bytes(
        of chunk: Int, _ set: RestoreWorkSet, _ source: RestoreSource
    ) throws(RestoreFailure) -> UnsafeRawBufferPointer {
        let wanted = set.chunks[chunk]
        let offset = Int(wanted.offset)
        let length = Int(wanted.length)
        var failure = source.failure
        if let raw = source.raw {
            if let known = checked[wanted.offset], set.chunks[Int(known)].id == wanted.id,
                set.chunks[Int(known)].length == wanted.length
            {
                return UnsafeRawBufferPointer(rebasing: raw[offset..<offset + length])
            }
            do throws(RepositoryError) {
                let bytes = try FrameFetcher.chunk(
                    wanted.id, offset: offset, length: length, in: raw)
                checked[wanted.offset] = UInt32(chunk)
                return bytes
            } catch {
                failure = error
            }
        }
        for other in context.index.locations(wanted.id)
        where other.frameNumber != source.frame && other.length == length {
            do throws(RepositoryError) {
                let raw = try fetcher().frame(at: other)
                return try FrameFetcher.chunk(
                    wanted.id, offset: other.offset, length: length, in: raw)
            } catch {
                failure = failure ?? error
            }
        }
        throw .repository(
            failure ?? RepositoryError(.damaged, "chunk \(wanted.id)", "cannot be read"))
    }

    // MARK: Making one file

    func decode(_ record: RestoreRecord, _ round: RestoreRound) throws(RestoreFailure) -> Entry {
        guard let entry = round.entry(record) else {
            throw .repository(
                RepositoryError(.damaged, "manifest", "its line is not an entry of format 1"))
        }
        return entry
    }

    func holes(of entry: Entry) throws(RestoreFailure) -> [Hole] {
        if entry.holesList.isEmpty { return entry.holes }
        do throws(RepositoryError) {
            return try ManifestReader(context.snapshot, fetcher: fetcher()).holes(of: entry)
        } catch {
            throw .repository(error)
        }
    }

    /// Begins a file, with everything in it that need not be fetched.
    func create(
        _ record: RestoreRecord, _ entry: Entry, _ round: RestoreRound
    ) throws(RestoreFailure) -> FileWriter {
        guard let tree = context.tree, let target = context.target else {
            preconditionFailure("a dry run makes nothing")
        }
        let relative = context.relative(entry.path)
        let placement: TreeWriter.Placement =
            switch record.action {
            case .rewrite: .inPlace
            case .replace: .replacing
            default: .new
            }
        let reused = record.reuse >= 0 ? round.reuses[Int(record.reuse)] : nil
        let source =
            reused == nil
            ? nil
            : try onTarget { () throws(FileTreeError) in
                try target.openFile(relative)
            }
        let writer = try onTarget { () throws(FileTreeError) in
            try tree.createFile(relative, entry: entry, placement: placement)
        }
        let isInPlace = placement == .inPlace && writer.existingSize > 0
        if isInPlace {
            for hole in try holes(of: entry) {
                try onTarget { () throws(FileTreeError) in
                    try writer.makeHole(at: hole.offset, length: hole.length)
                }
            }
        }
        if let reused {
            if !isInPlace { try copy(reused, from: source, to: writer, entry) }
            outcome.reusedBytes.wrappingAdd(Int(clamping: reused.bytes), ordering: .relaxed)
        }
        return writer
    }

    private func copy(
        _ reused: RestoreReuse, from source: TargetFile?, to writer: FileWriter, _ entry: Entry
    ) throws(RestoreFailure) {
        for range in reused.ranges {
            let isShared = try onTarget { () throws(FileTreeError) in
                guard let source else { return false }
                return try writer.reuse(
                    source, from: range.offset, length: range.length, at: range.offset)
            }
            if isShared { continue }
            var done: UInt64 = 0
            while done < range.length {
                let count = Int(min(range.length - done, 1 << 20))
                copyBuffer.removeAll()
                copyBuffer.reserve(count)
                let piece = UnsafeMutableRawBufferPointer(start: copyBuffer.base, count: count)
                let place = range.offset + done
                let got = try onTarget { () throws(FileTreeError) in
                    guard let source else { return 0 }
                    return try source.read(into: piece, at: place)
                }
                guard got == count else {
                    throw .target(
                        FileTreeError(
                            .changed, "take over parts of", path: entry.path,
                            cause: "somebody else changes it"))
                }
                try onTarget { () throws(FileTreeError) in
                    try writer.write(UnsafeRawBufferPointer(piece), at: place)
                }
                done += UInt64(count)
            }
        }
    }

    func finish(_ writer: FileWriter, _ entry: Entry, _ index: Int, _ round: RestoreRound) {
        do throws(FileTreeError) {
            outcome.problems(try writer.finish(entry))
            round.setWritten(index)
            outcome.restored(entry.path, .file)
        } catch {
            round.setFailed(index)
            outcome.problem(entry.path, error)
        }
    }

    func onTarget<Value>(
        _ body: () throws(FileTreeError) -> Value
    ) throws(RestoreFailure) -> Value {
        do throws(FileTreeError) { return try body() } catch { throw .target(error) }
    }

    func report(_ failure: RestoreFailure, _ record: RestoreRecord, _ round: RestoreRound) {
        var line = RestoreLine()
        let bytes = round.line(record)
        let path = line.read(bytes) ? Array(line.path(in: bytes)) : []
        switch failure {
        case .target(let error): outcome.problem(path, error)
        case .repository(let error): outcome.damage(path, error)
        }
    }
}

/// Why a file could not be restored: the target's fault, or the repository's.
enum RestoreFailure: Error {
    case target(FileTreeError)
    case repository(RepositoryError)
}
