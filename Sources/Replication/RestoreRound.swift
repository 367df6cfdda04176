import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// One entry of a round that is no directory.
struct RestoreRecord {
    enum Action: UInt8 {
        /// Nothing stands in its place.
        case create
        /// What stands in its place goes.
        case replace
        /// Blocks of what stands in its place are rewritten.
        case rewrite
        /// Nothing is to be done, or nothing more.
        case done
        /// It is there already, as the snapshot has it: other names may be linked to it.
        case same
    }

    var line: UInt32
    var lineLength: UInt32
    /// Where the ids begin in the line; 0 where there are none.
    var chunks: UInt32
    var kind: EntryKind
    var depth: UInt8
    var hasHoles: Bool
    var isLinked: Bool
    var action = Action.create
    /// Index of the shared writer, of the ranges to take over; -1 where there is none.
    var open: Int32 = -1
    var reuse: Int32 = -1
    var size: UInt64
    var inode: UInt64
    var fileSystem: UInt32
}

/// What of an existing file need not be fetched.
struct RestoreReuse {
    /// A bit for each chunk, in order.
    var chunks: [UInt64] = []
    /// The same as ranges of the file, joined where they touch.
    var ranges: [(offset: UInt64, length: UInt64)] = []
    var bytes: UInt64 = 0

    func holds(_ chunk: Int) -> Bool {
        chunk >> 6 < chunks.count && chunks[chunk >> 6] >> UInt64(chunk & 63) & 1 != 0
    }

    mutating func add(chunk: Int) {
        while chunks.count <= chunk >> 6 { chunks.append(0) }
        chunks[chunk >> 6] |= 1 << UInt64(chunk & 63)
    }

    mutating func add(offset: UInt64, length: UInt64) {
        bytes += length
        if let last = ranges.last, last.offset + last.length == offset {
            ranges[ranges.count - 1].length += length
        } else {
            ranges.append((offset, length))
        }
    }
}

/// One piece of a chunk and where it goes.
struct RestorePiece {
    var fileOffset: UInt64
    var record: UInt32
    /// Index of the chunk among those of its work set.
    var chunk: UInt32
    /// In the chunk.
    var offset: UInt32
    var length: UInt32
}

/// A chunk that is wanted, and where it lies in its frame.
struct RestoreChunk {
    var id: ChunkID
    var offset: UInt32
    var length: UInt32
}

/// A frame that is wanted.
struct RestoreFrame {
    var number: UInt64
    var bundle: BundleID
    var bundleSize: Int
    var frame: IndexedFrame
}

/// Pieces that are written together: as many as memory allows, sorted by the frames they come from.
///
/// Built by one thread; read by all workers while nothing is added.
final class RestoreWorkSet: @unchecked Sendable {
    // Sendable: nobody writes while the workers read.
    static let piecesMaximum = 192 << 10

    private(set) var pieces: [RestorePiece] = []
    private(set) var chunks: [RestoreChunk] = []
    private(set) var frames: [RestoreFrame] = []
    private var frameOfPiece: [UInt32] = []
    private var known: [UInt64: UInt32] = [:]
    private var lastFrame: (number: UInt64, index: UInt32)?

    /// The pieces in order of frames; filled by `sort`.
    private(set) var order: [UInt32] = []
    /// Where the pieces of a frame begin in `order`; one more than there are frames.
    private(set) var starts: [Int] = []
    /// Frames in the order of their places in the store.
    private(set) var frameOrder: [UInt32] = []

    init() {
        pieces.reserveCapacity(64 << 10)
        chunks.reserveCapacity(64 << 10)
    }

    var isEmpty: Bool { pieces.isEmpty }
    var isFull: Bool { pieces.count >= Self.piecesMaximum }

