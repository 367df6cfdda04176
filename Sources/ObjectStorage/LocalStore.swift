import CSystem
import Glibc
import Synchronization

/// Objects as files below a directory of this host.
///
/// A put writes a temporary file in `+tmp/`, synchronises it, moves it to its name without
/// replacing anything, and synchronises the directory. A directory is made when it is first needed;
/// before the first object in it counts as stored, the directory that names it is synchronised too,
/// whoever made it. Directories are 0700 and objects 0400, as in restic; where the store's own
/// directory is open to its group, so is everything below it.
package final class LocalStore: ObjectStore {
    let root: Directory
    /// The path by which it was opened, for messages.
    package let path: String
    let operations: any FileOperations
    private let directoryMode: UInt32
    private let objectMode: UInt32
    /// Directories below the root, as `a/b`, of which this process knows that they survive a crash.
    private let durable = Mutex<Set<String>>([])
    private let temporaries = Mutex<TemporaryFiles?>(nil)

    private init(root: Directory, path: String, operations: any FileOperations, permissions: UInt32)
    {
        self.root = root
        self.path = path
        self.operations = operations
        self.directoryMode = 0o700 | (permissions & 0o070)
        self.objectMode = 0o400 | (permissions & 0o040)
    }

    /// Opens the store in an existing directory and clears away what dead processes left half
    /// written.
    ///
    /// Needs no right to write: a store on read-only media can be opened and read.
    ///
    /// - Throws: `.notFound`, `.notADirectory`, `.denied`.
    package static func open(
        at path: String, operations: any FileOperations = SystemFileOperations()
    ) throws(StorageError) -> LocalStore {
        let subject = StorageSubject(operation: .open, key: nil, location: path)
        let root = try Directory(path: path, subject: subject)
        let permissions = try FileStatus.of(root.descriptor, subject: subject).permissions
        let store = LocalStore(
            root: root, path: path, operations: operations, permissions: permissions)
        if case .success(let directory) = root.open(TemporaryFiles.directoryName) {
            TemporaryFiles(directory: directory, operations: operations).removeAbandoned()
        }
        return store
    }

    /// Makes a store in a directory that is new or empty, and opens it. Missing parents are made.
    ///
    /// - Throws: `.exists` where something lies in the directory already.
    package static func create(
        at path: String, operations: any FileOperations = SystemFileOperations()
    ) throws(StorageError) -> LocalStore {
        let subject = StorageSubject(operation: .create, key: nil, location: path)
        try makeDirectories(path, operations: operations, subject: subject)
        let root = try Directory(path: path, subject: subject)
        switch root.entries() {
        case .failure(let error):
            throw subject.failure(error.code, "getdents")
        case .success(let entries):
            // A fresh ext4 file system has a directory lost+found; a creation that was cut short
            // may have left the directory for temporary files.
            let strangers = entries.lazy.map(\.name).filter {
                $0 != "lost+found" && $0 != TemporaryFiles.directoryName
            }
            if let stranger = strangers.min() {
                throw subject.failure(.exists, "the directory is not empty: \(stranger) lies in it")
            }
        }
        return try open(at: path, operations: operations)
    }

    package var capabilities: StoreCapabilities {
        StoreCapabilities(
            conditionalPut: true, rangedReads: true, listingShowsMD5: false, listingShowsTime: true,
            isLocal: true)
    }

    // MARK: - Writing

    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        let subject = subject(.put, key)
        if try settleExisting(key, length: content.length, subject) { return }
        switch content.body {
        case .bytes(let bytes):
            let spool = try makeSpool(subject)
            try spool.append(bytes)
            try publish(spool, at: key, subject)
        case .file(let file):
            precondition(
                file.length == content.length, "a spool file was appended to after its digest")
            try file.checkSound()
            if file.isTemporary, let place = file.place, isTemporaryDirectory(place.directory) {
                try publish(file, at: key, subject)
            } else {
                try publish(try copy(file, subject), at: key, subject)
            }
        }
    }

    package func delete(_ key: ObjectKey) throws(StorageError) {
        let subject = subject(.delete, key)
        let directory: Directory
        switch key.directory.isEmpty ? .success(root) : root.open(String(key.directory)) {
        case .success(let opened): directory = opened
        case .failure(let error):
            if error.code == ENOENT || error.code == ENOTDIR { return }
            throw subject.failure(error.code, "open")
        }
        let result = operations.unlink(in: directory.descriptor, named: String(key.name))
        // A directory is no object, so there is none of this name. (EPERM is POSIX's word for it.)
        if result == -EISDIR { return }
        guard result >= 0 || result == -ENOENT else { throw subject.failure(result, "unlink") }
        // Also where it was gone already: whoever removed it may not have got this far.
        try synchronize(directory, subject)
    }

    package func makeSpool() throws(StorageError) -> SpoolFile {
        try makeSpool(subject(.spool))
    }

    package func currentTime() throws(StorageError) -> Int64 {
        // A new file has the time of whoever keeps the file system, be it this host or a file
        // server.
        let subject = subject(.clock)
        let spool = try makeSpool(subject)
        return try FileStatus.of(spool.fileDescriptor, subject: subject).modified
    }

    package func removeEmptyDirectories(below prefix: String) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        removeEmpty(prefix.isEmpty ? "." : String(prefix.dropLast()), in: root)
    }

    /// Removes the directory if nothing is left in it; one that fills up again meanwhile stays.
    private func removeEmpty(_ name: String, in parent: Directory) {
        guard case .success(let directory) = parent.open(name),
            case .success(let entries) = directory.entries()
        else { return }
        for entry in entries where ObjectKey.isLegalComponent(entry.name) {
            if entry.kind == .directory || entry.kind == .unknown {
                removeEmpty(entry.name, in: directory)
            }
        }
        if name != "." { _ = operations.removeDirectory(in: parent.descriptor, named: name) }
    }

    private func makeSpool(_ subject: StorageSubject) throws(StorageError) -> SpoolFile {
        let temporaries = try openTemporaries(subject)
        let (descriptor, name) = try temporaries.create(subject)
        return SpoolFile(
            adopting: descriptor, at: (temporaries.directory, name), operations: operations,
            subject: subject)
    }

    private func copy(
        _ file: SpoolFile, _ subject: StorageSubject
    ) throws(StorageError) -> SpoolFile {
        let spool = try makeSpool(subject)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { buffer.deallocate() }
        var offset = 0
        while offset < file.length {
            let count = try file.read(at: offset, into: buffer)
            guard count > 0 else { throw subject.failure(.lost, "the spool file became shorter") }
            try spool.append(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            offset += count
        }
        return spool
    }

    /// Makes a complete temporary file the object `key`.
    private func publish(
        _ spool: SpoolFile, at key: ObjectKey, _ subject: StorageSubject
    ) throws(StorageError) {
        guard let place = spool.place else { preconditionFailure("a spool file without a name") }
        // Some file systems keep no modes; that is no reason to refuse them.
        _ = operations.setMode(of: spool.fileDescriptor, to: objectMode)
        let synchronized = operations.synchronizeFile(spool.fileDescriptor)
        guard synchronized >= 0 else {
            let error = subject.failure(synchronized, "fsync")
            // The kernel reports a lost page once and then calls it clean.
            spool.markDamaged(by: error)
            throw error
        }
        spool.leaveCache(upTo: spool.length)
        // The directory may be removed as empty between its opening and the move; it is made again.
        for attempt in 0..<3 {
            let directory = try openDirectory(of: key, subject)
            let moved = move(place, to: directory, String(key.name))
            switch moved {
            case 0...:
                spool.markPublished()
                return try synchronize(directory, subject)
            case -EEXIST:
                if try settleExisting(key, length: spool.length, subject) { return }
            case -ENOENT where attempt < 2:
                let links = try FileStatus.of(spool.fileDescriptor, subject: subject).links
                guard links > 0 else {
                    throw subject.failure(.lost, "the temporary file was removed by somebody else")
                }
                durable.withLock { _ = $0.remove(String(key.directory)) }
            default:
                throw subject.failure(moved, "rename")
            }
        }
        throw subject.failure(.lost, "its directory or the object itself keeps vanishing")
    }

    /// Moves the temporary file without replacing anything, in whichever way the file system knows.
    private func move(
        _ place: (directory: Directory, name: String), to directory: Directory, _ name: String
    ) -> Int32 {
        let (source, target) = (place.directory.descriptor, directory.descriptor)
        let moved = operations.renameWithoutReplacing(from: source, place.name, to: target, name)
        guard moved == -EINVAL || moved == -ENOSYS || moved == -EOPNOTSUPP else { return moved }
        // NFS and FUSE know no such rename, but a link never replaces anything either.
        let linked = operations.link(from: source, place.name, to: target, name)
        if linked >= 0 {
            _ = operations.unlink(in: source, named: place.name)
            return 0
        }
        guard linked == -EPERM || linked == -ENOSYS || linked == -EOPNOTSUPP || linked == -EINVAL
        else { return linked }
        // Neither: a look and then a rename. Of two puts of one name at the same moment the later
        // stays, which has the same bytes, since names here are digests of what they name.
        switch directory.status(of: name) {
        case .success(.some): return -EEXIST
        case .success(nil): return operations.rename(from: source, place.name, to: target, name)
        case .failure(let error): return -error.code
        }
    }

    /// Whether the key already holds an object of this length, which is then made durable.
    ///
    /// - Throws: `.exists` where it holds anything else.
    private func settleExisting(
        _ key: ObjectKey, length: Int, _ subject: StorageSubject
    ) throws(StorageError) -> Bool {
        let existing: FileStatus
        switch root.status(of: key.text) {
        case .failure(let error): throw subject.failure(error.code, "stat")
        case .success(nil): return false
        case .success(let status?): existing = status
        }
        guard existing.isFile else {
            throw subject.failure(.exists, "something else has this name")
        }
        guard existing.length == length else {
            throw subject.failure(
                .exists, "it is there with \(existing.length) bytes instead of \(length)")
        }
        // Another process may be about to synchronise it, and may die before it does.
        let file = csys_openat(root.descriptor, key.text, LocalStore.readFlags, 0)
        if file == -ENOENT { return false }
        guard file >= 0 else { throw subject.failure(file, "open") }
        defer { _ = csys_close(file) }
        let synchronized = operations.synchronizeFile(file)
        guard synchronized >= 0 else { throw subject.failure(synchronized, "fsync") }
        try synchronize(try openDirectory(of: key, subject), subject)
        return true
    }

    // O_NONBLOCK, so that a FIFO somebody put there cannot make the program wait for ever.
    static let readFlags = O_RDONLY | CSYS_O_CLOEXEC | CSYS_O_NOFOLLOW | CSYS_O_NONBLOCK

    // MARK: - Directories

    /// Opens the directory in which the object lies or will lie, and sees to it that it outlives a
    /// crash.
    private func openDirectory(
        of key: ObjectKey, _ subject: StorageSubject
    ) throws(StorageError) -> Directory {
        let path = String(key.directory)
        if path.isEmpty { return root }
        if durable.withLock({ $0.contains(path) }) {
            switch root.open(path) {
            case .success(let directory): return directory
            case .failure(let error):
                guard error.code == ENOENT else { throw subject.failure(error.code, "open") }
            }
        }
        var current = root
        var reached = ""
        for component in path.split(separator: "/") {
            let next = try openOrMake(String(component), in: current, subject)
            reached += reached.isEmpty ? String(component) : "/\(component)"
            // It may have been made a moment ago, by this process or another, and be named nowhere
            // on the disk yet; an object below it is stored only when it is. Where it was made anew
            // after having been removed, what is remembered of it no longer holds.
            if next.isNew || !durable.withLock({ $0.contains(reached) }) {
                try synchronize(current, subject)
                durable.withLock { _ = $0.insert(reached) }
            }
            current = next.directory
        }
        return current
    }

    private func openOrMake(
        _ name: String, in parent: Directory, _ subject: StorageSubject
    ) throws(StorageError) -> (directory: Directory, isNew: Bool) {
        var isNew = false
        // More than once only where somebody else removes empty directories at the same time.
        for _ in 0..<10 {
            switch parent.open(name) {
            case .success(let directory):
                if isNew { openToGroup(directory) }
                return (directory, isNew)
            case .failure(let error):
                guard error.code == ENOENT else { throw subject.failure(error.code, "open") }
            }
            let made = operations.makeDirectory(
                in: parent.descriptor, named: name, mode: directoryMode)
            guard made >= 0 || made == -EEXIST else { throw subject.failure(made, "mkdir") }
            isNew = true
        }
        throw subject.failure(.lost, "its directory keeps vanishing")
    }

    /// Gives a new directory the group's rights that the umask took, keeping its set-group-ID bit.
    private func openToGroup(_ directory: Directory) {
        guard directoryMode != 0o700 else { return }
        var status = csys_stat()
        guard csys_fstat(directory.descriptor, &status) == 0 else { return }
        let mode = directoryMode | (status.mode & 0o2000)
        if status.mode & 0o7777 != mode {
            _ = operations.setMode(of: directory.descriptor, to: mode)
        }
    }

    private func synchronize(
        _ directory: Directory, _ subject: StorageSubject
    ) throws(StorageError) {
        let result = operations.synchronizeDirectory(directory.descriptor)
        // Some network file systems know no such call on a directory and need none.
        if result == -EINVAL || result == -EOPNOTSUPP || result == -ENOSYS { return }
        guard result >= 0 else { throw subject.failure(result, "fsync") }
    }

    private func openTemporaries(_ subject: StorageSubject) throws(StorageError) -> TemporaryFiles {
        try temporaries.withLock { (temporaries) throws(StorageError) in
            if let temporaries { return temporaries }
            let (directory, _) = try openOrMake(TemporaryFiles.directoryName, in: root, subject)
            let opened = TemporaryFiles(directory: directory, operations: operations)
            temporaries = opened
            return opened
        }
    }

    private func isTemporaryDirectory(_ directory: Directory) -> Bool {
        temporaries.withLock { $0?.directory === directory }
    }

    /// Makes the directory `path` and whatever is missing above it, each durable in its parent.
    private static func makeDirectories(
        _ path: String, operations: any FileOperations, subject: StorageSubject
    ) throws(StorageError) {
        var components = path.split(separator: "/")
        guard !path.isEmpty, let last = components.popLast() else { return }
        let parent = (path.hasPrefix("/") ? "/" : "") + components.joined(separator: "/")
        let parentPath = parent.isEmpty ? "." : parent
        var status = csys_stat()
        if csys_lstatat(AT_FDCWD, parentPath, &status) == -ENOENT {
            try makeDirectories(parentPath, operations: operations, subject: subject)
        }
        if csys_lstatat(AT_FDCWD, path, &status) == 0 {
            // Whoever made it had no reason to see to its name; the right to do so may be missing.
            if let parent = try? Directory(path: parentPath, subject: subject) {
                _ = operations.synchronizeDirectory(parent.descriptor)
            }
            return
        }
        let directory = try Directory(path: parentPath, subject: subject)
        let made = operations.makeDirectory(
            in: directory.descriptor, named: String(last), mode: 0o700)
        guard made >= 0 || made == -EEXIST else { throw subject.failure(made, "mkdir") }
        let synchronized = operations.synchronizeDirectory(directory.descriptor)
        guard synchronized >= 0 || synchronized == -EINVAL else {
            throw subject.failure(synchronized, "fsync")
        }
    }

    func subject(
        _ operation: StorageError.Operation, _ key: ObjectKey? = nil
    ) -> StorageSubject {
        StorageSubject(operation: operation, key: key, location: path)
    }
}
