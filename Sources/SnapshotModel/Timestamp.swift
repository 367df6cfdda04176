/// A moment in seconds and nanoseconds since 1970; `nanoseconds` counts up from `seconds`, also
/// before 1970.
package struct Timestamp: Hashable, Comparable, Sendable {
    package var seconds: Int64
    package var nanoseconds: UInt32

    package init(seconds: Int64, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    package init(nanosecondsSince1970 value: Int64) {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: 1_000_000_000)
        seconds = remainder < 0 ? quotient - 1 : quotient
        nanoseconds = UInt32(remainder < 0 ? remainder + 1_000_000_000 : remainder)
    }

    package var nanosecondsSince1970: Int64 {
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return seconds < 0 ? .min : .max }
        let (sum, isTooLarge) = product.addingReportingOverflow(Int64(nanoseconds))
        return isTooLarge ? .max : sum
    }

    package static func < (left: Timestamp, right: Timestamp) -> Bool {
        left.seconds != right.seconds
            ? left.seconds < right.seconds : left.nanoseconds < right.nanoseconds
    }

    /// The most that twelve digits tell. Some file systems keep what lies further away; it is
    /// written as this.
    private static let secondsMaximum: Int64 = 999_999_999_999

    /// Appends the decimal number of format.md section 1, with quotes.
    package func write(to out: ByteBuffer) {
        if seconds > Self.secondsMaximum {
            return Timestamp(seconds: Self.secondsMaximum, nanoseconds: 999_999_999).write(to: out)
        }
        if seconds < -Self.secondsMaximum {
            return Timestamp(seconds: -Self.secondsMaximum).write(to: out)
        }
        out.append(0x22)
        var whole = seconds
        var fraction = nanoseconds
        if seconds < 0 {
            out.append(0x2D)
            if fraction > 0 {
                whole += 1
                fraction = 1_000_000_000 - fraction
            }
        }
        out.append(decimal: whole.magnitude)
        out.append(0x2E)
        out.reserve(9)
        var rest = fraction
        var at = 8
        while at >= 0 {
            out.base.storeBytes(
                of: UInt8(truncatingIfNeeded: rest % 10) &+ 48, toByteOffset: out.count + at,
                as: UInt8.self)
            rest /= 10
            at -= 1
        }
        out.count += 9
        out.append(0x22)
    }

    /// Reads what `write` writes, without the quotes; nil for anything else.
    package init?(text: UnsafeRawBufferPointer) {
        var index = 0
        var isNegative = false
        if text.count > 0, text[0] == 0x2D {
            isNegative = true
            index = 1
        }
        var whole: UInt64 = 0
        let start = index
        while index < text.count, text[index] != 0x2E {
            let digit = text[index] &- 48
            guard digit < 10, index - start < 12 else { return nil }
            whole = whole * 10 + UInt64(digit)
            index += 1
        }
        guard index > start, index + 10 == text.count else { return nil }
        var fraction: UInt32 = 0
        for offset in 1...9 {
            let digit = text[index + offset] &- 48
            guard digit < 10 else { return nil }
            fraction = fraction * 10 + UInt32(digit)
        }
        if isNegative {
            seconds = -Int64(whole)
            nanoseconds = 0
            if fraction > 0 {
                seconds -= 1
                nanoseconds = 1_000_000_000 - fraction
            }
        } else {
            seconds = Int64(whole)
            nanoseconds = fraction
        }
    }

    /// Without quotes.
    package var text: String {
        let buffer = ByteBuffer(capacity: 64)
        write(to: buffer)
        return String(decoding: buffer.bytes.dropFirst().dropLast(), as: UTF8.self)
    }

    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard let value = bytes.withUnsafeBytes({ Timestamp(text: $0) }) else { return nil }
        self = value
    }

    /// Year, month, day, hour, minute, second in UTC (the proleptic Gregorian calendar).
    package var civil: (year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) {
        var days = Int(seconds / 86_400)
        var rest = Int(seconds % 86_400)
        if rest < 0 {
            rest += 86_400
            days -= 1
        }
        // Days since 0000-03-01, in eras of 400 years: the year then ends with February and leap
        // days fall last.
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
    }

    /// The moment of a UTC calendar date and time of day.
    package init(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0) {
        let shiftedYear = month <= 2 ? year - 1 : year
        let era = (shiftedYear >= 0 ? shiftedYear : shiftedYear - 399) / 400
        let yearOfEra = shiftedYear - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = era * 146_097 + dayOfEra - 719_468
        self.init(seconds: Int64(days * 86_400 + hour * 3600 + minute * 60 + second))
    }

    /// `YYYYMMDDThhmmssZ`, as object names carry it.
    package var compactUTC: String {
        let at = civil
        return Self.padded(at.year, 4) + Self.padded(at.month, 2) + Self.padded(at.day, 2) + "T"
            + Self.padded(at.hour, 2) + Self.padded(at.minute, 2) + Self.padded(at.second, 2) + "Z"
    }

    package static func padded(_ value: Int, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
