import ArgumentParser
import Glibc
import Profiles
import RunReports
import SnapshotModel
import SnapshotRepository

struct HistoryCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "history",
        abstract: "Show the runs of this host: how they went, how long, how fast.",
        discussion: """
            Every run leaves a line in this host's own files: of a profile, or of a repository where no profile was run. Nothing \
            is asked of any store.

                batchsync history
                batchsync history home -n 50
                batchsync history -r /backup/repository --json

            The oldest runs are dropped when there are several thousand.
            """)

    @Argument(
        help: ArgumentHelp(
            "Only the runs of this profile: its name, or the path of its file.",
            valueName: "profile"),
        transform: plainText)
    var profile: String?

    @Option(
        name: [.customShort("r"), .customLong("repo")],
        help: ArgumentHelp(
            "Only the runs at this repository that no profile has made.", valueName: "repository"))
    var repository: PathArgument?

    @Option(
        name: [.customShort("n"), .long],
        help: ArgumentHelp("Only the last so many.", valueName: "count"))
    var last = 20

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        if last < 1 { throw ValidationError("--last takes a number from 1") }
        if profile != nil, repository != nil {
            throw ValidationError("a profile says by itself which repository; name one of the two")
        }
    }

    func perform() throws -> ExitStatus {
        let history = RunHistory(state: Assembly.standardDirectories.state)
        let all =
            if let profile {
                try Self.runs(of: profile, in: history)
            } else if let repository {
                history.runs(
                    of: .repository(
                        RunReporter.place(try Assembly.text(repository.bytes, of: "a repository"))))
            } else {
                history.all()
            }
        let runs = all.suffix(last)
        if output.json {
            JSONOutput.print("history", [("runs", .array(runs.map(\.document)))])
        } else {
            show(Array(runs), of: all.count)
        }
        return .done
    }

    /// - Throws: Where the word means neither a profile that is there nor one that ever ran.
    private static func runs(of word: String, in history: RunHistory) throws -> [RunSummary] {
        let runs = history.runs(of: .profile(ProfileSearchPath.profileName(of: word)))
        guard runs.isEmpty else { return runs }
        do {
            _ = try Assembly.load(word)
        } catch let error as ProfileError where error.kind == .notFound {
            let search = ProfileSearchPath(
                environment: Assembly.wholeEnvironment, isRoot: geteuid() == 0)
            let known = search.names + Set(history.all().compactMap(\.profile)).sorted()
            let near = Spelling.nearest(to: word, among: known)
            throw CommandError(
                .failed,
                "there is no profile '\(RawArguments.display(word))', and no run of one",
                remedy: near.map { "did you mean \($0)?" }
                    ?? "'batchsync history' shows all runs, 'batchsync profile check' all profiles"
            )
        } catch {
            // It is there, so its name was not misspelled; its run says what is wrong with it.
        }
        return []
    }

    private func show(_ runs: [RunSummary], of total: Int) {
        let console = Console.shared
        if !runs.isEmpty {
            var table = TableOutput([
                .init(title: "Begun"), .init(title: "Run"), .init(title: "Outcome"),
                .init(title: "Took", alignment: .right), .init(title: "Read", alignment: .right),
                .init(title: "Stored", alignment: .right), .init(title: "Rate", alignment: .right),
                .init(title: "Requests", alignment: .right),
                .init(title: "Retries", alignment: .right),
                .init(title: "Slowest", alignment: .right), .init(title: "Summary"),
            ])
            for run in runs { table.add(Self.row(run)) }
            table.print(to: console)
        }
        console.out(
            runs.count < total
                ? "\(NumberText.counted(runs.count, "run")) of \(NumberText.grouped(total))"
                : NumberText.counted(runs.count, "run"))
    }

    private static func row(_ run: RunSummary) -> [TableOutput.Cell] {
        func bytes(_ name: String) -> String {
            run.statistics[name].map { NumberText.bytes($0) } ?? ""
        }
        func count(_ value: Int) -> String { value > 0 ? NumberText.grouped(value) : "" }
        let slowest = run.traffic.latency.values.map(\.maximumMilliseconds).max()
        return [
            .init(TimeText.person(run.began)),
            .init((run.profile.map { "\($0) " } ?? "") + run.verb.rawValue),
            .init(run.outcome.rawValue, run.outcome.isTrouble ? .red : .green),
            .init(TimeText.duration(milliseconds: run.milliseconds)), .init(bytes("read_bytes")),
            .init(bytes("stored_bytes")),
            .init(run.readBytesPerSecond.map { "\(NumberText.bytes($0))/s" } ?? ""),
            .init(count(run.traffic.requestCount)), .init(count(run.traffic.retries)),
            .init(slowest.map { $0 > 0 ? "\(NumberText.grouped($0)) ms" : "" } ?? ""),
            .init(UTF8Text.display(Array(run.text.utf8))),
        ]
    }
}
