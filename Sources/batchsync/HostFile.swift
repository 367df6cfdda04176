import CSystem
import Glibc
import SnapshotModel

/// Files that the user names on the command line, by paths of any bytes.
enum HostFile {
    /// Reads a file, a pipe or `-`, standard input, to its end.
    ///
    /// - Parameter purpose: Finishes "cannot read …": `the passphrase from`.
    static func read(_ path: [UInt8], purpose: String, maximumBytes: Int = 64 << 20)
        throws(CommandError) -> [UInt8]
    {
        let name = UTF8Text.display(path)
        func failure(_ reason: String, remedy: String = "") -> CommandError {
            CommandError(.failed, "cannot read \(purpose) \(name): \(reason)", remedy: remedy)
        }
        var descriptor: Int32 = 0
        if path != Array("-".utf8) {
            descriptor = path.withCString { csys_open($0, O_RDONLY | CSYS_O_CLOEXEC, 0) }
            guard descriptor >= 0 else {
                throw failure(
                    String(cString: strerror(-descriptor)),
                    remedy: descriptor == -EACCES
                        ? "check who owns it and who may read it" : "check the path")
            }
        }
        defer { if descriptor > 0 { _ = csys_close(descriptor) } }
        do {
            return try readAll(descriptor, maximumBytes: maximumBytes)
        } catch {
            throw failure(error.reason)
        }
    }

    struct ReadFailure: Error { let reason: String }

    /// Reads a descriptor to its end.
    static func readAll(_ descriptor: Int32, maximumBytes: Int) throws(ReadFailure) -> [UInt8] {
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = piece.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress, $0.count)
            }
            if count == 0 { return bytes }
            if count < 0 {
                if errno == EINTR { continue }
                throw ReadFailure(reason: String(cString: strerror(errno)))
            }
            bytes += piece[..<count]
            guard bytes.count <= maximumBytes else {
                throw ReadFailure(reason: "it is larger than \(maximumBytes) bytes")
            }
        }
    }

    /// Writes a new file that only this user can read. One that is there is never replaced.
    static func create(_ bytes: [UInt8], at path: [UInt8]) throws(CommandError) {
        let name = UTF8Text.display(path)
        let descriptor = path.withCString {
            csys_open($0, O_WRONLY | O_CREAT | O_EXCL | CSYS_O_CLOEXEC, 0o600)
        }
        guard descriptor >= 0 else {
            throw CommandError(
                .failed, "cannot write \(name): \(String(cString: strerror(-descriptor)))",
                remedy: descriptor == -EEXIST
                    ? "choose a name that is free; keys are never written over" : "")
        }
        var result: Int32 = 0
        var written = 0
        while written < bytes.count, result == 0 {
            let count = bytes.withUnsafeBytes {
                csys_pwrite(
                    descriptor, $0.baseAddress! + written, $0.count - written, Int64(written))
            }
            if count <= 0 { result = count == 0 ? -EIO : Int32(count) } else { written += count }
        }
        if result == 0 { result = csys_fsync(descriptor) }
        let closed = csys_close(descriptor)
        if result == 0 { result = closed }
        guard result == 0 else {
            _ = path.withCString { csys_unlinkat(AT_FDCWD, $0, 0) }
            throw CommandError(
                .failed, "cannot write \(name): \(String(cString: strerror(-result)))")
        }
    }

    /// The path with every link resolved; nil where nothing is there.
    static func realPath(_ path: [UInt8]) -> [UInt8]? {
        guard let found = path.withCString({ realpath($0, nil) }) else { return nil }
        defer { free(found) }
        return Array(UnsafeRawBufferPointer(start: found, count: strlen(found)))
    }
}

extension [UInt8] {
    /// Runs `body` with the bytes as a C string.
    func withCString<Value>(_ body: (UnsafePointer<CChar>) throws -> Value) rethrows -> Value {
        try (map { CChar(bitPattern: $0) } + [0]).withUnsafeBufferPointer {
            try body($0.baseAddress!)
        }
    }
}
