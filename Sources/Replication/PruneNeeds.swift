/// A set of bundles by number: one bit each.
package struct BundleSet: Sendable, Equatable {
    private var words: [UInt64]
    package let capacity: Int

    package init(capacity: Int) {
        self.capacity = capacity
        words = [UInt64](repeating: 0, count: (capacity + 63) / 64)
    }

    package func contains(_ number: Int) -> Bool { words[number / 64] >> (number % 64) & 1 == 1 }

    package mutating func insert(_ number: Int) { words[number / 64] |= 1 << (number % 64) }

    package mutating func formUnion(_ other: BundleSet) {
        for index in words.indices { words[index] |= other.words[index] }
    }

    package func subtracting(_ other: BundleSet) -> BundleSet {
        var result = self
        for index in words.indices { result.words[index] &= ~other.words[index] }
        return result
    }

    package var members: [Int] { (0..<capacity).filter { contains($0) } }
}

/// What the index says of the needs of snapshots. A snapshot's need hangs from its tops, the nodes
/// at the top of its manifest and the pieces of its list of problems; snapshots share tops.
package protocol SnapshotNeedSource {
    var topCount: Int { get }
    /// The tops of a snapshot, by number.
    func tops(ofSnapshot snapshot: Int) -> [Int]
    /// The bundles in any of which the top lies, and the alternatives of what lies below it: one
    /// list of bundles for each segment line.
    func top(_ number: Int) -> (holders: [Int], lines: [[Int]])
}

/// Which bundles snapshots need, where there are alternatives to choose from.
///
/// Every prune chooses alike, by the ids of bundles. That saves space; that two that choose
/// differently do no harm is the rule that an alternative counts only if nothing of it is
/// condemned.
package struct PruneNeeds: Sendable {
    /// How whole the index and the listing show a top to be.
    package enum Wholeness: Sendable, Equatable {
        case whole
        /// It lies in bundles, or names bundles by each of its alternatives, that are not there.
        case lacking
        /// The index does not tell where it lies, or what is below it.
        case untold
    }

    package private(set) var needed: BundleSet
    /// By number of the snapshot, for those counted.
    package private(set) var wholeness: [Wholeness?]
    /// What is lacked although the index describes it and nobody has condemned it: damage.
    package private(set) var damage: [(snapshot: Int, bundle: Int)] = []

    /// What is known of each bundle.
    package struct Bundles: Sendable {
        /// Listed by the store, whatever its length.
        package var listed: BundleSet
        /// Listed at the length that the index states.
        package var isThere: BundleSet
        /// Described by the index.
        package var described: BundleSet
        /// By any record at all.
        package var condemned: BundleSet

        package init(capacity: Int) {
            listed = BundleSet(capacity: capacity)
            isThere = listed
            described = listed
            condemned = listed
        }
    }

    package init(
        of snapshots: some Sequence<Int>, count: Int, source: some SnapshotNeedSource,
        bundles: Bundles
    ) {
        needed = BundleSet(capacity: bundles.isThere.capacity)
        wholeness = [Wholeness?](repeating: nil, count: count)
        var known = [(wholeness: Wholeness, damaged: Int?)?](repeating: nil, count: source.topCount)
        for snapshot in snapshots {
            var worst = Wholeness.whole
            for top in source.tops(ofSnapshot: snapshot) {
                let outcome: (wholeness: Wholeness, damaged: Int?)
                if let seen = known[top] {
                    outcome = seen
                } else {
                    let (holders, lines) = source.top(top)
                    outcome = Self.choose(
                        holders: holders, lines: lines, bundles, &needed)
                    known[top] = outcome
                }
                if let bundle = outcome.damaged { damage.append((snapshot, bundle)) }
                switch (worst, outcome.wholeness) {
                case (_, .untold), (.untold, _): worst = .untold
                case (_, .lacking), (.lacking, _): worst = .lacking
                default: break
                }
            }
            wholeness[snapshot] = worst
        }
    }

    private static func choose(
        holders: [Int], lines: [[Int]], _ known: Bundles, _ needed: inout BundleSet
    ) -> (wholeness: Wholeness, damaged: Int?) {
        guard !holders.isEmpty, !lines.isEmpty else {
            for bundle in holders + lines.joined() where known.listed.contains(bundle) {
                needed.insert(bundle)
            }
            return (.untold, nil)
        }
        func isWhole(_ bundles: [Int]) -> Bool { bundles.allSatisfy { known.isThere.contains($0) } }
        func isUsable(_ bundles: [Int]) -> Bool {
            bundles.allSatisfy { known.isThere.contains($0) && !known.condemned.contains($0) }
        }
        /// Whether nothing is wrong with these but that the index does not describe one. Of what is
        /// condemned a delete phase has dropped the lines.
        func isUntold(_ bundles: [Int]) -> Bool {
            bundles.allSatisfy {
                known.isThere.contains($0)
                    || known.listed.contains($0) && !known.described.contains($0)
                        && !known.condemned.contains($0)
            }
        }
        var wholeness = Wholeness.whole
        var damaged: Int?
        for alternatives in [holders.map { [$0] }, lines] {
            if let chosen = alternatives.first(where: isUsable) {
                for bundle in chosen { needed.insert(bundle) }
                continue
            }
            // None that may stand alone: what is left of all of them is kept.
            for bundle in alternatives.joined() where known.listed.contains(bundle) {
                needed.insert(bundle)
            }
            guard !alternatives.contains(where: isWhole) else { continue }
            if alternatives.contains(where: isUntold) {
                wholeness = .untold
                continue
            }
            if wholeness == .whole { wholeness = .lacking }
            // Lost without anybody's having meant to delete it, in each alternative.
            let lost = alternatives.map { bundles in
                bundles.first {
                    !known.isThere.contains($0) && known.described.contains($0)
                        && !known.condemned.contains($0)
                }
            }
            if lost.allSatisfy({ $0 != nil }) { damaged = lost.first ?? nil }
        }
        return (wholeness, damaged)
    }
}
