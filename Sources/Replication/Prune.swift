import BundleFormat
import SnapshotModel
package import SnapshotRepository

/// Gives space back: condemns what no snapshot and no run needs, and deletes what was condemned a
/// grace period ago and is not needed still (docs/protocol.md).
///
/// Waits for nobody and is in nobody's way: backups, restores, verifies and other prunes may go on
/// at any time. It can be stopped anywhere; the next one goes on from what lies in the store. Where
/// it cannot tell what is needed it deletes nothing and says why.
package final class Prune {
    let repository: Repository
    private let owner: OwnerOpening?
    let options: PruneOptions
    let monitor: any Monitor
    let cancellation: Cancellation
    let memory: PruneMemory
    var report = PruneReport()

    /// - Parameter owner: The same repository being opened with its owner's identity, for who has
    ///   opened it with the host key in the meantime.
    package init(
        repository: Repository, owner: OwnerOpening? = nil, options: PruneOptions,
        monitor: any Monitor, cancellation: Cancellation
    ) {
        self.repository = repository
        self.owner = owner
        self.options = options
        self.monitor = monitor
        self.cancellation = cancellation
        memory = PruneMemory(repository)
    }

    /// Whether this prune has condemned anything, or made anything that is condemned unneeded.
    var hasCondemned = false

    /// How often others may change what this one has looked at, before it leaves it to them.
    private static let attempts = 4

    package func run() throws(ReplicationError) -> PruneReport {
        report = PruneReport()
        report.isDryRun = options.dryRun
        report.keepsDeleted = repository.storeKeepsDeleted
        var attempt = 1
        var isSecondPass = false
        while true {
            monitor.phase("reading the repository")
            let memory = memory
            let budget = isSecondPass ? nil : options.rewrite
            let canRead = repository.access.canReadContent || owner != nil
            let view = try PruneView.take(
                repository, asOneTable: budget != nil && canRead, cancellation: cancellation
            ) {
                memory.isOver($0)
            }
            try checkVanished(view)
            let plan = try plan(view)
            var rewriting: PruneRewriting?
            if let budget {
                if canRead {
                    rewriting = try planRewriting(view, plan, budget: budget)
                } else {
                    report.reclaimableAtMost = reclaimableAtMost(view, plan)
                }
            }
            if attempt == 1, !isSecondPass { describe(view, plan, rewriting) }
            if options.dryRun {
                report.requests = requests(view, plan, rewriting)
                return report
            }
            do throws(PruneInterruption) {
                try perform(view, plan, rewriting)
            } catch {
                if case .failed(let failure) = error { throw failure }
                attempt += 1
                if attempt <= Self.attempts { continue }
                report.leftToAnother = true
                report.notes.append(
                    "another prune is at work: what it does not do is left for the next one")
                return report
            }
            // Without a grace period, what has just been condemned can go at once.
            guard repository.config.graceSeconds == 0, hasCondemned, !isSecondPass else {
                return report
            }
            isSecondPass = true
        }
    }

    private func perform(
        _ view: PruneView, _ plan: PrunePlan, _ rewriting: PruneRewriting?
    ) throws(PruneInterruption) {
        // What is condemned is packed again by whoever needs it: not where nobody here can delete it.
        guard !repository.deniesDeleting() else {
            report.deletesDenied = true
            return
        }
        let look = PruneLook(view, repository: repository)
        try deletePhase(view, plan, look)
        try removeRecords(view, plan)
        try condemnPhase(view, plan, rewriting, look)
    }

    /// The repository for who reads content.
    func reader() throws(ReplicationError) -> Repository {
        guard !repository.access.canReadContent, let owner else { return repository }
        return try lifted { try owner.repository() }
    }

    // MARK: Looking

    /// A snapshot that somebody knew and that is neither there nor forgotten was taken away by
    /// something else than prune: what it needed may be wanted back.
    private func checkVanished(_ view: PruneView) throws(ReplicationError) {
        let memory = memory
        var known = try lifted { try memory.knownSnapshots() }
        var remedy =
            "compare with another copy of the repository; if you have deleted it yourself, remove \(memory.path)"
        if let last = LastCommit.load(for: repository) { known.append(last.snapshot) }
        if view.vanished(known).isEmpty {
            known = view.state.deleting.flatMap(\.snapshots)
            remedy = "compare with another copy of the repository"
        }
        if let vanished = view.vanished(known).first {
            throw ReplicationError(
                .repository(.refused), "snapshot \(vanished.short)",
                "is neither there nor forgotten: nothing was deleted", remedy: remedy)
        }
        guard !options.dryRun else { return }
        try lifted {
            try memory.note(view.snapshots.map(\.id))
            memory.keep(view.condemned.map(\.name))
        }
    }

    private func plan(_ view: PruneView) throws(ReplicationError) -> PrunePlan {
        do throws(PrunePlan.Refusal) {
            return try PrunePlan(view.state, needs: IndexNeedSource(view))
        } catch {
            let number: Int
            let message: String
            switch error {
            case .untold(let snapshot):
                number = snapshot
                message =
                    "the index does not tell all that it needs, so nothing was deleted"
            case .damaged(let snapshot, let bundle):
                number = snapshot
                let key = repository.bundleKey(view.state.bundles[bundle].id)
                message =
                    "it needs \(key), which is not there as the index tells it; nothing was deleted"
            }
            let id = view.snapshots[number].id.short
            throw ReplicationError(
                .repository(.damaged), "snapshot \(id)", message,
                remedy:
                    "run 'batchsync verify', then 'batchsync repair index'; what cannot be repaired can be forgotten: 'batchsync forget \(id)'"
            )
        }
    }

    private func describe(
        _ view: PruneView, _ plan: PrunePlan, _ rewriting: PruneRewriting?
    ) {
        for (number, bundle) in view.state.bundles.enumerated() {
            guard let size = bundle.stored else { continue }
            report.stored.add(size)
            if plan.needed.contains(number) { report.needed.add(size) }
            switch plan.verdicts[number] {
            case .wait: report.waiting.add(size)
            case .held: report.held.add(size)
            case .young: report.young.add(size)
            case .delete: if options.dryRun { report.deleted.add(size) }
            case .condemn: if options.dryRun { report.condemned.add(size) }
            case .keep, .missing: break
            }
        }
        report.waitingUntil = plan.waitingUntil.map { Timestamp(seconds: $0) }
        report.snapshotsCounted = plan.snapshotsCounted.count
        report.incomplete = plan.incomplete.map { view.snapshots[$0].id }
        if options.dryRun {
            report.snapshotsRemoved = plan.snapshotsToRemove.map { view.snapshots[$0].id }
            report.indexMerged = plan.indexToMerge.count
            report.indexDeleted = plan.indexToDelete.count
            if let rewrite = rewriting?.plan {
                report.rewritten = rewrite.halfDead
                report.merged = rewrite.merged
                report.written.bundles = rewrite.groups.count
                report.written.bytes = rewrite.writtenBytes
                for number in rewrite.rewritten.members
                where plan.verdicts[number] == .keep {
                    report.condemned.add(view.state.bundles[number].stored ?? 0)
                }
            }
        }
        if !report.incomplete.isEmpty {
            let count = report.incomplete.count
            report.notes.append(
                count == 1
                    ? "1 snapshot lacks what was deleted before it was committed; the next backup of its host stores what is missing"
                    : "\(count) snapshots lack what was deleted before they were committed; the next backup of their hosts stores what is missing"
            )
        }
    }

    /// Requests that the plan comes to, on a store that deletes a thousand objects at once.
    private func requests(
        _ view: PruneView, _ plan: PrunePlan, _ rewriting: PruneRewriting?
    ) -> Int {
        var requests = 0
        if let rewrite = rewriting?.plan, !rewrite.groups.isEmpty {
            // Each old bundle is read in steps, each new one is put; the index, and a last look.
            for number in rewrite.rewritten.members {
                requests += (view.state.bundles[number].stored ?? 0) / Limits.rewriteStepBytes + 1
            }
            requests += rewrite.groups.count + 3
        }
        let deletions = plan.numbers(.delete).count
        if deletions > 0 || !plan.indexToDelete.isEmpty {
            // The announcement, a look at it, the last look, and the index between them.
            requests += 5 + 2 * view.index.count + (deletions + 999) / 1000
        }
        if !plan.snapshotsToRemove.isEmpty { requests += 2 }
        requests += 2 * plan.indexToMerge.count
        if !plan.numbers(.condemn).isEmpty || !plan.indexToMerge.isEmpty { requests += 1 }
        return requests
    }

    // MARK: Condemning

    private func condemnPhase(
        _ view: PruneView, _ plan: PrunePlan, _ rewriting: PruneRewriting?, _ look: PruneLook
    ) throws(PruneInterruption) {
        var doomed = plan.numbers(.condemn)
        if let rewriting {
            // Some of it is condemned already, and goes when that is due.
            doomed += try rewrite(view, rewriting, look).filter {
                !plan.bundles.condemned.contains($0)
            }
        }
        let merged = try mergeIndex(view, plan, look)
        try condemn(doomed.map { view.state.bundles[$0].id }, index: merged)
        for number in doomed {
            if let size = view.state.bundles[number].stored { report.condemned.add(size) }
        }
    }

    /// Ids in one record, so that it stays far below what a reader takes.
    private static let condemnedAtOnce = 400_000

    func condemn(_ bundles: [BundleID], index: [RecordID]) throws(PruneInterruption) {
        guard !bundles.isEmpty || !index.isEmpty else { return }
        monitor.phase("condemning")
        hasCondemned = true
        var rest = bundles[...]
        var index = index
        repeat {
            try check()
            let part = Array(rest.prefix(Self.condemnedAtOnce))
            rest = rest.dropFirst(part.count)
            try putCondemned(.condemned(bundles: part, index: index))
            index = []
        } while !rest.isEmpty
    }

    func putCondemned(
        _ state: CondemnedRecord.State
    ) throws(PruneInterruption) {
        let (repository, host) = (repository, options.host)
        try interruptible {
            _ = try CondemnedRecord.put(
                state, in: repository, time: Timestamp(nanosecondsSince1970: HostClock.now),
                host: host)
        }
    }

    // MARK: Stopping

    func check() throws(PruneInterruption) {
        do throws(ReplicationError) { try cancellation.check() } catch { throw .failed(error) }
    }

    func interruptible<Value>(_ body: () throws -> Value) throws(PruneInterruption) -> Value {
        do throws(ReplicationError) { return try lifted(body) } catch { throw .failed(error) }
    }
}

