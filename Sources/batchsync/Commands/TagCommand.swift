import ArgumentParser
import SnapshotModel
import SnapshotRepository

struct TagCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "tag",
        abstract: "Give a snapshot tags, a description, or a pin.",
        discussion: """
            Changes what is said of a snapshot, never the snapshot. The key of this host is enough. A pinned snapshot is never \
            forgotten by a retention rule.

                batchsync tag latest --add before-upgrade --pin -r /backup/repository
            """)

    @Argument(help: "Which snapshot.") var snapshot: SnapshotArgument

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions

    @Option(
        help: ArgumentHelp("Add a tag. May be given several times.", valueName: "tag"),
        transform: plainText)
    var add: [String] = []

    @Option(
        help: ArgumentHelp("Remove a tag. May be given several times.", valueName: "tag"),
        transform: plainText)
    var remove: [String] = []

    @Option(help: ArgumentHelp("Replace the description.", valueName: "text"), transform: plainText)
    var description: String?

    @Flag(
        inversion: .prefixedNo,
        help: "Keep the snapshot whatever a retention rule says, or no longer.")
    var pin: Bool?

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        try snapshot.withoutPath()
        if add.isEmpty && remove.isEmpty && description == nil && pin == nil {
            throw ValidationError(
                "nothing is asked for: --add, --remove, --description, --pin or --no-pin")
        }
        for tag in add + remove { try Self.check(tag) }
    }

    /// A tag is one word, so that lists of them can be read.
    static func check(_ tag: String) throws {
        let isGood =
            !tag.isEmpty
            && !tag.unicodeScalars.contains {
                $0.value <= 0x20 || $0.value == 0x2C || $0.value == 0x7F
            }
        guard isGood, tag.utf8.count <= 256 else {
            throw ValidationError(
                "'\(UTF8Text.display(Array(tag.utf8)))' is not a tag: one word without a comma")
        }
    }

    func perform() throws -> ExitStatus {
        let repository = try Assembly(repository).open(.hostKey)
        let catalog = try Assembly.catalog(repository)
        let found = try Assembly.find(snapshot.snapshot, in: catalog, selection)
        var mark = MarkRecord(snapshot: found.id)
        mark.add = add
        mark.remove = remove
        mark.pin = pin
        mark.description = description
        try mark.store(in: repository, time: Assembly.now, host: Assembly.hostName)
        let marked = try Assembly.catalog(repository).snapshots.first { $0.id == found.id } ?? found
        if output.json {
            JSONOutput.print("tag", [("snapshot", marked.document)])
        } else {
            let tags = marked.tagText.isEmpty ? "no tags" : marked.tagText
            Console.shared.out("snapshot \(marked.id.short): \(tags)")
        }
        return .done
    }
}
