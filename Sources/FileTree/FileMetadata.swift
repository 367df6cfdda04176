import CSystem
import Glibc
package import SnapshotModel

/// Something about a file that a manifest should say and that could not be read.
package struct MetadataProblem: Sendable, Hashable, CustomStringConvertible {
    /// What is missing and why: `the extended attribute user.a: Permission denied (fgetxattr)`.
    package let message: String
    package var description: String { message }
}

/// What there is to know of a file beyond its status.
package enum FileMetadata {
    /// Adds to an entry: owner's and group's names, birth time, a link's target, inode flags,
    /// access control lists, extended attributes.
    ///
    /// Of the extended attributes all that the kernel lists are kept, also `security.selinux`,
    /// `security.capability` and `trusted.*` where this user sees them; but access control lists,
    /// which stand in fields of their own.
    ///
    /// - Parameters:
    ///   - entry: Made by `Entry.init(path:kind:status:)`.
    ///   - descriptor: The file or directory itself, open for reading, where the caller has it.
    ///     Without it files and directories are opened here for their flags.
    ///   - name: Its name in `parent`, ended by zero.
    /// - Returns: What could not be read. The entry then lacks it.
    package static func complete(
        _ entry: inout Entry, status: FileStatus, descriptor: Int32? = nil,
        name: UnsafePointer<CChar>, in parent: DirectoryHandle
    ) -> [MetadataProblem] {
        var problems: [MetadataProblem] = []
        entry.user = AccountNames.user(entry.uid)
        entry.group = AccountNames.group(entry.gid)
        if entry.kind == .symlink {
            entry.target = target(name, in: parent, sizeHint: status.size, &problems)
        }
        let mayOpen = entry.kind == .file || entry.kind == .directory
        guard mayOpen, descriptor == nil else {
            let file = OpenFile(descriptor: mayOpen ? descriptor : nil, parent: parent, name: name)
            fill(&entry, file, status: status, &problems)
            return problems
        }
        let opened = open(name, in: parent, status: status)
        defer { if opened >= 0 { _ = csys_close(opened) } }
        let file = OpenFile(descriptor: opened >= 0 ? opened : nil, parent: parent, name: name)
        if opened < 0 { report(opened, "openat", "the inode flags", &problems) }
        fill(&entry, file, status: status, &problems)
        return problems
    }

    /// A file by its descriptor, or by its place where there is none.
    private struct OpenFile {
        let descriptor: Int32?
        let parent: DirectoryHandle
        let name: UnsafePointer<CChar>

        func list(_ buffer: UnsafeMutableBufferPointer<CChar>) -> Int {
            if let descriptor {
                return csys_flistxattr(descriptor, buffer.baseAddress, buffer.count)
            }
            return csys_listxattr_at(parent.descriptor, name, buffer.baseAddress, buffer.count)
        }

        func get(_ attribute: UnsafePointer<CChar>, _ buffer: UnsafeMutableRawBufferPointer) -> Int
        {
            if let descriptor {
                return csys_fgetxattr(descriptor, attribute, buffer.baseAddress, buffer.count)
            }
            return csys_getxattr_at(
                parent.descriptor, name, attribute, buffer.baseAddress, buffer.count)
        }
    }

    private static func fill(
        _ entry: inout Entry, _ file: OpenFile, status: FileStatus,
        _ problems: inout [MetadataProblem]
    ) {
        if status.hasBirthTime {
            entry.btime = status.btime
        } else {
            var raw = csys_stat()
            let result =
                if let descriptor = file.descriptor {
                    csys_statx(descriptor, "", &raw)
                } else {
                    csys_statx(file.parent.descriptor, file.name, &raw)
                }
            if result == 0 {
                entry.btime = FileStatus(raw).btime
            } else {
                report(result, "statx", "the birth time", &problems)
            }
        }
        if let descriptor = file.descriptor {
            entry.flags = flags(descriptor, &problems)
        }
        attributes(of: file, &entry, &problems)
    }

    private static func report(
        _ code: some BinaryInteger, _ call: String, _ what: String,
        _ problems: inout [MetadataProblem]
    ) {
        let text = FileTreeError.text(of: Int32(truncatingIfNeeded: code.magnitude))
        problems.append(MetadataProblem(message: "\(what): \(text) (\(call))"))
    }

    /// Opens a file or directory for its flags, if it still is the one that was seen: the request
    /// for the flags means something else to a device.
    private static func open(
        _ name: UnsafePointer<CChar>, in parent: DirectoryHandle, status: FileStatus
    ) -> Int32 {
        let flags = O_RDONLY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC | CSYS_O_NONBLOCK
        let descriptor = csys_openat(parent.descriptor, name, flags, 0)
        guard descriptor >= 0 else { return descriptor }
        var raw = csys_stat()
        if csys_fstat(descriptor, &raw) == 0, FileStatus(raw).isSameFile(as: status) {
            return descriptor
        }
        _ = csys_close(descriptor)
        return -ESTALE
    }

    private static func flags(_ descriptor: Int32, _ problems: inout [MetadataProblem]) -> UInt32 {
        var bits: UInt32 = 0
        let result = csys_getflags(descriptor, &bits)
        switch -result {
        case 0: return bits & ~InodeFlags.incidental
        // Most file systems that are no Unix file systems have none.
        case ENOTTY, EOPNOTSUPP, ENOSYS, EINVAL: return 0
        default:
            report(result, "ioctl", "the inode flags", &problems)
            return 0
        }
    }

    private static func target(
        _ name: UnsafePointer<CChar>, in parent: DirectoryHandle, sizeHint: UInt64,
        _ problems: inout [MetadataProblem]
    ) -> [UInt8] {
        // One more than expected, so that a full buffer means that there is more.
        var size = Int(min(sizeHint, 65_536)) + 1
        if size < 128 { size = 128 }
        while true {
            var got = 0
            let target = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
                buffer.withMemoryRebound(to: CChar.self) {
                    got = csys_readlinkat(parent.descriptor, name, $0.baseAddress, size)
                }
                count = max(got, 0)
            }
            if got < 0 {
                report(got, "readlinkat", "the target of the link", &problems)
                return []
            }
            if got < size { return target }
            size *= 2
        }
    }

    // MARK: Extended attributes

    private static func attributes(
        of file: OpenFile, _ entry: inout Entry, _ problems: inout [MetadataProblem]
    ) {
        let (names, failure) = read(startingWith: 1024) { buffer in
            buffer.withMemoryRebound(to: CChar.self) { file.list($0) }
        }
        guard let names else {
            // Without support for attributes there are none.
            if failure != EOPNOTSUPP, failure != ENOSYS {
                report(failure, "listxattr", "the extended attributes", &problems)
            }
            return
        }
        if names.isEmpty { return }
        for name in names.split(separator: 0) {
            let text = name.map { CChar(bitPattern: $0) } + [0]
            let (value, failure) = read(startingWith: 256) { buffer in
                text.withUnsafeBufferPointer {
                    file.get($0.baseAddress!, UnsafeMutableRawBufferPointer(buffer))
                }
            }
            guard let value else {
                // Removed a moment ago.
                if failure != ENODATA {
                    let shown = FileTreeError.printable(name)
                    report(failure, "getxattr", "the extended attribute \(shown)", &problems)
                }
                continue
            }
            let isAccess = name.elementsEqual(AccessControlList.accessAttribute.utf8)
            if isAccess || name.elementsEqual(AccessControlList.defaultAttribute.utf8) {
                guard let list = AccessControlList(binary: value) else {
                    let which = isAccess ? "access control list" : "default access control list"
                    problems.append(
                        MetadataProblem(message: "the \(which): it is not of a known form"))
                    continue
                }
                if isAccess { entry.acl = list.text } else { entry.defaultACL = list.text }
                continue
            }
            entry.xattrs.append(ExtendedAttribute(name: Array(name), value: value))
        }
        if entry.xattrs.count > 1 {
            entry.xattrs.sort { $0.name.lexicographicallyPrecedes($1.name) }
        }
    }

    /// Makes a call with larger and larger buffers until the answer fits. The kernel's limit is 64
    /// KiB, and some file systems of its own go beyond.
    private static func read(
        startingWith bytes: Int, _ call: (UnsafeMutableBufferPointer<UInt8>) -> Int
    ) -> (bytes: [UInt8]?, errno: Int32) {
        var size = bytes
        while true {
            var got = 0
            let value = withUnsafeTemporaryAllocation(of: UInt8.self, capacity: size) { buffer in
                got = call(buffer)
                return got > 0 ? Array(buffer[..<got]) : []
            }
            if got >= 0 { return (value, 0) }
            guard got == -Int(ERANGE) || got == -Int(E2BIG), size < 16 << 20 else {
                return (nil, Int32(-got))
            }
            size *= 8
        }
    }
}
