package enum EntryKind: UInt8, Sendable, CaseIterable {
    case file = 1
    case directory, symlink, fifo, socket, characterDevice, blockDevice

    /// As a manifest spells it.
    package var name: StaticString {
        switch self {
        case .file: "file"
        case .directory: "dir"
        case .symlink: "symlink"
        case .fifo: "fifo"
        case .socket: "socket"
        case .characterDevice: "chardev"
        case .blockDevice: "blockdev"
        }
    }

    package var isDevice: Bool { self == .characterDevice || self == .blockDevice }

    /// From the type bits of a mode.
    package init?(mode: UInt32) {
        switch mode & 0o170000 {
        case 0o100000: self = .file
        case 0o040000: self = .directory
        case 0o120000: self = .symlink
        case 0o010000: self = .fifo
        case 0o140000: self = .socket
        case 0o020000: self = .characterDevice
        case 0o060000: self = .blockDevice
        default: return nil
        }
    }

    /// The type bits of a mode.
    package var modeBits: UInt32 {
        switch self {
        case .file: 0o100000
        case .directory: 0o040000
        case .symlink: 0o120000
        case .fifo: 0o010000
        case .socket: 0o140000
        case .characterDevice: 0o020000
        case .blockDevice: 0o060000
        }
    }

    init?(name: UnsafeRawBufferPointer) {
        for kind in EntryKind.allCases
        where Memory.equal(
            name,
            UnsafeRawBufferPointer(start: kind.name.utf8Start, count: kind.name.utf8CodeUnitCount))
        {
            self = kind
            return
        }
        return nil
    }
}

/// A run of zeros that is not stored, neither here nor on the disk it came from. Bytes.
package struct Hole: Hashable, Sendable {
    package var offset: UInt64
    package var length: UInt64

    package init(offset: UInt64, length: UInt64) {
        self.offset = offset
        self.length = length
    }
}

package struct ExtendedAttribute: Hashable, Sendable {
    package var name: [UInt8]
    package var value: [UInt8]

    package init(name: [UInt8], value: [UInt8]) {
        self.name = name
        self.value = value
    }
}

/// One file, directory, link or special file, as a manifest records it (format.md section 9).
///
/// Nothing in an entry depends on the run that made it, so an unchanged file has the same line in
/// each snapshot.
package struct Entry: Sendable, Equatable {
    /// Absolute, canonical.
    package var path: [UInt8]
    package var kind: EntryKind
    /// Permission bits with setuid, setgid and sticky; no type bits.
    package var mode: UInt32 = 0
    package var uid: UInt32 = 0
    package var gid: UInt32 = 0
    package var user: [UInt8]?
    package var group: [UInt8]?
    /// Bytes, holes included. Zero for everything but files.
    package var size: UInt64 = 0
    package var mtime = Timestamp(seconds: 0)
    package var ctime = Timestamp(seconds: 0)
    package var btime: Timestamp?
    /// Index into the snapshot's table of file systems.
    package var fileSystem: UInt32 = 0
    package var inode: UInt64 = 0
    /// 1 unless several names share the inode. Always 1 for directories.
    package var links: UInt32 = 1
    package var deviceMajor: UInt32 = 0
    package var deviceMinor: UInt32 = 0
    /// Of a symbolic link.
    package var target: [UInt8] = []
    /// FS_*_FL bits that a person can set and that mean something elsewhere.
    package var flags: UInt32 = 0
    /// POSIX ACLs as text (format.md section 9).
    package var acl: [UInt8]?
    package var defaultACL: [UInt8]?
    package var xattrs: [ExtendedAttribute] = []
    package var holes: [Hole] = []
    /// Chunks that hold the list of holes, where it is too long to stand here.
    package var holesList: [ChunkID] = []
    package var fingerprint: Fingerprint?
    /// Chunks of the content where `listDepth` is 0, else nodes of that level.
    package var chunks: [ChunkID] = []
    package var listDepth = 0
    /// The file changed while it was read, each time.
    package var isUnsettled = false

    package init(path: [UInt8], kind: EntryKind) {
        self.path = path
        self.kind = kind
    }

    /// Bytes outside of holes; meaningful only where `holes` holds them all.
    package var dataBytes: UInt64 { size - holes.reduce(0) { $0 + $1.length } }

    package static let inlineListLimit = 1000
}
