/// A number of bytes, as a person writes and reads it.
///
/// Reading follows the convention of GNU tools: a letter alone or with `iB` counts in powers of
/// 1024 (`100M` = `100MiB` = 104,857,600), a letter with `B` in powers of 1000 (`100MB` =
/// 100,000,000). Writing always uses the powers of 1000, with their unambiguous units (`1.4 GB`),
/// so what was written can be read again.
package struct ByteCount: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let bytes: UInt64

    package init(_ bytes: UInt64) {
        self.bytes = bytes
    }

    /// Reads a size: digits, perhaps a decimal fraction, perhaps a unit in either case: `B`, or one
    /// of `k M G T P E` alone, with `B` or with `iB`. Spaces may stand before the unit.
    ///
    /// A fraction of a byte is dropped. Nil for everything else, and for more than 2^64 - 1 bytes.
    package init?(parsing text: some StringProtocol) {
        var rest = text.utf8[...]
        var digits: UInt64 = 0
        var divisor: UInt64 = 1
        var digitCount = 0
        var isFraction = false
        while let byte = rest.first {
            if byte == UInt8(ascii: "."), !isFraction, digitCount > 0 {
                isFraction = true
            } else if (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
                let (tens, isTooLarge) = digits.multipliedReportingOverflow(by: 10)
                let (sum, isStillTooLarge) = tens.addingReportingOverflow(
                    UInt64(byte - UInt8(ascii: "0")))
                if isTooLarge || isStillTooLarge { return nil }
                digits = sum
                digitCount += 1
                if isFraction {
                    let (scale, isTooFine) = divisor.multipliedReportingOverflow(by: 10)
                    if isTooFine { return nil }
                    divisor = scale
                }
            } else {
                break
            }
            rest.removeFirst()
        }
        guard digitCount > 0, !isFraction || divisor > 1 else { return nil }
        while rest.first == UInt8(ascii: " ") { rest.removeFirst() }
        guard let factor = Self.factor(of: rest) else { return nil }
        let product = digits.multipliedFullWidth(by: factor)
        guard product.high < divisor else { return nil }
        bytes = divisor.dividingFullWidth(product).quotient
    }

    /// How many bytes a unit stands for; 1 where there is none.
    private static func factor(of unit: some Collection<UInt8>) -> UInt64? {
        // ASCII letters to lower case; nothing else becomes a letter of the table by it.
        let unit = unit.map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }
        let letters = Array("kmgtpe".utf8)
        guard let first = unit.first else { return 1 }
        if unit == [UInt8(ascii: "b")] { return 1 }
        guard let power = letters.firstIndex(of: first) else { return nil }
        let step: UInt64
        switch String(decoding: unit.dropFirst(), as: UTF8.self) {
        case "", "ib": step = 1024
        case "b": step = 1000
        default: return nil
        }
        return (0...power).reduce(1) { product, _ in product * step }
    }

    /// The number with its unit: `0 B`, `999 B`, `1.4 GB`, `14.2 GB`, `142 GB`. Rounded to the
    /// nearest; below 100 units with one decimal.
    package var description: String {
        if bytes < 1000 { return "\(bytes) B" }
        let units = ["kB", "MB", "GB", "TB", "PB", "EB"]
        var scale: UInt64 = 1000
        for (index, unit) in units.enumerated() {
            let tenths = Self.rounded(bytes, to: scale / 10)
            if tenths < 1000 { return "\(tenths / 10).\(tenths % 10) \(unit)" }
            let whole = Self.rounded(bytes, to: scale)
            // What rounds to a thousand of these is one of the next.
            if whole < 1000 || index == units.count - 1 { return "\(whole) \(unit)" }
            scale *= 1000
        }
        return "\(bytes) B"
    }

    private static func rounded(_ value: UInt64, to unit: UInt64) -> UInt64 {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: unit)
        return remainder >= unit - remainder ? quotient + 1 : quotient
    }

    package static func < (left: ByteCount, right: ByteCount) -> Bool { left.bytes < right.bytes }
}
