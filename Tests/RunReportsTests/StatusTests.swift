import Glibc
import RunReports
import SnapshotModel
import TestSupport
import Testing

@Suite("How backups stand")
struct StatusTests {
    private let directory = TemporaryDirectory()
    private var book: StatusBook { StatusBook(state: directory.path) }

    private func fullRecord() -> StatusRecord {
        var record = StatusRecord(profile: "home", location: "s3://bucket/prefix")
        record.profileFile = "/etc/batchsync/home.toml"
        record.note(RunSamples.source())
        record.note(RunSamples.run())
        record.note(RunSamples.run(.damage, .verify))
        record.coverage = StatusRecord.Coverage(
            totalBytes: 1000, neverReadBytes: 100, bytesByDay: [20_500: 300, 20_510: 600])
        record.note(storedBytes: 5_000, at: RunSamples.days(-10))
        record.note(storedBytes: 6_000, at: RunSamples.evening)
        return record
    }

    private func line(
        _ record: StatusRecord, _ maximumAge: Int? = nil, at now: Timestamp = RunSamples.now
    ) throws -> StatusReport.Line {
        var report = StatusReport()
        report.add(record, maximumAgeSeconds: maximumAge, now: now)
        try #require(report.lines.count == 1)
        return report.lines[0]
    }

    @Test("A record comes back as it was kept")
    func roundTrip() throws {
        let record = fullRecord()
        try book.update(profile: record.profile, location: record.location) { $0 = record }
        #expect(book.record(profile: "home", location: "s3://bucket/prefix") == record)
        #expect(book.all() == [record])
    }

