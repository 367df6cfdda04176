import BundleFormat
import SnapshotModel
import SnapshotRepository
import Synchronization

/// What is to be rewritten, and everything that the rewriting goes by.
struct PruneRewriting: Sendable {
    /// Opens content.
    let reader: Repository
    let plan: PruneRewritePlan
    let live: LiveChunks
    /// Bundles that stay as they are and that anybody may rely on.
    private let stays: BundleSet
    /// Condemned, or about to be, for another reason than that it is rewritten.
    private let condemned: BundleSet
    private let isThere: BundleSet
    /// For each rewritten bundle: where its live chunks are at home from now on.
    private var homes: [Int: Set<Int>] = [:]
    /// For each rewritten bundle: how many chunks of it are copied.
    private(set) var copied: [Int: Int] = [:]

    /// What a plan goes by before it can say what is rewritten.
    struct Survey {
        let live: LiveChunks
        let stays: BundleSet
        let use: BundleUse

        /// - Parameter state: Of the view that `live` was marked in.
        init(_ state: PruneState, _ plan: PrunePlan, live: LiveChunks) {
            self.live = live
            var stays = BundleSet(capacity: state.bundles.count)
            for (number, verdict) in plan.verdicts.enumerated()
            where verdict == .keep || verdict == .young {
                if plan.bundles.isThere.contains(number) { stays.insert(number) }
            }
            self.stays = stays
            use = Self.use(bundles: state.bundles.count, live, stays)
        }

        /// Chunks count by their share of their frame, which is compressed as a whole.
        private static func use(
            bundles: Int, _ live: LiveChunks, _ stays: BundleSet
        ) -> BundleUse {
            var raw = [UInt32](repeating: 0, count: live.frameCount)
            var rawLive = raw
            var rawAlone = raw
            var aloneChunks = [Int](repeating: 0, count: bundles)
            live.forEach { isLive, places in
                // One copy is the one that costs something, whichever others are rewritten.
                let home = isLive ? PruneRewriting.home(places, stays) : -1
                for place in places {
                    raw[place.frame] &+= UInt32(place.length)
                    guard isLive else { continue }
                    rawLive[place.frame] &+= UInt32(place.length)
                    guard place.bundle == home else { continue }
                    rawAlone[place.frame] &+= UInt32(place.length)
                    aloneChunks[place.bundle] += 1
                }
            }
            var whole = [Int](repeating: 0, count: bundles)
            var use = BundleUse(whole: whole, live: whole, alone: whole, aloneChunks: aloneChunks)
            for number in 0..<bundles {
                for (frame, length) in live.frames(ofBundle: number) where raw[frame] > 0 {
                    whole[number] += length
                    use.live[number] += length * Int(rawLive[frame]) / Int(raw[frame])
                    use.alone[number] += length * Int(rawAlone[frame]) / Int(raw[frame])
                }
            }
            use.whole = whole
            return use
        }
    }

    init(_ survey: Survey, _ base: PrunePlan, _ plan: PruneRewritePlan, reader: Repository) {
        self.reader = reader
        self.plan = plan
        live = survey.live
        isThere = base.bundles.isThere
        stays = survey.stays.subtracting(plan.rewritten)
        var condemned = base.bundles.condemned
        for number in base.numbers(.condemn) { condemned.insert(number) }
        self.condemned = condemned.subtracting(plan.rewritten)
        var homes: [Int: Set<Int>] = [:]
        var copied: [Int: Int] = [:]
        let (stays, rewritten) = (stays, plan.rewritten)
        live.forEach { isLive, places in
            guard isLive, places.contains(where: { rewritten.contains($0.bundle) }) else { return }
            let home = Self.home(places, stays, rewritten)
            if rewritten.contains(home) { copied[home, default: 0] += 1 }
            for place in places where rewritten.contains(place.bundle) {
                homes[place.bundle, default: []].insert(home)
            }
        }
        self.homes = homes
        self.copied = copied
    }

    /// Of the bundles that hold a chunk the one whose copy counts: the first of those that stay, or
    /// else of all.
    private static func home(_ places: [LiveChunks.Place], _ stays: BundleSet) -> Int {
        var home = -1
        var lasts = false
        for place in places {
            let isBetter = stays.contains(place.bundle)
            if home < 0 || isBetter && !lasts || isBetter == lasts && place.bundle < home {
                (home, lasts) = (place.bundle, isBetter)
            }
        }
        return home
    }

