import SnapshotModel

/// What a policy keeps, by definition and not by counting: each snapshot is looked at beside all
/// others. Shares no code with the policy, not even the calendar, which it walks day by day.
struct RetentionOracle {
    let candidates: [RetentionCandidate]
    let now: Timestamp
    let changes: [(from: Int64, offset: Int64)]

    /// What is not dated in the future.
    private let real: [RetentionCandidate]
    private let whole: [RetentionCandidate]

    init(
        candidates: [RetentionCandidate], now: Timestamp, changes: [(from: Int64, offset: Int64)]
    ) {
        self.candidates = candidates
        self.now = now
        self.changes = changes
        real = candidates.filter { $0.time <= now }
        whole = real.filter { !$0.isIncomplete }
    }

    /// Ids of what is kept; nil where the policy has to be refused.
    func kept(by rules: [RetentionRule]) -> Set<SnapshotID>? {
        var kept: Set<SnapshotID> = []
        for one in candidates {
            if one.isPinned || one.time > now || isNewerThanWhole(one) { kept.insert(one.id) }
        }
        for rule in rules { kept.formUnion(keepers(rule).map(\.id)) }
        let isEmptied = !whole.isEmpty && whole.allSatisfy { !kept.contains($0.id) }
        return rules.isEmpty || isEmptied ? nil : kept
    }

    private func isNewer(_ left: RetentionCandidate, _ right: RetentionCandidate) -> Bool {
        left.time != right.time ? left.time > right.time : left.id > right.id
    }

    private func isNewerThanWhole(_ one: RetentionCandidate) -> Bool {
        one.isIncomplete && !whole.contains { isNewer($0, one) }
    }

    private func keepers(_ rule: RetentionRule) -> [RetentionCandidate] {
        switch rule {
        case .tag(let tag): return real.filter { $0.tags.contains(tag) }
        case .last(let count):
            return whole.filter { one in count.allows(whole.count { isNewer($0, one) }) }
        case .within(let duration):
            let limit = limit(duration)
            return real.filter { $0.time >= limit }
        case .newestWithin(let duration, let period):
            let limit = limit(duration)
            let members = real.filter { $0.time >= limit }
            let labels = labels(members, period)
            return members.filter { stands($0, among: members, labels) }
        case .newest(let count, let period):
            let labels = labels(real, period)
            let all = Set(whole.map { labels[$0.id] })
            return real.filter { one in
                let newer = Set(whole.filter { isNewer($0, one) }.map { labels[$0.id] })
                if stands(one, among: real, labels),
                    count.allows(newer.subtracting([labels[one.id]]).count)
                {
                    return true
                }
                return !one.isIncomplete && count.allows(all.count)
                    && !whole.contains { isNewer(one, $0) }
            }
        }
    }

    private func labels(_ members: [RetentionCandidate], _ period: RetentionPeriod)
        -> [SnapshotID: String]
    {
        Dictionary(uniqueKeysWithValues: members.map { ($0.id, label($0, period)) })
    }

    private func stands(
        _ one: RetentionCandidate, among members: [RetentionCandidate],
        _ labels: [SnapshotID: String]
    ) -> Bool {
        let same = members.filter { labels[$0.id] == labels[one.id] }
        let good = same.filter { !$0.isIncomplete }
        return !(good.isEmpty ? same : good).contains { isNewer($0, one) }
            && (good.isEmpty || !one.isIncomplete)
    }

    // MARK: The calendar, day by day

    private func offset(_ moment: Int64) -> Int64 {
        var offset: Int64 = 0
        for change in changes where change.from <= moment { offset = change.offset }
        return offset
    }

    private static func isLeap(_ year: Int) -> Bool {
        year % 400 == 0 || year % 4 == 0 && year % 100 != 0
    }

    private static func days(_ month: Int, _ year: Int) -> Int {
        [31, isLeap(year) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    }

    /// Every day from 2019 to 2035, with its number since 1970 and the Monday before it.
    private static let calendar: [(number: Int, year: Int, month: Int, day: Int, monday: Int)] = {
        var days: [(Int, Int, Int, Int, Int)] = []
        // 1 January 2019, a Tuesday, was day 17,897.
        var (number, weekday) = (17_897, 1)
        for year in 2019...2035 {
            for month in 1...12 {
                for day in 1...Self.days(month, year) {
                    days.append((number, year, month, day, number - weekday))
                    number += 1
                    weekday = (weekday + 1) % 7
                }
            }
        }
        return days
    }()

    private static let numbers = Dictionary(
        uniqueKeysWithValues: calendar.map { ("\($0.year) \($0.month) \($0.day)", $0.number) })

    private func label(_ one: RetentionCandidate, _ period: RetentionPeriod) -> String {
        let local = one.time.seconds + offset(one.time.seconds)
        let date = Self.calendar[Int(local / 86_400) - 17_897]
        switch period {
        case .hour: return "\(date.number) \(local % 86_400 / 3600) \(offset(one.time.seconds))"
        case .day: return "\(date.year) \(date.month) \(date.day)"
        case .week: return "\(date.monday)"
        case .month: return "\(date.year) \(date.month)"
        case .quarter: return "\(date.year) \([1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4][date.month - 1])"
        case .year: return "\(date.year)"
        }
    }

    private func limit(_ duration: RetentionDuration) -> Timestamp {
        let newest = (whole.isEmpty ? real : whole).max { isNewer($1, $0) }
        guard let newest else { return now }
        let local = newest.time.seconds + offset(newest.time.seconds)
        let date = Self.calendar[Int(local / 86_400) - 17_897]
        var (year, month) = (date.year - duration.years, date.month)
        for _ in 0..<duration.months {
            month -= 1
            if month == 0 { (year, month) = (year - 1, 12) }
        }
        let day = min(date.day, Self.days(month, year))
        let number = Self.numbers["\(year) \(month) \(day)"] ?? 0
        let wanted = Int64(number - duration.days) * 86_400 + local % 86_400
        // The first second at which the clocks show that time; if they never do, the time they
        // would have shown without the change that skips it.
        let moments = (wanted - 20 * 3600...wanted + 20 * 3600)
        let near = changes.map(\.from).filter { moments.contains($0) }
        let candidates = ([Int64.min] + near).map { wanted - offset(max($0, wanted - 20 * 3600)) }
        let exact = candidates.filter { $0 + offset($0) == wanted }.min()
        return Timestamp(
            seconds: (exact ?? candidates.min()!) - Int64(duration.hours) * 3600,
            nanoseconds: newest.time.nanoseconds)
    }
}

extension RetentionCount {
    /// Whether so many before it leave room for one more.
    fileprivate func allows(_ before: Int) -> Bool {
        Int(description).map { before < $0 } ?? true
    }
}
