import CSystem
import Profiles
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository
import Transfer

/// Keeps what a run did, and tells whoever the profile names: history, status, metrics, log,
/// notifications.
///
/// Nothing in here makes a run fail: what cannot be written or does not arrive is said on standard
/// error, and in the log and the notifications that come after it.
struct RunReporter {
    /// What a run has found out of its stores, by the places that it was given.
    struct Findings {
        /// The snapshot that a store has now.
        var sources: [String: StatusRecord.Source] = [:]
        /// What is true of a store whoever uses it.
        var facts: [String: [(inout StatusRecord) -> Void]] = [:]
    }

    /// Nil where no profile was run.
    private let profile: Profile?
    private let locations: [String]
    private let state: String
    let log: RunLog?

    /// - Parameter locations: Of the repository's stores, the leading one first.
    init(profile: Profile?, locations: [String], directories: HostDirectories) {
        self.profile = profile
        self.locations = locations
        state = directories.state
        log = profile.map { profile in
            RunLog(
                path: profile.log.file ?? Self.logPath(profile.name, directories.state),
                level: RunLog.Level(profile.log.level),
                rotateAtBytes: Int(clamping: profile.log.rotateAtBytes.bytes),
                profile: profile.name, now: { Assembly.now })
        }
        if profile?.log.file == nil { try? LocalFile.makeDirectory("\(directories.state)/log") }
    }

    /// Where the log of a profile lies that does not say.
    private static func logPath(_ name: String, _ state: String) -> String {
        "\(state)/log/\(name).jsonl"
    }

    private var subject: RunHistory.Subject {
        profile.map { .profile($0.name) } ?? .repository(Self.place(locations[0]))
    }

    /// A place by its one name, however the user has written it.
    static func place(_ location: String) -> String {
        guard !location.contains("://"), let path = HostFile.realPath(Array(location.utf8)),
            UTF8Text.isValid(path)
        else { return location }
        return String(decoding: path, as: UTF8.self)
    }

    // MARK: The run

    /// - Parameter expectedMilliseconds: How long it takes as a rule; nil where nobody knows.
    func begin(expectedMilliseconds: Int? = nil) {
        log?.write(
            .info, "started", "run of \(profile?.name ?? locations[0])",
            [("expected_ms", expectedMilliseconds.map { .count($0) } ?? .null)])
        if let profile, profile.notify.healthchecks != nil { send(.brief) { .ofStart($0) } }
    }

    /// Whoever backs up this and that by words finds some runs of the same among these.
    private static let runsLookedAt = 100

    /// How long a run will take, by what is remembered of earlier ones.
    ///
    /// - Parameter roots: What is backed up, where only runs of the same teach anything.
    static func expectedMilliseconds(
        of verb: RunSummary.Verb, _ subject: RunHistory.Subject, state: String,
        roots: [[UInt8]]? = nil
    ) -> Int? {
        let runs = RunHistory(state: state).lastRuns(runsLookedAt, of: subject).filter { run in
            roots.map { Set(run.roots) == Set($0) } ?? true
        }
        return RunHistory.expectedMilliseconds(of: verb, after: runs)
    }

    /// A second run that was not let in. It is no run, so only the log has it.
    func refuse(_ error: any Error) {
        log?.write(.warning, "refused", ErrorReport(error).message)
    }

    /// A profile that cannot be read names nobody who could be told. What this host keeps by
    /// itself has the run all the same: the history, and the log where it lies as a rule.
    static func keepUnreadable(_ word: String, _ error: any Error, _ directories: HostDirectories) {
        // A name that was misspelled is no job that did not run.
        if let error = error as? ProfileError, error.kind == .notFound { return }
        let name = ProfileSearchPath.profileName(of: word)
        var run = RunSummary(.run, profile: name)
        run.end(error)
        try? LocalFile.makeDirectory("\(directories.state)/log")
        RunLog(
            path: logPath(name, directories.state), level: .info, rotateAtBytes: 10_000_000,
            profile: name, now: { Assembly.now }
        ).write(run)
        try? RunHistory(state: directories.state).append(run, to: .profile(name))
    }

