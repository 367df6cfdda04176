import RunReports
import SnapshotModel
import TestSupport
import Testing

@Suite("The history of runs")
struct RunHistoryTests {
    private let directory = TemporaryDirectory()
    private var history: RunHistory { RunHistory(state: directory.path) }
    private let home = RunHistory.Subject.profile("home")

    private func file(_ name: String = "profile-home.jsonl") -> String { "history/\(name)" }

    @Test("A run comes back as it was told", arguments: RunSummary.Outcome.allCases)
    func roundTrip(_ outcome: RunSummary.Outcome) throws {
        let run = RunSamples.run(outcome)
        try history.append(run, to: home)
        #expect(history.runs(of: home) == [run])
        #expect(RunSummary(run.document) == run)
    }

    @Test("A run of a release that knew more, or less, is still one")
    func otherReleases() throws {
        let more = #"""
            {"verb":"backup","began":"2026-03-31T22:00:00.500000000Z","outcome":"success","new":{"a":[1]},"stores":[{"location":"x","new":1},{"new":2}],"traffic":{"new":1}}
            """#
        let run = try #require(
            JSONValue(parsing: Array(more.utf8)).flatMap { RunSummary($0) })
        #expect(run.began == RunSamples.evening)
        #expect(run.stores.map(\.location) == ["x"])
        for text in ["{}", "[]", #"{"verb":"dance","began":"2026","outcome":"success"}"#] {
            #expect(JSONValue(parsing: Array(text.utf8)).flatMap { RunSummary($0) } == nil)
        }
    }

    @Test("Runs are told the oldest first; each profile and repository has its own")
    func subjects() throws {
        let subjects: [RunHistory.Subject] = [
            home, .profile("home/2"), .repository("/mnt/a"), .repository("/mnt%2fa"),
            .repository("home"), .profile("ü"), .profile(String(repeating: "x", count: 300) + "1"),
            .profile(String(repeating: "x", count: 300) + "2"), .profile(".."), .profile(""),
        ]
        for (number, subject) in subjects.enumerated() {
            let began = RunSamples.days(-number)
            try history.append(RunSamples.run(began: began), to: subject)
        }
        for (number, subject) in subjects.enumerated() {
            #expect(history.runs(of: subject).map(\.began) == [RunSamples.days(-number)])
        }
        #expect(
            history.all().map(\.began) == subjects.indices.reversed().map { RunSamples.days(-$0) })
        #expect(
            treeContents(directory.path).allSatisfy { !$0.contains("..") || $0.hasSuffix("jsonl") })
    }

    @Test(
        "What a crash tore off costs that run alone",
        arguments: ["{\"verb\":\"ru", "\0\0\0\0", "nonsense", "{\"verb\":\"run\"}", "\n\n"])
    func torn(_ tail: String) throws {
        let runs = (0..<3).map { RunSamples.run(began: RunSamples.days($0)) }
        try history.append(runs[0], to: home)
        let bytes = try #require(directory.read(file()))
        directory.write(bytes + Array(tail.utf8), to: file())
        #expect(history.runs(of: home) == [runs[0]])
        try history.append(runs[1], to: home)
        try history.append(runs[2], to: home)
        #expect(history.runs(of: home) == runs)
    }

    @Test("Whatever is cut off its end, all runs before are there", arguments: 0..<40)
    func cut(_ lost: Int) throws {
        for day in 0..<3 {
            try history.append(RunSamples.run(began: RunSamples.days(day)), to: home)
        }
        let bytes = try #require(directory.read(file()))
        directory.write(Array(bytes.dropLast(1 + lost * 17)), to: file())
        #expect(history.runs(of: home).count == (lost == 0 ? 3 : 2))
        try history.append(RunSamples.run(began: RunSamples.days(9)), to: home)
        #expect(history.runs(of: home).last?.began == RunSamples.days(9))
        #expect(history.runs(of: home).count == (lost == 0 ? 4 : 3))
    }

    @Test("It grows to its bound, and the oldest runs go")
    func bounded() throws {
        let small = RunHistory(state: directory.path, limitBytes: 20_000)
        for day in 0..<100 {
            try small.append(RunSamples.run(began: RunSamples.days(day)), to: home)
        }
        let runs = small.runs(of: home)
        let kept = runs.count
        #expect(kept >= 10 && kept < 60)
        #expect(runs.map(\.began) == (100 - kept..<100).map { RunSamples.days($0) })
        #expect(small.all() == runs)
        let sizes = ["", ".1"].map { directory.read(file("profile-home.jsonl\($0)"))?.count ?? 0 }
        #expect(sizes.allSatisfy { $0 < 25_000 })
        #expect(directory.contents().count == 3, "\(directory.contents())")
    }

    @Test("The last runs are those at the end of all, wherever the files end", arguments: 0..<12)
    func last(_ count: Int) throws {
        let directory = TemporaryDirectory()
        // A file holds a few runs.
        let history = RunHistory(state: directory.path, limitBytes: 6_000)
        for day in 0..<10 {
            try history.append(
                RunSamples.run(began: RunSamples.days(day)), to: .profile("home"))
        }
        let all = history.runs(of: .profile("home"))
        #expect(
            history.lastRuns(count, of: .profile("home")).map(\.began)
                == all.suffix(count).map(\.began))
        #expect(history.lastRuns(count, of: .profile("other")).isEmpty)
    }

    @Test("A run just after the file was put aside is not the only one that is known")
    func justPutAside() throws {
        let tiny = RunHistory(state: directory.path, limitBytes: 1)
        try tiny.append(RunSamples.run(), to: home)
        #expect(directory.read(file()) == nil)
        #expect(tiny.runs(of: home).count == 1)
        #expect(tiny.all().count == 1)
    }

    @Test("Runs that end at once are all kept, whole")
    func concurrent() async throws {
        let history = RunHistory(state: directory.path, limitBytes: 100_000)
        await atOnce(8) { number in
            for round in 0..<5 {
                do {
                    try history.append(
                        RunSamples.run(began: RunSamples.days(number * 100 + round)),
                        to: .profile("home"))
                } catch {
                    Issue.record("\(error)")
                }
            }
        }
        let began = Set(history.runs(of: home).map(\.began))
        #expect(
            began == Set((0..<8).flatMap { a in (0..<5).map { RunSamples.days(a * 100 + $0) } }))
    }

    @Test("A run with endless reasons leaves a short line")
    func long() throws {
        var run = RunSamples.run(.failure)
        run.failures = (0..<5_000).map { _ in .init(String(repeating: "ü", count: 4_000)) }
        run.text = String(repeating: "ü", count: 100_000)
        try history.append(run, to: home)
        #expect((directory.read(file())?.count ?? .max) < 100_000)
        #expect(history.runs(of: home).first?.failures.count == 20)
    }

    @Test(
        "A directory that cannot be written is an error with a remedy, and an empty one no history")
    func unwritable() throws {
        #expect(history.all() == [])
        #expect(history.runs(of: home) == [])
        directory.write([], to: "history")
        let error = #expect(throws: RunReportError.self) {
            try history.append(RunSamples.run(), to: home)
        }
        #expect(error?.kind == .file)
    }

    @Test("The next run is expected to take as long as the middle one of the last that went well")
    func expectation() {
        func runs(_ list: [(RunSummary.Outcome, Int)]) -> [RunSummary] {
            list.map { outcome, milliseconds in
                var run = RunSamples.run(outcome)
                run.milliseconds = milliseconds
                return run
            }
        }
        func expected(_ list: [(RunSummary.Outcome, Int)], _ verb: RunSummary.Verb = .run) -> Int? {
            RunHistory.expectedMilliseconds(of: verb, after: runs(list))
        }
        #expect(expected([]) == nil)
        #expect(expected([(.failure, 5), (.skipped, 1), (.interrupted, 2)]) == nil)
        #expect(expected([(.success, 50)]) == 50)
        #expect(expected([(.success, 50)], .verify) == nil)
        // The first one took long, and one was a night of much change.
        #expect(
            expected([
                (.success, 90_000), (.success, 30), (.partial, 32), (.success, 31), (.failure, 1),
                (.success, 900), (.success, 33),
            ]) == 33)
        // What was long ago does not count.
        #expect(
            expected(
                (0..<20).map { _ in (.success, 9_999) } + (0..<7).map { _ in (.success, 40) }) == 40
        )
    }

    @Test("Rates are those of the run, and none where it was too quick to say")
    func rates() {
        var run = RunSamples.run()
        #expect(run.readBytesPerSecond == 100)
        #expect(run.sentBytesPerSecond == 10_000)
        run.milliseconds = 99
        #expect(run.readBytesPerSecond == nil && run.sentBytesPerSecond == nil)
    }
}
