/// Rules that say which snapshots to keep, each with its reason. Pure.
///
/// Snapshots are judged in groups, the newest first; of equal times the larger id counts as the
/// newer. Beside the rules hold:
///
/// - A pinned snapshot is kept. It counts like any other.
/// - A snapshot dated later than now is kept and does not count: a clock was wrong, and no real
///   snapshot may go because of it.
/// - An *incomplete* snapshot uses up no count and takes no period from a whole one. It is kept
///   where it is all there is: while no whole one of its group is newer, and as the newest of a
///   period without a whole one. (A snapshot of a run with problems is whole: it has all it says.)
/// - Time is measured back from the newest snapshot of the group, not from now, so that a host that
///   makes no backups any more loses none.
/// - A policy without rules, or one that would leave a group without a whole snapshot, is refused.
package struct RetentionPolicy: Sendable, Equatable {
    package var rules: [RetentionRule]

    package init(_ rules: [RetentionRule] = []) { self.rules = rules }

    /// Decides on every snapshot.
    ///
    /// What is kept does not depend on the order of `candidates`, and deciding again on what was
    /// kept keeps all of it.
    ///
    /// - Returns: The groups in order of their keys; each candidate has a verdict in one of them.
    package func decide(
        on candidates: [RetentionCandidate], grouping: RetentionGrouping, now: Timestamp,
        calendar: RetentionCalendar
    ) throws(RetentionRefusal) -> [RetentionGroup] {
        guard !rules.isEmpty else { throw .noRules }
        let members = Dictionary(grouping: candidates) { grouping.key(of: $0) }
        var groups: [RetentionGroup] = []
        var emptied: [RetentionGroupKey] = []
        for key in members.keys.sorted() {
            var decision = RetentionDecision(members[key] ?? [], now: now, calendar: calendar)
            for rule in rules { decision.apply(rule) }
            if decision.leavesNothing { emptied.append(key) }
            groups.append(RetentionGroup(key: key, verdicts: decision.verdicts))
        }
        guard emptied.isEmpty else { throw .leavesNothing(emptied) }
        return groups
    }
}

/// Why a policy is not carried out at all.
package enum RetentionRefusal: Error, Sendable, Equatable {
    case noRules
    /// No whole snapshot of these groups would be kept.
    case leavesNothing([RetentionGroupKey])
}

/// One group while the rules look at it.
private struct RetentionDecision {
    /// The newest first.
    private let candidates: [RetentionCandidate]
    private let calendar: RetentionCalendar
    /// Positions of what is not dated in the future, the newest first.
    private let real: [Int]
    private var reasons: [[RetentionReason]]
    private var misses: [[RetentionMiss]]

    init(_ members: [RetentionCandidate], now: Timestamp, calendar: RetentionCalendar) {
        candidates = members.sorted { $0.time != $1.time ? $0.time > $1.time : $0.id > $1.id }
        self.calendar = calendar
        real = candidates.indices.filter { [candidates] in candidates[$0].time <= now }
        reasons = Array(repeating: [], count: candidates.count)
        misses = Array(repeating: [], count: candidates.count)
        for position in candidates.indices {
            if candidates[position].isPinned { reasons[position].append(.pinned) }
            if candidates[position].time > now { reasons[position].append(.future) }
            if candidates[position].isUndescribed { reasons[position].append(.undescribed) }
        }
        for position in real.prefix(while: { [candidates] in candidates[$0].isIncomplete }) {
            reasons[position].append(.newestIncomplete)
        }
    }

    /// Whether there is a whole snapshot, and none that stays.
    var leavesNothing: Bool {
        let whole = real.filter { !candidates[$0].isIncomplete }
        return !whole.isEmpty && whole.allSatisfy { reasons[$0].isEmpty }
    }

    var verdicts: [RetentionVerdict] {
        candidates.indices.reversed().map {
            RetentionVerdict(
                candidate: candidates[$0], reasons: reasons[$0],
                misses: reasons[$0].isEmpty ? misses[$0] : [])
        }
    }

