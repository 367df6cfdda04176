import ArgumentParser
import Glibc
import SnapshotModel

/// Which snapshots are to stay.
struct RetentionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Keep the newest so many, or 'unlimited'.", valueName: "count"))
    var keepLast: RetentionCount?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each of so many hours.", valueName: "count"))
    var keepHourly: RetentionCount?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each of so many days.", valueName: "count"))
    var keepDaily: RetentionCount?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each of so many ISO weeks.", valueName: "count"))
    var keepWeekly: RetentionCount?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each of so many months.", valueName: "count"))
    var keepMonthly: RetentionCount?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each of so many quarters.", valueName: "count"))
    var keepQuarterly: RetentionCount?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each of so many years.", valueName: "count"))
    var keepYearly: RetentionCount?

    @Option(
        help: ArgumentHelp(
            "Keep everything of such a time before the newest snapshot: 30d, 1y6m, 2w, 12h.",
            valueName: "time"))
    var keepWithin: RetentionDuration?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each hour of such a time.", valueName: "time"))
    var keepWithinHourly: RetentionDuration?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each day of such a time.", valueName: "time"))
    var keepWithinDaily: RetentionDuration?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each week of such a time.", valueName: "time"))
    var keepWithinWeekly: RetentionDuration?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each month of such a time.", valueName: "time"))
    var keepWithinMonthly: RetentionDuration?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each quarter of such a time.", valueName: "time"))
    var keepWithinQuarterly: RetentionDuration?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each year of such a time.", valueName: "time"))
    var keepWithinYearly: RetentionDuration?

    @Option(
        help: ArgumentHelp(
            "Keep what has this tag. May be given several times.", valueName: "tag"),
        transform: plainText)
    var keepTag: [String] = []

    @Option(
        help: ArgumentHelp(
            "Count those together that share these: host, paths, tags, with commas; or none.",
            valueName: "what"))
    var groupBy: RetentionGrouping = .standard

    func validate() throws {
        for tag in keepTag { try TagCommand.check(tag) }
    }

    /// The rules in the order in which reasons are told.
    var policy: RetentionPolicy {
        var rules: [RetentionRule] = []
        if let keepLast { rules.append(.last(keepLast)) }
        let counts = [
            keepHourly, keepDaily, keepWeekly, keepMonthly, keepQuarterly, keepYearly,
        ]
        for (period, count) in zip(RetentionPeriod.allCases, counts) {
            if let count { rules.append(.newest(count, period)) }
        }
        if let keepWithin { rules.append(.within(keepWithin)) }
        let durations = [
            keepWithinHourly, keepWithinDaily, keepWithinWeekly, keepWithinMonthly,
            keepWithinQuarterly, keepWithinYearly,
        ]
        for (period, duration) in zip(RetentionPeriod.allCases, durations) {
            if let duration { rules.append(.newestWithin(duration, period)) }
        }
        return RetentionPolicy(rules + keepTag.map { .tag($0) })
    }
}

extension RetentionCalendar {
    /// The calendar of this process's time zone.
    static let local = RetentionCalendar { TimeText.secondsAheadOfUTC($0) }
}

extension RetentionCount: ExpressibleByArgument {
    package init?(argument: String) { self.init(parsing: argument) }
}

extension RetentionDuration: ExpressibleByArgument {
    package init?(argument: String) { self.init(parsing: argument) }
}

extension RetentionGrouping: ExpressibleByArgument {
    package init?(argument: String) { self.init(parsing: argument) }
    package var defaultValueDescription: String { text }
}
