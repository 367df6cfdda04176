import CSystem
import Glibc

/// The temporary files of an SFTP store: their names, and which of them are to be removed.
///
/// They lie in `+tmp/`, which is no legal component of a key. A name is
/// `sftp-MACHINE-PID-START-RANDOM`: whose process made it can be told on the machine that ran it,
/// and no directory store that opens the same place on the server takes it for its own.
struct SFTPTemporaries: Sendable {
    /// Files of this process that a lost connection kept from being removed.
    var left: [String] = []
    /// Whether it has been looked for files of dead processes.
    var isCleaned = false

    static let directoryName = "+tmp"

    /// A name that nobody has used.
    static func newName() -> String {
        var random: UInt64 = 0
        _ = csys_random(&random, 8)
        return "\(directoryName)/\(prefix)\(String(random, radix: 16))"
    }

    /// Whether a file of this name, last written at `modified`, belongs to nobody any more.
    ///
    /// - Parameter now: Seconds since 1970 by the server's clock, as `modified` is.
    static func isAbandoned(_ name: String, modified: Int64, now: Int64) -> Bool {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[0] == "sftp", parts[1].count == 16,
            parts[1].allSatisfy(\.isHexDigit),
            let process = pid_t(parts[2]), let start = UInt64(parts[3]),
            UInt64(parts[4], radix: 16) != nil
        else { return false }
        if parts[1] == machine { return startTime(of: process) != start }
        return now - modified > foreignIdleSeconds
    }

    /// What another machine has not written to for so long, it will not write to again: no pause
    /// between two pieces of one object is that long.
    private static let foreignIdleSeconds: Int64 = 24 * 3600

    private static let prefix = "sftp-\(machine)-\(getpid())-\(startTime(of: getpid()) ?? 0)-"

    /// Tells kernels and their namespaces of process numbers apart: where this is the same, so is
    /// the meaning of a process number.
    private static let machine: String = {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func add(_ bytes: some Sequence<UInt8>) {
            for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        }
        add(contents(of: "/etc/machine-id"))
        add(contents(of: "/proc/sys/kernel/random/boot_id"))
        var link = [CChar](repeating: 0, count: 64)
        let count = csys_readlinkat(AT_FDCWD, "/proc/self/ns/pid", &link, link.count)
        if count > 0 { add(link[..<count].map(UInt8.init(bitPattern:))) }
        let digits = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }()

    /// When a process was started, in ticks since the start of the kernel; nil where there is none.
    private static func startTime(of process: pid_t) -> UInt64? {
        let status = String(decoding: contents(of: "/proc/\(process)/stat"), as: UTF8.self)
        // The name of the program, in parentheses, may hold anything.
        guard let close = status.lastIndex(of: ")") else { return nil }
        let fields = status[close...].split(separator: " ")
        return fields.count > 20 ? UInt64(fields[20]) : nil
    }

    private static func contents(of path: String) -> [UInt8] {
        let file = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        guard file >= 0 else { return [] }
        defer { _ = csys_close(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = csys_pread(file, &bytes, bytes.count, 0)
        return count > 0 ? Array(bytes[..<count]) : []
    }
}

/// What the server's clock was when ours was something else.
struct SFTPClock: Sendable {
    /// The server's seconds since 1970 less our seconds since the start of the kernel.
    let offset: Int64
    /// Our seconds since the start of the kernel when it was found.
    let measured: Int64

    /// A clock that runs through suspend.
    static var now: Int64 { csys_boottime_ns() / 1_000_000_000 }
    /// For so long a server's clock is taken to go on as it did; then it is asked again, since
    /// somebody may have set it.
    static let validSeconds: Int64 = 300
}
