import BundleFormat
import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

extension RestoreWorker {
    // MARK: What is there already

    /// Looks at what stands in an entry's place and decides what is to be done.
    func decide(_ index: Int, _ round: RestoreRound) {
        guard let policy = context.options.ifExists, let target = context.target else { return }
        let record = round.records[index]
        do throws(RestoreFailure) {
            let entry = try decode(record, round)
            let relative = context.relative(entry.path)
            let comparison = try onTarget { () throws(FileTreeError) in
                try target.compareExisting(relative, entry: entry)
            }
            switch (comparison, policy) {
            case (.absent, _): return
            case (.same, .replace), (.same, .newer):
                // Size and time tell no flipped byte: who wants to know has the content compared.
                guard context.options.verify, entry.kind == .file, !entry.chunks.isEmpty else {
                    fallthrough
                }
                try compareContent(entry, relative, index, round)
            case (.same, _):
                outcome.kept(entry.path)
                outcome.reusedBytes.wrappingAdd(Int(clamping: entry.size), ordering: .relaxed)
                round.decide(index, .same)
                if context.mayReplace { try fixMetadata(entry, relative) }
            case (_, .keep):
                outcome.kept(entry.path)
                round.decide(index, .done)
            case (_, .fail):
                outcome.problem(
                    entry.path, kind: "exists", "exists already and differs; it stays as it is")
                round.decide(index, .done)
            case (.newer, .newer), (.different, .newer):
                outcome.kept(entry.path)
                round.decide(index, .done)
            case (.otherKind(let kind), _):
                try replace(kind, entry, relative, policy, index, round)
            case (.older, _), (.newer, _), (.different, _):
                try compareContent(entry, relative, index, round)
            }
        } catch {
            round.decide(index, .done)
            report(error, record, round)
        }
    }

    private func fixMetadata(_ entry: Entry, _ relative: [UInt8]) throws(RestoreFailure) {
        guard let tree = context.tree else { return }
        let problems = try onTarget { () throws(FileTreeError) in
            try tree.applyMetadata(relative, entry: entry)
        }
        outcome.problems(problems)
    }

    private func replace(
        _ kind: EntryKind?, _ entry: Entry, _ relative: [UInt8],
        _ policy: RestoreOptions.IfExists, _ index: Int, _ round: RestoreRound
    ) throws(RestoreFailure) {
        guard let target = context.target else { return }
        if policy == .newer {
            let status = try onTarget { () throws(FileTreeError) in try target.status(relative) }
            if let status, status.mtime >= entry.mtime {
                outcome.kept(entry.path)
                return round.decide(index, .done)
            }
        }
        round.decide(index, .replace)
        guard kind == .directory else { return }
        // An empty directory makes way by itself; what lies in another one was not asked to go,
        // unless extras are.
        if context.options.delete {
            if !context.removeExtra(relative, path: entry.path) { round.decide(index, .done) }
        }
    }

    /// Finds the chunks that an existing file has in their places.
    private func compareContent(
        _ entry: Entry, _ relative: [UInt8], _ index: Int, _ round: RestoreRound
    ) throws(RestoreFailure) {
        let action: RestoreRecord.Action = context.options.inPlace ? .rewrite : .replace
        guard entry.kind == .file, !entry.chunks.isEmpty, let target = context.target else {
            return round.decide(index, entry.kind == .file ? action : .replace)
        }
        let file = try onTarget { () throws(FileTreeError) in try target.openFile(relative) }
        guard let file, file.status.size > 0 else { return round.decide(index, action) }
        let (reuse, isAll) = try matches(entry, file)
        if isAll, file.status.size == entry.size, try hasHoles(of: entry, file) {
            // Only touched: nothing is fetched and nothing written.
            round.decide(index, .same)
            outcome.kept(entry.path)
            outcome.reusedBytes.wrappingAdd(Int(clamping: reuse.bytes), ordering: .relaxed)
            if context.options.verify { outcome.verified.wrappingAdd(1, ordering: .relaxed) }
            return try fixMetadata(entry, relative)
        }
        round.decide(index, action, reuse: reuse)
    }

    /// Whether a file that has the entry's content has its holes as well. One that has more than
    /// the entry is no worse for it.
    private func hasHoles(of entry: Entry, _ file: TargetFile) throws(RestoreFailure) -> Bool {
        let wanted = try holes(of: entry)
        if wanted.isEmpty { return true }
        return try onTarget { () throws(FileTreeError) in try file.holes() } == wanted
    }

