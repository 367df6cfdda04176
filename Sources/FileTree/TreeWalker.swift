import CSystem
import Glibc
package import SnapshotModel

/// What a walk delivered last; the walker's properties say more.
package enum WalkEvent: Sendable {
    /// Something to save: `path`, `name`, `status`, `kind`, `parent`, `directory`.
    case entry
    /// Something left out, with all below it: `path`, `exclusion`, `excludedIsDirectory`. Only
    /// where asked for.
    case excluded
    /// Something that could not be read, or not be entered: `path`, `problem`.
    case problem
}

/// Walks source roots and delivers what they hold in the one order of `EntryPath`.
///
/// Threads list directories ahead; one consumer calls `next`, from one thread at a time. A
/// directory is delivered before what it contains, with its status as of after it was opened. One
/// that cannot be entered is delivered with `directory` nil, and the problem follows. Symbolic
/// links are never followed below a root, and every directory is opened by name relative to the
/// open one above: what is exchanged underneath becomes a problem, not a way out of the tree.
/// Nothing here recurses, and no path is handed to the kernel whole, so depth and length of paths
/// are bounded by memory alone.
package final class TreeWalker {
    /// A directory that the walk is in.
    private struct Frame {
        let listing: DirectoryListing
        /// Where its delivery goes on.
        var index: Int
        /// Bytes of `pathBuffer` before the names in it; 0 for the list that holds a root.
        let prefix: Int
    }

    /// The roots as walked: sorted and merged.
    package let roots: [SourceRoot]

    private let options: WalkOptions
    private let queue: WalkQueue
    private let lister: DirectoryLister
    private let openAncestors: Int
    /// From the list that holds the root down to the current directory.
    private var frames: [Frame] = []
    private var nextRoot = 0
    /// How many frames have been closed to save descriptors: those from number 1 on. Number 0 stays
    /// open.
    private var closedFrames = 0
    /// To be delivered next, about the current path.
    private var followingProblem: WalkProblem?
    /// How many problems of the current listing have been delivered.
    private var problemIndex = 0
    private let cursor: UnsafeMutablePointer<WalkCursor>
    private var listing: DirectoryListing
    /// The listing that the delivered entry stands in: the one above `listing` right after a
    /// directory was delivered.
    private var currentParent: DirectoryListing
    /// Stands for the listing before the first and after the last root.
    private let nothing: DirectoryListing

    /// - Parameter roots: Are merged here. Each was found to exist when it was made; one that has
    ///   gone since is a problem event.
    package init(roots: [SourceRoot], options: WalkOptions) throws(FileTreeError) {
        self.roots = try SourceRoot.merged(roots)
        self.options = options
        // A quarter for this walk; the rest is for whoever reads and sends meanwhile.
        let limit = max(csys_raise_open_files(), 64)
        openAncestors = max(options.openAncestors ?? min(limit / 8, 1024), 2)
        queue = WalkQueue(
            options: options,
            directoriesAhead: max(options.directoriesAhead ?? min(limit / 8, 1024), 1))
        lister = DirectoryLister(options: options)
        let root = try DirectoryHandle(opening: [0x2F], reading: false)
        nothing = DirectoryListing(
            handle: root, status: try root.status(), rules: nil, count: 0, nameBytes: 0)
        listing = nothing
        currentParent = nothing
        cursor = .allocate(capacity: 1)
        cursor.initialize(
            to: WalkCursor(
                entries: nothing.entries, names: nothing.names, current: nothing.entries,
                path: .allocate(byteCount: 4096, alignment: 16), pathCapacity: 4096))
        queue.start()
    }

    deinit {
        queue.stop()
        // What was listed ahead hangs together in chains; taken apart here they are not released by
        // recursion.
        for frame in frames { queue.abandon(frame.listing) }
        cursor.pointee.path.deallocate()
        cursor.deallocate()
    }

    // MARK: What was delivered

    /// Of the entry, exclusion or problem. Valid until the next call of `next`.
    package var path: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: cursor.pointee.path, count: cursor.pointee.pathCount)
    }

    /// Of the entry, ended by zero, in `parent`; `.` for a root that is a directory reached
    /// otherwise. Valid until the next call.
    package var name: UnsafePointer<CChar> { currentParent.name(of: cursor.pointee.current) }

    package var status: FileStatus { cursor.pointee.current.pointee.status }

    /// Reads the status in place. Valid until the next call.
    package var statusPointer: UnsafePointer<FileStatus> {
        UnsafePointer(
            UnsafeRawPointer(cursor.pointee.current).assumingMemoryBound(to: FileStatus.self))
    }

    package var kind: EntryKind { cursor.pointee.kind }

    /// The open directory that `name` is looked up in.
    package var parent: DirectoryHandle { currentParent.handle ?? nothing.handle! }

    /// The open directory that the entry is, unless it could not be or was not to be entered.
    package private(set) var directory: DirectoryHandle?

    /// The entry is a directory on which another file system is mounted that is not entered, and
    /// which therefore counts as empty.
    package private(set) var isMountPoint = false

    /// The entry is a directory that could not be opened; the problem follows.
    package var isUnreadable: Bool { kind == .directory && directory == nil && !isMountPoint }

    /// Where file systems of the kernel are mounted, which hold no files and were not entered; the
    /// first ones.
    package private(set) var kernelFileSystems: [[UInt8]] = []
    /// Where other file systems are mounted that were entered; the first ones.
    package private(set) var enteredFileSystems: [[UInt8]] = []
    /// At most so many of each are kept.
    private static let fileSystemsKept = 64

    /// The entry is a source root itself.
    package var isRoot: Bool { currentParent.holdsRoot }

    package private(set) var exclusion: ExclusionReason?
    package private(set) var excludedIsDirectory = false
    package private(set) var problem: WalkProblem?

    // MARK: Walking

    /// Goes on to the next event.
    ///
    /// - Returns: Nil at the end, then and ever after.
    package func next() -> WalkEvent? {
        let cursor = cursor
        while true {
            if cursor.pointee.needsCare, let problem = attend() {
                self.problem = problem
                return .problem
            }
            if cursor.pointee.index < cursor.pointee.count {
                let entry = cursor.pointee.entries + cursor.pointee.index
                cursor.pointee.index += 1
                cursor.pointee.current = entry
                if cursor.pointee.prefix > 0 {
                    cursor.pointee.pathCount = cursor.pointee.prefix
                    cursor.pointee.append(
                        cursor.pointee.names + Int(entry.pointee.nameOffset),
                        Int(entry.pointee.nameLength))
                }
                if entry.pointee.state == .entry, entry.pointee.kind != EntryKind.directory.rawValue
                {
                    cursor.pointee.kind = EntryKind(rawValue: entry.pointee.kind) ?? .file
                    return .entry
                }
                if let event = special(entry) { return event }
            } else if !leave(), !enterNextRoot() {
                return nil
            }
        }
    }

    /// Puts away what was said of a directory, and brings the problems that are to be delivered
    /// before the next entry.
    private func attend() -> WalkProblem? {
        directory = nil
        isMountPoint = false
        currentParent = listing
        if let problem = followingProblem {
            followingProblem = nil
            return problem
        }
        guard problemIndex < listing.problems.count else {
            cursor.pointee.needsCare = false
            return nil
        }
        let (name, problem) = listing.problems[problemIndex]
        problemIndex += 1
        let prefix = cursor.pointee.prefix
        cursor.pointee.pathCount = name.isEmpty ? max(prefix - 1, 1) : prefix
        name.withUnsafeBytes { cursor.pointee.append($0.baseAddress, $0.count) }
        return problem
    }

    /// Everything but plain entries that are no directories. Nil where there is nothing to deliver.
    private func special(_ entry: UnsafeMutablePointer<ListedEntry>) -> WalkEvent? {
        switch entry.pointee.state {
        case .entry:
            cursor.pointee.kind = .directory
            return enter(entry)
        case .mountPoint:
            cursor.pointee.kind = .directory
            isMountPoint = true
            cursor.pointee.needsCare = true
            return .entry
        case .excluded:
            guard options.reportsExclusions else { return nil }
            exclusion = listing.reasons[Int(entry.pointee.detail)]
            excludedIsDirectory = entry.pointee.kind == EntryKind.directory.rawValue
            return .excluded
        case .failed:
            problem = WalkProblem(errno: entry.pointee.detail, call: "fstatat")
            return .problem
        case .unsupported:
            problem = WalkProblem(.unsupported, "no known kind of file")
            return .problem
        }
    }

    /// Goes down into a directory, and delivers it.
    private func enter(_ entry: UnsafeMutablePointer<ListedEntry>) -> WalkEvent {
        let pending = listing.children[Int(entry.pointee.detail)]
        let place = listing.handle ?? nothing.handle!
        var (found, failure) = queue.take(pending, in: place, by: lister)
        if let errno = failure?.errno, errno == EMFILE || errno == ENFILE {
            closeAncestors(keeping: 1)
            queue.reset(pending)
            (found, failure) = queue.take(pending, in: place, by: lister)
        }
        guard let found else {
            let failure = failure ?? WalkProblem(.unreadable, "unknown reason")
            guard failure.kind == .unreadable else {
                // What is there now is not what was listed, so there is no entry to deliver.
                problem = failure
                return .problem
            }
            followingProblem = failure
            cursor.pointee.needsCare = true
            return .entry
        }
        entry.pointee.status = found.status
        cursor.pointee.needsCare = true
        if found.status.device != listing.status.device, !listing.holdsRoot { note(found) }
        if found.isMountPoint {
            isMountPoint = true
            queue.release(found)
            return .entry
        }
        directory = found.handle
        push(found)
        return .entry
    }

    /// Keeps where a file system begins.
    private func note(_ found: DirectoryListing) {
        if found.isKernelFileSystem {
            if kernelFileSystems.count < Self.fileSystemsKept {
                kernelFileSystems.append(Array(path))
            }
        } else if !found.isMountPoint, enteredFileSystems.count < Self.fileSystemsKept {
            enteredFileSystems.append(Array(path))
        }
    }

    private func push(_ found: DirectoryListing) {
        if !frames.isEmpty { frames[frames.count - 1].index = cursor.pointee.index }
        let length = cursor.pointee.pathCount
        if length > 1 {
            // Stands behind the path, for the names to come, without being part of it yet.
            var slash: UInt8 = 0x2F
            cursor.pointee.append(&slash, 1)
            cursor.pointee.pathCount = length
        }
        let frame = Frame(listing: found, index: 0, prefix: length > 1 ? length + 1 : 1)
        frames.append(frame)
        load(frame)
        problemIndex = 0
        closeAncestors(keeping: openAncestors)
    }

    private func load(_ frame: Frame) {
        listing = frame.listing
        cursor.pointee.entries = frame.listing.entries
        cursor.pointee.names = frame.listing.names
        cursor.pointee.index = frame.index
        cursor.pointee.count = frame.listing.count
        cursor.pointee.prefix = frame.prefix
        // Those were delivered before the first entry.
        problemIndex = frame.listing.problems.count
    }

    private func closeAncestors(keeping number: Int) {
        while frames.count - 1 - closedFrames > number, closedFrames + 1 < frames.count - 1 {
            closedFrames += 1
            queue.setHandle(nil, of: frames[closedFrames].listing)
        }
    }

    /// Goes back up from a directory that is delivered.
    ///
    /// - Returns: False where there is nothing above.
    private func leave() -> Bool {
        guard let done = frames.popLast() else { return false }
        queue.release(done.listing)
        guard let frame = frames.last else {
            listing = nothing
            currentParent = nothing
            (cursor.pointee.index, cursor.pointee.count, cursor.pointee.prefix) = (0, 0, 0)
            problemIndex = 0
            return false
        }
        load(frame)
        currentParent = listing
        if frames.count - 1 <= closedFrames, frames.count > 1 {
            closedFrames = frames.count - 2
            if cursor.pointee.index < cursor.pointee.count { reopen(below: done.listing.handle) }
        }
        return true
    }

    /// Opens the current directory again, which was closed to save descriptors; through the one
    /// below where there is one.
    private func reopen(below: DirectoryHandle?) {
        let flags = O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC
        cursor.pointee.pathCount = max(cursor.pointee.prefix - 1, 1)
        let path = Array(self.path)
        if let below {
            let descriptor = csys_openat(below.descriptor, "..", flags, 0)
            if descriptor >= 0, adopt(DirectoryHandle(owning: descriptor, path: path)) { return }
        }
        // The one below was moved, or was never reopened itself.
        if let handle = try? DirectoryHandle(opening: path), adopt(handle) { return }
        queue.abandon(listing)
        cursor.pointee.index = cursor.pointee.count
        cursor.pointee.needsCare = true
        followingProblem = WalkProblem(
            .changed, "it was moved while the walk was below it; the rest of it is missing")
    }

    private func adopt(_ handle: DirectoryHandle) -> Bool {
        guard let status = try? handle.status(), status.isSameFile(as: listing.status) else {
            return false
        }
        queue.setHandle(handle, of: listing)
        return true
    }

    // MARK: Roots

    /// - Returns: False where there is none left.
    private func enterNextRoot() -> Bool {
        guard nextRoot < roots.count else { return false }
        let root = roots[nextRoot]
        nextRoot += 1
        root.path.withUnsafeBytes { cursor.pointee.setPath($0) }
        closedFrames = 0
        do throws(FileTreeError) {
            let frame = Frame(listing: try list(root), index: 0, prefix: 0)
            frames.append(frame)
            load(frame)
            currentParent = listing
        } catch {
            followingProblem = WalkProblem(errno: error.errno, call: "fstatat")
            cursor.pointee.needsCare = true
        }
        return true
    }

    /// A list of nothing but the root.
    private func list(_ root: SourceRoot) throws(FileTreeError) -> DirectoryListing {
        let isPlace = root.followsLink || root.path.count == 1
        let placePath = isPlace ? root.path : EntryPath.parent(of: root.path)
        var place = rootPlace
        // Lists of files have many roots in one directory.
        if place == nil || place?.path != placePath {
            place = try DirectoryHandle(opening: placePath, reading: false)
        }
        guard let place else { preconditionFailure("assigned above") }
        rootPlace = isPlace ? nil : place
        let name = (isPlace ? [0x2E] : EntryPath.lastComponent(of: root.path)) + [0]
        let status = try name.withUnsafeBufferPointer { name throws(FileTreeError) in
            try name.withMemoryRebound(to: CChar.self) { name throws(FileTreeError) in
                try place.status(of: name.baseAddress!)
            }
        }
        let listing = DirectoryListing(
            handle: place, status: status, rules: nil, count: 1, nameBytes: name.count)
        listing.holdsRoot = true
        name.withUnsafeBytes { _ = memcpy(listing.names, $0.baseAddress!, name.count) }
        let entry = listing.entries
        entry.initialize(
            to: ListedEntry(
                status: status, nameOffset: 0, detail: 0,
                nameLength: UInt16(truncatingIfNeeded: name.count - 1),
                kind: status.kind?.rawValue ?? 0, state: status.kind == nil ? .unsupported : .entry)
        )
        if status.isDirectory {
            listing.children = [
                PendingDirectory(
                    parent: listing, entry: UnsafePointer(entry),
                    root: WalkRoot(path: root.path, device: status.device))
            ]
        }
        queue.adopt(listing)
        return listing
    }

    /// The directory of the last root.
    private var rootPlace: DirectoryHandle?
}
