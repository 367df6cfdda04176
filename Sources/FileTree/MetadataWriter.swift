import CSystem
import Glibc
import SnapshotModel

/// What metadata is set on: an open file, or a name in an open directory.
///
/// Files and directories are changed through their descriptor; what cannot be opened without side
/// effects (links, devices, sockets) by name, with calls that do not follow a link.
struct MetadataSubject {
    let descriptor: Int32
    let name: [CChar]?

    init(descriptor: Int32) {
        self.descriptor = descriptor
        name = nil
    }

    init(directory: Int32, name: [CChar]) {
        descriptor = directory
        self.name = name
    }

    func chown(_ uid: UInt32, _ gid: UInt32) -> Int32 {
        if let name { return csys_lchownat(descriptor, name, uid, gid) }
        return csys_fchown(descriptor, uid, gid)
    }

    func chmod(_ mode: UInt32) -> Int32 {
        if let name { return csys_chmod_nofollow(descriptor, name, mode) }
        return csys_fchmod(descriptor, mode)
    }

    func setTime(_ time: Timestamp) -> Int32 {
        if let name {
            return csys_lutimensat(descriptor, name, time.seconds, time.nanoseconds)
        }
        return csys_futimens(descriptor, time.seconds, time.nanoseconds)
    }

    func listAttributes(_ buffer: UnsafeMutablePointer<CChar>?, _ size: Int) -> Int {
        if let name { return csys_listxattr_at(descriptor, name, buffer, size) }
        return csys_flistxattr(descriptor, buffer, size)
    }

    func set(_ attribute: UnsafePointer<CChar>, _ value: [UInt8]) -> Int32 {
        if let name {
            return csys_setxattr_at(descriptor, name, attribute, value, value.count)
        }
        return csys_fsetxattr(descriptor, attribute, value, value.count)
    }

    func remove(_ attribute: UnsafePointer<CChar>) -> Int32 {
        if let name { return csys_removexattr_at(descriptor, name, attribute) }
        return csys_fremovexattr(descriptor, attribute)
    }

    func status(_ out: inout csys_stat) -> Int32 {
        if let name { return csys_lstatat(descriptor, name, &out) }
        return csys_fstat(descriptor, &out)
    }
}

/// What is known of a subject before its metadata is set; what is known need not be asked.
struct MetadataState {
    /// Owner and group now; nil where that was not looked at.
    var owner: (uid: UInt32, gid: UInt32)?
    /// Permission bits now; nil where they were not looked at.
    var mode: UInt32?
    /// Made by this restore: it carries nothing but what its directory passed on.
    var isNew: Bool
    /// Made in a directory with a default ACL.
    var inheritsACL: Bool
    /// Inode flags now; nil where they were not looked at.
    var flags: UInt32?
}

/// Sets everything but content: owner, extended attributes, ACLs, permissions, times, flags, in
/// this order.
///
/// The order is forced. A change of owner clears setuid bits and capabilities, so it comes first,
/// and until it has happened the file keeps mode 0600: no moment shows a setuid file of the wrong
/// owner. An ordinary user may set attributes only while a file is writable, so they precede the
/// permissions; an ACL rewrites the group's bits, so it does too. Times go after everything that
/// touches them. Flags that forbid changes (immutable, append-only) are left to the caller, since
/// hard links and directory contents must be there before.
struct MetadataWriter: Sendable {
    let owners: TargetOwners

    init(ownership: TargetOwnership) { owners = TargetOwners(ownership) }

    /// Sets the metadata of `entry` on `subject`.
    ///
    /// - Returns: What could not be set. The flags of `InodeFlags.locking` are never set here.
    func apply(
        _ entry: Entry, to subject: MetadataSubject, state: MetadataState
    ) -> [MetadataWriterProblem] {
        var problems: [MetadataWriterProblem] = []
        func report(_ aspect: MetadataWriterProblem.Aspect, _ result: Int32) {
            problems.append(MetadataWriterProblem(path: entry.path, aspect: aspect, errno: -result))
        }

        let allowedBits = applyOwner(entry, to: subject, state: state, report: report)
        let isLink = entry.kind == .symlink
        applyAttributes(entry, to: subject, state: state, report: report)
        if !isLink {
            applyACL(
                entry.acl, AccessControlList.accessAttribute, .accessControlList, subject, state,
                report: report)
            if entry.kind == .directory {
                applyACL(
                    entry.defaultACL, AccessControlList.defaultAttribute, .defaultAccessControlList,
                    subject, state, report: report)
            }
            let mode = entry.mode & 0o7777 & allowedBits
            if mode != entry.mode & 0o7777 { report(.setID, 0) }
            let result = subject.chmod(mode)
            if result < 0 { report(.mode, result) }
        }
        let result = subject.setTime(entry.mtime)
        if result < 0 { report(.times, result) }
        let mayHaveFlags = state.flags.map { $0 & ~InodeFlags.incidental != 0 } ?? true
        if subject.name == nil, entry.flags != 0 || mayHaveFlags {
            applyFlags(
                entry.flags & ~InodeFlags.locking, to: subject.descriptor, report: report)
        }
        return problems
    }

