/// systemd's spelling, systemd.time(7).
extension CalendarExpression {
    /// Names for whole expressions.
    private static let names = [
        "minutely": "*-*-* *:*:00", "hourly": "*-*-* *:00:00", "daily": "*-*-* 00:00:00",
        "weekly": "Mon *-*-* 00:00:00", "monthly": "*-*-01 00:00:00",
        "quarterly": "*-01,04,07,10-01 00:00:00", "semiannually": "*-01,07-01 00:00:00",
        "yearly": "*-01-01 00:00:00", "annually": "*-01-01 00:00:00",
    ]
    private static let dayNames = [
        "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
    ]
    static let shortDayNames = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    /// Years that a moment of time can be made of without thought.
    private static let yearRange = 1970...2199

    mutating func read(systemdWords words: [String]) throws(CalendarSyntaxError) {
        if words.count <= 2, let whole = Self.names[words[0].lowercased()] {
            guard words.count == 1 || words[1].uppercased() == "UTC" else {
                throw Self.unknown(words[1])
            }
            isUTC = words.count == 2
            try read(systemdParts: whole.split(separator: " ").map(String.init))
            return
        }
        var words = words
        if words.last?.uppercased() == "UTC" {
            isUTC = true
            words.removeLast()
        }
        try read(systemdParts: words)
    }

    /// Weekdays, date and time, in this order; at least one of them.
    private mutating func read(systemdParts words: [String]) throws(CalendarSyntaxError) {
        var rest = words[...]
        guard !rest.isEmpty else { throw Self.unknown(text) }
        if let first = rest.first, first.utf8.first.map(Self.isLetter) == true {
            weekdays.only(try Self.weekdays(first))
            rest.removeFirst()
        }
        var hasTime = false
        if let date = rest.first, !date.contains(":") {
            try read(date: date)
            rest.removeFirst()
        }
        if let time = rest.first {
            try read(time: time)
            hasTime = true
            rest.removeFirst()
        }
        if let surplus = rest.first { throw Self.unknown(surplus) }
        if !hasTime {
            hours.only(0)
            minutes.only(0)
        }
    }

    private mutating func read(date: String) throws(CalendarSyntaxError) {
        var text = date
        if let tilde = text.lastIndex(of: "~") {
            countsDaysFromEnd = true
            text.replaceSubrange(tilde...tilde, with: "-")
        }
        var parts = text.split(separator: "-", omittingEmptySubsequences: false).map(String.init)
        if parts.count == 2 { parts.insert("*", at: 0) }
        guard parts.count == 3 else { throw Self.unknown(date) }
        if parts[0] != "*" {
            years = Set(try Self.numbers(parts[0], Self.yearRange, "a year"))
        }
        months.only(try Self.numbers(parts[1], 1...12, "a month"))
        guard countsDaysFromEnd else {
            days.only(try Self.numbers(parts[2], 1...31, "a day"))
            return
        }
        if parts[2].hasSuffix("/1"), let number = Int(parts[2].dropLast(2)), days.contains(number) {
            // From that day to the last.
            days.only(Array(1...number))
        } else if parts[2].contains("/") || parts[2].contains("..") || parts[2] == "*" {
            throw CalendarSyntaxError(
                "counts days from the end of a month in a way that is not understood",
                remedy: "'*-*~1' is the last day, and '*-*~7/1' are the last seven")
        } else {
            days.only(try Self.numbers(parts[2], 1...31, "a day"))
        }
    }

    private mutating func read(time: String) throws(CalendarSyntaxError) {
        let parts = time.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard (2...3).contains(parts.count) else { throw Self.unknown(time) }
        hours.only(try Self.numbers(parts[0], 0...23, "an hour"))
        minutes.only(try Self.numbers(parts[1], 0...59, "a minute"))
        if parts.count == 3 { seconds.only(try Self.numbers(parts[2], 0...59, "a second")) }
    }

