import Glibc
import SnapshotModel
import SnapshotRepository

/// Moments as people and programs read them.
enum TimeText {
    /// RFC 3339 in UTC with nanoseconds.
    static func machine(_ time: Timestamp) -> String {
        let at = time.civil
        func two(_ value: Int) -> String { Timestamp.padded(value, 2) }
        return
            "\(Timestamp.padded(at.year, 4))-\(two(at.month))-\(two(at.day))T\(two(at.hour)):\(two(at.minute))"
            + ":\(two(at.second)).\(Timestamp.padded(Int(time.nanoseconds), 9))Z"
    }

    /// `2026-03-31 22:05:09` in the time zone of this process.
    static func person(_ time: Timestamp) -> String {
        var seconds = time_t(time.seconds)
        var at = tm()
        guard localtime_r(&seconds, &at) != nil else { return machine(time) }
        func two(_ value: Int32) -> String { Timestamp.padded(Int(value), 2) }
        return
            "\(Timestamp.padded(Int(at.tm_year) + 1900, 4))-\(two(at.tm_mon + 1))-\(two(at.tm_mday))"
            + " \(two(at.tm_hour)):\(two(at.tm_min)):\(two(at.tm_sec))"
    }

    /// Reads a date or time as `SnapshotCatalog.moment` does, but in the time zone of this process
    /// where no `Z` ends it. Nil for anything else.
    static func moment(_ text: String) -> Timestamp? {
        guard let time = SnapshotCatalog.moment(text) else { return nil }
        if text.hasSuffix("Z") { return time }
        let civil = time.civil
        var at = tm()
        at.tm_year = Int32(civil.year - 1900)
        at.tm_mon = Int32(civil.month - 1)
        at.tm_mday = Int32(civil.day)
        at.tm_hour = Int32(civil.hour)
        at.tm_min = Int32(civil.minute)
        at.tm_sec = Int32(civil.second)
        // The system knows whether summer time holds then.
        at.tm_isdst = -1
        return Timestamp(seconds: Int64(mktime(&at)), nanoseconds: time.nanoseconds)
    }

    /// The first moment of a day or minute that `moment` reads as its last; otherwise the same.
    static func beginning(_ text: String) -> Timestamp? {
        guard let end = moment(text) else { return nil }
        let isDay = text.utf8.count == 10
        // Without seconds the whole minute is meant.
        let isMinute = !isDay && text.utf8.count { $0 == 0x3A } == 1
        let back: Int64 = isDay ? 86_399 : isMinute ? 59 : 0
        return Timestamp(seconds: end.seconds - back)
    }

    /// The same moment as a word that `SnapshotCatalog.find` reads alike in every time zone.
    static func selector(_ text: String) -> String {
        guard let time = moment(text) else { return text }
        return String(machine(time).prefix(19)) + "Z"
    }

    /// Seconds by which local time is ahead of UTC, at a moment in seconds since 1970.
    static func secondsAheadOfUTC(_ seconds: Int64) -> Int64 {
        var moment = time_t(seconds)
        var at = tm()
        return localtime_r(&moment, &at) == nil ? 0 : Int64(at.tm_gmtoff)
    }

    /// Seconds since Monday's midnight by the clock on the wall, for timetables.
    static func secondOfLocalWeek() -> Int {
        var now = time(nil)
        var at = tm()
        guard localtime_r(&now, &at) != nil else { return 0 }
        // tm counts days from Sunday, a week of work begins on Monday.
        let day = (Int(at.tm_wday) + 6) % 7
        return ((day * 24 + Int(at.tm_hour)) * 60 + Int(at.tm_min)) * 60 + Int(at.tm_sec)
    }

    /// `4.2 s`, `3:07`, `1:02:03`.
    static func duration(milliseconds: Int) -> String {
        if milliseconds < 60_000 {
            let tenths = (milliseconds + 50) / 100
            return "\(tenths / 10).\(tenths % 10) s"
        }
        return clock(seconds: milliseconds / 1000)
    }

    /// `3:07`, `1:02:03`.
    static func clock(seconds: Int) -> String {
        func two(_ value: Int) -> String { Timestamp.padded(value, 2) }
        let (hours, rest) = seconds.quotientAndRemainder(dividingBy: 3600)
        return hours > 0
            ? "\(hours):\(two(rest / 60)):\(two(rest % 60))" : "\(rest / 60):\(two(rest % 60))"
    }
}

/// Numbers as people read them.
enum NumberText {
    /// `1,234,567`.
    static func grouped(_ value: Int) -> String {
        let digits = Array(String(value.magnitude))
        var text = value < 0 ? "-" : ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { text += "," }
            text.append(digit)
        }
        return text
    }

    static func bytes(_ value: Int) -> String { ByteCount(UInt64(max(0, value))).description }

    /// `1 file`, `2 files`.
    static func counted(_ value: Int, _ one: String, _ many: String? = nil) -> String {
        "\(grouped(value)) \(value == 1 ? one : many ?? one + "s")"
    }
}
