import CSystem
import Glibc
import SnapshotModel
import SnapshotRepository

/// Sees to it that a profile runs once at a time on this host. The kernel ends it with the process,
/// however that ends.
final class RunLock {
    private let descriptor: Int32

    /// - Throws: Exit code 5 where another process runs the profile, with its number and since when.
    init(profile: String, directories: HostDirectories) throws {
        let folder = "\(directories.state)/runs"
        try LocalFile.makeDirectory(folder)
        let path = "\(folder)/\(directories.placeName(profile)).lock"
        descriptor = csys_open(path, O_RDWR | O_CREAT | CSYS_O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw CommandError(
                .failed, "\(path): \(String(cString: strerror(-descriptor)))",
                remedy: "check the state directory")
        }
        guard csys_try_lock(descriptor) == 0 else {
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
        let words = JSONValue.object([
            ("pid", .count(Int(getpid()))), ("since", .string(Assembly.now.text)),
        ]).bytes
        _ = csys_ftruncate(descriptor, 0)
        _ = words.withUnsafeBytes { csys_pwrite(descriptor, $0.baseAddress, $0.count, 0) }
    }

    deinit { _ = csys_close(descriptor) }
}
