import CSystem
import Glibc
import SnapshotModel

/// The files and flags in a directory that say what is left out of it: read alike by the walk and
/// by whoever explains it.
enum DirectoryMarks {
    /// Whether `name` is the marker: there, and with its header where it has one.
    static func confirms(
        _ marker: ExclusionMarker, named name: UnsafePointer<CChar>, in handle: DirectoryHandle
    ) -> Bool {
        if marker.header.isEmpty { return true }
        guard let beginning = try? contents(of: name, in: handle, atMost: marker.header.count)
        else {
            return false
        }
        return marker.isConfirmed(by: beginning)
    }

    /// Reads a file of rules. One that cannot be read is a problem, and then nothing is left out
    /// for its sake.
    static func rules(
        named name: UnsafePointer<CChar>, in handle: DirectoryHandle, below parent: DirectoryRules?
    ) -> (rules: DirectoryRules?, problem: WalkProblem?) {
        let limit = ExclusionRules.ignoreFileBytes
        do {
            let bytes = try contents(of: name, in: handle, atMost: limit + 1)
            guard bytes.count <= limit else {
                return (
                    parent,
                    WalkProblem(
                        .unreadable, "its rules are not used: it is larger than \(limit) bytes")
                )
            }
            return (DirectoryRules.reading(bytes, in: handle.path, below: parent), nil)
        } catch {
            // A link or a directory of that name is no file of rules and nothing to complain about.
            if error.kind == .changed || error.kind == .notFound { return (parent, nil) }
            return (
                parent,
                WalkProblem(
                    .unreadable, "its rules are not used: \(error.cause)", errno: error.errno)
            )
        }
    }

    private static func contents(
        of name: UnsafePointer<CChar>, in handle: DirectoryHandle, atMost count: Int
    ) throws(FileTreeError) -> [UInt8] {
        let reader = try FileReader(opening: name, in: handle)
        var failure: FileTreeError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            do throws(FileTreeError) {
                while filled < count {
                    let rest = UnsafeMutableRawBufferPointer(
                        rebasing: UnsafeMutableRawBufferPointer(buffer)[filled...])
                    let got = try reader.read(into: rest, at: UInt64(filled))
                    if got == 0 { return }
                    filled += got
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Whether a file or directory carries the inode flag "no dump". One that cannot be opened does
    /// not, as far as one knows.
    static func isNoDump(
        _ status: FileStatus, named name: UnsafePointer<CChar>, in handle: DirectoryHandle
    ) -> Bool {
        guard status.isFile || status.isDirectory else { return false }
        let flags = O_RDONLY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC | CSYS_O_NONBLOCK
        let descriptor = csys_openat(handle.descriptor, name, flags, 0)
        guard descriptor >= 0 else { return false }
        defer { _ = csys_close(descriptor) }
        var bits: UInt32 = 0
        return csys_getflags(descriptor, &bits) == 0 && bits & InodeFlags.nodump != 0
    }
}
