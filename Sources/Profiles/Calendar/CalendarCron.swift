/// cron's spelling, crontab(5).
extension CalendarExpression {
    private static let names = [
        "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
        "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *",
        "@annually": "0 0 1 1 *",
    ]
    private static let monthNames = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ]
    private static let weekdayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

    /// Whether the expression is written as cron has it.
    var isCron: Bool {
        text.split(separator: " ").count == 5 || text.drop { $0 == " " }.hasPrefix("@")
    }

    mutating func read(cronName name: String) throws(CalendarSyntaxError) {
        guard let fields = Self.names[name.lowercased()] else {
            throw CalendarSyntaxError(
                "is no name of a time",
                remedy: "write one of \(Self.names.keys.sorted().joined(separator: " "))")
        }
        try read(cronFields: fields.split(separator: " ").map(String.init))
    }

    mutating func read(cronFields words: [String]) throws(CalendarSyntaxError) {
        minutes.only(try Self.numbers(words[0], 0...59, "a minute"))
        hours.only(try Self.numbers(words[1], 0...23, "an hour"))
        days.only(try Self.numbers(words[2], 1...31, "a day"))
        months.only(try Self.numbers(words[3], 1...12, "a month", names: Self.monthNames))
        // Both 0 and 7 are Sunday.
        let week = try Self.numbers(words[4], 0...7, "a day of the week", names: Self.weekdayNames)
        weekdays.only(week.map { $0 == 0 ? 7 : $0 })
        // A field that begins with a star restricts beside the other, not instead of it.
        eitherDayIsEnough =
            !words[2].hasPrefix("*") && !words[4].hasPrefix("*")
            && !days.isFull && !weekdays.isFull
    }

    /// Items joined by commas: `*`, a number or a name, `A-B`, and `*` or a range with `/STEP`.
    private static func numbers(
        _ text: String, _ range: ClosedRange<Int>, _ what: String, names: [String] = []
    ) throws(CalendarSyntaxError) -> [Int] {
        var numbers: [Int] = []
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let pieces = item.split(separator: "/", omittingEmptySubsequences: false)
            let ends = (pieces.first ?? "").split(separator: "-", omittingEmptySubsequences: false)
            let isRange = ends.count == 2 || pieces.first == "*"
            let step = pieces.count == 2 ? Int(pieces[1]) : 1
            guard pieces.count == 1 || pieces.count == 2 && isRange, ends.count <= 2,
                let step, step > 0
            else { throw unknown(String(item)) }
            if pieces[0] == "*" {
                // The week of a star has seven days, not eight.
                let last = range.upperBound == 7 ? 6 : range.upperBound
                numbers += stride(from: range.lowerBound, through: last, by: step)
                continue
            }
            func number(_ word: Substring) throws(CalendarSyntaxError) -> Int {
                if let index = names.firstIndex(of: word.lowercased()) {
                    return index + (names.count == 12 ? 1 : 0)
                }
                guard !word.isEmpty, word.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                    let number = Int(word), range.contains(number)
                else {
                    throw CalendarSyntaxError(
                        "has \(item) for \(what)",
                        remedy:
                            "\(what) is a number from \(range.lowerBound) to \(range.upperBound)")
                }
                return number
            }
            let (first, last) = (try number(ends[0]), try number(ends[ends.count - 1]))
            guard first <= last else {
                throw CalendarSyntaxError(
                    "has the range \(item), which ends before it begins",
                    remedy: "write two ranges with a comma between them")
            }
            numbers += stride(from: first, through: last, by: step)
        }
        return numbers
    }

    // MARK: - Writing

    /// The five fields that mean the same; nil where cron cannot say it.
    package var cron: String? {
        if isCron, !text.contains("@") { return text.split(separator: " ").joined(separator: " ") }
        // Where both days are restricted cron takes either, and systemd only both together.
        guard years == nil, !countsDaysFromEnd, !isUTC, seconds.numbers == [0],
            days.isFull || weekdays.isFull
        else { return nil }
        let week =
            weekdays.isFull ? "*" : weekdays.numbers.map { "\($0 % 7)" }.joined(separator: ",")
        return
            "\(Self.list(minutes)) \(Self.list(hours)) \(Self.list(days)) \(Self.list(months)) \(week)"
    }

    private static func list(_ field: CalendarField) -> String {
        field.isFull ? "*" : field.numbers.map { "\($0)" }.joined(separator: ",")
    }
}
