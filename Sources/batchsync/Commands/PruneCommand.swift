import ArgumentParser
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository

struct PruneCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "prune",
        abstract: "Give back the space of what no snapshot needs.",
        discussion: """
            Works in two phases, with the grace period of the repository between them ('init --grace-hours', 24 hours unless said \
            otherwise). The first one condemns bundles that no snapshot and no run needs: no later snapshot uses them again. The \
            second one deletes what was condemned a grace period ago and is not needed still. One call does of both what is due, so \
            that pruning once a week is enough. What was forgotten counts as needed for the grace period.

                batchsync prune -r /backup/repository --dry-run
                batchsync prune -r /backup/repository

            The key of this host is enough. Nobody has to wait: backups, restores and other prunes may go on at the same \
            time, from any host. A prune that is interrupted leaves nothing broken, and the next one goes on. Bundles of \
            which a snapshot needs a part stay as they are. When index objects have become many they are merged.

            Nothing at all is deleted where a record cannot be read and proven authentic, where a snapshot that this host knows has \
            vanished without having been forgotten, where a bundle that a snapshot needs is missing, or where the clock of the \
            store and that of this host differ by more than an hour. Objects whose names are not batchsync's are never touched.

            Each store of a repository is pruned by itself.
            """)

    @Flag(name: [.customShort("n"), .long], help: "Show what would be condemned and deleted.")
    var dryRun = false

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: OutputOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        if dryRun { return tell(try pruned(assembly)) }
        let location = try assembly.location()
        return try RunReporter.keep(.prune, at: [location], try assembly.directories()) { run, _ in
            let report = try pruned(assembly)
            let freed = Int(clamping: report.deleted.bytes)
            run.store(location) { $0.freedBytes = freed }
            run.text = NumberText.bytes(freed) + " freed"
            return tell(report)
        }
    }

    private func pruned(_ assembly: Assembly) throws -> PruneReport {
        let repository = try assembly.open(.hostKey)
        Signals.stopCleanly()
        return try Self.prune(repository, dryRun: dryRun, monitor: TerminalMonitor(output))
    }

    private func tell(_ report: PruneReport) -> ExitStatus {
        if output.json {
            JSONOutput.print("prune", report.fields + [StoreSession.shared.trafficField])
        } else {
            if !output.quiet { for line in report.sentences { Console.shared.out(line) } }
            for note in report.warnings { Console.shared.say("batchsync: \(note)") }
            if !output.quiet { StoreSession.shared.tellTraffic() }
        }
        return report.status
    }

    static func prune(
        _ repository: Repository, dryRun: Bool, monitor: TerminalMonitor
    ) throws -> PruneReport {
        var options = PruneOptions(host: Assembly.hostName)
        options.dryRun = dryRun
        return try monitor.whileShowing {
            try Prune(
                repository: repository, options: options, monitor: monitor,
                cancellation: Signals.cancellation
            ).run()
        }
    }
}

extension PruneReport {
    /// Denied deletes leave undone what was asked for.
    var status: ExitStatus { deletesDenied ? .partial : .done }

    /// What was done, for a person.
    var sentences: [String] {
        func line(_ tally: PruneTally, _ words: String) -> String? {
            guard tally.bundles > 0 else { return nil }
            return
                "\(NumberText.counted(tally.bundles, "bundle")) of \(NumberText.bytes(tally.bytes)) \(words)"
        }
        let would = isDryRun
        var lines = [
            "\(NumberText.counted(stored.bundles, "bundle")) of \(NumberText.bytes(stored.bytes)), "
                + "\(NumberText.bytes(needed.bytes)) needed by \(NumberText.counted(snapshotsCounted, "snapshot"))"
        ]
        lines += [
            line(deleted, would ? "would be deleted" : "deleted"),
            line(condemned, would ? "would be condemned" : "condemned"),
            line(
                waiting,
                "condemned earlier"
                    + (waitingUntil.map { ", to be deleted from \(TimeText.person($0)) on" } ?? "")),
            line(held, "condemned, and kept because a snapshot or a run needs them"),
            line(young, "needed by nobody, and too new to be condemned"),
        ].compactMap { $0 }
        if !snapshotsRemoved.isEmpty {
            lines.append(
                "\(NumberText.counted(snapshotsRemoved.count, "forgotten snapshot")) \(would ? "would be removed" : "removed") for good"
            )
        }
        if indexMerged > 0 {
            lines.append(
                "\(NumberText.counted(indexMerged, "index object")) \(would ? "would be merged" : "merged")"
            )
        }
        if would { lines.append("about \(NumberText.counted(requests, "request"))") }
        if !would, deleted.bundles == 0, condemned.bundles == 0, snapshotsRemoved.isEmpty,
            indexMerged == 0, !deletesDenied
        {
            lines.append("nothing to do")
        }
        return lines
    }

    /// What a person has to know beside that.
    var warnings: [String] {
        var lines = notes
        if deletesDenied {
            lines.append("the store does not let this user delete: nothing was pruned")
        }
        if keepsDeleted, deleted.bundles > 0 {
            lines.append(
                "the bucket keeps versions: what was deleted takes space until its rules remove old versions"
            )
        }
        for object in retained.prefix(20) {
            let until = object.until.map { " until \(TimeText.person($0))" } ?? ""
            lines.append("\(object.object) is kept by the store\(until): \(object.message)")
        }
        if retained.count > 20 {
            lines.append("and \(NumberText.grouped(retained.count - 20)) more objects are kept")
        }
        return lines
    }

    var fields: [(key: String, value: JSONValue)] {
        func tally(_ value: PruneTally) -> JSONValue {
            .object([("bundles", .count(value.bundles)), ("bytes", .count(value.bytes))])
        }
        let kept = retained.map { object in
            JSONValue.object([
                ("object", .string(object.object)),
                ("until", object.until.map { .time($0) } ?? .null),
                ("message", .string(object.message)),
            ])
        }
        return [
            ("dry_run", .bool(isDryRun)), ("stored", tally(stored)), ("needed", tally(needed)),
            ("condemned", tally(condemned)), ("deleted", tally(deleted)),
            ("waiting", tally(waiting)),
            ("waiting_until", waitingUntil.map { .time($0) } ?? .null),
            ("held", tally(held)), ("young", tally(young)),
            ("snapshots", .count(snapshotsCounted)),
            ("removed_snapshots", JSONValue(ids: snapshotsRemoved)),
            ("incomplete_snapshots", JSONValue(ids: incomplete)),
            ("index_merged", .count(indexMerged)), ("index_written", .count(indexWritten)),
            ("index_deleted", .count(indexDeleted)), ("retained", .array(kept)),
            ("deletes_denied", .bool(deletesDenied)), ("keeps_deleted", .bool(keepsDeleted)),
            ("left_to_another", .bool(leftToAnother)),
            ("requests", isDryRun ? .count(requests) : .null),
            ("notes", .array(notes.map { .string($0) })),
        ]
    }
}
