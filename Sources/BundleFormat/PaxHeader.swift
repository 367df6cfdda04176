internal import SnapshotModel

/// A pax extended header in the making: the member of type `x` that stands before another one and
/// says of it what a ustar header cannot (POSIX.1-2017, pax, "pax Header Block").
///
/// Written by hand because libarchive can neither write a `comment` nor leave out the times.
final class PaxHeader {
    private let records = ByteBuffer(capacity: 8192)
    private var isBinary = false

    var isEmpty: Bool { records.count == 0 }

    func removeAll() {
        records.removeAll()
        isBinary = false
    }

    /// Adds `LENGTH KEY=VALUE LF`, LENGTH counting itself.
    func add(_ key: StaticString, _ value: UnsafeRawBufferPointer) {
        let body = key.utf8CodeUnitCount + value.count + 3
        var length = body + 1
        while true {
            let whole = body + Self.digits(length)
            if whole == length { break }
            length = whole
        }
        records.append(decimal: UInt64(length))
        records.append(0x20)
        records.append(key)
        records.append(0x3D)
        records.append(value)
        records.append(0x0A)
    }

    func add(_ key: StaticString, text: UnsafeRawBufferPointer) {
        if !isBinary, !UTF8Text.isValid(text) {
            // Values are UTF-8 unless this record, which stands before them all, says otherwise.
            isBinary = true
        }
        add(key, text)
    }

    func add(_ key: StaticString, number: Int64) {
        let text = ByteBuffer(capacity: 64)
        if number < 0 { text.append(0x2D) }
        text.append(decimal: number.magnitude)
        add(key, text.bytes)
    }

    /// Bytes that `write` will append: header, records, padding.
    var tarBytes: Int { 512 + Tar.padded(bodyBytes) }

    private var bodyBytes: Int {
        records.count + (isBinary ? Self.binaryRecord.utf8CodeUnitCount : 0)
    }

    private static let binaryRecord: StaticString = "21 hdrcharset=BINARY\n"

    func write(to out: ByteBuffer) {
        let start = out.count
        let total = tarBytes
        out.reserve(total)
        (out.base + start).initializeMemory(as: UInt8.self, repeating: 0, count: total)
        let header = out.base + start
        Self.put("PaxHeaders/batchsync", header, at: 0)
        Self.put("0000644", header, at: 100)
        Self.put("0000000", header, at: 108)
        Self.put("0000000", header, at: 116)
        Self.put(octal: UInt64(bodyBytes), digits: 11, header, at: 124)
        Self.put("00000000000", header, at: 136)
        Self.put("        ", header, at: 148)
        Self.put("x", header, at: 156)
        Self.put("ustar\u{0}00", header, at: 257)
        Self.put("0000000", header, at: 329)
        Self.put("0000000", header, at: 337)
        Self.put(octal: Tar.checksum(UnsafeRawPointer(header)), digits: 6, header, at: 148)
        header.storeBytes(of: 0, toByteOffset: 154, as: UInt8.self)
        out.count = start + 512
        if isBinary { out.append(Self.binaryRecord) }
        out.append(records.bytes)
        out.count = start + total
    }

    private static func put(_ text: StaticString, _ header: UnsafeMutableRawPointer, at offset: Int)
    {
        (header + offset).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
    }

    private static func put(
        octal value: UInt64, digits: Int, _ header: UnsafeMutableRawPointer, at offset: Int
    ) {
        var rest = value
        for index in stride(from: digits - 1, through: 0, by: -1) {
            header.storeBytes(
                of: UInt8(rest & 7) + 48, toByteOffset: offset + index, as: UInt8.self)
            rest >>= 3
        }
    }

    private static func digits(_ value: Int) -> Int {
        var count = 1
        var rest = value / 10
        while rest > 0 {
            count += 1
            rest /= 10
        }
        return count
    }
}

/// The arithmetic of tar.
enum Tar {
    static let blockBytes = 512
    static let endOfArchiveBytes = 1024

    @inline(__always)
    static func padded(_ bytes: Int) -> Int { (bytes + 511) & ~511 }

    /// Sum of a header's bytes, its checksum field counted as spaces.
    static func checksum(_ header: UnsafeRawPointer) -> UInt64 {
        var sum: UInt32 = 0
        for index in 0..<512 { sum &+= UInt32(header.load(fromByteOffset: index, as: UInt8.self)) }
        for index in 148..<156 {
            sum &+= 32 &- UInt32(header.load(fromByteOffset: index, as: UInt8.self))
        }
        return UInt64(sum)
    }
}
