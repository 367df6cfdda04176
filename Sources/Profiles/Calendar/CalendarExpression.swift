/// When a job runs, as a profile says it: a calendar expression of systemd, or the five fields of
/// crontab(5).
///
/// Five words, or one that begins with `@`, are cron's; everything else is systemd's. Only what both
/// this program and systemd understand alike is taken, so that a timer and the daemon never differ.
package struct CalendarExpression: Sendable, Equatable {
    /// As it was written.
    package let text: String
    /// Nil for every year.
    var years: Set<Int>?
    var months = CalendarField.months
    var days = CalendarField.days
    /// Whether days count from the end of the month, the last being 1.
    var countsDaysFromEnd = false
    /// Monday is 1.
    var weekdays = CalendarField.weekdays
    /// Whether a day of the month or a day of the week is enough, as cron has it where both are
    /// restricted.
    var eitherDayIsEnough = false
    var hours = CalendarField.hours
    var minutes = CalendarField.minutes
    var seconds = CalendarField.seconds
    /// Whether times are those of UTC and not of the host's time zone.
    var isUTC = false

    /// - Throws: What is wrong with it, and what to write instead.
    package init(parsing text: String) throws(CalendarSyntaxError) {
        self.text = text
        seconds.only(0)
        let words = text.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
        guard !words.isEmpty else {
            throw CalendarSyntaxError("names no time", remedy: "write a time such as 02:30")
        }
        if words.count == 1, words[0].hasPrefix("@") {
            try read(cronName: words[0])
        } else if words.count == 5 {
            try read(cronFields: words)
        } else {
            try read(systemdWords: words)
        }
    }
}

/// What is wrong with a calendar expression; finishes a sentence that the expression begins.
package struct CalendarSyntaxError: Error, Equatable {
    package let reason: String
    package let remedy: String

    init(_ reason: String, remedy: String) {
        self.reason = reason
        self.remedy = remedy
    }
}

/// Some of the numbers that a part of a date or time may have.
struct CalendarField: Sendable, Equatable {
    let range: ClosedRange<Int>
    private var bits: UInt64

    init(_ range: ClosedRange<Int>) {
        self.range = range
        bits = range.reduce(0) { $0 | 1 << UInt64($1) }
    }

    static let months = CalendarField(1...12)
    static let days = CalendarField(1...31)
    static let weekdays = CalendarField(1...7)
    static let hours = CalendarField(0...23)
    static let minutes = CalendarField(0...59)
    static let seconds = CalendarField(0...59)

    var isFull: Bool { bits == CalendarField(range).bits }
    var numbers: [Int] { range.filter(contains) }

    func contains(_ number: Int) -> Bool { bits & 1 << UInt64(number) != 0 }

    mutating func only(_ numbers: Int...) { only(numbers) }
    mutating func only(_ numbers: [Int]) {
        bits = numbers.reduce(0) { $0 | 1 << UInt64($1) }
    }
}
