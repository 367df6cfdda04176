import CSystem
import Glibc
import SnapshotModel
import Synchronization

/// An open directory below a restore target.
///
/// Shared by reference: the descriptor is closed when the last user lets go, so a cache may forget
/// a handle while another thread still works in it.
package final class TargetHandle: Sendable {
    /// Relative to the target; empty for the target itself.
    package let relative: [UInt8]
    let descriptor: Int32
    /// What is made in this directory inherits an ACL that has to be taken off again.
    let hasDefaultACL: Bool
    /// The directory's inode flags; some of them pass to what is made in it.
    let flags: UInt32
    /// Owner and group that a new file gets here, once one was seen: user in the upper half. They
    /// depend on the directory's setgid bit and on mount options, so they are observed, not
    /// guessed.
    private let observedOwner = Atomic<UInt64>(.max)

    init(descriptor: Int32, relative: [UInt8]) {
        self.descriptor = descriptor
        self.relative = relative
        var length = csys_fgetxattr(descriptor, AccessControlList.defaultAttribute, nil, 0)
        if length == -Int(EBADF) {
            // Opened without the right to read: only the path through /proc answers then.
            length = csys_getxattr_at(descriptor, ".", AccessControlList.defaultAttribute, nil, 0)
        }
        hasDefaultACL = length > 0
        var flags: UInt32 = 0
        self.flags = csys_getflags(descriptor, &flags) == 0 ? flags : 0
    }

    deinit { _ = csys_close(descriptor) }

    /// Whether flags pass from this directory to what is made in it.
    var passesFlags: Bool { flags & ~InodeFlags.incidental & ~InodeFlags.locking != 0 }

    var newOwner: (uid: UInt32, gid: UInt32)? {
        let value = observedOwner.load(ordering: .relaxed)
        guard value != .max else { return nil }
        return (UInt32(truncatingIfNeeded: value >> 32), UInt32(truncatingIfNeeded: value))
    }

    func observe(owner status: csys_stat) {
        observedOwner.store(UInt64(status.uid) << 32 | UInt64(status.gid), ordering: .relaxed)
    }
}

/// Where an entry goes: the open directory that it lies in, and its name there.
struct TargetSlot: Sendable {
    let parent: TargetHandle
    /// One component, ended by a zero byte.
    let name: [CChar]
    let relative: [UInt8]
}
