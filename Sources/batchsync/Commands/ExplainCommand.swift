import ArgumentParser
import FileTree
import Profiles
import Replication
import SnapshotModel
import SnapshotRepository

struct ExplainCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say whether a path is backed up, and which rule decides.",
        discussion: """
            Asks for each path what a backup would ask on its way down from the source, and names the rule, marker or limit \
            that decides. Without --source and without rules of its own it takes both from the profile, or from the last \
            snapshot of this host.

                batchsync explain /home/anna/.cache/thumbnails -p nightly
                batchsync explain /home/anna/.cache/thumbnails -r /backup/repository
                batchsync explain --source /home --exclude '*.iso' /home/anna/debian.iso
            """)

    @Argument(help: ArgumentHelp("What is asked about.", valueName: "path")) var paths:
        [PathArgument]

    @Option(
        help: ArgumentHelp(
            "As if this were backed up. May be given several times.", valueName: "path"))
    var source: [PathArgument] = []

    @OptionGroup(title: "Exclusion") var exclusion: ExclusionOptions
    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        var words = source.map(\.bytes)
        var record = exclusion.recorded
        let profile = try assembly.profile()
        let hasRepository =
            profile != nil || repository.repository != nil
            || RawArguments.environment("BATCHSYNC_REPOSITORY") != nil
        var options: WalkOptions?
        if words.isEmpty, let profile {
            let backup = try profile.backupOptions()
            guard !backup.roots.isEmpty else {
                throw CommandError.usage(
                    "the profile \(profile.name) backs up no files",
                    remedy: "say --source PATH for what is asked about")
            }
            words = backup.roots.map(\.path)
            if exclusion.isEmpty { options = backup.walk }
        } else if words.isEmpty {
            guard hasRepository else {
                throw CommandError.usage(
                    "neither a source nor a repository is named",
                    remedy:
                        "say --source PATH, -p PROFILE, or -r REPOSITORY for what its last snapshot was made of"
                )
            }
            let catalog = try Assembly.catalog(try assembly.open(.hostKey))
            let last = try Assembly.find("latest", in: catalog, selection)
            words = last.roots
            if exclusion.isEmpty { record = ExclusionRecord(last.options) }
        }
        let roots = try SourceRoot.merged(try words.map { try SourceRoot($0) })
        var walk = try options ?? record.walkOptions()
        if hasRepository {
            let check = SourceCheck(
                roots: roots, repository: Array(try assembly.location().utf8),
                directories: try assembly.directories())
            _ = check.leaveOutOwnFiles(of: &walk)
        }
        let answers = try paths.map {
            try ExclusionExplanation.explain($0.bytes, roots: roots, options: walk)
        }
        if output.json {
            JSONOutput.print("explain", [("paths", .array(answers.map(Self.document)))])
        } else {
            for answer in answers { Console.shared.out(Self.sentence(answer)) }
        }
        return .done
    }

    private static func sentence(_ answer: ExclusionExplanation) -> String {
        guard case .excluded(let reason) = answer.verdict, answer.decidedPath != answer.path else {
            return answer.description
        }
        // What lies below an excluded directory is never looked at.
        let note = answer.exists ? "" : " (nothing has that path now)"
        return
            "\(UTF8Text.display(answer.path)) is excluded with \(UTF8Text.display(answer.decidedPath)),"
            + " by \(reason)\(note)"
    }

    private static func document(_ answer: ExclusionExplanation) -> JSONValue {
        let verdict =
            switch answer.verdict {
            case .included: "included"
            case .excluded: "excluded"
            case .outside: "outside"
            case .behindLink: "behind-link"
            case .unreadable: "unreadable"
            }
        return .object([
            ("path", JSONValue(path: answer.path)), ("verdict", .string(verdict)),
            ("decided_path", JSONValue(path: answer.decidedPath)), ("exists", .bool(answer.exists)),
            ("explanation", .string(sentence(answer))),
        ])
    }
}
