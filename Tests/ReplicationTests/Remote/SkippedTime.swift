import CSystem
import ObjectStorage
import Synchronization

/// A clock on which whoever waits for a store has waited as soon as he begins: minutes of a bad
/// night pass in a moment. Where several threads wait, their waits add up.
final class SkippedTime: Sendable {
    private let skipped = Atomic<Int64>(0)

    /// How much was not waited for.
    var seconds: Double { Double(skipped.load(ordering: .relaxed)) / 1e9 }

    func surroundings(
        report: @escaping @Sendable (StoreEvent) -> Void
    ) -> StoreSurroundings {
        StoreSurroundings(
            now: { csys_boottime_ns() + self.skipped.load(ordering: .relaxed) },
            pause: { self.skipped.add($0, ordering: .relaxed) },
            report: report)
    }
}
