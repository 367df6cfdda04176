import Glibc
import Synchronization

/// The names of users and groups as this host knows them.
///
/// Each is asked for once in the life of the process, also when it has none: the answer may come
/// from a server. Safe from every thread; one question is asked at a time.
package enum AccountNames {
    private static let users = Mutex<[UInt32: [UInt8]?]>([:])
    private static let groups = Mutex<[UInt32: [UInt8]?]>([:])

    /// The name of a user, or nil where the host knows none.
    package static func user(_ id: UInt32) -> [UInt8]? {
        users.withLock { known in
            if let name = known[id] { return name }
            let (name, isFinal) = look { buffer in
                var record = passwd()
                var found: UnsafeMutablePointer<passwd>?
                let result = getpwuid_r(id, &record, buffer.baseAddress!, buffer.count, &found)
                return (result, found?.pointee.pw_name)
            }
            if isFinal { known[id] = .some(name) }
            return name
        }
    }

    /// The name of a group, or nil where the host knows none.
    package static func group(_ id: UInt32) -> [UInt8]? {
        groups.withLock { known in
            if let name = known[id] { return name }
            let (name, isFinal) = look { buffer in
                var record = Glibc.group()
                var found: UnsafeMutablePointer<Glibc.group>?
                let result = getgrgid_r(id, &record, buffer.baseAddress!, buffer.count, &found)
                return (result, found?.pointee.gr_name)
            }
            if isFinal { known[id] = .some(name) }
            return name
        }
    }

    /// - Returns: The name, and whether the answer will be the same next time: a server that was
    ///   away gives none.
    private static func look(
        _ ask: (UnsafeMutableBufferPointer<CChar>) -> (Int32, UnsafeMutablePointer<CChar>?)
    ) -> (name: [UInt8]?, isFinal: Bool) {
        var size = 1024
        while true {
            let buffer = UnsafeMutableBufferPointer<CChar>.allocate(capacity: size)
            defer { buffer.deallocate() }
            let (result, name) = ask(buffer)
            // A group's record holds the names of all its members.
            if result == ERANGE, size < 1 << 24 {
                size *= 4
                continue
            }
            if result == EINTR { continue }
            guard let name else {
                return (nil, result == 0 || result == ENOENT || result == ESRCH || result == ERANGE)
            }
            return (Array(UnsafeRawBufferPointer(start: name, count: strlen(name))), true)
        }
    }
}
