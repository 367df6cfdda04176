import CSystem
import Glibc
package import SnapshotModel
import Synchronization

extension TreeWriter {
    /// Begins a file. Until it is finished it has mode 0600 and lies under a temporary name, so that
    /// nobody, and no later restore, takes what is half written for the file.
    ///
    /// - Parameter entry: Of the file; its flags are needed now, since some work on empty files
    ///   only.
    package func createFile(
        _ relative: [UInt8], entry: Entry, placement: Placement = .new
    ) throws(FileTreeError) -> FileWriter {
        let slot = try target.slot(relative)
        if placement == .inPlace, let writer = try openInPlace(slot) { return writer }
        let flags = O_WRONLY | O_CREAT | O_EXCL | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC
        if placement == .new {
            var status = csys_stat()
            if csys_lstatat(slot.parent.descriptor, slot.name, &status) == 0 {
                throw target.failure(-EEXIST, relative, "openat", "create")
            }
        }
        let name = temporaryName()
        let descriptor = target.unlocking(slot) {
            csys_openat(slot.parent.descriptor, name, flags, 0o600)
        }
        guard descriptor >= 0 else {
            throw target.failure(descriptor, relative, "openat", "create")
        }
        if slot.parent.newOwner == nil {
            var status = csys_stat()
            if csys_fstat(descriptor, &status) == 0 { slot.parent.observe(owner: status) }
        }
        let early = entry.flags & MetadataWriter.earlyFlags
        if early != 0 {
            // What is refused here is reported when the file is finished.
            metadata.applyFlags(early, to: descriptor) { _, _ in }
        }
        return FileWriter(
            tree: self, slot: slot, temporary: name, replaces: placement != .new,
            descriptor: descriptor, initialSize: 0,
            state: MetadataState(
                owner: slot.parent.newOwner, mode: 0o600,
                inheritsACL: slot.parent.hasDefaultACL,
                flags: slot.parent.passesFlags ? nil : 0))
    }

    /// Opens a file whose blocks are rewritten; nil where that would not be right.
    private func openInPlace(_ slot: TargetSlot) throws(FileTreeError) -> FileWriter? {
        // Looked at before it is opened: opening a device may do something already.
        var before = csys_stat()
        guard csys_lstatat(slot.parent.descriptor, slot.name, &before) == 0,
            FileStatus(before).isFile
        else { return nil }
        let descriptor = target.unlocking(slot) {
            csys_openat(
                slot.parent.descriptor, slot.name,
                O_RDWR | CSYS_O_NOFOLLOW | CSYS_O_NONBLOCK | CSYS_O_CLOEXEC, 0)
        }
        if descriptor == -EACCES || descriptor == -ETXTBSY || descriptor == -ELOOP
            || descriptor == -ENOENT
        {
            return nil
        }
        guard descriptor >= 0 else {
            throw target.failure(descriptor, slot.relative, "openat", "open")
        }
        var status = csys_stat()
        // A file with other names may be one that lies outside of the target.
        guard csys_fstat(descriptor, &status) == 0, FileStatus(status).isFile, status.links == 1
        else {
            _ = csys_close(descriptor)
            return nil
        }
        // Half-written content must not run with another user's rights.
        if status.mode & 0o6000 != 0 { _ = csys_fchmod(descriptor, status.mode & 0o777) }
        return FileWriter(
            tree: self, slot: slot, temporary: nil, replaces: true, descriptor: descriptor,
            initialSize: status.size, state: nil)
    }
}

