#if canImport(Glibc)
    import Glibc
#endif

/// A growing run of bytes that owns its memory. What the hot paths write to: appending is a bounds
/// check and a copy.
///
/// Not safe for two threads at once; hand it over whole.
package final class ByteBuffer: @unchecked Sendable {
    // Sendable: a buffer has one owner at a time and changes hands under a lock.
    package private(set) var base: UnsafeMutableRawPointer
    package private(set) var capacity: Int
    package var count = 0

    package init(capacity: Int = 4096) {
        self.capacity = max(capacity, 64)
        base = UnsafeMutableRawPointer.allocate(byteCount: self.capacity, alignment: 64)
    }

    deinit { base.deallocate() }

    package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }
    package var array: [UInt8] { Array(bytes) }

    package func removeAll() { count = 0 }

    /// Gives memory back where an unusually large use has passed.
    package func shrink(to bytes: Int) {
        guard capacity > bytes, count <= bytes else { return }
        resize(to: bytes)
    }

    @inline(__always)
    package func reserve(_ more: Int) {
        if count + more > capacity { grow(more) }
    }

    /// Doubles what is small; of what is large, twice as much would mostly lie idle.
    @inline(never)
    private func grow(_ more: Int) {
        resize(to: max(capacity + (capacity < 1 << 20 ? capacity : capacity / 4), count + more))
    }

    private func resize(to bytes: Int) {
        let new = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        new.copyMemory(from: base, byteCount: count)
        base.deallocate()
        base = new
        capacity = bytes
    }

    @inline(__always)
    package func append(_ byte: UInt8) {
        reserve(1)
        base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count += 1
    }

    package func append(_ bytes: UnsafeRawBufferPointer) {
        guard let start = bytes.baseAddress, bytes.count > 0 else { return }
        reserve(bytes.count)
        (base + count).copyMemory(from: start, byteCount: bytes.count)
        count += bytes.count
    }

    package func append(_ bytes: [UInt8]) { bytes.withUnsafeBytes { append($0) } }

    package func append(_ text: StaticString) {
        append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    package func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    package func append(decimal value: UInt64) {
        reserve(20)
        if value < 10 {
            append(UInt8(truncatingIfNeeded: value) &+ 48)
            return
        }
        var digits = 1
        var limit: UInt64 = 10
        while digits < 20, value >= limit {
            digits += 1
            let (next, overflow) = limit.multipliedReportingOverflow(by: 10)
            if overflow { break }
            limit = next
        }
        var rest = value
        var at = count + digits
        while at > count {
            at -= 1
            base.storeBytes(
                of: UInt8(truncatingIfNeeded: rest % 10) &+ 48, toByteOffset: at, as: UInt8.self)
            rest /= 10
        }
        count += digits
    }

    package func append<Kind>(hex id: Identifier<Kind>) {
        reserve(64)
        Hex.write(id.word0, to: base + count)
        Hex.write(id.word1, to: base + count + 16)
        Hex.write(id.word2, to: base + count + 32)
        Hex.write(id.word3, to: base + count + 48)
        count += 64
    }

    package func append(hex value: Fingerprint) {
        reserve(32)
        Hex.write(value.high, to: base + count)
        Hex.write(value.low, to: base + count + 16)
        count += 32
    }

    /// Appends `"…"` with JSON's escapes. The bytes must be valid UTF-8.
    package func append(jsonText bytes: UnsafeRawBufferPointer) {
        append(0x22)
        var runStart = 0
        for index in 0..<bytes.count {
            let byte = bytes[index]
            if byte >= 0x20, byte != 0x22, byte != 0x5C { continue }
            append(UnsafeRawBufferPointer(rebasing: bytes[runStart..<index]))
            runStart = index + 1
            switch byte {
            case 0x22: append("\\\"")
            case 0x5C: append("\\\\")
            case 0x0A: append("\\n")
            case 0x0D: append("\\r")
            case 0x09: append("\\t")
            default:
                append("\\u00")
                append(Hex.digit(byte >> 4))
                append(Hex.digit(byte & 15))
            }
        }
        append(UnsafeRawBufferPointer(rebasing: bytes[runStart...]))
        append(0x22)
    }

    /// Appends `"name":"text"`, or `"name_b64":"…"` where the bytes are not UTF-8 (format.md
    /// section 1).
    package func append(field name: StaticString, text bytes: UnsafeRawBufferPointer) {
        append(0x22)
        append(name)
        if UTF8Text.isValid(bytes) {
            append("\":")
            append(jsonText: bytes)
        } else {
            append("_b64\":\"")
            Base64.encode(bytes, into: self)
            append(0x22)
        }
    }
}

/// A piece of memory that compares by content; what C calls memcmp.
package enum Memory {
    @inline(__always)
    package static func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer)
        -> Bool
    {
        guard left.count == right.count else { return false }
        guard left.count > 0 else { return true }
        return memcmp(left.baseAddress!, right.baseAddress!, left.count) == 0
    }
}

extension Array where Element == UInt8 {
    /// `withUnsafeBytes` for a body that throws one type of error.
    package func withRawBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeBufferPointer { (buffer) throws(Failure) -> Result in
            try body(UnsafeRawBufferPointer(buffer))
        }
    }
}