    /// Adds a chunk; the pieces follow.
    /// - Returns: Its number and that of its frame.
    func add(_ id: ChunkID, _ location: ChunkLocation) -> (chunk: UInt32, frame: UInt32) {
        let frame: UInt32
        if let last = lastFrame, last.number == location.frameNumber {
            frame = last.index
        } else if let index = known[location.frameNumber] {
            frame = index
        } else {
            frame = UInt32(frames.count)
            known[location.frameNumber] = frame
            frames.append(
                RestoreFrame(
                    number: location.frameNumber, bundle: location.bundle,
                    bundleSize: location.bundleSize, frame: location.frame))
        }
        lastFrame = (location.frameNumber, frame)
        chunks.append(
            RestoreChunk(
                id: id, offset: UInt32(location.offset), length: UInt32(location.length)))
        return (UInt32(chunks.count - 1), frame)
    }

    func add(_ piece: RestorePiece, frame: UInt32) {
        pieces.append(piece)
        frameOfPiece.append(frame)
    }

    /// Sorts frames by their place in the store and pieces by frames; pieces of one frame stay in
    /// the order of files.
    func sort() {
        frameOrder = frames.indices.map { UInt32($0) }
            .sorted { frames[Int($0)].number < frames[Int($1)].number }
        var rank = [UInt32](repeating: 0, count: frames.count)
        for (position, frame) in frameOrder.enumerated() { rank[Int(frame)] = UInt32(position) }
        starts = [Int](repeating: 0, count: frames.count + 1)
        for frame in frameOfPiece { starts[Int(rank[Int(frame)]) + 1] += 1 }
        for index in 0..<frames.count { starts[index + 1] += starts[index] }
        var next = starts
        order = [UInt32](repeating: 0, count: pieces.count)
        for (piece, frame) in frameOfPiece.enumerated() {
            let position = Int(rank[Int(frame)])
            order[next[position]] = UInt32(piece)
            next[position] += 1
        }
    }

    /// Runs of neighbouring frames, as ranges of `frameOrder`: one request each.
    func runs(maximumBytes: Int) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        var start = 0
        while start < frameOrder.count {
            let first = frames[Int(frameOrder[start])]
            var end = start + 1
            var limit = first.frame.offset + first.frame.length
            while end < frameOrder.count {
                let next = frames[Int(frameOrder[end])]
                // A small gap costs less than another request.
                guard next.bundle == first.bundle, next.frame.offset >= limit,
                    next.frame.offset - limit <= 64 << 10,
                    next.frame.offset + next.frame.length - first.frame.offset <= maximumBytes
                else { break }
                limit = next.frame.offset + next.frame.length
                end += 1
            }
            runs.append(start..<end)
            start = end
        }
        return runs
    }

    func removeAll() {
        pieces.removeAll(keepingCapacity: true)
        chunks.removeAll(keepingCapacity: true)
        frames.removeAll(keepingCapacity: true)
        frameOfPiece.removeAll(keepingCapacity: true)
        known.removeAll(keepingCapacity: true)
        lastFrame = nil
    }
}

/// A file whose chunks lie in several frames: whoever comes first begins it, whoever brings the
/// last piece finishes it.
final class RestoreOpenFile: Sendable {
    let record: Int
    /// Pieces that are not written yet, and one for the planner as long as it adds some.
    let remaining = Atomic<Int>(1)
    let hasFailed = Atomic<Bool>(false)
    private let opened = Mutex<Opened>(Opened())

    struct Opened {
        var writer: FileWriter?
        var entry: Entry?
        var path: [UInt8] = []
    }

    init(record: Int) { self.record = record }

    /// The writer and entry, made by `make` for the first who asks.
    func open<Failure: Error>(
        _ make: () throws(Failure) -> (FileWriter, Entry)
    ) throws(Failure) -> (FileWriter, Entry) {
        try opened.withLock { (opened) throws(Failure) -> (FileWriter, Entry) in
            if let writer = opened.writer, let entry = opened.entry { return (writer, entry) }
            let (writer, entry) = try make()
            opened.writer = writer
            opened.entry = entry
            return (writer, entry)
        }
    }

    /// Takes the writer out, to be finished or given up.
    func take() -> (FileWriter, Entry)? {
        opened.withLock { opened in
            guard let writer = opened.writer, let entry = opened.entry else { return nil }
            opened.writer = nil
            return (writer, entry)
        }
    }
}

