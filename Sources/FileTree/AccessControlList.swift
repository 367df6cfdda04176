/// A POSIX access control list: the kernel's binary form (extended attributes
/// `system.posix_acl_access` and `system.posix_acl_default`) and the text of a manifest (format.md
/// section 9).
///
/// Binary: a 32-bit version, 2, then 8 bytes an entry: 16 bits tag, 16 bits permissions, 32 bits
/// id; all little endian (linux/posix_acl_xattr.h). Text:
/// `u::rwx,u:1000:r-x,g::r-x,g:50:rwx,m::rwx,o::r--`.
///
/// A value of this type is a list that the kernel takes: one entry each for owner, group and
/// others, a mask where a user or a group is named, nobody named twice. Entries stand in the order
/// of the text, the named ones by id.
package struct AccessControlList: Sendable, Hashable {
    package struct Entry: Sendable, Hashable {
        /// The kernel's numbers.
        package enum Tag: UInt16, Sendable {
            case owner = 0x01
            case user = 0x02
            case owningGroup = 0x04
            case group = 0x08
            case mask = 0x10
            case other = 0x20
        }

        package let tag: Tag
        /// Read 4, write 2, execute 1.
        package let permissions: UInt8
        /// Of a named user or group.
        package let id: UInt32
    }

    package let entries: [Entry]

    /// The names of the attributes that hold the binary form.
    package static let accessAttribute = "system.posix_acl_access"
    package static let defaultAttribute = "system.posix_acl_default"

    /// More entries than this fit in no extended attribute.
    private static let mostEntries = 8191

    /// What stands where an entry has no id.
    private static let noID = UInt32.max

    /// Nil where the entries make no list that the kernel takes.
    private init?(checking unsorted: [Entry]) {
        guard unsorted.count <= Self.mostEntries else { return nil }
        let entries = unsorted.sorted {
            $0.tag.rawValue != $1.tag.rawValue ? $0.tag.rawValue < $1.tag.rawValue : $0.id < $1.id
        }
        var count = [UInt16: Int]()
        for (index, entry) in entries.enumerated() {
            count[entry.tag.rawValue, default: 0] += 1
            if index > 0, entries[index - 1].tag == entry.tag, entries[index - 1].id == entry.id {
                return nil
            }
        }
        func number(of tag: Entry.Tag) -> Int { count[tag.rawValue] ?? 0 }
        guard number(of: .owner) == 1, number(of: .owningGroup) == 1, number(of: .other) == 1,
            number(of: .mask) == 1
                || (number(of: .mask) == 0 && number(of: .user) == 0 && number(of: .group) == 0)
        else { return nil }
        self.entries = entries
    }

    // MARK: Binary

    /// Reads the value of the extended attribute; nil where it is no access control list of version
    /// 2.
    package init?(binary: [UInt8]) {
        guard binary.count >= 4, (binary.count - 4) % 8 == 0,
            Self.number(binary, at: 0, bytes: 4) == 2
        else { return nil }
        var entries: [Entry] = []
        for at in stride(from: 4, to: binary.count, by: 8) {
            let permissions = Self.number(binary, at: at + 2, bytes: 2)
            guard
                let tag = Entry.Tag(rawValue: UInt16(Self.number(binary, at: at, bytes: 2))),
                permissions <= 7
            else { return nil }
            let isNamed = tag == .user || tag == .group
            let id = Self.number(binary, at: at + 4, bytes: 4)
            // An id that this user namespace does not know reads as the overflow value: nobody it
            // could be given back to.
            if isNamed, id == Self.noID { return nil }
            entries.append(
                Entry(tag: tag, permissions: UInt8(permissions), id: isNamed ? id : Self.noID))
        }
        self.init(checking: entries)
    }

    /// The value of the extended attribute.
    package var binary: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(4 + entries.count * 8)
        func put(_ value: UInt32, _ count: Int) {
            for index in 0..<count { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
        }
        put(2, 4)
        for entry in entries {
            put(UInt32(entry.tag.rawValue), 2)
            put(UInt32(entry.permissions), 2)
            put(entry.id, 4)
        }
        return bytes
    }

    private static func number(_ bytes: [UInt8], at offset: Int, bytes count: Int) -> UInt32 {
        var value: UInt32 = 0
        for index in 0..<count { value |= UInt32(bytes[offset + index]) << (8 * index) }
        return value
    }

    // MARK: Text

    /// The text of a manifest.
    package var text: [UInt8] {
        var text: [UInt8] = []
        for entry in entries {
            if !text.isEmpty { text.append(UInt8(ascii: ",")) }
            switch entry.tag {
            case .owner, .user: text.append(UInt8(ascii: "u"))
            case .owningGroup, .group: text.append(UInt8(ascii: "g"))
            case .mask: text.append(UInt8(ascii: "m"))
            case .other: text.append(UInt8(ascii: "o"))
            }
            text.append(UInt8(ascii: ":"))
            if entry.tag == .user || entry.tag == .group { text += Array(String(entry.id).utf8) }
            text.append(UInt8(ascii: ":"))
            text.append(UInt8(ascii: entry.permissions & 4 != 0 ? "r" : "-"))
            text.append(UInt8(ascii: entry.permissions & 2 != 0 ? "w" : "-"))
            text.append(UInt8(ascii: entry.permissions & 1 != 0 ? "x" : "-"))
        }
        return text
    }

    /// Reads the text of a manifest, which may come from an adversary; nil where it is no access
    /// control list.
    package init?(text: [UInt8]) {
        // The longest entry is `u:4294967294:rwx,`.
        guard text.count <= Self.mostEntries * 17 else { return nil }
        var entries: [Entry] = []
        for item in text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
            let fields = item.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            guard fields.count == 3, fields[0].count == 1,
                let permissions = Self.permissions(fields[2])
            else { return nil }
            let isNamed = !fields[1].isEmpty
            let tag: Entry.Tag
            switch (fields[0].first, isNamed) {
            case (UInt8(ascii: "u"), false): tag = .owner
            case (UInt8(ascii: "u"), true): tag = .user
            case (UInt8(ascii: "g"), false): tag = .owningGroup
            case (UInt8(ascii: "g"), true): tag = .group
            case (UInt8(ascii: "m"), false): tag = .mask
            case (UInt8(ascii: "o"), false): tag = .other
            default: return nil
            }
            var id = Self.noID
            if isNamed {
                guard let number = Self.id(fields[1]) else { return nil }
                id = number
            }
            entries.append(Entry(tag: tag, permissions: permissions, id: id))
        }
        self.init(checking: entries)
    }

    private static func permissions(_ text: ArraySlice<UInt8>) -> UInt8? {
        guard text.count == 3 else { return nil }
        var value: UInt8 = 0
        for (letter, byte) in zip([UInt8(ascii: "r"), UInt8(ascii: "w"), UInt8(ascii: "x")], text) {
            value <<= 1
            if byte == letter {
                value |= 1
            } else if byte != UInt8(ascii: "-") {
                return nil
            }
        }
        return value
    }

    private static func id(_ text: ArraySlice<UInt8>) -> UInt32? {
        guard text.count <= 10,
            text.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
        else { return nil }
        let value = text.reduce(UInt64(0)) { $0 * 10 + UInt64($1 - UInt8(ascii: "0")) }
        return value < UInt64(noID) ? UInt32(value) : nil
    }
}
