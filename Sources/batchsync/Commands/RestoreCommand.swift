import ArgumentParser
import FileTree
import Replication
import SnapshotModel
import SnapshotRepository

struct RestoreCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Bring back a snapshot, a directory or a file.",
        discussion: """
            Makes the absolute paths of a snapshot again below the target. With SNAPSHOT:PATH, what is in that directory goes into the \
            target itself, and a file to its name there. Needs the owner's passphrase or identity.

                batchsync restore latest --target /mnt/new -r /backup/repository
                batchsync restore latest:/home/anna/letters --target /tmp/letters
                batchsync restore 2026-03-31:/srv/www --target /srv/www \\
                    --if-exists replace --delete --dry-run
                batchsync restore latest:/srv --target /tmp/srv --include '*.conf'

            A target that is not empty needs --if-exists; then only what differs in size or modification time is fetched (with \
            --verify: in content), and an interrupted restore goes on where it was. What is right already is not touched; immutable and append-only flags are lifted \
            where something has to change, and set again. '--target /' restores in place. --delete removes what the snapshot does not have; try it with --dry-run.

            What cannot be restored as it was is named, and the exit code is 3; what is damaged in the repository costs only \
            the files in it, and the exit code is 4. Owners that only root can set are named, \
            and no reason for an exit code.
            """)

    @Argument(help: ArgumentHelp("What to restore.", valueName: "snapshot[:path]")) var snapshot:
        SnapshotArgument

    @Option(
        name: [.customShort("t"), .long],
        help: ArgumentHelp(
            "Where to, a directory. It is made if it is missing.", valueName: "directory"))
    var target: PathArgument

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions

    @Option(
        help: ArgumentHelp(
            "Only what a pattern of the gitignore kind matches, with all below it.",
            valueName: "pattern"))
    var include: [PathArgument] = []

    @Option(
        name: [.customShort("e"), .long],
        help: ArgumentHelp("All but what a pattern matches.", valueName: "pattern"))
    var exclude: [PathArgument] = []

    @Option(
        help: ArgumentHelp(
            "What becomes of a file that is there: replace, keep, newer or fail.", valueName: "rule"
        ))
    var ifExists: RestoreOptions.IfExists?

    @Flag(
        help:
            "Rewrite what differs within existing files, instead of building new files beside them."
    )
    var inPlace = false

    @Flag(
        help:
            "Remove what the snapshot does not have. What the backup could not read stays; what it was told to exclude goes, unless --exclude names it."
    )
    var delete = false

    @Flag(help: "Set owners by number, whatever their names are here.")
    var numericIds = false

    @Flag(help: "Say what would be fetched and written, and change nothing.")
    var dryRun = false

    @Flag(
        help:
            "Read back what was written, and compare the content of files that are there with the right size and time."
    )
    var verify = false

    @OptionGroup(title: "Output") var output: OutputOptions

    var wantsJSON: Bool { output.json }

    func validate() throws { try snapshot.validate() }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        let place = try Assembly.text(target.bytes, of: "a target")
        let opened = try assembly.open(.owner)
        let catalog = try Assembly.catalog(opened)
        let found = try Assembly.find(snapshot.snapshot, in: catalog, selection)
        let monitor = TerminalMonitor(output)
        monitor.note(
            "snapshot \(found.id.short) of \(TimeText.person(found.time)), host \(found.host)")
        noteTargetInSource(found, monitor)
        var options = RestoreOptions()
        options.ifExists = ifExists
        options.inPlace = inPlace
        options.delete = delete
        options.include = include.map(\.bytes)
        options.exclude = exclude.map(\.bytes)
        options.numericIDs = numericIds
        options.dryRun = dryRun
        options.verify = verify
        if output.json { options.spoolDirectory = Assembly.variable("TMPDIR") ?? "/var/tmp" }
        Signals.stopCleanly()
        let restore = Restore(
            repository: opened, index: try Assembly.index(opened), snapshot: found,
            options: options,
            monitor: monitor, cancellation: Signals.cancellation)
        let report: RestoreReport
        do {
            report = try monitor.whileShowing {
                try restore.run(path: snapshot.path, target: place)
            }
        } catch {
            tellStopped(restore.reportSoFar)
            throw error
        }
        for note in report.notes { monitor.note(note) }
        if output.json {
            printJSON(report, found)
        } else if !output.quiet {
            tell(report)
        }
        if report.damagedCount > 0 { return .damaged }
        return report.problemCount > 0 ? .partial : .done
    }

    /// What is restored into a source is in the next snapshot, too. Where it was is where it
    /// belongs.
    private func noteTargetInSource(_ snapshot: Snapshot, _ monitor: TerminalMonitor) {
        guard snapshot.host == Assembly.hostName,
            let place = HostFile.realPath(target.bytes) ?? absolute(target.bytes),
            place != [0x2F], place != self.snapshot.path
        else { return }
        for root in snapshot.roots where EntryPath.contains(root, place) {
            monitor.note(
                "the target lies in the source \(UTF8Text.display(root)): the next backup stores what is restored, too"
            )
            return
        }
    }

    /// The path of something that is still to be made.
    private func absolute(_ path: [UInt8]) -> [UInt8]? {
        let name = EntryPath.lastComponent(of: EntryPath.trimmed(path))
        let parent = path.contains(0x2F) ? EntryPath.parent(of: EntryPath.trimmed(path)) : [0x2E]
        return HostFile.realPath(parent).map { ($0 == [0x2F] ? [] : $0) + [0x2F] + name }
    }

    private func counts(_ report: RestoreReport) -> String {
        [
            NumberText.counted(report.files, "file"),
            report.directories > 0
                ? NumberText.counted(report.directories, "directory", "directories") : "",
            report.links > 0 ? NumberText.counted(report.links, "link") : "",
            report.others > 0 ? NumberText.counted(report.others, "special file") : "",
        ].filter { !$0.isEmpty }.joined(separator: ", ")
    }

    /// What is there of a restore that did not come to its end.
    private func tellStopped(_ report: RestoreReport) {
        guard !output.json, !output.quiet, !dryRun,
            report.files + report.directories + report.links + report.others > 0
        else { return }
        Console.shared.out("restored \(counts(report)) to \(target.display) until it was stopped")
    }

    private func tell(_ report: RestoreReport) {
        let console = Console.shared
        let place = target.display
        console.out(
            "\(dryRun ? "would restore" : "restored") \(counts(report)) to \(place)")
        console.out(
            "  \(NumberText.bytes(report.fetchedBytes)) fetched, \(NumberText.bytes(report.writtenBytes)) written"
                + (report.reusedBytes > 0
                    ? ", \(NumberText.bytes(report.reusedBytes)) were there" : ""))
        if report.kept > 0 { console.out("  \(NumberText.grouped(report.kept)) kept as they were") }
        if report.removed > 0 {
            console.out(
                "  \(NumberText.grouped(report.removed)) \(dryRun ? "would be removed" : "removed")"
            )
            for path in report.removedPaths { console.out("    \(UTF8Text.display(path))") }
        }
        if report.verified > 0 {
            console.out("  \(NumberText.counted(report.verified, "file")) read back")
        }
        tellNotStored(report)
        tellOwners(report)
        if report.problemCount > 0 {
            console.out(
                console.styled("  \(NumberText.counted(report.problemCount, "problem"))", .red))
        }
        StoreSession.shared.tellTraffic(indent: "  ")
        if report.damagedCount > 0 {
            console.out(
                console.styled(
                    "  \(NumberText.counted(report.damagedCount, "file")) lost to damage in the repository",
                    .red))
            console.out("  'batchsync verify --read-data' names the damage")
        }
    }

    /// Names what no restore of this snapshot can bring back whole.
    private func tellNotStored(_ report: RestoreReport) {
        guard !report.notStoredWhole.isEmpty else { return }
        let console = Console.shared
        console.out("  not stored whole in this snapshot:")
        for problem in report.notStoredWhole.prefix(Self.named) {
            console.out("    \(UTF8Text.display(problem.path)): \(problem.message)")
        }
        if report.notStoredWhole.count > Self.named {
            console.out(
                "    and \(NumberText.grouped(report.notStoredWhole.count - Self.named)) more: 'batchsync ls --problems' lists them"
            )
        }
    }

    /// Names what belongs to whoever ran the restore and not to its owner.
    private func tellOwners(_ report: RestoreReport) {
        guard report.ownersDeniedCount > 0 else { return }
        let console = Console.shared
        console.out(
            "  owner or group not set, since only root may give files away: \(NumberText.counted(report.ownersDeniedCount, "entry", "entries"))"
        )
        for denied in report.ownersDenied.prefix(Self.named) {
            console.out("    \(UTF8Text.display(denied.path)): \(denied.uid):\(denied.gid)")
        }
        if report.ownersDeniedCount > Self.named {
            console.out(
                "    and \(NumberText.grouped(report.ownersDeniedCount - Self.named)) more: --json lists them"
            )
        }
    }

    /// How many are told by name.
    private static let named = 20

    /// The document. What may be as long as the snapshot is written from where it was kept.
    private func printJSON(_ report: RestoreReport, _ snapshot: Snapshot) {
        let stream = JSONStream(
            "restore",
            [
                ("snapshot", .string(snapshot.id.description)),
                ("target", JSONValue(path: target.bytes)), ("dry_run", .bool(dryRun)),
            ], list: "problems")
        for problem in report.problems { stream.append(problem.document) }
        report.furtherProblems?.readEach { stream.append($0) }
        stream.begin(list: "owners_not_set")
        for denied in report.ownersDenied { stream.append(denied.document) }
        report.furtherOwnersDenied?.readEach { stream.append($0) }
        stream.finish(fields(report))
    }

    private func fields(_ report: RestoreReport) -> [(key: String, value: JSONValue)] {
        [
            ("files", .count(report.files)),
            ("directories", .count(report.directories)),
            ("links", .count(report.links)), ("others", .count(report.others)),
            ("kept", .count(report.kept)),
            ("removed", .count(report.removed)),
            ("removed_paths", .array(report.removedPaths.map { JSONValue(path: $0) })),
            ("fetched_bytes", .count(report.fetchedBytes)),
            ("written_bytes", .count(report.writtenBytes)),
            ("reused_bytes", .count(report.reusedBytes)), ("verified", .count(report.verified)),
            ("problem_count", .count(report.problemCount)),
            ("owners_not_set_count", .count(report.ownersDeniedCount)),
            ("damaged_count", .count(report.damagedCount)),
            (
                "damaged",
                .array(
                    report.damaged.map {
                        .object([
                            ("path", JSONValue(path: $0.path)), ("object", .string($0.object)),
                            ("message", .string($0.message)),
                        ])
                    })
            ),
            ("not_stored_whole", .array(report.notStoredWhole.map(\.document))),
            ("notes", .array(report.notes.map { .string($0) })),
            StoreSession.shared.trafficField,
        ]
    }
}

extension RestoreOptions.IfExists: ExpressibleByArgument {}
