import CSystem
import Glibc
import SnapshotModel

/// An open directory: the place that names are looked up in, whatever happens to its path
/// meanwhile.
///
/// Reference counted; the descriptor is closed with the last reference. Whoever keeps many of them
/// keeps as many descriptors.
package final class DirectoryHandle: Sendable {
    /// Valid as long as the handle.
    package let descriptor: Int32
    /// The absolute path under which it was opened, `/` for the root; for messages and rules.
    package let path: [UInt8]

    /// Takes over an open descriptor.
    package init(owning descriptor: Int32, path: [UInt8]) {
        self.descriptor = descriptor
        self.path = path
    }

    /// Opens a directory by its absolute path, following symbolic links on the way and at the end.
    /// The path may be longer than the kernel takes in one piece.
    ///
    /// - Parameter reading: Whether it can be listed; without it only search permission is needed.
    /// - Parameter followsLast: Whether a symbolic link as the last component is followed.
    package convenience init(
        opening path: [UInt8], reading: Bool = true, followsLast: Bool = true
    ) throws(FileTreeError) {
        let final =
            CSYS_O_DIRECTORY | CSYS_O_CLOEXEC | (reading ? O_RDONLY : CSYS_O_PATH)
            | (followsLast ? 0 : CSYS_O_NOFOLLOW)
        let (parent, rest) = try Self.approach(path)
        let descriptor = rest.withUnsafeBufferPointer {
            csys_openat(parent, $0.baseAddress!, final, 0)
        }
        if parent != AT_FDCWD { _ = csys_close(parent) }
        guard descriptor >= 0 else { throw .system(descriptor, "openat", "open", path: path) }
        self.init(owning: descriptor, path: path)
    }

    deinit { _ = csys_close(descriptor) }

    /// What the kernel says of the directory itself.
    package func status() throws(FileTreeError) -> FileStatus {
        var raw = csys_stat()
        let result = csys_fstat(descriptor, &raw)
        guard result == 0 else { throw .system(result, "fstat", "examine", path: path) }
        return FileStatus(raw)
    }

    /// What the kernel says of `name` in this directory. A symbolic link is not followed.
    package func status(of name: UnsafePointer<CChar>) throws(FileTreeError) -> FileStatus {
        var raw = csys_stat()
        let result = csys_lstatat(descriptor, name, &raw)
        guard result == 0 else { throw .system(result, "fstatat", "examine", path: path(of: name)) }
        return FileStatus(raw)
    }

    /// As `status(of:)`, with the birth time where the file system tells. An empty name means the
    /// directory itself.
    package func statusWithBirth(of name: UnsafePointer<CChar>) throws(FileTreeError) -> FileStatus
    {
        var raw = csys_stat()
        let result = csys_statx(descriptor, name, &raw)
        guard result == 0 else { throw .system(result, "statx", "examine", path: path(of: name)) }
        return FileStatus(raw)
    }

    /// The absolute path of `name` in this directory; the directory's own for an empty name and for
    /// `.`.
    package func path(of name: UnsafePointer<CChar>) -> [UInt8] {
        let count = strlen(name)
        if count == 0 || (count == 1 && name[0] == 0x2E) { return path }
        let bytes = UnsafeRawBufferPointer(start: name, count: count)
        return Self.join(path, bytes)
    }

    static func join(_ directory: [UInt8], _ name: UnsafeRawBufferPointer) -> [UInt8] {
        let prefix = directory.count == 1 ? 0 : directory.count
        return [UInt8](unsafeUninitializedCapacity: prefix + 1 + name.count) { buffer, count in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            if prefix > 0 { directory.withUnsafeBytes { raw.copyMemory(from: $0) } }
            raw[prefix] = 0x2F
            UnsafeMutableRawBufferPointer(rebasing: raw[(prefix + 1)...]).copyMemory(from: name)
            count = prefix + 1 + name.count
        }
    }

    /// Walks along a path that is too long for one call.
    ///
    /// - Returns: A descriptor to start from, which the caller closes unless it is AT_FDCWD, and
    ///   what is left of the path, ended by zero.
    static func approach(_ path: [UInt8]) throws(FileTreeError) -> (parent: Int32, rest: [CChar]) {
        var parent = AT_FDCWD
        var rest = path[...]
        // The kernel takes 4095 bytes; cut at the last slash before.
        while rest.count > 4000 {
            guard let slash = rest.prefix(4000).lastIndex(of: 0x2F), slash > rest.startIndex else {
                if parent != AT_FDCWD { _ = csys_close(parent) }
                throw .system(ENAMETOOLONG, "openat", "open", path: path)
            }
            let piece = rest[..<slash].map { CChar(bitPattern: $0) } + [0]
            let next = piece.withUnsafeBufferPointer {
                csys_openat(
                    parent, $0.baseAddress!, CSYS_O_PATH | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC, 0)
            }
            if parent != AT_FDCWD { _ = csys_close(parent) }
            guard next >= 0 else { throw .system(next, "openat", "open", path: path) }
            parent = next
            rest = rest[(slash + 1)...]
        }
        return (parent, (rest.isEmpty ? [0x2E] : rest.map { CChar(bitPattern: $0) }) + [0])
    }
}
