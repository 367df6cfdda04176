/// What change detection asks of an old entry, read from its line without allocating. The line
/// itself stays what is carried over.
package struct EntrySummary {
    package var kind: EntryKind = .file
    package var mode: UInt32 = 0
    package var uid: UInt32 = 0
    package var gid: UInt32 = 0
    package var size: UInt64 = 0
    package var mtime = Timestamp(seconds: 0)
    package var ctime = Timestamp(seconds: 0)
    package var fileSystem: UInt32 = 0
    package var inode: UInt64 = 0

    /// The path as it stands in the line: usable as it is where `pathIsPlain`.
    package var pathRange = 0..<0
    /// Whether the path has neither escapes nor base64.
    package var pathIsPlain = true
    /// Whether the entry was marked as unsettled, so that it has to be read again whatever its
    /// status says.
    package var isUnsettled = false

    package init() {}

    /// Reads the fields up to the inode number, relying on the writer's order; a line in any other
    /// order takes the slow way. False where the line is not an entry.
    package mutating func read(_ line: UnsafeRawBufferPointer) -> Bool {
        if readFast(line) { return true }
        guard let entry = EntryCodec.read(line) else { return false }
        kind = entry.kind
        mode = entry.mode
        uid = entry.uid
        gid = entry.gid
        size = entry.size
        mtime = entry.mtime
        ctime = entry.ctime
        fileSystem = entry.fileSystem
        inode = entry.inode
        isUnsettled = entry.isUnsettled
        pathIsPlain = false
        pathRange = 0..<0
        return true
    }

    private mutating func readFast(_ line: UnsafeRawBufferPointer) -> Bool {
        guard let base = line.baseAddress else { return false }
        var end = line.count
        if end > 0, base.load(fromByteOffset: end - 1, as: UInt8.self) == 0x0A { end -= 1 }
        var at = 0

        @inline(__always)
        func byte(_ index: Int) -> UInt8 { base.load(fromByteOffset: index, as: UInt8.self) }

        @inline(__always)
        func expect(_ text: StaticString) -> Bool {
            let count = text.utf8CodeUnitCount
            guard at + count <= end else { return false }
            for index in 0..<count where text.utf8Start[index] != byte(at + index) { return false }
            at += count
            return true
        }

        @inline(__always)
        func number() -> UInt64? {
            var value: UInt64 = 0
            let start = at
            while at < end, byte(at) &- 48 < 10 {
                value = value &* 10 &+ UInt64(byte(at) - 48)
                at += 1
            }
            return at > start && at - start <= 20 ? value : nil
        }

        @inline(__always)
        func skipText() -> Bool {
            while at < end, byte(at) != 0x22 {
                if byte(at) == 0x5C { at += 1 }
                at += 1
            }
            at += 1
            return at <= end
        }

        @inline(__always)
        func time() -> Timestamp? {
            let start = at
            while at < end, byte(at) != 0x22 { at += 1 }
            guard at < end else { return nil }
            let value = Timestamp(text: UnsafeRawBufferPointer(rebasing: line[start..<at]))
            at += 1
            return value
        }

        guard expect("{\"path\":\"") else { return false }
        let pathStart = at
        while at < end, byte(at) != 0x22 {
            if byte(at) == 0x5C { return false }
            at += 1
        }
        pathRange = pathStart..<at
        pathIsPlain = true
        guard expect("\",\"type\":\"") else { return false }
        let typeStart = at
        while at < end, byte(at) != 0x22 { at += 1 }
        guard let type = EntryKind(name: UnsafeRawBufferPointer(rebasing: line[typeStart..<at]))
        else { return false }
        kind = type
        guard expect("\",\"mode\":\"") else { return false }
        mode = 0
        while at < end, byte(at) != 0x22 {
            mode = mode << 3 | UInt32(byte(at) & 7)
            at += 1
        }
        guard expect("\",\"uid\":"), let uid = number(), expect(",\"gid\":"), let gid = number()
        else { return false }
        self.uid = UInt32(truncatingIfNeeded: uid)
        self.gid = UInt32(truncatingIfNeeded: gid)
        if expect(",\"user\":\"") { guard skipText() else { return false } }
        if expect(",\"group\":\"") { guard skipText() else { return false } }
        size = 0
        if kind == .file {
            guard expect(",\"size\":"), let size = number() else { return false }
            self.size = size
        }
        guard expect(",\"mtime\":\""), let mtime = time(), expect(",\"ctime\":\""),
            let ctime = time()
        else { return false }
        self.mtime = mtime
        self.ctime = ctime
        if expect(",\"btime\":\"") { guard time() != nil else { return false } }
        guard expect(",\"fs\":"), let fileSystem = number(), expect(",\"ino\":"),
            let inode = number()
        else { return false }
        self.fileSystem = UInt32(truncatingIfNeeded: fileSystem)
        self.inode = inode
        // The mark stands last; a quote before it keeps a name that ends alike from looking like
        // it.
        isUnsettled = false
        let mark: StaticString = ",\"unsettled\":true}"
        if end >= mark.utf8CodeUnitCount {
            at = end - mark.utf8CodeUnitCount
            isUnsettled = expect(mark)
        }
        return true
    }
}
