import FileTree
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization

/// One backup as a user asks for it, by words or by a profile: sources checked, stores opened,
/// somebody told how far it is, and the report.
struct BackupJob {
    var options: BackupOptions
    /// The repository's stores, the leading one first.
    let locations: [String]
    let assembly: Assembly
    let monitor: TerminalMonitor

    private var isStream: Bool { options.stream != nil }

    /// Names a file system source can have, and what would go wrong with them. Before anything is
    /// written.
    mutating func checkSources() throws {
        guard !isStream else { return }
        for location in locations {
            let check = SourceCheck(
                roots: options.roots, repository: Array(location.utf8),
                directories: try assembly.directories())
            try check.refuseInside()
            for note in check.warnings + check.leaveOutOwnFiles(of: &options.walk) {
                monitor.note(note)
            }
        }
        warnOfPatterns()
        recordRules()
    }

    /// The snapshot tells which patterns were in force, those out of files included: the files may
    /// be others by the time somebody asks.
    private mutating func recordRules() {
        let rules = options.walk.rules.written
        guard !rules.isEmpty, let fields = options.recordedOptions.fields else { return }
        let recorded = rules.prefix(Self.rulesRecorded).compactMap(RecordedRule.init)
        options.recordedOptions = .object(
            fields + [("rules", .array(recorded.map(\.document)))])
    }

    /// A snapshot names no more patterns than this one by one.
    private static let rulesRecorded = 1000

    /// - Parameter stores: Opened before, where the caller has other business with them too.
    func run(on stores: StoreGroup) throws -> BackupReport {
        var options = options
        options.uploads = stores.uploads
        let backup = Backup(
            stores.leader, replicas: stores.replicas, options: options, monitor: monitor,
            cancellation: Signals.cancellation)
        let counting = expectTotals(stores.leader)
        defer { counting?.join() }
        var report = try monitor.whileShowing { try backup.run() }
        report.stores += stores.lost
        for note in report.notes { monitor.note(note) }
        return report
    }

    /// Patterns that do not do what they look like.
    private func warnOfPatterns() {
        for (rule, defect) in options.walk.rules.neverMatching {
            monitor.note("\(rule) never matches: \(defect)")
        }
        for rule in options.walk.rules.probablyAbsolute(roots: options.roots.map(\.path)) {
            monitor.note(
                "\(rule) begins at the source; a path from the root of the file system begins with //"
            )
        }
    }

    /// Where somebody looks: what the last snapshot had, or what a count beside the first one finds.
    private func expectTotals(_ repository: Repository) -> SideThread? {
        guard monitor.isShown, !isStream else { return nil }
        if let last = ExpectedTotals.previous(repository, host: options.host, roots: options.roots)
        {
            let statistics = last.statistics
            monitor.counts.entriesExpected.store(
                statistics.files + statistics.directories + statistics.others, ordering: .relaxed)
            return nil
        }
        let (roots, walk, monitor) = (options.roots, options.walk, monitor)
        return SideThread {
            ExpectedTotals.count(roots, walk, into: monitor.counts) { monitor.isOver }
        }
    }

    /// The sources that words name, each of which has to be there.
    static func sources(_ words: [[UInt8]]) throws -> [SourceRoot] {
        guard !words.isEmpty else { throw CommandError.usage("the list of sources is empty") }
        do {
            return try SourceRoot.merged(try words.map { try SourceRoot($0) })
        } catch let error as FileTreeError {
            throw CommandError(
                .failed, error.description,
                remedy: "nothing was written; every source has to be there")
        }
    }
}