/// Part of a restore that is held in memory at once: whole manifest segments and what is to be done
/// with their entries.
///
/// Built by one thread; while workers run they change only the states of records that are theirs.
final class RestoreRound: @unchecked Sendable {
    // Sendable: see above.
    static let lineBytesMaximum = 12 << 20

    let lines = ByteBuffer(capacity: 1 << 20)
    var records: [RestoreRecord] = []
    var openFiles: [RestoreOpenFile] = []
    var reuses: [RestoreReuse] = []
    /// Records whose entry is no file with content, or whose content is there already.
    var simple: [UInt32] = []
    var links: [(record: UInt32, existing: [UInt8], leader: RestoreLeader)] = []
    /// Further names to which no link could be made: they get content of their own.
    let unlinked = Mutex<[UInt32]>([])

    /// What workers say of the records that are theirs.
    private struct State {
        var action = RestoreRecord.Action.create
        var hasFailed = false
        var isWritten = false
        var reuse: Int32 = -1
    }
    private var states: UnsafeMutablePointer<State>
    private let reuseLock = Mutex<Void>(())

    init() { states = UnsafeMutablePointer<State>.allocate(capacity: 1) }
    deinit { states.deallocate() }

    /// Makes room for what workers will say; the records are complete.
    func prepareStates() {
        states.deallocate()
        states = UnsafeMutablePointer<State>.allocate(capacity: max(records.count, 1))
        states.initialize(repeating: State(), count: max(records.count, 1))
    }

    func hasFailed(_ record: Int) -> Bool { states[record].hasFailed }
    func setFailed(_ record: Int) { states[record].hasFailed = true }
    func isWritten(_ record: Int) -> Bool { states[record].isWritten }
    func setWritten(_ record: Int) { states[record].isWritten = true }

    /// Says what is to be done with a record whose place has been looked at.
    func decide(_ record: Int, _ action: RestoreRecord.Action, reuse: RestoreReuse? = nil) {
        states[record].action = action
        guard let reuse, reuse.bytes > 0 else { return }
        reuseLock.withLock { _ in
            states[record].reuse = Int32(reuses.count)
            reuses.append(reuse)
        }
    }

    /// Takes over what the workers have decided.
    func adoptDecisions() {
        for index in records.indices {
            records[index].action = states[index].action
            records[index].reuse = states[index].reuse
        }
    }

    func line(_ record: RestoreRecord) -> UnsafeRawBufferPointer {
        let start = Int(record.line)
        return UnsafeRawBufferPointer(
            rebasing: lines.bytes[start..<start + Int(record.lineLength)])
    }

    func entry(_ record: RestoreRecord) -> Entry? { EntryCodec.read(line(record)) }

    func removeAll() {
        lines.removeAll()
        lines.shrink(to: Self.lineBytesMaximum + (1 << 20))
        records.removeAll(keepingCapacity: true)
        openFiles.removeAll()
        reuses.removeAll()
        simple.removeAll(keepingCapacity: true)
        links.removeAll()
        unlinked.withLock { $0 = [] }
    }
}

/// The first name of a hard-linked file, to which the others are linked.
final class RestoreLeader: @unchecked Sendable {
    // Sendable: changed by the planner only, between the workers' turns.
    let relative: [UInt8]
    /// Names that may still come.
    var names: UInt64
    /// It was there already, as the snapshot has it.
    let isKept: Bool
    var hasFailed = false

    init(relative: [UInt8], names: UInt64, isKept: Bool) {
        self.relative = relative
        self.names = names
        self.isKept = isKept
    }
}

/// Every bound of a restore's memory that is not in `Limits`.
enum RestoreLimits {
    /// Stored bytes fetched with one request.
    static let requestBytes = 4 << 20
    /// Files that are open at once because their chunks lie in several frames.
    static let openFiles = 256
    /// Records handed to a worker at once.
    static let grain = 64
}
