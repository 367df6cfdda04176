import FileTree
import SnapshotModel

/// A run of neighbouring entries on its way to the manifest: lines that are carried over as they
/// are, and between them files that have to be looked at. One thread fills it, another works on it.
final class ContentPart: @unchecked Sendable {
    // Sendable: has one owner at a time.
    struct Item {
        var path: Range<Int>
        var name: Range<Int>
        var oldLine: Range<Int>
        /// Bytes of `lines` that stand before this entry.
        var linesBefore: Int
        var status: FileStatus
        var kind: EntryKind
        var parent: DirectoryHandle
        var directory: DirectoryHandle?
        /// A directory that the walk could not open, and has named.
        var isUnreadable: Bool
        var fileSystem: UInt32
        /// The old line belongs to another path: the directory above was renamed.
        var isMoved: Bool
        /// Status says that nothing changed; only the line has to be written anew.
        var keepsContent: Bool
    }

    let number: Int
    /// Lines of unchanged entries.
    let lines: ByteBuffer
    var lineCount = 0
    private(set) var items: [Item] = []
    private let bytes = ByteBuffer(capacity: 16 << 10)
    private(set) var contentBytes = 0
    var isVerbatim = true

    init(number: Int) {
        self.number = number
        lines = ByteBuffer(capacity: 64 << 10)
    }

    var isFull: Bool {
        lines.count >= Limits.partLineBytes || items.count >= Limits.partItems
            || contentBytes >= Limits.partContentBytes
    }
    var isEmpty: Bool { lines.count == 0 && items.isEmpty && isVerbatim }

    func add(line: UnsafeRawBufferPointer) {
        lines.append(line)
        lines.append(0x0A)
        lineCount += 1
    }

    func add(
        path: UnsafeRawBufferPointer, name: UnsafePointer<CChar>, oldLine: UnsafeRawBufferPointer?,
        status: FileStatus,
        kind: EntryKind, parent: DirectoryHandle, directory: DirectoryHandle?, isUnreadable: Bool,
        fileSystem: UInt32, isMoved: Bool, keepsContent: Bool
    ) {
        let pathStart = bytes.count
        bytes.append(path)
        let nameStart = bytes.count
        var length = 0
        while name[length] != 0 { length += 1 }
        bytes.append(UnsafeRawBufferPointer(start: name, count: length + 1))
        let lineStart = bytes.count
        if let oldLine { bytes.append(oldLine) }
        items.append(
            Item(
                path: pathStart..<nameStart, name: nameStart..<lineStart,
                oldLine: lineStart..<bytes.count,
                linesBefore: lines.count, status: status, kind: kind, parent: parent,
                directory: directory, isUnreadable: isUnreadable,
                fileSystem: fileSystem, isMoved: isMoved, keepsContent: keepsContent))
        if kind == .file, !keepsContent { contentBytes += Int(clamping: status.size) }
        isVerbatim = false
    }

    func path(_ item: Item) -> [UInt8] {
        Array(UnsafeRawBufferPointer(rebasing: bytes.bytes[item.path]))
    }

    /// Ended by zero. Valid as long as the part.
    func name(_ item: Item) -> UnsafePointer<CChar> {
        UnsafeRawPointer(bytes.base + item.name.lowerBound).assumingMemoryBound(to: CChar.self)
    }

    func oldLine(_ item: Item) -> UnsafeRawBufferPointer? {
        item.oldLine.isEmpty ? nil : UnsafeRawBufferPointer(rebasing: bytes.bytes[item.oldLine])
    }
}
