/// Lower-case hex, as every name in a repository is written.
package enum Hex {
    private static let digits: StaticString = "0123456789abcdef"

    @inline(__always)
    package static func digit(_ value: UInt8) -> UInt8 { value < 10 ? value + 48 : value + 87 }

    @inline(__always)
    static func value(_ digit: UInt8) -> UInt64 {
        switch digit {
        case 48...57: return UInt64(digit - 48)
        case 97...102: return UInt64(digit - 87)
        default: return 255
        }
    }

    /// Sixteen digits for one word, most significant first.
    @inline(__always)
    static func write(_ word: UInt64, to target: UnsafeMutableRawPointer) {
        for index in 0..<16 {
            let nibble = UInt8(truncatingIfNeeded: word >> (60 - 4 * UInt64(index))) & 15
            target.storeBytes(of: digit(nibble), toByteOffset: index, as: UInt8.self)
        }
    }

    /// Sixteen digits as one word; false where one of them is no lower-case hex digit.
    @inline(__always)
    static func word(_ source: UnsafeRawPointer, _ word: inout UInt64) -> Bool {
        guard let high = half(source.loadUnaligned(as: UInt64.self)),
            let low = half(source.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        else { return false }
        word = high << 32 | low
        return true
    }

    /// Eight digits at once, each in its byte: the low four bits, and nine more for a letter, are
    /// its value, and a digit is lower-case hex where its value gives the digit back.
    @inline(__always)
    private static func half(_ word: UInt64) -> UInt64? {
        let digits = UInt64(bigEndian: word)
        let ones: UInt64 = 0x0101_0101_0101_0101
        let values = (digits & 0x0F0F_0F0F_0F0F_0F0F) &+ (digits >> 6 & ones) &* 9
        let isLetter = (values &+ ones &* 6) >> 4 & ones
        guard values & 0xF0F0_F0F0_F0F0_F0F0 == 0,
            values &+ ones &* 0x30 &+ isLetter &* 39 == digits
        else {
            return nil
        }
        // Neighbours are put together in pairs, the pairs in fours, the fours in one.
        var packed = (values | values >> 4) & 0x00FF_00FF_00FF_00FF
        packed = (packed | packed >> 8) & 0x0000_FFFF_0000_FFFF
        return (packed | packed >> 16) & 0xFFFF_FFFF
    }

    package static func text(_ bytes: [UInt8]) -> String {
        var out: [UInt8] = []
        out.reserveCapacity(bytes.count * 2)
        for byte in bytes {
            out.append(digit(byte >> 4))
            out.append(digit(byte & 15))
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// Nil where a character is not a lower-case hex digit or the count is odd.
    package static func bytes(_ text: some StringProtocol) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count % 2 == 0 else { return nil }
        var out: [UInt8] = []
        out.reserveCapacity(digits.count / 2)
        for index in stride(from: 0, to: digits.count, by: 2) {
            let high = value(digits[index])
            let low = value(digits[index + 1])
            guard high < 16, low < 16 else { return nil }
            out.append(UInt8(high << 4 | low))
        }
        return out
    }
}

/// Base64 with padding, RFC 4648 section 4, strict when read.
package enum Base64 {
    private static let alphabet = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    package static func encode(_ bytes: UnsafeRawBufferPointer, into out: ByteBuffer) {
        out.reserve((bytes.count + 2) / 3 * 4)
        var index = 0
        while index < bytes.count {
            let left = bytes.count - index
            let first = UInt32(bytes[index])
            let second = left > 1 ? UInt32(bytes[index + 1]) : 0
            let third = left > 2 ? UInt32(bytes[index + 2]) : 0
            let word = first << 16 | second << 8 | third
            out.append(alphabet[Int(word >> 18)])
            out.append(alphabet[Int(word >> 12 & 63)])
            out.append(left > 1 ? alphabet[Int(word >> 6 & 63)] : 0x3D)
            out.append(left > 2 ? alphabet[Int(word & 63)] : 0x3D)
            index += 3
        }
    }

    package static func encode(_ bytes: [UInt8]) -> String {
        let buffer = ByteBuffer(capacity: bytes.count * 2 + 8)
        bytes.withUnsafeBytes { encode($0, into: buffer) }
        return String(decoding: buffer.bytes, as: UTF8.self)
    }

    package static func decode(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
        guard text.count % 4 == 0 else { return nil }
        var out: [UInt8] = []
        out.reserveCapacity(text.count / 4 * 3)
        var index = 0
        while index < text.count {
            var word: UInt32 = 0
            var padding = 0
            for offset in 0..<4 {
                let byte = text[index + offset]
                if byte == 0x3D {
                    guard index + 4 == text.count, offset >= 2 else { return nil }
                    padding += 1
                    word <<= 6
                } else {
                    guard padding == 0, let value = value(byte) else { return nil }
                    word = word << 6 | value
                }
            }
            // Bits that padding cuts off must be zero, so that one text has one meaning.
            if padding == 1, word & 0xFF != 0 { return nil }
            if padding == 2, word & 0xFFFF != 0 { return nil }
            out.append(UInt8(word >> 16 & 255))
            if padding < 2 { out.append(UInt8(word >> 8 & 255)) }
            if padding < 1 { out.append(UInt8(word & 255)) }
            index += 4
        }
        return out
    }

    private static func value(_ byte: UInt8) -> UInt32? {
        switch byte {
        case 65...90: return UInt32(byte - 65)
        case 97...122: return UInt32(byte - 71)
        case 48...57: return UInt32(byte + 4)
        case 0x2B: return 62
        case 0x2F: return 63
        default: return nil
        }
    }
}

/// Whether bytes are UTF-8 (RFC 3629: no surrogates, no overlong forms, nothing past U+10FFFF).
package enum UTF8Text {
    package static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        let count = bytes.count
        while index < count {
            // Nearly every name is ASCII: eight bytes at a time.
            while index + 8 <= count,
                bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080
                    == 0
            {
                index += 8
            }
            guard index < count else { return true }
            let lead = bytes[index]
            if lead < 0x80 {
                index += 1
                continue
            }
            let length: Int
            let lowest: UInt8
            let highest: UInt8
            switch lead {
            case 0xC2...0xDF: (length, lowest, highest) = (2, 0x80, 0xBF)
            case 0xE0: (length, lowest, highest) = (3, 0xA0, 0xBF)
            case 0xED: (length, lowest, highest) = (3, 0x80, 0x9F)
            case 0xE1...0xEF: (length, lowest, highest) = (3, 0x80, 0xBF)
            case 0xF0: (length, lowest, highest) = (4, 0x90, 0xBF)
            case 0xF4: (length, lowest, highest) = (4, 0x80, 0x8F)
            case 0xF1...0xF3: (length, lowest, highest) = (4, 0x80, 0xBF)
            default: return false
            }
            guard index + length <= count else { return false }
            guard bytes[index + 1] >= lowest, bytes[index + 1] <= highest else { return false }
            for offset in 2..<max(2, length) where bytes[index + offset] & 0xC0 != 0x80 {
                return false
            }
            index += length
        }
        return true
    }

    package static func isValid(_ bytes: [UInt8]) -> Bool { bytes.withUnsafeBytes { isValid($0) } }

    /// For people: what is not UTF-8 is shown as `\xNN`, control characters too, so that a name can
    /// never drive a terminal.
    package static func display(_ bytes: [UInt8]) -> String {
        if isValid(bytes), !bytes.contains(where: { $0 < 0x20 || $0 == 0x7F }) {
            let text = String(decoding: bytes, as: UTF8.self)
            if !text.unicodeScalars.contains(where: { (0x80...0x9F).contains($0.value) }) {
                return text
            }
        }
        var out = ""
        for byte in bytes {
            if byte >= 0x20, byte < 0x7F {
                out.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                out += "\\x" + Hex.text([byte])
            }
        }
        return out
    }
}
