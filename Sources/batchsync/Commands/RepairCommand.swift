import ArgumentParser
import Replication
import SnapshotModel
import SnapshotRepository

struct RepairCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair",
        abstract: "Make anew what can be made from what is there.",
        discussion: """
            Repairs what damage can be repaired without another copy of the repository.

                batchsync repair index -r /backup/repository
            """,
        subcommands: [RepairIndexCommand.self])
}

struct RepairIndexCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "index",
        abstract: "Make the index anew from the bundles alone.",
        discussion: """
            Reads every bundle, hashes every chunk, and reads every manifest; then writes a new index and removes the old one. For \
            when verify says so. Of a damaged bundle what is sound goes into the index; what is not is stored again by the next backup \
            where the file is still there. Needs the owner's passphrase or identity.

                batchsync repair index -r /backup/repository
            """)

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: OutputOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let opened = try Assembly(repository).open(.owner)
        let monitor = TerminalMonitor(output)
        Signals.stopCleanly()
        let repair = RepairIndex(
            repository: opened, monitor: monitor, cancellation: Signals.cancellation)
        let report = try monitor.whileShowing { try repair.run() }
        if output.json {
            JSONOutput.print("repair-index", Self.document(report))
        } else {
            tell(report)
        }
        return report.isSound ? .done : .damaged
    }

    private func tell(_ report: RepairIndexReport) {
        let console = Console.shared
        for damage in report.damaged {
            console.out("\(console.styled("damaged", .red)) \(damage.object): \(damage.message)")
            if damage.frames > 0 {
                console.out("    \(NumberText.counted(damage.frames, "frame")) of it could be read")
            }
        }
        if !report.harmedSnapshots.isEmpty {
            console.out("not whole: \(report.harmedSnapshots.map(\.short).joined(separator: " "))")
            for path in report.harmedPaths { console.out("    \(UTF8Text.display(path))") }
            let more = report.harmedPathCount - report.harmedPaths.count
            if more > 0 { console.out("    and \(NumberText.grouped(more)) more files") }
        }
        if output.quiet { return }
        console.out(
            "\(NumberText.counted(report.bundles, "bundle")) of \(NumberText.bytes(report.bundleBytes)) read, "
                + "\(NumberText.counted(report.chunks, "chunk")), \(NumberText.counted(report.segments, "segment"))"
        )
        console.out(
            "\(NumberText.counted(report.recordsWritten, "index record")) written, "
                + "\(NumberText.grouped(report.recordsRemoved)) removed")
        StoreSession.shared.tellTraffic()
    }

    private static func document(_ report: RepairIndexReport) -> [(key: String, value: JSONValue)] {
        let damaged = report.damaged.map { damage in
            JSONValue.object([
                ("object", .string(damage.object)), ("message", .string(damage.message)),
                ("frames", .count(damage.frames)),
            ])
        }
        return [
            ("sound", .bool(report.isSound)), ("bundles", .count(report.bundles)),
            ("bundle_bytes", .count(report.bundleBytes)), ("chunks", .count(report.chunks)),
            ("segments", .count(report.segments)),
            ("records_written", .count(report.recordsWritten)),
            ("records_removed", .count(report.recordsRemoved)), ("damaged", .array(damaged)),
            ("harmed_snapshots", JSONValue(ids: report.harmedSnapshots)),
            ("harmed_path_count", .count(report.harmedPathCount)),
            ("harmed_paths", .array(report.harmedPaths.map { JSONValue(path: $0) })),
            StoreSession.shared.trafficField,
        ]
    }
}
