import CSystem
import Glibc

/// Every system call by which the directory store changes a file system, and no other.
///
/// A seam for tests: one that records the calls can tell what a loss of power between any two of
/// them leaves behind, one that fails them shows that nothing is left behind. Each gives what the
/// call gives, or the negated errno. Directories and files are descriptors; names are single
/// components.
package protocol FileOperations: Sendable {
    func makeDirectory(in directory: Int32, named name: String, mode: UInt32) -> Int32
    /// Creates a file that was not there and opens it for reading and writing.
    func createFile(in directory: Int32, named name: String, mode: UInt32) -> Int32
    /// Writes at a position; may write less than asked for.
    func write(_ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int) -> Int
    /// Begins to move a range to the disk. Promises nothing; makes the coming synchronisation
    /// shorter.
    func startWriteback(of file: Int32, from offset: Int, length: Int)
    func setMode(of file: Int32, to mode: UInt32) -> Int32
    func synchronizeFile(_ file: Int32) -> Int32
    func synchronizeDirectory(_ directory: Int32) -> Int32
    /// Moves a name; -EEXIST where the new one is taken.
    func renameWithoutReplacing(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32
    /// Moves a name, replacing what stands there.
    func rename(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32
    /// Gives a file a second name; -EEXIST where that is taken.
    func link(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32
    func unlink(in directory: Int32, named name: String) -> Int32
    func removeDirectory(in directory: Int32, named name: String) -> Int32
}

/// The system calls themselves.
package struct SystemFileOperations: FileOperations {
    package init() {}

    package func makeDirectory(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        csys_mkdirat(directory, name, mode)
    }

    package func createFile(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        let flags = O_CREAT | O_EXCL | O_RDWR | CSYS_O_CLOEXEC | CSYS_O_NOFOLLOW
        return csys_openat(directory, name, flags, mode)
    }

    package func write(_ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int) -> Int {
        csys_pwrite(file, bytes.baseAddress, bytes.count, Int64(offset))
    }

    package func startWriteback(of file: Int32, from offset: Int, length: Int) {
        _ = csys_start_writeback(file, Int64(offset), Int64(length))
    }

    package func setMode(of file: Int32, to mode: UInt32) -> Int32 { csys_fchmod(file, mode) }

    package func synchronizeFile(_ file: Int32) -> Int32 { csys_fsync(file) }

    package func synchronizeDirectory(_ directory: Int32) -> Int32 { csys_fsync(directory) }

    package func renameWithoutReplacing(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        csys_renameat_noreplace(directory, name, newDirectory, newName)
    }

    package func rename(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        csys_renameat(directory, name, newDirectory, newName)
    }

    package func link(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        csys_linkat(directory, name, newDirectory, newName)
    }

    package func unlink(in directory: Int32, named name: String) -> Int32 {
        csys_unlinkat(directory, name, 0)
    }

    package func removeDirectory(in directory: Int32, named name: String) -> Int32 {
        csys_unlinkat(directory, name, 1)
    }
}
