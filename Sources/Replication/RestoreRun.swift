import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// One restore from beginning to end, round by round. Plans on one thread and lets the workers
/// write.
final class RestoreRun {
    let context: RestoreContext
    let outcome: RestoreOutcome
    let options: RestoreOptions
    let selected: [UInt8]?
    let selection: RestoreSelection
    let manifest: RestoreManifest
    let fetcher: FrameFetcher
    let workers: [RestoreWorker]
    let round = RestoreRound()
    let set = RestoreWorkSet()

    // Directories; see RestoreDirectories.swift.
    var ancestors: [RestoreAncestor] = []
    var pendingDirectories: [RestorePendingDirectory] = []
    var isTargetNew: Bool
    var line = RestoreLine()
    let lastPath = ByteBuffer(capacity: 1024)
    var saidThatExtrasStay = false
    /// The last directory that a pattern left out.
    var excludedDirectory: [UInt8] = []

    // Hard links.
    struct LinkKey: Hashable {
        let fileSystem: UInt32
        let inode: UInt64
    }
    var leaders: [LinkKey: RestoreLeader] = [:]
    var newLeaders: [(record: Int, leader: RestoreLeader)] = []

    // Planning.
    var plan = RestorePlan()
    private var plannedFrames: Set<UInt64> = []
    var found = 0
    /// Whether a pattern of `--include` has matched anything.
    var hasIncluded = false

    init(
        _ context: RestoreContext, selected: [UInt8]?, isTargetNew: Bool
    ) throws(ReplicationError) {
        self.context = context
        outcome = context.outcome
        options = context.options
        self.selected = selected
        self.isTargetNew = isTargetNew
        selection = RestoreSelection(context.options, roots: context.snapshot.roots)
        let fetcher = try context.makeFetcher(keeping: 2)
        self.fetcher = fetcher
        manifest = RestoreManifest(
            context.snapshot, fetcher: fetcher, selected: selected, outcome: context.outcome)
        var workers: [RestoreWorker] = []
        let threads = context.options.threads ?? (context.repository.isLocalStore ? 2 : 6)
        for _ in 0..<max(threads, 1) {
            workers.append(try RestoreWorker(context))
        }
        self.workers = workers
    }

    /// Restores everything that is selected.
    func run() throws(ReplicationError) {
        do throws(ReplicationError) {
            try restoreAll()
        } catch {
            // However it ends: what was lifted for a change is put back.
            setLocks()
            throw error
        }
        setLocks()
        try outcome.check()
        for worker in workers {
            outcome.fetchedBytes.wrappingAdd(worker.spareFetchedBytes, ordering: .relaxed)
        }
        outcome.fetchedBytes.wrappingAdd(fetcher.fetchedBytes, ordering: .relaxed)
    }

    private func setLocks() {
        if let tree = context.tree { outcome.problems(tree.applyLockingFlags()) }
    }

    private func restoreAll() throws(ReplicationError) {
        while true {
            try context.cancellation.check()
            try outcome.check()
            while round.lines.count < RestoreRound.lineBytesMaximum,
                let (id, bytes) = try manifest.next()
            {
                let start = round.lines.count
                round.lines.append(bytes)
                scan(segment: id, from: start)
                try outcome.check()
                try context.cancellation.check()
            }
            if round.lines.count == 0 { break }
            try execute()
            applyDirectories(isLast: false)
            round.removeAll()
            try outcome.check()
        }
        leaveAll()
        applyDirectories(isLast: true)
    }

    // MARK: One round

