import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// The walk and the last manifest, two sequences in one order, merged: what is unchanged is carried
/// over as a line, the rest becomes work. One thread.
struct ChangeDetection {
    private let options: BackupOptions
    private let previous: ManifestCache.Head?
    private let bodyPath: String?
    private let hasDraft: Bool
    private let index: RunIndex
    private let problems: ProblemList
    private let monitor: any Monitor
    private let cursor: ManifestCursor
    /// Modified at or after this moment means: perhaps after the last reading.
    private let racyFrom: Timestamp
    /// The same for lines that an interrupted run had read.
    private let racyFromOfDraft: Timestamp
    /// Whether something that the last manifest needs is not to be relied on, so that each line has
    /// to be checked.
    private let checksLines: Bool

    private(set) var fileSystems: [FileSystemName]
    /// Where other file systems begin: those of the kernel, which were not entered, and others.
    private(set) var crossed: (kernels: [[UInt8]], entered: [[UInt8]]) = ([], [])
    private var systemTable: FileSystemTable?
    /// The last device met and its number: nearly always the next one too.
    private var lastDevice: UInt64 = .max
    private var lastNumber: UInt32 = 0
    private var lastKeepsInodes = true
    private var numbers: [UInt64: (number: UInt32, keepsInodes: Bool)] = [:]

    /// Directories that were renamed: their content is compared with the lines of the old place.
    private var moved: [Moved] = []
    private var places: DirectoryPlaces?

    private final class Moved {
        let newPath: [UInt8]
        let oldPath: [UInt8]
        let cursor: ManifestCursor
        init(newPath: [UInt8], oldPath: [UInt8], cursor: ManifestCursor) {
            self.newPath = newPath
            self.oldPath = oldPath
            self.cursor = cursor
        }
    }

    init(
        options: BackupOptions, readers: [ManifestBodyReader], hasDraft: Bool,
        previous: ManifestCache.Head?,
        bodyPath: String?, index: RunIndex, problems: ProblemList, monitor: any Monitor,
        draftBegan: Timestamp?
    ) {
        self.options = options
        self.previous = previous
        self.bodyPath = previous == nil ? nil : bodyPath
        self.hasDraft = hasDraft
        self.index = index
        self.problems = problems
        self.monitor = monitor
        cursor = ManifestCursor(readers, beginsWithDraft: hasDraft)
        fileSystems = previous?.fileSystems ?? []
        racyFrom = Self.racyFrom(previous?.readingBegan)
        racyFromOfDraft = Self.racyFrom(draftBegan)
        checksLines = previous.map { !index.canRely(on: $0.manifestIDs) } ?? true
    }

    mutating func run(
        roots: [SourceRoot], workers: ContentWorkers, lease: Lease, cancellation: Cancellation,
        statistics: inout SnapshotStatistics
    ) throws(ReplicationError) {
        let walkOptions = options.walk
        let walker = try lifted { try TreeWalker(roots: roots, options: walkOptions) }
        var part = ContentPart(number: 0)
        part.isVerbatim = !hasDraft
        var sinceCheck = 0
        while let event = walker.next() {
            switch event {
            case .problem:
                if let problem = walker.problem {
                    problems.add(Array(walker.path), kind(of: problem), problem.message)
                }
                continue
            case .excluded:
                if monitor.wantsPaths { monitor.path(Array(walker.path), .excluded) }
                continue
            case .entry: break
            }
            handle(walker, into: part, statistics: &statistics)
            if part.isFull {
                let number = part.number
                try workers.add(part)
                part = ContentPart(number: number + 1)
                part.isVerbatim = !hasDraft
                try cancellation.check()
            }
            sinceCheck += 1
            if sinceCheck >= 4096 {
                monitor.counts.entries.add(sinceCheck, ordering: .relaxed)
                sinceCheck = 0
                try cancellation.check()
                if !options.dryRun { try lifted { try lease.checkpointIfDue() } }
            }
        }
        monitor.counts.entries.add(sinceCheck, ordering: .relaxed)
        crossed = (walker.kernelFileSystems, walker.enteredFileSystems)
        while !cursor.isAtEnd {
            countRemoved(part, &statistics)
            cursor.advance()
        }
        try workers.add(part)
    }

