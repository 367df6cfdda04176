import Replication
import Synchronization
import Testing

@testable import batchsync

/// The line that a person watches.
@Suite("Progress by earlier runs")
struct ProgressExpectationTests {
    private let counts = ProgressCounts()
    private static let second: Int64 = 1_000_000_000

    private func set(_ entries: Int, of expected: Int) {
        counts.entries.store(entries, ordering: .relaxed)
        counts.entriesExpected.store(expected, ordering: .relaxed)
    }

    @Test("Time left comes from what was counted, where nothing is known of earlier runs")
    func counted() {
        var rate = ProgressRate(start: 0)
        set(0, of: 100)
        #expect(rate.line(phase: "", counts: counts, now: 0) == "0:00  0 of 100 entries")
        set(20, of: 100)
        let line = rate.line(phase: "reading", counts: counts, now: 2 * Self.second)
        #expect(line == "0:02  reading  20 of 100 entries  0:09 left")
    }

    @Test("Earlier runs say how long all of it takes, before and after there is anything to count")
    func expected() {
        var rate = ProgressRate(start: 0, expectedMilliseconds: 250_000)
        let hook = rate.line(phase: "hook before", counts: counts, now: 10 * Self.second)
        #expect(hook == "0:10 of about 4:10  hook before  4:01 left")
        // Counted is a part only; what comes after it had its time in earlier runs as well.
        set(0, of: 100)
        _ = rate.line(phase: "reading", counts: counts, now: 20 * Self.second)
        set(50, of: 100)
        let reading = rate.line(phase: "reading", counts: counts, now: 21 * Self.second)
        #expect(reading == "0:21 of about 4:10  reading  50 of 100 entries  3:50 left")
    }

    @Test("More to do than ever counts more than what earlier runs took")
    func longer() {
        var rate = ProgressRate(start: 0, expectedMilliseconds: 60_000)
        set(0, of: 1000)
        _ = rate.line(phase: "", counts: counts, now: 0)
        set(10, of: 1000)
        let line = rate.line(phase: "", counts: counts, now: Self.second)
        #expect(line == "0:01 of about 1:00  10 of 1,000 entries  1:40 left")
        // Nor is a run that has taken longer compared any more.
        #expect(
            rate.line(phase: "", counts: ProgressCounts(), now: 61 * Self.second) == "1:01")
    }

    @Test("What is over in a moment is not announced")
    func short() {
        var rate = ProgressRate(start: 0, expectedMilliseconds: 9_999)
        #expect(rate.line(phase: "x", counts: counts, now: Self.second) == "0:01  x")
    }

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
