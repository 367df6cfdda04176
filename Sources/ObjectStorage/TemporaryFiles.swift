import CSystem
import Glibc
import Synchronization

/// The files of a directory store that are still being written, in a directory of their own.
///
/// A name is `HOST-PID-NUMBER-RANDOM`. Whoever writes a file holds a lock on it, which the kernel
/// drops with its process, however that ends: a file that can be locked belongs to nobody. On some
/// network file systems such a lock is seen by its own host only, so what another host seems to
/// have left is taken for abandoned only after a day without a write.
struct TemporaryFiles: Sendable {
    /// Not a legal component of a key, so that no object and no listing ever meets it.
    static let directoryName = "+tmp"

    let directory: Directory
    let operations: any FileOperations

    /// Creates, opens and locks a new file; mode 0600 until it is put.
    func create(_ subject: StorageSubject) throws(StorageError) -> (descriptor: Int32, name: String)
    {
        // Another process that cleans up may catch the file between its creation and its lock; then
        // that file is given up and the next one tried.
        for _ in 0..<100 {
            let name = TemporaryFiles.newName()
            let descriptor = operations.createFile(
                in: directory.descriptor, named: name, mode: 0o600)
            if descriptor == -EEXIST { continue }
            guard descriptor >= 0 else { throw subject.failure(descriptor, "open") }
            let locked = csys_try_lock(descriptor)
            var status = csys_stat()
            let isOurs = csys_fstat(descriptor, &status) == 0 && status.links > 0
            // Where there are no locks nothing is ever cleaned up either, so the file is safe.
            if locked != -EWOULDBLOCK && isOurs { return (descriptor, name) }
            _ = csys_close(descriptor)
        }
        throw subject.failure(.unavailable, "temporary files keep vanishing", isTransient: true)
    }

    /// Removes what processes that no longer live have left. Never fails: what cannot be removed
    /// now is met again at the next opening.
    func removeAbandoned() {
        guard case .success(let entries) = directory.entries() else { return }
        for entry in entries where entry.kind == .file || entry.kind == .unknown {
            guard TemporaryFiles.isOurName(entry.name) else { continue }
            removeIfAbandoned(entry.name)
        }
    }

    private func removeIfAbandoned(_ name: String) {
        let flags = CSYS_O_CLOEXEC | CSYS_O_NOFOLLOW | CSYS_O_NONBLOCK
        // NFS locks exclusively only what is open for writing.
        var descriptor = csys_openat(directory.descriptor, name, flags | O_RDWR, 0)
        if descriptor == -EACCES {
            descriptor = csys_openat(directory.descriptor, name, flags | O_RDONLY, 0)
        }
        guard descriptor >= 0 else { return }
        defer { _ = csys_close(descriptor) }
        guard csys_try_lock(descriptor) == 0 else { return }
        var status = csys_stat()
        guard csys_fstat(descriptor, &status) == 0 else { return }
        let now = csys_realtime_ns() / 1_000_000_000
        let isOfThisHost = name.hasPrefix(TemporaryFiles.host + "-")
        guard isOfThisHost || now - status.mtime_sec > TemporaryFiles.foreignIdleSeconds else {
            return
        }
        _ = operations.unlink(in: directory.descriptor, named: name)
    }

    private static let foreignIdleSeconds: Int64 = 24 * 3600

    private static let counter = Atomic<UInt64>(0)

    private static func newName() -> String {
        var random: UInt32 = 0
        _ = csys_random(&random, 4)
        let number = counter.wrappingAdd(1, ordering: .relaxed).newValue
        return "\(host)-\(getpid())-\(number)-\(String(random, radix: 16))"
    }

    private static func isOurName(_ name: String) -> Bool {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0].count == 16 && parts[0].allSatisfy(\.isHexDigit)
            && UInt32(parts[1]) != nil && UInt64(parts[2]) != nil
            && UInt32(parts[3], radix: 16) != nil
    }

    /// Tells hosts apart: a hash of the machine id, or where there is none of the boot id, which
    /// all containers of one kernel share, as they share its locks.
    static let host: String = {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for path in ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"] {
            let file = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
            guard file >= 0 else { continue }
            defer { _ = csys_close(file) }
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = csys_pread(file, &bytes, bytes.count, 0)
            guard count >= 32 else { continue }
            for byte in bytes[..<count] { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            break
        }
        let digits = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }()
}
