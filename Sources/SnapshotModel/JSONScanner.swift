/// Walks over the fields of one JSON object in place: no copies, no allocation. What it hands out
/// are ranges of the input.
///
/// Meant for lines that batchsync itself writes, read as if an adversary had: every step is
/// bounds-checked, nesting is bounded, and anything but well-formed JSON makes `isBroken` true.
package struct JSONScanner {
    package enum Kind { case text, number, array, object, literal }

    /// A value: where it stands, without the quotes for a text. `hasEscapes` says that a text must
    /// be decoded.
    package struct Value {
        package let kind: Kind
        package let start: Int
        package let end: Int
        package let hasEscapes: Bool
        package var range: Range<Int> { start..<end }
    }

    package let bytes: UnsafeRawBufferPointer
    package var position: Int
    package private(set) var isBroken = false

    package init(_ bytes: UnsafeRawBufferPointer, at position: Int = 0) {
        self.bytes = bytes
        self.position = position
    }

    @inline(__always)
    private mutating func skipSpace() {
        while position < bytes.count {
            let byte = bytes[position]
            guard byte == 0x20 || byte == 0x09 || byte == 0x0D || byte == 0x0A else { return }
            position += 1
        }
    }

    @inline(__always)
    private mutating func take(_ byte: UInt8) -> Bool {
        skipSpace()
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    /// Enters `{` or `[`.
    package mutating func enter(_ bracket: UInt8) -> Bool {
        if take(bracket) { return true }
        isBroken = true
        return false
    }

    /// The next field of an object; nil at its end or where the text is broken. A key with escapes
    /// comes as it stands.
    package mutating func nextField(isFirst: Bool) -> (key: Range<Int>, value: Value)? {
        if take(0x7D) { return nil }
        if !isFirst, !take(0x2C) { return broken() }
        guard let key = text(), take(0x3A), let value = value() else { return broken() }
        return (key.range, value)
    }

    /// The next element of an array; nil at its end or where the text is broken.
    package mutating func nextElement(isFirst: Bool) -> Value? {
        if take(0x5D) { return nil }
        if !isFirst, !take(0x2C) { return broken() }
        guard let value = value() else { return broken() }
        return value
    }

    /// Whether nothing but white space follows.
    package mutating func isAtEnd() -> Bool {
        skipSpace()
        return position == bytes.count
    }

    private mutating func broken<T>() -> T? {
        isBroken = true
        return nil
    }

    private mutating func text() -> Value? {
        guard take(0x22), let base = bytes.baseAddress else { return nil }
        let start = position
        let end = bytes.count
        var at = start
        var hasEscapes = false
        while at < end {
            // Eight bytes at once as long as none of them is a quote, a backslash or a control
            // character.
            while at + 8 <= end {
                let word = base.loadUnaligned(fromByteOffset: at, as: UInt64.self)
                if Self.holdsSpecial(word) { break }
                at += 8
            }
            guard at < end else { break }
            let byte = base.load(fromByteOffset: at, as: UInt8.self)
            if byte == 0x22 {
                position = at + 1
                return Value(kind: .text, start: start, end: at, hasEscapes: hasEscapes)
            }
            if byte < 0x20 { return nil }
            if byte == 0x5C {
                hasEscapes = true
                at += 1
            }
            at += 1
        }
        return nil
    }

    /// Whether one of the eight bytes is `"`, `\` or below 0x20 (the classic test for a zero byte,
    /// three times).
    @inline(__always)
    static func holdsSpecial(_ word: UInt64) -> Bool {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let highs: UInt64 = 0x8080_8080_8080_8080
        let quote = word ^ (ones &* 0x22)
        let slash = word ^ (ones &* 0x5C)
        let found =
            ((quote &- ones) & ~quote) | ((slash &- ones) & ~slash)
            | ((word &- ones &* 0x20) & ~word)
        return found & highs != 0
    }

    package mutating func value() -> Value? {
        skipSpace()
        guard position < bytes.count else { return broken() }
        switch bytes[position] {
        case 0x22: return text() ?? broken()
        case 0x7B, 0x5B: return nested() ?? broken()
        case 0x2D, 0x30...0x39:
            let start = position
            position += 1
            while position < bytes.count {
                switch bytes[position] {
                case 0x30...0x39, 0x2E, 0x2B, 0x2D, 0x45, 0x65: position += 1
                default: return Value(kind: .number, start: start, end: position, hasEscapes: false)
                }
            }
            return Value(kind: .number, start: start, end: position, hasEscapes: false)
        case 0x66, 0x6E, 0x74:
            let start = position
            while position < bytes.count, (0x61...0x7A).contains(bytes[position]) { position += 1 }
            let length = position - start
            let rest = UnsafeRawBufferPointer(rebasing: bytes[start..<position])
            for literal in ["true", "false", "null"] as [StaticString]
            where literal.utf8CodeUnitCount == length
                && Memory.equal(
                    rest, UnsafeRawBufferPointer(start: literal.utf8Start, count: length))
            {
                return Value(kind: .literal, start: start, end: position, hasEscapes: false)
            }
            return broken()
        default: return broken()
        }
    }

    /// Skips an array or object whole. Brackets are matched by count and kind with a bounded stack
    /// of bits.
    private mutating func nested() -> Value? {
        let start = position
        let kind: Kind = bytes[position] == 0x7B ? .object : .array
        var isObject: UInt64 = 0
        var depth = 0
        while position < bytes.count {
            switch bytes[position] {
            case 0x22:
                guard text() != nil else { return nil }
                continue
            case 0x7B, 0x5B:
                guard depth < 64 else { return nil }
                isObject = isObject << 1 | (bytes[position] == 0x7B ? 1 : 0)
                depth += 1
            case 0x7D, 0x5D:
                guard depth > 0, (isObject & 1 == 1) == (bytes[position] == 0x7D) else {
                    return nil
                }
                isObject >>= 1
                depth -= 1
                if depth == 0 {
                    position += 1
                    return Value(kind: kind, start: start, end: position, hasEscapes: false)
                }
            default: break
            }
            position += 1
        }
        return nil
    }

    // MARK: Values out of ranges

    package func slice(_ value: Value) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[value.start..<value.end])
    }

    package func slice(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[range])
    }

    /// A decimal integer without sign, below 2^63.
    package func integer(_ value: Value) -> UInt64? {
        guard value.kind == .number, value.end - value.start <= 19 else { return nil }
        var result: UInt64 = 0
        for index in value.start..<value.end {
            let digit = bytes[index] &- 48
            guard digit < 10 else { return nil }
            let (product, overflow) = result.multipliedReportingOverflow(by: 10)
            if overflow { return nil }
            result = product &+ UInt64(digit)
        }
        guard result <= UInt64(Int64.max) else { return nil }
        return result
    }

    /// The decoded bytes of a text.
    package func text(_ value: Value) -> [UInt8]? {
        guard value.kind == .text else { return nil }
        let raw = slice(value)
        if !value.hasEscapes { return UTF8Text.isValid(raw) ? Array(raw) : nil }
        return JSONText.unescape(raw)
    }

    package func string(_ value: Value) -> String? {
        guard let bytes = text(value) else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }
}

