import CSystem
import Glibc

/// Files of this host that are small, written whole or line by line, and read by people and
/// programs. They may be lost without harm to any backup.
enum ReportFile {
    // MARK: Whole

    /// Nil where there is none, or what is there is no regular file of that size.
    static func read(_ path: String, maximumBytes: Int) -> [UInt8]? {
        let file = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        guard file >= 0 else { return nil }
        defer { _ = csys_close(file) }
        var status = csys_stat()
        guard csys_fstat(file, &status) == 0, csys_kind(status.mode) == CSYS_FILE,
            status.size <= UInt64(maximumBytes)
        else { return nil }
        var bytes = [UInt8](repeating: 0, count: Int(status.size))
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                csys_pread(file, $0.baseAddress! + filled, $0.count - filled, Int64(filled))
            }
            guard count > 0 else { break }
            filled += count
        }
        bytes.removeLast(bytes.count - filled)
        return bytes
    }

    /// Replaces the file: who reads it finds the old one or the new one, whole, also after a loss of
    /// power. The mode holds whatever the process's mask is.
    static func replace(_ path: String, with bytes: [UInt8], mode: UInt32) throws(RunReportError) {
        let temporary = "\(path).tmp-\(getpid())"
        _ = csys_unlinkat(AT_FDCWD, temporary, 0)
        let file = csys_open(temporary, O_WRONLY | O_CREAT | O_EXCL | CSYS_O_CLOEXEC, mode)
        guard file >= 0 else { throw .file(path, "create", file) }
        var step = "write"
        var result = put(bytes, to: file, at: 0)
        if result == 0 {
            step = "change the mode"
            result = csys_fchmod(file, mode)
        }
        if result == 0 {
            step = "synchronise"
            result = csys_fsync(file)
        }
        let closed = csys_close(file)
        if result == 0 { result = closed }
        if result == 0 {
            step = "rename"
            result = csys_renameat(AT_FDCWD, temporary, AT_FDCWD, path)
        }
        guard result == 0 else {
            _ = csys_unlinkat(AT_FDCWD, temporary, 0)
            throw .file(path, step, result)
        }
        syncDirectory(of: path)
    }

    private static func put(_ bytes: [UInt8], to file: Int32, at start: Int64) -> Int32 {
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                csys_pwrite(
                    file, $0.baseAddress! + written, $0.count - written, start + Int64(written))
            }
            guard count > 0 else { return count == 0 ? -EIO : Int32(count) }
            written += count
        }
        return 0
    }

    // MARK: Line by line

    /// Appends a line and puts the file aside once it is full: `path.1` is then the last one before,
    /// `path.2` the one before that.
    ///
    /// Several processes may append at once. A line that a crash tore off is ended first, so that it
    /// spoils no other.
    ///
    /// - Parameter line: Without its end; holds no line feed.
    /// - Parameter keeping: How many files are kept beside the one that grows.
    /// - Parameter isDurable: Whether a loss of power after the return must not take the line.
    static func append(
        _ line: [UInt8], to path: String, mode: UInt32, limitBytes: Int, keeping: Int,
        isDurable: Bool
    ) throws(RunReportError) {
        let file = try openLocked(path, mode: mode)
        defer { _ = csys_close(file) }
        var status = csys_stat()
        let known = csys_fstat(file, &status)
        guard known == 0 else { throw .file(path, "stat", known) }
        var bytes = line + [0x0A]
        if status.size > 0 {
            var last: UInt8 = 0
            let count = csys_pread(file, &last, 1, Int64(status.size) - 1)
            guard count == 1 else { throw .file(path, "read", count < 0 ? Int32(count) : -EIO) }
            if last != 0x0A { bytes.insert(0x0A, at: 0) }
        }
        var result = put(bytes, to: file, at: Int64(status.size))
        guard result == 0 else {
            // Half a line is worth less than none.
            _ = csys_ftruncate(file, Int64(status.size))
            throw .file(path, "write", result)
        }
        if isDurable {
            result = csys_fsync(file)
            guard result == 0 else { throw .file(path, "synchronise", result) }
        }
        if status.size == 0 { syncDirectory(of: path) }
        if Int(status.size) + bytes.count >= limitBytes { putAside(path, keeping: keeping) }
    }

    /// Opens and locks the file that bears the name now: while one waits for the lock it may be put
    /// aside.
    private static func openLocked(_ path: String, mode: UInt32) throws(RunReportError) -> Int32 {
        while true {
            let file = csys_open(path, O_RDWR | O_CREAT | CSYS_O_CLOEXEC, mode)
            guard file >= 0 else { throw .file(path, "open", file) }
            let locked = csys_lock(file)
            guard locked == 0 else {
                _ = csys_close(file)
                throw .file(path, "lock", locked)
            }
            var own = csys_stat()
            var named = csys_stat()
            if csys_fstat(file, &own) == 0, csys_lstatat(AT_FDCWD, path, &named) == 0,
                own.inode == named.inode, own.device_major == named.device_major,
                own.device_minor == named.device_minor
            {
                return file
            }
            _ = csys_close(file)
        }
    }

    private static func putAside(_ path: String, keeping: Int) {
        for number in stride(from: keeping, to: 0, by: -1) {
            let older = number == 1 ? path : "\(path).\(number - 1)"
            _ = csys_renameat(AT_FDCWD, older, AT_FDCWD, "\(path).\(number)")
        }
        if keeping == 0 { _ = csys_unlinkat(AT_FDCWD, path, 0) }
        syncDirectory(of: path)
    }

    /// The files that `append` has filled, the oldest first.
    static func generations(of path: String, keeping: Int) -> [String] {
        stride(from: keeping, to: 0, by: -1).map { "\(path).\($0)" } + [path]
    }

    // MARK: Directories

    /// Makes a directory and what it stands in, for this user alone.
    static func makeDirectory(_ path: String) throws(RunReportError) {
        let made = csys_mkdirat(AT_FDCWD, path, 0o700)
        if made == 0 || made == -EEXIST { return }
        guard made == -ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
            throw .file(path, "make the directory", made)
        }
        try makeDirectory(String(path[..<slash]))
        let again = csys_mkdirat(AT_FDCWD, path, 0o700)
        guard again == 0 || again == -EEXIST else { throw .file(path, "make the directory", again) }
    }

    /// Names in a directory, sorted; none where there is no directory.
    static func names(in path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    private static func syncDirectory(of path: String) {
        let slash = path.lastIndex(of: "/")
        let directory = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let file = csys_open(directory, O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC, 0)
        guard file >= 0 else { return }
        _ = csys_fsync(file)
        _ = csys_close(file)
    }
}