    /// The same once it is known what is rewritten: what neither stays nor is rewritten may not be
    /// relied on.
    private static func home(
        _ places: [LiveChunks.Place], _ stays: BundleSet, _ rewritten: BundleSet
    ) -> Int {
        home(
            places.filter { stays.contains($0.bundle) || rewritten.contains($0.bundle) }, stays)
    }

    /// Whether a chunk of a rewritten bundle goes from there to the new one.
    func isCopied(_ id: ChunkID, from bundle: Int) -> Bool {
        guard live.contains(id) else { return false }
        return Self.home(live.places(of: id), stays, plan.rewritten) == bundle
    }

    /// So many new bundles are made before the index tells of them: what the next prune does not
    /// find where this one stops is bounded, and so is what is said of them in memory.
    func roundEnd(from start: Int) -> Int {
        var (end, chunks) = (start, 0)
        repeat {
            chunks += plan.groups[end].reduce(0) { $0 + (copied[$1] ?? 0) }
            end += 1
        } while end < plan.groups.count && chunks < Limits.pendingChunks * 2
            && (end - start) * BundleLimits.bundleBytes < Limits.checkpointBytes
        return end
    }

    /// Bundles that stay and hold what rewritten ones held.
    var relied: Set<Int> {
        homes.values.reduce(into: Set<Int>()) { $0.formUnion($1.filter { stays.contains($0) }) }
    }

    /// The line that a segment gets in place of those that name what is rewritten; nil where it has
    /// one that lasts, and where none could stand alone anyway.
    func line(
        for lines: [[Int]], bundles: [PruneState.Bundle], new: [Int: BundleID]
    ) -> [BundleID]? {
        let candidates = lines.filter {
            $0.allSatisfy { isThere.contains($0) && !condemned.contains($0) }
        }
        if candidates.contains(where: { !$0.contains { plan.rewritten.contains($0) } }) {
            return nil
        }
        guard let old = candidates.first else { return nil }
        var line: Set<BundleID> = []
        for number in old {
            guard plan.rewritten.contains(number) else {
                line.insert(bundles[number].id)
                continue
            }
            for home in homes[number] ?? [] { line.insert(new[home] ?? bundles[home].id) }
        }
        return line.sorted()
    }
}

/// Writes half-dead bundles anew without what is dead in them, and many small ones as one.
///
/// New bundles come first, then the index lines that name them, and only then are the old ones
/// condemned, to be deleted like any other a grace period later. Whoever dies in between has made
/// bundles that nobody needs, or lines that are as true as the old ones.
extension Prune {
    // MARK: Planning

    /// Reads the manifests and decides; nil where they cannot all be read, and nothing is to be
    /// done then.
    func planRewriting(
        _ view: PruneView, _ plan: PrunePlan, budget: RewriteBudget
    ) throws(ReplicationError) -> PruneRewriting? {
        let reader = try reader()
        monitor.phase("reading manifests")
        // What is not whole is not read: its bundles stay as they are.
        let lacking = Set(plan.lacking)
        let manifests = try PruneManifests(
            reader, needs: view.needs, monitor: monitor, cancellation: cancellation)
        let outcome = try manifests.run(
            plan.snapshotsCounted.filter { !lacking.contains($0) }.map { view.snapshots[$0] })
        let live: LiveChunks
        switch outcome {
        case .success(let marked): live = marked
        case .failure(let obstacle):
            let whose = obstacle.snapshot.map { "snapshot \($0.short): " } ?? ""
            report.notes.append(
                "nothing is rewritten, since not all manifests can be read: \(whose)\(obstacle.error.description)"
            )
            if obstacle.error.kind == .damaged { report.foundDamage = true }
            return nil
        }
        let survey = PruneRewriting.Survey(view.state, plan, live: live)
        let rewrite = PruneRewritePlan(
            view.state, plan, needs: IndexNeedSource(view), use: survey.use, budget: budget)
        report.unused = rewrite.unused
        report.unusedLeft = rewrite.unusedLeft
        return PruneRewriting(survey, plan, rewrite, reader: reader)
    }

    /// What an owner could give back, at most: bundles that a snapshot needs, but none that is there
    /// of the run that made them. All that a run has stored its own snapshot needs.
    func reclaimableAtMost(_ view: PruneView, _ plan: PrunePlan) -> Int {
        var sure = BundleSet(capacity: view.state.bundles.count)
        let source = IndexNeedSource(view)
        for number in plan.snapshotsCounted {
            let began = view.snapshots[number].time.seconds
            guard let committed = view.committed[number], began < committed else { continue }
            // In the second in which it began another run may have ended.
            let made = (began + 1)...committed
            for top in source.tops(ofSnapshot: number) {
                let (holders, lines) = source.top(top)
                for bundle in holders + lines.joined() {
                    if let modified = view.state.bundles[bundle].modified, made.contains(modified) {
                        sure.insert(bundle)
                    }
                }
            }
        }
        return plan.needed.members.reduce(0) {
            $0 + (sure.contains($1) ? 0 : view.state.bundles[$1].stored ?? 0)
        }
    }

