/// A place in a manifest line that moves forward over what the writer always writes alike.
///
/// Every step says whether the bytes were as expected and never looks past the end. What it takes is
/// a part of what `JSONScanner` takes, with the same meaning: a line that it refuses may still be an
/// entry, in another order or with escapes, and goes the slow way.
struct LineCursor {
    private let base: UnsafeRawPointer
    private let end: Int
    private var at = 0

    /// Begins at the first byte of `line`, whose LF counts no more.
    init?(_ line: UnsafeRawBufferPointer) {
        guard let base = line.baseAddress, line.count > 0 else { return nil }
        self.base = base
        end =
            base.load(fromByteOffset: line.count - 1, as: UInt8.self) == 0x0A
            ? line.count - 1 : line.count
    }

    var position: Int { at }
    var isAtEnd: Bool { at == end }

    @inline(__always)
    private func byte(_ index: Int) -> UInt8 { base.load(fromByteOffset: index, as: UInt8.self) }

    @inline(__always)
    private func eight(_ index: Int) -> UInt64 {
        UInt64(littleEndian: base.loadUnaligned(fromByteOffset: index, as: UInt64.self))
    }

    /// Passes `text` where it stands here.
    @inline(__always)
    mutating func take(_ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        guard at + count <= end else { return false }
        let expected = UnsafeRawPointer(text.utf8Start)
        var index = 0
        // The count is known where this is compiled, so these loops are a few comparisons.
        while index + 8 <= count {
            guard
                expected.loadUnaligned(fromByteOffset: index, as: UInt64.self)
                    == base.loadUnaligned(fromByteOffset: at + index, as: UInt64.self)
            else { return false }
            index += 8
        }
        while index < count {
            guard expected.load(fromByteOffset: index, as: UInt8.self) == byte(at + index) else {
                return false
            }
            index += 1
        }
        at += count
        return true
    }

    /// Whether the line ends with `text`.
    @inline(__always)
    func endsWith(_ text: StaticString) -> Bool {
        guard end >= text.utf8CodeUnitCount else { return false }
        var tail = self
        tail.at = end - text.utf8CodeUnitCount
        return tail.take(text)
    }

    /// A decimal number of at most 19 digits.
    @inline(__always)
    mutating func number() -> UInt64? {
        var value: UInt64 = 0
        let start = at
        while at < end {
            let digit = byte(at) &- 48
            guard digit < 10 else { break }
            value = value &* 10 &+ UInt64(digit)
            at += 1
        }
        return at > start && at - start <= 19 ? value : nil
    }

    @inline(__always)
    mutating func word() -> UInt32? {
        guard let value = number() else { return nil }
        return UInt32(exactly: value)
    }

    /// Up to four octal digits and the quote behind them.
    @inline(__always)
    mutating func octal() -> UInt32? {
        var value: UInt32 = 0
        let start = at
        while at < end {
            let digit = byte(at) &- 48
            guard digit < 8 else { break }
            value = value << 3 | UInt32(digit)
            at += 1
        }
        guard at > start, at - start <= 4, at < end, byte(at) == 0x22 else { return nil }
        at += 1
        return value
    }

    /// A text up to its quote, which is passed. Nil where it has escapes or is not UTF-8.
    @inline(__always)
    mutating func text() -> UnsafeRawBufferPointer? {
        let start = at
        var seen: UInt64 = 0
        while at + 8 <= end {
            let word = eight(at)
            if JSONScanner.holdsSpecial(word) { break }
            seen |= word
            at += 8
        }
        while at < end {
            let byte = byte(at)
            if byte == 0x22 {
                let text = UnsafeRawBufferPointer(start: base + start, count: at - start)
                at += 1
                if seen & 0x8080_8080_8080_8080 != 0, !UTF8Text.isValid(text) { return nil }
                return text
            }
            if byte < 0x20 || byte == 0x5C { return nil }
            seen |= UInt64(byte)
            at += 1
        }
        return nil
    }

    /// A time up to its quote, which is passed.
    @inline(__always)
    mutating func time() -> Timestamp? {
        // Ten digits of seconds, from 2001 to 2286: eight of them and then two, likewise the nine
        // of the fraction.
        if at + 21 <= end, byte(at + 10) == 0x2E, byte(at + 20) == 0x22,
            let high = Self.digits(eight(at)), let fraction = Self.digits(eight(at + 11))
        {
            let tens = byte(at + 8) &- 48
            let ones = byte(at + 9) &- 48
            let last = byte(at + 19) &- 48
            guard tens < 10, ones < 10, last < 10 else { return nil }
            at += 21
            return Timestamp(
                seconds: Int64(high) &* 100 &+ Int64(tens) &* 10 &+ Int64(ones),
                nanoseconds: UInt32(truncatingIfNeeded: fraction) &* 10 &+ UInt32(last))
        }
        let start = at
        while at < end, byte(at) != 0x22 { at += 1 }
        guard at < end else { return nil }
        let value = Timestamp(text: UnsafeRawBufferPointer(start: base + start, count: at - start))
        at += 1
        return value
    }

    /// The number that eight digits make, the first in the lowest byte; nil where one is none.
    /// Neighbours are put together in pairs, the pairs in fours, the fours in one.
    @inline(__always)
    private static func digits(_ word: UInt64) -> UInt64? {
        let highs: UInt64 = 0xF0F0_F0F0_F0F0_F0F0
        let threes: UInt64 = 0x3030_3030_3030_3030
        guard word & highs == threes, (word &+ 0x0606_0606_0606_0606) & highs == threes else {
            return nil
        }
        var value = word & 0x0F0F_0F0F_0F0F_0F0F
        value = (value &* 10 &+ value >> 8) & 0x00FF_00FF_00FF_00FF
        value = (value &* 100 &+ value >> 16) & 0x0000_FFFF_0000_FFFF
        return (value &* 10_000 &+ value >> 32) & 0xFFFF_FFFF
    }

    /// Thirty-two lower-case hex digits.
    @inline(__always)
    mutating func hexPair() -> (UInt64, UInt64)? {
        guard at + 32 <= end else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        guard Hex.word(base + at, &high), Hex.word(base + at + 16, &low) else { return nil }
        at += 32
        return (high, low)
    }
}
