/// How many bytes a second may flow, by the hour of the local week.
///
/// Written as one rate (`20MB/s`), or as rates with the times for which they hold, of which the
/// first that fits counts: `mon-fri 08:00-18:00 2MB/s, 18:00-23:00 10MB/s, else unlimited`. A time
/// that ends before it begins runs past midnight into the next day. Where nothing fits there is no
/// limit. A rate may also be given in bits, as lines are sold: `20Mbit/s`.
package struct RateTimetable: Sendable, Equatable, CustomStringConvertible {
    private struct Entry: Equatable {
        /// Bit 0 for Monday.
        var days: UInt8
        /// Minutes of the day; the end is not part of it.
        var from: Int
        var to: Int
        var rate: Int?

        func holds(day: Int, minute: Int) -> Bool {
            if from < to { return has(day) && minute >= from && minute < to }
            return (has(day) && minute >= from) || (has((day + 6) % 7) && minute < to)
        }

        private func has(_ day: Int) -> Bool { days >> day & 1 == 1 }
    }

    private var entries: [Entry] = []
    private var otherwise: Int?
    /// As it was written.
    package let description: String

    /// Seconds from one Monday's midnight to the next.
    package static let secondsOfWeek = 7 * 86_400

    package static let unlimited = RateTimetable(bytesPerSecond: nil)

    package init(bytesPerSecond: Int?) {
        otherwise = bytesPerSecond
        description = bytesPerSecond.map { "\($0)B/s" } ?? "unlimited"
    }

    /// Reads a rate or a timetable.
    ///
    /// - Parameter bytes: Reads a number of bytes with its unit, such as `2MB`; nil for what is
    ///   none.
    package init(
        parsing text: String, bytes: (Substring) -> UInt64?
    ) throws(RateSyntaxError) {
        description = text
        let items = text.split(separator: ",", omittingEmptySubsequences: false)
        for (index, item) in items.enumerated() {
            let words = item.lowercased().split(separator: " ")[...]
            guard let first = words.first else {
                throw RateSyntaxError(
                    items.count == 1 ? "it is empty" : "there is nothing between two commas")
            }
            let isLast = index == items.count - 1
            if first == "else" || (items.count == 1 && Self.isRate(first)) {
                guard isLast else {
                    throw RateSyntaxError("'else' must come last")
                }
                otherwise = try Self.rate(first == "else" ? words.dropFirst() : words, bytes)
            } else {
                entries.append(try Self.entry(words, bytes))
            }
        }
    }

    /// The rate that holds at a moment of the local week, in bytes a second; nil for no limit.
    ///
    /// - Parameter second: Seconds since Monday's midnight, by the clock on the wall.
    package func bytesPerSecond(atSecondOfWeek second: Int) -> Int? {
        let week = Self.secondsOfWeek
        let minute = ((second % week + week) % week) / 60
        let entry = entries.first { $0.holds(day: minute / 1_440, minute: minute % 1_440) }
        return entry.map(\.rate) ?? otherwise
    }

    // MARK: - Reading

    private static let dayNames = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    /// Less would keep a bundle on its way for most of a day.
    private static let leastBytesPerSecond = 1_000

    private static func isRate(_ word: Substring) -> Bool {
        word == "unlimited" || (word.first?.isNumber == true && !word.contains(":"))
    }

    private static func entry(
        _ words: ArraySlice<Substring>, _ bytes: (Substring) -> UInt64?
    ) throws(RateSyntaxError) -> Entry {
        var rest = words
        var entry = Entry(days: 0x7f, from: 0, to: 1_440, rate: nil)
        guard let first = rest.first else { return entry }
        if first.first?.isNumber != true {
            entry.days = try days(first)
            rest.removeFirst()
        }
        if let word = rest.first, word.contains(":") {
            (entry.from, entry.to) = try times(word)
            rest.removeFirst()
        } else if rest.count == words.count {
            throw RateSyntaxError("it does not say when '\(first)' holds")
        }
        entry.rate = try rate(rest, bytes)
        return entry
    }

    private static func days(_ word: Substring) throws(RateSyntaxError) -> UInt8 {
        let names = word.split(separator: "-", omittingEmptySubsequences: false)
        let numbers = names.map { name in dayNames.firstIndex { $0 == name } }
        guard (1...2).contains(names.count), let first = numbers[0],
            let last = numbers[names.count - 1]
        else {
            throw RateSyntaxError("'\(word)' is no day; days are mon tue wed thu fri sat sun")
        }
        var days: UInt8 = 0
        var day = first
        while true {
            days |= 1 << day
            if day == last { return days }
            day = (day + 1) % 7
        }
    }

    private static func times(_ word: Substring) throws(RateSyntaxError) -> (Int, Int) {
        let ends = word.split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, let from = minute(ends[0]), let to = minute(ends[1]), from < 1_440
        else {
            throw RateSyntaxError("'\(word)' is no time; times are written 08:00-18:00")
        }
        guard from != to else {
            throw RateSyntaxError("'\(word)' ends when it begins; a whole day is 00:00-24:00")
        }
        return (from, to)
    }

    private static func minute(_ text: Substring) -> Int? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ $0.allSatisfy(\.isASCII) && $0.count <= 2 }),
            let hour = Int(parts[0]), let minute = Int(parts[1]), parts[1].count == 2,
            (0...23).contains(hour) && (0...59).contains(minute) || (hour == 24 && minute == 0)
        else { return nil }
        return hour * 60 + minute
    }

    private static func rate(
        _ words: ArraySlice<Substring>, _ bytes: (Substring) -> UInt64?
    ) throws(RateSyntaxError) -> Int? {
        let text = words.joined(separator: " ")
        guard !text.isEmpty else { throw RateSyntaxError("a rate is missing") }
        if text == "unlimited" { return nil }
        var amount = text.hasSuffix("/s") ? text.dropLast(2) : text[...]
        var bitsInUnit: UInt64 = 1
        if amount.hasSuffix("bit") {
            amount = amount.dropLast(2)
            bitsInUnit = 8
        }
        guard let count = bytes(amount).map({ $0 / bitsInUnit }), let rate = Int(exactly: count)
        else {
            throw RateSyntaxError("'\(text)' is no rate; rates are written 20MB/s")
        }
        guard rate >= leastBytesPerSecond else {
            throw RateSyntaxError(
                "'\(text)' is less than 1 kB/s, at which nothing would ever be done")
        }
        return rate
    }
}

/// Why a text is no rate and no timetable of rates.
package struct RateSyntaxError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What is wrong with it.
    package let description: String

    fileprivate init(_ description: String) { self.description = description }

    /// One sentence: how it is written.
    package var remedy: String {
        "write a rate such as 20MB/s, or a timetable such as 'mon-fri 08:00-18:00 2MB/s, "
            + "18:00-23:00 10MB/s, else unlimited'"
    }
}