    // MARK: Writing

    /// One new bundle.
    private struct Written {
        let sealed: SealedBundle?
        let group: Int
    }

    private struct Outcome {
        var written: [Written] = []
        var failure: ReplicationError?
    }

    /// - Returns: Bundles that are to be condemned now.
    func rewrite(
        _ view: PruneView, _ rewriting: PruneRewriting, _ look: PruneLook
    ) throws(PruneInterruption) -> [Int] {
        let groups = rewriting.plan.groups
        guard !groups.isEmpty else { return [] }
        monitor.phase("rewriting")
        monitor.counts.bytesExpected.add(rewriting.plan.writtenBytes, ordering: .relaxed)
        var writer = PruneIndexWriter(repository: repository, look: look)
        var new: [Int: BundleID] = [:]
        let lines = ByteBuffer(capacity: 1 << 20)
        var next = 0
        while next < groups.count {
            let round = next..<rewriting.roundEnd(from: next)
            next = round.upperBound
            for written in try write(groups, round, view, rewriting) {
                guard let sealed = written.sealed else { continue }
                for old in groups[written.group] { new[old] = sealed.id }
                report.written.add(sealed.size)
                IndexCodec.write(sealed, to: lines)
                try writer.put(lines, ifLonger: PruneIndexWriter.recordBytes)
            }
            if next < groups.count { try writer.put(lines) }
        }
        try rewriting.live.forEachLiveSegment { (id, alternatives) throws(PruneInterruption) in
            guard
                let bundles = rewriting.line(
                    for: alternatives, bundles: view.state.bundles, new: new)
            else { return }
            IndexCodec.write(segment: id, bundles: bundles, to: lines)
            try writer.put(lines, ifLonger: PruneIndexWriter.recordBytes)
        }
        try writer.put(lines)
        report.indexWritten += writer.names.count
        var relied = Set(new.values)
        relied.formUnion(rewriting.relied.map { view.state.bundles[$0].id })
        try checkStanding(relied, view, look)
        hasCondemned = true
        report.rewritten = rewriting.plan.halfDead
        report.merged = rewriting.plan.merged
        return rewriting.plan.rewritten.members
    }

    /// The rule of two copies: before a bundle is condemned because others hold what it held, those
    /// are there and condemned by nobody.
    private func checkStanding(
        _ relied: Set<BundleID>, _ view: PruneView, _ look: PruneLook
    ) throws(PruneInterruption) {
        let repository = repository
        let isStanding = try interruptible {
            for item in try repository.listRecords(.condemned) where !look.knows(item.name) {
                do throws(RepositoryError) {
                    let record = try CondemnedRecord(item, in: repository)
                    guard case .condemned(let bundles, _) = record.state else { continue }
                    if !relied.isDisjoint(with: bundles) { return false }
                } catch {
                    guard error.isMissing else { throw error }
                }
            }
            var missing = relied
            try repository.listBundleAges { id, _, _ in missing.remove(id) }
            return missing.isEmpty
        }
        guard isStanding else { throw .superseded }
    }

    /// Writes the new bundles of these groups, two at a time.
    private func write(
        _ groups: [[Int]], _ round: Range<Int>, _ view: PruneView, _ rewriting: PruneRewriting
    ) throws(PruneInterruption) -> [Written] {
        let outcome = Mutex(Outcome())
        let (monitor, cancellation) = (monitor, cancellation)
        let bundles = view.state.bundles
        let level = options.compressionLevel
        VerifyCrew.run(jobs: round.count, cancellation: cancellation) { next in
            do {
                let copier = try BundleCopier(
                    rewriting, level: level, monitor: monitor,
                    cancellation: cancellation)
                while let job = next(), outcome.withLock({ $0.failure == nil }) {
                    let group = round.lowerBound + job
                    for number in groups[group] {
                        try copier.copy(bundles[number].id, number: number)
                    }
                    let sealed = try copier.finish()
                    outcome.withLock { $0.written.append(Written(sealed: sealed, group: group)) }
                }
            } catch {
                let failure = BundleSink.wrap(error)
                outcome.withLock { if $0.failure == nil { $0.failure = failure } }
            }
        }
        let (written, failure) = outcome.withLock { ($0.written, $0.failure) }
        if let failure { throw .failed(failure) }
        try check()
        return written.sorted { $0.group < $1.group }
    }
}

