import Replication
import SnapshotModel
import Testing

@Suite("What prune chooses to rewrite")
struct PruneRewritePlanTests {
    /// One snapshot that needs all bundles.
    private struct Everything: SnapshotNeedSource {
        let bundles: Int
        var topCount: Int { 1 }
        func tops(ofSnapshot snapshot: Int) -> [Int] { [0] }
        func top(_ number: Int) -> (holders: [Int], lines: [[Int]]) {
            ([0], [Array(0..<bundles)])
        }
    }

    private static let megabyte = 1_000_000

    /// Bundles of so many megabytes, of which so many are live.
    private func plan(
        _ bundles: [(size: Int, live: Int)], manifests: Set<Int> = [], leased: [Int] = [],
        alone: [Int: Int] = [:], budget: RewriteBudget = .share(1)
    ) throws -> PruneRewritePlan {
        let mega = Self.megabyte
        var state = PruneState(
            bundles: bundles.enumerated().map { number, bundle in
                PruneState.Bundle(
                    id: BundleID(UInt64(number), 0, 0, 0), stored: bundle.size * mega,
                    described: bundle.size * mega, modified: Int64(number),
                    isManifest: manifests.contains(number))
            },
            snapshots: [PruneState.Snapshot(id: SnapshotID(1, 0, 0, 0), forgotten: nil, seen: [])],
            now: 10_000_000, graceSeconds: 60)
        for number in leased { state.leased.insert(number) }
        let source = Everything(bundles: bundles.count)
        let base = try PrunePlan(state, needs: source)
        let use = BundleUse(
            whole: bundles.map { $0.size * mega }, live: bundles.map { $0.live * mega },
            alone: bundles.enumerated().map { (alone[$0.offset] ?? $0.element.live) * mega },
            aloneChunks: bundles.map { _ in 1 })
        return PruneRewritePlan(state, base, needs: source, use: use, budget: budget)
    }

    @Test("Nothing where no more than a twentieth is unused")
    func littleIsUnused() throws {
        let plan = try plan([(50, 48), (50, 47)])
        #expect(plan.groups.isEmpty && plan.unused == 5_000_000)
        #expect(plan.unusedLeft == plan.unused)
    }

    @Test("The deadest first, and no more than it takes")
    func deadestFirst() throws {
        let plan = try plan([(60, 55), (60, 10), (60, 57), (60, 30)])
        // 88 of 240 are unused: without the second 38 of 190, without the fourth 8 of 160.
        #expect(plan.rewritten.members == [1, 3])
        #expect(plan.groups == [[1, 3]] && plan.writtenBytes == 40_000_000)
        #expect(plan.unusedLeft == 8_000_000)
        #expect(plan.halfDead.bundles == 2 && plan.merged.bundles == 0)
    }

    @Test("What costs nothing goes however little is unused")
    func free() throws {
        let plan = try plan([(90, 90), (1, 0), (2, 2)], alone: [2: 0])
        #expect(plan.rewritten.members == [1])
        #expect(plan.writtenBytes == 0)
    }

    @Test("No more than the budget, and what fits still goes")
    func budget() throws {
        let plan = try plan(
            [(60, 30), (60, 40), (60, 5), (60, 60)], budget: .bytes(36 * Self.megabyte))
        #expect(plan.rewritten.members == [0, 2] && plan.writtenBytes == 35_000_000)
    }

    @Test("A share of what is stored is a budget, too")
    func share() throws {
        #expect(try plan([(60, 5), (40, 10)], budget: .share(0.05)).rewritten.members == [0])
    }

    @Test("What a lease names is left, and counts as unused all the same")
    func leased() throws {
        let plan = try plan([(60, 10), (60, 60)], leased: [0])
        #expect(plan.groups.isEmpty && plan.unused == 50_000_000)
    }

    @Test("Pieces of manifests and chunks of files never share a bundle")
    func kinds() throws {
        let plan = try plan([(40, 4), (40, 4), (40, 4), (40, 4)], manifests: [1, 2])
        #expect(plan.groups == [[0, 3], [1, 2]])
    }

    @Test("A new bundle is no larger than any other")
    func groups() throws {
        let plan = try plan(Array(repeating: (64, 30), count: 5))
        #expect(plan.groups == [[0, 1], [2, 3], [4]])
    }

    @Test("Small bundles are merged where there are many of a kind", arguments: [31, 32])
    func merges(count: Int) throws {
        let plan = try plan(Array(repeating: (2, 2), count: count) + [(60, 60), (9, 9)])
        #expect(plan.merged.bundles == (count < 32 ? 0 : 32))
        #expect(plan.groups.flatMap { $0 }.count == plan.merged.bundles)
        let cut = try self.plan(
            Array(repeating: (2, 2), count: count), budget: .bytes(60 * Self.megabyte))
        #expect(cut.merged.bundles == 0, "all of them or none")
    }
}
