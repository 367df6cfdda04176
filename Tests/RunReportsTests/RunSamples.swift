import RunReports
import SnapshotModel

/// A run of a night with something in every field, and what tests change of it.
enum RunSamples {
    // 2026-03-31T22:00:00.5Z
    static let evening = Timestamp(seconds: 1_774_994_400, nanoseconds: 500_000_000)
    static let now = Timestamp(seconds: 1_775_000_000)

    static func run(
        _ outcome: RunSummary.Outcome = .success, _ verb: RunSummary.Verb = .run,
        profile: String? = "home", began: Timestamp = evening
    ) -> RunSummary {
        var run = RunSummary(
            verb, profile: profile, host: "mars", program: "batchsync 1.0", began: began)
        run.milliseconds = 63_500
        run.outcome = outcome
        run.exitCode =
            [.success: 0, .skipped: 0, .partial: 3, .damage: 4, .interrupted: 130][
                outcome, default: 1]
        run.text = "snapshot 0123456789: 12 files, 3.4 MB"
        run.snapshot = SnapshotID(1, 2, 3, 4)
        run.roots = [Array("/srv".utf8), [0x2F, 0xFF, 0xFE]]
        run.statistics = ["files": 12, "bytes": 3_400_000, "read_bytes": 6_350, "stored_bytes": 99]
        run.traffic.requests = ["put": 3, "list": 2]
        run.traffic.bytesSent = 635_000
        run.traffic.bytesReceived = 17
        run.traffic.retries = 1
        run.traffic.latency = [
            "put": .init(count: 3, meanMilliseconds: 40, maximumMilliseconds: 90)
        ]
        var store = StoreSummary("s3://bucket/prefix")
        store.concurrency = 8
        store.copiedBundles = 2
        store.copiedBytes = 1234
        store.broughtSnapshots = 1
        store.forgotten = 4
        store.freedBytes = 77
        store.notices = ["nothing was pruned: the store keeps what is deleted"]
        store.verified = VerificationSummary(
            isSound: true, findings: 0, bundles: 9, bundleBytes: 1000, bundlesRead: 3,
            bytesRead: 300)
        var down = StoreSummary("/mnt/backup")
        down.failure = "there is no repository here"
        run.stores = [store, down]
        run.notes = ["home: the run that began at 22:00 was killed before its end"]
        if outcome.isTrouble {
            run.text = "/srv/mail: Permission denied (open)"
            run.problemCount = 2
            run.failures = [
                .init("/srv/mail: Permission denied (open)", remedy: "run as a user who may read"),
                .init("hook after: 'true' failed"),
            ]
        }
        return run
    }

    static func days(_ count: Int, after time: Timestamp = evening) -> Timestamp {
        Timestamp(seconds: time.seconds + Int64(count) * 86_400, nanoseconds: time.nanoseconds)
    }

    static func source(
        _ time: Timestamp = evening, host: String = "mars", roots: [String] = ["/srv"]
    ) -> StatusRecord.Source {
        StatusRecord.Source(
            host: host, roots: roots.map { Array($0.utf8) }, snapshot: SnapshotID(1, 2, 3, 4),
            time: time, problemCount: 2, files: 12, bytes: 3_400_000)
    }
}

/// Runs `body` so many times at once, each on a thread that may block, and waits for all.
func atOnce(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) async {
    await withTaskGroup(of: Void.self) { group in
        for number in 0..<count { group.addTask { body(number) } }
    }
}
