import CSystem
import Glibc
package import SnapshotModel

/// This host's own small files: read whole, written whole or not at all, never readable by others.
package enum LocalFile {
    /// Nil where there is none.
    package static func read(_ path: String, maximumBytes: Int = 64 << 20) throws(RepositoryError)
        -> [UInt8]?
    {
        let fd = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        if fd == -ENOENT || fd == -ENOTDIR { return nil }
        guard fd >= 0 else { throw failure(path, "open", fd) }
        defer { _ = csys_close(fd) }
        var status = csys_stat()
        let result = csys_fstat(fd, &status)
        guard result == 0 else { throw failure(path, "stat", result) }
        guard status.mode & 0o170000 == 0o100000 else {
            throw RepositoryError(.local, path, "is not a regular file")
        }
        guard status.size <= UInt64(maximumBytes) else {
            throw RepositoryError(.local, path, "is larger than \(maximumBytes) bytes")
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.size))
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                csys_pread(fd, $0.baseAddress! + filled, $0.count - filled, Int64(filled))
            }
            guard count >= 0 else { throw failure(path, "read", Int32(count)) }
            if count == 0 { break }
            filled += count
        }
        bytes.removeLast(bytes.count - filled)
        return bytes
    }

    /// Replaces the file; after a loss of power there is the old one or the new one, and once this
    /// has returned the new one.
    package static func write(_ bytes: [UInt8], to path: String, mode: UInt32 = 0o600)
        throws(RepositoryError)
    {
        let directory = parent(path)
        try makeDirectory(directory)
        let temporary = path + ".tmp-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        let fd = csys_open(temporary, O_WRONLY | O_CREAT | O_EXCL | CSYS_O_CLOEXEC, mode)
        guard fd >= 0 else { throw failure(temporary, "create", fd) }
        var step = "write"
        var result: Int32 = 0
        var written = 0
        while written < bytes.count, result == 0 {
            let count = bytes.withUnsafeBytes {
                csys_pwrite(fd, $0.baseAddress! + written, $0.count - written, Int64(written))
            }
            if count <= 0 { result = count == 0 ? -EIO : Int32(count) } else { written += count }
        }
        if result == 0 {
            step = "synchronise"
            result = csys_fsync(fd)
        }
        let closed = csys_close(fd)
        if result == 0 { result = closed }
        if result == 0 {
            step = "rename"
            result = csys_renameat(AT_FDCWD, temporary, AT_FDCWD, path)
        }
        guard result == 0 else {
            _ = csys_unlinkat(AT_FDCWD, temporary, 0)
            throw failure(path, step, result)
        }
        try syncDirectory(directory)
    }

    /// Moves a file; nothing happens where it is not there.
    package static func rename(_ path: String, to new: String) {
        _ = csys_renameat(AT_FDCWD, path, AT_FDCWD, new)
    }

    package static func remove(_ path: String) { _ = csys_unlinkat(AT_FDCWD, path, 0) }

    package static func exists(_ path: String) -> Bool {
        var status = csys_stat()
        return csys_lstatat(AT_FDCWD, path, &status) == 0
    }

    /// Makes a directory and what it stands in, for this user alone.
    package static func makeDirectory(_ path: String) throws(RepositoryError) {
        let made = csys_mkdirat(AT_FDCWD, path, 0o700)
        if made == 0 { return try syncDirectory(parent(path)) }
        if made == -EEXIST { return }
        guard made == -ENOENT, path.contains("/") else {
            throw failure(path, "make the directory", made)
        }
        try makeDirectory(parent(path))
        let again = csys_mkdirat(AT_FDCWD, path, 0o700)
        guard again == 0 || again == -EEXIST else {
            throw failure(path, "make the directory", again)
        }
        try syncDirectory(parent(path))
    }

    package static func syncDirectory(_ path: String) throws(RepositoryError) {
        let fd = csys_open(path, O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC, 0)
        guard fd >= 0 else { throw failure(path, "open", fd) }
        let result = csys_fsync(fd)
        _ = csys_close(fd)
        guard result == 0 else { throw failure(path, "synchronise", result) }
    }

    /// Names in a directory, sorted; none where there is no directory.
    package static func names(in path: String) -> [String] {
        let fd = csys_open(path, O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC, 0)
        guard fd >= 0 else { return [] }
        defer { _ = csys_close(fd) }
        var names: [String] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 8)
        defer { buffer.deallocate() }
        while true {
            let count = csys_getdents(fd, buffer.baseAddress!, buffer.count)
            guard count > 0 else { break }
            var at = 0
            while at < count {
                let length = Int(buffer.loadUnaligned(fromByteOffset: at + 16, as: UInt16.self))
                let name = String(
                    cString: (buffer.baseAddress! + at + 19).assumingMemoryBound(to: CChar.self))
                if name != ".", name != ".." { names.append(name) }
                at += length
            }
        }
        return names.sorted()
    }

    static func parent(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    static func failure(_ path: String, _ step: String, _ code: Int32) -> RepositoryError {
        let reason = String(cString: strerror(-code))
        let remedy =
            switch -code {
            case EACCES, EPERM: "check who owns it and who may write there"
            case ENOSPC, EDQUOT: "make room on that file system"
            case EROFS: "the file system is mounted read-only"
            default: ""
            }
        return RepositoryError(.local, path, "\(reason) (\(step))", remedy: remedy)
    }
}

