package import SnapshotModel

/// What prune will do, decided from one look at the store and nothing else.
package struct PrunePlan: Sendable {
    /// What is to become of one bundle.
    package enum Verdict: String, Sendable, CaseIterable {
        /// A snapshot needs it, or a run that goes on.
        case keep
        /// Nobody needs it, but it came within the grace period: a run may be about to.
        case young
        /// Nobody needs it: no later snapshot may, from now on.
        case condemn
        /// Condemned, and its grace period is not over.
        case wait
        /// Condemned, its grace period is over and nobody needs it.
        case delete
        /// Condemned and needed: it stays as long as that lasts.
        case held
        /// It is not there.
        case missing
    }

    /// By number of the bundle.
    package private(set) var verdicts: [Verdict]
    /// What is to be deleted and is told of by the index, whether it is there or not.
    package private(set) var doomed: BundleSet
    /// Condemned records whose grace period is over.
    package private(set) var due: [String] = []
    /// Index objects that were replaced a grace period ago.
    package private(set) var indexToDelete: [RecordID] = []
    /// Index objects that are to become fewer.
    package private(set) var indexToMerge: [RecordID] = []
    /// Forgotten, and their grace period is over; by number.
    package private(set) var snapshotsToRemove: [Int] = []
    /// Those whose need has been counted; by number.
    package private(set) var snapshotsCounted: [Int] = []
    /// Snapshots that lack what prune has deleted, or what no index object tells of any more.
    package private(set) var incomplete: [Int] = []
    /// All that counted and are not whole, the forgotten among them; by number.
    package private(set) var lacking: [Int] = []
    /// Needed by a snapshot that counts, by number.
    package let needed: BundleSet
    /// What was known of each bundle.
    package let bundles: PruneNeeds.Bundles
    /// When the first of what waits may be deleted, by the store's clock.
    package private(set) var waitingUntil: Int64?

    /// Why nothing may be done: what is needed is not known, or damaged.
    package enum Refusal: Error, Sendable, Equatable {
        /// The index does not tell what the snapshot needs.
        case untold(snapshot: Int)
        /// A bundle is missing that the snapshot needs, and nobody has condemned it.
        case damaged(snapshot: Int, bundle: Int)
    }

    /// - Parameter source: Gives the tops of `state.snapshots` by the same numbers.
    package init(
        _ state: PruneState, needs source: some SnapshotNeedSource
    ) throws(Refusal) {
        let count = state.bundles.count
        var known = PruneNeeds.Bundles(capacity: count)
        for record in state.condemned {
            for bundle in record.bundles { known.condemned.insert(bundle) }
        }
        for (number, bundle) in state.bundles.enumerated() {
            if bundle.stored != nil { known.listed.insert(number) }
            guard let described = bundle.described else { continue }
            known.described.insert(number)
            if bundle.stored == described { known.isThere.insert(number) }
        }
        bundles = known
        let counted = state.snapshots.indices.filter { state.counts(state.snapshots[$0]) }
        let needs = PruneNeeds(
            of: counted, count: state.snapshots.count, source: source, bundles: known)
        for number in counted where state.snapshots[number].forgotten == nil {
            if needs.wholeness[number] == .untold { throw .untold(snapshot: number) }
            if needs.wholeness[number] == .lacking { incomplete.append(number) }
        }
        lacking = counted.filter { needs.wholeness[$0] != .whole }
        if let damage = needs.damage.first(where: {
            state.snapshots[$0.snapshot].forgotten == nil
        }) {
            throw .damaged(snapshot: damage.snapshot, bundle: damage.bundle)
        }
        snapshotsCounted = counted
        snapshotsToRemove = state.snapshots.indices.filter { !state.counts(state.snapshots[$0]) }
        needed = needs.needed
        verdicts = [Verdict](repeating: .keep, count: count)
        doomed = BundleSet(capacity: count)
        var kept = needs.needed
        kept.formUnion(state.leased)
        judgeUncondemned(state, kept: kept, condemned: known.condemned)

        // What another phase may be deleting is protected only by snapshots that it had seen, too.
        var protection: [Set<String>: BundleSet] = [[]: kept]
        for record in state.condemned {
            let phases = state.deleting.filter { $0.records.contains(record.name) }
            let isDue = state.isPast(record.since) || !phases.isEmpty
            let names = Set(phases.map(\.name))
            if protection[names] == nil {
                let agreed = counted.filter { number in
                    phases.allSatisfy { $0.snapshots.contains(state.snapshots[number].id) }
                }
                var kept = PruneNeeds(
                    of: agreed, count: state.snapshots.count, source: source, bundles: known
                ).needed
                kept.formUnion(state.leased)
                protection[names] = kept
            }
            judge(record, isDue: isDue, kept: protection[names] ?? kept, state)
        }
        indexToMerge = Self.merges(state)
    }

    private mutating func judgeUncondemned(
        _ state: PruneState, kept: BundleSet, condemned: BundleSet
    ) {
        for (number, bundle) in state.bundles.enumerated() where !condemned.contains(number) {
            if kept.contains(number) {
                verdicts[number] = bundle.stored == nil ? .missing : .keep
            } else if bundle.stored == nil {
                // The index tells of what is not there: condemned, its lines can go.
                verdicts[number] = bundle.described == nil ? .missing : .condemn
            } else if let modified = bundle.modified, !state.isPast(modified) {
                verdicts[number] = .young
            } else {
                verdicts[number] = .condemn
            }
        }
    }

    private mutating func judge(
        _ record: PruneState.Condemned, isDue: Bool, kept: BundleSet, _ state: PruneState
    ) {
        if isDue {
            due.append(record.name)
            let there = Set(state.index.map(\.id))
            for id in record.index where there.contains(id) { indexToDelete.append(id) }
        }
        for bundle in record.bundles {
            let isThere = state.bundles[bundle].stored != nil
            if kept.contains(bundle), isThere {
                // By another record's phase it may be going all the same.
                if verdicts[bundle] != .delete { verdicts[bundle] = .held }
            } else if isDue {
                doomed.insert(bundle)
                verdicts[bundle] = isThere ? .delete : .missing
            } else if verdicts[bundle] != .delete {
                verdicts[bundle] = isThere ? .wait : .missing
                if isThere {
                    let until = record.since + state.graceSeconds
                    waitingUntil = min(waitingUntil ?? until, until)
                }
            }
        }
    }

    // MARK: Index

    /// More index objects than this are merged whatever their size: every host lists and keeps all.
    static let indexObjectsMaximum = 200
    /// So many nights' small ones are merged earlier.
    static let smallIndexObjects = 32
    static let smallIndexBytes = 64 << 10
    /// One of this size is left as it is.
    static let largeIndexBytes = 8 << 20

    private static func merges(_ state: PruneState) -> [RecordID] {
        let replaced = Set(state.condemned.flatMap(\.index))
        let current = state.index.filter { !replaced.contains($0.id) }
        let limit = current.count > indexObjectsMaximum ? largeIndexBytes : smallIndexBytes
        let small = current.filter { $0.stored < limit }
        return small.count >= smallIndexObjects ? small.map(\.id) : []
    }

    /// Bundles with this verdict, ascending.
    package func numbers(_ verdict: Verdict) -> [Int] {
        verdicts.indices.filter { verdicts[$0] == verdict }
    }
}
