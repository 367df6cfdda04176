import ArgumentParser
import FileTree
import ObjectStorage
import Profiles
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository
import Synchronization

struct BackupCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Store the state of directories as a new snapshot.",
        discussion: """
            Walks the sources, reads what changed since the last snapshot of the same host and sources, and stores what the \
            repository does not have yet. The key of this host is enough; no passphrase is needed.

                batchsync backup -r /backup/repository /home /etc
                batchsync backup -r /backup/repository -x --exclude-caches -e '*.iso' /
                batchsync backup --stdin-from-command db.sql -- pg_dump shop

            A snapshot that is listed is whole: it is written last. What is killed or interrupted goes on, in the next run, \
            from what was stored. A source that does not exist fails the run before anything is written. A source that is a \
            symbolic link is kept as one; with a slash behind it its target is backed up.

            Other file systems below a source are backed up with it, unless -x is given. What the kernel shows in those that hold \
            no files, such as /proc and /sys, is left out; a source that lies in one is walked.

            A file that cannot be read, or that changed while it was read, is named and stored with the snapshot as a problem, and the exit \
            code is 3. Put patterns of the gitignore kind into a file .batchsyncignore to leave out what lies below its \
            directory; 'batchsync explain' says what decides.
            """)

    @Argument(
        help: ArgumentHelp(
            "What to back up; with --stdin-from-command the command.", valueName: "path"))
    var paths: [PathArgument] = []

    @OptionGroup(title: "Repository") var repository: RepositoryOptions

    @Option(
        help: ArgumentHelp(
            "Store on this further store of the repository as well. May be given several times; 'batchsync init --replica-of' makes one.",
            valueName: "repository"))
    var replica: [PathArgument] = []

    @Option(
        help: ArgumentHelp(
            "Where finished bundles wait for a store that is no directory. Without it TMPDIR, or /var/tmp.",
            valueName: "directory"))
    var spoolDirectory: PathArgument?

    @Option(
        help: ArgumentHelp(
            "At most so much waits there, so that reading need not wait for the line.",
            valueName: "size"))
    var spoolLimit: SizeArgument?

    @Option(
        help: ArgumentHelp(
            "Read more sources from a file: ended by NUL or by lines. '-' is standard input.",
            valueName: "file"))
    var filesFrom: [PathArgument] = []

    @Option(help: ArgumentHelp("Store standard input as a file of this name.", valueName: "name"))
    var stdinFilename: PathArgument?

    @Option(
        help: ArgumentHelp(
            "Store what a command prints as a file of this name. If it fails, nothing is committed.",
            valueName: "name"))
    var stdinFromCommand: PathArgument?

    @OptionGroup(title: "Exclusion") var exclusion: ExclusionOptions

    @Option(
        help: ArgumentHelp(
            "Give the snapshot a tag. May be given several times.", valueName: "tag"),
        transform: plainText)
    var tag: [String] = []

    @Option(help: ArgumentHelp("Describe the snapshot.", valueName: "text"), transform: plainText)
    var description: String?

    @Option(
        help: ArgumentHelp("The snapshot's host, if it is not this one.", valueName: "name"),
        transform: plainText)
    var host: String?

    @Option(help: ArgumentHelp("The snapshot's time, if it is not now.", valueName: "time"))
    var time: String?

    @Flag(help: "Read and count, and store nothing.")
    var dryRun = false

    @Flag(help: "Read every file, whatever its times say.")
    var rehash = false

    @Flag(help: "Do not look at inode numbers to tell what changed.")
    var ignoreInode = false

    @Flag(help: "Do not look at the change time (ctime) to tell what changed.")
    var ignoreCtime = false

    @Flag(help: "Do not look at the modification time (mtime) to tell what changed.")
    var ignoreMtime = false

    @Option(
        help: ArgumentHelp("zstd level of new content, 1 (fast) to 19 (small).", valueName: "level")
    )
    var compression = 3

    @Option(
        help: ArgumentHelp(
            "Close a bundle when it holds this much compressed content, 1M to 512M.",
            valueName: "size"))
    var bundleSize: SizeArgument?

    @Option(help: ArgumentHelp("Threads that read, hash and compress.", valueName: "threads"))
    var readConcurrency = 2

    @Option(
        help: ArgumentHelp(
            "At most so many seconds until what was stored can be used by a next run.",
            valueName: "seconds"))
    var checkpointInterval = Limits.checkpointSeconds

    @OptionGroup(title: "Output") var output: OutputOptions

    var wantsJSON: Bool { output.json }

    private var isStream: Bool { stdinFilename != nil || stdinFromCommand != nil }

    func validate() throws {
        if stdinFilename != nil && stdinFromCommand != nil {
            throw ValidationError("--stdin-filename and --stdin-from-command contradict each other")
        }
        if isStream && !filesFrom.isEmpty {
            throw ValidationError("a stream is the only source of its snapshot")
        }
        if stdinFilename != nil && !paths.isEmpty {
            throw ValidationError("a stream is the only source of its snapshot")
        }
        if stdinFromCommand != nil && paths.isEmpty {
            throw ValidationError(
                "no command is given: --stdin-from-command NAME -- COMMAND ARGUMENTS")
        }
        if !isStream && paths.isEmpty && filesFrom.isEmpty {
            throw ValidationError("no path is given: what is to be backed up?")
        }
        guard (1...19).contains(compression) else {
            throw ValidationError("--compression takes 1 to 19")
        }
        if let bundleSize, !(1 << 20...512 << 20).contains(bundleSize.bytes) {
            throw ValidationError("--bundle-size takes 1M to 512M")
        }
        guard (1...64).contains(readConcurrency) else {
            throw ValidationError("--read-concurrency takes 1 to 64")
        }
        guard (1...86_400).contains(checkpointInterval) else {
            throw ValidationError("--checkpoint-interval takes 1 to 86400 seconds")
        }
        if let time, TimeText.moment(time) == nil {
            throw ValidationError(
                "'\(RawArguments.display(time))' is not a time: 2026-03-31T22:00:00Z, or without Z for local time"
            )
        }
        if let host, host.isEmpty || host.utf8.contains(where: { $0 < 0x21 || $0 == 0x7F }) {
            throw ValidationError("a host's name is one word")
        }
        for tag in tag { try TagCommand.check(tag) }
        for name in [stdinFilename, stdinFromCommand].compactMap(\.self) {
            _ = try Self.streamName(name.bytes)
        }
    }

    /// The name of a stream's file: a path below the root, as every path in a snapshot.
    static func streamName(_ bytes: [UInt8]) throws -> [UInt8] {
        var name = bytes[...]
        while name.first == 0x2F { name.removeFirst() }
        let path = [0x2F] + name
        guard !name.isEmpty, EntryPath.isCanonical(path) else {
            throw ValidationError("'\(UTF8Text.display(bytes))' is no name for a file")
        }
        return Array(name)
    }

    func perform() throws -> ExitStatus {
        let spool = try spoolDirectory.map {
            try Assembly.text($0.bytes, of: "a spool directory")
        }
        let assembly = Assembly(repository) { access in
            access.spoolDirectory = spool
            access.spoolBytes = spoolLimit.flatMap { Int(exactly: $0.bytes) }
        }
        let record = exclusion.recorded
        var options = BackupOptions(host: host ?? Assembly.hostName, program: Assembly.program)
        options.walk = try record.walkOptions()
        options.stream = try stream()
        options.tags = tag
        options.description = description
        options.time = time.flatMap(TimeText.moment).map { Timestamp(seconds: $0.seconds) }
        options.level = compression
        options.readers = readConcurrency
        if let bundleSize { options.bundleBytes = Int(bundleSize.bytes) }
        options.ignoresInode = ignoreInode
        options.ignoresCtime = ignoreCtime
        options.ignoresMtime = ignoreMtime
        options.rehash = rehash
        options.dryRun = dryRun
        options.checkpointSeconds = checkpointInterval
        options.recordedOptions = .object(record.fields + [("compression", .count(compression))])
        let monitor = TerminalMonitor(output)
        let locations = [try assembly.location()] + (try replicaLocations(assembly))
        func makeJob() throws -> BackupJob {
            options.roots = try sources()
            var job = BackupJob(
                options: options, locations: locations, assembly: assembly, monitor: monitor)
            try job.checkSources()
            return job
        }
        guard !dryRun else {
            let report = try backUp(try makeJob(), assembly, monitor)
            return report.isPartial ? .partial : .done
        }
        let directories = try assembly.directories()
        // A source that is not there is a backup that was not made: the history has it too.
        return try RunReporter.keep(.backup, at: locations, directories) { run, findings in
            let job = try makeJob()
            monitor.expect(
                milliseconds: RunReporter.expectedMilliseconds(
                    of: .backup, .repository(RunReporter.place(locations[0])),
                    state: directories.state, roots: job.options.roots.map(\.path)))
            let report = try backUp(job, assembly, monitor)
            run.take(report)
            run.notes = monitor.notes
            findings.take(report, at: Assembly.now)
            return report.isPartial ? .partial : .done
        }
    }

    private func backUp(
        _ job: BackupJob, _ assembly: Assembly, _ monitor: TerminalMonitor
    ) throws -> BackupReport {
        let stores = try StoreGroup(job.locations, assembly, monitor)
        Signals.stopCleanly()
        let report = try job.run(on: stores)
        if output.json {
            JSONOutput.print("backup", Self.document(report, dryRun: dryRun))
        } else if !output.quiet {
            tell(report)
        }
        return report
    }

    /// Further stores, from the words or from the profile.
    private func replicaLocations(_ assembly: Assembly) throws -> [String] {
        let given = try replica.map { try Assembly.text($0.bytes, of: "a repository") }
        return try given + (assembly.profile()?.replicas.map(\.location) ?? [])
    }

    private func sources() throws -> [SourceRoot] {
        guard !isStream else { return [] }
        var words = paths.map(\.bytes)
        for file in filesFrom {
            words += FileList.paths(
                in: try HostFile.read(file.bytes, purpose: "the list of sources in"))
        }
        return try BackupJob.sources(words)
    }

    private func stream() throws -> StreamSource? {
        if let stdinFilename {
            return .descriptor(0, name: try Self.streamName(stdinFilename.bytes))
        }
        guard let stdinFromCommand else { return nil }
        let words = try paths.map { word in
            guard UTF8Text.isValid(word.bytes) else {
                throw CommandError.usage("a word of the command must be UTF-8: \(word.display)")
            }
            return String(decoding: word.bytes, as: UTF8.self)
        }
        return .command(words, name: try Self.streamName(stdinFromCommand.bytes))
    }

    private func tell(_ report: BackupReport) {
        let console = Console.shared
        let count = report.statistics
        let name =
            report.snapshot.name == nil
            ? "dry run, nothing was stored" : "snapshot \(report.snapshot.id.short)"
        console.out(
            "\(name): \(NumberText.counted(count.files, "file")), \(NumberText.bytes(count.bytes))")
        let changes = [
            ("new", count.new), ("changed", count.changed), ("touched", count.touched),
            ("metadata", count.metadata),
            ("unchanged", count.unchanged), ("removed", count.removed),
        ].filter { $0.1 > 0 }.map { "\(NumberText.grouped($0.1)) \($0.0)" }
        if !changes.isEmpty { console.out("  \(changes.joined(separator: ", "))") }
        let duration = TimeText.duration(milliseconds: count.durationMilliseconds)
        let stored =
            report.snapshot.name == nil
            ? "would store \(NumberText.bytes(count.newBytes)) before compression"
            : "stored \(NumberText.bytes(count.storedBytes)) in \(NumberText.counted(count.bundles, "bundle"))"
        console.out("  read \(NumberText.bytes(count.readBytes)), \(stored), took \(duration)")
        if report.stores.count > 1 {
            for store in report.stores { Self.tell(store) }
        }
        StoreSession.shared.tellTraffic(indent: "  ")
        if report.resumedBundles > 0 {
            console.out(
                "  went on from an interrupted run: \(NumberText.counted(report.resumedBundles, "bundle")) used"
            )
        }
        if report.problemCount > 0 {
            let problems = NumberText.counted(report.problemCount, "problem")
            let place = report.snapshot.name == nil ? "" : ", stored with the snapshot"
            console.out(console.styled("  \(problems)\(place)", .red))
        }
    }

    static func tell(_ store: StoreOutcome) {
        let console = Console.shared
        if let failure = store.failure {
            console.out(
                console.styled("  \(store.location): not there, \(failure.description)", .red))
            return
        }
        var line = "  \(store.location): there"
        if store.broughtSnapshots > 0 {
            line += ", and \(NumberText.counted(store.broughtSnapshots, "snapshot")) that it lacked"
        }
        if store.copiedBundles > 0 {
            line +=
                ", \(NumberText.counted(store.copiedBundles, "bundle")) of \(NumberText.bytes(store.copiedBytes)) copied"
        }
        console.out(line)
    }

    static func document(_ report: BackupReport, dryRun: Bool) -> [(
        key: String, value: JSONValue
    )] {
        var snapshot = JSONValue.null
        if report.snapshot.name != nil { snapshot = report.snapshot.document }
        return [
            ("snapshot", snapshot), ("dry_run", .bool(dryRun)),
            ("statistics", report.statistics.document),
            ("problem_count", .count(report.problemCount)),
            ("problems", .array(report.problems.map(\.document))),
            ("had_cache", .bool(report.hadCache)),
            ("resumed_bundles", .count(report.resumedBundles)),
            ("notes", .array(report.notes.map { .string($0) })),
            ("vanished", .array(report.vanished.map { .string($0) })),
            ("stores", .array(report.stores.map(\.document))),
            StoreSession.shared.trafficField,
        ]
    }
}

extension SnapshotProblem {
    var document: JSONValue {
        .object([
            ("path", JSONValue(path: path)), ("kind", .string(kind.rawValue)),
            ("message", .string(message)),
        ])
    }
}

extension StoreOutcome {
    var document: JSONValue {
        .object([
            ("location", .string(location)), ("error", .optional(failure?.description)),
            ("brought_snapshots", .count(broughtSnapshots)),
            ("copied_bundles", .count(copiedBundles)), ("copied_bytes", .count(copiedBytes)),
        ])
    }
}
