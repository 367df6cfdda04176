import ArgumentParser
import BundleFormat
import Replication
import SnapshotModel
import SnapshotRepository

struct ListCommand: Verb {
    enum Format: String, ExpressibleByArgument, CaseIterable {
        case text
        case mtree
    }

    static let configuration = CommandConfiguration(
        commandName: "ls",
        abstract: "List what is in a snapshot.",
        discussion: """
            Lists a directory of a snapshot; without a path its source, or its sources. Needs the owner's passphrase or identity.

                batchsync ls latest:/home -r /backup/repository
                batchsync ls -lR 2026-03-31:/etc -r /backup/repository
                batchsync ls latest:/etc --format mtree --digest > etc.mtree

            With --format mtree the list is a specification for mtree(8): 'mtree -f etc.mtree -p DIRECTORY' compares a \
            restored tree with it and reports what differs. With --problems it is the list of what was not stored whole.
            """)

    @Argument(help: ArgumentHelp("What to list.", valueName: "snapshot[:path]")) var snapshot:
        SnapshotArgument

    @Flag(name: [.customShort("R"), .long], help: "List what is in the directories, too.")
    var recursive = false

    @Flag(name: .shortAndLong, help: "Show permissions, owner, size and time.")
    var long = false

    @Flag(
        name: [.customShort("0"), .customLong("null")],
        help: "Print paths as they are, each ended by NUL.")
    var null = false

    @Option(
        help: ArgumentHelp(
            "text, or mtree for a specification of the tree with all below it.", valueName: "format"
        ))
    var format: Format = .text

    @Flag(help: "Read the content and add SHA-256 to an mtree specification.")
    var digest = false

    @Flag(help: "List what was not stored whole, and why.")
    var problems = false

    @Flag(name: .shortAndLong, help: "Say nothing but the result, problems and errors.")
    var quiet = false

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        try snapshot.validate()
        if digest && format != .mtree {
            throw ValidationError("--digest belongs to --format mtree")
        }
        if format == .mtree && (output.json || null || long) {
            throw ValidationError("--format mtree is a form of its own")
        }
        if problems && (format == .mtree || null) {
            throw ValidationError("--problems is a list of its own")
        }
        if null && (long || output.json) {
            throw ValidationError("--null prints paths and nothing else")
        }
    }

    func perform() throws -> ExitStatus {
        let opened = try Assembly(repository).open(.owner)
        if !quiet, !opened.config.isEncrypted {
            Console.shared.say("batchsync: the repository is not encrypted")
        }
        let catalog = try Assembly.catalog(opened)
        let found = try Assembly.find(snapshot.snapshot, in: catalog, selection)
        if problems { return try listProblems(of: found, opened) }
        let monitor = TerminalMonitor(verbose: false, quiet: quiet, showsLine: false)
        Signals.stopCleanly()
        let inspect = try Inspect(
            repository: opened, monitor: monitor, cancellation: Signals.cancellation)
        if format == .mtree {
            let mtree = try Mtree(
                inspect, snapshot: found, path: snapshot.path, wantsDigest: digest)
            try mtree.write { bytes in
                Console.shared.write(Array(bytes))
                return true
            }
            return inspect.damagedPieces > 0 || mtree.unreadFiles > 0 ? .damaged : .done
        }
        let stream =
            output.json ? JSONStream("ls", [("snapshot", found.document)], list: "entries") : nil
        try inspect.list(found, path: snapshot.path, isRecursive: recursive) { entry in
            if let stream {
                stream.append(EntryText.document(entry))
            } else if null {
                Console.shared.write(entry.path + [0])
            } else if long {
                Console.shared.out(EntryText.long(entry))
            } else {
                let text = UTF8Text.display(entry.path)
                Console.shared.out(
                    Console.shared.styled(text, entry.kind == .directory ? .blue : nil))
            }
            return true
        }
        stream?.finish([("damaged_pieces", .count(inspect.damagedPieces))])
        return inspect.damagedPieces > 0 ? .damaged : .done
    }

    private func listProblems(of snapshot: Snapshot, _ repository: Repository) throws -> ExitStatus
    {
        let fetcher = try FrameFetcher(
            repository, index: try Assembly.index(repository),
            accesses: BundleAccessCache(repository), keeping: 2)
        let stream =
            output.json
            ? JSONStream("problems", [("snapshot", snapshot.document)], list: "problems") : nil
        for id in snapshot.problemIDs {
            guard let problems = SnapshotProblem.read(try fetcher.chunk(id)) else {
                throw RepositoryError(.damaged, id.description, "is no list of problems")
            }
            for problem in problems {
                if let stream {
                    stream.append(problem.document)
                } else {
                    Console.shared.out("\(UTF8Text.display(problem.path)): \(problem.message)")
                }
            }
        }
        stream?.finish()
        return .done
    }
}
