import CSystem
import Glibc

/// An open directory, closed when the last reference goes.
final class Directory: Sendable {
    let descriptor: Int32

    init(adopting descriptor: Int32) { self.descriptor = descriptor }

    convenience init(path: String, subject: StorageSubject) throws(StorageError) {
        let descriptor = csys_open(path, Directory.flags, 0)
        guard descriptor >= 0 else { throw subject.failure(descriptor, "open") }
        self.init(adopting: descriptor)
    }

    deinit { _ = csys_close(descriptor) }

    /// Opens a directory below this one, never through a symbolic link at its end.
    func open(_ name: String) -> Result<Directory, Errno> {
        let opened = csys_openat(descriptor, name, Directory.flags | CSYS_O_NOFOLLOW, 0)
        return opened >= 0 ? .success(Directory(adopting: opened)) : .failure(Errno(code: -opened))
    }

    /// Status of `name`, a symbolic link's own; nil where there is nothing.
    func status(of name: String) -> Result<FileStatus?, Errno> {
        var status = csys_stat()
        let result = csys_lstatat(descriptor, name, &status)
        if result == -ENOENT || result == -ENOTDIR { return .success(nil) }
        return result < 0 ? .failure(Errno(code: -result)) : .success(FileStatus(status))
    }

    /// What lies in this directory, in no order, without `.` and `..` and without names that are
    /// not UTF-8.
    func entries() -> Result<[DirectoryEntry], Errno> {
        // A descriptor of its own, since the position in a directory belongs to the descriptor.
        let reader = csys_openat(descriptor, ".", Directory.flags, 0)
        guard reader >= 0 else { return .failure(Errno(code: -reader)) }
        defer { _ = csys_close(reader) }
        var entries: [DirectoryEntry] = []
        let size = 64 << 10
        return withUnsafeTemporaryAllocation(byteCount: size, alignment: 8) { buffer in
            while true {
                let count = csys_getdents(reader, buffer.baseAddress, size)
                if count < 0 { return .failure(Errno(code: Int32(-count))) }
                if count == 0 { return .success(entries) }
                Directory.parse(UnsafeRawBufferPointer(rebasing: buffer[..<count]), into: &entries)
            }
        }
    }

    /// Takes apart records of `struct linux_dirent64`: inode and position (8 bytes each), length of
    /// the record (2), kind (1), name with its NUL.
    private static func parse(
        _ records: UnsafeRawBufferPointer, into entries: inout [DirectoryEntry]
    ) {
        var at = 0
        while at < records.count {
            let length = Int(records.loadUnaligned(fromByteOffset: at + 16, as: UInt16.self))
            let kind = Int32(records[at + 18])
            let bytes = UnsafeRawBufferPointer(rebasing: records[(at + 19)..<(at + length)])
            let name = bytes.prefix { $0 != 0 }
            at += length
            guard let name = String(validating: name, as: UTF8.self), name != ".", name != ".."
            else { continue }
            entries.append(DirectoryEntry(name: name, kind: .init(directoryKind: kind)))
        }
    }

    static let flags = O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC
}

/// The number of an error of the kernel, positive.
struct Errno: Error {
    let code: Int32
}

struct DirectoryEntry {
    enum Kind {
        case file, directory, symbolicLink, other
        /// The file system does not tell in a listing.
        case unknown

        init(directoryKind: Int32) {
            switch directoryKind {
            case 8: self = .file
            case 4: self = .directory
            case 10: self = .symbolicLink
            case 0: self = .unknown
            default: self = .other
            }
        }
    }

    let name: String
    let kind: Kind
}

/// What the directory store wants to know of a file.
struct FileStatus {
    let length: Int
    let modified: Int64
    let inode: UInt64
    let links: Int
    let permissions: UInt32
    let kind: DirectoryEntry.Kind

    var isFile: Bool { kind == .file }

    init(_ status: csys_stat) {
        length = Int(clamping: status.size)
        modified = status.mtime_sec
        inode = status.inode
        links = Int(status.links)
        permissions = status.mode & 0o7777
        kind =
            switch csys_kind(status.mode) {
            case CSYS_FILE: .file
            case CSYS_DIRECTORY: .directory
            case CSYS_SYMLINK: .symbolicLink
            default: .other
            }
    }

    /// Status of an open file.
    static func of(_ file: Int32, subject: StorageSubject) throws(StorageError) -> FileStatus {
        var status = csys_stat()
        let result = csys_fstat(file, &status)
        guard result >= 0 else { throw subject.failure(result, "fstat") }
        return FileStatus(status)
    }
}
