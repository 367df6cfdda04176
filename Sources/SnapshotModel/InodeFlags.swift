/// The inode flags that batchsync keeps, by the names of format.md section 9. Values are Linux's
/// FS_*_FL bits.
package enum InodeFlags {
    package static let names: [(bit: UInt32, name: StaticString)] = [
        (0x0000_0020, "append"), (0x0000_0010, "immutable"), (0x0000_0040, "nodump"),
        (0x0000_0080, "noatime"), (0x0000_0008, "sync"), (0x0001_0000, "dirsync"),
        (0x0080_0000, "nocow"), (0x0000_0004, "compress"), (0x0000_0400, "nocompress"),
        (0x0000_8000, "notail"), (0x0002_0000, "topdir"), (0x0000_4000, "journal"),
        (0x0000_0002, "undelete"), (0x0000_0001, "secrm"), (0x2000_0000, "projinherit"),
        (0x4000_0000, "casefold"),
    ]

    package static let nodump: UInt32 = 0x40
    package static let immutable: UInt32 = 0x10
    package static let append: UInt32 = 0x20
    /// Bits that describe how a file system happens to store a file, not what a person asked for:
    /// extents, inline data, hashed directory, huge file, verity, encryption, dirty and
    /// compressed-block bits, and those used inside the kernel only.
    package static let incidental: UInt32 =
        0x0008_0000 | 0x1000_0000 | 0x0000_1000 | 0x0004_0000 | 0x0010_0000 | 0x0000_0800
        | 0x0000_0100 | 0x0000_0200 | 0x0020_0000 | 0x0040_0000 | 0x0100_0000 | 0x0200_0000
        | 0x0400_0000 | 0x0800_0000 | 0x8000_0000 | 0x0000_2000
    /// Flags that forbid further changes: set last.
    package static let locking: UInt32 = 0x30

    package static func write(_ flags: UInt32, to out: ByteBuffer) {
        out.append(0x5B)
        var isFirst = true
        var rest = flags
        for (bit, name) in names where flags & bit != 0 {
            if !isFirst { out.append(0x2C) }
            isFirst = false
            out.append(0x22)
            out.append(name)
            out.append(0x22)
            rest &= ~bit
        }
        if rest != 0 {
            if !isFirst { out.append(0x2C) }
            out.append("\"0x" + String(rest, radix: 16) + "\"")
        }
        out.append(0x5D)
    }

    static func bit(named name: UnsafeRawBufferPointer) -> UInt32? {
        for (bit, known) in names
        where Memory.equal(
            name, UnsafeRawBufferPointer(start: known.utf8Start, count: known.utf8CodeUnitCount))
        {
            return bit
        }
        let text = String(decoding: name, as: UTF8.self)
        guard text.hasPrefix("0x") else { return nil }
        return UInt32(text.dropFirst(2), radix: 16)
    }
}
