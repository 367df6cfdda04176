import CSystem
import Glibc
package import SnapshotModel

/// A name in a directory below a restore target.
package struct TargetChild: Sendable, Hashable {
    /// One component.
    package let name: [UInt8]
    /// Nil for what no manifest knows.
    package let kind: EntryKind?
}

/// Reads the names in a directory.
enum TargetListing {
    /// Hands every name but `.` and `..` with its type byte (DT_*) to `body`, in the order in which
    /// the file system has them, until `body` returns false.
    static func forEach(
        in handle: TargetHandle, of target: TargetDirectory,
        _ body: (UnsafeBufferPointer<UInt8>, UInt8) -> Bool
    ) throws(FileTreeError) {
        // A descriptor of its own: the position in a shared one is shared by all threads.
        let descriptor = csys_openat(
            handle.descriptor, ".", O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC, 0)
        guard descriptor >= 0 else {
            throw target.failure(descriptor, handle.relative, "openat", "list")
        }
        defer { _ = csys_close(descriptor) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 15, alignment: 8)
        defer { buffer.deallocate() }
        while true {
            let filled = csys_getdents(descriptor, buffer.baseAddress!, buffer.count)
            guard filled >= 0 else {
                throw target.failure(filled, handle.relative, "getdents64", "list")
            }
            if filled == 0 { return }
            var at = 0
            while at < filled {
                // struct linux_dirent64: inode 8, offset 8, record length 2, type 1, name.
                let length = Int(buffer.loadUnaligned(fromByteOffset: at + 16, as: UInt16.self))
                let name = UnsafeRawPointer(buffer.baseAddress! + at + 19)
                    .assumingMemoryBound(to: UInt8.self)
                let count = strlen(UnsafeRawPointer(name).assumingMemoryBound(to: CChar.self))
                let isDots =
                    name[0] == 0x2E && (count == 1 || (count == 2 && name[1] == 0x2E))
                if !isDots, !body(UnsafeBufferPointer(start: name, count: count), buffer[at + 18]) {
                    return
                }
                at += length
            }
        }
    }

    /// The kind that a type byte stands for, or asks the file where the file system does not tell.
    static func kind(
        _ type: UInt8, _ name: [UInt8], in handle: TargetHandle
    ) -> EntryKind? {
        if type != 0 { return EntryKind(mode: UInt32(type) << 12) }
        var status = csys_stat()
        guard csys_lstatat(handle.descriptor, TargetPath.cString(name[...]), &status) == 0 else {
            return nil
        }
        return EntryKind(mode: status.mode)
    }
}

extension TargetDirectory {
    /// What lies in a directory below the target, sorted by name as a manifest sorts.
    package func children(of relative: [UInt8]) throws(FileTreeError) -> [TargetChild] {
        let handle = try directory(relative)
        var found: [(name: [UInt8], type: UInt8)] = []
        try TargetListing.forEach(in: handle, of: self) { name, type in
            found.append((Array(name), type))
            return true
        }
        return
            found
            .map {
                TargetChild(name: $0.name, kind: TargetListing.kind($0.type, $0.name, in: handle))
            }
            .sorted { $0.name.lexicographicallyPrecedes($1.name) }
    }

    /// What stands at a path below the target; nil where nothing does, also where a directory above
    /// is missing. A symlink at the end is not followed, one on the way is an error.
    package func status(_ relative: [UInt8]) throws(FileTreeError) -> FileStatus? {
        var raw = csys_stat()
        let result: Int32
        do throws(FileTreeError) {
            if relative.isEmpty {
                result = csys_fstat(try directory(relative).descriptor, &raw)
            } else {
                let slot = try slot(relative)
                result = csys_lstatat(slot.parent.descriptor, slot.name, &raw)
            }
        } catch  where error.kind == .notFound {
            return nil
        }
        if result == -ENOENT { return nil }
        guard result == 0 else { throw failure(result, relative, "fstatat", "examine") }
        return FileStatus(raw)
    }
}
