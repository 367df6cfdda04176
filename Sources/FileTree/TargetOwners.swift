import CSystem
import Glibc
import SnapshotModel
import Synchronization

/// Whose the restored files become.
package enum TargetOwnership: Sendable {
    /// By name where this host knows the name, else by number.
    case names
    case numbers
    /// Everything belongs to whoever runs the restore.
    case none
}

/// Finds the owner of an entry on this host, and remembers what may not be set.
///
/// An ordinary user cannot give files away. The first refusal is remembered, so that a restore of
/// 200,000 files does not ask 200,000 times.
final class TargetOwners: Sendable {
    let ownership: TargetOwnership
    let isSuperuser: Bool
    let ownUser: UInt32

    private struct Names {
        var users: [[UInt8]: UInt32?] = [:]
        var groups: [[UInt8]: UInt32?] = [:]
    }
    private let names = Mutex(Names())
    private let refusesUsers = Atomic<Bool>(false)
    private let refusedGroups = Mutex<Set<UInt32>>([])

    init(_ ownership: TargetOwnership, user: UInt32 = geteuid()) {
        self.ownership = ownership
        ownUser = user
        isSuperuser = user == 0
    }

    /// User and group that the entry's file should have here.
    func owner(of entry: Entry) -> (uid: UInt32, gid: UInt32) {
        guard ownership == .names, entry.user != nil || entry.group != nil else {
            return (entry.uid, entry.gid)
        }
        return names.withLock { names in
            var result = (uid: entry.uid, gid: entry.gid)
            if let user = entry.user {
                if let known = names.users[user] {
                    result.uid = known ?? entry.uid
                } else {
                    let found = Self.userID(user)
                    names.users[user] = .some(found)
                    result.uid = found ?? entry.uid
                }
            }
            if let group = entry.group {
                if let known = names.groups[group] {
                    result.gid = known ?? entry.gid
                } else {
                    let found = Self.groupID(group)
                    names.groups[group] = .some(found)
                    result.gid = found ?? entry.gid
                }
            }
            return result
        }
    }

    /// What came of an attempt to set an owner.
    struct Outcome {
        var userIsRight: Bool
        var groupIsRight: Bool
        /// A failure that is more than an ordinary user's lack of rights; 0 where there is none.
        var errno: Int32 = 0
    }

    /// Sets owner and group through `change`, which returns what chown does; an ordinary user gets
    /// as much of both as is allowed.
    ///
    /// - Parameter current: Owner before, where it is known.
    func apply(
        uid: UInt32, gid: UInt32, current: (uid: UInt32, gid: UInt32)?,
        change: (UInt32, UInt32) -> Int32
    ) -> Outcome {
        let keep = UInt32.max
        if isSuperuser {
            let result = change(uid, gid)
            return Outcome(
                userIsRight: result == 0 || current?.uid == uid,
                groupIsRight: result == 0 || current?.gid == gid, errno: -result)
        }
        let user = current?.uid ?? ownUser
        let group = current?.gid
        var outcome = Outcome(userIsRight: user == uid, groupIsRight: group == gid)
        if user != uid, !refusesUsers.load(ordering: .relaxed) {
            let result = change(uid, keep)
            outcome.userIsRight = result == 0
            if result == -EPERM {
                refusesUsers.store(true, ordering: .relaxed)
            } else if result < 0 {
                outcome.errno = -result
            }
        }
        if group != gid, !refusedGroups.withLock({ $0.contains(gid) }) {
            let result = change(keep, gid)
            outcome.groupIsRight = result == 0
            // Whoever does not own the file is refused for that reason, not for the group's sake.
            if result == -EPERM, user == ownUser {
                refusedGroups.withLock { _ = $0.insert(gid) }
            } else if result < 0, result != -EPERM {
                outcome.errno = -result
            }
        }
        return outcome
    }

    private static func userID(_ name: [UInt8]) -> UInt32? {
        lookUp { buffer in
            var record = passwd()
            var found: UnsafeMutablePointer<passwd>?
            let status = getpwnam_r(
                TargetPath.cString(name[...]), &record, buffer.baseAddress!, buffer.count, &found)
            return (status, found == nil ? nil : record.pw_uid)
        }
    }

    private static func groupID(_ name: [UInt8]) -> UInt32? {
        lookUp { buffer in
            var record = group()
            var found: UnsafeMutablePointer<group>?
            let status = getgrnam_r(
                TargetPath.cString(name[...]), &record, buffer.baseAddress!, buffer.count, &found)
            return (status, found == nil ? nil : record.gr_gid)
        }
    }

    /// Groups with many members need room; 4 MiB is beyond any.
    private static func lookUp(
        _ ask: (UnsafeMutableBufferPointer<CChar>) -> (status: Int32, id: UInt32?)
    ) -> UInt32? {
        var size = 4096
        while size <= 4 << 20 {
            let buffer = UnsafeMutableBufferPointer<CChar>.allocate(capacity: size)
            defer { buffer.deallocate() }
            let (status, id) = ask(buffer)
            if status != ERANGE { return id }
            size *= 4
        }
        return nil
    }
}
