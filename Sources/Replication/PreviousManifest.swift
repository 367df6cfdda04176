import SnapshotModel

/// A place among the lines of an earlier manifest that moves forward. One thread at a time.
///
/// Lines come from one body, or first from the draft of an interrupted run as far as that got, then
/// from the last manifest behind it.
final class ManifestCursor {
    private let readers: [ManifestBodyReader]
    private var readerIndex = 0
    private var position = 0
    private(set) var line = UnsafeRawBufferPointer(start: nil, count: 0)
    private(set) var summary = EntrySummary()
    private let decodedPath = ByteBuffer(capacity: 1024)
    /// The largest path of the readers that are exhausted: lines of later ones up to it have been
    /// superseded.
    private let passed = ByteBuffer(capacity: 1024)
    private var hasBlock = false
    private(set) var isAtEnd = false
    /// Lines delivered so far, the current one included.
    private(set) var delivered = 0
    /// Whether the current line comes from a draft: what it names may not have been stored.
    var isFromDraft: Bool { beginsWithDraft && readerIndex == 0 }
    private let beginsWithDraft: Bool

    /// - Parameter beginsWithDraft: The first reader's lines were written by a run that died. There
    ///   need be no other reader.
    init(_ readers: [ManifestBodyReader], beginsWithDraft: Bool = false) {
        self.readers = readers
        self.beginsWithDraft = beginsWithDraft
        advance()
    }

    /// Begins at a line whose place is known.
    init(_ reader: ManifestBodyReader, block: Int64, offset: Int) {
        readers = [reader]
        beginsWithDraft = false
        reader.seek(to: block)
        if reader.next() {
            hasBlock = true
            position = offset
        }
        advance()
    }

    var path: UnsafeRawBufferPointer {
        summary.pathIsPlain
            ? UnsafeRawBufferPointer(rebasing: line[summary.pathRange]) : decodedPath.bytes
    }

    /// Where the current line stands, for a cursor that begins there.
    var place: (block: Int64, offset: Int) {
        (readers[readerIndex].blockOffset, position - line.count - 1)
    }

    func advance() {
        while readerIndex < readers.count {
            let reader = readers[readerIndex]
            while true {
                if hasBlock, let end = JSONLines.lineEnd(reader.block.bytes, from: position) {
                    line = UnsafeRawBufferPointer(rebasing: reader.block.bytes[position..<end])
                    position = end + 1
                    // A line that cannot be read is passed over: its file is read again.
                    guard summary.read(line) else { continue }
                    if !summary.pathIsPlain {
                        guard let entry = EntryCodec.read(line) else { continue }
                        decodedPath.removeAll()
                        decodedPath.append(entry.path)
                    }
                    if readerIndex > 0, passed.count > 0, EntryPath.compare(path, passed.bytes) <= 0
                    {
                        continue
                    }
                    delivered += 1
                    return
                }
                if hasBlock, delivered > 0, readerIndex + 1 < readers.count, line.count > 0 {
                    passed.removeAll()
                    passed.append(path)
                }
                guard reader.next() else { break }
                hasBlock = true
                position = 0
            }
            readerIndex += 1
            hasBlock = false
            position = 0
        }
        isAtEnd = true
        line = UnsafeRawBufferPointer(start: nil, count: 0)
    }
}

/// Where the directories of an earlier manifest stand, by file system and inode: finds the old
/// place of one that was renamed.
struct DirectoryPlaces {
    struct Key: Hashable {
        let fileSystem: UInt32
        let inode: UInt64
    }
    struct Place {
        let block: Int64
        let offset: Int
    }
    private var places: [Key: Place] = [:]

    /// Reads a whole body. Memory grows with the directories of the tree, not with its files.
    init(path: String) {
        guard let reader = ManifestBodyReader(path: path) else { return }
        let cursor = ManifestCursor([reader])
        while !cursor.isAtEnd {
            if cursor.summary.kind == .directory {
                let place = cursor.place
                places[Key(fileSystem: cursor.summary.fileSystem, inode: cursor.summary.inode)] =
                    Place(block: place.block, offset: place.offset)
            }
            cursor.advance()
        }
    }

    subscript(fileSystem: UInt32, inode: UInt64) -> Place? {
        places[Key(fileSystem: fileSystem, inode: inode)]
    }
}
