import CSystem
import Glibc
import SnapshotModel
import Synchronization

/// The target of a restore: everything happens below it, and through directory descriptors.
///
/// Whatever the paths of entries say, nothing outside is reached: a path with an empty, `.` or `..`
/// component or a zero byte is refused before the kernel sees it, and no component that is a
/// symlink is followed (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; component by
/// component with O_NOFOLLOW where the kernel has no openat2). The path of the target itself is the
/// user's word and is followed as usual. Paths may be longer than the kernel takes at once.
///
/// All calls may be made from any thread.
package final class TargetDirectory: Sendable {
    /// As the user gave it; for messages.
    package let path: [UInt8]
    private let root: TargetHandle
    private let cache: Mutex<Cache>
    private let walksByComponent: Atomic<Bool>
    /// Flags that forbid changes, of whatever lies in it.
    let locks = TargetLocks()

    /// Open directories by their path. The least recently used ones go when there are too many.
    private struct Cache {
        var handles: [[UInt8]: (handle: TargetHandle, used: UInt64)] = [:]
        /// The last one handed out: entries come in path order, so it mostly is the next one too.
        var recent: TargetHandle
        var clock: UInt64 = 0
        let limit: Int

        mutating func insert(_ handle: TargetHandle) {
            recent = handle
            if handles.count >= limit {
                // A quarter at a time, so that sorting costs little per directory.
                let ages = handles.values.map(\.used).sorted()
                let oldest = ages[ages.count / 4]
                handles = handles.filter { $0.value.used > oldest }
            }
            clock += 1
            handles[handle.relative] = (handle, clock)
        }

        mutating func find(_ relative: [UInt8]) -> TargetHandle? {
            guard let index = handles.index(forKey: relative) else { return nil }
            clock += 1
            handles.values[index].used = clock
            recent = handles.values[index].handle
            return recent
        }
    }

    /// A path handed to the kernel in one call stays below PATH_MAX (4096, the zero byte included).
    private static let pieceBytes = 4000

    private init(
        path: [UInt8], root: TargetHandle, openDirectories: Int, walksByComponent: Bool
    ) {
        self.path = path
        self.root = root
        cache = Mutex(Cache(recent: root, limit: max(openDirectories, 4)))
        self.walksByComponent = Atomic(walksByComponent)
    }

    /// Opens a target.
    ///
    /// - Parameters:
    ///   - path: Absolute, or relative to the current directory.
    ///   - create: Makes the directory where it is missing, with mode 0700, and missing parents
    ///     with the mode that the umask leaves of 0777.
    ///   - openDirectories: How many directories stay open at most, besides those in use.
    ///   - walksByComponent: Does without openat2.
    package static func open(
        path: [UInt8], create: Bool, openDirectories: Int = 256, walksByComponent: Bool = false
    ) throws(FileTreeError) -> TargetDirectory {
        guard !path.isEmpty, !path.contains(0) else {
            throw Self.unsafe(path)
        }
        var result = openDirectory(path)
        if result == -ENOENT, create {
            try makeParents(of: path)
            let made = csys_mkdirat(AT_FDCWD, TargetPath.cString(path[...]), 0o700)
            if made < 0, made != -EEXIST {
                throw .system(made, "mkdirat", "make the directory", path: path)
            }
            result = openDirectory(path)
        }
        guard result >= 0 else { throw .system(result, "open", "open the directory", path: path) }
        return TargetDirectory(
            path: path, root: TargetHandle(descriptor: result, relative: []),
            openDirectories: openDirectories, walksByComponent: walksByComponent)
    }

    private static func openDirectory(_ path: [UInt8]) -> Int32 {
        csys_open(
            TargetPath.cString(path[...]), O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC, 0)
    }

    private static func makeParents(of path: [UInt8]) throws(FileTreeError) {
        for index in path.indices where index > 0 && path[index] == 0x2F {
            let result = csys_mkdirat(AT_FDCWD, TargetPath.cString(path[..<index]), 0o777)
            if result < 0, result != -EEXIST, result != -EISDIR, result != -EROFS,
                result != -EACCES
            {
                throw .system(
                    result, "mkdirat", "make the directory", path: Array(path[..<index]))
            }
        }
    }

    /// Whether nothing lies in the target.
    package var isEmpty: Bool {
        get throws(FileTreeError) {
            var isEmpty = true
            try TargetListing.forEach(in: root, of: self) { _, _ in
                isEmpty = false
                return false
            }
            return isEmpty
        }
    }

    /// Room and kind of the file system that the target itself lies on.
    package func availableBytes() throws(FileTreeError) -> UInt64 {
        var status = csys_filesystem()
        let result = csys_fstatfs(root.descriptor, &status)
        guard result == 0 else { throw failure(result, [], "fstatfs", "measure") }
        return status.blocks_available &* status.block_bytes
    }

    /// Waits until everything written to the target's file system lies on the disk.
    package func sync() throws(FileTreeError) {
        let result = csys_syncfs(root.descriptor)
        guard result == 0 else { throw failure(result, [], "syncfs", "flush") }
    }

    // MARK: Directories

    /// The directory at a path below the target.
    ///
    /// - Parameter relative: Canonical, without leading slash; empty for the target itself.
    /// - Throws: Also where a component is missing, no directory, or a symlink.
    package func directory(_ relative: [UInt8]) throws(FileTreeError) -> TargetHandle {
        try directory(relative, count: relative.count)
    }

    /// Where an entry goes. The empty path has no slot.
    func slot(_ relative: [UInt8]) throws(FileTreeError) -> TargetSlot {
        guard !relative.isEmpty, relative.withUnsafeBytes(TargetPath.isSafe) else {
            throw Self.unsafe(relative)
        }
        let parent = try directory(relative, count: TargetPath.parentCount(of: relative))
        return TargetSlot(
            parent: parent, name: TargetPath.lastName(of: relative), relative: relative)
    }

    /// The directory named by the first `count` bytes of `path`.
    private func directory(_ path: [UInt8], count: Int) throws(FileTreeError) -> TargetHandle {
        if count == 0 { return root }
        let known = cache.withLock { cache -> TargetHandle? in
            let isRecent = path.withUnsafeBytes { path in
                cache.recent.relative.withUnsafeBytes { recent in
                    Memory.equal(recent, UnsafeRawBufferPointer(rebasing: path[..<count]))
                }
            }
            return isRecent ? cache.recent : cache.find(Array(path[..<count]))
        }
        if let known { return known }
        let relative = Array(path[..<count])
        guard relative.withUnsafeBytes(TargetPath.isSafe) else {
            throw Self.unsafe(relative)
        }
        let handle = try open(relative)
        cache.withLock { $0.insert(handle) }
        return handle
    }

    /// Forgets open directories at and below a path: what stood there is gone or has changed.
    func forget(_ relative: [UInt8]) {
        cache.withLock { cache in
            cache.recent = root
            cache.handles = cache.handles.filter { path, _ in
                !(path.starts(with: relative)
                    && (path.count == relative.count || path[relative.count] == 0x2F))
            }
        }
    }

    private func open(_ relative: [UInt8]) throws(FileTreeError) -> TargetHandle {
        var result = walk(relative, O_RDONLY)
        // The right to search is enough to make files in a directory.
        if result == -EACCES { result = walk(relative, CSYS_O_PATH) }
        guard result >= 0 else { throw failure(result, relative, "openat2", "open the directory") }
        return TargetHandle(descriptor: result, relative: relative)
    }

    /// Opens a directory piece by piece; returns its descriptor or the negated errno.
    private func walk(_ relative: [UInt8], _ access: Int32) -> Int32 {
        var current = root.descriptor
        var start = 0
        while true {
            var end = relative.count
            if end - start > Self.pieceBytes {
                // A name is 255 bytes long at most, so there is a slash unless the name is too
                // long.
                let limit = start + Self.pieceBytes
                end = relative[start..<limit].lastIndex(of: 0x2F) ?? end
            }
            let isLast = end == relative.count
            let next = openPiece(
                current, relative[start..<end], isLast ? access : CSYS_O_PATH)
            if current != root.descriptor { _ = csys_close(current) }
            if next < 0 || isLast { return next }
            current = next
            start = end + 1
        }
    }

    private func openPiece(_ directory: Int32, _ path: ArraySlice<UInt8>, _ access: Int32) -> Int32
    {
        let flags = access | CSYS_O_DIRECTORY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC
        if !walksByComponent.load(ordering: .relaxed) {
            let result = csys_open_beneath(directory, TargetPath.cString(path), flags, 0)
            // A sandbox that does not know openat2 answers EPERM; openat itself never does here.
            guard result == -ENOSYS || result == -EPERM else { return result }
            walksByComponent.store(true, ordering: .relaxed)
        }
        var current = directory
        var start = path.startIndex
        while true {
            let end = path[start...].firstIndex(of: 0x2F) ?? path.endIndex
            let isLast = end == path.endIndex
            let kind =
                isLast ? flags : CSYS_O_PATH | CSYS_O_DIRECTORY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC
            let next = csys_openat(current, TargetPath.cString(path[start..<end]), kind, 0)
            if current != directory { _ = csys_close(current) }
            if next < 0 || isLast { return next }
            current = next
            start = end + 1
        }
    }

    // MARK: Messages

    /// The path to show for something below the target.
    func displayed(_ relative: [UInt8]) -> [UInt8] {
        if relative.isEmpty { return path }
        return path.last == 0x2F ? path + relative : path + [0x2F] + relative
    }

    /// - Parameters:
    ///   - call: The system call that failed.
    ///   - operation: Finishes the words "cannot …".
    func failure(
        _ result: some BinaryInteger, _ relative: [UInt8], _ call: String, _ operation: String
    ) -> FileTreeError {
        .system(result, call, operation, path: displayed(relative))
    }

    private static func unsafe(_ path: [UInt8]) -> FileTreeError {
        FileTreeError(
            .malformed, "use the path", path: path,
            cause: "it is no path that stays below the target")
    }
}
