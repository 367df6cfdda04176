import ObjectStorage
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository

/// What the rooms say of a run, as the value that is kept and told.
extension RunSummary {
    init(_ verb: Verb, profile: String? = nil) {
        self.init(
            verb, profile: profile, host: Assembly.hostName, program: Assembly.program,
            began: Assembly.now)
    }

    /// The run has ended like this, now.
    mutating func end(_ status: ExitStatus) {
        exitCode = Int(status.rawValue)
        outcome = Outcome(status)
        let elapsed = Assembly.now.nanosecondsSince1970 - began.nanosecondsSince1970
        milliseconds = max(0, Int(elapsed / 1_000_000))
        traffic = TrafficSummary(StoreSession.shared.counter.now)
        let settled = StoreSession.shared.settledConcurrency
        for position in stores.indices {
            stores[position].concurrency = settled[stores[position].location]
        }
    }

    /// The run has ended with an error, now.
    mutating func end(_ error: any Error) {
        let report = ErrorReport(error)
        failures.append(Failure(report.message, remedy: report.remedy))
        text = report.message
        end(report.status)
    }

    mutating func take(_ report: BackupReport) {
        if report.snapshot.name != nil { snapshot = report.snapshot.id }
        roots = report.snapshot.roots
        for field in report.statistics.fields { statistics[field.name] = field.value }
        problemCount = report.problemCount
        for outcome in report.stores {
            var store = StoreSummary(outcome.location)
            store.failure = outcome.failure?.description
            store.broughtSnapshots = outcome.broughtSnapshots
            store.copiedBundles = outcome.copiedBundles
            store.copiedBytes = outcome.copiedBytes
            stores.append(store)
        }
        text = RunReport.sentence(report)
    }

    /// Changes what is told of a store.
    mutating func store(_ location: String, _ change: (inout StoreSummary) -> Void) {
        if let known = stores.firstIndex(where: { $0.location == location }) {
            change(&stores[known])
        } else {
            var store = StoreSummary(location)
            change(&store)
            stores.append(store)
        }
    }

    /// A whole night of a profile.
    init(_ report: RunReport, profile: String) {
        self.init(
            .run, profile: profile, host: Assembly.hostName, program: Assembly.program,
            began: report.began)
        if let backup = report.backup { take(backup) }
        for one in report.stores {
            store(one.location) { store in
                store.verified = one.verified.map { VerificationSummary($0) }
                store.forgotten = one.forgotten.count
                store.freedBytes = one.pruned.map { Int(clamping: $0.deleted.bytes) } ?? 0
                store.notices = one.notices
                if let failure = one.failure { store.failure = failure }
            }
        }
        failures = report.failures.map { Failure($0.message, remedy: $0.remedy) }
        notes = report.notes
        end(report.status)
        if report.skipped != nil { outcome = .skipped }
        text = report.summary
        milliseconds = report.milliseconds
    }
}

extension RunSummary.Outcome {
    init(_ status: ExitStatus) {
        switch status {
        case .done: self = .success
        case .partial: self = .partial
        case .damaged: self = .damage
        case .interrupted, .terminated: self = .interrupted
        case .failed, .running, .noRepository, .wrongKey, .usage: self = .failure
        }
    }
}

extension VerificationSummary {
    init(_ report: VerifyReport) {
        self.init(
            isSound: report.isSound, findings: report.findings.count { $0.isDamage },
            bundles: report.bundles, bundleBytes: report.bundleBytes,
            bundlesRead: report.bundlesRead, bytesRead: report.bytesRead)
    }
}

extension TrafficSummary {
    init(_ counts: TrafficCounter.Counts) {
        self.init()
        // Every kind is told, also one that was not asked: a program need not ask whether it is there.
        for kind in TrafficCounter.Request.allCases {
            requests[kind.rawValue] = counts.requests[kind] ?? 0
        }
        bytesSent = counts.bytesSent
        bytesReceived = counts.bytesReceived
        retries = counts.retries
        altered = counts.altered
        for (kind, latency) in counts.latencies where latency.count > 0 {
            self.latency[kind.rawValue] = Latency(
                count: latency.count,
                meanMilliseconds: Int(latency.totalNanoseconds / Int64(latency.count) / 1_000_000),
                maximumMilliseconds: Int(latency.longestNanoseconds / 1_000_000))
        }
    }
}

extension StatusRecord.Source {
    /// Nil for a dry run.
    init?(_ snapshot: Snapshot) {
        guard snapshot.name != nil else { return nil }
        self.init(
            host: snapshot.host, roots: snapshot.roots, snapshot: snapshot.id, time: snapshot.time,
            problemCount: snapshot.problemCount, files: snapshot.statistics.files,
            bytes: snapshot.statistics.bytes)
    }
}

extension StatusRecord {
    mutating func note(_ report: VerifyReport, at time: Timestamp) {
        coverage = Coverage(
            totalBytes: report.neverReadBytes + report.readBytesByDay.values.reduce(0, +),
            neverReadBytes: report.neverReadBytes, bytesByDay: report.readBytesByDay)
        note(storedBytes: report.bundleBytes, at: time)
    }
}
