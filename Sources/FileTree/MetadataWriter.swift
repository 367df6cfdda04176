import CSystem
import Glibc
import SnapshotModel

/// What is known of something new before its metadata is set; what is known need not be asked.
struct MetadataState {
    /// Owner and group now; nil where that was not looked at.
    var owner: (uid: UInt32, gid: UInt32)?
    /// Permission bits now; nil where they were not looked at.
    var mode: UInt32?
    /// Made in a directory with a default ACL.
    var inheritsACL: Bool
    /// Inode flags now; nil where they were not looked at.
    var flags: UInt32?
}

/// Sets everything but content: owner, extended attributes, ACLs, permissions, times, flags, in
/// this order.
///
/// The order is forced. A change of owner clears setuid bits and capabilities, so it comes first,
/// and until it has happened a new file keeps mode 0600: no moment shows a setuid file of the wrong
/// owner. An ordinary user may set attributes only while a file is writable, so they precede the
/// permissions; an ACL rewrites the group's bits, so it does too. Times go after everything that
/// touches them. Flags that forbid changes (immutable, append-only) are left to `TargetLocks`,
/// since hard links and directory contents must be there before.
struct MetadataWriter: Sendable {
    let owners: TargetOwners

    init(ownership: TargetOwnership) { owners = TargetOwners(ownership) }

    /// What has to be set, beside the flags.
    private struct Changes {
        enum List {
            case leave
            case remove
            case set([UInt8])

            var isChange: Bool {
                if case .leave = self { return false }
                return true
            }
        }

        /// Owner and group now; nil where that is not known.
        var owner: (uid: UInt32, gid: UInt32)?
        /// Whether that owner was seen on the very file, and not inferred from its neighbours.
        var isOwnerSeen = false
        /// Permission bits now; nil where they are not known.
        var mode: UInt32?
        /// The time of modification now; nil where it is not known.
        var time: Timestamp?
        var staleAttributes: [[UInt8]] = []
        var attributes: [ExtendedAttribute] = []
        var accessList = List.leave
        var defaultList = List.leave
    }

    /// Sets the metadata of `entry` on something that this restore made.
    ///
    /// - Returns: What could not be set. The flags of `InodeFlags.locking` are never set here.
    func apply(
        _ entry: Entry, to subject: MetadataSubject, state: MetadataState
    ) -> [MetadataWriterProblem] {
        var changes = Changes(owner: state.owner, mode: state.mode, attributes: entry.xattrs)
        // It carries nothing but what its directory passed on.
        let inherited = state.inheritsACL ? Changes.List.remove : .leave
        changes.accessList = entry.acl.map { .set($0) } ?? inherited
        changes.defaultList = entry.defaultACL.map { .set($0) } ?? inherited
        var problems = perform(changes, entry, on: subject)
        let mayHaveFlags = state.flags.map { $0 & ~InodeFlags.incidental != 0 } ?? true
        if subject.name == nil, entry.flags != 0 || mayHaveFlags {
            applyFlags(entry.flags & ~InodeFlags.locking, to: subject.descriptor) {
                problems.append(Self.problem(entry, $0, $1))
            }
        }
        return problems
    }

    /// Makes the metadata of something that was there before what `entry` says.
    ///
    /// Only what differs is set: what is right keeps its change time, so that the next backup need
    /// not read it again, and an immutable file that is right is left alone.
    ///
    /// - Parameters:
    ///   - status: Of `subject`, a moment ago.
    ///   - unlock: Takes off the flags that forbid changes; asked where there are some and
    ///     something is to be changed.
    /// - Returns: What could not be set. The flags of `InodeFlags.locking` are never set here.
    func correct(
        _ entry: Entry, on subject: MetadataSubject, status: csys_stat, unlock: () -> Bool
    ) -> [MetadataWriterProblem] {
        let changes = differences(of: entry, from: subject, status)
        let flags = subject.flags
        let kept = InodeFlags.incidental | InodeFlags.locking
        let areFlagsRight = ((flags ?? 0) ^ entry.flags) & ~kept == 0
        // Locks that the entry lacks; those that it has are set in the end.
        let surplus = (flags ?? 0) & InodeFlags.locking & ~entry.flags
        if areFlagsRight, surplus == 0, !isNeeded(changes, entry) { return [] }
        let isLocked = (flags ?? 0) & InodeFlags.locking != 0
        let isUnlocked = isLocked && unlock()
        var problems = perform(changes, entry, on: subject)
        if surplus != 0, !isUnlocked {
            problems.append(Self.problem(entry, .flags(surplus), -EPERM))
        }
        if subject.name == nil, !areFlagsRight {
            applyFlags(entry.flags & ~InodeFlags.locking, to: subject.descriptor) {
                problems.append(Self.problem(entry, $0, $1))
            }
        }
        return problems
    }

