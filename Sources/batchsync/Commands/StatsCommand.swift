import ArgumentParser
import Replication
import SnapshotModel
import SnapshotRepository

struct StatsCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show what the repository holds and what that costs.",
        discussion: """
            Counts objects and bytes, and for each snapshot what it needs and what no other needs: about what forgetting it alone \
            would give back. The key of this host is enough.

                batchsync stats -r /backup/repository --host web1
            """)

    @Argument(help: "Only these.") var snapshot: [SnapshotArgument] = []

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        for snapshot in snapshot { try snapshot.withoutPath() }
    }

    func perform() throws -> ExitStatus {
        let opened = try Assembly(repository).open(.hostKey)
        var wanted: Set<SnapshotID>?
        if !snapshot.isEmpty {
            let catalog = try Assembly.catalog(opened)
            wanted = Set(
                try snapshot.map { try Assembly.find($0.snapshot, in: catalog, selection).id })
        }
        Signals.stopCleanly()
        let statistics = try RepositoryStatistics(of: opened, cancellation: Signals.cancellation) {
            snapshot in
            selection.wants(snapshot) && wanted?.contains(snapshot.id) != false
        }
        if output.json {
            JSONOutput.print("stats", Self.document(statistics, opened))
        } else {
            tell(statistics, opened)
        }
        return statistics.damagedRecords > 0 ? .damaged : .done
    }

    private func tell(_ statistics: RepositoryStatistics, _ repository: Repository) {
        let console = Console.shared
        if !statistics.snapshots.isEmpty {
            var table = TableOutput([
                .init(title: "Snapshot"), .init(title: "Time"), .init(title: "Host"),
                .init(title: "Files", alignment: .right), .init(title: "Size", alignment: .right),
                .init(title: "Needs", alignment: .right), .init(title: "Alone", alignment: .right),
            ])
            for size in statistics.snapshots {
                table.add([
                    .init(size.snapshot.id.short, .yellow),
                    .init(TimeText.person(size.snapshot.time)),
                    .init(UTF8Text.display(Array(size.snapshot.host.utf8))),
                    .init(NumberText.grouped(size.files)),
                    .init(NumberText.bytes(size.bytes)), .init(NumberText.bytes(size.storedBytes)),
                    .init(NumberText.bytes(size.ownBytes)),
                ])
            }
            table.print(to: console)
            console.out()
        }
        var objects = TableOutput([
            .init(title: "Objects"), .init(title: "Count", alignment: .right),
            .init(title: "Size", alignment: .right),
        ])
        for kind in statistics.objects {
            objects.add([
                .init(kind.kind), .init(NumberText.grouped(kind.count)),
                .init(NumberText.bytes(kind.bytes)),
            ])
        }
        objects.add([
            .init("all"), .init(NumberText.grouped(statistics.objectCount)),
            .init(NumberText.bytes(statistics.storedBytes)),
        ])
        objects.print(to: console)
        console.out()
        console.out(
            "\(NumberText.counted(statistics.snapshotCount, "snapshot")) of \(NumberText.bytes(statistics.snapshotBytes)) "
                + "in \(NumberText.counted(statistics.chunks, "chunk")) of \(NumberText.bytes(statistics.chunkBytes))"
                + (statistics.deduplication.map { " (\(Self.ratio($0)) : 1)" } ?? ""))
        console.out(
            "stored as \(NumberText.bytes(statistics.contentStoredBytes))"
                + (statistics.compression.map { " (\(Self.ratio($0)) : 1)" } ?? "")
                + ", manifests \(NumberText.bytes(statistics.manifestStoredBytes))"
                + (repository.config.isEncrypted ? "" : "; not encrypted"))
        if statistics.damagedRecords > 0 {
            console.out(
                console.styled(
                    "\(NumberText.counted(statistics.damagedRecords, "record")) cannot be read: run 'batchsync verify'",
                    .red))
        }
    }

    /// Two decimals.
    private static func ratio(_ value: Double) -> String {
        let hundredths = Int((value * 100).rounded())
        return "\(hundredths / 100).\(Timestamp.padded(hundredths % 100, 2))"
    }

    private static func document(
        _ statistics: RepositoryStatistics, _ repository: Repository
    ) -> [(key: String, value: JSONValue)] {
        let objects = statistics.objects.map { kind in
            JSONValue.object([
                ("kind", .string(kind.kind)), ("count", .count(kind.count)),
                ("bytes", .count(kind.bytes)),
            ])
        }
        let snapshots = statistics.snapshots.map { size in
            JSONValue.object([
                ("snapshot", size.snapshot.document), ("bundles", .count(size.bundles)),
                ("stored_bytes", .count(size.storedBytes)), ("own_bytes", .count(size.ownBytes)),
            ])
        }
        return [
            ("repository", .string(repository.id.description)),
            ("encryption", .string(repository.config.isEncrypted ? "age" : "none")),
            ("objects", .array(objects)),
            ("object_count", .count(statistics.objectCount)),
            ("stored_bytes", .count(statistics.storedBytes)),
            ("snapshot_count", .count(statistics.snapshotCount)),
            ("snapshot_bytes", .count(statistics.snapshotBytes)),
            ("chunks", .count(statistics.chunks)), ("chunk_bytes", .count(statistics.chunkBytes)),
            ("content_stored_bytes", .count(statistics.contentStoredBytes)),
            ("manifest_chunks", .count(statistics.manifestChunks)),
            ("manifest_bytes", .count(statistics.manifestBytes)),
            ("manifest_stored_bytes", .count(statistics.manifestStoredBytes)),
            ("bundles", .count(statistics.bundles)),
            ("damaged_records", .count(statistics.damagedRecords)),
            ("snapshots", .array(snapshots)),
        ]
    }
}