    private func execute() throws(ReplicationError) {
        let round = round
        round.prepareStates()
        if options.ifExists != nil, context.target != nil, !round.records.isEmpty {
            try context.parallel(round.records.count, grain: RestoreLimits.grain, workers) {
                $0.decide($1, round)
            }
            round.adoptDecisions()
        }
        newLeaders.removeAll()
        for index in round.records.indices {
            try emit(index)
            if index & 0xFFF == 0 { try context.cancellation.check() }
        }
        try writeSet(carrying: nil)
        try makeSimple()
        for (record, leader) in newLeaders where round.hasFailed(record) { leader.hasFailed = true }
        if !round.links.isEmpty, !options.dryRun {
            try context.parallel(round.links.count, grain: RestoreLimits.grain, workers) {
                $0.link($1, round)
            }
            let unlinked = round.unlinked.withLock { $0 }.sorted()
            for index in unlinked {
                round.records[Int(index)].isLinked = false
                try emit(Int(index))
            }
            try writeSet(carrying: nil)
            try makeSimple()
        }
        if options.verify, !options.dryRun {
            try context.parallel(round.records.count, grain: RestoreLimits.grain, workers) {
                $0.verify($1, round)
            }
        }
    }

    private func makeSimple() throws(ReplicationError) {
        let round = round
        try context.parallel(round.simple.count, grain: RestoreLimits.grain, workers) {
            $0.makeSimple(Int(round.simple[$1]), round)
        }
        round.simple.removeAll(keepingCapacity: true)
    }

    /// Lets the workers write all pieces that are planned.
    /// - Parameter file: A file of which more pieces follow, so that it stays open.
    private func writeSet(carrying file: RestoreOpenFile?) throws(ReplicationError) {
        if !set.isEmpty {
            set.sort()
            let runs = set.runs(maximumBytes: RestoreLimits.requestBytes)
            let (set, round) = (set, round)
            try context.parallel(runs.count, grain: 1, workers) {
                $0.write(runs[$1], of: set, round)
            }
            set.removeAll()
        }
        if file == nil { round.openFiles.removeAll() }
    }

    // MARK: Planning one entry

    private func emit(_ index: Int) throws(ReplicationError) {
        let record = round.records[index]
        if record.action == .done { return }
        if record.isLinked {
            let key = LinkKey(fileSystem: record.fileSystem, inode: record.inode)
            if let leader = leaders[key] {
                leader.names -= 1
                if leader.names == 0 { leaders[key] = nil }
                if record.action == .same, !context.mayReplace { return }
                if options.dryRun {
                    if !isLinked(record, to: leader) { plan.links += 1 }
                } else {
                    round.links.append((UInt32(index), leader.relative, leader))
                }
                return
            }
            let names = links(of: record)
            let leader = RestoreLeader(
                relative: context.relative(path(of: record)), names: names - 1,
                isKept: record.action == .same)
            leaders[key] = leader
            newLeaders.append((index, leader))
        }
        if record.action == .same { return }
        if options.dryRun {
            switch record.kind {
            case .file: plan.files += 1
            case .symlink: plan.links += 1
            default: plan.others += 1
            }
        }
        guard record.kind == .file, record.chunks != 0 else {
            if !options.dryRun { round.simple.append(UInt32(index)) }
            return
        }
        do throws(RestoreFailure) {
            if try !emitContent(index, record), !options.dryRun {
                round.simple.append(UInt32(index))
            }
        } catch {
            // What was planned of it is passed over.
            round.setFailed(index)
            workers[0].report(error, record, round)
        }
        try outcome.check()
        guard set.isFull || round.openFiles.count >= RestoreLimits.openFiles else { return }
        try writeSet(carrying: nil)
    }

    /// Whether a name that is there already is one of the file that it should be linked to.
    private func isLinked(_ record: RestoreRecord, to leader: RestoreLeader) -> Bool {
        guard record.action == .same, leader.isKept, let target = context.target else {
            return false
        }
        return (try? target.areSameFile(leader.relative, context.relative(path(of: record))))
            ?? false
    }

