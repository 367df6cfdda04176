import CSystem
import FileTree
import Glibc
import SnapshotModel
package import SnapshotRepository
import Synchronization

/// Writes a snapshot, or part of one, below a directory of this host.
///
/// Memory is bounded whatever the snapshot holds: it goes through the manifest round by round, and
/// writes the files of a round in the order in which their frames lie in the store, so that each
/// frame is fetched and opened once a round.
package final class Restore {
    private let context: RestoreContext
    /// The target and parents of it, where they were not there, the innermost first.
    private var made: [String] = []

    package init(
        repository: Repository, index: ChunkIndex, snapshot: Snapshot, options: RestoreOptions,
        monitor: any Monitor, cancellation: Cancellation
    ) {
        context = RestoreContext(
            repository: repository, index: index, snapshot: snapshot, options: options,
            monitor: monitor, cancellation: cancellation)
    }

    /// What a restore into an empty directory would fetch and write. Makes nothing.
    ///
    /// - Parameter path: As for `run`.
    package func plan(path: [UInt8]?) throws(ReplicationError) -> RestorePlan {
        var options = context.options
        options.dryRun = true
        options.ifExists = nil
        options.delete = false
        let dry = RestoreContext(
            repository: context.repository, index: context.index, snapshot: context.snapshot,
            options: options, monitor: context.monitor, cancellation: context.cancellation)
        let run = try RestoreRun(dry, selected: try Self.canonical(path), isTargetNew: true)
        try run.run()
        try check(run, path)
        return run.plan
    }

    /// What was done so far: what there is to tell of a restore that was stopped.
    package var reportSoFar: RestoreReport { context.outcome.report }

    /// Restores.
    ///
    /// - Parameters:
    ///   - path: Absolute path in the snapshot. What is in it goes into the target itself, a file
    ///     to its name in the target. Nil for everything: absolute paths are made again below the
    ///     target.
    ///   - target: A directory of this host; made where it is missing.
    /// - Throws: What stops the restore as a whole. What costs single files is in the report. In a
    ///   dry run the report says what would be done.
    package func run(path: [UInt8]?, target: String) throws(ReplicationError) -> RestoreReport {
        try refuseContradictions(path, target)
        if context.options.delete || context.snapshot.problemCount > 0 {
            try readProblems()
        }
        let selected = try Self.canonical(path)
        _ = csys_raise_open_files()
        let isTargetNew = try openTarget(target)
        let run = try RestoreRun(context, selected: selected, isTargetNew: isTargetNew)
        context.monitor.phase("restore")
        if path == nil, run.selection.isEverything {
            let statistics = context.snapshot.statistics
            context.monitor.counts.entriesExpected.store(
                statistics.files + statistics.directories + statistics.others, ordering: .relaxed)
            context.monitor.counts.bytesExpected.store(statistics.bytes, ordering: .relaxed)
        }
        try run.run()
        do throws(ReplicationError) {
            try check(run, path)
        } catch {
            // Nothing was found, so nothing lies in what was made.
            for directory in made { rmdir(directory) }
            throw error
        }
        if run.selection.hasIncludes, !run.hasIncluded {
            context.outcome.note(
                "nothing that was asked for matches --include: a pattern with a slash in it begins at the source, '*' stops at a slash and '**' does not; 'batchsync find' shows what there is"
            )
        }
        var report = context.outcome.report
        report.ownersDenied.sort { EntryPath.precedes($0.path, $1.path) }
        report.notStoredWhole = Array(
            context.problems.lazy.filter { problem in
                selected.map { EntryPath.contains($0, problem.path) } ?? true
            }.prefix(RestoreReport.listed))
        if context.options.dryRun {
            report.files = run.plan.files
            report.links = run.plan.links
            report.others = run.plan.others
            report.fetchedBytes = run.plan.fetchBytes
            report.writtenBytes = run.plan.writeBytes
        }
        return report
    }

    /// What the backup could not store is named when somebody asks for it, and no extra.
    private func readProblems() throws(ReplicationError) {
        do throws(RepositoryError) {
            let fetcher = try FrameFetcher(
                context.repository, index: context.index, accesses: context.accesses, keeping: 1)
            context.problems = try ManifestReader(context.snapshot, fetcher: fetcher).problems()
            context.spared = RestoreSpared(context.problems)
        } catch {
            // Without that list nobody knows what is extra; all else can go on.
            if context.options.delete { throw ReplicationError(error) }
        }
    }

    private func check(_ run: RestoreRun, _ path: [UInt8]?) throws(ReplicationError) {
        guard run.found == 0, let path else { return }
        if context.outcome.report.damagedCount > 0 || run.outcome.report.damagedCount > 0 { return }
        if let reason = context.spared.reason(for: Self.trimmed(path)) {
            throw ReplicationError(
                .repository(.notFound), UTF8Text.display(path),
                "is not in snapshot \(context.snapshot.id.short): \(reason)",
                remedy: "look for it in an earlier snapshot: 'batchsync find' lists them")
        }
        throw ReplicationError(
            .repository(.notFound), UTF8Text.display(path),
            "is not in snapshot \(context.snapshot.id.short)",
            remedy: "'batchsync ls' shows what is in it")
    }

    private static func trimmed(_ path: [UInt8]) -> [UInt8] {
        var path = path
        while path.count > 1, path.last == 0x2F { path.removeLast() }
        return path
    }

    /// Takes the slash from the end that a user may have typed.
    private static func canonical(_ path: [UInt8]?) throws(ReplicationError) -> [UInt8]? {
        guard let given = path else { return nil }
        let path = trimmed(given)
        guard EntryPath.isCanonical(path) else {
            throw ReplicationError(
                .usage, UTF8Text.display(path), "is no absolute path without '.' and '..'",
                remedy: "write it as 'batchsync ls' shows it")
        }
        return path
    }

    private func refuseContradictions(_ path: [UInt8]?, _ target: String) throws(ReplicationError) {
        let options = context.options
        if options.delete {
            guard options.include.isEmpty else {
                throw ReplicationError(
                    .usage, "--delete", "cannot be used together with --include",
                    remedy:
                        "what --include leaves out would be removed: name a path of the snapshot instead"
                )
            }
            if path == nil, Self.resolved(target) == "/" {
                throw ReplicationError(
                    .usage, "--delete", "is refused for a whole snapshot with --target /",
                    remedy:
                        "name the directory to be made equal: SNAPSHOT:/srv/www --target /srv/www")
            }
            guard options.ifExists != nil else {
                throw ReplicationError(
                    .usage, "--delete", "needs --if-exists",
                    remedy:
                        "say with --if-exists replace|keep|newer|fail what happens to existing files"
                )
            }
        }
        let patterns: [(option: String, pattern: [UInt8])] =
            options.include.map { (option: "--include", pattern: $0) }
            + options.exclude.map { (option: "--exclude", pattern: $0) }
        for (option, pattern) in patterns {
            if let defect = GlobPattern(pattern).defect {
                throw ReplicationError(
                    .usage, "\(option) \(UTF8Text.display(pattern))", "can never match: \(defect)",
                    remedy: "correct the pattern")
            }
        }
    }

    // MARK: The target

    /// Opens the target; answers whether it is new.
    private func openTarget(_ path: String) throws(ReplicationError) -> Bool {
        try refuseRepository(path)
        let isDry = context.options.dryRun
        let bytes = Array(path.utf8)
        var isNew = false
        do throws(FileTreeError) {
            context.target = try TargetDirectory.open(path: bytes, create: false)
        } catch {
            guard error.kind == .notFound else { throw ReplicationError(error) }
            isNew = true
            if isDry { return true }
            made = Self.missing(path)
            context.target = try lifted { try TargetDirectory.open(path: bytes, create: true) }
        }
        guard let target = context.target else { return true }
        if !isNew, context.options.ifExists == nil {
            guard try lifted({ try target.isEmpty }) else {
                throw ReplicationError(
                    .usage, path, "is not empty",
                    remedy:
                        "choose a new directory, or say with --if-exists replace|keep|newer|fail what happens to existing files"
                )
            }
        }
        if !isDry {
            context.tree = TreeWriter(
                target: target, ownership: context.options.numericIDs ? .numbers : .names)
        }
        return isNew
    }

    /// The directories that are not there on the way to `path`, the innermost first.
    private static func missing(_ path: String) -> [String] {
        var missing: [String] = []
        var path = path
        while true {
            while path.utf8.count > 1, path.utf8.last == 0x2F { path.removeLast() }
            guard !path.isEmpty, access(path, F_OK) != 0 else { return missing }
            missing.append(path)
            guard let slash = path.utf8.lastIndex(of: 0x2F) else { return missing }
            path = String(path[..<slash])
        }
    }

    /// A restore into the repository would damage it, or fill it.
    private func refuseRepository(_ target: String) throws(ReplicationError) {
        guard context.repository.isLocalStore,
            let own = Self.resolved(context.repository.location)
        else { return }
        let place = Self.resolvedParent(target)
        if place == own || place.hasPrefix(own == "/" ? "/" : own + "/") {
            throw ReplicationError(
                .usage, target, "lies in the repository itself",
                remedy: "choose a directory outside of \(own)")
        }
        let prefix = place == "/" ? "/" : place + "/"
        if own.hasPrefix(prefix) {
            context.repositoryInTarget = Array(own.utf8.dropFirst(prefix.utf8.count))
        }
    }

    private static func resolved(_ path: String) -> String? {
        guard let found = realpath(path, nil) else { return nil }
        defer { free(found) }
        return String(cString: found)
    }

    /// The path without symbolic links, as far as it exists.
    private static func resolvedParent(_ path: String) -> String {
        var head = path.hasPrefix("/") ? path : (resolved(".") ?? "") + "/" + path
        var tail = ""
        while head.count > 1 {
            if let found = resolved(head) {
                return found == "/" ? "/" + tail : tail.isEmpty ? found : found + "/" + tail
            }
            while head.hasSuffix("/"), head.count > 1 { head.removeLast() }
            guard let slash = head.lastIndex(of: "/") else { break }
            let name = String(head[head.index(after: slash)...])
            tail = tail.isEmpty ? name : name + "/" + tail
            head = String(head[..<slash])
        }
        return "/" + tail
    }
}