    // MARK: Owner

    /// Sets the owner; returns the mode bits that may be set now.
    private func applyOwner(
        _ entry: Entry, to subject: MetadataSubject, state: MetadataState,
        report: (MetadataWriterProblem.Aspect, Int32) -> Void
    ) -> UInt32 {
        let (uid, gid) = owners.owner(of: entry)
        let carriesSetID = entry.mode & 0o6000 != 0 && entry.kind != .symlink
        if owners.ownership == .none {
            guard carriesSetID else { return 0o7777 }
            var status = csys_stat()
            guard subject.status(&status) == 0 else { return 0o1777 }
            return 0o1777 | (status.uid == uid ? 0o4000 : 0) | (status.gid == gid ? 0o2000 : 0)
        }
        // Where a setuid bit follows, the owner is not taken on trust.
        if let owner = state.owner, owner == (uid, gid), !carriesSetID { return 0o7777 }
        let outcome = owners.apply(
            uid: uid, gid: gid, current: state.owner, change: subject.chown)
        if outcome.errno != 0 { report(.owner, -outcome.errno) }
        return 0o1777 | (outcome.userIsRight ? 0o4000 : 0) | (outcome.groupIsRight ? 0o2000 : 0)
    }

    // MARK: Extended attributes and ACLs

    private func applyAttributes(
        _ entry: Entry, to subject: MetadataSubject, state: MetadataState,
        report: (MetadataWriterProblem.Aspect, Int32) -> Void
    ) {
        let stale = state.isNew ? [] : staleAttributes(of: subject, entry)
        if entry.xattrs.isEmpty, stale.isEmpty { return }
        if !state.isNew, !owners.isSuperuser, entry.kind != .symlink, let mode = state.mode,
            mode & 0o200 == 0
        {
            _ = subject.chmod(mode & 0o777 | 0o200)
        }
        for name in stale {
            let result = subject.remove(TargetPath.cString(name[...]))
            if result < 0, result != -ENODATA { report(Self.aspect(of: name), result) }
        }
        for attribute in entry.xattrs {
            // A zero byte would cut the name short and set another attribute.
            guard !attribute.name.contains(0) else {
                report(.extendedAttribute(attribute.name), -EINVAL)
                continue
            }
            let result = subject.set(TargetPath.cString(attribute.name[...]), attribute.value)
            if result < 0 { report(.extendedAttribute(attribute.name), result) }
        }
    }

    /// Attributes that are there and that the entry lacks. Labels of the host's own security
    /// modules and of the file system stay; what gives rights (ACLs, capabilities) and what users
    /// attach goes.
    private func staleAttributes(of subject: MetadataSubject, _ entry: Entry) -> [[UInt8]] {
        let size = subject.listAttributes(nil, 0)
        guard size > 0 else { return [] }
        let list = [UInt8](unsafeUninitializedCapacity: size + 1024) { buffer, count in
            count = buffer.withMemoryRebound(to: CChar.self) { buffer in
                max(0, subject.listAttributes(buffer.baseAddress, buffer.count))
            }
        }
        return list.split(separator: 0).map(Array.init).filter { name in
            switch name {
            case MetadataAttribute.accessACL: return entry.acl == nil
            case MetadataAttribute.defaultACL: return entry.defaultACL == nil
            default:
                return
                    (name.starts(with: MetadataAttribute.userPrefix)
                    || name == MetadataAttribute.capability)
                    && !entry.xattrs.contains { $0.name == name }
            }
        }
    }

    private static func aspect(of attribute: [UInt8]) -> MetadataWriterProblem.Aspect {
        switch attribute {
        case MetadataAttribute.accessACL: .accessControlList
        case MetadataAttribute.defaultACL: .defaultAccessControlList
        default: .extendedAttribute(attribute)
        }
    }

    private func applyACL(
        _ text: [UInt8]?, _ attribute: String, _ aspect: MetadataWriterProblem.Aspect,
        _ subject: MetadataSubject, _ state: MetadataState,
        report: (MetadataWriterProblem.Aspect, Int32) -> Void
    ) {
        guard let text else {
            // What an older file has of its own went with its other stale attributes.
            guard state.isNew, state.inheritsACL else { return }
            let result = subject.remove(attribute)
            if result < 0, result != -ENODATA, result != -EOPNOTSUPP { report(aspect, result) }
            return
        }
        guard let value = AccessControlList(text: text)?.binary else {
            report(aspect, -EINVAL)
            return
        }
        let result = subject.set(attribute, value)
        if result < 0 { report(aspect, result) }
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

    /// Adds the flags that forbid further changes; 0 or the negated errno.
    func lock(_ flags: UInt32, descriptor: Int32) -> Int32 {
        var current: UInt32 = 0
        let result = csys_getflags(descriptor, &current)
        if result < 0 { return result }
        return csys_setflags(descriptor, current | flags & InodeFlags.locking)
    }
}
