import Glibc
import SnapshotModel

/// The shell, for commands of the user's.
enum ShellOutput {
    /// What a command prints, run by the shell.
    ///
    /// - Parameter purpose: What it is to print, for errors.
    static func of(_ line: [UInt8], purpose: String) throws(CommandError) -> [UInt8] {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else {
            throw CommandError(.failed, "cannot make a pipe: \(String(cString: strerror(errno)))")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        posix_spawn_file_actions_addclose(&actions, ends[0])
        posix_spawn_file_actions_addclose(&actions, ends[1])
        let words = [Array("sh".utf8), Array("-c".utf8), line].map { word in
            word.withCString { strdup($0) }
        }
        defer { for word in words { free(word) } }
        var process = pid_t()
        let started = posix_spawn(&process, "/bin/sh", &actions, nil, words + [nil], environ)
        close(ends[1])
        defer { close(ends[0]) }
        guard started == 0 else {
            throw CommandError(
                .failed, "cannot start /bin/sh: \(String(cString: strerror(started)))")
        }
        let bytes = try? HostFile.readAll(ends[0], maximumBytes: 1 << 20)
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        guard status == 0, let bytes else {
            throw CommandError(
                .wrongKey, "the command for \(purpose) failed: \(UTF8Text.display(line))",
                remedy: "run it by hand to see why; it must print \(purpose) and exit with 0")
        }
        return bytes
    }

    /// Whether the shell could run the line: it is read and not run.
    static func isUnderstood(_ line: [UInt8]) -> Bool {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for descriptor: Int32 in 0...2 {
            posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
        }
        let words = [Array("sh".utf8), Array("-n".utf8), Array("-c".utf8), line].map { word in
            word.withCString { strdup($0) }
        }
        defer { for word in words { free(word) } }
        var process = pid_t()
        guard posix_spawn(&process, "/bin/sh", &actions, nil, words + [nil], environ) == 0 else {
            return false
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        return status == 0
    }
}
