/// An entry and its manifest line, both ways (format.md section 9): how it is written here, how it
/// is read in EntryCodecReading.swift.
///
/// Written by hand over bytes, since every run reads and writes as many lines as the tree has
/// files.
package enum EntryCodec {
    /// Appends the line of `entry`, LF included. Fields stand in the order of the format page.
    package static func write(_ entry: Entry, to out: ByteBuffer) {
        out.reserve(512 + entry.chunks.count * 67)
        out.append(0x7B)
        entry.path.withUnsafeBytes { out.append(field: "path", text: $0) }
        out.append(",\"type\":\"")
        out.append(entry.kind.name)
        out.append("\",\"mode\":\"")
        appendOctal(entry.mode, to: out)
        out.append("\",\"uid\":")
        out.append(decimal: UInt64(entry.uid))
        out.append(",\"gid\":")
        out.append(decimal: UInt64(entry.gid))
        if let user = entry.user {
            out.append(0x2C)
            user.withUnsafeBytes { out.append(field: "user", text: $0) }
        }
        if let group = entry.group {
            out.append(0x2C)
            group.withUnsafeBytes { out.append(field: "group", text: $0) }
        }
        if entry.kind == .file {
            out.append(",\"size\":")
            out.append(decimal: entry.size)
        }
        out.append(",\"mtime\":")
        entry.mtime.write(to: out)
        out.append(",\"ctime\":")
        entry.ctime.write(to: out)
        if let btime = entry.btime {
            out.append(",\"btime\":")
            btime.write(to: out)
        }
        out.append(",\"fs\":")
        out.append(decimal: UInt64(entry.fileSystem))
        out.append(",\"ino\":")
        out.append(decimal: entry.inode)
        if entry.links > 1 {
            out.append(",\"links\":")
            out.append(decimal: UInt64(entry.links))
        }
        if entry.kind.isDevice {
            out.append(",\"rdev\":[")
            out.append(decimal: UInt64(entry.deviceMajor))
            out.append(0x2C)
            out.append(decimal: UInt64(entry.deviceMinor))
            out.append(0x5D)
        }
        if entry.kind == .symlink {
            out.append(0x2C)
            entry.target.withUnsafeBytes { out.append(field: "target", text: $0) }
        }
        if entry.flags != 0 {
            out.append(",\"flags\":")
            InodeFlags.write(entry.flags, to: out)
        }
        if let acl = entry.acl {
            out.append(0x2C)
            acl.withUnsafeBytes { out.append(field: "acl", text: $0) }
        }
        if let acl = entry.defaultACL {
            out.append(0x2C)
            acl.withUnsafeBytes { out.append(field: "acl_default", text: $0) }
        }
        if !entry.xattrs.isEmpty { appendAttributes(entry.xattrs, to: out) }
        if !entry.holesList.isEmpty {
            appendIDs("holes_list", entry.holesList, to: out)
        } else if !entry.holes.isEmpty {
            out.append(",\"holes\":[")
            for (index, hole) in entry.holes.enumerated() {
                if index > 0 { out.append(0x2C) }
                appendHole(hole, to: out)
            }
            out.append(0x5D)
        }
        if let fingerprint = entry.fingerprint {
            out.append(",\"xxh3\":\"")
            out.append(hex: fingerprint)
            out.append(0x22)
        }
        if !entry.chunks.isEmpty {
            appendIDs(entry.listDepth == 0 ? "chunks" : "list", entry.chunks, to: out)
            if entry.listDepth > 0 {
                out.append(",\"depth\":")
                out.append(decimal: UInt64(entry.listDepth))
            }
        }
        if entry.isUnsettled { out.append(",\"unsettled\":true") }
        out.append("}\n")
    }

    package static func appendHole(_ hole: Hole, to out: ByteBuffer) {
        out.append(0x5B)
        out.append(decimal: hole.offset)
        out.append(0x2C)
        out.append(decimal: hole.length)
        out.append(0x5D)
    }

    private static func appendOctal(_ value: UInt32, to out: ByteBuffer) {
        var shift: UInt32 = 9
        // At least three digits, four where a special bit is set.
        if value & 0o7000 == 0 { shift = 6 }
        while true {
            out.append(UInt8(value >> shift & 7) + 48)
            if shift == 0 { return }
            shift -= 3
        }
    }

    private static func appendIDs(_ name: StaticString, _ ids: [ChunkID], to out: ByteBuffer) {
        out.append(",\"")
        out.append(name)
        out.append("\":[")
        for (index, id) in ids.enumerated() {
            if index > 0 { out.append(0x2C) }
            out.append(0x22)
            out.append(hex: id)
            out.append(0x22)
        }
        out.append(0x5D)
    }

    private static func appendAttributes(_ attributes: [ExtendedAttribute], to out: ByteBuffer) {
        out.append(",\"xattrs\":[")
        for (index, attribute) in attributes.enumerated() {
            out.append(index > 0 ? ",[" : "[")
            attribute.name.withUnsafeBytes { name in
                if UTF8Text.isValid(name) {
                    out.append(jsonText: name)
                } else {
                    out.append("{\"b64\":\"")
                    Base64.encode(name, into: out)
                    out.append("\"}")
                }
            }
            out.append(",\"")
            attribute.value.withUnsafeBytes { Base64.encode($0, into: out) }
            out.append("\"]")
        }
        out.append(0x5D)
    }
}