/// A file that is being written. End it with `finish` or `abort`; a forgotten one is aborted.
///
/// `write`, `read`, `makeHole` and `reuse` may be called from several threads at once, for ranges
/// that do not overlap; `finish` and `abort` once, when all of those have returned. Holds one
/// descriptor.
package final class FileWriter: Sendable {
    private let tree: TreeWriter
    private let slot: TargetSlot
    /// Nil for a file that is rewritten in place.
    private let temporary: [CChar]?
    /// Whether it may take the name of something that is there.
    private let replaces: Bool
    private let descriptor: Int32
    private let initialSize: UInt64
    /// What a file that was made by this writer has got; nil for one that was there before.
    private let state: MetadataState?
    /// Made by this writer, so removed when it is aborted.
    private var isNew: Bool { state != nil }
    /// The end of what was written so far.
    private let extent = Atomic<UInt64>(0)
    private let isClosed = Atomic<Bool>(false)

    fileprivate init(
        tree: TreeWriter, slot: TargetSlot, temporary: [CChar]?, replaces: Bool,
        descriptor: Int32, initialSize: UInt64, state: MetadataState?
    ) {
        self.tree = tree
        self.slot = slot
        self.temporary = temporary
        self.replaces = replaces
        self.descriptor = descriptor
        self.initialSize = initialSize
        self.state = state
    }

    deinit { abort() }

    /// Bytes that an existing file had when it was opened in place; 0 for a new one.
    package var existingSize: UInt64 { initialSize }

    private func failure(
        _ result: some BinaryInteger, _ call: String, _ operation: String
    ) -> FileTreeError {
        tree.target.failure(result, slot.relative, call, operation)
    }

    // MARK: Content

    /// Writes all of `bytes` at an offset.
    package func write(
        _ bytes: UnsafeRawBufferPointer, at offset: UInt64
    ) throws(FileTreeError) {
        guard offset <= UInt64(Int64.max) - UInt64(bytes.count) else {
            throw failure(EFBIG, "pwrite", "write")
        }
        var done = 0
        while done < bytes.count {
            let count = csys_pwrite(
                descriptor, bytes.baseAddress! + done, bytes.count - done,
                Int64(offset) + Int64(done))
            guard count > 0 else { throw failure(count == 0 ? Int(EIO) : count, "pwrite", "write") }
            done += count
        }
        extent.max(offset + UInt64(bytes.count), ordering: .relaxed)
    }

    /// Fills `buffer` from what an existing file, opened in place, holds at an offset.
    ///
    /// - Returns: How many bytes there were; fewer than the buffer takes only at the file's end.
    package func read(
        into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(FileTreeError) -> Int {
        if isNew { return 0 }
        return try TargetFile.read(descriptor, buffer, offset) { result throws(FileTreeError) in
            throw failure(result, "pread", "read")
        }
    }

    /// Makes a range read as zeros without using room. Nothing to do in a new file, where what is
    /// never written is a hole.
    package func makeHole(at offset: UInt64, length: UInt64) throws(FileTreeError) {
        guard offset < initialSize, length > 0 else { return }
        let length = min(length, initialSize - offset)
        let result = csys_fallocate_punch_hole(descriptor, Int64(offset), Int64(length))
        if result == 0 { return }
        guard result == -EOPNOTSUPP || result == -ENOSYS else {
            throw failure(result, "fallocate", "write")
        }
        let zeros = [UInt8](repeating: 0, count: Int(min(length, 1 << 16)))
        var done: UInt64 = 0
        while done < length {
            let count = Int(min(length - done, UInt64(zeros.count)))
            var thrown: FileTreeError?
            zeros.withUnsafeBytes { zeros in
                do throws(FileTreeError) {
                    try write(UnsafeRawBufferPointer(rebasing: zeros[..<count]), at: offset + done)
                } catch {
                    thrown = error
                }
            }
            if let thrown { throw thrown }
            done += UInt64(count)
        }
    }

    /// Takes a range over from a file that is there already, sharing its blocks where the file
    /// system can, else by copying inside the kernel. Both files must lie below the same target.
    ///
    /// - Returns: False where the source is shorter by now, or the kernel cannot copy between the
    ///   two: the caller then writes the bytes. Part of them may have been copied.
    package func reuse(
        _ source: TargetFile, from sourceOffset: UInt64, length: UInt64, at offset: UInt64
    ) throws(FileTreeError) -> Bool {
        guard offset <= UInt64(Int64.max) - length, sourceOffset <= UInt64(Int64.max) - length
        else {
            throw failure(EFBIG, "copy_file_range", "write")
        }
        // Only whole blocks can be shared; what lies before the first and behind the last is copied.
        let head = min(length, (Self.blockBytes - offset % Self.blockBytes) % Self.blockBytes)
        let whole = (length - head) / Self.blockBytes * Self.blockBytes
        let isShared =
            whole > 0 && offset % Self.blockBytes == sourceOffset % Self.blockBytes
            && csys_reflink_range(
                descriptor, Int64(offset + head), source.descriptor, Int64(sourceOffset + head),
                Int64(whole)) == 0
        if isShared {
            guard try copy(source, from: sourceOffset, length: head, at: offset),
                try copy(
                    source, from: sourceOffset + head + whole, length: length - head - whole,
                    at: offset + head + whole)
            else { return false }
        } else {
            guard try copy(source, from: sourceOffset, length: length, at: offset) else {
                return false
            }
        }
        extent.max(offset + length, ordering: .relaxed)
        return true
    }

    /// Blocks of most file systems. Where they are larger, nothing is shared.
    private static let blockBytes: UInt64 = 4096

    /// Copies inside the kernel; false where that is not possible, or the source is shorter.
    private func copy(
        _ source: TargetFile, from sourceOffset: UInt64, length: UInt64, at offset: UInt64
    ) throws(FileTreeError) -> Bool {
        var done: UInt64 = 0
        while done < length {
            let count = csys_copy_range(
                descriptor, Int64(offset + done), source.descriptor,
                Int64(sourceOffset + done), Int(min(length - done, 1 << 30)))
            if count == 0 { return false }
            if count < 0 {
                let code = Int32(truncatingIfNeeded: -count)
                if code == ENOSPC || code == EDQUOT || code == EIO || code == EFBIG {
                    throw failure(code, "copy_file_range", "write")
                }
                return false
            }
            done += UInt64(count)
        }
        return true
    }

    /// Sets the length now; `finish` does so by itself.
    package func setLength(_ length: UInt64) throws(FileTreeError) {
        guard length <= UInt64(Int64.max) else { throw failure(EFBIG, "ftruncate", "resize") }
        let result = csys_ftruncate(descriptor, Int64(length))
        guard result == 0 else { throw failure(result, "ftruncate", "resize") }
    }

    // MARK: Ending

    /// Gives the file its length and metadata, and then its name.
    ///
    /// The immutable and append-only flags follow with `TreeWriter.applyLockingFlags`.
    ///
    /// - Returns: Metadata that could not be set; the file is there.
    /// - Throws: Where the file is not there, or not whole. A new one is removed then.
    package func finish(_ entry: Entry) throws(FileTreeError) -> [MetadataWriterProblem] {
        do throws(FileTreeError) {
            if max(initialSize, extent.load(ordering: .relaxed)) != entry.size {
                try setLength(entry.size)
            }
            let problems = try applyMetadata(entry)
            if temporary != nil, replaces, tree.flushesBeforeReplacing {
                let result = csys_fsync(descriptor)
                guard result == 0 else { throw failure(result, "fsync", "flush") }
            }
            try close()
            if let temporary {
                if replaces {
                    try tree.moveIntoPlace(temporary, slot)
                } else {
                    try tree.moveWithoutReplacing(temporary, slot)
                }
            }
            tree.target.locks.settle(slot.relative, path: entry.path, entry.flags)
            return problems
        } catch {
            discard()
            throw error
        }
    }

    private func applyMetadata(_ entry: Entry) throws(FileTreeError) -> [MetadataWriterProblem] {
        let subject = MetadataSubject(descriptor: descriptor)
        if let state { return tree.metadata.apply(entry, to: subject, state: state) }
        var status = csys_stat()
        let result = subject.status(&status)
        guard result == 0 else { throw failure(result, "fstat", "examine") }
        return tree.correct(entry, on: subject, status, slot.relative)
    }

    /// Gives the file up: a new one is removed, one opened in place stays as far as it was written.
    package func abort() {
        if !isClosed.load(ordering: .relaxed) { discard() }
    }

    private func close() throws(FileTreeError) {
        let isFirst = !isClosed.exchange(true, ordering: .relaxed)
        precondition(isFirst, "a file is finished or aborted once")
        // Some file systems tell only now that there was no room.
        let result = csys_close(descriptor)
        guard result == 0 || result == -EINTR else { throw failure(result, "close", "write") }
    }

    private func discard() {
        if !isClosed.exchange(true, ordering: .relaxed) { _ = csys_close(descriptor) }
        guard isNew else { return }
        let directory = slot.parent.descriptor
        _ = tree.target.unlocking(slot) { csys_unlinkat(directory, temporary ?? slot.name, 0) }
    }
}