    private func kind(of problem: WalkProblem) -> SnapshotProblem.Kind {
        switch problem.kind {
        case .unreadable: .unreadable
        case .vanished: .vanished
        case .changed: .changed
        case .unsupported: .unsupported
        }
    }

    private func countRemoved(_ part: ContentPart, _ statistics: inout SnapshotStatistics) {
        statistics.removed += 1
        part.isVerbatim = false
        if monitor.wantsPaths { monitor.path(Array(cursor.path), .removed) }
    }

    private mutating func handle(
        _ walker: TreeWalker, into part: ContentPart, statistics: inout SnapshotStatistics
    ) {
        let path = walker.path
        let status = walker.statusPointer
        let kind = walker.kind
        switch kind {
        case .file:
            statistics.files += 1
            statistics.bytes += Int(clamping: status.pointee.size)
        case .directory: statistics.directories += 1
        default: statistics.others += 1
        }
        if status.pointee.device != lastDevice { enter(device: status.pointee.device, path: path) }

        var isSame = false
        while !cursor.isAtEnd {
            let order = EntryPath.compare(cursor.path, path)
            if order > 0 { break }
            if order == 0 {
                isSame = true
                break
            }
            countRemoved(part, &statistics)
            cursor.advance()
        }
        if isSame {
            if isUnchanged(cursor, status, kind), lineIsSound(cursor) {
                part.add(line: cursor.line)
                statistics.unchanged += 1
                if monitor.wantsPaths { monitor.path(Array(path), .unchanged) }
                if kind == .file {
                    monitor.counts.bytes.add(Int(clamping: status.pointee.size), ordering: .relaxed)
                }
            } else {
                part.add(
                    path: path, name: walker.name, oldLine: cursor.line, status: status.pointee,
                    kind: kind,
                    parent: walker.parent, directory: walker.directory,
                    isUnreadable: walker.isUnreadable, fileSystem: lastNumber, isMoved: false,
                    keepsContent: false)
            }
            cursor.advance()
            return
        }
        // Nothing stood at this path. Perhaps it stood elsewhere, below a directory that has been
        // renamed since.
        if kind == .directory { findOldPlace(path, status.pointee) }
        let old = movedLine(path)
        let keeps =
            old.map { isUnchanged($0, status, kind) && kind != .directory && lineIsSound($0) }
            ?? false
        part.add(
            path: path, name: walker.name, oldLine: old?.line, status: status.pointee, kind: kind,
            parent: walker.parent,
            directory: walker.directory, isUnreadable: walker.isUnreadable,
            fileSystem: lastNumber, isMoved: old != nil,
            keepsContent: keeps)
        if keeps, kind == .file {
            monitor.counts.bytes.add(Int(clamping: status.pointee.size), ordering: .relaxed)
        }
    }

    private static func racyFrom(_ began: Timestamp?) -> Timestamp {
        guard let began else { return Timestamp(seconds: .min) }
        return Timestamp(
            seconds: began.seconds - Limits.racySeconds, nanoseconds: began.nanoseconds)
    }

    // MARK: Unchanged

    private func isUnchanged(
        _ old: ManifestCursor, _ status: UnsafePointer<FileStatus>, _ kind: EntryKind
    ) -> Bool {
        if options.rehash || old.summary.kind != kind || old.summary.isUnsettled { return false }
        let now = status.pointee
        if kind == .file, old.summary.size != now.size { return false }
        if old.summary.fileSystem != lastNumber { return false }
        if !options.ignoresMtime, old.summary.mtime != now.mtime { return false }
        if !options.ignoresCtime, old.summary.ctime != now.ctime { return false }
        if lastKeepsInodes, !options.ignoresInode, old.summary.inode != now.inode { return false }
        // Without these two, mode and owner are compared by themselves.
        if old.summary.mode != now.mode & 0o7777 || old.summary.uid != now.uid
            || old.summary.gid != now.gid
        {
            return false
        }
        let racyFrom = old.isFromDraft ? racyFromOfDraft : racyFrom
        if !options.ignoresMtime, now.mtime >= racyFrom { return false }
        if !options.ignoresCtime, now.ctime >= racyFrom { return false }
        return true
    }