    /// - Parameter findings: What changes in the records of the stores beside the run itself.
    func end(_ ended: RunSummary, _ findings: Findings) {
        var run = ended
        let history = RunHistory(state: state)
        let previous = history.lastRuns(Self.runsLookedAt, of: subject)
            .last { $0.verb == run.verb }?.outcome
        if run.outcome != .skipped { attempt(&run) { try history.append(ended, to: subject) } }
        let records = updateStatus(&run, findings)
        if let path = profile?.metrics.textfile {
            attempt(&run) {
                try MetricsText(of: ended, records: records, now: Assembly.now).write(to: path)
            }
        }
        log?.write(run)
        if let failure = log?.failure { note(failure, in: &run) }
        if profile != nil {
            send(Signals.haveArrived ? .brief : .long) { .ofEnd(run, after: previous, $0) }
        }
    }

    /// Runs what a verb does by words, and keeps how it went.
    ///
    /// - Parameter body: Fills in what the run did.
    static func keep(
        _ verb: RunSummary.Verb, at locations: [String], _ directories: HostDirectories,
        _ body: (inout RunSummary, inout Findings) throws -> ExitStatus
    ) throws -> ExitStatus {
        let reporter = RunReporter(profile: nil, locations: locations, directories: directories)
        var run = RunSummary(verb)
        var findings = Findings()
        do {
            let status = try body(&run, &findings)
            run.end(status)
            reporter.end(run, findings)
            return status
        } catch {
            run.end(error)
            reporter.end(run, findings)
            throw error
        }
    }

    // MARK: Status

    private func updateStatus(_ run: inout RunSummary, _ findings: Findings) -> [StatusRecord] {
        let book = StatusBook(state: state)
        let told = run
        return locations.map { location in
            let place = Self.place(location)
            var record = StatusRecord(profile: profile?.name, location: place)
            attempt(&run) {
                let store = try book.update(profile: nil, location: place) { store in
                    for change in findings.facts[location] ?? [] { change(&store) }
                    guard profile == nil else { return }
                    store.note(told)
                    if let source = findings.sources[location] { store.note(source) }
                }
                guard let profile else {
                    record = store
                    return
                }
                record = try book.update(profile: profile.name, location: place) { own in
                    own.profileFile = profile.files.first
                    if told.outcome != .skipped { own.note(told) }
                    if let source = findings.sources[location] { own.note(source) }
                }.takingStoreFacts(from: store)
            }
            return record
        }
    }

    /// Writes one of this host's files; where that fails the run goes on, and what comes after tells.
    private func attempt(_ run: inout RunSummary, _ body: () throws -> Void) {
        do {
            try body()
        } catch let error as RunReportError {
            log?.write(.warning, "report", error.description)
            note(error, in: &run)
        } catch {
            log?.write(.warning, "report", "\(error)")
            Console.shared.say("batchsync: \(error)")
        }
    }

    private func note(_ error: RunReportError, in run: inout RunSummary) {
        say(error)
        run.notes.append(error.description)
    }

    private func say(_ error: RunReportError) {
        Console.shared.say("batchsync: \(error.description)")
        if !error.remedy.isEmpty { Console.shared.say("  \(error.remedy)") }
    }

    // MARK: Notifications

    private func send(
        _ patience: NotificationSender.Patience, _ make: (NotificationTargets) -> Notification
    ) {
        guard let profile else { return }
        let (targets, server, failures) = profile.notificationTargets()
        for failure in failures { tell(failure) }
        let notification = make(targets)
        guard !notification.requests.isEmpty || notification.mail != nil else { return }
        var options = TransferEngine.Options()
        options.userAgent = Assembly.program.replacing(" ", with: "/")
        let sender = NotificationSender(engine: TransferEngine(options), mailServer: server)
        for failure in sender.send(notification, patience) { tell(failure) }
    }

