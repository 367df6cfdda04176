import CSystem
import Glibc
import SnapshotModel
import SnapshotRepository

/// Sees to it that a profile runs once at a time on this host. The kernel ends it with the process,
/// however that ends.
final class RunLock {
    private let descriptor: Int32
    /// When the run before this one began, where it was killed and could not say so itself.
    let killedRun: Timestamp?

    /// A run that has begun and not ended.
    struct Unfinished {
        let since: Timestamp
        /// Whether it goes on; else its process was killed.
        let isRunning: Bool
    }

    /// What the lock file of a profile tells: it is empty after a run that came to its end.
    static func unfinished(profile: String, directories: HostDirectories) -> Unfinished? {
        let path = path(profile, directories)
        guard let value = content(path), let since = value["since"]?.timestamp else { return nil }
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        // Asking the kernel for the lock would keep a run from beginning at that moment.
        let isRunning = isLocked(status, by: value["pid"]?.count)
        return Unfinished(since: since, isRunning: isRunning)
    }

    private static func path(_ profile: String, _ directories: HostDirectories) -> String {
        "\(directories.state)/runs/\(directories.placeName(profile)).lock"
    }

    /// What the run that has the lock, or had it and was killed, has written; nil where none has.
    private static func content(_ path: String) -> JSONValue? {
        (try? LocalFile.read(path, maximumBytes: 4096)).flatMap { $0 }
            .flatMap { JSONValue(parsing: $0) }
    }

    /// Whether the kernel knows a lock on the file.
    private static func isLocked(_ status: stat, by pid: Int?) -> Bool {
        let inode = String(status.st_ino)
        return kernelLocks().contains { words in
            // 1: FLOCK  ADVISORY  WRITE 4711 fd:01:131074 0 EOF
            guard words.count >= 6, words[1] == "FLOCK" else { return false }
            let place = words[5].split(separator: ":")
            guard place.count == 3, place[2] == inode else { return false }
            // Other file systems count alike. Some, btrfs among them, tell stat another device than
            // the kernel's own; the process tells them apart there.
            let device = deviceNumbers(UInt64(status.st_dev))
            return UInt64(place[0], radix: 16) == device.major
                && UInt64(place[1], radix: 16) == device.minor
                || Int(words[4]) == pid
        }
    }

    /// Major and minor as glibc's macros, which Swift does not import, take them apart.
    private static func deviceNumbers(_ device: UInt64) -> (major: UInt64, minor: UInt64) {
        let major = (device >> 8) & 0xFFF | (device >> 32) & 0xFFFF_F000
        let minor = device & 0xFF | (device >> 12) & 0xFFFF_FF00
        return (major, minor)
    }

    /// The locks of this machine, each in words. The kernel makes them up while they are read: by
    /// its size the file is empty.
    private static func kernelLocks() -> [[Substring]] {
        let descriptor = csys_open("/proc/locks", O_RDONLY | CSYS_O_CLOEXEC, 0)
        guard descriptor >= 0 else { return [] }
        defer { _ = csys_close(descriptor) }
        let bytes = (try? HostFile.readAll(descriptor, maximumBytes: 16 << 20)) ?? []
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map {
            $0.split(separator: " ")
        }
    }

    /// - Throws: Exit code 5 where another process runs the profile, with its number and since when.
    init(profile: String, directories: HostDirectories) throws {
        try LocalFile.makeDirectory("\(directories.state)/runs")
        let path = Self.path(profile, directories)
        descriptor = csys_open(path, O_RDWR | O_CREAT | CSYS_O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw CommandError(
                .failed, "\(path): \(String(cString: strerror(-descriptor)))",
                remedy: "check the state directory")
        }
        let locked = csys_try_lock(descriptor)
        guard locked == 0 || locked == -EWOULDBLOCK else {
            _ = csys_close(descriptor)
            throw CommandError(
                .failed, "\(path) cannot be locked: \(String(cString: strerror(-locked)))",
                remedy: "the state directory has to lie on a file system that knows locks")
        }
        guard locked == 0 else {
            let holder = Self.content(path)
            _ = csys_close(descriptor)
            let since = holder?["since"]?.timestamp.map { " since \(TimeText.person($0))" } ?? ""
            let pid = holder?["pid"]?.count.map { ", process \($0)" } ?? ""
            throw CommandError(
                .running, "profile \(profile) is already running\(since)\(pid)",
                remedy: "wait for it to end; nothing has to be unlocked by hand")
        }
        killedRun = Self.content(path)?["since"]?.timestamp
        let words = JSONValue.object([
            ("pid", .count(Int(getpid()))), ("since", .string(Assembly.now.text)),
        ]).bytes
        _ = csys_ftruncate(descriptor, 0)
        _ = words.withUnsafeBytes { csys_pwrite(descriptor, $0.baseAddress, $0.count, 0) }
    }

    deinit {
        // Empty: this run has come to its end.
        _ = csys_ftruncate(descriptor, 0)
        _ = csys_close(descriptor)
    }
}
