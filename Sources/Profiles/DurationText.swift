/// Lengths of time as a person writes them: `90s`, `5m`, `2h`, `1d12h`.
package enum DurationText {
    private static let units: [(letter: UInt8, seconds: Int)] = [
        (UInt8(ascii: "w"), 7 * 86_400), (UInt8(ascii: "d"), 86_400), (UInt8(ascii: "h"), 3_600),
        (UInt8(ascii: "m"), 60), (UInt8(ascii: "s"), 1),
    ]
    /// A century. It keeps every sum with a moment of time within its number.
    private static let maximumSeconds = 36_525 * 86_400

    /// Reads numbers, each with one of the units `w` `d` `h` `m` `s`, the longer unit first and none
    /// twice, and gives seconds. A day has 24 hours.
    ///
    /// Nil for everything else, and for more than a hundred years.
    package static func seconds(parsing text: String) -> Int? {
        var total = 0
        var digits: Int?
        var rest = units[...]
        for byte in text.utf8 {
            if (0x30...0x39).contains(byte) {
                let number = (digits ?? 0) * 10 + Int(byte - 0x30)
                guard number <= maximumSeconds else { return nil }
                digits = number
                continue
            }
            guard let number = digits, let index = rest.firstIndex(where: { $0.letter == byte })
            else { return nil }
            total += number * rest[index].seconds
            guard total <= maximumSeconds else { return nil }
            rest = rest[(index + 1)...]
            digits = nil
        }
        return digits == nil && !text.isEmpty ? total : nil
    }

    /// As it is read: in one unit where that is short, such as `36h`.
    package static func text(seconds: Int) -> String {
        // Weeks are read, but "14d" is what people say of two.
        let units = units.dropFirst()
        for unit in units where seconds >= unit.seconds && seconds % unit.seconds == 0 {
            if seconds / unit.seconds < 100 || unit.letter == UInt8(ascii: "d") {
                return "\(seconds / unit.seconds)\(Character(UnicodeScalar(unit.letter)))"
            }
            break
        }
        var rest = seconds
        var text = ""
        for unit in units where rest >= unit.seconds {
            text += "\(rest / unit.seconds)\(Character(UnicodeScalar(unit.letter)))"
            rest %= unit.seconds
        }
        return text.isEmpty ? "0s" : text
    }
}
