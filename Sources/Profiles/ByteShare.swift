package import SnapshotModel

/// A part of a whole that is counted in bytes: `5%`, `1/30` or a size of its own, `2GiB`.
package struct ByteShare: Sendable, Equatable, CustomStringConvertible {
    package enum Amount: Sendable, Equatable {
        /// 0 to 100.
        case percent(Double)
        case fraction(Int, of: Int)
        case bytes(ByteCount)
    }

    package let amount: Amount
    /// As it was written.
    package let description: String

    package static let nothing = ByteShare(percent: 0)

    package init(percent: Int) {
        precondition((0...100).contains(percent))
        amount = .percent(Double(percent))
        description = "\(percent)%"
    }

    /// Nil for what is none of the three, and for more than the whole.
    package init?(parsing text: String) {
        description = text
        if text.hasSuffix("%") {
            let digits = text.dropLast()
            // `Double` would read "nan", "0x1" and "1e1" as well.
            guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == 0x2E }),
                let percent = Double(digits), (0...100).contains(percent)
            else { return nil }
            amount = .percent(percent)
            return
        }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        if parts.count == 2 {
            guard parts.allSatisfy({ $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }),
                let part = Int(parts[0]), let whole = Int(parts[1]), whole > 0, part <= whole
            else { return nil }
            amount = .fraction(part, of: whole)
            return
        }
        guard let bytes = ByteCount(parsing: text), text.utf8.last.map(Self.isLetter) == true
        else { return nil }
        amount = .bytes(bytes)
    }

    package var isNothing: Bool {
        switch amount {
        case .percent(let percent): percent == 0
        case .fraction(let part, _): part == 0
        case .bytes(let bytes): bytes.bytes == 0
        }
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte | 0x20) }
}
