import ArgumentParser
import Profiles
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository

struct PruneCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "prune",
        abstract: "Give back the space of what no snapshot needs.",
        discussion: """
            Works in two phases, with the grace period of the repository between them ('init --grace-hours', 24 hours unless said \
            otherwise). The first one condemns bundles that no snapshot and no run needs: no later snapshot uses them again. The \
            second one deletes what was condemned a grace period ago and is not needed still. One call does of both what is due, so \
            that pruning once a week is enough. What was forgotten counts as needed for the grace period.

                batchsync prune -r /backup/repository --dry-run
                batchsync prune -r /backup/repository

            The key of this host is enough. Nobody has to wait: backups, restores and other prunes may go on at the same \
            time, from any host. A prune that is interrupted leaves nothing broken, and the next one goes on. When index \
            objects have become many they are merged.

            With the owner's passphrase or identity it also rewrites bundles of which a snapshot needs only a part: those with \
            the most dead in them first, until at most 5 % of what is stored is unused, or --max-rewrite is spent. \
            Where 32 small bundles have gathered, each below 8 MiB, they become few. What is rewritten is condemned like the rest. \
            Without an owner's identity it says how much an owner could give back at most. Of a repository on several stores \
            nothing is rewritten unless --max-rewrite is given: the stores would no longer have the same bundles, and the next \
            backup would store anew what it does not find on all of them.

            Nothing at all is deleted where a record cannot be read and proven authentic, where a snapshot that this host knows has \
            vanished without having been forgotten, where a bundle that a snapshot needs is missing, or where the clock of the \
            store and that of this host differ by more than an hour. Objects whose names are not batchsync's are never touched.

            Each store of a repository is pruned by itself.
            """)

    @Flag(
        name: [.customShort("n"), .long],
        help: "Show what would be condemned, deleted and rewritten.")
    var dryRun = false

    @Option(
        help: ArgumentHelp(
            "Rewrite at most so much: a size, or a share of what is stored such as 5%; 0 for nothing. Without it, and without a profile, as much as it takes.",
            valueName: "bytes|percent"))
    var maxRewrite: RewriteArgument?

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: OutputOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        if let maxRewrite, maxRewrite.share == nil {
            throw ValidationError("'\(maxRewrite)' is no size and no share: write 5%, 1/20 or 2GiB")
        }
    }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        if dryRun { return tell(try pruned(assembly)) }
        let location = try assembly.location()
        return try RunReporter.keep(.prune, at: [location], try assembly.directories()) {
            run, findings in
            let report = try pruned(assembly)
            findings.take(report, of: location, at: Assembly.now)
            let freed = Int(clamping: report.deleted.bytes)
            run.store(location) { $0.freedBytes = freed }
            run.text = NumberText.bytes(freed) + " freed"
            return tell(report)
        }
    }

    private func pruned(_ assembly: Assembly) throws -> PruneReport {
        let budget = try Self.budget(assembly, maxRewrite?.share)
        let (repository, owner) =
            budget == nil
            ? (try assembly.open(.hostKey), nil) : try assembly.openBeforeOwner()
        return try Self.prune(
            repository, owner: owner, budget: budget, isAsked: maxRewrite != nil, dryRun: dryRun,
            monitor: TerminalMonitor(output))
    }

    /// How much may be rewritten: as the user says, or else the profile. Where nobody does, what may
    /// stay unused is the only limit.
    static func budget(_ assembly: Assembly, _ given: ByteShare? = nil) throws -> RewriteBudget? {
        guard let share = try given ?? assembly.profile()?.prune.maximumRewrite else {
            return .share(1)
        }
        return share.rewriteBudget
    }

    private func tell(_ report: PruneReport) -> ExitStatus {
        if output.json {
            JSONOutput.print("prune", report.fields + [StoreSession.shared.trafficField])
        } else {
            if !output.quiet { for line in report.sentences { Console.shared.out(line) } }
            for note in report.warnings { Console.shared.say("batchsync: \(note)") }
            if !output.quiet { StoreSession.shared.tellTraffic() }
        }
        return report.status
    }

    /// - Parameters:
    ///   - budget: How much may be rewritten, by the owner's identity where it is at hand; nil for
    ///     nothing.
    ///   - isAsked: Whether the user has asked for it in so many words.
    static func prune(
        _ repository: Repository, owner: OwnerOpening? = nil, budget: RewriteBudget?,
        isAsked: Bool = false, level: Int? = nil, dryRun: Bool, monitor: TerminalMonitor
    ) throws -> PruneReport {
        var options = PruneOptions(host: Assembly.hostName)
        options.dryRun = dryRun
        // Several stores have the same bundles: what one of them rewrites the next backup would
        // miss there, and store anew on all.
        options.rewrite = repository.hasReplicas && !isAsked ? nil : budget
        if let level { options.compressionLevel = level }
        Signals.stopCleanly()
        return try monitor.whileShowing {
            try Prune(
                repository: repository, owner: owner, options: options, monitor: monitor,
                cancellation: Signals.cancellation
            ).run()
        }
    }
}

