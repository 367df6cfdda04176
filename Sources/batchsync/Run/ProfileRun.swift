import ObjectStorage
import Profiles
import Replication
import SnapshotModel
import SnapshotRepository

/// What a profile does in a night: hooks, backup to all stores, a share of verification, forgetting
/// and pruning when they are due.
///
/// The backup decides whether the run has failed. What comes after it is done for each store by
/// itself, and what fails there is told with the store.
struct ProfileRun {
    let profile: Profile
    let monitor: TerminalMonitor
    private let assembly: Assembly
    private let directories: HostDirectories

    init(_ profile: Profile, monitor: TerminalMonitor) throws {
        self.profile = profile
        self.monitor = monitor
        assembly = Assembly(profile)
        directories = try assembly.directories()
    }

    /// - Parameter ifOlderThan: Do nothing where the newest good snapshot is younger than so many
    ///   seconds; 0 to run in any case.
    func perform(ifOlderThan seconds: Int) -> RunReport {
        var report = RunReport(profile: profile.name, began: Assembly.now)
        do {
            try run(&report, ifOlderThan: seconds)
        } catch {
            report.fail(error)
        }
        if report.status != .done, report.status != .partial, !Signals.haveArrived {
            hook("on-failure", profile.hooks.onFailure, &report)
        }
        report.ended = Assembly.now
        return report
    }

    private func run(_ report: inout RunReport, ifOlderThan seconds: Int) throws {
        var state = RunState(profile: profile.name, directories: directories)
        // A snapshot in a repository that the profile named before is none in this one.
        let place = profile.repository.location
        if seconds > 0, !state.isDue(.backup, at: place, every: seconds, now: Assembly.now),
            let last = state.last(.backup, at: place)
        {
            report.skipped = "the last good snapshot is of \(TimeText.person(last)): nothing to do"
            return
        }
        guard hook("before", profile.hooks.before, &report) else {
            // What was begun is brought to its end.
            hook("after", profile.hooks.after, &report)
            return
        }
        defer { hook("after", profile.hooks.after, &report) }
        var job = BackupJob(
            options: try profile.backupOptions(), locations: profile.locations,
            assembly: assembly, monitor: monitor)
        try job.checkSources()
        let stores = try StoreGroup(profile.locations, assembly, monitor)
        let backup = try job.run(on: stores)
        report.backup = backup
        if backup.isPartial { report.worsen(.partial) }
        state.done(.backup, at: place, now: Assembly.now)

        let failed = Set(backup.stores.filter { $0.failure != nil }.map(\.location))
        for repository in stores.repositories where !failed.contains(repository.location) {
            var store = RunReport.Store(location: repository.location)
            do {
                try maintain(repository, &store, &state, &report)
            } catch {
                let failure = ErrorReport(error)
                store.failure = failure.message
                report.failures.append(
                    ("\(repository.location): \(failure.message)", failure.remedy))
                report.worsen(failure.status == .damaged ? .damaged : .partial)
            }
            report.stores.append(store)
            guard !Signals.haveArrived else { throw ReplicationError.interrupted }
        }
    }

    /// Verifies, forgets and prunes on one store what is due there.
    private func maintain(
        _ repository: Repository, _ store: inout RunReport.Store, _ state: inout RunState,
        _ report: inout RunReport
    ) throws {
        let location = repository.location
        let interval = profile.verify.intervalSeconds
        if state.isDue(.verify, at: location, every: interval, now: Assembly.now) {
            let verified = try verify(location)
            store.verified = verified
            if !verified.isSound {
                report.worsen(.damaged)
                for finding in verified.findings where finding.isDamage {
                    report.failures.append(("\(location): \(finding.description)", finding.remedy))
                }
                // What is damaged is looked at by a person before anything is deleted.
                store.notices.append("nothing was forgotten or pruned: damage was found")
                return
            }
            state.done(.verify, at: location, now: Assembly.now)
        }
        try forget(repository, &store, like: report.backup?.snapshot)
        try prune(repository, &store, &state, &report)
    }

    private func prune(
        _ repository: Repository, _ store: inout RunReport.Store, _ state: inout RunState,
        _ report: inout RunReport
    ) throws {
        let location = repository.location
        guard profile.prune.isEnabled,
            state.isDue(
                .prune, at: location, every: profile.prune.intervalSeconds, now: Assembly.now)
        else { return }
        guard !repository.deniesDeleting() else {
            store.notices.append("not pruned: the store does not let this user delete")
            return
        }
        let budget = profile.prune.maximumRewrite.rewriteBudget
        let pruned = try PruneCommand.prune(
            budget == nil ? repository : try openAsOwner(location), budget: budget,
            level: profile.backup.compression, dryRun: false, monitor: monitor)
        store.pruned = pruned
        store.notices += pruned.warnings
        if pruned.foundDamage {
            report.failures.append(
                (
                    "\(location): damage was found while pruning: \(pruned.notes.joined(separator: "; "))",
                    "run 'batchsync verify --read-data', which names what is affected"
                ))
            report.worsen(.damaged)
            // The next run says it again, until it is mended.
            return
        }
        state.done(.prune, at: location, now: Assembly.now)
    }