package enum JSONText {
    /// Whether bytes are a number by RFC 8259: no leading zero, a digit on each side of the point
    /// and in the exponent.
    static func isNumber(_ text: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        func digits() -> Int {
            let start = index
            while index < text.count, text[index] &- 48 < 10 { index += 1 }
            return index - start
        }
        if index < text.count, text[index] == 0x2D { index += 1 }
        let first = index
        let whole = digits()
        guard whole > 0, whole == 1 || text[first] != 0x30 else { return false }
        if index < text.count, text[index] == 0x2E {
            index += 1
            guard digits() > 0 else { return false }
        }
        if index < text.count, text[index] | 0x20 == 0x65 {
            index += 1
            if index < text.count, text[index] == 0x2B || text[index] == 0x2D { index += 1 }
            guard digits() > 0 else { return false }
        }
        return index == text.count
    }

    /// Undoes JSON's escapes; nil where one is wrong, or the outcome is not UTF-8.
    package static func unescape(_ raw: UnsafeRawBufferPointer) -> [UInt8]? {
        var out: [UInt8] = []
        out.reserveCapacity(raw.count)
        var index = 0
        func hex4(_ at: Int) -> UInt32? {
            guard at + 4 <= raw.count else { return nil }
            var value: UInt32 = 0
            for offset in 0..<4 {
                var byte = raw[at + offset]
                if (0x41...0x46).contains(byte) { byte += 0x20 }
                let digit = Hex.value(byte)
                guard digit < 16 else { return nil }
                value = value << 4 | UInt32(digit)
            }
            return value
        }
        while index < raw.count {
            let byte = raw[index]
            guard byte == 0x5C else {
                out.append(byte)
                index += 1
                continue
            }
            guard index + 1 < raw.count else { return nil }
            let escape = raw[index + 1]
            index += 2
            switch escape {
            case 0x22, 0x5C, 0x2F: out.append(escape)
            case 0x62: out.append(0x08)
            case 0x66: out.append(0x0C)
            case 0x6E: out.append(0x0A)
            case 0x72: out.append(0x0D)
            case 0x74: out.append(0x09)
            case 0x75:
                guard var value = hex4(index) else { return nil }
                index += 4
                if (0xD800..<0xDC00).contains(value) {
                    guard index + 6 <= raw.count, raw[index] == 0x5C, raw[index + 1] == 0x75,
                        let low = hex4(index + 2), (0xDC00..<0xE000).contains(low)
                    else { return nil }
                    index += 6
                    value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00)
                }
                guard let scalar = Unicode.Scalar(value) else { return nil }
                out.append(contentsOf: Array(String(Character(scalar)).utf8))
            default: return nil
            }
        }
        return UTF8Text.isValid(out) ? out : nil
    }
}
