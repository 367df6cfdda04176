import CSystem
import FileTree
import Glibc
import SnapshotModel

/// A directory of a test's own, with a restore target in it and a place outside of that target.
/// Everything goes when the value does.
final class TargetScratch {
    let path: String
    let target: TargetDirectory
    let writer: TreeWriter

    /// What must stay untouched.
    var outside: String { path + "/outside" }
    var inside: String { path + "/target" }

    init(
        openDirectories: Int = 256, walksByComponent: Bool = false,
        ownership: TargetOwnership = .names
    ) throws {
        var template = Array("/tmp/batchsync-target-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SetupFailure(errno: errno) }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        mkdir(path + "/outside", 0o755)
        target = try TargetDirectory.open(
            path: bytes(path + "/target"), create: true, openDirectories: openDirectories,
            walksByComponent: walksByComponent)
        writer = TreeWriter(target: target, ownership: ownership)
    }

    deinit {
        let parent = try? TargetDirectory.open(path: bytes("/tmp"), create: false)
        _ = try? parent?.remove(bytes(String(path.dropFirst("/tmp/".count))))
    }

    struct SetupFailure: Error { let errno: Int32 }

    /// Writes a whole file through the writer.
    @discardableResult
    func put(
        _ relative: String, _ content: [UInt8] = [], placement: TreeWriter.Placement = .new,
        change: (inout Entry) -> Void = { _ in }
    ) throws -> [MetadataWriterProblem] {
        var entry = self.entry(.file, relative)
        entry.size = UInt64(content.count)
        change(&entry)
        let file = try writer.createFile(bytes(relative), entry: entry, placement: placement)
        try content.withUnsafeBytes { try file.write($0, at: 0) }
        return try file.finish(entry)
    }

    /// An entry that belongs to whoever runs the test.
    func entry(_ kind: EntryKind, _ relative: String) -> Entry {
        var entry = Entry(path: bytes("/" + relative), kind: kind)
        entry.mode = kind == .directory ? 0o755 : 0o644
        entry.uid = geteuid()
        entry.gid = getegid()
        entry.mtime = Timestamp(seconds: 1_600_000_000, nanoseconds: 123_456_789)
        return entry
    }

    /// Names in a directory, sorted.
    static func names(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let record = readdir(stream) {
            let name = withUnsafePointer(to: &record.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Content of a file, read without the code under test; nil where it cannot be read.
    static func content(of path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count <= 0 { return content }
            content += buffer[..<count]
        }
    }

    static func write(_ content: String, to path: String) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        _ = content.withCString { Glibc.write(descriptor, $0, strlen($0)) }
        close(descriptor)
    }

    static func status(_ path: String) -> csys_stat? {
        var status = csys_stat()
        return csys_lstatat(AT_FDCWD, path, &status) == 0 ? status : nil
    }

    static func time(_ path: String) -> Timestamp? {
        status(path).map { Timestamp(seconds: $0.mtime_sec, nanoseconds: $0.mtime_nsec) }
    }

    /// An extended attribute of a file or directory; nil where there is none.
    static func attribute(_ name: String, of path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var value = [UInt8](repeating: 0, count: 1 << 16)
        let count = csys_fgetxattr(descriptor, name, &value, value.count)
        return count < 0 ? nil : Array(value[..<count])
    }

    @discardableResult
    static func setAttribute(_ name: String, _ value: [UInt8], of path: String) -> Int32 {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW)
        guard descriptor >= 0 else { return -errno }
        defer { close(descriptor) }
        return csys_fsetxattr(descriptor, name, value, value.count)
    }

    static func flags(of path: String) -> UInt32? {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var flags: UInt32 = 0
        return csys_getflags(descriptor, &flags) == 0 ? flags : nil
    }

    static func clearFlags(of path: String) {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW)
        guard descriptor >= 0 else { return }
        _ = csys_setflags(
            descriptor, (flags(of: path) ?? 0) & ~(InodeFlags.locking | InodeFlags.nodump))
        close(descriptor)
    }

    // MARK: What this host can do

    static let isRoot = geteuid() == 0

    /// Whether /tmp keeps extended attributes of users.
    static let keepsAttributes = probe { setAttribute("user.probe", [1], of: $0) == 0 }
    /// Whether /tmp keeps access control lists.
    static let keepsACLs = probe {
        let list = AccessControlList(text: bytes("u::rw-,u:1:r--,g::r--,m::r--,o::---"))
        return setAttribute(AccessControlList.accessAttribute, list?.binary ?? [], of: $0) == 0
    }
    /// Whether /tmp keeps inode flags.
    static let keepsFlags = probe { path in
        let descriptor = open(path, O_RDONLY)
        defer { close(descriptor) }
        return csys_setflags(descriptor, (flags(of: path) ?? 0) | InodeFlags.nodump) == 0
    }

    private static func probe(_ body: (String) -> Bool) -> Bool {
        var template = Array("/tmp/batchsync-probe-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        guard descriptor >= 0 else { return false }
        close(descriptor)
        let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        defer { unlink(path) }
        return body(path)
    }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Runs `body` and gives the kind of what it throws; nil where it throws nothing.
func thrownKind(_ body: () throws -> Void) -> FileTreeError.Kind? {
    do {
        try body()
        return nil
    } catch let error as FileTreeError {
        return error.kind
    } catch {
        return nil
    }
}
