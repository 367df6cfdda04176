import CSystem
import Glibc
package import SnapshotModel

/// A regular file that is open for reading. Closed when it goes out of scope.
///
/// A symbolic link is never followed, and what took the file's place since it was seen, such as a
/// FIFO, is refused without waiting for its other end. The access time stays where the kernel lets
/// it.
package struct FileReader: ~Copyable {
    /// Valid as long as the reader.
    package let descriptor: Int32
    private let directory: DirectoryHandle
    private let name: [CChar]

    /// Opens `name`, ended by zero, in a directory.
    ///
    /// - Throws: `changed` where something else than a regular file stands there now, `notFound`,
    ///   `denied`, …
    package init(
        opening name: UnsafePointer<CChar>, in directory: DirectoryHandle
    ) throws(FileTreeError) {
        let (descriptor, status) = try Self.open(name, in: directory)
        self.descriptor = descriptor
        self.directory = directory
        self.name = Array(UnsafeBufferPointer(start: name, count: strlen(name) + 1))
        statusWhenOpened = status
    }

    /// As it was when the file was opened.
    package let statusWhenOpened: FileStatus

    deinit { _ = csys_close(descriptor) }

    private static func open(
        _ name: UnsafePointer<CChar>, in directory: DirectoryHandle
    ) throws(FileTreeError) -> (descriptor: Int32, status: FileStatus) {
        let base = O_RDONLY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC
        var flags = base | CSYS_O_NONBLOCK | CSYS_O_NOATIME
        var descriptor = csys_openat(directory.descriptor, name, flags, 0)
        if descriptor == -EPERM {
            // Keeping the access time is the privilege of the owner and of root.
            flags &= ~CSYS_O_NOATIME
            descriptor = csys_openat(directory.descriptor, name, flags, 0)
        }
        if descriptor == -EAGAIN {
            // Somebody, such as a file server for its client, holds a lease on the file. Without
            // O_NONBLOCK the kernel asks for it back and waits; that is safe only if this is no
            // FIFO.
            var raw = csys_stat()
            if csys_lstatat(directory.descriptor, name, &raw) == 0, FileStatus(raw).isFile {
                descriptor = csys_openat(directory.descriptor, name, flags & ~CSYS_O_NONBLOCK, 0)
            }
        }
        guard descriptor >= 0 else {
            throw .system(descriptor, "openat", "open", path: directory.path(of: name))
        }
        var raw = csys_stat()
        let result = csys_fstat(descriptor, &raw)
        let status = FileStatus(raw)
        guard result == 0, status.isFile else {
            _ = csys_close(descriptor)
            let path = directory.path(of: name)
            if result != 0 { throw .system(result, "fstat", "examine", path: path) }
            throw FileTreeError(
                .changed, "open", path: path, cause: "it is no regular file any more")
        }
        return (descriptor, status)
    }

    private var path: [UInt8] {
        name.withUnsafeBufferPointer { directory.path(of: $0.baseAddress!) }
    }

    /// As it is now.
    package func status() throws(FileTreeError) -> FileStatus {
        var raw = csys_stat()
        let result = csys_fstat(descriptor, &raw)
        guard result == 0 else { throw .system(result, "fstat", "examine", path: path) }
        return FileStatus(raw)
    }

    /// As it is now, with the birth time where the file system tells.
    package func statusWithBirth() throws(FileTreeError) -> FileStatus {
        var raw = csys_stat()
        let result = csys_statx(descriptor, "", &raw)
        guard result == 0 else { throw .system(result, "statx", "examine", path: path) }
        return FileStatus(raw)
    }

    /// Reads into `buffer` from `offset`.
    ///
    /// - Returns: How many bytes were read: 0 at the end of the file only, and possibly fewer than
    ///   would fit anywhere.
    package func read(
        into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(FileTreeError) -> Int {
        guard let base = buffer.baseAddress, buffer.count > 0 else { return 0 }
        let got = csys_pread(descriptor, base, buffer.count, Int64(clamping: offset))
        guard got >= 0 else { throw .system(got, "pread", "read", path: path) }
        return got
    }

    /// Says that the file will be read once, from its beginning: the kernel then reads farther
    /// ahead.
    package func adviseSequential() { _ = csys_fadvise_sequential(descriptor) }

    /// Where the file has no data and reads as zeros, as `FileHoles` finds it.
    ///
    /// - Parameter status: As of after opening.
    package func holes(_ status: FileStatus) throws(FileTreeError) -> [Hole] {
        try FileHoles.find(in: descriptor, status) { result throws(FileTreeError) in
            throw .system(result, "lseek", "find holes in", path: path)
        }
    }
}

/// The holes of an open file.
enum FileHoles {
    /// Where the file has no data and reads as zeros, as far as the file system tells, within its
    /// first `size` bytes: ascending, neither overlapping nor adjacent.
    ///
    /// A file whose blocks could hold all of it is not searched: most have no hole, and one that
    /// has both a hole and blocks beyond its end, or reserved ones, is only stored with more zeros
    /// than it need be.
    ///
    /// - Parameters:
    ///   - status: As of after opening.
    ///   - fail: Throws the error for a negated errno.
    static func find(
        in descriptor: Int32, _ status: FileStatus,
        fail: (Int64) throws(FileTreeError) -> Never
    ) throws(FileTreeError) -> [Hole] {
        let (occupied, overflow) = status.blocks.multipliedReportingOverflow(by: 512)
        if overflow || occupied >= status.size || status.size == 0 { return [] }
        let size = Int64(clamping: status.size)
        var holes: [Hole] = []
        var offset: Int64 = 0
        while offset < size {
            let hole = csys_seek_hole(descriptor, offset)
            // The file has become shorter, or the file system knows no holes.
            if hole == -Int64(ENXIO) || hole == -Int64(EINVAL) || hole == -Int64(EOPNOTSUPP) {
                break
            }
            guard hole >= 0 else { try fail(hole) }
            if hole >= size { break }
            var data = csys_seek_data(descriptor, hole)
            if data == -Int64(ENXIO) {
                // No data behind: a hole up to the end.
                data = size
            }
            guard data >= 0 else { try fail(data) }
            let end = min(data, size)
            // Somebody wrote into the hole between the two questions.
            guard end > hole else {
                offset = max(hole + 1, data)
                continue
            }
            if let last = holes.last, last.offset + last.length == UInt64(hole) {
                holes[holes.count - 1].length += UInt64(end - hole)
            } else {
                holes.append(Hole(offset: UInt64(hole), length: UInt64(end - hole)))
            }
            offset = end
        }
        return holes
    }
}
