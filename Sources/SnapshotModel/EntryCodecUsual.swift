extension EntryCodec {
    /// Decodes the lines that nearly all of a manifest consists of: fields in the writer's order,
    /// names without escapes, none of the fields that few files have. False for any other line,
    /// which `readAny` then reads; where both read one, they read the same.
    static func readUsual(_ line: UnsafeRawBufferPointer, into entry: inout Entry) -> Bool {
        guard var cursor = LineCursor(line), cursor.take("{\"path\":\""),
            let path = cursor.text(), EntryPath.isCanonical(path),
            cursor.take(",\"type\":\""), let kind = cursor.kind(),
            cursor.take(",\"mode\":\""), let mode = cursor.octal(),
            cursor.take(",\"uid\":"), let uid = cursor.word(),
            cursor.take(",\"gid\":"), let gid = cursor.word()
        else { return false }
        replace(&entry.path, with: path)
        entry.kind = kind
        entry.mode = mode
        entry.uid = uid
        entry.gid = gid
        if cursor.take(",\"user\":\"") {
            guard let user = cursor.text() else { return false }
            replace(&entry.user, with: user)
        } else {
            entry.user = nil
        }
        if cursor.take(",\"group\":\"") {
            guard let group = cursor.text() else { return false }
            replace(&entry.group, with: group)
        } else {
            entry.group = nil
        }
        if kind == .file {
            guard cursor.take(",\"size\":"), let size = cursor.number(), size <= UInt64(Int64.max)
            else { return false }
            entry.size = size
        } else {
            entry.size = 0
        }
        guard cursor.take(",\"mtime\":\""), let mtime = cursor.time(),
            cursor.take(",\"ctime\":\""), let ctime = cursor.time()
        else { return false }
        entry.mtime = mtime
        entry.ctime = ctime
        if cursor.take(",\"btime\":\"") {
            guard let btime = cursor.time() else { return false }
            entry.btime = btime
        } else {
            entry.btime = nil
        }
        guard cursor.take(",\"fs\":"), let fileSystem = cursor.word(),
            cursor.take(",\"ino\":"), let inode = cursor.number()
        else { return false }
        entry.fileSystem = fileSystem
        entry.inode = inode
        if cursor.take(",\"links\":") {
            guard let links = cursor.word() else { return false }
            entry.links = links
        } else {
            entry.links = 1
        }
        entry.deviceMajor = 0
        entry.deviceMinor = 0
        if kind == .symlink {
            guard cursor.take(",\"target\":\""), let target = cursor.text() else { return false }
            replace(&entry.target, with: target)
        } else if !entry.target.isEmpty {
            entry.target = []
        }
        return readContent(&cursor, into: &entry)
    }

    /// The end of a usual line: fingerprint, chunks, mark.
    @inline(__always)
    private static func readContent(_ cursor: inout LineCursor, into entry: inout Entry) -> Bool {
        entry.flags = 0
        entry.acl = nil
        entry.defaultACL = nil
        if !entry.xattrs.isEmpty { entry.xattrs = [] }
        if !entry.holes.isEmpty { entry.holes = [] }
        if !entry.holesList.isEmpty { entry.holesList = [] }
        if cursor.take(",\"xxh3\":\"") {
            guard let (high, low) = cursor.hexPair(), cursor.take("\"") else { return false }
            entry.fingerprint = Fingerprint(high: high, low: low)
        } else {
            entry.fingerprint = nil
        }
        entry.chunks.removeAll(keepingCapacity: true)
        entry.listDepth = 0
        if cursor.take(",\"chunks\":[\"") {
            repeat {
                guard let (word0, word1) = cursor.hexPair(), let (word2, word3) = cursor.hexPair()
                else { return false }
                entry.chunks.append(ChunkID(word0, word1, word2, word3))
            } while cursor.take("\",\"")
            guard cursor.take("\"]") else { return false }
        }
        entry.isUnsettled = cursor.take(",\"unsettled\":true")
        return cursor.take("}") && cursor.isAtEnd
    }

    @inline(__always)
    private static func replace(_ bytes: inout [UInt8], with text: UnsafeRawBufferPointer) {
        bytes.removeAll(keepingCapacity: true)
        bytes.append(contentsOf: text)
    }

    /// Names of owners mostly are those of the line before.
    @inline(__always)
    private static func replace(_ name: inout [UInt8]?, with text: UnsafeRawBufferPointer) {
        if let name, name.withUnsafeBytes({ Memory.equal($0, text) }) { return }
        name = Array(text)
    }
}

extension LineCursor {
    /// The kinds that trees consist of, and the quote behind them.
    @inline(__always)
    mutating func kind() -> EntryKind? {
        if take("file\"") { return .file }
        if take("dir\"") { return .directory }
        if take("symlink\"") { return .symlink }
        return nil
    }
}
