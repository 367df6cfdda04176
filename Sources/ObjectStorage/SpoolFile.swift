import CSystem
import Glibc
import Synchronization

/// The file in which an object comes into being, before a store takes it.
///
/// Made by `ObjectStore.makeSpool`: for the directory store it is the temporary file that a put
/// moves into place, so its bytes are written once; for others a file without a name on this host.
/// It is closed, and removed unless it has been put, when the last reference to it goes. One thread
/// appends at a time; any number may read.
package final class SpoolFile: Sendable {
    private enum Phase {
        case open
        case published
        /// Its bytes may never have reached the disk, whatever a second synchronisation says.
        case damaged(StorageError)
    }

    private struct State {
        var length = 0
        var writtenBack = 0
        var phase = Phase.open
    }

    /// The open file, for reading and writing. It stays this object's own: never close it.
    package let fileDescriptor: Int32
    /// Where it has a name, and which; nil for a file without one.
    let place: (directory: Directory, name: String)?
    private let operations: any FileOperations
    /// Names what is being done, for errors.
    private let subject: StorageSubject
    private let state = Mutex(State())

    /// Takes over the descriptor and, where there is one, the name.
    init(
        adopting fileDescriptor: Int32, at place: (directory: Directory, name: String)?,
        operations: any FileOperations, subject: StorageSubject
    ) {
        self.fileDescriptor = fileDescriptor
        self.place = place
        self.operations = operations
        self.subject = subject
    }

    deinit {
        if let place, isTemporary {
            _ = operations.unlink(in: place.directory.descriptor, named: place.name)
        }
        _ = csys_close(fileDescriptor)
    }

    /// Makes a spool file without a name in the directory `path`, for stores that are not
    /// directories themselves. Nothing of it is left after a crash.
    package static func temporary(in path: String) throws(StorageError) -> SpoolFile {
        let subject = StorageSubject(operation: .spool, key: nil, location: path)
        let operations = SystemFileOperations()
        let flags = CSYS_O_TMPFILE | O_RDWR | CSYS_O_CLOEXEC
        let unnamed = csys_open(path, flags, 0o600)
        if unnamed >= 0 {
            return SpoolFile(adopting: unnamed, at: nil, operations: operations, subject: subject)
        }
        if unnamed == -ENOENT {
            throw StorageError(
                .notFound, .spool, location: path, cause: subject.failure(unnamed, "open").cause,
                hint: "make that directory, or name another one by --spool-directory")
        }
        // Not every file system has files without a name; there the name goes at once.
        let directory = try Directory(path: path, subject: subject)
        let temporaries = TemporaryFiles(directory: directory, operations: operations)
        let (descriptor, name) = try temporaries.create(subject)
        _ = operations.unlink(in: directory.descriptor, named: name)
        return SpoolFile(adopting: descriptor, at: nil, operations: operations, subject: subject)
    }

    /// Bytes appended so far.
    package var length: Int { state.withLock { $0.length } }

    /// Appends all of `bytes`.
    ///
    /// - Throws: `.noSpace` and whatever else a disk has to say. The file is of no use then.
    package func append(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        try state.withLock { (state) throws(StorageError) in
            guard case .open = state.phase else {
                preconditionFailure("nothing may be appended to a spool file that has been put")
            }
            var rest = bytes
            while !rest.isEmpty {
                let count = operations.write(rest, to: fileDescriptor, at: state.length)
                guard count > 0 else {
                    throw subject.failure(count == 0 ? EIO : Int32(-count), "write")
                }
                state.length += count
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
            // Started early, the way to the disk runs beside the making of the next bytes, and the
            // synchronisation at the end finds little left to do.
            if state.length - state.writtenBack >= SpoolFile.writebackBytes {
                operations.startWriteback(
                    of: fileDescriptor, from: state.writtenBack,
                    length: state.length - state.writtenBack)
                state.writtenBack = state.length
                leaveCache(upTo: state.length - SpoolFile.cachedBytes)
            }
        }
    }

    package func append(_ bytes: [UInt8]) throws(StorageError) {
        try bytes.withUnsafeBufferPointer { (bytes) throws(StorageError) in
            try append(UnsafeRawBufferPointer(bytes))
        }
    }

    /// Reads into `buffer` from `offset` on and gives the count, less than the buffer's only at the
    /// end.
    package func read(
        at offset: Int, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        try readFully(fileDescriptor, at: offset, into: buffer, subject: subject)
    }

    /// Gives the page cache back what has reached the disk of the bytes before `end`.
    ///
    /// What a backup writes is not read again soon, and would push out what the machine works with;
    /// and taking pages that are at hand is quicker than taking new ones. What is to be uploaded
    /// from here stays.
    func leaveCache(upTo end: Int) {
        guard place != nil, end >= SpoolFile.writebackBytes else { return }
        _ = csys_fadvise_dontneed(fileDescriptor, 0, Int64(end))
    }

    /// Whether it still stands under its temporary name.
    var isTemporary: Bool {
        state.withLock { state in
            if case .published = state.phase { return false }
            return true
        }
    }

    /// Throws what once went wrong with the file's way to the disk.
    func checkSound() throws(StorageError) {
        try state.withLock { (state) throws(StorageError) in
            if case .damaged(let error) = state.phase { throw error }
        }
    }

    func markPublished() { state.withLock { $0.phase = .published } }

    func markDamaged(by error: StorageError) { state.withLock { $0.phase = .damaged(error) } }

    private static let writebackBytes = 8 << 20
    /// So much is on its way to the disk, and cannot leave the cache yet, on any but a slow disk.
    private static let cachedBytes = 32 << 20
}

/// What an operation is about, so that an error deep below can name it.
struct StorageSubject: Sendable {
    let operation: StorageError.Operation
    let key: ObjectKey?
    let location: String

    func failure(_ code: some BinaryInteger, _ call: String) -> StorageError {
        .system(code, call, operation, key: key, location: location)
    }

    func failure(
        _ kind: StorageError.Kind, _ cause: String, isTransient: Bool = false
    ) -> StorageError {
        StorageError(
            kind, operation, key: key, location: location, cause: cause, isTransient: isTransient)
    }
}

/// Reads until `buffer` is full or the file ends.
func readFully(
    _ file: Int32, at offset: Int, into buffer: UnsafeMutableRawBufferPointer,
    subject: StorageSubject
) throws(StorageError) -> Int {
    var filled = 0
    while filled < buffer.count {
        let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
        let count = csys_pread(file, rest.baseAddress, rest.count, Int64(offset + filled))
        guard count >= 0 else { throw subject.failure(count, "read") }
        if count == 0 { break }
        filled += count
    }
    return filled
}
