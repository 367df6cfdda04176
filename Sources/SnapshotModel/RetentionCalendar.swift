/// The calendar by which a person sees her nights: hours, days, months where she lives.
package struct RetentionCalendar: Sendable {
    /// Seconds by which local time is ahead of UTC, at a moment in seconds since 1970.
    private let offset: @Sendable (Int64) -> Int64

    package init(offset: @escaping @Sendable (Int64) -> Int64) { self.offset = offset }

    package static let utc = RetentionCalendar { _ in 0 }

    /// One hour, day, week … of the local calendar.
    package struct Key: Hashable, Sendable {
        let number: Int
        /// Tells the two hours apart that bear one name in the night when clocks are set back; a
        /// longer period is the same on both sides of it.
        let offset: Int64
    }

    /// The period that holds a moment.
    package func key(of time: Timestamp, by period: RetentionPeriod) -> Key {
        let ahead = offset(time.seconds)
        let local = time.seconds + ahead
        let date = Timestamp(seconds: local).civil
        switch period {
        case .hour: return Key(number: Self.floor(local, 3600), offset: ahead)
        case .day: return Key(number: Self.floor(local, 86_400), offset: 0)
        // 1 January 1970 was a Thursday, three days into its week.
        case .week: return Key(number: Self.floor(local + 3 * 86_400, 7 * 86_400), offset: 0)
        case .month: return Key(number: date.year * 12 + date.month - 1, offset: 0)
        case .quarter: return Key(number: date.year * 4 + (date.month - 1) / 3, offset: 0)
        case .year: return Key(number: date.year, offset: 0)
        }
    }

    /// The moment that lies so far before another one.
    ///
    /// Years and months go back in the calendar, and end with the month where it has no such day;
    /// weeks and days keep the time of day; hours are hours. Where the clocks show the result twice
    /// or never, it is the earlier moment: who asks keeps more, not less.
    func moment(_ duration: RetentionDuration, before time: Timestamp) -> Timestamp {
        let local = time.seconds + offset(time.seconds)
        let date = Timestamp(seconds: local).civil
        let months = date.year * 12 + date.month - 1 - duration.years * 12 - duration.months
        let (year, month) = (
            Self.floor(Int64(months), 12), months - Self.floor(Int64(months), 12) * 12 + 1
        )
        let midnight = Timestamp(
            year: year, month: month, day: min(date.day, Self.days(in: month, of: year)))
        let timeOfDay = local - Int64(Self.floor(local, 86_400)) * 86_400
        let wanted = midnight.seconds - Int64(duration.days) * 86_400 + timeOfDay
        return Timestamp(
            seconds: earliest(local: wanted) - Int64(duration.hours) * 3600,
            nanoseconds: time.nanoseconds)
    }

    /// The first moment at which clocks show this local time, or would have shown it.
    private func earliest(local: Int64) -> Int64 {
        // No zone is further than a day from UTC, and none changes twice within two days.
        let offsets = [offset(local - 86_400), offset(local + 86_400)].sorted(by: >)
        let exact = offsets.map { local - $0 }.first { $0 + offset($0) == local }
        return exact ?? local - offsets[0]
    }

    private static func floor(_ value: Int64, _ divisor: Int64) -> Int {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
        return Int(remainder < 0 ? quotient - 1 : quotient)
    }

    private static func days(in month: Int, of year: Int) -> Int {
        let (nextYear, nextMonth) = month == 12 ? (year + 1, 1) : (year, month + 1)
        return Timestamp(seconds: Timestamp(year: nextYear, month: nextMonth, day: 1).seconds - 1)
            .civil.day
    }
}
