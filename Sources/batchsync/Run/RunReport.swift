import Replication
import SnapshotModel
import SnapshotRepository

/// How one run of a profile went: what every report, log line and notification is made from.
struct RunReport {
    /// What one store had beside the backup.
    struct Store {
        let location: String
        var verified: VerifyReport?
        var forgotten: [SnapshotID] = []
        var pruned: PruneReport?
        /// What was left undone, and why, as sentences.
        var notices: [String] = []
        var failure: String?
    }

    let profile: String
    let began: Timestamp
    var ended: Timestamp
    var status = ExitStatus.done
    /// Nil where nothing was backed up.
    var backup: BackupReport?
    var stores: [Store] = []
    var hooks: [(name: String, outcome: HookOutcome)] = []
    /// What went wrong, in the order in which it did; the first is the reason.
    var failures: [(message: String, remedy: String)] = []
    /// What somebody should know that is no failure, as sentences.
    var notes: [String] = []
    /// Why nothing was done, where that is right.
    var skipped: String?

    init(profile: String, began: Timestamp) {
        self.profile = profile
        self.began = began
        ended = began
    }

    var milliseconds: Int {
        // A clock that was set back meanwhile makes no run end before it began.
        max(0, Int((ended.nanosecondsSince1970 - began.nanosecondsSince1970) / 1_000_000))
    }

    /// The worst of what happened counts.
    mutating func worsen(_ new: ExitStatus) {
        func rank(_ status: ExitStatus) -> Int {
            switch status {
            case .done: 0
            case .partial: 1
            case .damaged: 2
            default: 3
            }
        }
        if rank(new) > rank(status) { status = new }
    }

    mutating func fail(_ error: any Error) {
        let report = ErrorReport(error)
        failures.append((report.message, report.remedy))
        worsen(report.status == .done ? .failed : report.status)
    }

    /// One sentence.
    var summary: String {
        if let skipped { return skipped }
        let made = backup.map(Self.sentence)
        guard let first = failures.first else { return made ?? "nothing was backed up" }
        return made.map { "\($0); \(first.message)" } ?? first.message
    }

    /// One sentence about a backup.
    static func sentence(_ backup: BackupReport) -> String {
        let count = backup.statistics
        var text =
            "snapshot \(backup.snapshot.id.short): \(NumberText.counted(count.files, "file")), "
            + "\(NumberText.bytes(count.bytes)), \(NumberText.bytes(count.storedBytes)) stored"
        if backup.problemCount > 0 {
            text += ", \(NumberText.counted(backup.problemCount, "problem"))"
        }
        let lost = backup.stores.filter { $0.failure != nil }
        if !lost.isEmpty { text += ", not on \(lost.map(\.location).joined(separator: ", "))" }
        return text
    }

    /// As hooks that come after the backup find it in their environment.
    var environment: [String: String] {
        var values = [
            "BATCHSYNC_OUTCOME": status == .done
                ? "success" : status == .partial ? "partial" : "failure",
            "BATCHSYNC_EXIT_CODE": String(status.rawValue), "BATCHSYNC_SUMMARY": summary,
        ]
        if let first = failures.first { values["BATCHSYNC_ERROR"] = first.message }
        if let backup {
            values["BATCHSYNC_SNAPSHOT"] = backup.snapshot.id.description
            values["BATCHSYNC_FILES"] = String(backup.statistics.files)
            values["BATCHSYNC_STORED_BYTES"] = String(backup.statistics.storedBytes)
            values["BATCHSYNC_PROBLEMS"] = String(backup.problemCount)
        }
        return values
    }

    var fields: [(key: String, value: JSONValue)] {
        [
            ("profile", .string(profile)), ("began", .time(began)), ("ended", .time(ended)),
            ("duration_ms", .count(milliseconds)), ("status", .integer(Int64(status.rawValue))),
            ("summary", .string(summary)), ("skipped", .optional(skipped)),
            (
                "backup",
                backup.map { .object(BackupCommand.document($0, dryRun: false)) } ?? .null
            ),
            ("stores", .array(stores.map(\.document))),
            (
                "hooks",
                .array(
                    hooks.map { name, outcome in
                        .object([
                            ("hook", .string(name)), ("command", .string(outcome.line)),
                            ("ok", .bool(outcome.isGood)),
                            ("failure", outcome.isGood ? .null : .string(outcome.failure)),
                            ("output", JSONValue(path: outcome.output)),
                            ("duration_ms", .count(outcome.milliseconds)),
                        ])
                    })
            ),
            (
                "failures",
                .array(
                    failures.map {
                        .object([
                            ("message", .string($0.message)), ("remedy", .string($0.remedy)),
                        ])
                    })
            ),
            ("notes", .array(notes.map { .string($0) })), StoreSession.shared.trafficField,
        ]
    }
}

extension RunReport.Store {
    var document: JSONValue {
        .object([
            ("location", .string(location)),
            (
                "verified",
                verified.map {
                    .object([
                        ("sound", .bool($0.isSound)), ("bundles_read", .count($0.bundlesRead)),
                        ("bytes_read", .count($0.bytesRead)),
                        ("findings", .array($0.findings.map { .string($0.description) })),
                    ])
                } ?? .null
            ),
            ("forgotten", JSONValue(ids: forgotten)),
            ("pruned", pruned.map { .object($0.fields) } ?? .null),
            ("notices", .array(notices.map { .string($0) })), ("failure", .optional(failure)),
        ])
    }
}
