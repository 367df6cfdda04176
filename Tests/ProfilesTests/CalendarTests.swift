import Glibc
import SnapshotModel
import TestSupport
import Testing

@testable import Profiles

@Suite("Calendar expressions")
struct CalendarTests {
    /// Berlin as it is since 1996: clocks change on the last Sunday of March and of October.
    static func berlin(_ seconds: Int64) -> Int64 {
        let year = Timestamp(seconds: seconds).civil.year
        func change(_ month: Int) -> Int64 {
            let last = Timestamp(year: year, month: month, day: 31).seconds
            return last - (last / 86_400 + 4) % 7 * 86_400 + 3_600
        }
        return seconds >= change(3) && seconds < change(10) ? 7_200 : 3_600
    }

    static func utc(_ text: String) throws -> Timestamp {
        try #require(
            Timestamp(rfc3339: text.replacing(" ", with: "T") + ":00.000000000Z"), "\(text)")
    }

    @Test(
        "The next times are those that the calendar has",
        arguments: [
            // A plain night, and the moment itself is not after itself.
            ("02:30", "2026-11-26 02:29", ["2026-11-26 02:30", "2026-11-27 02:30"]),
            ("02:30", "2026-11-26 02:30", ["2026-11-27 02:30"]),
            ("Mon..Fri 22:00", "2026-11-27 22:00", ["2026-11-30 22:00", "2026-12-01 22:00"]),
            (
                "Sat,Sun 12:00", "2026-11-26 00:00",
                ["2026-11-28 12:00", "2026-11-29 12:00", "2026-12-05 12:00"]
            ),
            ("hourly", "2026-12-31 22:30", ["2026-12-31 23:00", "2027-01-01 00:00"]),
            ("*-*-* 00/6:15", "2026-01-01 00:15", ["2026-01-01 06:15", "2026-01-01 12:15"]),
            ("quarterly", "2026-02-01 00:00", ["2026-04-01 00:00", "2026-07-01 00:00"]),
            // Leap days, and months that end early.
            ("*-02-29 01:00", "2026-01-01 00:00", ["2028-02-29 01:00", "2032-02-29 01:00"]),
            ("Sun *-02-29", "2029-01-01 00:00", ["2032-02-29 00:00", "2060-02-29 00:00"]),
            ("*-*-31", "2026-01-31 00:00", ["2026-03-31 00:00", "2026-05-31 00:00"]),
            ("*-02~01 03:00", "2026-03-01 00:00", ["2027-02-28 03:00", "2028-02-29 03:00"]),
            ("Mon *-05~7/1", "2026-01-01 00:00", ["2026-05-25 00:00", "2027-05-31 00:00"]),
            ("2027-01..02-01 04:00", "2026-01-01 00:00", ["2027-01-01 04:00", "2027-02-01 04:00"]),
            // cron: either day where both are restricted, both where one begins with a star.
            (
                "15 3 13 * 5", "2026-11-01 00:00",
                ["2026-11-06 03:15", "2026-11-13 03:15", "2026-11-20 03:15"]
            ),
            ("0 0 */10 * 1", "2026-06-01 01:00", ["2026-08-31 00:00", "2026-09-21 00:00"]),
            ("*/20 6-7 * jan sun", "2026-12-30 00:00", ["2027-01-03 06:00", "2027-01-03 06:20"]),
            ("@weekly", "2026-11-26 00:00", ["2026-11-29 00:00"]),
            ("0 4 * * 7", "2026-11-26 00:00", ["2026-11-29 04:00"]),
        ])
    func next(_ text: String, _ start: String, _ expected: [String]) throws {
        let expression = try CalendarExpression(parsing: text)
        var moment = try Self.utc(start)
        for time in expected {
            moment = try #require(expression.next(after: moment) { _ in 0 }, "\(text)")
            #expect(moment == (try Self.utc(time)), "\(text): \(moment.rfc3339), not \(time)")
        }
    }

    @Test(
        "A time that the clocks skip runs at the change, and one that they show twice the first time",
        arguments: [
            // 29 March 2026: 02:00 becomes 03:00, which is 01:00 UTC.
            ("02:30", "2026-03-28 01:30", ["2026-03-29 01:00", "2026-03-30 00:30"]),
            (
                "*:00/30", "2026-03-29 00:00",
                ["2026-03-29 00:30", "2026-03-29 01:00", "2026-03-29 01:30"]
            ),
            // 25 October 2026: 03:00 becomes 02:00, at 01:00 UTC.
            ("02:30", "2026-10-24 00:30", ["2026-10-25 00:30", "2026-10-26 01:30"]),
            ("hourly", "2026-10-24 23:00", ["2026-10-25 00:00", "2026-10-25 02:00"]),
            ("02:30 UTC", "2026-03-29 00:00", ["2026-03-29 02:30", "2026-03-30 02:30"]),
        ])
    func clockChange(_ text: String, _ start: String, _ expected: [String]) throws {
        let expression = try CalendarExpression(parsing: text)
        var moment = try Self.utc(start)
        for time in expected {
            moment = try #require(expression.next(after: moment, offset: Self.berlin), "\(text)")
            #expect(moment == (try Self.utc(time)), "\(text): \(moment.rfc3339), not \(time)")
        }
    }

    @Test(
        "A time that has passed or does not exist comes no more",
        arguments: ["2020-01-01", "*-02-30"])
    func never(_ text: String) throws {
        let expression = try CalendarExpression(parsing: text)
        #expect(expression.next(after: try Self.utc("2026-01-01 00:00")) { _ in 0 } == nil)
    }

    static let refused = [
        "", "*/2", "*-*-* */2:00", "Sat..Mon", "~2/3", "*-*~2/3", "25:00", "02:60", "noon",
        "2:30 3:30",
        "Mon-Fri 02:00", "02:30 Mars/Base", "*-13-01", "1..", "@reboot", "60 * * * *",
        "* * * * 8", "5/10 * * * *", "* * * foo *", "5-1 * * * *", "02", "00..99/0:00", "*-*-30/2",
    ]

    @Test("What is no time is refused with what to write", arguments: refused)
    func refusal(_ text: String) {
        let error = #expect(throws: CalendarSyntaxError.self) {
            try CalendarExpression(parsing: text)
        }
        #expect(error?.reason.isEmpty == false && error?.remedy.isEmpty == false)
    }

    typealias Writing = (text: String, systemd: [String], cron: String?)
    static let writings: [Writing] = [
        ("30 2 * * *", ["*-*-* 02:30:00"], "30 2 * * *"),
        ("15 3 13 * 5", ["*-*-13 03:15:00", "Fri *-*-* 03:15:00"], "15 3 13 * 5"),
        ("@weekly", ["Sun *-*-* 00:00:00"], "0 0 * * 0"),
        ("Mon..Fri 22:00", ["Mon..Fri 22:00"], "0 22 * * 1,2,3,4,5"),
        ("*-*-01 03:00", ["*-*-01 03:00"], "0 3 1 * *"),
        ("daily", ["daily"], "0 0 * * *"), ("*-*~1", ["*-*~1"], nil),
        ("Mon *-*-01", ["Mon *-*-01"], nil), ("02:30:15", ["02:30:15"], nil),
    ]

    @Test("Each syntax is written in the other where that can say it", arguments: writings)
    func writing(_ writing: Writing) throws {
        let (text, systemd, cron) = writing
        let expression = try CalendarExpression(parsing: text)
        #expect(expression.systemd == systemd)
        #expect(expression.cron == cron)
    }

    @Test("systemd understands the same, and computes the same times")
    func systemd() throws {
        let directory = TemporaryDirectory()
        func run(_ line: String) -> (text: String, status: Int32) {
            let status = system("cd '\(directory.path)' && { \(line); } > output 2>&1")
            return (String(decoding: directory.read("output") ?? [], as: UTF8.self), status)
        }
        if run("command -v systemd-analyze").status != 0 {
            try Test.cancel(
                "skipped: this machine cannot; there is no systemd-analyze (package systemd)")
        }
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        func pick(_ items: [String]) -> String { items.randomElement(using: &random)! }
        for _ in 0..<60 {
            let text: String
            if random.next() % 3 == 0 {
                text = [
                    pick(["0", "*/20", "5-10/2", "1,2"]), pick(["3", "*", "*/6"]),
                    pick(["*", "13", "*/10", "1-7"]), pick(["*", "2", "jan,jul"]),
                    pick(["*", "5", "mon-wed", "7"]),
                ].joined(separator: " ")
            } else {
                text =
                    (pick(["", "Mon ", "Sat,Sun ", "Tue..Thu "])
                        + pick([
                            "*-*-* ", "*-02-29 ", "*-*-1/7 ", "*-*~1 ", "*-1..3~7/1 ",
                            "2026,2027-*-5 ", "",
                        ])
                        + pick(["02:30", "*:00/20", "3/5:15:20", "00..6/2:00", "23:59:59"]))
            }
            let expression = try CalendarExpression(parsing: text)
            var ours: [String] = []
            var moment = try Self.utc("2026-11-26 10:11")
            while ours.count < 4, let next = expression.next(after: moment, offset: { _ in 0 }) {
                ours.append(String(next.rfc3339.prefix(19)).replacing("T", with: " "))
                moment = next
            }
            var theirs: Set<String> = []
            for line in expression.systemd {
                let answer = run(
                    "TZ=UTC systemd-analyze calendar --base-time='2026-11-26 10:11:00' --iterations=4 '\(line)'"
                )
                #expect(answer.status == 0, "\(line): \(answer.text)")
                for match in answer.text.matches(of: /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/) {
                    theirs.insert(String(match.output.prefix(19)))
                }
            }
            // The base time itself is said too.
            theirs.remove("2026-11-26 10:11:00")
            #expect(ours == Array(theirs.sorted().prefix(ours.count)), "seed \(seed): '\(text)'")
            #expect(ours.count == min(4, theirs.count), "seed \(seed): '\(text)'")
        }
    }
}