/// How much may be rewritten: `5%`, `1/20`, `2GiB`, or `0`.
struct RewriteArgument: ExpressibleByArgument, Sendable, CustomStringConvertible {
    /// Nil where the word is none of them.
    let share: ByteShare?
    let description: String

    init(argument: String) {
        description = RawArguments.display(argument)
        share = argument == "0" ? .nothing : ByteShare(parsing: argument)
    }
}

extension ByteShare {
    /// Nil for nothing.
    var rewriteBudget: RewriteBudget? {
        guard !isNothing else { return nil }
        return switch amount {
        case .percent(let percent): .share(percent / 100)
        case .fraction(let part, let whole): .share(Double(part) / Double(whole))
        case .bytes(let count): .bytes(Int(clamping: count.bytes))
        }
    }
}

extension PruneReport {
    /// Denied deletes leave undone what was asked for.
    var status: ExitStatus { foundDamage ? .damaged : deletesDenied ? .partial : .done }

    /// What was done, for a person.
    var sentences: [String] {
        func line(_ tally: PruneTally, _ words: String) -> String? {
            guard tally.bundles > 0 else { return nil }
            return
                "\(NumberText.counted(tally.bundles, "bundle")) of \(NumberText.bytes(tally.bytes)) \(words)"
        }
        let would = isDryRun
        var lines = [
            "\(NumberText.counted(stored.bundles, "bundle")) of \(NumberText.bytes(stored.bytes)), "
                + "\(NumberText.bytes(needed.bytes)) needed by \(NumberText.counted(snapshotsCounted, "snapshot"))"
        ]
        lines += [
            line(deleted, would ? "would be deleted" : "deleted"),
            line(condemned, would ? "would be condemned" : "condemned"),
            line(
                waiting,
                "condemned earlier"
                    + (waitingUntil.map { ", to be deleted from \(TimeText.person($0)) on" } ?? "")),
            line(held, "condemned, and kept because a snapshot or a run needs them"),
            line(young, "needed by nobody, and too new to be condemned"),
        ].compactMap { $0 }
        lines += rewriteSentences
        if !snapshotsRemoved.isEmpty {
            lines.append(
                "\(NumberText.counted(snapshotsRemoved.count, "forgotten snapshot")) \(would ? "would be removed" : "removed") for good"
            )
        }
        if indexMerged > 0 {
            lines.append(
                "\(NumberText.counted(indexMerged, "index object")) \(would ? "would be merged" : "merged")"
            )
        }
        if would { lines.append("about \(NumberText.counted(requests, "request"))") }
        if !would, deleted.bundles == 0, condemned.bundles == 0, snapshotsRemoved.isEmpty,
            indexMerged == 0, written.bundles == 0, !deletesDenied
        {
            lines.append("nothing to do")
        }
        return lines
    }