    @Test("Records of profiles, stores and words do not get mixed up")
    func separate() throws {
        let places = ["/mnt/a", "/mnt,a", "/mnt%2fa", String(repeating: "/x", count: 400)]
        for profile in [nil, "home", "home,", ""] {
            for place in places {
                try book.update(profile: profile, location: place) {
                    $0.profileFile = "\(profile ?? "-") \(place)"
                }
            }
        }
        for profile in [nil, "home", "home,", ""] {
            for place in places {
                #expect(
                    book.record(profile: profile, location: place).profileFile
                        == "\(profile ?? "-") \(place)")
            }
        }
        #expect(
            book.all().map(\.profile) == ["", "home", "home,", nil].flatMap { [$0, $0, $0, $0] })
    }

    @Test("A record that cannot be read is none, and the next run writes it anew")
    func unreadable() throws {
        try book.update(profile: nil, location: "a") { $0.profileFile = "r" }
        let name = try #require(directory.contents().first { $0.hasSuffix(".json") })
        for text in ["", "{", "{\"version\":2,\"location\":\"a\"}", "[]", "\0"] {
            directory.write(Array(text.utf8), to: name)
            #expect(book.all() == [])
            #expect(book.record(profile: nil, location: "a").profileFile == nil)
        }
        try book.update(profile: nil, location: "a") { $0.profileFile = "again" }
        #expect(book.all().map(\.profileFile) == ["again"])
    }

    @Test("What several runs have to tell at once is all kept")
    func concurrent() async {
        let book = book
        await atOnce(8) { number in
            for round in 0..<5 {
                do {
                    try book.update(profile: nil, location: "a") {
                        $0.note(
                            RunSamples.source(
                                RunSamples.days(number * 10 + round),
                                roots: ["/\(number)", "/x\(round % 3)"]))
                    }
                } catch {
                    Issue.record("\(error)")
                }
            }
        }
        let found = book.record(profile: nil, location: "a").sources
        #expect(found.count == 24)
    }

    // MARK: Age

    @Test(
        "A snapshot is late once it is older than it may be",
        arguments: [(0, false), (3600, false), (3601, true), (86_400 * 365, true)])
    func late(_ age: Int64, _ isLate: Bool) throws {
        let now = Timestamp(seconds: RunSamples.evening.seconds + age)
        let line = try line(fullRecord(), 3600, at: now)
        #expect(line.ageSeconds == Int(age))
        #expect(line.isLate == isLate)
        #expect(try self.line(fullRecord(), at: now).isLate == false)
    }

    @Test("A snapshot that is dated in the future says nothing about its age, and so is late")
    func future() throws {
        let earlier = Timestamp(seconds: RunSamples.evening.seconds - 7200)
        #expect(try line(fullRecord(), 3600, at: earlier).isLate)
        // Clocks differ a little.
        let almost = Timestamp(seconds: RunSamples.evening.seconds - 60)
        #expect(try line(fullRecord(), 3600, at: almost).isLate == false)
    }

    @Test("Where there was never a snapshot a limit is broken")
    func never() throws {
        var record = StatusRecord(profile: "home", location: "x")
        #expect(try line(record, 3600).isLate)
        #expect(try line(record).isLate == false)
        record.note(RunSamples.run(.failure))
        #expect(try line(record, 3600).lastRun?.outcome == .failure)
    }

    @Test("One of several sources that is late makes all late")
    func several() {
        var record = StatusRecord(profile: nil, location: "x")
        record.note(RunSamples.source(RunSamples.days(-3), roots: ["/etc"]))
        record.note(RunSamples.source(RunSamples.now, roots: ["/srv"]))
        var report = StatusReport()
        report.add(record, maximumAgeSeconds: 86_400, now: RunSamples.now)
        #expect(report.lines.map(\.isLate) == [true, false])
        #expect(report.isLate)
    }

    @Test("A profile has the sources of its last run, words have each set they were used with")
    func sources() {
        for (profile, roots) in [("home", [["/b"]]), (nil, [["/a", "/b"], ["/b"]])] {
            var record = StatusRecord(profile: profile, location: "x")
            record.note(RunSamples.source(RunSamples.days(0), roots: ["/a", "/b"]))
            record.note(RunSamples.source(RunSamples.days(1), roots: ["/b", "/a"]))
            record.note(RunSamples.source(RunSamples.days(2), roots: ["/b"]))
            let found = record.sources.map { $0.roots.map { String(decoding: $0, as: UTF8.self) } }
            #expect(found.map { $0.sorted() } == roots)
        }
    }

    @Test("A host that has another name is no other job of a profile, and another one by words")
    func hostRenamed() {
        for (profile, hosts) in [("home", ["beta"]), (nil, ["alpha", "beta"])] {
            var record = StatusRecord(profile: profile, location: "x")
            record.note(RunSamples.source(RunSamples.days(0), host: "alpha"))
            record.note(RunSamples.source(RunSamples.days(1), host: "beta"))
            #expect(record.sources.map(\.host) == hosts)
        }
    }

    @Test("Sources that nobody backs up any more are forgotten at some time")
    func sourcesBounded() {
        var record = StatusRecord(profile: nil, location: "x")
        for day in 0..<100 {
            record.note(RunSamples.source(RunSamples.days(day), roots: ["/\(day)"]))
        }
        #expect(record.sources.count == 32)
        #expect(record.sources.last?.time == RunSamples.days(99))
    }

    @Test("The last run is the one that was to make a snapshot, by a profile or by words")
    func lastRun() throws {
        var record = fullRecord()
        #expect(try line(record).lastRun?.outcome == .success)
        record.note(RunSamples.run(.failure, .backup, began: RunSamples.days(1)))
        #expect(try line(record).lastRun?.outcome == .failure)
        #expect(record.lastRuns[.verify]?.outcome == .damage)
    }

    // MARK: Verification and space

    @Test(
        "The verified share is of what was read in thirty days, as days go by",
        arguments: [(20_510, 0.9), (20_529, 0.9), (20_530, 0.6), (20_539, 0.6), (20_540, 0.0)])
    func share(_ today: Int, _ share: Double) throws {
        let now = Timestamp(seconds: Int64(today) * 86_400 + 60)
        let line = try line(fullRecord(), at: now)
        #expect(line.verifiedShare == share)
        #expect(line.neverReadBytes == 100)
        #expect(line.oldestRead == Timestamp(seconds: 20_500 * 86_400))
    }

    @Test("An empty store is verified; one that was never verified is not known to be")
    func noCoverage() throws {
        let empty = StatusRecord.Coverage(totalBytes: 0, neverReadBytes: 0, bytesByDay: [:])
        #expect(empty.share(within: 30, at: RunSamples.now) == 1)
        #expect(empty.oldestDay == nil)
        #expect(try line(StatusRecord(profile: nil, location: "x")).verifiedShare == nil)
    }

    @Test("Growth is told from a week on, over the last thirty days")
    func growth() throws {
        var record = StatusRecord(profile: nil, location: "x")
        func growth() -> Int? { record.growthPerDay(at: RunSamples.evening) }
        #expect(growth() == nil)
        record.note(storedBytes: 9_999_999, at: RunSamples.days(-200))
        record.note(storedBytes: 1_000, at: RunSamples.days(-6))
        record.note(storedBytes: 2_000, at: RunSamples.days(0))
        #expect(growth() == nil)
        record.note(storedBytes: 3_000, at: RunSamples.days(-10))
        #expect(growth() == -100)
        record.note(addedBytes: 11_000, at: RunSamples.days(0))
        #expect(growth() == 1_000)
        #expect(record.storedBytes == 13_000)
        record.note(addedBytes: -20_000, at: RunSamples.days(0))
        #expect(record.storedBytes == 0)
        #expect(try line(record, at: RunSamples.evening).growthPerDay == -300)
    }

    @Test("Space is remembered for a year and a month")
    func spaceBounded() {
        var record = StatusRecord(profile: nil, location: "x")
        for day in 0..<1_000 { record.note(storedBytes: day, at: RunSamples.days(day)) }
        #expect(record.space.count == 400)
        #expect(record.storedBytes == 999)
    }
}
