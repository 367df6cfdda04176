import SnapshotModel

/// What planning a restore asks of a manifest line, read without allocating; the line itself is
/// decoded whole where its entry is made.
struct RestoreLine {
    var kind = EntryKind.file
    var size: UInt64 = 0
    var links: UInt64 = 1
    var fileSystem: UInt64 = 0
    var inode: UInt64 = 0
    /// Where the array of chunks, or of list nodes, begins in the line; 0 where there is none.
    var chunks = 0
    /// Levels of list nodes above the chunks.
    var depth = 0
    var hasHoles = false
    var hasFlags = false
    private var pathRange = 0..<0
    private var pathIsPlain = true
    private let decodedPath = ByteBuffer(capacity: 1024)

    /// The path of the line read last. Valid until the next one is read.
    func path(in line: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        pathIsPlain ? UnsafeRawBufferPointer(rebasing: line[pathRange]) : decodedPath.bytes
    }

    /// False where the line is no entry of format 1.
    mutating func read(_ line: UnsafeRawBufferPointer) -> Bool {
        var scanner = JSONScanner(line)
        guard scanner.enter(0x7B) else { return false }
        var path: JSONScanner.Value?
        var pathIsBase64 = false
        var type: JSONScanner.Value?
        var hasInode = false
        var isFirst = true
        size = 0
        links = 1
        chunks = 0
        depth = 0
        hasHoles = false
        hasFlags = false
        while let (key, value) = scanner.nextField(isFirst: isFirst) {
            isFirst = false
            let name = scanner.slice(key)
            switch name.count {
            case 2 where Self.isNamed(name, "fs"):
                guard let number = scanner.integer(value) else { return false }
                fileSystem = number
            case 3 where Self.isNamed(name, "ino"):
                guard let number = Self.unsigned(scanner.slice(value)) else { return false }
                inode = number
                hasInode = true
            case 4:
                // The four letters as one little-endian number: nearly every key has four.
                switch name.loadUnaligned(as: UInt32.self) {
                case 0x6874_6170: path = value
                case 0x6570_7974: type = value
                case 0x657A_6973:
                    guard let number = scanner.integer(value) else { return false }
                    size = number
                case 0x7473_696C:
                    guard value.kind == .array, chunks == 0 else { return false }
                    chunks = value.start
                    depth = max(depth, 1)
                default: break
                }
            case 5 where Self.isNamed(name, "links"):
                guard let number = scanner.integer(value) else { return false }
                links = number
            case 5 where Self.isNamed(name, "depth"):
                guard let number = scanner.integer(value), (1...8).contains(number) else {
                    return false
                }
                depth = Int(number)
            case 5 where Self.isNamed(name, "holes"): hasHoles = true
            case 5 where Self.isNamed(name, "flags"): hasFlags = true
            case 6 where Self.isNamed(name, "chunks"):
                guard value.kind == .array, chunks == 0 else { return false }
                chunks = value.start
            case 8 where Self.isNamed(name, "path_b64"):
                path = value
                pathIsBase64 = true
            case 8 where Self.isNamed(name, "critical"): return false
            case 10 where Self.isNamed(name, "holes_list"): hasHoles = true
            default: break
            }
        }
        guard !scanner.isBroken, scanner.isAtEnd(), hasInode, let path, path.kind == .text,
            let type,
            let kind = Self.kind(scanner.slice(type))
        else { return false }
        self.kind = kind
        if kind != .file {
            chunks = 0
            size = 0
        }
        if chunks == 0 { depth = 0 }
        pathRange = path.range
        pathIsPlain = !path.hasEscapes && !pathIsBase64
        if !pathIsPlain {
            let decoded =
                pathIsBase64 ? Base64.decode(scanner.slice(path)) : scanner.text(path)
            guard let decoded else { return false }
            decodedPath.removeAll()
            decodedPath.append(decoded)
        }
        return true
    }

    @inline(__always)
    private static func isNamed(_ name: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        Memory.equal(
            name, UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Inode numbers may use all 64 bits.
    private static func unsigned(_ text: UnsafeRawBufferPointer) -> UInt64? {
        guard text.count > 0 else { return nil }
        var result: UInt64 = 0
        for byte in text {
            guard byte &- 48 < 10 else { return nil }
            let (product, overflow) = result.multipliedReportingOverflow(by: 10)
            let (sum, overflow2) = product.addingReportingOverflow(UInt64(byte &- 48))
            if overflow || overflow2 { return nil }
            result = sum
        }
        return result
    }

    private static func kind(_ name: UnsafeRawBufferPointer) -> EntryKind? {
        for kind in EntryKind.allCases where isNamed(name, kind.name) { return kind }
        return nil
    }
}

/// Where the bytes of a file's chunks go: the content outside of holes, piece by piece.
struct RestorePieces {
    private let holes: [Hole]
    private var next = 0
    /// In the file; everything before is covered.
    private(set) var position: UInt64 = 0
    let size: UInt64

    /// - Parameter holes: Ascending, apart, and within `size`: as a manifest's reader has checked.
    init(holes: [Hole], size: UInt64) {
        self.holes = holes
        self.size = size
        skipHoles()
    }

    private mutating func skipHoles() {
        while next < holes.count, holes[next].offset == position {
            position += holes[next].length
            next += 1
        }
    }

    /// Whether the chunks so far make the whole content.
    var isComplete: Bool { position == size }

    /// Calls `body` with the place in the file, the place in the chunk and the count of each piece
    /// of the next `length` bytes. False where the file has no room for them.
    mutating func take<Failure: Error>(
        _ length: Int, _ body: (UInt64, Int, Int) throws(Failure) -> Void
    ) throws(Failure) -> Bool {
        var done = 0
        while done < length {
            let end = next < holes.count ? holes[next].offset : size
            guard position < end else { return false }
            let count = Int(min(UInt64(length - done), end - position))
            try body(position, done, count)
            position += UInt64(count)
            done += count
            skipHoles()
        }
        return true
    }
}
