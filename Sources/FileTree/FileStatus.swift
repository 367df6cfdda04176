import CSystem
package import SnapshotModel

/// What the kernel says of a file: one `lstat`. Plain data of 96 bytes.
package struct FileStatus: Sendable, Hashable {
    package var inode: UInt64
    /// Bytes, holes included.
    package var size: UInt64
    /// Blocks of 512 bytes that the file occupies.
    package var blocks: UInt64
    package var mtimeSeconds: Int64
    package var ctimeSeconds: Int64
    package var btimeSeconds: Int64
    package var mtimeNanoseconds: UInt32
    package var ctimeNanoseconds: UInt32
    package var btimeNanoseconds: UInt32
    /// Type and permission bits.
    package var mode: UInt32
    package var uid: UInt32
    package var gid: UInt32
    package var links: UInt32
    /// Only `FileReader.statusWithBirth` and `DirectoryHandle.statusWithBirth` ask for the birth
    /// time.
    package var hasBirthTime: Bool
    /// Major number in the upper, minor number in the lower half.
    package var device: UInt64
    /// Of a device file, as `device`.
    package var specialDevice: UInt64

    @inline(__always)
    init(_ raw: borrowing csys_stat) {
        inode = raw.inode
        size = raw.size
        blocks = raw.blocks
        mtimeSeconds = raw.mtime_sec
        ctimeSeconds = raw.ctime_sec
        btimeSeconds = raw.btime_sec
        mtimeNanoseconds = raw.mtime_nsec
        ctimeNanoseconds = raw.ctime_nsec
        btimeNanoseconds = raw.btime_nsec
        mode = raw.mode
        uid = raw.uid
        gid = raw.gid
        links = raw.links
        hasBirthTime = raw.has_btime != 0
        device = UInt64(raw.device_major) << 32 | UInt64(raw.device_minor)
        specialDevice = UInt64(raw.rdev_major) << 32 | UInt64(raw.rdev_minor)
    }

    /// Nil for a kind of file that no manifest knows.
    package var kind: EntryKind? { EntryKind(mode: mode) }
    package var isDirectory: Bool { mode & 0o170000 == 0o040000 }
    package var isFile: Bool { mode & 0o170000 == 0o100000 }
    package var isSymlink: Bool { mode & 0o170000 == 0o120000 }

    package var mtime: Timestamp { Timestamp(seconds: mtimeSeconds, nanoseconds: mtimeNanoseconds) }
    package var ctime: Timestamp { Timestamp(seconds: ctimeSeconds, nanoseconds: ctimeNanoseconds) }
    package var btime: Timestamp? {
        hasBirthTime ? Timestamp(seconds: btimeSeconds, nanoseconds: btimeNanoseconds) : nil
    }

    /// Whether both speak of the same file, whatever happened to it in between.
    package func isSameFile(as other: FileStatus) -> Bool {
        inode == other.inode && device == other.device
            && (mode ^ other.mode) & 0o170000 == 0
    }

    /// Whether content and metadata are, as far as the kernel tells, those of `other`: what a
    /// reader compares before and after reading. The change time tells more than the modification
    /// time, which anybody can set back.
    package func isUnchanged(since other: FileStatus) -> Bool {
        inode == other.inode && device == other.device && size == other.size && mode == other.mode
            && mtimeSeconds == other.mtimeSeconds && mtimeNanoseconds == other.mtimeNanoseconds
            && ctimeSeconds == other.ctimeSeconds && ctimeNanoseconds == other.ctimeNanoseconds
    }
}

extension Entry {
    /// The entry of a file as far as its status tells; `FileMetadata.complete` adds the rest. The
    /// file system's number is for the caller to fill in.
    package init(path: [UInt8], kind: EntryKind, status: FileStatus) {
        self.init(path: path, kind: kind)
        mode = status.mode & 0o7777
        uid = status.uid
        gid = status.gid
        size = kind == .file ? status.size : 0
        mtime = status.mtime
        ctime = status.ctime
        btime = status.btime
        inode = status.inode
        links = kind == .directory ? 1 : max(status.links, 1)
        if kind.isDevice {
            deviceMajor = UInt32(truncatingIfNeeded: status.specialDevice >> 32)
            deviceMinor = UInt32(truncatingIfNeeded: status.specialDevice)
        }
    }
}
