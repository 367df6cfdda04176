import ArgumentParser
import Glibc
import Profiles
import RunReports
import SnapshotModel
import SnapshotRepository

struct StatusCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Say how backups stand: how old, how well verified, how large.",
        discussion: """
            Shows for each profile, store and set of sources the newest snapshot and its age, how the last run went, which share of the stored \
            bytes was read back in the last 30 days, and how the store grows. All of it is what this host remembers of its own runs; \
            no store is asked.

                batchsync status
                batchsync status home
                batchsync status --max-age 36h || echo 'backups are old'

            The exit code is 1 where a newest snapshot is older than it may be: than --max-age, or else than what the profile says (max-age in \
            [schedule], 36 hours where it says nothing). So it serves as a check for monitoring. A profile that cannot be read, or that never made \
            a snapshot, counts as one that is too old. One that only others inherit from is no job and is left out, unless it is named. Where no \
            profile was run only --max-age is a limit.
            """)

    @Argument(
        help: ArgumentHelp("Only these profiles.", valueName: "profile"), transform: plainText)
    var profiles: [String] = []

    @Option(
        name: [.customShort("r"), .customLong("repo")],
        help: ArgumentHelp("Only this store.", valueName: "repository"))
    var repository: PathArgument?

    @Option(
        help: ArgumentHelp(
            "How old the newest snapshot may be, such as 36h or 7d.", valueName: "time"))
    var maxAge: DurationArgument?

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    /// A profile, or why it cannot be read.
    private struct Broken {
        let name: String
        let message: String
    }

    /// A run of a profile that has begun and not ended.
    private struct Unfinished {
        let name: String
        let run: RunLock.Unfinished
        /// How long it takes as a rule; nil where nobody knows, and where nothing runs.
        let expectedMilliseconds: Int?

        init(_ name: String, _ run: RunLock.Unfinished, state: String) {
            self.name = name
            self.run = run
            expectedMilliseconds =
                run.isRunning
                ? RunReporter.expectedMilliseconds(of: .run, .profile(name), state: state) : nil
        }

        var sentence: String {
            let since = TimeText.person(run.since)
            guard run.isRunning else {
                return "\(name): the run that began at \(since) was killed before its end"
            }
            let rule = expectedMilliseconds.map {
                ", and takes \(TimeText.duration(milliseconds: $0)) as a rule"
            }
            return "\(name): running since \(since)\(rule ?? "")"
        }
    }

    func perform() throws -> ExitStatus {
        let now = Assembly.now
        let book = StatusBook(state: Assembly.standardDirectories.state)
        let place = try repository.map {
            RunReporter.place(try Assembly.text($0.bytes, of: "a repository"))
        }
        var report = StatusReport()
        var broken: [Broken] = []
        var unfinished: [Unfinished] = []
        // Each file is read once: monitoring asks every minute.
        let known = book.all()
        func record(_ profile: String?, _ location: String) -> StatusRecord {
            known.first { $0.profile == profile && $0.location == location }
                ?? StatusRecord(profile: profile, location: location)
        }
        func add(_ profile: String?, _ location: String, _ maximumAge: Int?) {
            guard place == nil || place == location else { return }
            let facts = record(nil, location)
            let own =
                profile == nil ? facts : record(profile, location).takingStoreFacts(from: facts)
            report.add(
                own, maximumAgeSeconds: maxAge.map { Int($0.seconds) } ?? maximumAge, now: now)
        }
        for name in profiles.isEmpty ? Self.profileNames(known) : profiles {
            do {
                let profile = try Assembly.load(name)
                if let run = RunLock.unfinished(
                    profile: profile.name, directories: Assembly.standardDirectories)
                {
                    unfinished.append(
                        Unfinished(
                            profile.name, run, state: Assembly.standardDirectories.state))
                }
                for location in profile.locations {
                    add(
                        profile.name, RunReporter.place(location),
                        profile.schedule.maximumAgeSeconds)
                }
            } catch {
                guard profiles.isEmpty else { throw error }
                broken.append(Broken(name: name, message: ErrorReport(error).message))
            }
        }
        if profiles.isEmpty {
            // Where words were used. A store that only profiles use says nothing by itself.
            for record in known where record.profile == nil && !record.sources.isEmpty {
                add(nil, record.location, nil)
            }
        }
        for one in broken {
            Console.shared.say("batchsync: profile \(one.name) cannot be read: \(one.message)")
        }
        let isLate = report.isLate || !broken.isEmpty
        if output.json {
            JSONOutput.print(
                "status",
                [
                    ("late", .bool(isLate)), ("lines", .array(report.lines.map(\.document))),
                    (
                        "unfinished_runs",
                        .array(
                            unfinished.map {
                                .object([
                                    ("profile", .string($0.name)), ("since", .time($0.run.since)),
                                    ("running", .bool($0.run.isRunning)),
                                    (
                                        "expected_ms",
                                        $0.expectedMilliseconds.map { .count($0) } ?? .null
                                    ),
                                ])
                            })
                    ),
                    (
                        "broken_profiles",
                        .array(
                            broken.map {
                                .object([
                                    ("profile", .string($0.name)),
                                    ("message", .string($0.message)),
                                ])
                            })
                    ),
                ])
        } else {
            show(report)
            for one in unfinished {
                Console.shared.out(
                    Console.shared.styled(one.sentence, one.run.isRunning ? .blue : .red))
            }
        }
        return isLate ? .failed : .done
    }

    /// What lies where profiles are looked for, and what was run by its path and is still there.
    /// Without what only others inherit from.
    private static func profileNames(_ known: [StatusRecord]) -> [String] {
        let search = ProfileSearchPath(
            environment: Assembly.wholeEnvironment, isRoot: geteuid() == 0)
        let found = search.names
        let byPath = known.filter { record in
            guard let name = record.profile, let file = record.profileFile else { return false }
            return !found.contains(name) && HostFile.realPath(Array(file.utf8)) != nil
        }.compactMap(\.profileFile)
        let all = found + Set(byPath).sorted()
        let profiles = FoundProfiles(all, search: search, known: known)
        return all.filter { profiles.heirOfBase($0) == nil }
    }

    // MARK: Words

    private func show(_ report: StatusReport) {
        let console = Console.shared
        guard !report.lines.isEmpty else {
            console.out("nothing was backed up from here yet")
            return
        }
        var table = TableOutput([
            .init(title: "Profile"), .init(title: "Store"), .init(title: "Sources"),
            .init(title: "Newest"), .init(title: "Age", alignment: .right),
            .init(title: "Problems", alignment: .right), .init(title: "Last run"),
            .init(title: "Verified", alignment: .right),
            .init(title: "Stored", alignment: .right), .init(title: "Per day", alignment: .right),
        ])
        for line in report.lines { table.add(Self.row(line)) }
        table.print(to: console)
        let late = report.lines.count { $0.isLate }
        if late > 0 {
            console.out(console.styled("\(late) of \(report.lines.count) too old", .red))
        }
    }

    private static func row(_ line: StatusReport.Line) -> [TableOutput.Cell] {
        let age = line.ageSeconds.map(ageText) ?? "never"
        let trouble = line.lastRun.map(\.outcome.isTrouble) ?? false
        let last = line.lastRun.map {
            "\($0.outcome.rawValue) \(TimeText.person($0.began).prefix(16))"
        }
        let growth = line.growthPerDay.map {
            ($0 < 0 ? "-" : "+") + NumberText.bytes(abs($0))
        }
        return [
            .init(line.profile ?? ""), .init(UTF8Text.display(Array(line.location.utf8))),
            .init(line.source.map(sources) ?? ""),
            .init(line.source.map { TimeText.person($0.time) } ?? ""),
            .init(age, line.isLate ? .red : nil),
            .init(line.source.map { $0.problemCount > 0 ? "\($0.problemCount)" : "" } ?? "", .red),
            .init(last ?? "", trouble ? .red : .green),
            .init(verified(line)),
            .init(line.storedBytes.map { NumberText.bytes($0) } ?? ""), .init(growth ?? ""),
        ]
    }

    /// The share that was read back of late, and what was not read for longest.
    private static func verified(_ line: StatusReport.Line) -> String {
        guard let share = line.verifiedShare else { return "" }
        let percent = "\(Int(share * 100)) %"
        if let never = line.neverReadBytes, never > 0 {
            return "\(percent), \(NumberText.bytes(never)) never"
        }
        guard share < 1, let oldest = line.oldestRead else { return percent }
        return "\(percent), oldest \(ageText(Int(Assembly.now.seconds - oldest.seconds)))"
    }

    private static func sources(_ source: StatusRecord.Source) -> String {
        let shown = source.roots.prefix(2).map { UTF8Text.display($0) }.joined(separator: " ")
        let more = source.roots.count > 2 ? " and \(source.roots.count - 2) more" : ""
        return "\(UTF8Text.display(Array(source.host.utf8))): \(shown)\(more)"
    }

    /// `17 min`, `5 h`, `3 d`; `in the future` where it is that.
    static func ageText(_ seconds: Int) -> String {
        switch seconds {
        case ..<(-60): "in the future"
        case ..<7200: "\(max(0, seconds) / 60) min"
        case ..<172_800: "\(seconds / 3600) h"
        default: "\(seconds / 86_400) d"
        }
    }
}

