import RunReports
import SnapshotModel
import TestSupport
import Testing

@Suite("The log of runs")
struct RunLogTests {
    private let directory = TemporaryDirectory()

    private func log(_ level: RunLog.Level = .info, rotateAtBytes: Int = 1 << 20) -> RunLog {
        RunLog(
            path: directory.path("home.log"), level: level, rotateAtBytes: rotateAtBytes,
            profile: "home", now: { RunSamples.evening })
    }

    private func lines(_ name: String = "home.log") throws -> [JSONValue] {
        try (directory.read(name) ?? []).split(separator: 0x0A).map {
            try #require(JSONValue(parsing: Array($0)), "\(String(decoding: $0, as: UTF8.self))")
        }
    }

    @Test("A line says when, how bad, what, and in which profile")
    func line() throws {
        log().write(.warning, "problem", "a \"file\"\nof two lines", [("path", .string("/srv/x"))])
        let line = try #require(try lines().first)
        #expect(line["time"]?.string == "2026-03-31T22:00:00.500000000Z")
        #expect(line["level"]?.string == "warning")
        #expect(line["profile"]?.string == "home")
        #expect(line["event"]?.string == "problem")
        #expect(line["message"]?.string == "a \"file\"\nof two lines")
        #expect(line["path"]?.string == "/srv/x")
    }

    @Test("What is more talkative than the level is not written", arguments: RunLog.Level.allCases)
    func levels(_ level: RunLog.Level) throws {
        let log = log(level)
        for other in RunLog.Level.allCases { log.write(other, "x", other.rawValue) }
        let expected = RunLog.Level.allCases.prefix { $0 <= level }.map(\.rawValue)
        #expect(try lines().map { $0["message"]?.string } == expected)
    }

    @Test(
        "The end of a run is as loud as it went, and has all that is known of it",
        arguments: [
            (RunSummary.Outcome.success, "info"), (.skipped, "info"), (.partial, "warning"),
            (.damage, "error"), (.failure, "error"), (.interrupted, "error"),
        ])
    func end(_ outcome: RunSummary.Outcome, _ level: String) throws {
        log().write(RunSamples.run(outcome))
        let line = try #require(try lines().first)
        #expect(line["level"]?.string == level)
        #expect(line["run"].flatMap { RunSummary($0) } == RunSamples.run(outcome))
    }

    @Test("A full log is put aside, five are kept, and no line is lost or torn between them")
    func rotation() throws {
        let log = log(rotateAtBytes: 1_000)
        for number in 0..<200 { log.write(.info, "x", "line \(number)") }
        #expect(log.failure == nil)
        let names = [
            "home.log.5", "home.log.4", "home.log.3", "home.log.2", "home.log.1", "home.log",
        ]
        #expect(Set(directory.contents()).subtracting(names) == [])
        let messages = try names.flatMap { try lines($0) }.compactMap { $0["message"]?.string }
        #expect(messages == (200 - messages.count..<200).map { "line \($0)" })
        #expect(messages.count > 20)
    }

    @Test("Threads that write at once leave whole lines")
    func concurrent() async throws {
        let log = log()
        await atOnce(8) { number in
            for round in 0..<50 { log.write(.info, "x", "\(number) \(round)") }
        }
        let found = Set(try lines().compactMap { $0["message"]?.string })
        #expect(found.count == 400)
    }

    @Test("A log that cannot be written is said once and stops nothing")
    func unwritable() throws {
        let log = RunLog(
            path: directory.path("missing/home.log"), level: .info, rotateAtBytes: 1_000,
            profile: nil, now: { RunSamples.evening })
        log.write(.info, "x", "one")
        log.write(.info, "x", "two")
        #expect(log.failure?.subject == directory.path("missing/home.log"))
    }
}