    /// Compares a file with an entry chunk by chunk: which ones it holds in their places, and
    /// whether it holds them all.
    func matches(
        _ entry: Entry, _ file: TargetFile
    ) throws(RestoreFailure) -> (RestoreReuse, isAll: Bool) {
        var reuse = RestoreReuse()
        var isAll = true
        var number = 0
        var pieces = RestorePieces(holes: try holes(of: entry), size: entry.size)
        var list = RestoreChunkList(
            entry.chunks, depth: entry.listDepth, fetcher: try listFetcher())
        while let id = try repositoryCall({ () throws(RepositoryError) in try list.next() }) {
            if outcome.isStopped || context.cancellation.isCancelled { return (reuse, false) }
            guard let length = context.index.location(id)?.length else {
                throw .repository(
                    RepositoryError(.damaged, "chunk \(id)", "is in no bundle that the index knows")
                )
            }
            copyBuffer.removeAll()
            copyBuffer.reserve(length)
            var ranges: [(UInt64, Int)] = []
            var isHere = true
            let fits = try pieces.take(length) { (place, offset, count) throws(RestoreFailure) in
                let piece = UnsafeMutableRawBufferPointer(
                    start: copyBuffer.base + offset, count: count)
                if isHere {
                    let got = try onTarget { () throws(FileTreeError) in
                        try file.read(into: piece, at: place)
                    }
                    isHere = got == count
                }
                ranges.append((place, count))
            }
            guard fits else { throw Self.sizeDamage }
            copyBuffer.count = length
            if isHere {
                let found: ChunkID = ContentHash.sha256(copyBuffer.bytes)
                isHere = found == id
            }
            if isHere {
                reuse.add(chunk: number)
                for (place, count) in ranges { reuse.add(offset: place, length: UInt64(count)) }
            } else {
                isAll = false
            }
            number += 1
        }
        guard pieces.isComplete else { throw Self.sizeDamage }
        return (reuse, isAll)
    }

    static let sizeDamage = RestoreFailure.repository(
        RepositoryError(.damaged, "manifest", "the chunks of a file do not make its size"))

    private func listFetcher() throws(RestoreFailure) -> FrameFetcher {
        try repositoryCall { () throws(RepositoryError) in try fetcher() }
    }

    private func repositoryCall<Value>(
        _ body: () throws(RepositoryError) -> Value
    ) throws(RestoreFailure) -> Value {
        do throws(RepositoryError) { return try body() } catch { throw .repository(error) }
    }

    // MARK: What needs no frame

    /// Makes an entry that has no content, or whose content is in the target already.
    func makeSimple(_ index: Int, _ round: RestoreRound) {
        guard let tree = context.tree else { return }
        let record = round.records[index]
        do throws(RestoreFailure) {
            let entry = try decode(record, round)
            let relative = context.relative(entry.path)
            switch entry.kind {
            case .directory: return
            case .symlink:
                let placement = Self.placement(record)
                let problems = try onTarget { () throws(FileTreeError) in
                    try tree.makeSymlink(relative, entry: entry, placement: placement)
                }
                outcome.problems(problems)
                outcome.restored(entry.path, entry.kind)
            case .fifo, .socket, .characterDevice, .blockDevice:
                let placement = Self.placement(record)
                let problems = try onTarget { () throws(FileTreeError) in
                    try tree.makeSpecial(relative, entry: entry, placement: placement)
                }
                outcome.problems(problems)
                if problems.contains(where: { $0.aspect == .specialFile }) {
                    round.setFailed(index)
                } else {
                    outcome.restored(entry.path, entry.kind)
                }
            case .file:
                if record.chunks == 0 {
                    let holes = try holes(of: entry)
                    guard RestorePieces(holes: holes, size: entry.size).isComplete else {
                        throw Self.sizeDamage
                    }
                }
                finish(try create(record, entry, round), entry, index, round)
            }
        } catch {
            round.setFailed(index)
            report(error, record, round)
        }
    }

    private static func placement(_ record: RestoreRecord) -> TreeWriter.Placement {
        record.action == .create ? .new : .replacing
    }

    // MARK: Further names

    /// Gives a restored file one more name.
    func link(_ number: Int, _ round: RestoreRound) {
        guard let tree = context.tree else { return }
        let (index, existing, leader) = round.links[number]
        let record = round.records[Int(index)]
        do throws(RestoreFailure) {
            let entry = try decode(record, round)
            guard !leader.hasFailed else {
                // Damage to its content costs all names of a file; what the target refused does not.
                let message =
                    "is a hard link to \(UTF8Text.display(existing)), which could not be restored"
                let isDamaged = outcome.isDamaged { context.relative($0) == existing }
                return isDamaged
                    ? outcome.damage(entry.path, object: "", message)
                    : outcome.problem(entry.path, message)
            }
            do throws(FileTreeError) {
                let isNew = try tree.makeHardLink(
                    from: existing, to: context.relative(entry.path),
                    placement: Self.placement(record))
                if record.action != .same {
                    outcome.linked(entry.path)
                } else if isNew {
                    outcome.joined()
                }
            } catch {
                switch error.kind {
                case .unsupported, .denied, .changed, .notFound:
                    // No link is possible there: the content is written once more.
                    round.unlinked.withLock { $0.append(index) }
                default: throw RestoreFailure.target(error)
                }
            }
        } catch {
            report(error, record, round)
        }
    }

    // MARK: Reading back

    /// Reads a file that was written and compares the digests of its chunks.
    func verify(_ index: Int, _ round: RestoreRound) {
        let record = round.records[index]
        guard round.isWritten(index), let target = context.target else { return }
        do throws(RestoreFailure) {
            let entry = try decode(record, round)
            let file = try onTarget { () throws(FileTreeError) in
                try target.openFile(context.relative(entry.path))
            }
            guard let file else {
                return outcome.problem(
                    entry.path, "cannot be read back, so what was written is not proven")
            }
            let isRight = try matches(entry, file).isAll && file.status.size == entry.size
            if isRight {
                outcome.verified.wrappingAdd(1, ordering: .relaxed)
            } else {
                outcome.problem(
                    entry.path, kind: "verify",
                    "does not read back as it was written: check the target's disk")
            }
        } catch {
            report(error, record, round)
        }
    }
}
