import CSystem
import Glibc
import SnapshotModel

/// Lists one directory after another for one thread, in memory that it keeps.
///
/// The order of things in a directory: read all names, drop what patterns exclude, sort by name,
/// then ask for each status in order of inode numbers, which is how they lie on most disks.
final class DirectoryLister {
    /// A name in `records`, and what sorting needs.
    private struct Name {
        /// The first eight bytes, the first one uppermost, zero behind the end: compares as the
        /// bytes do.
        var prefix: UInt64
        var inode: UInt64
        var offset: UInt32
        var length: UInt16
        /// d_type.
        var type: UInt8
        var isExcluded: Bool
        /// Index of the reason where excluded.
        var reason: Int32
    }

    private struct Place {
        var inode: UInt64
        var index: UInt32
    }

    /// What the directory holds that changes what is delivered of it.
    private struct Marks {
        var ignoreFile: Name?
        var markers: [(marker: ExclusionMarker, name: Name)] = []
    }

    private static let typeUnknown: UInt8 = 0
    private static let typeDirectory: UInt8 = 4
    private static let typeFile: UInt8 = 8
    /// Bytes of a directory record before the name: inode, offset, length, type.
    private static let nameOffset = 19
    /// Room for one call; the kernel fills less than it on most file systems.
    private static let readBytes = 64 << 10
    /// Zeros behind the records, so that eight bytes can be loaded from each name.
    private static let slack = 16

    private let options: WalkOptions
    private let isPrivileged = geteuid() == 0
    private let user = geteuid()
    /// For each length up to 255, whether names of that length are looked at closely.
    private let lengthsOfInterest: UnsafeMutablePointer<Bool>

    private let records = ByteBuffer(capacity: 256 << 10)
    private let pathBuffer = ByteBuffer(capacity: 4096)
    private var names: [Name] = []
    private var places: [Place] = []

    init(options: WalkOptions) {
        self.options = options
        lengthsOfInterest = .allocate(capacity: 256)
        lengthsOfInterest.initialize(repeating: false, count: 256)
        for marker in options.rules.markers where marker.name.count < 256 {
            lengthsOfInterest[marker.name.count] = true
        }
        if options.readsIgnoreFiles {
            lengthsOfInterest[ExclusionRules.ignoreFileName.count] = true
        }
    }

    deinit { lengthsOfInterest.deallocate() }

    /// Opens and lists a directory.
    ///
    /// - Parameter place: The open directory above.
    /// - Returns: The listing, or why there is none.
    func list(
        _ pending: PendingDirectory, in place: DirectoryHandle
    ) -> (listing: DirectoryListing?, failure: WalkProblem?) {
        let name = pending.parent.name(of: pending.entry)
        let descriptor = open(name, uid: pending.entry.pointee.status.uid, in: place)
        guard descriptor >= 0 else { return (nil, WalkProblem(errno: -descriptor, call: "openat")) }
        // A root's name is `.`, in a handle that already carries the path.
        let handle = DirectoryHandle(owning: descriptor, path: place.path(of: name))
        var raw = csys_stat()
        let result = csys_fstat(descriptor, &raw)
        guard result == 0 else { return (nil, WalkProblem(errno: -result, call: "fstat")) }
        let status = FileStatus(raw)
        let isOther = options.rules.staysOnFileSystem && status.device != pending.root.device
        // Asked where a file system begins; a source that lies in such a one is walked.
        let isKernels =
            status.device != pending.parent.status.device && KernelFileSystem.holds(descriptor)
        if isOther || isKernels {
            let listing = DirectoryListing(
                handle: handle, status: status, rules: nil, count: 0, nameBytes: 0)
            listing.isMountPoint = true
            listing.isKernelFileSystem = isKernels
            return (listing, nil)
        }
        return (list(handle, status: status, pending: pending), nil)
    }

