import CSystem
import Glibc
import SnapshotModel

/// A file system as a snapshot's table names it.
package struct FileSystemDescription: Sendable, Hashable {
    /// As the kernel names it: `ext4`, `fuse.sshfs`.
    package let type: [UInt8]
    /// What is mounted: a device, a share, or a word.
    package let source: [UInt8]
    package let uuid: [UInt8]?

    package init(type: [UInt8], source: [UInt8], uuid: [UInt8]?) {
        self.type = type
        self.source = source
        self.uuid = uuid
    }

    /// Whether a file has the same inode number the next time the file system is mounted. Elsewhere
    /// numbers are made up as files are met, or belong to a place in the directory: comparing them
    /// would find every file changed.
    package var keepsInodeNumbers: Bool {
        let type = String(decoding: type, as: UTF8.self)
        // FUSE leaves the choice to the program behind it, and most count.
        if type == "fuse" || type == "fuseblk" || type.hasPrefix("fuse.") { return false }
        return !["vfat", "msdos", "exfat", "9p", "cifs", "smb3", "smbfs"].contains(type)
    }
}

/// What is mounted where, read once from the kernel.
package struct FileSystemTable: Sendable {
    private struct Mount: Sendable {
        let device: UInt64
        let point: [UInt8]
        let type: [UInt8]
        let source: [UInt8]
    }

    /// In the order of mounting.
    private let mounts: [Mount]
    /// From the device number of a disk or partition.
    private let uuids: [UInt64: [UInt8]]

    /// Reads `/proc/self/mountinfo` and `/dev/disk/by-uuid`. Where they are missing the table is
    /// empty, and descriptions say `unknown`.
    package init() {
        self.init(mountinfo: Self.contents(of: "/proc/self/mountinfo"), uuids: Self.readUUIDs())
    }

    /// - Parameter mountinfo: In the form of proc(5).
    init(mountinfo: [UInt8], uuids: [UInt64: [UInt8]]) {
        self.uuids = uuids
        mounts = mountinfo.split(separator: 0x0A).compactMap { line in
            let fields = line.split(separator: 0x20)
            // Behind the sixth field come optional ones up to a hyphen.
            guard fields.count >= 10,
                let hyphen = fields[6...].firstIndex(where: { $0.elementsEqual([0x2D]) }),
                fields.count > hyphen + 2
            else { return nil }
            let numbers = fields[2].split(separator: 0x3A).compactMap {
                UInt64(String(decoding: $0, as: UTF8.self))
            }
            guard numbers.count == 2 else { return nil }
            return Mount(
                device: numbers[0] << 32 | numbers[1], point: Self.unescaped(fields[4]),
                type: Self.unescaped(fields[hyphen + 1]), source: Self.unescaped(fields[hyphen + 2])
            )
        }
    }

    /// What is known of the file system with a device number.
    ///
    /// - Parameter path: Of something on it. Some file systems show numbers that the kernel's table
    ///   lacks, such as btrfs for its subvolumes; then the mount point above the path decides.
    package func description(device: UInt64, path: [UInt8]) -> FileSystemDescription {
        // Of several mounts the later one lies on top.
        var best = mounts.last { $0.device == device }
        if best == nil {
            for mount in mounts where EntryPath.contains(mount.point, path) {
                if mount.point.count >= (best?.point.count ?? 0) { best = mount }
            }
        }
        guard let best else {
            return FileSystemDescription(type: Array("unknown".utf8), source: [], uuid: nil)
        }
        var uuid = uuids[device] ?? uuids[best.device]
        if uuid == nil, best.source.first == 0x2F {
            uuid = Self.specialDevice(best.source).flatMap { uuids[$0] }
        }
        return FileSystemDescription(type: best.type, source: best.source, uuid: uuid)
    }

    /// Spaces and the like are written as a backslash and three octal digits.
    private static func unescaped(_ field: ArraySlice<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        var index = field.startIndex
        while index < field.endIndex {
            if field[index] == 0x5C, index + 3 < field.endIndex,
                field[(index + 1)...(index + 3)].allSatisfy({ (0x30...0x37).contains($0) })
            {
                let value = field[(index + 1)...(index + 3)].reduce(0) { $0 * 8 + Int($1 - 0x30) }
                bytes.append(UInt8(truncatingIfNeeded: value))
                index += 4
            } else {
                bytes.append(field[index])
                index += 1
            }
        }
        return bytes
    }

    private static func contents(of path: String) -> [UInt8] {
        let descriptor = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        guard descriptor >= 0 else { return [] }
        defer { _ = csys_close(descriptor) }
        let buffer = ByteBuffer(capacity: 64 << 10)
        while true {
            buffer.reserve(32 << 10)
            let got = csys_pread(
                descriptor, buffer.base + buffer.count, buffer.capacity - buffer.count,
                Int64(buffer.count))
            if got <= 0 { return buffer.array }
            buffer.count += got
        }
    }

    private static func specialDevice(_ path: [UInt8]) -> UInt64? {
        let descriptor = (path.map { CChar(bitPattern: $0) } + [0]).withUnsafeBufferPointer {
            csys_open($0.baseAddress!, CSYS_O_PATH | CSYS_O_CLOEXEC, 0)
        }
        guard descriptor >= 0 else { return nil }
        defer { _ = csys_close(descriptor) }
        var raw = csys_stat()
        guard csys_fstat(descriptor, &raw) == 0, csys_kind(raw.mode) == CSYS_BLOCKDEV else {
            return nil
        }
        return FileStatus(raw).specialDevice
    }

    private static func readUUIDs() -> [UInt64: [UInt8]] {
        let place = "/dev/disk/by-uuid"
        guard let directory = opendir(place) else { return [:] }
        defer { closedir(directory) }
        var uuids: [UInt64: [UInt8]] = [:]
        while let record = readdir(directory) {
            let name = withUnsafePointer(to: &record.pointee.d_name) {
                $0.withMemoryRebound(to: UInt8.self, capacity: 256) {
                    Array(UnsafeBufferPointer(start: $0, count: strnlen($0, 256)))
                }
            }
            if name.first == 0x2E { continue }
            if let device = specialDevice(Array(place.utf8) + [0x2F] + name) {
                uuids[device] = name
            }
        }
        return uuids
    }
}
