import ArgumentParser
import FileTree
import Replication
import SnapshotModel
import SnapshotRepository

struct FindCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "find",
        abstract: "Find files in all snapshots.",
        discussion: """
            Shows every version of what matches one of the patterns, the oldest snapshot first. A pattern is of the gitignore kind: \
            one without a slash speaks of names at any depth, any other of whole paths. Needs the owner's passphrase or identity.

                batchsync find '*.odt' -r /backup/repository
                batchsync find '/home/anna/**/letter*' --newer 2026-03-01
                batchsync find '*' --type file --larger-than 1G --snapshot latest
            """)

    @Argument(help: ArgumentHelp("What to find. Any of several.", valueName: "pattern"))
    var patterns: [PathArgument]

    @Option(
        help: ArgumentHelp(
            "Only in this snapshot. May be given several times.", valueName: "snapshot"))
    var snapshot: [SnapshotArgument] = []

    @Option(help: ArgumentHelp("Only this path and what lies below it.", valueName: "path"))
    var below: PathArgument?

    @Option(
        help: ArgumentHelp(
            "Only this kind: file, dir, symlink, fifo, socket, chardev or blockdev. Any of several.",
            valueName: "kind"))
    var type: [KindArgument] = []

    @Option(help: ArgumentHelp("Only files of at least this size.", valueName: "size"))
    var largerThan: SizeArgument?

    @Option(help: ArgumentHelp("Only files of at most this size.", valueName: "size"))
    var smallerThan: SizeArgument?

    @Option(help: ArgumentHelp("Only what was modified since.", valueName: "time"))
    var newer: String?

    @Option(help: ArgumentHelp("Only what was modified until.", valueName: "time"))
    var older: String?

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        for pattern in patterns {
            if let defect = GlobPattern(pattern.bytes).defect {
                throw ValidationError("'\(pattern.display)' can never match: \(defect)")
            }
        }
        for snapshot in snapshot { try snapshot.withoutPath() }
        for time in [newer, older].compactMap(\.self) where TimeText.moment(time) == nil {
            throw ValidationError(
                "'\(RawArguments.display(time))' is not a date or time: 2026-03-31, 2026-03-31T22:00:00Z"
            )
        }
    }

    private var query: Inspect.Query {
        var query = Inspect.Query()
        query.patterns = patterns.map { GlobPattern($0.bytes) }
        query.kinds = Set(type.map(\.kind))
        query.sizeAtLeast = largerThan?.bytes
        query.sizeAtMost = smallerThan?.bytes
        query.modifiedSince = newer.flatMap(TimeText.beginning)
        query.modifiedUntil = older.flatMap(TimeText.moment)
        query.below = below.map { EntryPath.trimmed($0.bytes) }
        return query
    }

    func perform() throws -> ExitStatus {
        let opened = try Assembly(repository).open(.owner)
        let catalog = try Assembly.catalog(opened)
        var snapshots = catalog.snapshots.filter(selection.wants)
        if !snapshot.isEmpty {
            let chosen = Set(
                try snapshot.map { try Assembly.find($0.snapshot, in: catalog, selection).id })
            snapshots.removeAll { !chosen.contains($0.id) }
        }
        let monitor = TerminalMonitor(verbose: false, quiet: false, showsLine: false)
        Signals.stopCleanly()
        let inspect = try Inspect(
            repository: opened, monitor: monitor, cancellation: Signals.cancellation)
        let stream = output.json ? JSONStream("find", list: "matches") : nil
        var count = 0
        try inspect.find(query, in: snapshots) { snapshot, entry in
            count += 1
            if let stream {
                stream.append(
                    .object([
                        ("snapshot", .string(snapshot.id.description)),
                        ("entry", EntryText.document(entry)),
                    ]))
            } else {
                Console.shared.out(
                    "\(Console.shared.styled(snapshot.id.short, .yellow)) \(EntryText.long(entry))")
            }
            return true
        }
        stream?.finish([
            ("snapshots", .array(snapshots.map { .string($0.id.description) })),
            ("count", .count(count)),
            ("damaged_pieces", .count(inspect.damagedPieces)),
        ])
        if stream == nil, count == 0 {
            Console.shared.say(
                "batchsync: nothing like this in \(NumberText.counted(snapshots.count, "snapshot"))"
            )
        }
        return inspect.damagedPieces > 0 ? .damaged : .done
    }
}

/// A kind of file, as a manifest spells it.
struct KindArgument: ExpressibleByArgument, Sendable {
    let kind: EntryKind

    init?(argument: String) {
        guard let kind = EntryKind.allCases.first(where: { "\($0.name)" == argument }) else {
            return nil
        }
        self.kind = kind
    }

    static var allValueStrings: [String] { EntryKind.allCases.map { "\($0.name)" } }
}