/// Where a host keeps its own files of all repositories.
package struct HostDirectories: Sendable {
    /// Host keys: must be kept.
    package let configuration: String
    /// Index and last manifests: may be deleted at any time.
    package let cache: String
    /// What was committed last, journals of runs in progress.
    package let state: String

    package init(configuration: String, cache: String, state: String) {
        self.configuration = configuration
        self.cache = cache
        self.state = state
    }

    /// From an environment: for root below /etc and /var, else the XDG base directories.
    package init(environment: [String: String], isRoot: Bool) {
        func place(_ variable: String, root: String, xdg: String, fallback: String) -> String {
            if let given = environment[variable], !given.isEmpty { return given }
            if isRoot { return root }
            if let base = environment[xdg], base.hasPrefix("/") { return base + "/batchsync" }
            return (environment["HOME"] ?? "/") + "/" + fallback + "/batchsync"
        }
        configuration = place(
            "BATCHSYNC_CONFIG_DIR", root: "/etc/batchsync", xdg: "XDG_CONFIG_HOME",
            fallback: ".config")
        cache = place(
            "BATCHSYNC_CACHE_DIR", root: "/var/cache/batchsync", xdg: "XDG_CACHE_HOME",
            fallback: ".cache")
        state = place(
            "BATCHSYNC_STATE_DIR", root: "/var/lib/batchsync", xdg: "XDG_STATE_HOME",
            fallback: ".local/state")
    }

    /// One name for a place, however it is written.
    private func digest(ofPlace location: String) -> RecordID {
        var place = location
        if let resolved = realpath(location, nil) {
            place = String(cString: resolved)
            free(resolved)
        }
        return Authentication.digest(Array(place.utf8))
    }

    /// Where this host notes that the repository at `location` was an encrypted one.
    func encryptionPath(_ location: String) -> String {
        "\(configuration)/encrypted/\(digest(ofPlace: location))"
    }

    /// A file name that stands for a place.
    package func placeName(_ location: String) -> String {
        String(digest(ofPlace: location).description.prefix(16))
    }

    private func replicaNote(_ repository: RepositoryID, _ location: String) -> String {
        "\(statePath(repository))/replicas/\(placeName(location))/location"
    }

    /// Notes that the store at `location` is a second one of its repository, so that what this host
    /// keeps of the two does not get mixed up. A note that cannot be written costs time, not truth.
    package func noteReplica(_ repository: RepositoryID, at location: String) {
        let path = replicaNote(repository, location)
        guard !LocalFile.exists(path) else { return }
        try? LocalFile.write(Array((location + "\n").utf8), to: path)
    }

    /// Whether this host knows a second store of the repository.
    func knowsReplica(_ repository: RepositoryID) -> Bool {
        !LocalFile.names(in: "\(statePath(repository))/replicas").isEmpty
    }

    /// What is appended to the folders of a repository for the store at `location`: nothing, unless
    /// it was noted as a second one.
    func replicaFolder(_ repository: RepositoryID, at location: String) -> String {
        guard LocalFile.exists(replicaNote(repository, location)) else { return "" }
        return "/replicas/" + placeName(location)
    }

    /// Notes whether the repository at `location` is encrypted, so that whoever has the store
    /// cannot say otherwise later. A note that cannot be written is none: only the place of the
    /// host's keys has to be writable, and only once.
    func noteEncryption(at location: String, isEncrypted: Bool) {
        guard !configuration.isEmpty else { return }
        let path = encryptionPath(location)
        if !isEncrypted {
            LocalFile.remove(path)
        } else if !LocalFile.exists(path) {
            try? LocalFile.write(Array((location + "\n").utf8), to: path)
        }
    }

    package func hostKeyPath(_ repository: RepositoryID) -> String {
        "\(configuration)/keys/\(repository).json"
    }
    package func cachePath(_ repository: RepositoryID) -> String { "\(cache)/\(repository)" }
    package func statePath(_ repository: RepositoryID) -> String { "\(state)/\(repository)" }
}