    /// Whether what a line names is stored, where that cannot be taken for granted.
    private func lineIsSound(_ old: ManifestCursor) -> Bool {
        guard checksLines || old.isFromDraft else { return true }
        var chunks: [ChunkID] = []
        var nodes: [ChunkID] = []
        guard EntryCodec.references(old.line, chunks: &chunks, nodes: &nodes) else { return false }
        return chunks.allSatisfy { index.contains($0) }
            && nodes.allSatisfy { index.contains($0) && index.isWhole(segment: $0) }
    }

    // MARK: File systems

    private mutating func enter(device: UInt64, path: UnsafeRawBufferPointer) {
        lastDevice = device
        if let known = numbers[device] {
            lastNumber = known.number
            lastKeepsInodes = known.keepsInodes
            return
        }
        if systemTable == nil { systemTable = FileSystemTable() }
        let described = systemTable!.description(device: device, path: Array(path))
        let name = FileSystemName(
            type: UTF8Text.display(described.type), source: UTF8Text.display(described.source),
            uuid: described.uuid.map { UTF8Text.display($0) })
        let taken = Set(numbers.values.map(\.number))
        let number: Int
        if let known = fileSystems.indices.first(where: {
            fileSystems[$0].isSame(as: name) && !taken.contains(UInt32($0))
        }) {
            number = known
            fileSystems[known] = name
        } else {
            fileSystems.append(name)
            number = fileSystems.count - 1
        }
        lastNumber = UInt32(number)
        lastKeepsInodes = described.keepsInodeNumbers
        numbers[device] = (lastNumber, lastKeepsInodes)
    }

    // MARK: Renamed directories

    /// Looks for the old place of a directory that is new here, by file system, inode and birth.
    private mutating func findOldPlace(_ path: UnsafeRawBufferPointer, _ status: FileStatus) {
        guard let bodyPath, lastKeepsInodes, !options.rehash, !options.ignoresInode, !checksLines
        else { return }
        // Below a directory that was found the old place is known already.
        if let top = moved.last, EntryPath.contains(top.newPath, Array(path)),
            movedLine(path) != nil
        {
            return
        }
        if places == nil { places = DirectoryPlaces(path: bodyPath) }
        guard let place = places?[lastNumber, status.inode],
            let reader = ManifestBodyReader(path: bodyPath)
        else { return }
        let cursor = ManifestCursor(reader, block: place.block, offset: place.offset)
        guard !cursor.isAtEnd, cursor.summary.kind == .directory,
            cursor.summary.inode == status.inode
        else { return }
        moved.append(Moved(newPath: Array(path), oldPath: Array(cursor.path), cursor: cursor))
    }

    /// The line at the old place of `path`, where a directory above it (or it itself) was renamed.
    private mutating func movedLine(_ path: UnsafeRawBufferPointer) -> ManifestCursor? {
        while let top = moved.last {
            let isBelow = top.newPath.withUnsafeBytes { EntryPath.contains($0, path) }
            if !isBelow {
                moved.removeLast()
                continue
            }
            let rest = UnsafeRawBufferPointer(rebasing: path[top.newPath.count...])
            while !top.cursor.isAtEnd {
                let old = top.cursor.path
                guard top.oldPath.withUnsafeBytes({ EntryPath.contains($0, old) }) else {
                    return nil
                }
                let order = EntryPath.compare(
                    UnsafeRawBufferPointer(rebasing: old[top.oldPath.count...]), rest)
                if order == 0 { return top.cursor }
                if order > 0 { return nil }
                top.cursor.advance()
            }
            return nil
        }
        return nil
    }
}
