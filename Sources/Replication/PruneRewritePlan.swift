import BundleFormat
import SnapshotModel

/// How much one prune may write anew.
package enum RewriteBudget: Sendable, Equatable {
    case bytes(Int)
    /// Of all stored bundles, 0 to 1.
    case share(Double)

    func bytes(of stored: Int) -> Int {
        switch self {
        case .bytes(let bytes): bytes
        case .share(let share): Int((Double(stored) * share).rounded())
        }
    }
}

/// How much of each bundle is live, in compressed bytes, by number of the bundle.
package struct BundleUse: Sendable {
    /// All frames that hold chunks.
    package var whole: [Int]
    /// What snapshots that count name.
    package var live: [Int]
    /// Of what is live, that of which this bundle's copy is the one that counts: the only one, or the
    /// first of several.
    package var alone: [Int]
    /// How many chunks that is.
    package var aloneChunks: [Int]

    package init(whole: [Int], live: [Int], alone: [Int], aloneChunks: [Int]) {
        self.whole = whole
        self.live = live
        self.alone = alone
        self.aloneChunks = aloneChunks
    }
}

/// Which bundles are to be written anew without what is dead in them, and which become one,
/// decided from one look at the store and the manifests, and nothing else.
///
/// The deadest go first, until what stays unused is a small share of everything: a bundle of which
/// half is dead gives back as much as it costs, one of which a twentieth is dead costs twenty times
/// what it gives.
package struct PruneRewritePlan: Sendable {
    /// So much of what is stored may stay unused.
    package static let unusedPercent = 5
    /// Bundles below this, an eighth of a full one, are those of quiet nights.
    package static let smallBundleBytes = BundleLimits.bundleBytes / 8
    /// So many of one kind become few: each is a request for a restore and a line in every listing.
    package static let smallBundles = 32

    /// Bundles whose live chunks go to one new bundle, in order; one list for each new bundle.
    package private(set) var groups: [[Int]] = []
    package private(set) var halfDead = PruneTally()
    package private(set) var merged = PruneTally()
    /// Bytes that are going to be written, about.
    package private(set) var writtenBytes = 0
    /// Bytes of needed bundles that nobody needs, before and after.
    package private(set) var unused = 0
    package private(set) var unusedLeft = 0
    /// What is rewritten, by number.
    package private(set) var rewritten: BundleSet

    /// - Parameter source: Gives the tops of `state.snapshots` by the same numbers.
    package init(
        _ state: PruneState, _ plan: PrunePlan, needs source: some SnapshotNeedSource,
        use: BundleUse, budget: RewriteBudget
    ) {
        rewritten = BundleSet(capacity: state.bundles.count)
        var stored = 0
        var remaining = 0
        let untouchable = Self.bundles(of: plan.lacking, source, count: state.bundles.count)
        var candidates: [(number: Int, dead: Int, size: Int)] = []
        for (number, bundle) in state.bundles.enumerated() {
            guard let size = bundle.stored else { continue }
            stored += size
            let verdict = plan.verdicts[number]
            guard verdict == .keep || verdict == .held || verdict == .young else { continue }
            remaining += size
            guard verdict != .young, plan.needed.contains(number),
                plan.bundles.isThere.contains(number), !untouchable.contains(number)
            else { continue }
            // What is condemned already is used by nobody new: of it only what lies nowhere else is
            // worth anything.
            let dead =
                use.whole[number] - (verdict == .held ? use.alone[number] : use.live[number])
            unused += dead
            // A run's lease names the old bundle, and a young one may be named by a run that has
            // none.
            guard !state.leased.contains(number), bundle.modified.map(state.isPast) ?? true
            else { continue }
            candidates.append((number, dead, size))
        }
        unusedLeft = unused
        let budget = budget.bytes(of: stored)
        choose(&candidates, use, budget: budget, used: remaining - unused)
        merge(candidates, state, plan, use, budget: budget)
        group(state, use)
    }

    /// All that snapshots name which are not whole: nobody has read what of it they need.
    private static func bundles(
        of snapshots: [Int], _ source: some SnapshotNeedSource, count: Int
    ) -> BundleSet {
        var bundles = BundleSet(capacity: count)
        for snapshot in snapshots {
            for top in source.tops(ofSnapshot: snapshot) {
                let (holders, lines) = source.top(top)
                for bundle in holders + lines.joined() { bundles.insert(bundle) }
            }
        }
        return bundles
    }

    private mutating func take(_ number: Int, _ use: BundleUse) {
        rewritten.insert(number)
        writtenBytes += use.alone[number]
    }

    /// Takes the deadest, as long as too much is unused and the budget lasts.
    private mutating func choose(
        _ candidates: inout [(number: Int, dead: Int, size: Int)], _ use: BundleUse, budget: Int,
        used: Int
    ) {
        func share(_ bundle: (number: Int, dead: Int, size: Int)) -> Double {
            use.whole[bundle.number] == 0
                ? 0 : Double(bundle.dead) / Double(use.whole[bundle.number])
        }
        candidates.sort {
            let (left, right) = (share($0), share($1))
            return left != right ? left > right : $0.number < $1.number
        }
        for bundle in candidates {
            guard bundle.dead > 0 else { break }
            let cost = use.alone[bundle.number]
            // What costs nothing is not worth keeping, however little is unused.
            let isTooMuch =
                unusedLeft > 0 && unusedLeft * 100 > Self.unusedPercent * (used + unusedLeft)
            guard cost == 0 || isTooMuch else { continue }
            guard writtenBytes + cost <= budget else { continue }
            take(bundle.number, use)
            unusedLeft -= bundle.dead
            halfDead.add(bundle.size)
        }
    }

    /// Takes small bundles where they have become many.
    private mutating func merge(
        _ candidates: [(number: Int, dead: Int, size: Int)], _ state: PruneState,
        _ plan: PrunePlan, _ use: BundleUse, budget: Int
    ) {
        for isManifest in [false, true] {
            let small = candidates.filter {
                state.bundles[$0.number].isManifest == isManifest
                    && $0.size < Self.smallBundleBytes && !rewritten.contains($0.number)
                    && plan.verdicts[$0.number] == .keep
            }.sorted { $0.number < $1.number }
            guard small.count >= Self.smallBundles else { continue }
            let cost = small.reduce(0) { $0 + use.alone[$1.number] }
            // Part of them would be many again next time.
            guard writtenBytes + cost <= budget else { continue }
            for bundle in small {
                take(bundle.number, use)
                unusedLeft -= bundle.dead
                merged.add(bundle.size)
            }
        }
    }

    /// Fills new bundles one after the other, the oldest content first. What one bundle holds goes
    /// to one new bundle, so that a line that named the old one need name no more than that.
    private mutating func group(_ state: PruneState, _ use: BundleUse) {
        for isManifest in [false, true] {
            let chosen = rewritten.members.filter { state.bundles[$0].isManifest == isManifest }
                .sorted {
                    let (left, right) = (state.bundles[$0].modified, state.bundles[$1].modified)
                    return left != right ? (left ?? 0) < (right ?? 0) : $0 < $1
                }
            var group: [Int] = []
            var (bytes, chunks) = (0, 0)
            for number in chosen {
                let (more, moreChunks) = (use.alone[number], use.aloneChunks[number])
                if !group.isEmpty,
                    bytes + more > BundleLimits.bundleBytes
                        || chunks + moreChunks > Limits.bundleChunks
                {
                    groups.append(group)
                    (group, bytes, chunks) = ([], 0, 0)
                }
                group.append(number)
                bytes += more
                chunks += moreChunks
            }
            if !group.isEmpty { groups.append(group) }
        }
    }
}
