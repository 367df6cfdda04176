import ArgumentParser
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository

struct ForgetCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "forget",
        abstract: "Take snapshots off the list, by rules or by name.",
        discussion: """
            Forgets every snapshot that no rule keeps, or those that are named. The key of this host is enough. Each snapshot \
            is shown with what becomes of it, and why.

                batchsync forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12
                batchsync forget --keep-within 30d --keep-tag monthly --dry-run
                batchsync forget latest~1
                batchsync forget --undo

            Rules add up: what one of them keeps stays. They judge each host's snapshots of the same sources by themselves. \
            Of an hour, a day, a week from Monday, a month, a quarter or a year of the local calendar the newest snapshot is kept, for so many \
            of them as have one; while there are fewer, the oldest of all is kept, too. A time such as 30d is measured back from \
            the newest snapshot, so that a host that makes no backups any more loses none.

            What is pinned ('batchsync tag --pin') stays, and so does what is dated in the future, which does not count. A \
            snapshot that had problems counts like any other. One that is incomplete, because prune deleted something that it needs, \
            does not count: it stays only where it is all there is of its day, week or month, or newer than all others. Rules that would leave \
            nothing whole of one host's sources are refused, and nothing is forgotten.

            Forgetting frees no space, and can be undone: --undo brings back what was forgotten last on this host, or the \
            snapshots that are named, until prune has removed them. Prune leaves them alone for the grace period of the repository. \
            --prune prunes at once, which gives back what was forgotten and condemned earlier.
            """)

    @Argument(
        help: ArgumentHelp(
            "Which snapshots; with --undo, which forgotten ones.", valueName: "snapshot"))
    var snapshots: [SnapshotArgument] = []

    @OptionGroup(title: "Rules") var retention: RetentionOptions
    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Selection") var selection: SelectionOptions

    @Flag(help: "Bring back what was forgotten.")
    var undo = false

    @Flag(name: [.customShort("n"), .long], help: "Show what would become of each snapshot.")
    var dryRun = false

    @Flag(help: "Prune afterwards, as 'batchsync prune' does.")
    var prune = false

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        for snapshot in snapshots { try snapshot.withoutPath() }
        let rules = retention.policy.rules
        if undo {
            guard !prune else {
                throw ValidationError("--undo and --prune contradict each other")
            }
            guard rules.isEmpty, selection.isEmpty else {
                throw ValidationError(
                    "--undo takes the ids of snapshots, or nothing for the last forgetting")
            }
            return
        }
        if !snapshots.isEmpty, !rules.isEmpty {
            throw ValidationError("snapshots are named or chosen by rules, not both")
        }
        if snapshots.isEmpty, rules.isEmpty {
            throw ValidationError(
                "nothing says what is to stay: give a rule such as --keep-daily 7, or name snapshots"
            )
        }
    }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        guard !undo, !dryRun else {
            let (repository, owner) = try open(assembly)
            let catalog = try Assembly.markedCatalog(repository)
            if undo {
                let forget = Forget(repository, host: Assembly.hostName, now: Assembly.now)
                return try bringBack(forget, catalog, repository)
            }
            return try finish(plan(catalog), until: nil, catalog, repository, owner).status
        }
        let location = try assembly.location()
        return try RunReporter.keep(.forget, at: [location], try assembly.directories()) {
            run, findings in
            let (repository, owner) = try open(assembly)
            let catalog = try Assembly.markedCatalog(repository)
            let plan = try plan(catalog)
            let until = try Forget(repository, host: Assembly.hostName, now: Assembly.now)
                .execute(plan, on: catalog)
            run.store(location) { $0.forgotten = plan.forgotten.count }
            run.text = NumberText.counted(plan.forgotten.count, "snapshot") + " forgotten"
            let (status, pruned) = try finish(plan, until: until, catalog, repository, owner)
            if let pruned { findings.take(pruned, of: location, at: Assembly.now) }
            return status
        }
    }

    /// Forgetting takes the host key; what prune can do with the owner's identity, too, where that
    /// is at hand.
    private func open(
        _ assembly: Assembly
    ) throws -> (repository: Repository, owner: OwnerOpening?) {
        guard prune, try PruneCommand.budget(assembly) != nil else {
            return (try assembly.open(.hostKey), nil)
        }
        return try assembly.openBeforeOwner()
    }

    /// Says what the plan does, and prunes where that is asked for.
    private func finish(
        _ plan: ForgetPlan, until: Timestamp?, _ catalog: SnapshotCatalog,
        _ repository: Repository, _ owner: OwnerOpening?
    ) throws -> (status: ExitStatus, pruned: PruneReport?) {
        var pruned: PruneReport?
        var document = output.json ? document(plan, until: until) : []
        // With prune at their heels and no grace period they are gone when this is read.
        let canUndo = !prune || repository.config.graceSeconds > 0
        if !output.json { show(plan, until: canUndo ? until : nil) }
        var status = catalog.damaged.isEmpty ? ExitStatus.done : .damaged
        if prune {
            let monitor = TerminalMonitor(verbose: false, quiet: false, showsLine: !output.json)
            let report = try PruneCommand.prune(
                repository, owner: owner,
                budget: try PruneCommand.budget(Assembly(self.repository)),
                dryRun: dryRun, monitor: monitor)
            pruned = report
            document.append(("pruned", .object(report.fields)))
            if !output.json {
                for line in report.sentences { Console.shared.out(line) }
                for note in report.warnings { Console.shared.say("batchsync: \(note)") }
            }
            if status == .done { status = report.status }
        }
        if output.json {
            JSONOutput.print("forget", document + [StoreSession.shared.trafficField])
        } else {
            StoreSession.shared.tellTraffic()
        }
        return (status, pruned)
    }

    private func plan(_ catalog: SnapshotCatalog) throws -> ForgetPlan {
        guard snapshots.isEmpty else {
            return try ForgetPlan.naming(
                try snapshots.map { try Assembly.find($0.snapshot, in: catalog, selection) })
        }
        return try ForgetPlan.byPolicy(
            retention.policy, on: catalog, grouping: retention.groupBy, now: Assembly.now,
            calendar: .local, isWanted: selection.wants)
    }

    // MARK: Words

    private func show(_ plan: ForgetPlan, until: Timestamp?) {
        let console = Console.shared
        for group in plan.groups {
            console.out(console.styled(group.key.description, .bold))
            var table = Self.table
            for verdict in group.verdicts { table.add(Self.row(verdict)) }
            table.print(to: console)
            console.out()
        }
        if plan.groups.isEmpty, !plan.forgotten.isEmpty {
            var table = Self.table
            for snapshot in plan.forgotten {
                table.add(Self.row(snapshot.retentionCandidate, false, "named"))
            }
            table.print(to: console)
        }
        let count = NumberText.counted(plan.forgotten.count, "snapshot")
        let kept = snapshots.isEmpty ? ", \(NumberText.grouped(plan.keptCount)) kept" : ""
        console.out(dryRun ? "\(count) would be forgotten\(kept)" : "\(count) forgotten\(kept)")
        if let until {
            console.out(
                "  'batchsync forget --undo' brings them back; prune removes none before \(TimeText.person(until))"
            )
        }
    }

    private static var table: TableOutput {
        TableOutput([
            .init(title: "ID"), .init(title: "Time"), .init(title: "Tags"),
            .init(title: "Verdict"), .init(title: "Reasons"),
        ])
    }

    private static func row(_ verdict: RetentionVerdict) -> [TableOutput.Cell] {
        let why =
            verdict.isKept ? verdict.reasons.map(\.text) : verdict.misses.map { $0.text() }
        return row(
            verdict.candidate, verdict.isKept,
            UTF8Text.display(Array(why.joined(separator: ", ").utf8)))
    }

    private static func row(_ candidate: RetentionCandidate, _ isKept: Bool, _ why: String)
        -> [TableOutput.Cell]
    {
        let tags = candidate.tags.map { UTF8Text.display(Array($0.utf8)) }.joined(separator: " ")
        return [
            .init(candidate.id.short, .yellow), .init(TimeText.person(candidate.time)),
            .init(tags, .blue), isKept ? .init("keep", .green) : .init("forget", .red), .init(why),
        ]
    }

    private func document(_ plan: ForgetPlan, until: Timestamp?)
        -> [(key: String, value: JSONValue)]
    {
        [
            ("dry_run", .bool(dryRun)),
            ("forgotten", JSONValue(ids: plan.forgotten.map(\.id))),
            ("kept", snapshots.isEmpty ? .count(plan.keptCount) : .null),
            ("undo_until", until.map { .time($0) } ?? .null),
            ("groups", .array(plan.groups.map(Self.document))),
        ]
    }

    private static func document(_ group: RetentionGroup) -> JSONValue {
        func texts(_ list: [String]?) -> JSONValue {
            list.map { .array($0.map { .string($0) }) } ?? .null
        }
        let verdicts = group.verdicts.map { verdict in
            JSONValue.object([
                ("id", .string(verdict.candidate.id.description)),
                ("time", .time(verdict.candidate.time)), ("keep", .bool(verdict.isKept)),
                (
                    "reasons",
                    .array(
                        verdict.reasons.map {
                            .object([("rule", .string($0.rule)), ("text", .string($0.text))])
                        })
                ),
                ("misses", texts(verdict.misses.map { $0.text() })),
            ])
        }
        return .object([
            ("host", .optional(group.key.host)),
            ("roots", group.key.roots.map { .array($0.map { JSONValue(path: $0) }) } ?? .null),
            ("tags", texts(group.key.tags)), ("snapshots", .array(verdicts)),
        ])
    }

    // MARK: Undo

    private func bringBack(
        _ forget: Forget, _ catalog: SnapshotCatalog, _ repository: Repository
    ) throws -> ExitStatus {
        let chosen =
            snapshots.isEmpty
            ? try ForgetUndo.last(in: catalog, host: Assembly.hostName)
            : try ForgetUndo.naming(snapshots.map(\.snapshot), in: catalog)
        let lost = Set(dryRun ? [] : try forget.undo(chosen, on: catalog))
        let back = chosen.snapshots.filter { !lost.contains($0.id) }
        // What prune has deleted of them is known only when they are listed again.
        let listed = dryRun ? [] : try Assembly.markedCatalog(repository).snapshots
        let now = back.map { one in listed.first { $0.id == one.id } ?? one }
        if output.json {
            JSONOutput.print(
                "forget-undo",
                [
                    ("dry_run", .bool(dryRun)), ("restored", .array(now.map(\.document))),
                    ("lost", JSONValue(ids: lost.sorted())), StoreSession.shared.trafficField,
                ])
        } else {
            let console = Console.shared
            for snapshot in now {
                let fault = !snapshot.isWhole ? ": incomplete, prune has been quicker" : ""
                console.out(
                    "snapshot \(snapshot.id.short) of \(TimeText.person(snapshot.time))\(fault)")
            }
            for id in lost.sorted() {
                console.out("snapshot \(id.short) has been removed by prune meanwhile")
            }
            let count = NumberText.counted(now.count, "snapshot")
            console.out(
                "\(count) \(dryRun ? "would be" : "") brought back".replacing("  ", with: " "))
            StoreSession.shared.tellTraffic()
        }
        return lost.isEmpty && now.allSatisfy(\.isWhole) ? .done : .partial
    }
}
