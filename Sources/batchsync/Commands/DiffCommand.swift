import ArgumentParser
import Replication
import SnapshotModel
import SnapshotRepository

struct DiffCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "Show what differs between two snapshots.",
        discussion: """
            Lists what the second snapshot has differently, in path order: '+' added, '-' removed, 'M' changed content, 'm' changed \
            metadata, 'T' another kind of file. What both share is not even read. Needs the owner's passphrase or identity.

                batchsync diff latest~1 latest -r /backup/repository
                batchsync diff 2026-03-01:/etc 2026-03-31:/etc
            """)

    @Argument(help: ArgumentHelp("The older one.", valueName: "snapshot[:path]")) var old:
        SnapshotArgument
    @Argument(help: ArgumentHelp("The newer one.", valueName: "snapshot[:path]")) var new:
        SnapshotArgument

    @Flag(help: "Leave out what differs in metadata only.")
    var noMetadata = false

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        try old.validate()
        try new.validate()
        if let path = old.path, let other = new.path, path != other {
            throw ValidationError("one path is compared between two snapshots, not two paths")
        }
    }

    func perform() throws -> ExitStatus {
        let opened = try Assembly(repository).open(.owner)
        let catalog = try Assembly.catalog(opened)
        let first = try Assembly.find(old.snapshot, in: catalog, selection)
        let second = try Assembly.find(new.snapshot, in: catalog, selection)
        let monitor = TerminalMonitor(verbose: false, quiet: false, showsLine: false)
        Signals.stopCleanly()
        let inspect = try Inspect(
            repository: opened, monitor: monitor, cancellation: Signals.cancellation)
        let stream =
            output.json
            ? JSONStream(
                "diff", [("old", first.document), ("new", second.document)], list: "differences")
            : nil
        let totals = try inspect.difference(first, second, path: old.path ?? new.path) {
            difference in
            if noMetadata, difference.kind == .metadata { return true }
            if let stream {
                stream.append(Self.document(difference))
            } else {
                Self.show(difference)
            }
            return true
        }
        if let stream {
            stream.finish([("totals", Self.document(totals))])
        } else {
            tell(totals)
        }
        return .done
    }

    private static func show(_ difference: SnapshotDifference) {
        let (mark, style): (String, Console.Style) =
            switch difference.kind {
            case .added: ("+", .green)
            case .removed: ("-", .red)
            case .changed: ("M", .yellow)
            case .metadata: ("m", .dim)
            case .type: ("T", .yellow)
            }
        let isDirectory = (difference.new ?? difference.old)?.kind == .directory
        var text = "\(mark) \(UTF8Text.display(difference.path))\(isDirectory ? "/" : "")"
        if difference.kind == .metadata {
            text += " (\(difference.aspects.joined(separator: ", ")))"
        }
        Console.shared.out(Console.shared.styled(text, style))
    }

    private func tell(_ totals: DifferenceTotals) {
        guard !totals.isEmpty else { return Console.shared.out("no difference") }
        let parts = [
            ("added", totals.added), ("removed", totals.removed), ("changed", totals.changed),
            ("of another kind", totals.type), ("with other metadata", totals.metadata),
        ].filter { $0.1 > 0 }.map { "\(NumberText.grouped($0.1)) \($0.0)" }
        Console.shared.out(parts.joined(separator: ", "))
        let added = NumberText.bytes(Int(clamping: totals.addedBytes))
        let removed = NumberText.bytes(Int(clamping: totals.removedBytes))
        Console.shared.out("\(added) more, \(removed) less")
    }

    private static func document(_ difference: SnapshotDifference) -> JSONValue {
        .object([
            ("path", JSONValue(path: difference.path)), ("kind", .string(difference.kind.rawValue)),
            ("aspects", .array(difference.aspects.map { .string($0) })),
            ("old", difference.old.map(EntryText.document) ?? .null),
            ("new", difference.new.map(EntryText.document) ?? .null),
        ])
    }

    private static func document(_ totals: DifferenceTotals) -> JSONValue {
        .object([
            ("added", .count(totals.added)), ("removed", .count(totals.removed)),
            ("changed", .count(totals.changed)),
            ("metadata", .count(totals.metadata)), ("type", .count(totals.type)),
            ("added_bytes", .integer(Int64(clamping: totals.addedBytes))),
            ("removed_bytes", .integer(Int64(clamping: totals.removedBytes))),
            ("changed_bytes", .integer(Int64(clamping: totals.changedBytes))),
        ])
    }
}