extension StatusReport.Line {
    var document: JSONValue {
        func count(_ value: Int?) -> JSONValue { value.map { .integer(Int64($0)) } ?? .null }
        func time(_ value: Timestamp?) -> JSONValue { value.map { .time($0) } ?? .null }
        var fields: [(key: String, value: JSONValue)] = [
            ("profile", .optional(profile)), ("store", .string(location)),
            ("host", .optional(source?.host)), ("sources", .null),
            ("snapshot", .optional(source?.snapshot.description)), ("time", time(source?.time)),
            ("age_seconds", count(ageSeconds)), ("max_age_seconds", count(maximumAgeSeconds)),
            ("late", .bool(isLate)), ("problems", count(source?.problemCount)),
            ("files", count(source?.files)), ("bytes", count(source?.bytes)),
        ]
        if let source { fields[3].value = .array(source.roots.map { JSONValue(path: $0) }) }
        // Four digits behind the point are more than anybody asks for.
        let share = verifiedShare.map { Double(Int($0 * 10_000)) / 10_000 }
        fields += [
            ("last_run", lastRun.map(Self.document) ?? .null),
            ("verified_30_days", share.map { .decimal("\($0)") } ?? .null),
            ("never_verified_bytes", count(neverReadBytes)),
            ("oldest_verification", time(oldestRead)), ("stored_bytes", count(storedBytes)),
            ("growth_per_day", count(growthPerDay)),
        ]
        return .object(fields)
    }

    private static func document(_ run: StatusRecord.LastRun) -> JSONValue {
        .object([
            ("began", .time(run.began)), ("duration_ms", .count(run.milliseconds)),
            ("outcome", .string(run.outcome.rawValue)), ("exit_code", .count(run.exitCode)),
            ("summary", .string(run.text)),
        ])
    }
}
