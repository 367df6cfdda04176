import ArgumentParser
import Replication
import SnapshotModel
import SnapshotRepository

struct DumpCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "dump",
        abstract: "Write a file, or a directory as a tar archive, to standard output.",
        discussion: """
            A file is written as it is, a directory as an archive whose names begin at the directory. Nothing else goes to \
            standard output. Needs the owner's passphrase or identity.

                batchsync dump latest:/etc/fstab -r /backup/repository
                batchsync dump latest:/srv/www -r /backup/repository | tar -xC /tmp/www

            In an archive a file that is damaged in the repository is zeros from the damage on; it is named, and the exit code \
            is 4. A single file that is damaged ends the output there.

            Where whoever reads the output has had enough, as head(1) may, dump ends without a word by SIGPIPE, which a shell \
            shows as 141.
            """)

    @Argument(help: ArgumentHelp("What to write.", valueName: "snapshot:path"))
    var snapshot: SnapshotArgument

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions

    @Flag(name: .shortAndLong, help: "Say nothing but problems and errors.")
    var quiet = false

    @Flag(help: .hidden)
    var json = false

    func validate() throws {
        try snapshot.validate()
        if json {
            throw ValidationError(
                "standard output is for the content, so dump has no --json; 'batchsync ls --json' describes files"
            )
        }
    }

    func perform() throws -> ExitStatus {
        if Console.shared.outputIsTerminal, snapshot.path == nil {
            throw CommandError.usage(
                "an archive of a whole snapshot is nothing for a terminal",
                remedy: "write it into a file or a pipe, or name a path: \(snapshot.snapshot):/PATH"
            )
        }
        let opened = try Assembly(repository).open(.owner)
        let catalog = try Assembly.catalog(opened)
        let found = try Assembly.find(snapshot.snapshot, in: catalog, selection)
        let monitor = TerminalMonitor(verbose: false, quiet: quiet, showsLine: false)
        Signals.stopCleanly()
        let dump = try Dump(
            repository: opened, index: try Assembly.index(opened), snapshot: found,
            monitor: monitor,
            cancellation: Signals.cancellation)
        let report = try dump.run(path: snapshot.path ?? [0x2F], to: 1)
        if !report.damaged.isEmpty { return .damaged }
        return report.problems.isEmpty ? .done : .partial
    }
}