    private static func problem(
        _ entry: Entry, _ aspect: MetadataWriterProblem.Aspect, _ result: Int32
    ) -> MetadataWriterProblem {
        MetadataWriterProblem(path: entry.path, aspect: aspect, errno: -result)
    }

    // MARK: What differs

    private func differences(
        of entry: Entry, from subject: MetadataSubject, _ status: csys_stat
    ) -> Changes {
        var changes = Changes(
            owner: (status.uid, status.gid), isOwnerSeen: subject.name == nil,
            mode: status.mode & 0o7777,
            time: Timestamp(seconds: status.mtime_sec, nanoseconds: status.mtime_nsec))
        let names = subject.attributeNames
        changes.staleAttributes = names.filter { Self.isStale($0, entry) }
        // A change of owner takes the capabilities away.
        let isOwnerRight = owners.ownership == .none || owners.owner(of: entry) == changes.owner!
        changes.attributes = entry.xattrs.filter { attribute in
            if !isOwnerRight, attribute.name == MetadataAttribute.capability { return true }
            return !names.contains(attribute.name)
                || subject.value(of: attribute.name) != attribute.value
        }
        guard entry.kind != .symlink else { return changes }
        func list(_ wanted: [UInt8]?, _ attribute: [UInt8]) -> Changes.List {
            let isThere = names.contains(attribute)
            guard let wanted else { return isThere ? .remove : .leave }
            guard isThere, let value = subject.value(of: attribute),
                let now = AccessControlList(binary: value), now == AccessControlList(text: wanted)
            else { return .set(wanted) }
            return .leave
        }
        changes.accessList = list(entry.acl, MetadataAttribute.accessACL)
        if entry.kind == .directory {
            changes.defaultList = list(entry.defaultACL, MetadataAttribute.defaultACL)
        }
        return changes
    }

    /// Attributes that the entry lacks and that go: labels of the host's own security modules and
    /// of the file system stay; what gives rights (capabilities) and what users attach does not.
    private static func isStale(_ name: [UInt8], _ entry: Entry) -> Bool {
        guard
            name.starts(with: MetadataAttribute.userPrefix) || name == MetadataAttribute.capability
        else { return false }
        return !entry.xattrs.contains { $0.name == name }
    }

    private func isNeeded(_ changes: Changes, _ entry: Entry) -> Bool {
        if changes.accessList.isChange || changes.defaultList.isChange
            || !changes.attributes.isEmpty || !changes.staleAttributes.isEmpty
            || changes.time != entry.mtime
        {
            return true
        }
        let owner = owners.owner(of: entry)
        if owners.ownership != .none, changes.owner.map({ $0 != owner }) ?? true { return true }
        return entry.kind != .symlink && changes.mode != entry.mode & 0o7777
    }

    // MARK: Setting

    private func perform(
        _ changes: Changes, _ entry: Entry, on subject: MetadataSubject
    ) -> [MetadataWriterProblem] {
        var problems: [MetadataWriterProblem] = []
        func report(_ aspect: MetadataWriterProblem.Aspect, _ result: Int32) {
            problems.append(Self.problem(entry, aspect, result))
        }
        var mode = changes.mode
        let owner = applyOwner(entry, to: subject, changes, report: report)
        if owner.isTouched { mode = mode.flatMap { $0 & 0o6000 == 0 ? $0 : nil } }
        applyAttributes(changes, entry, to: subject, mode: &mode, report: report)
        if entry.kind != .symlink {
            apply(
                changes.accessList, AccessControlList.accessAttribute, .accessControlList, subject,
                report: report)
            if entry.kind == .directory {
                apply(
                    changes.defaultList, AccessControlList.defaultAttribute,
                    .defaultAccessControlList, subject, report: report)
            }
            if changes.accessList.isChange { mode = nil }
            let wanted = entry.mode & 0o7777 & owner.allowedBits
            if wanted != entry.mode & 0o7777 { report(.setID, 0) }
            if mode != wanted {
                let result = subject.chmod(wanted)
                if result < 0 { report(.mode, result) }
            }
        }
        if changes.time != entry.mtime {
            let result = subject.setTime(entry.mtime)
            if result < 0 { report(.times, result) }
        }
        return problems
    }

