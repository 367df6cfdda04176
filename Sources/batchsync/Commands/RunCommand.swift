import ArgumentParser
import Profiles
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository

struct RunCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Do what a profile says: back up, verify, forget, prune.",
        discussion: """
            A profile is a TOML file that describes one backup job. A run executes the hooks, backs \
            up to the repository and to every further store of it, reads a share of what is stored back, forgets what \
            the retention rules do not keep, and prunes when the profile's interval has passed. Each store is looked after by itself; one that is down does not stop the others \
            and gets what it lacks the next time.

                batchsync run home
                batchsync run /srv/jobs/shop.toml --if-older-than 20h

            A profile runs once at a time on a host; a second run says who is running since when and exits with 5. Exit code 3 \
            means that the snapshot is there, and that something was left out: a file, or a store. Exit code 4 means that damage was found, by verifying, forgetting or pruning.
            """)

    @Argument(
        help: ArgumentHelp("The profile's name, or the path of its file.", valueName: "profile"),
        transform: plainText)
    var name: String

    @Option(
        help: ArgumentHelp(
            "Do nothing where the last good snapshot is younger than this, such as 20h.",
            valueName: "time"))
    var ifOlderThan: DurationArgument?

    @Option(
        help: ArgumentHelp(
            "Wait this long for a store that does not answer, instead of what the profile says.",
            valueName: "time"))
    var waitOnline: DurationArgument?

    @OptionGroup(title: "Output") var output: OutputOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        var profile: Profile
        do {
            profile = try Assembly.load(name)
        } catch {
            RunReporter.keepUnreadable(name, error, Assembly.standardDirectories)
            throw error
        }
        if let waitOnline { profile.schedule.waitOnlineSeconds = Int(waitOnline.seconds) }
        let directories = try Assembly(profile).directories()
        let reporter = RunReporter(
            profile: profile, locations: profile.locations, directories: directories)
        let lock = try Self.lock(profile, directories, reporter)
        Signals.stopCleanly()
        let monitor = TerminalMonitor(output, log: reporter.log)
        StoreEventText.listen { [log = reporter.log] in log?.write(.warning, "store", $0) }
        let expected = RunReporter.expectedMilliseconds(
            of: .run, .profile(profile.name), state: directories.state)
        monitor.expect(milliseconds: expected)
        reporter.begin(expectedMilliseconds: expected)
        for note in HostPlaces.notes { monitor.keep(note) }
        if let killed = lock.killedRun {
            monitor.note(
                "\(profile.name): the run that began at \(TimeText.person(killed)) was killed before its end"
            )
        }
        for note in ProfileInspection.exposedSecrets(of: profile) { monitor.note(note) }
        var report = try ProfileRun(profile, monitor: monitor).perform(
            ifOlderThan: ifOlderThan.map { Int($0.seconds) }
                ?? profile.schedule.ifOlderThanSeconds)
        report.notes = monitor.notes
        if output.json { JSONOutput.print("run", report.fields) } else { tell(report) }
        Console.shared.flush()
        var findings = RunReporter.Findings()
        if let backup = report.backup { findings.take(backup, at: report.ended) }
        for store in report.stores {
            if let verified = store.verified {
                findings.take(verified, of: store.location, at: report.ended)
            }
            if let pruned = store.pruned {
                findings.take(pruned, of: store.location, at: report.ended)
            }
        }
        reporter.end(RunSummary(report, profile: profile.name), findings)
        withExtendedLifetime(lock) {}
        return report.status
    }

    /// Sees to it that the profile runs once at a time; who is not let in is told of.
    private static func lock(
        _ profile: Profile, _ directories: HostDirectories, _ reporter: RunReporter
    ) throws -> RunLock {
        do {
            return try RunLock(profile: profile.name, directories: directories)
        } catch let error as CommandError where error.status == .running {
            reporter.refuse(error)
            throw error
        } catch {
            // Not another run that goes on, but one that cannot begin: it is told like any failure.
            var run = RunSummary(.run, profile: profile.name)
            run.end(error)
            reporter.begin()
            reporter.end(run, RunReporter.Findings())
            throw error
        }
    }

    private func tell(_ report: RunReport) {
        let console = Console.shared
        if !output.quiet, report.failures.isEmpty || report.backup != nil {
            let sentence = report.backup.map(RunReport.sentence) ?? report.summary
            console.out(
                "\(report.profile): \(sentence), took \(TimeText.duration(milliseconds: report.milliseconds))"
            )
        }
        for failure in report.failures {
            console.say("batchsync: \(failure.message)")
            if !failure.remedy.isEmpty { console.say("  \(failure.remedy)") }
        }
        guard !output.quiet else { return }
        for store in report.backup?.stores ?? [] where (report.backup?.stores.count ?? 0) > 1 {
            BackupCommand.tell(store)
        }
        for store in report.stores {
            var parts: [String] = []
            if let verified = store.verified {
                parts.append(
                    verified.bundlesRead > 0
                        ? "verified, \(NumberText.bytes(verified.bytesRead)) read back"
                        : "verified")
            }
            if !store.forgotten.isEmpty {
                parts.append("\(NumberText.counted(store.forgotten.count, "snapshot")) forgotten")
            }
            if let pruned = store.pruned {
                parts.append(
                    "pruned, \(NumberText.bytes(pruned.deleted.bytes)) deleted, \(NumberText.bytes(pruned.condemned.bytes)) condemned"
                )
            }
            parts += store.notices
            if !parts.isEmpty {
                console.out("  \(store.location): \(parts.joined(separator: ", "))")
            }
        }
        StoreSession.shared.tellTraffic(indent: "  ")
    }
}
