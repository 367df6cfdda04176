package import SnapshotModel

/// From an expression to moments.
extension CalendarExpression {
    /// The first moment after another one at which the job runs; nil where there is none in the next
    /// forty years, within which every leap day has fallen on every day of the week.
    ///
    /// A local time that the clocks skip when they are set forward runs at the moment of the change;
    /// one that they show twice runs the first time.
    ///
    /// - Parameter offset: Seconds by which local time is ahead of UTC, at a moment in seconds since
    ///   1970.
    package func next(
        after time: Timestamp, offset: (_ seconds: Int64) -> Int64
    ) -> Timestamp? {
        func ahead(_ seconds: Int64) -> Int64 { isUTC ? 0 : offset(seconds) }
        let local = time.seconds + ahead(time.seconds)
        let secondsOfDay = timesOfDay
        var midnight = local - Self.modulo(local, 86_400)
        for _ in 0..<(41 * 366) {
            if matches(day: midnight) {
                // Clocks do not go back over a whole day, so that what they showed is over.
                for second in secondsOfDay where midnight + second > local - 1 {
                    let moment = Self.moment(local: midnight + second, ahead)
                    if moment > time.seconds { return Timestamp(seconds: moment) }
                }
            }
            midnight += 86_400
        }
        return nil
    }

    private func matches(day midnight: Int64) -> Bool {
        let date = Timestamp(seconds: midnight).civil
        guard years?.contains(date.year) != false, months.contains(date.month) else { return false }
        let next = date.month == 12 ? (date.year + 1, 1) : (date.year, date.month + 1)
        let length =
            (Timestamp(year: next.0, month: next.1, day: 1).seconds - midnight) / 86_400
            + Int64(date.day - 1)
        let day = countsDaysFromEnd ? Int(length) - date.day + 1 : date.day
        // 1 January 1970 was a Thursday, the fourth day of its week.
        let weekday = Int(Self.modulo(midnight / 86_400 + 3, 7)) + 1
        let (fitsDay, fitsWeek) = (days.contains(day), weekdays.contains(weekday))
        return eitherDayIsEnough ? fitsDay || fitsWeek : fitsDay && fitsWeek
    }

    /// Seconds since midnight, in order.
    private var timesOfDay: [Int64] {
        hours.numbers.flatMap { hour in
            minutes.numbers.flatMap { minute in
                seconds.numbers.map { Int64((hour * 60 + minute) * 60 + $0) }
            }
        }
    }

    /// The first moment at which clocks show a local time; where none do, the moment at which they
    /// jump over it.
    private static func moment(local: Int64, _ ahead: (Int64) -> Int64) -> Int64 {
        // No zone is further than a day from UTC, and none changes twice within two days.
        let (before, after) = (ahead(local - 86_400), ahead(local + 86_400))
        for offset in [max(before, after), min(before, after)]
        where local - offset + ahead(local - offset) == local {
            return local - offset
        }
        // Within the two days the change is found by halves.
        var (early, late) = (local - 86_400, local + 86_400)
        while late - early > 1 {
            let middle = early + (late - early) / 2
            if ahead(middle) == before { early = middle } else { late = middle }
        }
        return late
    }

    private static func modulo(_ value: Int64, _ divisor: Int64) -> Int64 {
        let rest = value % divisor
        return rest < 0 ? rest + divisor : rest
    }
}
