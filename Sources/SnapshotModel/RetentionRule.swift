/// How many periods a retention rule keeps: a number from 1, or all there are.
package struct RetentionCount: Sendable, Hashable, CustomStringConvertible {
    package static let unlimited = RetentionCount(value: .max)
    /// `Int.max` where it is not limited.
    let value: Int

    private init(value: Int) { self.value = value }

    /// Nil below 1: a rule that keeps nothing is none.
    package init?(_ value: Int) {
        guard value >= 1 else { return nil }
        self.value = value
    }

    /// Reads a number or `unlimited`.
    package init?(parsing text: some StringProtocol) {
        if text == "unlimited" {
            self = .unlimited
        } else if text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let value = Int(text) {
            self.init(value)
        } else {
            return nil
        }
    }

    package var isLimited: Bool { self != .unlimited }
    package var description: String { isLimited ? String(value) : "unlimited" }
}

/// One reason to keep snapshots. Rules add up: what any of them keeps is kept.
package enum RetentionRule: Sendable, Hashable {
    /// The newest snapshots.
    case last(RetentionCount)
    /// Of each of the newest periods in which there is a snapshot, the newest one; and the oldest
    /// of all for as long as there are fewer periods than the rule allows.
    case newest(RetentionCount, RetentionPeriod)
    /// Everything that is no older than this, seen from the newest snapshot of the group.
    case within(RetentionDuration)
    /// The same, but only the newest of each period.
    case newestWithin(RetentionDuration, RetentionPeriod)
    /// Whatever has this tag.
    case tag(String)
}

/// Why a snapshot is kept.
package enum RetentionReason: Sendable, Hashable {
    case last(RetentionCount, ordinal: Int)
    /// It stands for its period, the `ordinal`th from the newest.
    case newest(RetentionCount, RetentionPeriod, ordinal: Int)
    /// Nothing is older, and the rule still has periods left.
    case oldest(RetentionPeriod)
    case within(RetentionDuration)
    case newestWithin(RetentionDuration, RetentionPeriod)
    /// It stands for its period, in which no whole one lies, and does not count.
    case incomplete(RetentionPeriod)
    /// It is incomplete, and no whole one is newer.
    case newestIncomplete
    /// Whether it is whole is not known until the index is repaired, or its host has run again.
    case undescribed
    case tag(String)
    case pinned
    /// It is dated later than now: nobody knows when it was made.
    case future

    /// In a few words, as a table shows it.
    package var text: String {
        switch self {
        case .last(let count, let ordinal): Self.counted("last", ordinal, count)
        case .newest(let count, let period, let ordinal):
            Self.counted(period.name, ordinal, count)
        case .oldest(let period): "oldest (\(period.name))"
        case .within(let duration): "within \(duration)"
        case .newestWithin(let duration, let period): "\(period.name) within \(duration)"
        case .incomplete(let period): "\(period.name) (incomplete)"
        case .newestIncomplete: "newest (incomplete)"
        case .undescribed: "not described by the index"
        case .tag(let tag): "tag \(tag)"
        case .pinned: "pinned"
        case .future: "dated in the future"
        }
    }

    /// The rule it comes from, in the words of the command; for what holds beside the rules
    /// `pinned`, `future` or `incomplete`.
    package var rule: String {
        switch self {
        case .last: "keep-last"
        case .newest(_, let period, _), .oldest(let period): "keep-\(period.name)"
        case .within: "keep-within"
        case .newestWithin(_, let period): "keep-within-\(period.name)"
        case .incomplete, .newestIncomplete, .undescribed: "incomplete"
        case .tag: "keep-tag"
        case .pinned: "pinned"
        case .future: "future"
        }
    }

    private static func counted(_ word: String, _ ordinal: Int, _ count: RetentionCount) -> String {
        "\(word) \(ordinal)" + (count.isLimited ? " of \(count)" : "")
    }
}

/// Why one rule does not keep a snapshot.
package enum RetentionMiss: Sendable, Hashable {
    case notLast(RetentionCount)
    /// `keep-last` does not look at what is incomplete.
    case incomplete
    /// Another one stands for its period.
    case replaced(by: SnapshotID, RetentionPeriod)
    /// The rule keeps so many periods, and all of them are newer.
    case beyond(RetentionCount, RetentionPeriod)
    case older(RetentionDuration)
    case olderPeriod(RetentionDuration, RetentionPeriod)
    case untagged(String)

    /// In a few words, as a table shows it.
    ///
    /// - Parameter name: What to call another snapshot.
    package func text(naming name: (SnapshotID) -> String = { $0.short }) -> String {
        switch self {
        case .notLast(let count): "not of the last \(count)"
        case .incomplete: "incomplete"
        case .replaced(let id, let period): "\(period.name) is \(name(id))"
        case .beyond(let count, let period): "beyond \(count) \(period.name)"
        case .older(let duration): "older than \(duration)"
        case .olderPeriod(let duration, let period): "older than \(duration) for \(period.name)"
        case .untagged(let tag): "no tag \(tag)"
        }
    }
}
