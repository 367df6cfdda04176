extension EntryCodec {
    /// Where the fields of a line stand. Nothing is decoded that was not asked for.
    package struct Fields {
        var path: JSONScanner.Value?
        var pathIsBase64 = false
        var type: JSONScanner.Value?
        var mode, uid, gid, size, mtime, ctime, btime, fs, ino, links, rdev: JSONScanner.Value?
        var user, group, target: JSONScanner.Value?
        var userIsBase64 = false, groupIsBase64 = false, targetIsBase64 = false
        var flags, acl, aclDefault, xattrs, holes, holesList, xxh3, chunks, list, depth,
            unsettled: JSONScanner.Value?
        var critical: JSONScanner.Value?
    }

    /// The first eight bytes of a key, little endian, and its length name it: no two keys of the
    /// format share them. A test compares these numbers with the names; as literals they cost the
    /// scanner one comparison each.
    enum Key {
        @inline(__always) static var path: UInt64 { 0x1000_0000_6874_6170 }
        @inline(__always) static var pathB64: UInt64 { 0x1436_625f_6874_6170 }
        @inline(__always) static var type: UInt64 { 0x1000_0000_6570_7974 }
        @inline(__always) static var mode: UInt64 { 0x1000_0000_6564_6f6d }
        @inline(__always) static var uid: UInt64 { 0x0c00_0000_0064_6975 }
        @inline(__always) static var gid: UInt64 { 0x0c00_0000_0064_6967 }
        @inline(__always) static var user: UInt64 { 0x1000_0000_7265_7375 }
        @inline(__always) static var userB64: UInt64 { 0x1436_625f_7265_7375 }
        @inline(__always) static var group: UInt64 { 0x1400_0070_756f_7267 }
        @inline(__always) static var groupB64: UInt64 { 0x1262_5f70_756f_7267 }
        @inline(__always) static var size: UInt64 { 0x1000_0000_657a_6973 }
        @inline(__always) static var mtime: UInt64 { 0x1400_0065_6d69_746d }
        @inline(__always) static var ctime: UInt64 { 0x1400_0065_6d69_7463 }
        @inline(__always) static var btime: UInt64 { 0x1400_0065_6d69_7462 }
        @inline(__always) static var fs: UInt64 { 0x0800_0000_0000_7366 }
        @inline(__always) static var ino: UInt64 { 0x0c00_0000_006f_6e69 }
        @inline(__always) static var links: UInt64 { 0x1400_0073_6b6e_696c }
        @inline(__always) static var rdev: UInt64 { 0x1000_0000_7665_6472 }
        @inline(__always) static var target: UInt64 { 0x1800_7465_6772_6174 }
        @inline(__always) static var targetB64: UInt64 { 0x4a5f_7465_6772_6174 }
        @inline(__always) static var flags: UInt64 { 0x1400_0073_6761_6c66 }
        @inline(__always) static var acl: UInt64 { 0x0c00_0000_006c_6361 }
        @inline(__always) static var aclDefault: UInt64 { 0x4d66_6564_5f6c_6361 }
        @inline(__always) static var xattrs: UInt64 { 0x1800_7372_7474_6178 }
        @inline(__always) static var holes: UInt64 { 0x1400_0073_656c_6f68 }
        @inline(__always) static var holesList: UInt64 { 0x416c_5f73_656c_6f68 }
        @inline(__always) static var xxh3: UInt64 { 0x1000_0000_3368_7878 }
        @inline(__always) static var chunks: UInt64 { 0x1800_736b_6e75_6863 }
        @inline(__always) static var list: UInt64 { 0x1000_0000_7473_696c }
        @inline(__always) static var depth: UInt64 { 0x1400_0068_7470_6564 }
        @inline(__always) static var unsettled: UInt64 { 0x416c_7474_6573_6e75 }
        @inline(__always) static var critical: UInt64 { 0x4c61_6369_7469_7263 }
    }

    static let keyNames: [(code: UInt64, name: String)] = [
        (Key.path, "path"),
        (Key.pathB64, "path_b64"),
        (Key.type, "type"),
        (Key.mode, "mode"),
        (Key.uid, "uid"),
        (Key.gid, "gid"),
        (Key.user, "user"),
        (Key.userB64, "user_b64"),
        (Key.group, "group"),
        (Key.groupB64, "group_b64"),
        (Key.size, "size"),
        (Key.mtime, "mtime"),
        (Key.ctime, "ctime"),
        (Key.btime, "btime"),
        (Key.fs, "fs"),
        (Key.ino, "ino"),
        (Key.links, "links"),
        (Key.rdev, "rdev"),
        (Key.target, "target"),
        (Key.targetB64, "target_b64"),
        (Key.flags, "flags"),
        (Key.acl, "acl"),
        (Key.aclDefault, "acl_default"),
        (Key.xattrs, "xattrs"),
        (Key.holes, "holes"),
        (Key.holesList, "holes_list"),
        (Key.xxh3, "xxh3"),
        (Key.chunks, "chunks"),
        (Key.list, "list"),
        (Key.depth, "depth"),
        (Key.unsettled, "unsettled"),
        (Key.critical, "critical"),
    ]

    @inline(__always)
    static func code(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var value: UInt64 = 0
        if bytes.count >= 8 {
            value = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        } else {
            for index in 0..<bytes.count { value |= UInt64(bytes[index]) << (8 * UInt64(index)) }
        }
        return value ^ UInt64(bytes.count) << 58
    }

    private static func scan(_ line: UnsafeRawBufferPointer) -> (JSONScanner, Fields)? {
        var scanner = JSONScanner(line)
        var fields = Fields()
        guard scanner.enter(0x7B) else { return nil }
        var isFirst = true
        while let (key, value) = scanner.nextField(isFirst: isFirst) {
            isFirst = false
            switch code(scanner.slice(key)) {
            case Key.path: fields.path = value
            case Key.pathB64: (fields.path, fields.pathIsBase64) = (value, true)
            case Key.type: fields.type = value
            case Key.mode: fields.mode = value
            case Key.uid: fields.uid = value
            case Key.gid: fields.gid = value
            case Key.user: fields.user = value
            case Key.userB64: (fields.user, fields.userIsBase64) = (value, true)
            case Key.group: fields.group = value
            case Key.groupB64: (fields.group, fields.groupIsBase64) = (value, true)
            case Key.size: fields.size = value
            case Key.mtime: fields.mtime = value
            case Key.ctime: fields.ctime = value
            case Key.btime: fields.btime = value
            case Key.fs: fields.fs = value
            case Key.ino: fields.ino = value
            case Key.links: fields.links = value
            case Key.rdev: fields.rdev = value
            case Key.target: fields.target = value
            case Key.targetB64: (fields.target, fields.targetIsBase64) = (value, true)
            case Key.flags: fields.flags = value
            case Key.acl: fields.acl = value
            case Key.aclDefault: fields.aclDefault = value
            case Key.xattrs: fields.xattrs = value
            case Key.holes: fields.holes = value
            case Key.holesList: fields.holesList = value
            case Key.xxh3: fields.xxh3 = value
            case Key.chunks: fields.chunks = value
            case Key.list: fields.list = value
            case Key.depth: fields.depth = value
            case Key.unsettled: fields.unsettled = value
            case Key.critical: fields.critical = value
            default: break
            }
        }
        guard !scanner.isBroken, scanner.isAtEnd() else { return nil }
        return (scanner, fields)
    }

    /// Decodes one line (with or without its LF). Nil where it is not an entry of format 1, or asks
    /// for a field this reader lacks.
    package static func read(_ line: UnsafeRawBufferPointer) -> Entry? {
        var entry = Entry(path: [], kind: .file)
        return read(line, into: &entry) ? entry : nil
    }

    /// Decodes one line into an entry that held another, whose memory is used again: who reads many
    /// lines allocates nothing. Where the line is no entry the answer is false, and `entry` holds
    /// nothing of use.
    package static func read(_ line: UnsafeRawBufferPointer, into entry: inout Entry) -> Bool {
        if readUsual(line, into: &entry) { return true }
        guard let read = readAny(line) else { return false }
        entry = read
        return true
    }

    /// The path of a line: in place where it stands there plainly, else decoded into `scratch`.
    /// Valid as long as both. Empty where the line is no entry.
    package static func path(of line: UnsafeRawBufferPointer, scratch: ByteBuffer)
        -> UnsafeRawBufferPointer
    {
        if var cursor = LineCursor(line), cursor.take("{\"path\":\""), let path = cursor.text() {
            return path
        }
        scratch.removeAll()
        if let entry = read(line) { scratch.append(entry.path) }
        return scratch.bytes
    }

    /// A line with its fields in any order, and with any of them.
    static func readAny(_ line: UnsafeRawBufferPointer) -> Entry? {
        guard let (scanner, fields) = scan(line) else { return nil }
        if let value = fields.critical, !isKnown(scanner, critical: value) { return nil }
        func text(_ value: JSONScanner.Value?, base64: Bool) -> [UInt8]? {
            guard let value, let text = scanner.text(value) else { return nil }
            return base64 ? text.withUnsafeBytes { Base64.decode($0) } : text
        }
        func time(_ value: JSONScanner.Value?) -> Timestamp? {
            guard let value, value.kind == .text else { return nil }
            return Timestamp(text: scanner.slice(value))
        }
        func word(_ value: JSONScanner.Value?) -> UInt32? {
            guard let value, let number = scanner.integer(value) else { return nil }
            return UInt32(exactly: number)
        }
        func ids(_ value: JSONScanner.Value?) -> [ChunkID]? {
            guard let value else { return [] }
            return readIDs(scanner, value)
        }
        guard let path = text(fields.path, base64: fields.pathIsBase64),
            EntryPath.isCanonical(path),
            let type = fields.type, type.kind == .text,
            let kind = EntryKind(name: scanner.slice(type)),
            let modeText = fields.mode, let mode = octal(scanner.slice(modeText)),
            let uid = word(fields.uid), let gid = word(fields.gid),
            let mtime = time(fields.mtime), let ctime = time(fields.ctime),
            let fileSystem = word(fields.fs),
            let inode = fields.ino.flatMap({ unsigned(scanner, $0) })
        else { return nil }
        var entry = Entry(path: path, kind: kind)
        entry.mode = mode
        entry.uid = uid
        entry.gid = gid
        entry.mtime = mtime
        entry.ctime = ctime
        entry.fileSystem = fileSystem
        entry.inode = inode
        if fields.user != nil {
            guard let user = text(fields.user, base64: fields.userIsBase64) else { return nil }
            entry.user = user
        }
        if fields.group != nil {
            guard let group = text(fields.group, base64: fields.groupIsBase64) else { return nil }
            entry.group = group
        }
        if kind == .file {
            guard let size = fields.size.flatMap({ scanner.integer($0) }) else { return nil }
            entry.size = size
        }
        if fields.btime != nil {
            guard let btime = time(fields.btime) else { return nil }
            entry.btime = btime
        }
        if fields.links != nil {
            guard let links = word(fields.links) else { return nil }
            entry.links = links
        }
        if kind.isDevice {
            guard let rdev = fields.rdev, let numbers = readNumbers(scanner, rdev),
                numbers.count == 2,
                let major = UInt32(exactly: numbers[0]), let minor = UInt32(exactly: numbers[1])
            else { return nil }
            entry.deviceMajor = major
            entry.deviceMinor = minor
        }
        if kind == .symlink {
            guard let target = text(fields.target, base64: fields.targetIsBase64) else {
                return nil
            }
            entry.target = target
        }
        if let value = fields.flags {
            guard let flags = readFlags(scanner, value) else { return nil }
            entry.flags = flags
        }
        if fields.acl != nil {
            guard let acl = text(fields.acl, base64: false) else { return nil }
            entry.acl = acl
        }
        if fields.aclDefault != nil {
            guard let acl = text(fields.aclDefault, base64: false) else { return nil }
            entry.defaultACL = acl
        }
        if let value = fields.xattrs {
            guard let attributes = readAttributes(scanner, value) else { return nil }
            entry.xattrs = attributes
        }
        if let value = fields.holes {
            guard let holes = readHoles(scanner, value, size: entry.size) else { return nil }
            entry.holes = holes
        }
        guard let holesList = ids(fields.holesList) else { return nil }
        entry.holesList = holesList
        if let value = fields.xxh3 {
            guard value.kind == .text, let fingerprint = Fingerprint(hex: scanner.slice(value))
            else { return nil }
            entry.fingerprint = fingerprint
        }
        if fields.list != nil {
            guard fields.chunks == nil, let list = ids(fields.list),
                let depth = fields.depth.flatMap({ scanner.integer($0) }), (1...8).contains(depth)
            else { return nil }
            entry.chunks = list
            entry.listDepth = Int(depth)
        } else {
            guard let chunks = ids(fields.chunks) else { return nil }
            entry.chunks = chunks
        }
        entry.isUnsettled = fields.unsettled != nil
        return entry
    }

    /// Adds what a line relies on: chunks of content and of hole lists to `chunks`, list nodes to
    /// `nodes`. False where it is no entry.
    package static func references(
        _ line: UnsafeRawBufferPointer, chunks: inout [ChunkID], nodes: inout [ChunkID]
    ) -> Bool {
        var entry = Entry(path: [], kind: .file)
        if readUsual(line, into: &entry) {
            chunks += entry.chunks
            return true
        }
        guard let (scanner, fields) = scan(line) else { return false }
        for value in [fields.chunks, fields.holesList] {
            guard let value else { continue }
            guard let ids = readIDs(scanner, value) else { return false }
            chunks += ids
        }
        if let value = fields.list {
            guard let ids = readIDs(scanner, value) else { return false }
            nodes += ids
        }
        return true
    }

    private static let known: Set<String> = [
        "path", "path_b64", "type", "mode", "uid", "gid", "user", "user_b64", "group", "group_b64",
        "size", "mtime", "ctime",
        "btime", "fs", "ino", "links", "rdev", "target", "target_b64", "flags", "acl",
        "acl_default", "xattrs", "holes",
        "holes_list", "xxh3", "chunks", "list", "depth", "unsettled",
    ]

    /// Whether every field that a line declares critical is one of format 1.
    private static func isKnown(_ scanner: JSONScanner, critical: JSONScanner.Value) -> Bool {
        guard let names = JSONValue(parsing: scanner.slice(critical))?.array else { return false }
        return names.allSatisfy { $0.string.map(known.contains) ?? false }
    }

    /// Inode numbers may use all 64 bits.
    private static func unsigned(_ scanner: JSONScanner, _ value: JSONScanner.Value) -> UInt64? {
        guard value.kind == .number else { return nil }
        var result: UInt64 = 0
        for byte in scanner.slice(value) {
            guard byte &- 48 < 10 else { return nil }
            let (product, overflow) = result.multipliedReportingOverflow(by: 10)
            let (sum, overflow2) = product.addingReportingOverflow(UInt64(byte - 48))
            if overflow || overflow2 { return nil }
            result = sum
        }
        return result
    }

    private static func octal(_ text: UnsafeRawBufferPointer) -> UInt32? {
        guard (1...4).contains(text.count) else { return nil }
        var value: UInt32 = 0
        for byte in text {
            guard byte &- 48 < 8 else { return nil }
            value = value << 3 | UInt32(byte - 48)
        }
        return value
    }

    package static func readIDs(_ scanner: JSONScanner, _ value: JSONScanner.Value) -> [ChunkID]? {
        guard value.kind == .array else { return nil }
        var inner = JSONScanner(scanner.bytes, at: value.start)
        var ids: [ChunkID] = []
        ids.reserveCapacity((value.end - value.start) / 67)
        guard inner.enter(0x5B) else { return nil }
        while let element = inner.nextElement(isFirst: ids.isEmpty) {
            guard element.kind == .text, let id = ChunkID(hex: inner.slice(element)) else {
                return nil
            }
            ids.append(id)
        }
        return inner.isBroken ? nil : ids
    }

    private static func readNumbers(_ scanner: JSONScanner, _ value: JSONScanner.Value) -> [UInt64]?
    {
        guard value.kind == .array else { return nil }
        var inner = JSONScanner(scanner.bytes, at: value.start)
        var numbers: [UInt64] = []
        guard inner.enter(0x5B) else { return nil }
        while let element = inner.nextElement(isFirst: numbers.isEmpty) {
            guard let number = inner.integer(element) else { return nil }
            numbers.append(number)
        }
        return inner.isBroken ? nil : numbers
    }

    private static func readHoles(_ scanner: JSONScanner, _ value: JSONScanner.Value, size: UInt64)
        -> [Hole]?
    {
        guard value.kind == .array else { return nil }
        var inner = JSONScanner(scanner.bytes, at: value.start)
        var holes: [Hole] = []
        guard inner.enter(0x5B) else { return nil }
        while let element = inner.nextElement(isFirst: holes.isEmpty) {
            guard let pair = readNumbers(inner, element), pair.count == 2 else { return nil }
            holes.append(Hole(offset: pair[0], length: pair[1]))
        }
        return inner.isBroken || !areOrdered(holes, size: size) ? nil : holes
    }

    /// Whether holes ascend, do not touch, and lie within the file: what every reader of a manifest
    /// relies on.
    package static func areOrdered(_ holes: [Hole], size: UInt64) -> Bool {
        var end: UInt64 = 0
        for (index, hole) in holes.enumerated() {
            guard hole.length > 0, index == 0 || hole.offset > end else { return false }
            let (next, overflow) = hole.offset.addingReportingOverflow(hole.length)
            guard !overflow, next <= size else { return false }
            end = next
        }
        return true
    }

    /// JSON Lines `[offset,length]`, as a list of holes is stored in chunks.
    package static func readHoleLines(_ bytes: UnsafeRawBufferPointer, size: UInt64) -> [Hole]? {
        var holes: [Hole] = []
        var start = 0
        while start < bytes.count {
            var end = start
            while end < bytes.count, bytes[end] != 0x0A { end += 1 }
            var scanner = JSONScanner(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
            guard let value = scanner.value(), let pair = readNumbers(scanner, value),
                pair.count == 2
            else { return nil }
            holes.append(Hole(offset: pair[0], length: pair[1]))
            start = end + 1
        }
        return areOrdered(holes, size: size) ? holes : nil
    }

    private static func readFlags(_ scanner: JSONScanner, _ value: JSONScanner.Value) -> UInt32? {
        guard value.kind == .array else { return nil }
        var inner = JSONScanner(scanner.bytes, at: value.start)
        var flags: UInt32 = 0
        var isFirst = true
        guard inner.enter(0x5B) else { return nil }
        while let element = inner.nextElement(isFirst: isFirst) {
            isFirst = false
            guard element.kind == .text else { return nil }
            // A flag this release does not know cannot be set by it either: restore reports what it
            // knows.
            if let bit = InodeFlags.bit(named: inner.slice(element)) { flags |= bit }
        }
        return inner.isBroken ? nil : flags
    }

    private static func readAttributes(_ scanner: JSONScanner, _ value: JSONScanner.Value)
        -> [ExtendedAttribute]?
    {
        guard value.kind == .array else { return nil }
        var inner = JSONScanner(scanner.bytes, at: value.start)
        var attributes: [ExtendedAttribute] = []
        guard inner.enter(0x5B) else { return nil }
        while let element = inner.nextElement(isFirst: attributes.isEmpty) {
            guard element.kind == .array else { return nil }
            var pair = JSONScanner(scanner.bytes, at: element.start)
            guard pair.enter(0x5B), let nameValue = pair.nextElement(isFirst: true),
                let content = pair.nextElement(isFirst: false), content.kind == .text,
                pair.nextElement(isFirst: false) == nil, !pair.isBroken,
                let decoded = Base64.decode(pair.slice(content))
            else { return nil }
            let name: [UInt8]
            if nameValue.kind == .text {
                guard let text = pair.text(nameValue) else { return nil }
                name = text
            } else {
                guard let path = JSONValue(parsing: pair.slice(nameValue))?.path else { return nil }
                name = path
            }
            attributes.append(ExtendedAttribute(name: name, value: decoded))
        }
        return inner.isBroken ? nil : attributes
    }
}
