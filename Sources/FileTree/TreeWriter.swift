import CSystem
import Glibc
package import SnapshotModel
import Synchronization

/// Writes a tree below a restore target: the safe hands of a restore, which decides what goes where
/// and when.
///
/// Paths are relative to the target: components joined by single slashes, without one in front. The
/// order that a caller keeps: a directory before what is in it; all names of a hard-linked file
/// after the first one is finished; metadata of directories when nothing more is made in them, the
/// deepest first; `applyLockingFlags` when everything else is done.
///
/// All calls may be made from any thread, and for different paths at once. What cannot be done is
/// thrown; metadata that could not be set is returned, and the rest of the entry is there.
package final class TreeWriter: Sendable {
    package let target: TargetDirectory
    let metadata: MetadataWriter
    /// Files that replace another one reach the disk before they take its name.
    let flushesBeforeReplacing: Bool
    /// Tells the temporary names of this restore from those of any other.
    private let token: String
    private let counter = Atomic<UInt64>(0)

    /// What happens to something that stands where an entry goes.
    package enum Placement: Sendable {
        /// Nothing may stand there; what does is an error of kind `exists`.
        case new
        /// The new file is built beside the old one and takes its name when it is whole, so that
        /// anybody sees either the one or the other. Whatever is no directory is replaced, and an
        /// empty directory.
        case replacing
        /// For files: blocks are rewritten in the existing file. Where that is no plain file, is
        /// being executed or has several names, it is replaced instead.
        case inPlace
    }

    /// - Parameters:
    ///   - ownership: Whose the restored files become.
    ///   - flushesBeforeReplacing: Whether a power failure, too, leaves the old file or the new one
    ///     where a file is replaced. Costs a disk flush for each such file.
    package init(
        target: TargetDirectory, ownership: TargetOwnership = .names,
        flushesBeforeReplacing: Bool = false
    ) {
        self.target = target
        self.flushesBeforeReplacing = flushesBeforeReplacing
        metadata = MetadataWriter(ownership: ownership)
        var random: UInt64 = 0
        _ = csys_random(&random, MemoryLayout<UInt64>.size)
        token = String(random, radix: 36)
    }

    // MARK: Directories

    /// Makes a directory, with mode 0700 until its metadata is applied. One that is there already
    /// is fine and stays as it is, but a user who owns it gets the right to write in it.
    ///
    /// - Parameters:
    ///   - flags: Of the entry. Some work only if they are set while the directory is empty.
    ///   - replacing: Whether something else that stands there goes; else it is an error of kind
    ///     `exists`. A symlink to a directory is something else.
    /// - Returns: Whether the directory is new.
    @discardableResult
    package func makeDirectory(
        _ relative: [UInt8], flags: UInt32 = 0, replacing: Bool = false
    ) throws(FileTreeError) -> Bool {
        if relative.isEmpty { return false }
        let slot = try target.slot(relative)
        func make() -> Int32 {
            target.unlocking(slot) { csys_mkdirat(slot.parent.descriptor, slot.name, 0o700) }
        }
        var result = make()
        if result == -EEXIST {
            var status = csys_stat()
            let examined = csys_lstatat(slot.parent.descriptor, slot.name, &status)
            guard examined == 0 else {
                throw target.failure(examined, relative, "fstatat", "examine")
            }
            if EntryKind(mode: status.mode) == .directory {
                let owners = metadata.owners
                if !owners.isSuperuser, status.uid == owners.ownUser, status.mode & 0o700 != 0o700 {
                    _ = csys_chmod_nofollow(
                        slot.parent.descriptor, slot.name, status.mode & 0o7777 | 0o700)
                    target.forget(relative)
                }
                return false
            }
            if replacing {
                let removed = target.unlocking(slot) {
                    csys_unlinkat(slot.parent.descriptor, slot.name, 0)
                }
                guard removed == 0 || removed == -ENOENT else {
                    throw target.failure(removed, relative, "unlinkat", "replace")
                }
                target.locks.forget(relative)
                result = make()
            }
        }
        guard result == 0 else {
            throw target.failure(result, relative, "mkdirat", "make the directory")
        }
        let flags = flags & MetadataWriter.earlyFlags
        if slot.parent.hasDefaultACL || slot.parent.passesFlags || flags != 0 {
            try prepareDirectory(slot, flags: flags)
        }
        return true
    }

    /// Takes off what a new directory inherited, so that it does not pass it on, and sets the flags
    /// that should pass on.
    private func prepareDirectory(_ slot: TargetSlot, flags: UInt32) throws(FileTreeError) {
        let descriptor = csys_openat(
            slot.parent.descriptor, slot.name,
            O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC, 0)
        guard descriptor >= 0 else {
            throw target.failure(descriptor, slot.relative, "openat", "open the directory")
        }
        defer { _ = csys_close(descriptor) }
        if slot.parent.hasDefaultACL {
            _ = csys_fremovexattr(descriptor, AccessControlList.defaultAttribute)
            _ = csys_fremovexattr(descriptor, AccessControlList.accessAttribute)
            _ = csys_fchmod(descriptor, 0o700)
        }
        // What is refused here is reported when the metadata is applied.
        metadata.applyFlags(flags, to: descriptor) { _, _ in }
    }

    /// Sets the metadata of a directory: when nothing more is made in it.
    package func applyDirectoryMetadata(
        _ relative: [UInt8], entry: Entry
    ) throws(FileTreeError) -> [MetadataWriterProblem] {
        let handle = try target.directory(relative)
        var status = csys_stat()
        let result = csys_fstat(handle.descriptor, &status)
        guard result == 0 else { throw target.failure(result, relative, "fstat", "examine") }
        let problems = correct(
            entry, on: MetadataSubject(descriptor: handle.descriptor), status, relative)
        // The cached handle remembers whether its directory passes something on.
        if entry.defaultACL != nil || entry.flags != 0 || handle.hasDefaultACL || handle.passesFlags
        {
            target.forget(relative)
        }
        return problems
    }

    // MARK: Symbolic links, special files, hard links

    /// Makes a symbolic link with the entry's target and metadata.
    package func makeSymlink(
        _ relative: [UInt8], entry: Entry, placement: Placement = .new
    ) throws(FileTreeError) -> [MetadataWriterProblem] {
        guard !entry.target.contains(0) else {
            throw FileTreeError(
                .malformed, "make the symbolic link", path: target.displayed(relative),
                cause: "a zero byte is in what it points to")
        }
        let link = TargetPath.cString(entry.target[...])
        return try make(relative, entry, placement, "symlinkat") { directory, name in
            csys_symlinkat(link, directory, name)
        }
    }

    /// Makes a fifo, socket or device with the entry's metadata.
    ///
    /// - Returns: Where this user may not make devices, one problem that says so, and nothing is
    ///   made.
    package func makeSpecial(
        _ relative: [UInt8], entry: Entry, placement: Placement = .new
    ) throws(FileTreeError) -> [MetadataWriterProblem] {
        switch entry.kind {
        case .fifo, .socket, .characterDevice, .blockDevice: break
        case .file, .directory, .symlink:
            preconditionFailure("makeSpecial makes fifos, sockets and devices")
        }
        do throws(FileTreeError) {
            return try make(relative, entry, placement, "mknodat") { directory, name in
                csys_mknodat(
                    directory, name, entry.kind.modeBits | 0o600, entry.deviceMajor,
                    entry.deviceMinor)
            }
        } catch  where error.errno == EPERM || error.errno == EOPNOTSUPP {
            return [
                MetadataWriterProblem(path: entry.path, aspect: .specialFile, errno: error.errno)
            ]
        }
    }

    /// Gives a finished file one more name.
    ///
    /// - Returns: False where it had that name already.
    /// - Throws: `unsupported` (EMLINK, EPERM) or `changed` (EXDEV) where the file system makes no
    ///   such link; the caller may write the content once more instead.
    @discardableResult
    package func makeHardLink(
        from existing: [UInt8], to relative: [UInt8], placement: Placement = .new
    ) throws(FileTreeError) -> Bool {
        let source = try target.slot(existing)
        let slot = try target.slot(relative)
        func link(_ name: [CChar]) -> Int32 {
            let result = target.unlocking(slot) {
                csys_linkat(source.parent.descriptor, source.name, slot.parent.descriptor, name)
            }
            guard result == -EPERM, target.locks.lift(source) else { return result }
            return csys_linkat(
                source.parent.descriptor, source.name, slot.parent.descriptor, name)
        }
        var result = link(slot.name)
        if result == -EEXIST {
            if try target.areSameFile(existing, relative) { return false }
            if placement != .new {
                let name = temporaryName()
                result = link(name)
                if result == 0 {
                    try moveIntoPlace(name, slot)
                    target.locks.forget(relative)
                    return true
                }
            }
        }
        guard result == 0 else { throw target.failure(result, relative, "linkat", "link") }
        return true
    }

    /// Makes something small that is whole once it has a name, then sets its metadata.
    private func make(
        _ relative: [UInt8], _ entry: Entry, _ placement: Placement, _ callName: String,
        _ call: (Int32, UnsafePointer<CChar>) -> Int32
    ) throws(FileTreeError) -> [MetadataWriterProblem] {
        let slot = try target.slot(relative)
        var name = slot.name
        func create() -> Int32 { target.unlocking(slot) { call(slot.parent.descriptor, name) } }
        var result = create()
        if result == -EEXIST, placement != .new {
            name = temporaryName()
            result = create()
        }
        guard result == 0 else { throw target.failure(result, relative, callName, "make") }
        let subject = MetadataSubject(directory: slot.parent.descriptor, name: name)
        if slot.parent.newOwner == nil {
            var status = csys_stat()
            if subject.status(&status) == 0 { slot.parent.observe(owner: status) }
        }
        let problems = metadata.apply(
            entry, to: subject,
            state: MetadataState(
                owner: slot.parent.newOwner, mode: nil,
                inheritsACL: slot.parent.hasDefaultACL, flags: nil))
        if name != slot.name { try moveIntoPlace(name, slot) }
        target.locks.forget(relative)
        return problems
    }

    // MARK: What is there already

    /// Corrects the metadata of something that is kept as it is: what is right already is not set
    /// again. Nothing is followed or made.
    package func applyMetadata(
        _ relative: [UInt8], entry: Entry
    ) throws(FileTreeError) -> [MetadataWriterProblem] {
        if entry.kind == .directory { return try applyDirectoryMetadata(relative, entry: entry) }
        let slot = try target.slot(relative)
        var status = csys_stat()
        let examined = csys_lstatat(slot.parent.descriptor, slot.name, &status)
        guard examined == 0 else { throw target.failure(examined, relative, "fstatat", "examine") }
        guard EntryKind(mode: status.mode) == entry.kind else {
            throw target.failure(ESTALE, relative, "fstatat", "set the metadata of")
        }
        var subject = MetadataSubject(directory: slot.parent.descriptor, name: slot.name)
        if entry.kind == .file {
            // Flags need a descriptor. A file that its owner cannot read is changed by name.
            let descriptor = csys_openat(
                slot.parent.descriptor, slot.name,
                O_RDONLY | CSYS_O_NOFOLLOW | CSYS_O_NONBLOCK | CSYS_O_CLOEXEC, 0)
            if descriptor >= 0 { subject = MetadataSubject(descriptor: descriptor) }
        }
        defer { if subject.name == nil { _ = csys_close(subject.descriptor) } }
        if subject.name == nil {
            // The open file is what is changed, so it is what is compared.
            guard subject.status(&status) == 0, EntryKind(mode: status.mode) == entry.kind else {
                throw target.failure(ESTALE, relative, "fstat", "set the metadata of")
            }
        }
        return correct(entry, on: subject, status, relative)
    }

    /// Makes the metadata of something that was there before right, and notes which flags it
    /// carries in the end.
    func correct(
        _ entry: Entry, on subject: MetadataSubject, _ status: csys_stat, _ relative: [UInt8]
    ) -> [MetadataWriterProblem] {
        let locks = target.locks
        let problems = metadata.correct(entry, on: subject, status: status) {
            locks.lift(subject.descriptor, relative: relative)
        }
        locks.settle(relative, path: entry.path, entry.flags)
        return problems
    }

    // MARK: Flags that forbid changes

    /// Sets the immutable and append-only flags of everything that was finished, and those that
    /// were lifted: the last act of a restore, however it ends, since nothing can be linked to,
    /// made in or changed on what carries them.
    package func applyLockingFlags() -> [MetadataWriterProblem] {
        target.locks.setAll(below: target)
    }

    // MARK: Temporary names

    private static let temporaryPrefix = Array(".batchsync-restore-".utf8)

    /// Whether a name is one under which a restore builds what has not got its own yet: left over
    /// where a restore was killed, and free to be removed when none is running.
    package static func isTemporaryName(_ name: [UInt8]) -> Bool {
        name.starts(with: temporaryPrefix)
    }

    func temporaryName() -> [CChar] {
        let number = counter.wrappingAdd(1, ordering: .relaxed).newValue
        let suffix = "\(token)-\(number)"
        return TargetPath.cString((Self.temporaryPrefix + Array(suffix.utf8))[...])
    }

    /// Renames a finished temporary to the name that it was made for, or removes it.
    func moveIntoPlace(_ temporary: [CChar], _ slot: TargetSlot) throws(FileTreeError) {
        let directory = slot.parent.descriptor
        func rename() -> Int32 {
            target.unlocking(slot) { csys_renameat(directory, temporary, directory, slot.name) }
        }
        var result = rename()
        if result == -EISDIR {
            // An empty directory makes way; one with contents is for the caller to decide on.
            let removed = target.unlocking(slot) { csys_unlinkat(directory, slot.name, 1) }
            if removed == 0 {
                target.forget(slot.relative)
                result = rename()
            } else {
                result = removed
            }
        }
        guard result < 0 else { return }
        _ = csys_unlinkat(directory, temporary, 0)
        throw target.failure(result, slot.relative, "renameat", "replace")
    }

    /// The same where nothing may stand under that name.
    func moveWithoutReplacing(_ temporary: [CChar], _ slot: TargetSlot) throws(FileTreeError) {
        let directory = slot.parent.descriptor
        var result = target.unlocking(slot) {
            csys_renameat_noreplace(directory, temporary, directory, slot.name)
        }
        if result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP {
            // NFS and FUSE know no such rename.
            var status = csys_stat()
            if csys_lstatat(directory, slot.name, &status) == 0 {
                result = -EEXIST
            } else {
                result = target.unlocking(slot) {
                    csys_renameat(directory, temporary, directory, slot.name)
                }
            }
        }
        guard result < 0 else { return }
        _ = csys_unlinkat(directory, temporary, 0)
        throw target.failure(result, slot.relative, "renameat", "create")
    }
}
