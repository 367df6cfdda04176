import ObjectStorage
import SnapshotModel
import TestSupport
import Testing

@Suite("Rates, and when they hold")
struct RateTimetableTests {
    private func parse(_ text: String) throws -> RateTimetable {
        try RateTimetable(parsing: text) { ByteCount(parsing: $0)?.bytes }
    }

    /// Seconds since Monday's midnight.
    private func second(_ day: Int, _ hour: Int, _ minute: Int = 0, _ second: Int = 0) -> Int {
        day * 86_400 + hour * 3_600 + minute * 60 + second
    }

    @Test(
        "A rate alone holds always",
        arguments: [
            ("20MB/s", 20_000_000), ("20MB", 20_000_000), ("2M", 2 << 20), ("1.5 MiB/s", 1_572_864),
            ("500k/s", 512_000), ("20Mbit/s", 2_500_000), ("800 kbit/s", 100_000),
            ("unlimited", nil), ("else 3MB/s", 3_000_000), (" 1GB/s ", 1_000_000_000),
            ("20mb/S", 20_000_000), ("Unlimited", nil),
        ] as [(String, Int?)])
    func alone(text: String, rate: Int?) throws {
        let timetable = try parse(text)
        for hour in 0..<168 {
            #expect(timetable.bytesPerSecond(atSecondOfWeek: hour * 3_600) == rate)
        }
        #expect(timetable.description == text)
    }

    @Test("Of several times the first that fits counts, and where none does there is no limit")
    func order() throws {
        let timetable = try parse(
            "mon-fri 08:00-18:00 2MB/s, 18:00-23:00 10MB/s, sat 5MB/s, else unlimited")
        for (moment, rate) in [
            (second(0, 7, 59, 59), nil), (second(0, 8), 2_000_000), (second(4, 17, 59), 2_000_000),
            (second(4, 18), 10_000_000), (second(4, 22, 59, 59), 10_000_000), (second(4, 23), nil),
            (second(5, 8), 5_000_000), (second(5, 19), 10_000_000), (second(6, 12), nil),
        ] as [(Int, Int?)] {
            #expect(timetable.bytesPerSecond(atSecondOfWeek: moment) == rate, "\(moment)")
        }
        let rest = try parse("00:00-06:00 unlimited, else 1MB/s")
        #expect(rest.bytesPerSecond(atSecondOfWeek: second(2, 3)) == nil)
        #expect(rest.bytesPerSecond(atSecondOfWeek: second(2, 6)) == 1_000_000)
        let without = try parse("sun 09:00-10:00 1MB/s")
        #expect(without.bytesPerSecond(atSecondOfWeek: second(6, 9, 30)) == 1_000_000)
        #expect(without.bytesPerSecond(atSecondOfWeek: second(0, 9, 30)) == nil)
    }

    @Test("A time may run past midnight, and days past Sunday")
    func wrapping() throws {
        let night = try parse("fri-mon 22:00-06:00 1MB/s")
        for (moment, isLimited) in [
            (second(4, 21, 59), false), (second(4, 22), true), (second(5, 5, 59), true),
            (second(5, 6), false), (second(6, 23), true), (second(0, 1), true),
            (second(0, 23), true), (second(1, 5), true), (second(1, 22), false),
            (second(4, 3), false),
        ] {
            #expect(
                (night.bytesPerSecond(atSecondOfWeek: moment) != nil) == isLimited, "\(moment)")
        }
        let whole = try parse("mon 00:00-24:00 1MB/s")
        #expect(whole.bytesPerSecond(atSecondOfWeek: second(0, 23, 59, 59)) == 1_000_000)
        #expect(whole.bytesPerSecond(atSecondOfWeek: second(1, 0)) == nil)
        // A caller whose week begins elsewhere is not led outside of it.
        #expect(whole.bytesPerSecond(atSecondOfWeek: second(7, 1)) == 1_000_000)
        #expect(whole.bytesPerSecond(atSecondOfWeek: second(-7, 1)) == 1_000_000)
    }

    @Test(
        "What is no timetable is refused with what is wrong and how it is written",
        arguments: [
            ("", "empty"), ("20", "1 kB/s"), ("0", "1 kB/s"), ("fast", "'fast'"),
            ("08:00-09:00 1MB/s,", "commas"), ("20MB/s,", "when '20mb/s' holds"),
            ("20XB/s", "'20xb/s'"), ("-5MB/s", "'-5mb/s'"),
            ("20MB/s, 08:00-18:00 1MB/s", "when '20mb/s' holds"),
            ("08:00-18:00", "a rate is missing"), ("else", "a rate is missing"),
            ("else 1MB/s, 08:00-09:00 2MB/s", "last"), ("08:00-25:00 1MB/s", "'08:00-25:00'"),
            ("8-18 1MB/s", "'8-18 1mb/s'"), ("08:00 1MB/s", "'08:00'"),
            ("08:00-08:00 1MB/s", "ends when it begins"), ("24:00-06:00 1MB/s", "'24:00-06:00'"),
            ("mon-fry 08:00-18:00 1MB/s", "'mon-fry'"), ("mon-tue-wed 1MB/s", "'mon-tue-wed'"),
            ("08:60-09:00 1MB/s", "'08:60-09:00'"), ("mon 1MB/s 2MB/s", "'1mb/s 2mb/s'"),
            ("99999999999999999999MB/s", "no rate"), ("7bit/s", "1 kB/s"),
            ("08:5-09:00 1M", "08:5"),
        ])
    func errors(text: String, complaint: String) {
        let error = #expect(throws: RateSyntaxError.self) { try parse(text) }
        #expect(error?.description.contains(complaint) == true, "\(error?.description ?? "")")
        #expect(error?.remedy.contains("20MB/s") == true)
    }
}
