import Glibc
import ObjectStorage
import Synchronization

/// Counts from 1.
final class Counter: Sendable {
    private let count = Mutex(0)

    func next() -> Int {
        count.withLock { count in
            count += 1
            return count
        }
    }

    var value: Int { count.withLock { $0 } }
}

/// File operations that claim to have synchronised, and have not.
struct CarelessOperations: FileOperations {
    let base: any FileOperations

    init(_ base: any FileOperations) { self.base = base }

    func synchronizeFile(_ file: Int32) -> Int32 { 0 }
    func synchronizeDirectory(_ directory: Int32) -> Int32 { 0 }

    func makeDirectory(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        base.makeDirectory(in: directory, named: name, mode: mode)
    }
    func createFile(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        base.createFile(in: directory, named: name, mode: mode)
    }
    func write(_ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int) -> Int {
        base.write(bytes, to: file, at: offset)
    }
    func startWriteback(of file: Int32, from offset: Int, length: Int) {}
    func setMode(of file: Int32, to mode: UInt32) -> Int32 { base.setMode(of: file, to: mode) }
    func renameWithoutReplacing(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        base.renameWithoutReplacing(from: directory, name, to: newDirectory, newName)
    }
    func rename(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        base.rename(from: directory, name, to: newDirectory, newName)
    }
    func link(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        base.link(from: directory, name, to: newDirectory, newName)
    }
    func unlink(in directory: Int32, named name: String) -> Int32 {
        base.unlink(in: directory, named: name)
    }
    func removeDirectory(in directory: Int32, named name: String) -> Int32 {
        base.removeDirectory(in: directory, named: name)
    }
}
