import CSystem
import Glibc
import SnapshotModel
import Synchronization

/// The immutable and append-only flags below a restore target.
///
/// They forbid what a restore does, so they are lifted where something has to change and nowhere
/// else, and set in the end, when nothing is linked to, made in or changed on what carries them:
/// those that entries ask for, and those that were lifted from what no entry speaks of.
final class TargetLocks: Sendable {
    private struct Lock {
        /// To name it by.
        let path: [UInt8]
        let flags: UInt32
    }

    /// By the path below the target.
    private let locks = Mutex<[[UInt8]: Lock]>([:])

    /// Takes the flags off an open file or directory. False where it has none, or this user may
    /// not.
    func lift(_ descriptor: Int32, relative: [UInt8]) -> Bool {
        var flags: UInt32 = 0
        guard csys_getflags(descriptor, &flags) == 0, flags & InodeFlags.locking != 0,
            csys_setflags(descriptor, flags & ~InodeFlags.locking) == 0
        else { return false }
        locks.withLock {
            guard $0[relative] == nil else { return }
            $0[relative] = Lock(path: [0x2F] + relative, flags: flags & InodeFlags.locking)
        }
        return true
    }

    /// Takes the flags off a directory and an entry in it, whichever has any. False where neither
    /// has.
    func lift(_ slot: TargetSlot) -> Bool {
        let isParentLifted = lift(slot.parent.descriptor, relative: slot.parent.relative)
        var status = csys_stat()
        guard csys_lstatat(slot.parent.descriptor, slot.name, &status) == 0,
            FileStatus(status).isFile || FileStatus(status).isDirectory
        else { return isParentLifted }
        let descriptor = csys_openat(
            slot.parent.descriptor, slot.name,
            O_RDONLY | CSYS_O_NOFOLLOW | CSYS_O_NONBLOCK | CSYS_O_CLOEXEC, 0)
        guard descriptor >= 0 else { return isParentLifted }
        defer { _ = csys_close(descriptor) }
        return lift(descriptor, relative: slot.relative) || isParentLifted
    }

    /// What stands at a path carries these flags in the end, whatever it carried before.
    ///
    /// - Parameter path: To name it by.
    func settle(_ relative: [UInt8], path: [UInt8], _ flags: UInt32) {
        let flags = flags & InodeFlags.locking
        locks.withLock { $0[relative] = flags == 0 ? nil : Lock(path: path, flags: flags) }
    }

    /// What stood there is gone.
    func forget(_ relative: [UInt8]) { locks.withLock { $0[relative] = nil } }

    /// Sets all flags that are due, and answers which could not be set. Whatever has them already is
    /// left alone.
    func setAll(below target: TargetDirectory) -> [MetadataWriterProblem] {
        let locks = locks.withLock { locks in
            defer { locks = [:] }
            return locks
        }
        var problems: [MetadataWriterProblem] = []
        for (relative, lock) in locks.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            let result = Self.set(lock.flags, relative, below: target)
            guard result < 0 else { continue }
            problems.append(
                MetadataWriterProblem(path: lock.path, aspect: .flags(lock.flags), errno: -result))
        }
        return problems
    }

    /// 0 or the negated errno.
    private static func set(
        _ flags: UInt32, _ relative: [UInt8], below target: TargetDirectory
    ) -> Int32 {
        let descriptor: Int32
        do throws(FileTreeError) {
            if relative.isEmpty {
                descriptor = csys_openat(
                    try target.directory([]).descriptor, ".",
                    O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_CLOEXEC, 0)
            } else {
                let slot = try target.slot(relative)
                descriptor = csys_openat(
                    slot.parent.descriptor, slot.name,
                    O_RDONLY | CSYS_O_NOFOLLOW | CSYS_O_NONBLOCK | CSYS_O_CLOEXEC, 0)
            }
        } catch {
            return -error.errno
        }
        guard descriptor >= 0 else { return descriptor }
        defer { _ = csys_close(descriptor) }
        var current: UInt32 = 0
        let result = csys_getflags(descriptor, &current)
        if result < 0 || current & flags == flags { return result }
        return csys_setflags(descriptor, current | flags)
    }
}

extension TargetDirectory {
    /// Makes a call that changes a directory, or an entry in it; where their flags forbid that,
    /// lifts them and calls once more.
    ///
    /// - Parameter call: Answers 0 or more, or the negated errno.
    func unlocking(_ slot: TargetSlot, _ call: () -> Int32) -> Int32 {
        let result = call()
        // Kernels before 4.13 say "permission denied".
        guard result == -EPERM || result == -EACCES, locks.lift(slot) else { return result }
        return call()
    }
}
