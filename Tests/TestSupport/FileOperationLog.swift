import CSystem
import Glibc
package import ObjectStorage
import Synchronization

/// One change of a file system, as the directory store asked for it. Paths are relative to the
/// directory that is watched.
package enum FileOperation: Sendable, Equatable {
    case makeDirectory(String)
    case createFile(String)
    case write(String, offset: Int, bytes: [UInt8])
    case synchronizeFile(String)
    case synchronizeDirectory(String)
    case rename(String, to: String)
    case link(String, to: String)
    case unlink(String)
    case removeDirectory(String)

    package var isSynchronization: Bool {
        switch self {
        case .synchronizeFile, .synchronizeDirectory: true
        default: false
        }
    }
}

/// Makes the system calls and writes down, in their order, those that succeeded.
///
/// Calls are made one at a time, so that the log has one order even with many threads.
package final class RecordingFileOperations: FileOperations {
    private let watched: String
    private let base: any FileOperations
    private let log = Mutex<[FileOperation]>([])

    /// - Parameter directory: Absolute and without symbolic links; what happens elsewhere is not
    ///   logged.
    package init(
        watching directory: String, base: any FileOperations = SystemFileOperations()
    ) {
        watched = directory
        self.base = base
    }

    /// Everything so far.
    package var operations: [FileOperation] { log.withLock { $0 } }

    package func makeDirectory(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        record(path(directory, name).map { .makeDirectory($0) }) {
            base.makeDirectory(in: directory, named: name, mode: mode)
        }
    }

    package func createFile(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        record(path(directory, name).map { .createFile($0) }) {
            base.createFile(in: directory, named: name, mode: mode)
        }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int) -> Int {
        let path = path(file)
        return log.withLock { log in
            let count = base.write(bytes, to: file, at: offset)
            if let path, count > 0 {
                log.append(.write(path, offset: offset, bytes: Array(bytes[..<count])))
            }
            return count
        }
    }

    package func startWriteback(of file: Int32, from offset: Int, length: Int) {
        base.startWriteback(of: file, from: offset, length: length)
    }

    package func setMode(of file: Int32, to mode: UInt32) -> Int32 {
        base.setMode(of: file, to: mode)
    }

    package func synchronizeFile(_ file: Int32) -> Int32 {
        record(path(file).map { .synchronizeFile($0) }) { base.synchronizeFile(file) }
    }

    package func synchronizeDirectory(_ directory: Int32) -> Int32 {
        record(path(directory).map { .synchronizeDirectory($0) }) {
            base.synchronizeDirectory(directory)
        }
    }

    package func renameWithoutReplacing(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        record(pair(directory, name, newDirectory, newName).map { .rename($0, to: $1) }) {
            base.renameWithoutReplacing(from: directory, name, to: newDirectory, newName)
        }
    }

    package func rename(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        record(pair(directory, name, newDirectory, newName).map { .rename($0, to: $1) }) {
            base.rename(from: directory, name, to: newDirectory, newName)
        }
    }

    package func link(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        record(pair(directory, name, newDirectory, newName).map { .link($0, to: $1) }) {
            base.link(from: directory, name, to: newDirectory, newName)
        }
    }

    package func unlink(in directory: Int32, named name: String) -> Int32 {
        record(path(directory, name).map { .unlink($0) }) {
            base.unlink(in: directory, named: name)
        }
    }

    package func removeDirectory(in directory: Int32, named name: String) -> Int32 {
        record(path(directory, name).map { .removeDirectory($0) }) {
            base.removeDirectory(in: directory, named: name)
        }
    }

    private func record(_ operation: FileOperation?, _ call: () -> Int32) -> Int32 {
        log.withLock { log in
            let result = call()
            if let operation, result >= 0 { log.append(operation) }
            return result
        }
    }

    private func pair(
        _ directory: Int32, _ name: String, _ newDirectory: Int32, _ newName: String
    ) -> (String, String)? {
        guard let from = path(directory, name), let to = path(newDirectory, newName) else {
            return nil
        }
        return (from, to)
    }

    /// Where an open file lies below the watched directory: "" for that itself, nil for elsewhere.
    private func path(_ descriptor: Int32, _ name: String? = nil) -> String? {
        var bytes = [CChar](repeating: 0, count: 4096)
        let count = csys_readlinkat(AT_FDCWD, "/proc/self/fd/\(descriptor)", &bytes, bytes.count)
        guard count > 0 else { return nil }
        let path = String(decoding: bytes[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
        guard path == watched || path.hasPrefix(watched + "/"), !path.hasSuffix(" (deleted)")
        else { return nil }
        let relative = String(path.dropFirst(watched.count + 1))
        guard let name else { return relative }
        return relative.isEmpty ? name : "\(relative)/\(name)"
    }
}

/// Makes the system calls, save those that a function wants otherwise.
package final class FaultyFileOperations: FileOperations {
    package enum Call: String, Sendable, CaseIterable {
        case makeDirectory, createFile, write, setMode, synchronizeFile, synchronizeDirectory
        case renameWithoutReplacing, rename, link, unlink, removeDirectory
    }

    package enum Action: Sendable, Equatable {
        case pass
        /// Fails with this errno, and nothing has happened.
        case fail(Int32)
        /// Takes effect, then fails with this errno.
        case failAfterEffect(Int32)
        /// Writes at most so many bytes.
        case shorten(Int)
        /// Ends this process on the spot, as `kill -9` does.
        case kill
    }

    private let base: any FileOperations
    private let decide: @Sendable (_ number: Int, _ call: Call) -> Action
    private let count = Mutex(0)

    /// - Parameter decide: Is told the number of the call, from 1, and its kind.
    package init(
        base: any FileOperations = SystemFileOperations(),
        _ decide: @escaping @Sendable (_ number: Int, _ call: Call) -> Action
    ) {
        self.base = base
        self.decide = decide
    }

    /// Calls so far.
    package var calls: Int { count.withLock { $0 } }

    private func next(_ call: Call) -> Action {
        let number = count.withLock { count in
            count += 1
            return count
        }
        let action = decide(number, call)
        if action == .kill {
            kill(getpid(), SIGKILL)
            while true { pause() }
        }
        return action
    }

    private func perform(_ call: Call, _ effect: () -> Int32) -> Int32 {
        switch next(call) {
        case .fail(let code): return -code
        case .failAfterEffect(let code):
            let result = effect()
            return result < 0 ? result : -code
        default: return effect()
        }
    }

    package func makeDirectory(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        perform(.makeDirectory) { base.makeDirectory(in: directory, named: name, mode: mode) }
    }

    package func createFile(in directory: Int32, named name: String, mode: UInt32) -> Int32 {
        perform(.createFile) { base.createFile(in: directory, named: name, mode: mode) }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int) -> Int {
        switch next(.write) {
        case .fail(let code): return -Int(code)
        case .shorten(let count):
            let part = UnsafeRawBufferPointer(rebasing: bytes.prefix(max(1, count)))
            return base.write(part, to: file, at: offset)
        default: return base.write(bytes, to: file, at: offset)
        }
    }

    package func startWriteback(of file: Int32, from offset: Int, length: Int) {
        base.startWriteback(of: file, from: offset, length: length)
    }

    package func setMode(of file: Int32, to mode: UInt32) -> Int32 {
        perform(.setMode) { base.setMode(of: file, to: mode) }
    }

    package func synchronizeFile(_ file: Int32) -> Int32 {
        perform(.synchronizeFile) { base.synchronizeFile(file) }
    }

    package func synchronizeDirectory(_ directory: Int32) -> Int32 {
        perform(.synchronizeDirectory) { base.synchronizeDirectory(directory) }
    }

    package func renameWithoutReplacing(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        perform(.renameWithoutReplacing) {
            base.renameWithoutReplacing(from: directory, name, to: newDirectory, newName)
        }
    }

    package func rename(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        perform(.rename) { base.rename(from: directory, name, to: newDirectory, newName) }
    }

    package func link(
        from directory: Int32, _ name: String, to newDirectory: Int32, _ newName: String
    ) -> Int32 {
        perform(.link) { base.link(from: directory, name, to: newDirectory, newName) }
    }

    package func unlink(in directory: Int32, named name: String) -> Int32 {
        perform(.unlink) { base.unlink(in: directory, named: name) }
    }

    package func removeDirectory(in directory: Int32, named name: String) -> Int32 {
        perform(.removeDirectory) { base.removeDirectory(in: directory, named: name) }
    }
}
