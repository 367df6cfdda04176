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

    // MARK: Setting

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

    // MARK: Looking

    func status(_ out: inout csys_stat) -> Int32 {
        if let name { return csys_lstatat(descriptor, name, &out) }
        return csys_fstat(descriptor, &out)
    }

    /// Inode flags; nil where there are none, or where only an open file would tell.
    var flags: UInt32? {
        guard name == nil else { return nil }
        var flags: UInt32 = 0
        return csys_getflags(descriptor, &flags) == 0 ? flags : nil
    }

    /// Names of the extended attributes; none where they cannot be listed.
    var attributeNames: [[UInt8]] {
        func list(_ buffer: UnsafeMutablePointer<CChar>?, _ size: Int) -> Int {
            if let name { return csys_listxattr_at(descriptor, name, buffer, size) }
            return csys_flistxattr(descriptor, buffer, size)
        }
        let size = list(nil, 0)
        guard size > 0 else { return [] }
        let names = [UInt8](unsafeUninitializedCapacity: size + 1024) { buffer, count in
            count = buffer.withMemoryRebound(to: CChar.self) { buffer in
                max(0, list(buffer.baseAddress, buffer.count))
            }
        }
        return names.split(separator: 0).map(Array.init)
    }

    /// Value of an extended attribute; nil where there is none or it cannot be read.
    func value(of attribute: [UInt8]) -> [UInt8]? {
        let attribute = TargetPath.cString(attribute[...])
        func get(_ buffer: UnsafeMutableRawPointer?, _ size: Int) -> Int {
            if let name { return csys_getxattr_at(descriptor, name, attribute, buffer, size) }
            return csys_fgetxattr(descriptor, attribute, buffer, size)
        }
        let size = get(nil, 0)
        guard size > 0 else { return size == 0 ? [] : nil }
        var got = 0
        let value = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            got = get(buffer.baseAddress, size)
            count = max(0, got)
        }
        return got < 0 ? nil : value
    }
}