    /// O_NOATIME is the owner's and root's privilege, and even root may lack it in a container.
    private func open(_ name: UnsafePointer<CChar>, uid: UInt32, in place: DirectoryHandle) -> Int32
    {
        let flags = O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC
        if isPrivileged || uid == user {
            let descriptor = csys_openat(place.descriptor, name, flags | CSYS_O_NOATIME, 0)
            if descriptor != -EPERM { return descriptor }
        }
        return csys_openat(place.descriptor, name, flags, 0)
    }

    private func list(
        _ handle: DirectoryHandle, status: FileStatus, pending: PendingDirectory
    ) -> DirectoryListing {
        var problems: [(name: [UInt8], problem: WalkProblem)] = []
        var reasons: [ExclusionReason] = []
        if let problem = readRecords(handle) { problems.append(([], problem)) }
        var marks = Marks()
        var nameBytes = parseRecords(&marks)

        var rules = pending.parent.rules
        if let ignoreFile = marks.ignoreFile {
            let (read, problem) = readRules(ignoreFile, in: handle, below: rules)
            rules = read
            if let problem { problems.append((ExclusionRules.ignoreFileName, problem)) }
        }
        if let marker = confirmed(marks, in: handle) {
            nameBytes = leaveOut(allBut: marker.name, reason: marker.reason, reasons: &reasons)
        } else if rules != nil || !options.rules.hasNoPatterns {
            nameBytes = applyPatterns(rules, handle: handle, root: pending.root, reasons: &reasons)
        }

        sortNames()
        let listing = DirectoryListing(
            handle: handle, status: status, rules: rules, count: names.count, nameBytes: nameBytes)
        fill(listing)
        readStatuses(of: listing, handle: handle)
        classify(listing, root: pending.root, handle: handle, reasons: &reasons)
        listing.reasons = reasons
        listing.problems = problems
        if records.capacity > 8 << 20 {
            // One huge directory must not pin its memory for the rest of the walk.
            records.removeAll()
            records.shrink(to: 256 << 10)
            names = []
            places = []
        }
        return listing
    }

    // MARK: Names

    private func readRecords(_ handle: DirectoryHandle) -> WalkProblem? {
        records.removeAll()
        while true {
            records.reserve(Self.readBytes + Self.slack)
            // Offsets are 32 bits; a directory beyond that has some 100 million names.
            guard records.count < Int(UInt32.max) - (1 << 30) else {
                return WalkProblem(.unreadable, "the directory has too many names")
            }
            let room = min(records.capacity - records.count - Self.slack, 1 << 20)
            let got = csys_getdents(handle.descriptor, records.base + records.count, room)
            if got == 0 { return nil }
            if got < 0 { return WalkProblem(errno: Int32(-got), call: "getdents64") }
            records.count += got
        }
    }

    /// Fills `names` from `records`.
    ///
    /// - Returns: Bytes that the names need, their ending zeros included.
    private func parseRecords(_ marks: inout Marks) -> Int {
        // Into a variable of this function: each access to a property of a class is checked at run
        // time.
        var names: [Name] = []
        swap(&names, &self.names)
        names.removeAll(keepingCapacity: true)
        defer { swap(&names, &self.names) }
        var nameBytes = 0
        var at = 0
        let base = records.base
        let end = records.count
        let isInteresting = lengthsOfInterest
        while at < end {
            let record = base + at
            let length = Int(record.loadUnaligned(fromByteOffset: 16, as: UInt16.self))
            let start = record + Self.nameOffset
            let text = start.assumingMemoryBound(to: CChar.self)
            let count = strlen(text)
            at += length
            if text[0] == 0x2E, count == 1 || (count == 2 && text[1] == 0x2E) { continue }
            var prefix = UInt64(bigEndian: start.loadUnaligned(as: UInt64.self))
            if count < 8 { prefix &= ~(UInt64.max >> UInt64(8 * count)) }
            let name = Name(
                prefix: prefix, inode: record.loadUnaligned(as: UInt64.self),
                offset: UInt32(truncatingIfNeeded: at - length + Self.nameOffset),
                length: UInt16(truncatingIfNeeded: count),
                type: record.load(fromByteOffset: 18, as: UInt8.self), isExcluded: false, reason: 0)
            names.append(name)
            nameBytes += count + 1
            // Some file systems have names of more than 255 bytes.
            if count > 255 || isInteresting[count] { look(at: name, &marks) }
        }
        return nameBytes
    }

