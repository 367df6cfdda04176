import SnapshotModel
import Testing

@Suite("Retention")
struct RetentionTests {
    // MARK: Words

    @Test(
        "A duration is read, and written as it is read",
        arguments: [
            ("30d", "30d"), ("1y6m", "1y6m"), ("2h", "2h"), ("1y2m3w4d5h", "1y2m3w4d5h"),
            ("0y1d", "1d"), ("007d", "7d"), ("10000d", "10000d"),
        ])
    func duration(_ text: String, _ written: String) throws {
        let duration = try #require(RetentionDuration(parsing: text))
        #expect(duration.description == written)
        #expect(RetentionDuration(parsing: written) == duration)
    }

    @Test(
        "What is no duration is refused",
        arguments: [
            "", "d", "30", "0d", "0y0h", "30 d", "-1d", "1.5d", "1d1d", "1d1y", "1h2d", "1D", "1s",
            "10001d", "99999999999999999999d", "1d ", "٣d", "1y6",
        ])
    func noDuration(_ text: String) { #expect(RetentionDuration(parsing: text) == nil) }

    @Test(
        "A count is a number from 1, or unlimited",
        arguments: [
            ("1", "1"), ("365", "365"), ("unlimited", "unlimited"), ("0", nil), ("-1", nil),
            ("", nil), ("+1", nil), ("all", nil), ("1.5", nil), ("99999999999999999999", nil),
        ] as [(String, String?)])
    func count(_ text: String, _ written: String?) {
        #expect(RetentionCount(parsing: text)?.description == written)
    }

    @Test(
        "A grouping is read, and written in one order",
        arguments: [
            ("host,paths", "host,paths"), ("tags,host", "host,tags"), ("none", "none"),
            ("paths,paths", "paths"), ("", nil), ("hosts", nil), ("host,", nil), ("none,host", nil),
        ] as [(String, String?)])
    func grouping(_ text: String, _ written: String?) {
        #expect(RetentionGrouping(parsing: text)?.text == written)
    }

    // MARK: The calendar

    /// A zone as the system's tables have it: Python reads them, and shares no code with this room.
    private static func changes(of zone: String) throws -> [(from: Int64, offset: Int64)] {
        let script = """
            import zoneinfo, datetime
            zone = zoneinfo.ZoneInfo("\(zone)")
            def offset(second):
                return datetime.datetime.fromtimestamp(second, zone).utcoffset()
            first = 1072915200
            print(first, int(offset(first).total_seconds()))
            for high in range(first + 21600, 1893456000, 21600):
                low = high - 21600
                if offset(low) != offset(high):
                    while high - low > 1:
                        middle = (low + high) // 2
                        if offset(middle) == offset(low):
                            low = middle
                        else:
                            high = middle
                    print(high, int(offset(high).total_seconds()))
            """
        return try PythonAgreementTests.output(of: "python3 -B -", input: script)
            .split(separator: "\n").map { line in
                let numbers = line.split(separator: " ").compactMap { Int64($0) }
                return (from: numbers[0], offset: numbers[1])
            }
    }

    @Test(
        "Hours, days, weeks and months are those of the zone",
        arguments: [
            "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe",
            "Pacific/Apia",
        ])
    func periods(_ zone: String) throws {
        let changes = try Self.changes(of: zone)
        let calendar = RetentionCalendar(changes: changes)
        var generator = PythonAgreementTests.Generator(state: 7)
        // Anywhere, and near the changes, where it is hard.
        var moments = (0..<200).map { _ in
            Int64.random(in: 1_100_000_000...1_890_000_000, using: &generator)
        }
        for change in changes.dropFirst().shuffled(using: &generator).prefix(40) {
            moments += (0..<6).map { _ in
                change.from + Int64.random(in: -90_000...90_000, using: &generator)
            }
        }
        let script = """
            import zoneinfo, datetime
            zone = zoneinfo.ZoneInfo("\(zone)")
            for second in [\(moments.map(String.init).joined(separator: ","))]:
                t = datetime.datetime.fromtimestamp(second, zone)
                print(t.strftime("%Y-%m-%d %H %z"), t.date(), t.isocalendar()[:2],
                    (t.year, t.month), (t.year, (t.month + 2) // 3), t.year, sep=";")
            """
        let lines = try PythonAgreementTests.output(of: "python3 -B -", input: script)
            .split(separator: "\n").map { $0.split(separator: ";") }
        try #require(lines.count == moments.count)
        for (column, period) in RetentionPeriod.allCases.enumerated() {
            // The same words exactly where the same period is meant.
            var keys: [Substring: RetentionCalendar.Key] = [:]
            var words: [RetentionCalendar.Key: Substring] = [:]
            for (moment, line) in zip(moments, lines) {
                let key = calendar.key(of: Timestamp(seconds: moment), by: period)
                #expect(keys[line[column], default: key] == key, "\(zone) \(period) \(moment)")
                #expect(words[key, default: line[column]] == line[column], "\(zone) \(moment)")
                keys[line[column]] = key
                words[key] = line[column]
            }
        }
    }

    // MARK: Properties

    /// A made-up history of one group with the rules it is judged by.
    private struct Scene: CustomStringConvertible {
        var candidates: [RetentionCandidate]
        var rules: [RetentionRule]
        let now: Timestamp
        let changes: [(from: Int64, offset: Int64)]

        static let zones: [[(from: Int64, offset: Int64)]] = [
            [(.min, 0)],
            [(.min, 5 * 3600 + 45 * 60)],
            // Berlin in 2026 and 2027.
            [
                (.min, 3600), (1_774_746_000, 7200), (1_792_890_000, 3600), (1_806_195_600, 7200),
                (1_824_944_400, 3600),
            ],
            // Clocks that go back over midnight, in the United States' rhythm.
            [(.min, -12_600), (1_772_947_860, -9000), (1_793_507_460, -12_600)],
            // From one end of the world to the other.
            [(.min, 32_400), (1_778_382_000, -14_400)],
        ]

        init(seed: UInt64) {
            var generator = PythonAgreementTests.Generator(state: seed)
            changes = Self.zones[Int.random(in: 0..<Self.zones.count, using: &generator)]
            let span = [3600, 40 * 3600, 20 * 86_400, 400 * 86_400].randomElement(
                using: &generator)!
            // A quarter of an hour is coarse enough for equal times, and for limits that are hit.
            let centre =
                changes.dropFirst().randomElement(using: &generator).map(\.from) ?? 1_774_994_400
            let base = (centre - Int64.random(in: 0...Int64(span), using: &generator)) / 900 * 900
            let count = Int.random(in: 0...24, using: &generator)
            var made: [RetentionCandidate] = []
            for number in 0..<count {
                let steps = Int64.random(in: 0...Int64(span / 900), using: &generator)
                var one = RetentionCandidate(
                    id: SnapshotID(generator.next(), UInt64(number), 0, 0),
                    time: Timestamp(seconds: base + steps * 900), host: "h", roots: [])
                one.isPinned = Int.random(in: 0..<12, using: &generator) == 0
                one.isIncomplete = Int.random(in: 0..<5, using: &generator) == 0
                one.tags = ["x", "y"].filter { _ in Int.random(in: 0..<5, using: &generator) == 0 }
                made.append(one)
            }
            candidates = made
            let late = made.map(\.time).sorted()
            now = Timestamp(
                seconds: Bool.random(using: &generator) || late.isEmpty
                    ? base + Int64(span) + 5 : late[late.count * 3 / 4].seconds)
            rules = (0..<Int.random(in: 1...3, using: &generator)).map { _ in
                Self.rule(&generator)
            }
        }

        static func rule(_ generator: inout PythonAgreementTests.Generator) -> RetentionRule {
            let period = RetentionPeriod.allCases.randomElement(using: &generator)!
            let words = ["1h", "5h", "1d", "3d", "2w", "1m", "2m3d", "1y", "1y1m1w1d1h"]
            let duration = RetentionDuration(parsing: words.randomElement(using: &generator)!)!
            let count =
                Int.random(in: 0..<8, using: &generator) == 0
                ? RetentionCount.unlimited
                : RetentionCount(Int.random(in: 1...6, using: &generator))!
            switch Int.random(in: 0..<10, using: &generator) {
            case 0: return .last(count)
            case 1: return .tag("x")
            case 2: return .within(duration)
            case 3..<6: return .newestWithin(duration, period)
            default: return .newest(count, period)
            }
        }

        /// Nil where it is refused.
        func verdicts() -> [RetentionVerdict]? {
            let groups = try? RetentionPolicy(rules).decide(
                on: candidates, grouping: [], now: now,
                calendar: RetentionCalendar(changes: changes))
            return groups?.flatMap(\.verdicts)
        }

        func kept() -> Set<SnapshotID>? {
            verdicts().map { Set($0.filter(\.isKept).map(\.candidate.id)) }
        }

        var description: String {
            "now \(now.seconds) zone \(changes) rules \(rules)\n"
                + candidates.sorted { $0.time < $1.time }.map {
                    "  \($0.id.short) \($0.time.seconds) \($0.tags)"
                        + ($0.isPinned ? " pinned" : "") + ($0.isIncomplete ? " incomplete" : "")
                }.joined(separator: "\n")
        }
    }

    @Test("A policy keeps what its rules say by definition", arguments: 0..<20 as Range<UInt64>)
    func definition(_ block: UInt64) {
        for seed in block * 100..<(block + 1) * 100 {
            let scene = Scene(seed: seed)
            let oracle = RetentionOracle(
                candidates: scene.candidates, now: scene.now, changes: scene.changes)
            #expect(scene.kept() == oracle.kept(by: scene.rules), "seed \(seed): \(scene)")
        }
    }

    @Test(
        "Every snapshot has one verdict, with a reason if it is kept and one for each rule if not",
        arguments: 0..<8 as Range<UInt64>)
    func reasons(_ block: UInt64) {
        for seed in block * 100..<(block + 1) * 100 {
            let scene = Scene(seed: seed)
            guard let verdicts = scene.verdicts() else { continue }
            #expect(verdicts.map(\.candidate.id).sorted() == scene.candidates.map(\.id).sorted())
            for verdict in verdicts where !verdict.isKept {
                #expect(verdict.misses.count == scene.rules.count, "seed \(seed): \(scene)")
            }
            let kept = Set(verdicts.filter(\.isKept).map(\.candidate.id))
            for case .replaced(let id, _) in verdicts.flatMap(\.misses) {
                #expect(kept.contains(id), "seed \(seed): \(scene)")
            }
        }
    }

    @Test(
        "The order in which snapshots are given does not matter; deciding again changes nothing",
        arguments: 0..<8 as Range<UInt64>)
    func stable(_ block: UInt64) {
        for seed in block * 100..<(block + 1) * 100 {
            let scene = Scene(seed: seed)
            let kept = scene.kept()
            var shuffled = scene
            var generator = PythonAgreementTests.Generator(state: seed)
            shuffled.candidates.shuffle(using: &generator)
            #expect(shuffled.verdicts() == scene.verdicts(), "seed \(seed): \(scene)")
            guard let kept else { continue }
            var again = scene
            again.candidates.removeAll { !kept.contains($0.id) }
            #expect(again.kept() == kept, "seed \(seed): \(scene)")
        }
    }

    @Test(
        "What is dated in the future, or not there at all, makes nothing else go",
        arguments: 0..<8 as Range<UInt64>)
    func nothingPushesOut(_ block: UInt64) {
        for seed in block * 100..<(block + 1) * 100 {
            let scene = Scene(seed: seed)
            guard let kept = scene.kept() else { continue }
            let real = scene.candidates.filter { $0.time <= scene.now }
            var without = scene
            without.candidates = real
            let ids = Set(real.map(\.id))
            #expect(without.kept() == kept.intersection(ids), "seed \(seed): \(scene)")
            // A record that cannot be read is as one that is not there.
            for missing in scene.candidates {
                var fewer = scene
                fewer.candidates.removeAll { $0.id == missing.id }
                guard let left = fewer.kept() else { continue }
                #expect(
                    left.isSuperset(of: kept.subtracting([missing.id])), "seed \(seed): \(scene)")
            }
        }
    }

