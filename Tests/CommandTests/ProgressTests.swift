import Replication
import Synchronization
import Testing

@testable import batchsync

@Suite("The line that shows how far a verb is")
struct ProgressTests {
    @Test("It says that reading waits for the store, and what lies in the spool, while it does")
    func fullSpool() {
        var rate = ProgressRate(start: 0)
        let counts = ProgressCounts()
        counts.spooledBytes.store(5_000_000, ordering: .relaxed)
        let before = rate.line(phase: "storing", counts: counts, now: 1_000_000_000)
        #expect(!before.contains("waiting"))
        counts.waitingForStore.store(1, ordering: .relaxed)
        let waiting = rate.line(phase: "storing", counts: counts, now: 2_000_000_000)
        #expect(waiting.contains("waiting for the store, "), "\(waiting)")
        #expect(waiting.contains("in the spool"), "\(waiting)")
        counts.waitingForStore.store(0, ordering: .relaxed)
        let after = rate.line(phase: "storing", counts: counts, now: 3_000_000_000)
        #expect(!after.contains("waiting"))
    }
}