    private var rewriteSentences: [String] {
        var lines: [String] = []
        let words = [(rewritten, "half-dead"), (merged, "small")].filter { $0.0.bundles > 0 }
        if !words.isEmpty {
            let what = words.map { tally, kind in
                "\(NumberText.grouped(tally.bundles)) \(kind) \(tally.bundles == 1 ? "bundle" : "bundles") of \(NumberText.bytes(tally.bytes))"
            }
            lines.append(
                "\(what.joined(separator: " and ")) \(isDryRun ? "would be rewritten" : "rewritten") as \(NumberText.grouped(written.bundles)) of \(isDryRun ? "about " : "")\(NumberText.bytes(written.bytes))"
            )
        }
        if let unused, let unusedLeft, unused > 0 {
            let left = unusedLeft < unused ? ", \(NumberText.bytes(unusedLeft)) after that" : ""
            lines.append("\(NumberText.bytes(unused)) unused in bundles that are needed\(left)")
        }
        if let reclaimableAtMost, reclaimableAtMost > 0 {
            lines.append(
                "\(NumberText.bytes(reclaimableAtMost)) at most could be given back by an owner, who can rewrite what is needed in part"
            )
        }
        return lines
    }

    /// What a person has to know beside that.
    var warnings: [String] {
        var lines = notes
        if deletesDenied {
            lines.append("the store does not let this user delete: nothing was pruned")
        }
        if keepsDeleted, deleted.bundles > 0 {
            lines.append(
                "the bucket keeps versions: what was deleted takes space until its rules remove old versions"
            )
        }
        for object in retained.prefix(20) {
            let until = object.until.map { " until \(TimeText.person($0))" } ?? ""
            lines.append("\(object.object) is kept by the store\(until): \(object.message)")
        }
        if retained.count > 20 {
            lines.append("and \(NumberText.grouped(retained.count - 20)) more objects are kept")
        }
        return lines
    }

    var fields: [(key: String, value: JSONValue)] {
        func tally(_ value: PruneTally) -> JSONValue {
            .object([("bundles", .count(value.bundles)), ("bytes", .count(value.bytes))])
        }
        let kept = retained.map { object in
            JSONValue.object([
                ("object", .string(object.object)),
                ("until", object.until.map { .time($0) } ?? .null),
                ("message", .string(object.message)),
            ])
        }
        return [
            ("dry_run", .bool(isDryRun)), ("stored", tally(stored)), ("needed", tally(needed)),
            ("condemned", tally(condemned)), ("deleted", tally(deleted)),
            ("waiting", tally(waiting)),
            ("waiting_until", waitingUntil.map { .time($0) } ?? .null),
            ("held", tally(held)), ("young", tally(young)),
            ("snapshots", .count(snapshotsCounted)),
            ("removed_snapshots", JSONValue(ids: snapshotsRemoved)),
            ("incomplete_snapshots", JSONValue(ids: incomplete)),
            ("rewritten", tally(rewritten)), ("merged", tally(merged)), ("written", tally(written)),
            ("unused", unused.map { .count($0) } ?? .null),
            ("unused_left", unusedLeft.map { .count($0) } ?? .null),
            ("reclaimable_at_most", reclaimableAtMost.map { .count($0) } ?? .null),
            ("damage", .bool(foundDamage)),
            ("index_merged", .count(indexMerged)), ("index_written", .count(indexWritten)),
            ("index_deleted", .count(indexDeleted)), ("retained", .array(kept)),
            ("deletes_denied", .bool(deletesDenied)), ("keeps_deleted", .bool(keepsDeleted)),
            ("left_to_another", .bool(leftToAnother)),
            ("requests", isDryRun ? .count(requests) : .null),
            ("notes", .array(notes.map { .string($0) })),
        ]
    }
}