    /// Sets the owner; tells which mode bits may be set now, and whether anything was tried.
    private func applyOwner(
        _ entry: Entry, to subject: MetadataSubject, _ changes: Changes,
        report: (MetadataWriterProblem.Aspect, Int32) -> Void
    ) -> (allowedBits: UInt32, isTouched: Bool) {
        let (uid, gid) = owners.owner(of: entry)
        let carriesSetID = entry.mode & 0o6000 != 0 && entry.kind != .symlink
        if owners.ownership == .none {
            guard carriesSetID else { return (0o7777, false) }
            var status = csys_stat()
            guard subject.status(&status) == 0 else { return (0o1777, false) }
            let bits: UInt32 =
                0o1777 | (status.uid == uid ? 0o4000 : 0) | (status.gid == gid ? 0o2000 : 0)
            return (bits, false)
        }
        // Where a setuid bit follows, the owner is not taken on trust.
        if let owner = changes.owner, owner == (uid, gid), !carriesSetID || changes.isOwnerSeen {
            return (0o7777, false)
        }
        let outcome = owners.apply(
            uid: uid, gid: gid, current: changes.owner, change: subject.chown)
        if outcome.errno != 0 {
            report(.owner, -outcome.errno)
        } else if !outcome.userIsRight || !outcome.groupIsRight {
            report(.ownerDenied(uid: uid, gid: gid), 0)
        }
        let bits: UInt32 =
            0o1777 | (outcome.userIsRight ? 0o4000 : 0) | (outcome.groupIsRight ? 0o2000 : 0)
        return (bits, true)
    }

    private func applyAttributes(
        _ changes: Changes, _ entry: Entry, to subject: MetadataSubject, mode: inout UInt32?,
        report: (MetadataWriterProblem.Aspect, Int32) -> Void
    ) {
        if changes.attributes.isEmpty, changes.staleAttributes.isEmpty { return }
        if !owners.isSuperuser, entry.kind != .symlink, let now = mode, now & 0o200 == 0 {
            _ = subject.chmod(now & 0o777 | 0o200)
            mode = nil
        }
        for name in changes.staleAttributes {
            let result = subject.remove(TargetPath.cString(name[...]))
            if result < 0, result != -ENODATA { report(.extendedAttribute(name), result) }
        }
        for attribute in changes.attributes {
            // A zero byte would cut the name short and set another attribute.
            guard !attribute.name.contains(0) else {
                report(.extendedAttribute(attribute.name), -EINVAL)
                continue
            }
            let result = subject.set(TargetPath.cString(attribute.name[...]), attribute.value)
            if result < 0 { report(.extendedAttribute(attribute.name), result) }
        }
    }

    private func apply(
        _ list: Changes.List, _ attribute: String, _ aspect: MetadataWriterProblem.Aspect,
        _ subject: MetadataSubject, report: (MetadataWriterProblem.Aspect, Int32) -> Void
    ) {
        switch list {
        case .leave: return
        case .remove:
            let result = subject.remove(attribute)
            if result < 0, result != -ENODATA, result != -EOPNOTSUPP { report(aspect, result) }
        case .set(let text):
            guard let value = AccessControlList(text: text)?.binary else {
                return report(aspect, -EINVAL)
            }
            let result = subject.set(attribute, value)
            if result < 0 { report(aspect, result) }
        }
    }

    // MARK: Flags

    /// Flags that take effect only on what is empty: compression and its opposite, no
    /// copy-on-write, names without case. Others may wait, and "sync" had better.
    static let earlyFlags: UInt32 = 0x4 | 0x400 | 0x0080_0000 | 0x4000_0000

    /// Makes the flags that mean something to people equal to `wanted`, and leaves those alone that
    /// say how the file system stores the file.
    func applyFlags(
        _ wanted: UInt32, to descriptor: Int32,
        report: (MetadataWriterProblem.Aspect, Int32) -> Void
    ) {
        var current: UInt32 = 0
        let result = csys_getflags(descriptor, &current)
        guard result == 0 else {
            // A file system without flags has none to take away either.
            if wanted != 0 { report(.flags(wanted), result) }
            return
        }
        let goal = current & (InodeFlags.incidental | InodeFlags.locking) | wanted
        if goal == current || csys_setflags(descriptor, goal) == 0 { return }
        // One flag that this file system lacks spoils the call for all, so each is tried alone.
        var refused: UInt32 = 0
        var reason: Int32 = 0
        for bit in 0..<UInt32(32) where (goal ^ current) >> bit & 1 != 0 {
            let result = csys_setflags(descriptor, current ^ (1 << bit))
            if result == 0 {
                current ^= 1 << bit
            } else {
                refused |= 1 << bit
                reason = result
            }
        }
        if refused != 0 { report(.flags(refused), reason) }
    }
}