/// Why a round of a prune ended before it was done.
enum PruneInterruption: Error {
    case failed(ReplicationError)
    /// What it had looked at has changed under it: it looks again.
    case superseded
}

/// A look's age, and what must not have changed for it to count as young again.
///
/// What prune publishes in the index is true as long as nobody else has deleted what it tells of,
/// and nobody deletes before a condemned record that this look does not know is a grace period old.
final class PruneLook {
    private let repository: Repository
    private var lookedAt: Int64
    private var condemned: Set<RecordName>

    init(_ view: PruneView, repository: Repository) {
        self.repository = repository
        lookedAt = view.lookedAt
        condemned = Set(view.condemned.map(\.name))
    }

    func knows(_ record: RecordName) -> Bool { condemned.contains(record) }

    /// This prune has put a record itself.
    func add(_ record: RecordName) { condemned.insert(record) }
    func remove(_ records: some Sequence<RecordName>) { condemned.subtract(records) }

    /// To be called right before something is put into the index.
    func confirm() throws(PruneInterruption) {
        let age = HostClock.monotonic - lookedAt
        guard age > Int64(repository.config.graceSeconds) * 500_000_000 else { return }
        let now = HostClock.monotonic
        let names: Set<RecordName>
        do throws(ReplicationError) {
            let repository = repository
            names = try lifted { Set(try repository.listRecords(.condemned).map(\.name)) }
        } catch {
            throw .failed(error)
        }
        guard names == condemned else { throw .superseded }
        lookedAt = now
    }
}
