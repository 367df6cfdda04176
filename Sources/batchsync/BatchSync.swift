import ArgumentParser
import CSystem
import Glibc
import Profiles
import Replication

/// The command.
@main
struct BatchSync: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "batchsync",
        abstract: "Back up directories into an encrypted repository, and get them back.",
        discussion: """
            A repository holds snapshots: the state of some directories at one time. What two snapshots share is \
            stored once, in compressed and encrypted bundles that tar, zstd and age can open as well.

                batchsync init -r /backup/repository
                batchsync backup -r /backup/repository /home /etc
                batchsync snapshots -r /backup/repository
                export BATCHSYNC_REPOSITORY=/backup/repository
                batchsync restore latest:/home/anna --target /tmp/anna

            A backup needs the key of this host, which init makes, and no passphrase. What reads content or names needs \
            the owner's passphrase or identity.

            SNAPSHOT is the beginning of an id, 'latest', 'latest~2' (two before the last), or a date or time such as \
            2026-03-31 or '2026-03-31 22:00', which means the newest snapshot at or before it. 'latest' and dates mean \
            snapshots of this host unless --host names another. Paths in a snapshot are absolute.

            EXIT STATUS

            \(ExitStatus.table)

            ENVIRONMENT

                BATCHSYNC_REPOSITORY      the repository, where -r is not given
                BATCHSYNC_PASSPHRASE      the owner's passphrase
                BATCHSYNC_NEW_PASSPHRASE  the passphrase that 'key add --passphrase' adds
                BATCHSYNC_CONFIG_DIR      where the keys of this host are
                BATCHSYNC_CACHE_DIR       where the cache is
                BATCHSYNC_STATE_DIR       where the state is
                CREDENTIALS_DIRECTORY     systemd's: its file batchsync-passphrase
                NO_COLOR                  no colours on a terminal

            The passphrase comes from --passphrase-file or --passphrase-command, else from BATCHSYNC_PASSPHRASE, else \
            from the systemd credential, else it is asked for on the terminal.

            FILES

                /etc/batchsync/keys/          host keys; without its own a
                                              repository takes no backup
                /var/cache/batchsync/         index and last manifests; may be
                                              deleted at any time
                /var/lib/batchsync/           what was committed last, journals
                                              of interrupted runs, history,
                                              status and logs

            These are root's. Other users have them below $XDG_CONFIG_HOME, $XDG_CACHE_HOME and $XDG_STATE_HOME, \
            or ~/.config, ~/.cache and ~/.local/state.
            """,
        version: Version.text,
        groupedSubcommands: [
            CommandGroup(
                name: "Daily",
                subcommands: [
                    InitCommand.self, BackupCommand.self, RestoreCommand.self, RunCommand.self,
                ]),
            CommandGroup(
                name: "Inspection",
                subcommands: [
                    SnapshotsCommand.self, ListCommand.self, FindCommand.self, DiffCommand.self,
                    DumpCommand.self,
                    StatsCommand.self, ExplainCommand.self, StatusCommand.self,
                    HistoryCommand.self,
                ]),
            CommandGroup(
                name: "Maintenance",
                subcommands: [
                    VerifyCommand.self, ForgetCommand.self, PruneCommand.self, RepairCommand.self,
                    TagCommand.self, KeyCommand.self, StoreCommand.self, ProfileCommand.self,
                    ScheduleCommand.self, DaemonCommand.self,
                ]),
        ])

    static func main() {
        csys_spare_memory()
        _ = csys_raise_open_files()
        Signals.install()
        let words = Array(RawArguments.all.dropFirst())
        var asJSON = words.prefix { $0 != "--" }.contains("--json")
        do {
            try refuseUnknownVerb(words)
            let command: any ParsableCommand
            do {
                command = try parseAsRoot(words)
            } catch {
                end(with: parserOutcome(error, asJSON: asJSON))
            }
            guard let verb = command as? any Verb else {
                // `help`, or a verb that only has verbs below it: what they print is thrown.
                var command = command
                do { try command.run() } catch { end(with: parserOutcome(error, asJSON: asJSON)) }
                end(with: .done)
            }
            asJSON = verb.wantsJSON
            end(with: try verb.perform())
        } catch let error as ReplicationError where error.kind == .outputClosed {
            Console.shared.flush()
            Signals.endOfPipe()
        } catch {
            let report = ErrorReport(error)
            report.print(asJSON: asJSON)
            end(with: report.status)
        }
    }

    /// The parser takes a verb that it does not know for an argument, and `help` shows the general
    /// page for it.
    private static func refuseUnknownVerb(_ words: [String]) throws {
        var verbs: [String] = []
        for group in configuration.groupedSubcommands {
            for verb in group.subcommands { verbs.append(verb._commandName) }
        }
        let named = words.first == "help" ? words.dropFirst().first : words.first
        guard let named, !named.hasPrefix("-"), named != "help", !verbs.contains(named) else {
            return
        }
        let shown = RawArguments.display(named)
        let nearest = Spelling.nearest(to: named, among: verbs)
        throw CommandError.usage(
            "there is no verb '\(shown)'",
            remedy: nearest.map { "did you mean '\($0)'?" } ?? "'batchsync help' lists them")
    }

    /// Prints what the parser has to say: help and version as a result, everything else as an
    /// error.
    private static func parserOutcome(_ error: any Error, asJSON: Bool) -> ExitStatus {
        let message = RawArguments.display(fullMessage(for: error))
        guard !exitCode(for: error).isSuccess else {
            Console.shared.out(message)
            return .done
        }
        var lines = message.split(separator: "\n", omittingEmptySubsequences: false).map(
            String.init)
        var sentence = lines.removeFirst()
        if sentence.hasPrefix("Error: ") { sentence.removeFirst(7) }
        let hint = lines.map { $0.trimmingIndent.summarisingUsage }.filter { !$0.isEmpty }.joined(
            separator: "\n  ")
        let report = CommandError.usage(sentence, remedy: hint)
        ErrorReport(report).print(asJSON: asJSON)
        return .usage
    }

    private static func end(with status: ExitStatus) -> Never {
        StoreSession.shared.end()
        HostPlaces.end()
        Console.shared.progress("")
        Console.shared.flush()
        // Not `exit`: what the C libraries tear down there may be in use by a thread that still
        // waits for a server.
        Glibc._exit(status.rawValue)
    }
}

extension String {
    /// The usage of a verb without its options one by one: `--help` lists them.
    fileprivate var summarisingUsage: String {
        guard hasPrefix("Usage: ") else { return self }
        let brief = replacing(/\ \[-[^\]]*\]/, with: "")
        return brief == self ? self : brief + " [<options>]"
    }

    fileprivate var trimmingIndent: String { String(drop { $0 == " " }) }
}