    /// Plans the pieces of one file. False where none has to be fetched.
    private func emitContent(
        _ index: Int, _ record: RestoreRecord
    ) throws(RestoreFailure) -> Bool {
        let bytes = round.line(record)
        var holes: [Hole] = []
        if record.hasHoles {
            guard let entry = EntryCodec.read(bytes) else {
                throw .repository(
                    RepositoryError(.damaged, "manifest", "its line is not an entry of format 1"))
            }
            do throws(RepositoryError) {
                holes = try ManifestReader(context.snapshot, fetcher: fetcher).holes(of: entry)
            } catch {
                throw .repository(error)
            }
        }
        let reuse = record.reuse >= 0 ? round.reuses[Int(record.reuse)] : nil
        var pieces = RestorePieces(holes: holes, size: record.size)
        var number = 0
        var open: RestoreOpenFile?
        var firstFrame = UInt32.max
        var count = 0
        var scanner = JSONScanner(bytes, at: Int(record.chunks))
        var list: RestoreChunkList?
        if record.depth > 0 {
            guard let value = scanner.value(), let ids = EntryCodec.readIDs(scanner, value) else {
                throw RestoreWorker.sizeDamage
            }
            list = RestoreChunkList(ids, depth: Int(record.depth), fetcher: fetcher)
        } else {
            _ = scanner.enter(0x5B)
        }
        while true {
            let id: ChunkID
            if list != nil {
                do throws(RepositoryError) {
                    guard let next = try list?.next() else { break }
                    id = next
                } catch {
                    throw .repository(error)
                }
            } else {
                guard let element = scanner.nextElement(isFirst: number == 0) else {
                    if scanner.isBroken { throw RestoreWorker.sizeDamage }
                    break
                }
                guard element.kind == .text, let next = ChunkID(hex: scanner.slice(element)) else {
                    throw RestoreWorker.sizeDamage
                }
                id = next
            }
            guard let location = context.index.location(id) else {
                throw .repository(
                    RepositoryError(.damaged, "chunk \(id)", "is in no bundle that the index knows")
                )
            }
            let isHere = reuse?.holds(number) ?? false
            number += 1
            if isHere || options.dryRun {
                let isFitting = pieces.take(location.length) { (_, _, _) throws(Never) in }
                guard isFitting else { throw RestoreWorker.sizeDamage }
                if !isHere { planFetch(location) }
                count += isHere ? 0 : 1
                continue
            }
            let (chunk, frame) = set.add(id, location)
            let before = set.pieces.count
            let isFitting = pieces.take(location.length) { (place, offset, length) throws(Never) in
                set.add(
                    RestorePiece(
                        fileOffset: place, record: UInt32(index), chunk: chunk,
                        offset: UInt32(offset), length: UInt32(length)),
                    frame: frame)
            }
            let added = set.pieces.count - before
            count += added
            open?.remaining.wrappingAdd(added, ordering: .relaxed)
            if firstFrame == .max { firstFrame = frame }
            if open == nil, frame != firstFrame || set.isFull {
                open = share(index, pieces: count)
            }
            guard isFitting else { throw abandon(open, RestoreWorker.sizeDamage) }
            if set.isFull {
                do throws(ReplicationError) {
                    try writeSet(carrying: open)
                } catch {
                    outcome.stop(error)
                    throw abandon(open, RestoreWorker.sizeDamage)
                }
            }
        }
        guard pieces.isComplete else { throw abandon(open, RestoreWorker.sizeDamage) }
        if let open { workers[0].release(open, 1, round) }
        return count > 0
    }

    /// Makes a file one whose pieces come from several frames; so many are planned already.
    private func share(_ index: Int, pieces: Int) -> RestoreOpenFile {
        let file = RestoreOpenFile(record: index)
        file.remaining.wrappingAdd(pieces, ordering: .relaxed)
        round.records[index].open = Int32(round.openFiles.count)
        round.openFiles.append(file)
        return file
    }

    private func abandon(_ file: RestoreOpenFile?, _ failure: RestoreFailure) -> RestoreFailure {
        if let file {
            file.hasFailed.store(true, ordering: .relaxed)
            workers[0].release(file, 1, round)
        }
        return failure
    }

    private func planFetch(_ location: ChunkLocation) {
        plan.writeBytes += location.length
        if plannedFrames.insert(location.frameNumber).inserted {
            plan.fetchBytes += location.frame.length
        }
    }

    private func path(of record: RestoreRecord) -> [UInt8] {
        let bytes = round.line(record)
        return line.read(bytes) ? Array(line.path(in: bytes)) : []
    }

    private func links(of record: RestoreRecord) -> UInt64 {
        max(line.read(round.line(record)) ? line.links : 2, 2)
    }
}