    /// `*`, or items joined by commas: a number, `A..B`, and either with `/STEP` behind it.
    private static func numbers(
        _ text: String, _ range: ClosedRange<Int>, _ what: String
    ) throws(CalendarSyntaxError) -> [Int] {
        if text == "*" { return Array(range) }
        var numbers: [Int] = []
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let pieces = item.split(separator: "/", omittingEmptySubsequences: false)
            guard pieces.first != "*" else {
                throw CalendarSyntaxError(
                    "has a '\(item)', which systemd does not take",
                    remedy: pieces.count == 2
                        ? "write \(range.lowerBound)/\(pieces[1])"
                        : "a * stands alone between its separators")
            }
            let ends = (pieces.first ?? "").split(separator: "..", omittingEmptySubsequences: false)
            let step = pieces.count == 2 ? Int(pieces[1]) : 1
            guard pieces.count <= 2, ends.count <= 2, let step, step > 0,
                let first = Int(ends[0]), let last = ends.count == 2 ? Int(ends[1]) : first,
                isDigits(ends[0]), isDigits(ends[ends.count - 1])
            else { throw unknown(String(item)) }
            guard range.contains(first), range.contains(last) else {
                throw CalendarSyntaxError(
                    "has \(item) for \(what)",
                    remedy: "\(what) is a number from \(range.lowerBound) to \(range.upperBound)")
            }
            guard first <= last else {
                throw CalendarSyntaxError(
                    "has the range \(item), which ends before it begins",
                    remedy: "write two ranges with a comma between them")
            }
            if ends.count == 1, pieces.count == 1 {
                numbers.append(first)
                continue
            }
            let end = ends.count == 2 ? last : range.upperBound
            guard first + step <= end || ends.count == 2 && pieces.count == 1 else {
                throw CalendarSyntaxError(
                    "has the step \(item), which reaches nothing", remedy: "write \(first) alone")
            }
            numbers += stride(from: first, through: end, by: step)
        }
        return numbers
    }

    private static func weekdays(_ text: String) throws(CalendarSyntaxError) -> [Int] {
        var days: [Int] = []
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = item.split(separator: "..", omittingEmptySubsequences: false)
            guard (1...2).contains(ends.count) else { throw unknown(String(item)) }
            let first = try weekday(ends[0])
            let last = try weekday(ends[ends.count - 1])
            guard first <= last else {
                throw CalendarSyntaxError(
                    "has the days \(item), which go over the end of a week",
                    remedy: "a week begins on Monday; write two ranges with a comma between them")
            }
            days += first...last
        }
        return days
    }

    private static func weekday(_ name: Substring) throws(CalendarSyntaxError) -> Int {
        let name = name.lowercased()
        guard let index = dayNames.firstIndex(where: { $0 == name || $0.prefix(3) == name }) else {
            throw unknown(name)
        }
        return index + 1
    }

    private static func isDigits(_ text: Substring) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (0x30...0x39).contains($0) }
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte | 0x20) }

    static func unknown(_ word: String) -> CalendarSyntaxError {
        CalendarSyntaxError(
            "has '\(word)', which is not understood",
            remedy:
                "write a time such as '02:30', 'Mon..Fri 22:00' or '*-*-01 03:00', or cron's five fields"
        )
    }

    // MARK: - Writing

    /// The expressions of systemd that together mean the same.
    package var systemd: [String] {
        guard isCron else { return [text] }
        let time = "\(Self.list(hours)):\(Self.list(minutes)):00"
        let day = { (days: CalendarField) in "*-\(Self.list(months))-\(Self.list(days)) \(time)" }
        let week = weekdays.numbers.map { Self.shortDayNames[$0 - 1] }.joined(separator: ",") + " "
        if eitherDayIsEnough { return [day(days), week + day(.days)] }
        return [(weekdays.isFull ? "" : week) + day(days)]
    }

    private static func list(_ field: CalendarField) -> String {
        if field.isFull { return "*" }
        return field.numbers.map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ",")
    }
}
