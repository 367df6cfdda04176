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
        guard let since = since(path) else { return nil }
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        // Asking the kernel for the lock would keep a run from beginning at that moment.
        let locks = (try? LocalFile.read("/proc/locks", maximumBytes: 16 << 20)) ?? nil
        let isRunning = String(decoding: locks ?? [], as: UTF8.self).split(separator: "\n").contains
        {
            $0.contains("FLOCK") && $0.contains(":\(status.st_ino) ")
        }
        return Unfinished(since: since, isRunning: isRunning)
    }

    private static func path(_ profile: String, _ directories: HostDirectories) -> String {
        "\(directories.state)/runs/\(directories.placeName(profile)).lock"
    }

    private static func since(_ path: String) -> Timestamp? {
        (try? LocalFile.read(path, maximumBytes: 4096)).flatMap { $0 }
            .flatMap { JSONValue(parsing: $0) }?["since"]?.timestamp
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
            let holder = (try? LocalFile.read(path, maximumBytes: 4096)).flatMap { bytes in
                bytes.flatMap { JSONValue(parsing: $0) }
            }
            _ = csys_close(descriptor)
            let since = holder?["since"]?.timestamp.map { " since \(TimeText.person($0))" } ?? ""
            let pid = holder?["pid"]?.count.map { ", process \($0)" } ?? ""
            throw CommandError(
                .running, "profile \(profile) is already running\(since)\(pid)",
                remedy: "wait for it to end; nothing has to be unlocked by hand")
        }
        killedRun = Self.since(path)
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
