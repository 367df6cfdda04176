package import SnapshotModel

/// The metrics of one profile, or of a repository that words have named, in the text format that
/// Prometheus and its node exporter read. docs/metrics.md has the names.
package struct MetricsText: Sendable {
    private struct Family {
        let name: String
        let help: String
        var samples: [(labels: [(String, String)], value: String)] = []
    }

    private var families: [Family] = []

    /// - Parameter run: The run that has just ended.
    /// - Parameter records: Of each of its stores, with that run noted.
    package init(of run: RunSummary, records: [StatusRecord], now: Timestamp) {
        let profile = [("profile", run.profile ?? "")]
        addRun(run, profile)
        for record in records {
            let store = profile + [("store", record.location)]
            addSources(record, store)
            addStore(record, store, now)
        }
    }

    private mutating func add(
        _ name: String, _ help: String, _ labels: [(String, String)], _ value: Double?
    ) {
        guard let value else { return }
        let text = value == value.rounded() && abs(value) < 1e15 ? "\(Int(value))" : "\(value)"
        if let known = families.firstIndex(where: { $0.name == name }) {
            families[known].samples.append((labels, text))
        } else {
            families.append(Family(name: name, help: help, samples: [(labels, text)]))
        }
    }

    private mutating func addRun(_ run: RunSummary, _ profile: [(String, String)]) {
        let labels = profile + [("verb", run.verb.rawValue)]
        add(
            "batchsync_run_timestamp_seconds", "When the last run ended.", labels,
            Self.seconds(run.ended))
        add(
            "batchsync_run_duration_seconds", "How long the last run took.", labels,
            Double(run.milliseconds) / 1000)
        add(
            "batchsync_run_exit_code", "The exit code of the last run; 0 is success.", labels,
            Double(run.exitCode))
        add(
            "batchsync_run_trouble", "1 if somebody has to look at the last run.", labels,
            run.outcome.isTrouble ? 1 : 0)
        add(
            "batchsync_run_problems", "Files that the last run did not keep whole.", labels,
            Double(run.problemCount))
        for (name, help) in [
            ("read_bytes", "Content bytes that the last run read."),
            ("stored_bytes", "Bytes that the last run stored anew."),
            ("files", "Files in the snapshot of the last run."),
            ("bytes", "Bytes in the snapshot of the last run."),
        ] {
            add("batchsync_run_\(name)", help, labels, run.statistics[name].map { Double($0) })
        }
        add(
            "batchsync_run_sent_bytes", "Bytes that the last run sent to stores.", labels,
            Double(run.traffic.bytesSent))
        add(
            "batchsync_run_received_bytes", "Bytes that the last run got from stores.", labels,
            Double(run.traffic.bytesReceived))
        add(
            "batchsync_run_retries", "Calls to stores that the last run made again.", labels,
            Double(run.traffic.retries))
        for (kind, count) in run.traffic.requests.sorted(by: { $0.key < $1.key }) {
            add(
                "batchsync_run_requests", "Requests of the last run to stores.",
                labels + [("kind", kind)], Double(count))
        }
    }

    private mutating func addSources(_ record: StatusRecord, _ store: [(String, String)]) {
        for source in record.sources {
            let roots = source.roots.map { UTF8Text.display($0) }.joined(separator: " ")
            let labels = store + [("host", source.host), ("sources", roots)]
            add(
                "batchsync_snapshot_timestamp_seconds", "When the newest snapshot was made.",
                labels,
                Self.seconds(source.time))
            add(
                "batchsync_snapshot_problems", "Files that the newest snapshot has not whole.",
                labels, Double(source.problemCount))
        }
    }

    private mutating func addStore(
        _ record: StatusRecord, _ store: [(String, String)], _ now: Timestamp
    ) {
        add(
            "batchsync_store_bytes", "Bytes that the store holds.", store,
            record.storedBytes.map { Double($0) })
        guard let coverage = record.coverage else { return }
        add(
            "batchsync_store_verified_ratio",
            "Share of the stored bytes that was read back in the last 30 days, 0 to 1.", store,
            coverage.share(within: StatusReport.verifiedDays, at: now))
        add(
            "batchsync_store_never_verified_bytes", "Stored bytes that were never read back.",
            store, Double(coverage.neverReadBytes))
        add(
            "batchsync_store_oldest_verification_timestamp_seconds",
            "When those bytes were read back that were read longest ago, to the day.", store,
            coverage.oldestDay.map { Double($0) * 86_400 })
    }

    private static func seconds(_ time: Timestamp) -> Double {
        Double(time.seconds) + Double(time.nanoseconds / 1_000_000) / 1000
    }

    // MARK: The text

    package var text: String {
        families.map { family in
            "# HELP \(family.name) \(family.help)\n# TYPE \(family.name) gauge\n"
                + family.samples.map { sample in
                    let labels = sample.labels.map { "\($0.0)=\"\(Self.escaped($0.1))\"" }
                    return "\(family.name){\(labels.joined(separator: ","))} \(sample.value)\n"
                }.joined()
        }.joined()
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
            .replacing("\n", with: "\\n")
    }

    /// Replaces the file at once, readable by everybody, as the exporter runs as somebody else.
    package func write(to path: String) throws(RunReportError) {
        try ReportFile.replace(path, with: Array(text.utf8), mode: 0o644)
    }
}