    mutating func apply(_ rule: RetentionRule) {
        switch rule {
        case .last(let count): keepLast(count)
        case .newest(let count, let period): keepNewest(count, by: period)
        case .within(let duration): keepWithin(duration)
        case .newestWithin(let duration, let period): keepNewestWithin(duration, by: period)
        case .tag(let tag):
            for position in real {
                if candidates[position].tags.contains(tag) {
                    reasons[position].append(.tag(tag))
                } else {
                    misses[position].append(.untagged(tag))
                }
            }
        }
    }

    private mutating func keepLast(_ count: RetentionCount) {
        var used = 0
        for position in real {
            if candidates[position].isIncomplete {
                misses[position].append(.incomplete)
            } else if used < count.value {
                used += 1
                reasons[position].append(.last(count, ordinal: used))
            } else {
                misses[position].append(.notLast(count))
            }
        }
    }

    private mutating func keepNewest(_ count: RetentionCount, by period: RetentionPeriod) {
        let periods = Periods(period, of: real, candidates, calendar)
        var kept: Set<Int> = []
        var used = 0
        for position in periods.representatives where used < count.value {
            kept.insert(position)
            if candidates[position].isIncomplete {
                reasons[position].append(.incomplete(period))
            } else {
                used += 1
                reasons[position].append(.newest(count, period, ordinal: used))
            }
        }
        // Else the beginning of a history would be lost before its first period is full.
        if used < count.value, let oldest = real.last(where: { !candidates[$0].isIncomplete }),
            kept.insert(oldest).inserted
        {
            reasons[oldest].append(.oldest(period))
        }
        for position in real where !kept.contains(position) {
            let representative = periods.representative(of: position)
            misses[position].append(
                kept.contains(representative)
                    ? .replaced(by: candidates[representative].id, period) : .beyond(count, period))
        }
    }

    private mutating func keepWithin(_ duration: RetentionDuration) {
        let limit = limit(of: duration)
        for position in real {
            if candidates[position].time >= limit {
                reasons[position].append(.within(duration))
            } else {
                misses[position].append(.older(duration))
            }
        }
    }

    private mutating func keepNewestWithin(
        _ duration: RetentionDuration, by period: RetentionPeriod
    ) {
        let limit = limit(of: duration)
        let members = real.filter { candidates[$0].time >= limit }
        let periods = Periods(period, of: members, candidates, calendar)
        for position in members {
            let representative = periods.representative(of: position)
            if representative != position {
                misses[position].append(.replaced(by: candidates[representative].id, period))
            } else if candidates[position].isIncomplete {
                reasons[position].append(.incomplete(period))
            } else {
                reasons[position].append(.newestWithin(duration, period))
            }
        }
        for position in real where candidates[position].time < limit {
            misses[position].append(.olderPeriod(duration, period))
        }
    }

    /// What is older than this lies further back than the duration. Counted from the newest whole
    /// snapshot: an incomplete one pushes nothing out.
    private func limit(of duration: RetentionDuration) -> Timestamp {
        let newest = real.first { !candidates[$0].isIncomplete } ?? real.first
        guard let newest else { return Timestamp(seconds: 0) }
        return calendar.moment(duration, before: candidates[newest].time)
    }
}

/// Which snapshot stands for each period: its newest whole one, else its newest.
private struct Periods {
    private let keys: [Int: RetentionCalendar.Key]
    private let chosen: [RetentionCalendar.Key: Int]
    /// The newest first.
    let representatives: [Int]

    /// - Parameter members: Positions among `candidates`, the newest first.
    init(
        _ period: RetentionPeriod, of members: [Int], _ candidates: [RetentionCandidate],
        _ calendar: RetentionCalendar
    ) {
        var keys: [Int: RetentionCalendar.Key] = [:]
        var chosen: [RetentionCalendar.Key: Int] = [:]
        for position in members {
            let key = calendar.key(of: candidates[position].time, by: period)
            keys[position] = key
            let isBetter =
                chosen[key].map {
                    candidates[$0].isIncomplete && !candidates[position].isIncomplete
                } ?? true
            if isBetter { chosen[key] = position }
        }
        self.keys = keys
        self.chosen = chosen
        representatives = chosen.values.sorted()
    }

    func representative(of position: Int) -> Int {
        keys[position].flatMap { chosen[$0] } ?? position
    }
}
