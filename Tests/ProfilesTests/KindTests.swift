import SnapshotModel
import Testing

@testable import Profiles

@Suite("Measures")
struct MeasureTests {
    @Test(
        "Lengths of time are read in units, the longer first",
        arguments: [
            ("0s", 0), ("90s", 90), ("5m", 300), ("2h", 7_200), ("1d12h", 129_600),
            ("1h30m", 5_400),
            ("2w", 1_209_600), ("1w1d1h1m1s", 694_861), ("36500d", 3_153_600_000),
        ])
    func durations(_ text: String, _ seconds: Int) {
        #expect(DurationText.seconds(parsing: text) == seconds)
        #expect(DurationText.seconds(parsing: DurationText.text(seconds: seconds)) == seconds)
    }

    @Test(
        "What is no length of time is refused",
        arguments: [
            "", "5", "m", "5 m", "5min", "1m1h", "1h1h", "-1h", "1.5h", "1y",
            "99999999999999999999s",
            "40000d", "1h-", "٣h",
        ])
    func noDurations(_ text: String) {
        #expect(DurationText.seconds(parsing: text) == nil)
    }

    @Test(
        "Lengths of time are written as people say them",
        arguments: [
            (0, "0s"), (300, "5m"), (5_400, "90m"), (129_600, "36h"), (604_800, "7d"),
            (3_153_600_000, "36500d"), (86_461, "1d1m1s"), (3_600, "1h"), (400_000, "4d15h6m40s"),
        ])
    func texts(_ seconds: Int, _ text: String) {
        #expect(DurationText.text(seconds: seconds) == text)
    }

    @Test(
        "Shares are read",
        arguments: [
            ("0%", ByteShare.Amount.percent(0)), ("2.5%", .percent(2.5)), ("100%", .percent(100)),
            ("1/30", .fraction(1, of: 30)), ("0/1", .fraction(0, of: 1)),
            ("2GiB", .bytes(ByteCount(2 << 30))),
        ])
    func shares(_ text: String, _ amount: ByteShare.Amount) {
        #expect(ByteShare(parsing: text)?.amount == amount)
        #expect(ByteShare(parsing: text)?.description == text)
    }

    @Test(
        "What is no share is refused",
        arguments: [
            "", "%", "101%", "-1%", "nan%", "inf%", "1e1%", "0x1%", "1/0", "2/1", "/", "1/", "-1/2",
            "1/2/3", "5", "x",
        ])
    func noShares(_ text: String) {
        #expect(ByteShare(parsing: text) == nil)
    }

    @Test("Nothing is nothing, however it is written")
    func nothing() {
        #expect(ByteShare.nothing.isNothing)
        #expect(ByteShare(parsing: "0/5")?.isNothing == true)
        #expect(ByteShare(parsing: "0B")?.isNothing == true)
        #expect(ByteShare(parsing: "0.1%")?.isNothing == false)
    }
}

@Suite("Spelling")
struct SpellingTests {
    @Test(
        "A slip of the finger finds the name that was meant",
        arguments: [
            ("compresion", "compression"), ("Compression", "compression"),
            ("exclude_from", "exclude-from"),
            ("exculde", "exclude"), ("tag", "tags"), ("hots", "host"),
        ])
    func near(_ name: String, _ meant: String) {
        let names = ["compression", "exclude", "exclude-from", "tags", "host", "rehash"]
        #expect(Spelling.nearest(to: name, among: names) == meant)
    }

    @Test(
        "What is near to nothing finds nothing",
        arguments: ["", "x", "paths", String(repeating: "a", count: 9_999)])
    func far(_ name: String) {
        #expect(Spelling.nearest(to: name, among: ["compression", "host"]) == nil)
    }

    @Test(
        "Changes are counted",
        arguments: [
            ("", "", 0), ("a", "", 1), ("", "ab", 2), ("abc", "abd", 1), ("abc", "acb", 1),
            ("kitten", "sitting", 3), ("abcd", "badc", 2),
        ])
    func distance(_ left: String, _ right: String, _ distance: Int) {
        #expect(Spelling.distance(Array(left.utf8), Array(right.utf8)) == distance)
        #expect(Spelling.distance(Array(right.utf8), Array(left.utf8)) == distance)
    }
}