    private func tell(_ failure: RunReportError) {
        say(failure)
        log?.write(.warning, "notification", failure.description)
    }
}

extension Profile {
    /// Whom the profile names, with the secrets looked up. A way whose secret cannot be had is left
    /// out, and named.
    func notificationTargets() -> (
        targets: NotificationTargets, mailServer: MailServer?, failures: [RunReportError]
    ) {
        var targets = NotificationTargets()
        var failures: [RunReportError] = []
        func fetch(_ way: String, _ text: () throws(CommandError) -> String?) -> String? {
            do {
                return try text()
            } catch {
                failures.append(
                    RunReportError(.unusable, way, error.message, remedy: error.remedy))
                return nil
            }
        }
        targets.occasion = NotificationTargets.Occasion(notify.occasion)
        targets.webhook = fetch("webhook") { () throws(CommandError) in
            try notify.webhook?.word("the address of the webhook")
        }
        if let reference = notify.webhookAuthorization, targets.webhook != nil {
            targets.webhookAuthorization = fetch("webhook") { () throws(CommandError) in
                try reference.word("the authorization of the webhook")
            }
            if targets.webhookAuthorization == nil { targets.webhook = nil }
        }
        targets.healthchecks = fetch("healthchecks") { () throws(CommandError) in
            try notify.healthchecks?.word("the address of the check")
        }
        targets.ntfy = fetch("ntfy") { () throws(CommandError) in
            try notify.ntfy?.word("the address of the topic")
        }
        if let reference = notify.ntfyToken, targets.ntfy != nil {
            targets.ntfyToken = fetch("ntfy") { () throws(CommandError) in
                try reference.word("the token of ntfy")
            }
            if targets.ntfyToken == nil { targets.ntfy = nil }
        }
        var server: MailServer?
        if let address = notify.mailServer, let from = notify.mailFrom {
            server = MailServer(address, user: notify.mailUser)
            targets.mail = .init(from: from, to: notify.mailTo)
            if let reference = notify.mailPassword {
                server?.password = fetch("mail") { () throws(CommandError) in
                    try reference.word("the password for mail")
                }
                if server?.password == nil { targets.mail = nil }
            }
        }
        return (targets, server, failures)
    }
}

extension NotificationTargets.Occasion {
    init(_ occasion: Profile.Notifications.Occasion) {
        self =
            switch occasion {
            case .failure: .failure
            case .change: .change
            case .always: .always
            case .never: .never
            }
    }
}

extension RunLog.Level {
    init(_ level: Profile.Log.Level) {
        self =
            switch level {
            case .error: .error
            case .warning: .warning
            case .info: .info
            case .debug: .debug
            }
    }
}

extension RunReporter.Findings {
    /// Of a backup that has ended, for each store that has its snapshot.
    mutating func take(_ report: BackupReport, at now: Timestamp) {
        guard let source = StatusRecord.Source(report.snapshot) else { return }
        for store in report.stores where store.failure == nil {
            sources[store.location] = source
            let added = report.statistics.storedBytes + store.copiedBytes
            facts[store.location, default: []].append { $0.note(addedBytes: added, at: now) }
        }
    }

    mutating func take(_ report: VerifyReport, of location: String, at now: Timestamp) {
        facts[location, default: []].append { $0.note(report, at: now) }
    }

    /// Of what the store held and what prune has deleted and written there is how much it holds.
    mutating func take(_ report: PruneReport, of location: String, at now: Timestamp) {
        guard !report.isDryRun else { return }
        let bytes = max(0, report.stored.bytes + report.written.bytes - report.deleted.bytes)
        facts[location, default: []].append { $0.note(storedBytes: bytes, at: now) }
    }
}