    @Test("A host's clock that stands in the past forgets nothing")
    func clockInThePast() throws {
        let table = try RetentionTable(
            parsing:
                "now 1970-01-01T00:00:09Z\npolicy last=1\na 2026-03-30T01:00:00Z\nb 2026-03-31T01:00:00Z"
        )
        let groups = try table.policy.decide(
            on: table.candidates, grouping: table.grouping, now: table.now,
            calendar: table.calendar)
        #expect(groups.flatMap(\.verdicts).allSatisfy { $0.reasons == [.future] })
    }

    @Test("Moments at the ends of time are judged all the same")
    func extremes() throws {
        let times: [Int64] = [-999_999_999_999, -1, 0, 999_999_999_999]
        let candidates = times.enumerated().map { number, seconds in
            RetentionCandidate(
                id: SnapshotID(UInt64(number), 0, 0, 0), time: Timestamp(seconds: seconds),
                host: "h", roots: [])
        }
        let rules = RetentionPeriod.allCases.flatMap { period in
            [
                RetentionRule.newest(.unlimited, period),
                .newestWithin(
                    RetentionDuration(parsing: "10000y10000m10000w10000d10000h")!, period),
            ]
        }
        let groups = try RetentionPolicy(rules).decide(
            on: candidates, grouping: .standard, now: Timestamp(seconds: 999_999_999_999),
            calendar: .utc)
        #expect(groups.flatMap(\.verdicts).allSatisfy { $0.isKept })
    }
}
