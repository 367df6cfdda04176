import SnapshotModel

/// One name in a listing. Plain data; the name's bytes lie in the listing, ended by zero.
struct ListedEntry {
    enum State: UInt8 {
        /// To be delivered.
        case entry
        /// A directory on which another file system is mounted, which is not entered.
        case mountPoint
        /// Left out; `detail` is the index of the reason.
        case excluded
        /// Its status could not be read; `detail` is the errno.
        case failed
        /// Of a kind that no manifest knows.
        case unsupported
    }

    var status: FileStatus
    var nameOffset: UInt32
    var detail: Int32
    var nameLength: UInt16
    /// EntryKind's raw value; of an excluded or failed entry only whether it is a directory.
    var kind: UInt8
    var state: State
}

/// What one directory holds, sorted by name.
///
/// Filled by one thread and handed over under the lock of the walk; from then on the consumer's,
/// except that threads read the names and statuses of subdirectories that they list.
final class DirectoryListing: @unchecked Sendable {
    // Sendable: see above; `handle` changes and is read by other threads under the lock only.

    /// The directory itself. Nil while it is closed to save descriptors.
    var handle: DirectoryHandle?
    /// Of the directory, taken after it was opened.
    let status: FileStatus
    /// The rules that hold for what lies in it.
    let rules: DirectoryRules?
    let entries: UnsafeMutablePointer<ListedEntry>
    let count: Int
    let names: UnsafeMutablePointer<CChar>
    /// Of the entries that are directories to be entered, in order.
    var children: [PendingDirectory] = []
    var reasons: [ExclusionReason] = []
    /// About the directory itself or its files of rules, with the name concerned (empty: the
    /// directory).
    var problems: [(name: [UInt8], problem: WalkProblem)] = []
    /// It turned out to be a place where another file system is mounted; nothing was listed.
    var isMountPoint = false
    /// And what is mounted there holds no files.
    var isKernelFileSystem = false
    /// It is the list of one source root and nothing else.
    var holdsRoot = false
    private let memory: UnsafeMutableRawPointer

    init(
        handle: DirectoryHandle, status: FileStatus, rules: DirectoryRules?, count: Int,
        nameBytes: Int
    ) {
        self.handle = handle
        self.status = status
        self.rules = rules
        self.count = count
        let entryBytes = count * MemoryLayout<ListedEntry>.stride
        memory = UnsafeMutableRawPointer.allocate(
            byteCount: max(entryBytes + nameBytes, 16),
            alignment: MemoryLayout<ListedEntry>.alignment)
        entries = memory.bindMemory(to: ListedEntry.self, capacity: count)
        names = (memory + entryBytes).bindMemory(to: CChar.self, capacity: nameBytes)
    }

    deinit { memory.deallocate() }

    @inline(__always)
    func name(of entry: UnsafePointer<ListedEntry>) -> UnsafePointer<CChar> {
        UnsafePointer(names + Int(entry.pointee.nameOffset))
    }
}

/// A directory that the walk will enter: its place in the listing above, and how far it has got.
final class PendingDirectory: @unchecked Sendable {
    // Sendable: what changes is guarded by the lock of the walk.

    enum State: UInt8 { case waiting, running, done }

    var state = State.waiting
    /// Once done: what was found, or why nothing was.
    var listing: DirectoryListing?
    var failure: WalkProblem?

    /// The listing that holds its name. It outlives this object's waiting and running: the consumer
    /// leaves a directory only after all its subdirectories. Not counted, since a chain of counted
    /// references would be released by recursion.
    unowned(unsafe) let parent: DirectoryListing
    let entry: UnsafePointer<ListedEntry>
    /// The source root that it lies in.
    let root: WalkRoot

    init(parent: DirectoryListing, entry: UnsafePointer<ListedEntry>, root: WalkRoot) {
        self.parent = parent
        self.entry = entry
        self.root = root
    }
}

/// What all directories below one source root share.
final class WalkRoot: Sendable {
    let path: [UInt8]
    let device: UInt64

    init(path: [UInt8], device: UInt64) {
        self.path = path
        self.device = device
    }
}
