/// A length of time in the words of a calendar: `30d`, `1y6m`, `2h`.
package struct RetentionDuration: Sendable, Hashable, CustomStringConvertible {
    package let years, months, weeks, hours: Int
    /// Without those that `weeks` stands for.
    private let singleDays: Int

    /// Weeks and days together, in days.
    package var days: Int { weeks * 7 + singleDays }

    /// More than a person means; it also keeps every sum within what a moment can be.
    private static let numberMaximum = 10_000

    /// Reads numbers, each with one of the units `y` `m` `w` `d` `h`, the longer unit first and
    /// none twice.
    ///
    /// Nil for everything else, and for a length of nothing.
    package init?(parsing text: some StringProtocol) {
        var numbers = [0, 0, 0, 0, 0]
        var isAfter = -1
        var digits: Int?
        for byte in text.utf8 {
            if byte >= 0x30, byte <= 0x39 {
                let number = (digits ?? 0) * 10 + Int(byte - 0x30)
                guard number <= Self.numberMaximum else { return nil }
                digits = number
                continue
            }
            guard let number = digits, let unit = Array("ymwdh".utf8).firstIndex(of: byte),
                unit > isAfter
            else { return nil }
            numbers[unit] = number
            isAfter = unit
            digits = nil
        }
        guard digits == nil, numbers.contains(where: { $0 > 0 }) else { return nil }
        (years, months, weeks, singleDays, hours) =
            (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])
    }

    /// As it is read.
    package var description: String {
        zip([years, months, weeks, singleDays, hours], ["y", "m", "w", "d", "h"])
            .map { $0.0 > 0 ? "\($0.0)\($0.1)" : "" }.joined()
    }
}