    /// The repository with the owner's identity, where the profile has it, for what needs more than
    /// the host key.
    private func openAsOwner(_ location: String) throws -> Repository {
        let opened = try assembly.openStore(try assembly.opener(location))
        return try assembly.open(
            .ownerIfGiven, in: opened, asReplica: location != profile.repository.location)
    }

    /// At the depth that the keys at hand allow.
    private func verify(_ location: String) throws -> VerifyReport {
        let repository = try openAsOwner(location)
        let options = VerifyOptions(
            readData: profile.readShare, host: Assembly.hostName, now: Assembly.now)
        return try monitor.whileShowing {
            try Verify(
                repository: repository, options: options, monitor: monitor,
                cancellation: Signals.cancellation
            ).run()
        }
    }

    /// Judges the snapshots of this job, which are those of its host and its sources. What other
    /// profiles and words have made in the same repository neither counts nor goes.
    private func forget(
        _ repository: Repository, _ store: inout RunReport.Store, like made: Snapshot?
    ) throws {
        let policy = profile.retentionPolicy
        guard !policy.rules.isEmpty, let made else { return }
        var catalog = try SnapshotCatalog.load(repository)
        catalog.markIncomplete(try ChunkIndex.load(repository))
        let roots = Set(made.roots)
        let plan = try ForgetPlan.byPolicy(
            policy, on: catalog, grouping: profile.retentionGrouping, now: Assembly.now,
            calendar: .local, isWanted: { $0.host == made.host && Set($0.roots) == roots })
        _ = try Forget(repository, host: Assembly.hostName, now: Assembly.now).execute(
            plan, on: catalog)
        store.forgotten = plan.forgotten.map(\.id)
    }

    // MARK: Hooks

    /// Runs the commands of a hook; says what went wrong with the first that fails.
    ///
    /// - Returns: Whether all went well.
    @discardableResult
    private func hook(_ name: String, _ lines: [String], _ report: inout RunReport) -> Bool {
        guard !lines.isEmpty else { return true }
        monitor.phase("hook \(name)")
        report.ended = Assembly.now
        var environment = [
            "BATCHSYNC_HOOK": name, "BATCHSYNC_PROFILE": profile.name,
            "BATCHSYNC_REPOSITORY": profile.repository.location,
        ]
        if name != "before" { environment.merge(report.environment) { own, _ in own } }
        let outcomes = HookRunner(
            timeLimitSeconds: profile.hooks.timeLimitSeconds, environment: environment,
            // What "before" began is brought to an end also where the run was asked to stop.
            cancellation: name != "before" && Signals.haveArrived
                ? Cancellation() : Signals.cancellation
        ).run(lines)
        report.hooks += outcomes.map { (name, $0) }
        for outcome in outcomes { monitor.hook(name, outcome) }
        guard let failed = outcomes.last, !failed.isGood else { return true }
        let words = UTF8Text.display(Array(failed.line.utf8))
        report.failures.append(
            (
                "hook \(name): '\(words)' \(failed.failure)",
                failed.output.isEmpty
                    ? "run it by hand to see why"
                    : "it said: \(Self.lastLine(failed.output))"
            ))
        let wasStopped = failed.ending == .stopped
        report.worsen(
            wasStopped ? Signals.statusOfInterruption : name == "before" ? .failed : .partial)
        return false
    }

    private static func lastLine(_ output: [UInt8]) -> String {
        let line = output.split(separator: 0x0A).last.map(Array.init) ?? []
        return UTF8Text.display(Array(line.suffix(400)))
    }
}

extension Profile {
    /// The rules in the order in which reasons are told.
    var retentionPolicy: RetentionPolicy {
        var rules: [RetentionRule] = []
        if let last = retention.last { rules.append(.last(last)) }
        let counts = [
            retention.hourly, retention.daily, retention.weekly, retention.monthly,
            retention.quarterly, retention.yearly,
        ]
        for (period, count) in zip(RetentionPeriod.allCases, counts) {
            if let count { rules.append(.newest(count, period)) }
        }
        if let within = retention.within { rules.append(.within(within)) }
        let durations = [
            retention.withinHourly, retention.withinDaily, retention.withinWeekly,
            retention.withinMonthly, retention.withinQuarterly, retention.withinYearly,
        ]
        for (period, duration) in zip(RetentionPeriod.allCases, durations) {
            if let duration { rules.append(.newestWithin(duration, period)) }
        }
        return RetentionPolicy(rules + retention.tags.map { .tag($0) })
    }

    var retentionGrouping: RetentionGrouping {
        var grouping: RetentionGrouping = []
        for property in retention.groupBy {
            switch property {
            case .host: grouping.insert(.host)
            case .paths: grouping.insert(.paths)
            case .tags: grouping.insert(.tags)
            }
        }
        return grouping
    }
}