/// Copies live chunks out of old bundles into a new one. One thread; make one for each.
///
/// An old bundle is read whole and checked as a verification would: its name, its seal, the hash of
/// each chunk. What is damaged is not carried on.
private final class BundleCopier {
    private let repository: Repository
    private let rewriting: PruneRewriting
    private let monitor: any Monitor
    private let cancellation: Cancellation
    private let compressor: FrameCompressor
    private let frame = FrameBuilder()
    private let compressed = ByteBuffer(capacity: 2 << 20)
    private let buffer = ByteBuffer(capacity: Limits.rewriteStepBytes)
    private var writer: BundleWriter?
    private var spool: BundleSpool?

    init(
        _ rewriting: PruneRewriting, level: Int, monitor: any Monitor, cancellation: Cancellation
    ) throws {
        repository = rewriting.reader
        self.rewriting = rewriting
        self.monitor = monitor
        self.cancellation = cancellation
        compressor = try FrameCompressor(level: level)
    }

    func copy(_ id: BundleID, number: Int) throws {
        let expected = rewriting.copied[number] ?? 0
        // All that is live in it lies elsewhere, too.
        guard expected > 0 else { return }
        var copied: Set<ChunkID> = []
        var failure: (any Error)?
        var kind = BundleKind.content
        func visit(_ scanned: ScannedFrame) {
            guard failure == nil else { return }
            do {
                for (index, member) in scanned.members.enumerated() {
                    guard rewriting.isCopied(member.place.id, from: number),
                        copied.insert(member.place.id).inserted
                    else { continue }
                    kind = member.kind.bundleKind
                    try add(index, of: scanned, kind: kind)
                }
            } catch {
                failure = error
            }
        }
        let scanner = try BundleScanner(identities: repository.contentIdentities)
        do throws(BundleError) {
            var offset = 0
            while true {
                do { try cancellation.check() } catch { failure = error }
                let count: Int
                do {
                    count = try repository.readBundle(
                        id, range: offset..<(offset + Limits.rewriteStepBytes),
                        into: UnsafeMutableRawBufferPointer(
                            start: buffer.base, count: Limits.rewriteStepBytes))
                } catch {
                    failure = error
                    break
                }
                try scanner.feed(UnsafeRawBufferPointer(start: buffer.base, count: count), visit)
                offset += count
                if count < Limits.rewriteStepBytes || failure != nil { break }
            }
            if failure == nil { _ = try scanner.finish(expecting: id, visit) }
        } catch {
            throw damaged(id, error.description)
        }
        if let failure { throw failure }
        guard copied.count == expected else {
            throw damaged(id, "it does not hold all that the index tells")
        }
    }

    private func damaged(_ id: BundleID, _ what: String) -> ReplicationError {
        ReplicationError(
            .repository(.damaged), repository.bundleKey(id),
            "\(what); it was to be rewritten, and nothing was condemned",
            remedy: "run 'batchsync verify --read-data' to see which snapshots this affects")
    }

    private func add(_ index: Int, of scanned: ScannedFrame, kind: BundleKind) throws {
        if writer == nil {
            let spool = try repository.makeBundleSpool()
            self.spool = spool
            writer = try BundleWriter(
                kind: kind, recipients: repository.contentRecipients,
                wantsMD5: repository.wantsMD5, emit: { try spool.append($0) })
        }
        let more = scanned.range(ofMember: index).count
        if !frame.isEmpty, frame.rawBytes + more > BundleLimits.rawFrameBytes { try flush() }
        try frame.add(copyOf: index, in: scanned)
        if frame.isFull { try flush() }
    }

    private func flush() throws {
        guard let writer, !frame.isEmpty else { return }
        let before = writer.storedBytes
        try writer.append(try compressor.compress(frame, into: compressed))
        frame.reset()
        monitor.counts.bytes.add(writer.storedBytes - before, ordering: .relaxed)
    }

    /// Stores the new bundle; nil where there was nothing to copy. The next one begins after it.
    func finish() throws -> SealedBundle? {
        try flush()
        guard let writer, let spool else { return nil }
        let sealed = try writer.finish()
        try repository.putBundle(sealed, spool: spool)
        monitor.counts.storedBytes.add(sealed.size, ordering: .relaxed)
        self.writer = nil
        self.spool = nil
        return sealed
    }
}
