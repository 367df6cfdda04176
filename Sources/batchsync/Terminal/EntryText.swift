import Replication
import SnapshotModel

/// An entry of a snapshot as people and programs read it.
enum EntryText {
    /// The path, with what a link leads to.
    static func path(_ entry: Entry) -> String {
        let path = UTF8Text.display(entry.path)
        return entry.kind == .symlink ? "\(path) -> \(UTF8Text.display(entry.target))" : path
    }

    /// One line as `ls -l` has it: permissions, owner, group, size, time, path.
    static func long(_ entry: Entry) -> String {
        func name(_ text: [UInt8]?, _ number: UInt32) -> String {
            let shown = text.map { UTF8Text.display($0) } ?? String(number)
            return shown + String(repeating: " ", count: max(0, 8 - shown.count))
        }
        let size: String
        if entry.kind.isDevice {
            size = "\(entry.deviceMajor), \(entry.deviceMinor)"
        } else {
            size = entry.kind == .file ? String(entry.size) : "-"
        }
        let permissions =
            entry.permissionText.count == 10 ? entry.permissionText + " " : entry.permissionText
        let gap = String(repeating: " ", count: max(0, 12 - size.count))
        return
            "\(permissions) \(name(entry.user, entry.uid)) \(name(entry.group, entry.gid)) \(gap)\(size)"
            + "  \(TimeText.person(entry.mtime))  \(path(entry))"
    }

    static func document(_ entry: Entry) -> JSONValue {
        var fields: [(key: String, value: JSONValue)] = [
            ("path", JSONValue(path: entry.path)), ("type", .string("\(entry.kind.name)")),
            ("mode", .string("0" + String(entry.mode & 0o7777, radix: 8))),
            ("uid", .integer(Int64(entry.uid))), ("gid", .integer(Int64(entry.gid))),
            ("user", entry.user.map { JSONValue(path: $0) } ?? .null),
            ("group", entry.group.map { JSONValue(path: $0) } ?? .null),
            ("size", .integer(Int64(clamping: entry.size))), ("mtime", .time(entry.mtime)),
            ("ctime", .time(entry.ctime)), ("btime", entry.btime.map { .time($0) } ?? .null),
            ("inode", .string(String(entry.inode))), ("links", .integer(Int64(entry.links))),
        ]
        if entry.kind == .symlink { fields.append(("target", JSONValue(path: entry.target))) }
        if entry.kind.isDevice {
            fields.append(
                (
                    "device",
                    .array([.integer(Int64(entry.deviceMajor)), .integer(Int64(entry.deviceMinor))])
                ))
        }
        if entry.flags != 0 { fields.append(("flags", .integer(Int64(entry.flags)))) }
        if let acl = entry.acl { fields.append(("acl", JSONValue(path: acl))) }
        if let acl = entry.defaultACL { fields.append(("default_acl", JSONValue(path: acl))) }
        if !entry.xattrs.isEmpty {
            let attributes = entry.xattrs.map { attribute in
                JSONValue.object([
                    ("name", JSONValue(path: attribute.name)),
                    ("value", JSONValue(path: attribute.value)),
                ])
            }
            fields.append(("xattrs", .array(attributes)))
        }
        if entry.isUnsettled { fields.append(("changed_while_read", .bool(true))) }
        return .object(fields)
    }
}
