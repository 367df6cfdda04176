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
        guard var cursor = LineCursor(line), cursor.take("{\"path\":\"") else { return false }
        let pathStart = cursor.position
        guard let path = cursor.text() else { return false }
        pathRange = pathStart..<pathStart + path.count
        pathIsPlain = true
        guard cursor.take(",\"type\":\""), let kind = cursor.kind(),
            cursor.take(",\"mode\":\""), let mode = cursor.octal(),
            cursor.take(",\"uid\":"), let uid = cursor.word(),
            cursor.take(",\"gid\":"), let gid = cursor.word()
        else { return false }
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        if cursor.take(",\"user\":\"") { guard cursor.text() != nil else { return false } }
        if cursor.take(",\"group\":\"") { guard cursor.text() != nil else { return false } }
        size = 0
        if kind == .file {
            guard cursor.take(",\"size\":"), let size = cursor.number() else { return false }
            self.size = size
        }
        guard cursor.take(",\"mtime\":\""), let mtime = cursor.time(),
            cursor.take(",\"ctime\":\""), let ctime = cursor.time()
        else { return false }
        self.mtime = mtime
        self.ctime = ctime
        if cursor.take(",\"btime\":\"") { guard cursor.time() != nil else { return false } }
        guard cursor.take(",\"fs\":"), let fileSystem = cursor.word(),
            cursor.take(",\"ino\":"), let inode = cursor.number()
        else { return false }
        self.fileSystem = fileSystem
        self.inode = inode
        // The mark stands last; a quote before it keeps a name that ends alike from looking like
        // it.
        isUnsettled = cursor.endsWith(",\"unsettled\":true}")
        return true
    }
}