    private func look(at name: Name, _ marks: inout Marks) {
        if options.readsIgnoreFiles, spells(name, ExclusionRules.ignoreFileName) {
            marks.ignoreFile = name
        }
        for marker in options.rules.markers where spells(name, marker.name) {
            marks.markers.append((marker, name))
        }
    }

    private func spells(_ name: Name, _ text: [UInt8]) -> Bool {
        text.withUnsafeBytes { Memory.equal(bytes(of: name), $0) }
    }

    @inline(__always)
    private func bytes(of name: Name) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: records.base + Int(name.offset), count: Int(name.length))
    }

    private func text(of name: Name) -> UnsafePointer<CChar> {
        UnsafePointer((records.base + Int(name.offset)).assumingMemoryBound(to: CChar.self))
    }

    private func sortNames() {
        let base = records.base
        names.withUnsafeMutableBufferPointer { names in
            names.sort { left, right in
                if left.prefix != right.prefix { return left.prefix < right.prefix }
                let shared = Int(min(left.length, right.length))
                let order = memcmp(base + Int(left.offset), base + Int(right.offset), shared)
                return order != 0 ? order < 0 : left.length < right.length
            }
        }
    }

    // MARK: Rules

    /// Whether a name is that of a directory, for the patterns; asks the kernel where the file
    /// system does not tell.
    private func isDirectory(_ name: Name, in handle: DirectoryHandle) -> Bool {
        guard name.type == Self.typeUnknown else { return name.type == Self.typeDirectory }
        var raw = csys_stat()
        return csys_lstatat(handle.descriptor, text(of: name), &raw) == 0
            && FileStatus(raw).isDirectory
    }

    private func applyPatterns(
        _ rules: DirectoryRules?, handle: DirectoryHandle, root: WalkRoot,
        reasons: inout [ExclusionReason]
    ) -> Int {
        pathBuffer.removeAll()
        if handle.path.count > 1 { pathBuffer.append(handle.path) }
        pathBuffer.append(0x2F)
        let prefix = pathBuffer.count
        let reports = options.reportsExclusions
        var nameBytes = 0
        var out = 0
        for index in 0..<names.count {
            var name = names[index]
            pathBuffer.count = prefix
            pathBuffer.append(bytes(of: name))
            let isDirectory = isDirectory(name, in: handle)
            let decision = options.rules.decide(
                path: pathBuffer.bytes, rootLength: root.path.count, isDirectory: isDirectory,
                directoryRules: rules)
            if decision.isExcluded {
                guard reports, let reason = decision.reason else { continue }
                if isDirectory { name.type = Self.typeDirectory }
                name.isExcluded = true
                name.reason = Int32(reasons.count)
                reasons.append(reason)
            }
            names[out] = name
            out += 1
            nameBytes += Int(name.length) + 1
        }
        names.removeSubrange(out...)
        return nameBytes
    }

    private func leaveOut(
        allBut marker: [UInt8], reason: ExclusionReason, reasons: inout [ExclusionReason]
    ) -> Int {
        reasons.append(reason)
        var nameBytes = 0
        var out = 0
        for index in 0..<names.count {
            var name = names[index]
            if !spells(name, marker) {
                guard options.reportsExclusions else { continue }
                name.isExcluded = true
                name.reason = 0
            }
            names[out] = name
            out += 1
            nameBytes += Int(name.length) + 1
        }
        names.removeSubrange(out...)
        return nameBytes
    }

    private func confirmed(_ marks: Marks, in handle: DirectoryHandle) -> ExclusionMarker? {
        if marks.markers.isEmpty { return nil }
        // In the order of the rules, so that the order of names on the disk decides nothing.
        for marker in options.rules.markers {
            for (found, name) in marks.markers
            where found == marker
                && DirectoryMarks.confirms(marker, named: text(of: name), in: handle)
            {
                return marker
            }
        }
        return nil
    }

    private func readRules(
        _ name: Name, in handle: DirectoryHandle, below parent: DirectoryRules?
    ) -> (rules: DirectoryRules?, problem: WalkProblem?) {
        DirectoryMarks.rules(named: text(of: name), in: handle, below: parent)
    }

    // MARK: Statuses

    private func fill(_ listing: DirectoryListing) {
        var offset = 0
        let base = records.base
        var entry = listing.entries
        for name in names {
            let length = Int(name.length)
            defer { entry += 1 }
            entry.pointee.nameOffset = UInt32(truncatingIfNeeded: offset)
            entry.pointee.nameLength = name.length
            entry.pointee.detail = name.reason
            entry.pointee.kind =
                name.type == Self.typeDirectory
                ? EntryKind.directory.rawValue : EntryKind.file.rawValue
            entry.pointee.state = name.isExcluded ? .excluded : .entry
            // The zero behind the name comes along.
            memcpy(listing.names + offset, base + Int(name.offset), length + 1)
            offset += length + 1
        }
    }

    private func readStatuses(of listing: DirectoryListing, handle: DirectoryHandle) {
        var places: [Place] = []
        swap(&places, &self.places)
        places.removeAll(keepingCapacity: true)
        defer { swap(&places, &self.places) }
        var isAscending = true
        var last: UInt64 = 0
        var index: UInt32 = 0
        for name in names {
            defer { index &+= 1 }
            if name.isExcluded { continue }
            if name.inode < last { isAscending = false }
            last = name.inode
            places.append(Place(inode: name.inode, index: index))
        }
        let directory = handle.descriptor
        places.withUnsafeMutableBufferPointer { places in
            if !isAscending { places.sort { $0.inode < $1.inode } }
            var raw = csys_stat()
            for place in places {
                let entry = listing.entries + Int(place.index)
                let result = csys_lstatat(directory, listing.name(of: entry), &raw)
                if result == 0 {
                    entry.pointee.status = FileStatus(raw)
                } else {
                    entry.pointee.state = .failed
                    entry.pointee.detail = -result
                }
            }
        }
    }

    /// Says of each entry what becomes of it, and makes the list of subdirectories to enter.
    private func classify(
        _ listing: DirectoryListing, root: WalkRoot, handle: DirectoryHandle,
        reasons: inout [ExclusionReason]
    ) {
        let rules = options.rules
        let asksFacts = rules.largestFileBytes != nil || rules.excludesNoDump
        for index in 0..<listing.count {
            let entry = listing.entries + index
            guard entry.pointee.state == .entry else { continue }
            guard let kind = entry.pointee.status.kind else {
                entry.pointee.state = .unsupported
                continue
            }
            entry.pointee.kind = kind.rawValue
            if asksFacts {
                let reason = rules.reason(
                    size: kind == .file ? entry.pointee.status.size : nil,
                    isNoDump: rules.excludesNoDump
                        && DirectoryMarks.isNoDump(
                            entry.pointee.status, named: listing.name(of: entry), in: handle)
                )
                if let reason {
                    entry.pointee.state = .excluded
                    entry.pointee.detail = Int32(reasons.count)
                    if options.reportsExclusions { reasons.append(reason) }
                    continue
                }
            }
            guard kind == .directory else { continue }
            if rules.staysOnFileSystem, entry.pointee.status.device != root.device {
                entry.pointee.state = .mountPoint
                continue
            }
            entry.pointee.detail = Int32(listing.children.count)
            listing.children.append(
                PendingDirectory(parent: listing, entry: UnsafePointer(entry), root: root))
        }
    }
}
