import SnapshotModel

/// The forms in which servers write a time, read as seconds since 1970.
enum StoreTime {
    /// `2026-11-26T19:32:36.123Z`, with or without a fraction, as S3 lists it. Nil for anything
    /// else.
    static func seconds(iso8601 text: String) -> Int64? {
        let parts = text.split(separator: "T", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[1].last == "Z" || parts[1].hasSuffix("+00:00") else {
            return nil
        }
        let date = parts[0].split(separator: "-", omittingEmptySubsequences: false)
        let time = parts[1].prefix { $0 != "." && $0 != "Z" && $0 != "+" }
            .split(separator: ":", omittingEmptySubsequences: false)
        guard date.count == 3, time.count == 3, let year = number(date[0], digits: 4),
            let month = number(date[1], digits: 2), let day = number(date[2], digits: 2)
        else { return nil }
        return seconds(year, month, day, time)
    }

    /// `2026-11-26T19:32:36Z`.
    static func iso8601(_ seconds: Int64) -> String {
        let at = Timestamp(seconds: seconds).civil
        let two = { (value: Int) in Timestamp.padded(value, 2) }
        return "\(Timestamp.padded(at.year, 4))-\(two(at.month))-\(two(at.day))"
            + "T\(two(at.hour)):\(two(at.minute)):\(two(at.second))Z"
    }

    /// `Thu, 26 Nov 2026 19:32:36 GMT`, as the header `Date` has it (RFC 9110, section 5.6.7, the
    /// form that is to be sent). Nil for anything else.
    static func seconds(httpDate text: String) -> Int64? {
        let parts = text.split(separator: " ")
        guard parts.count == 6, parts[5] == "GMT" || parts[5] == "UTC",
            let day = number(parts[1], digits: 2),
            let month = months.firstIndex(of: parts[2].lowercased()),
            let year = number(parts[3], digits: 4)
        else { return nil }
        let time = parts[4].split(separator: ":", omittingEmptySubsequences: false)
        return time.count == 3 ? seconds(year, month + 1, day, time) : nil
    }

    private static func seconds(
        _ year: Int, _ month: Int, _ day: Int, _ time: [Substring]
    ) -> Int64? {
        guard let hour = number(time[0], digits: 2), let minute = number(time[1], digits: 2),
            let second = number(time[2], digits: 2), year >= 1970, (1...12).contains(month),
            (1...31).contains(day), hour < 24, minute < 60, second <= 60
        else { return nil }
        return Timestamp(
            year: year, month: month, day: day, hour: hour, minute: minute, second: second
        ).seconds
    }

    private static func number(_ text: Substring, digits: Int) -> Int? {
        guard text.utf8.count == digits, text.utf8.allSatisfy({ (48...57).contains($0) }) else {
            return nil
        }
        return Int(text)
    }

    private static let months = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ]
}
