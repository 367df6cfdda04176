import ArgumentParser
import SnapshotModel
import SnapshotRepository

struct SnapshotsCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "snapshots",
        abstract: "List the snapshots.",
        discussion: """
            Lists what is stored, the oldest first. The key of this host is enough.

                batchsync snapshots -r /backup/repository --tag monthly

            A snapshot marked with '!' is not whole; its problems were stored with it, and 'batchsync ls SNAPSHOT \
            --problems' lists them. With -v it says by which rules something was left out of each.
            """)

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions

    @Option(help: ArgumentHelp("Only the last so many of each host.", valueName: "count"))
    var last: Int?

    @Flag(name: .shortAndLong, help: "Say by which rules something was left out.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Say nothing but the result and errors.")
    var quiet = false

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        if let last, last < 1 { throw ValidationError("--last takes a number from 1") }
        if verbose && quiet { throw ValidationError("--verbose and --quiet contradict each other") }
    }

    func perform() throws -> ExitStatus {
        let repository = try Assembly(repository).open(.hostKey)
        let catalog = try Assembly.markedCatalog(repository)
        var snapshots = catalog.snapshots.filter(selection.wants)
        if let last {
            var taken: [String: Int] = [:]
            snapshots = snapshots.reversed().filter { snapshot in
                taken[snapshot.host, default: 0] += 1
                return taken[snapshot.host, default: 0] <= last
            }.reversed()
        }
        if output.json {
            JSONOutput.print(
                "snapshots",
                [
                    ("repository", .string(repository.id.description)),
                    ("encryption", .string(repository.config.isEncrypted ? "age" : "none")),
                    ("snapshots", .array(snapshots.map(\.document))),
                    ("damaged", .array(catalog.damaged.map { .string($0.description) })),
                ])
        } else {
            show(snapshots, catalog, repository)
        }
        return catalog.damaged.isEmpty ? .done : .damaged
    }

    private func show(_ snapshots: [Snapshot], _ catalog: SnapshotCatalog, _ repository: Repository)
    {
        let console = Console.shared
        if !snapshots.isEmpty {
            var table = TableOutput([
                .init(title: "ID"), .init(title: "Time"), .init(title: "Host"),
                .init(title: "Paths"),
                .init(title: "Tags"), .init(title: "Files", alignment: .right),
                .init(title: "Size", alignment: .right),
                .init(title: "Stored", alignment: .right), .init(title: "Problems"),
                .init(title: "Description"),
            ])
            for snapshot in snapshots {
                table.add([
                    .init(snapshot.id.short, .yellow), .init(TimeText.person(snapshot.time)),
                    .init(UTF8Text.display(Array(snapshot.host.utf8))), .init(snapshot.rootText),
                    .init(snapshot.tagText, .blue),
                    .init(NumberText.grouped(snapshot.statistics.files)),
                    .init(NumberText.bytes(snapshot.statistics.bytes)),
                    .init(NumberText.bytes(snapshot.statistics.storedBytes)),
                    .init(snapshot.faultText, .red),
                    .init(snapshot.description.map { UTF8Text.display(Array($0.utf8)) } ?? ""),
                ])
            }
            table.print(to: console)
        }
        if verbose { for snapshot in snapshots { showRules(of: snapshot) } }
        if quiet { return }
        let isSelected = !selection.isEmpty || last != nil
        let note = repository.config.isEncrypted ? "" : "; not encrypted"
        let count = NumberText.counted(snapshots.count, "snapshot")
        console.out(
            isSelected
                ? "\(count) of \(NumberText.grouped(catalog.snapshots.count))\(note)" : count + note
        )
    }

    private func showRules(of snapshot: Snapshot) {
        let console = Console.shared
        console.out(console.styled(snapshot.id.short, .yellow))
        if let profile = snapshot.options["profile"]?.string {
            console.out("    profile \(UTF8Text.display(Array(profile.utf8)))")
        }
        let rules = (snapshot.options["rules"]?.array ?? []).compactMap { RecordedRule($0) }
        let record = ExclusionRecord(snapshot.options)
        for rule in rules {
            console.out("    \(rule.isNegated ? "kept" : "left out"): \(rule.text)")
        }
        if rules.isEmpty {
            // Older snapshots have the patterns as they were given, and only the names of files.
            for pattern in record.exclude {
                console.out("    left out: '\(UTF8Text.display(pattern))'")
            }
            for file in record.excludeFrom {
                console.out("    left out: by the patterns in \(UTF8Text.display(file))")
            }
        }
        for sentence in record.sentences { console.out("    \(sentence)") }
        if rules.isEmpty, record.fields.isEmpty { console.out("    no rules") }
    }
}

extension Snapshot {
    /// The paths of the sources on one line.
    var rootText: String {
        let shown = roots.prefix(3).map { UTF8Text.display($0) }.joined(separator: " ")
        return roots.count > 3 ? "\(shown) and \(roots.count - 3) more" : shown
    }

    var tagText: String {
        (tags.map { UTF8Text.display(Array($0.utf8)) } + (isPinned ? ["(pinned)"] : [])).joined(
            separator: " ")
    }

    var faultText: String {
        var parts: [String] = []
        if problemCount > 0 { parts.append("!\(NumberText.grouped(problemCount))") }
        if !isWhole { parts.append("!incomplete") }
        return parts.joined(separator: " ")
    }

    /// The snapshot in the documents of `--json`.
    var document: JSONValue {
        .object([
            ("id", .string(id.description)), ("time", .time(time)), ("host", .string(host)),
            ("roots", .array(roots.map { JSONValue(path: $0) })),
            ("tags", .array(tags.map { .string($0) })),
            ("description", .optional(description)), ("pinned", .bool(isPinned)),
            ("incomplete", .bool(!isWhole)),
            ("program", .string(program)), ("options", options), ("problems", .count(problemCount)),
            ("statistics", statistics.document),
        ])
    }
}

extension SnapshotStatistics {
    var document: JSONValue { .object(fields.map { ($0.name, .count($0.value)) }) }
}
