import Glibc
import RunReports
import SnapshotModel
import TestSupport
import Testing

@Suite("Metrics")
struct MetricsTests {
    private func record(_ location: String = "s3://bucket") -> StatusRecord {
        var record = StatusRecord(profile: "home", location: location)
        record.note(RunSamples.source(roots: ["/srv", "/a \"b\"\\c"]))
        record.coverage = StatusRecord.Coverage(
            totalBytes: 1000, neverReadBytes: 250, bytesByDay: [20_540: 750])
        record.note(storedBytes: 1000, at: RunSamples.evening)
        return record
    }

    private func lines(_ metrics: MetricsText) -> [String] {
        metrics.text.split(separator: "\n").map(String.init)
    }

    @Test("Run, snapshot and store are told, with labels that say which")
    func samples() {
        let found = lines(
            MetricsText(of: RunSamples.run(.partial), records: [record()], now: RunSamples.now))
        let run = #"{profile="home",verb="run"}"#
        let store = #"{profile="home",store="s3://bucket"}"#
        let source = #"{profile="home",store="s3://bucket",host="mars",sources="/srv /a \"b\"\\c"}"#
        for line in [
            "batchsync_run_timestamp_seconds\(run) 1774994464", "batchsync_run_trouble\(run) 1",
            "batchsync_run_duration_seconds\(run) 63.5", "batchsync_run_exit_code\(run) 3",
            "batchsync_run_problems\(run) 2", "batchsync_run_stored_bytes\(run) 99",
            "batchsync_run_sent_bytes\(run) 635000", "batchsync_run_retries\(run) 1",
            #"batchsync_run_requests{profile="home",verb="run",kind="put"} 3"#,
            "batchsync_snapshot_timestamp_seconds\(source) 1774994400.5",
            "batchsync_store_bytes\(store) 1000", "batchsync_store_verified_ratio\(store) 0.75",
            "batchsync_store_never_verified_bytes\(store) 250",
            "batchsync_store_oldest_verification_timestamp_seconds\(store) 1774656000",
        ] {
            #expect(found.contains(line), "\(line)\n\(found.joined(separator: "\n"))")
        }
    }

    @Test("Each metric is described once, before its samples, and stands together")
    func form() throws {
        let found = lines(
            MetricsText(
                of: RunSamples.run(), records: [record(), record("/mnt/backup")],
                now: RunSamples.now))
        var described: Set<Substring> = []
        var current = Substring()
        for line in found {
            if line.hasPrefix("# HELP ") {
                current = line.split(separator: " ")[2]
                #expect(described.insert(current).inserted, "\(line)")
            } else if line.hasPrefix("# TYPE ") {
                #expect(line == "# TYPE \(current) gauge")
            } else {
                let name = line.prefix { $0 != "{" }
                #expect(name == current, "\(line)")
                #expect(Double(line.split(separator: " ").last ?? "") != nil, "\(line)")
            }
        }
        #expect(Set(found).count == found.count)
    }

    @Test("Every metric is in docs/metrics.md, and no other")
    func documented() throws {
        let root = #filePath.dropLast("/Tests/RunReportsTests/MetricsTests.swift".count)
        let page = String(
            decoding: try #require(readFile("\(root)/docs/metrics.md")), as: UTF8.self)
        let written = Set(
            page.split(separator: "`").filter { $0.hasPrefix("batchsync_") }.map(String.init))
        let made = Set(
            lines(MetricsText(of: RunSamples.run(), records: [record()], now: RunSamples.now))
                .filter { $0.hasPrefix("# TYPE ") }.map { String($0.split(separator: " ")[2]) })
        #expect(made == written)
    }

    @Test("The file is replaced whole, and everybody may read it whatever the mask of the process")
    func file() throws {
        let directory = TemporaryDirectory()
        let path = directory.path("home.prom")
        let before = umask(0o077)
        defer { umask(before) }
        for _ in 0..<2 {
            let metrics = MetricsText(
                of: RunSamples.run(), records: [record()], now: RunSamples.now)
            try metrics.write(to: path)
            #expect(directory.read("home.prom") == Array(metrics.text.utf8))
        }
        var status = stat()
        #expect(stat(path, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o644)
        #expect(directory.contents() == ["home.prom"])
        let error = #expect(throws: RunReportError.self) {
            try MetricsText(of: RunSamples.run(), records: [], now: RunSamples.now)
                .write(to: directory.path("missing/home.prom"))
        }
        #expect(error?.remedy.contains("directory") == true)
    }
}
