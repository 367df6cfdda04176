import SnapshotModel

/// Something of an entry that could not be set on what was restored.
package struct MetadataWriterProblem: Sendable, Hashable, CustomStringConvertible {
    package enum Aspect: Sendable, Hashable {
        case owner
        /// Owner or group are not these, since an ordinary user may not give files away.
        case ownerDenied(uid: UInt32, gid: UInt32)
        case mode
        /// The setuid or setgid bit was left off, since the file belongs to somebody else than it
        /// did.
        case setID
        case accessControlList
        case defaultAccessControlList
        /// Its name. Capabilities are the one called `security.capability`.
        case extendedAttribute([UInt8])
        /// FS_*_FL bits.
        case flags(UInt32)
        case times
        /// The device, socket or fifo itself could not be made.
        case specialFile
    }

    /// The entry's path in the snapshot.
    package let path: [UInt8]
    package let aspect: Aspect
    /// 0 where no system call failed.
    package let errno: Int32

    package init(path: [UInt8], aspect: Aspect, errno: Int32) {
        self.path = path
        self.aspect = aspect
        self.errno = errno
    }

    /// What was not set, in a word or two that follow "cannot set".
    package var what: String {
        switch aspect {
        case .owner, .ownerDenied: "owner and group"
        case .mode: "permissions"
        case .setID: "setuid and setgid bits"
        case .accessControlList: "the access control list"
        case .defaultAccessControlList: "the default access control list"
        case .extendedAttribute(let name) where name == MetadataAttribute.capability:
            "capabilities"
        case .extendedAttribute(let name):
            "the extended attribute " + FileTreeError.printable(name)
        case .flags(let bits): "the flags " + Self.flagNames(bits)
        case .times: "times"
        case .specialFile: "the special file"
        }
    }

    package var description: String { "\(FileTreeError.printable(path)): \(message)" }

    /// What happened, for a message that has named the path already.
    package var message: String {
        switch aspect {
        case .setID: "\(what) left off, since the owner is another"
        case .ownerDenied: "\(what) are others: only root may give files away"
        case .specialFile: "cannot make \(what): \(reason)"
        default: "cannot set \(what): \(reason)"
        }
    }

    private var reason: String { FileTreeError.text(of: errno) }

    private static func flagNames(_ bits: UInt32) -> String {
        let buffer = ByteBuffer(capacity: 64)
        InodeFlags.write(bits, to: buffer)
        return String(
            decoding: buffer.bytes.filter { $0 != 0x22 }.dropFirst().dropLast(), as: UTF8.self)
    }
}

/// Names of extended attributes that mean something to us.
enum MetadataAttribute {
    static let accessACL = Array(AccessControlList.accessAttribute.utf8)
    static let defaultACL = Array(AccessControlList.defaultAttribute.utf8)
    static let capability = Array("security.capability".utf8)
    static let userPrefix = Array("user.".utf8)
}
