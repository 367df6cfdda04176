import CSystem
import Glibc

/// Reading what comes from another program.
enum StreamReading {
    /// How long a program may be silent before the reader looks whether it shall stop: a signal may
    /// arrive in any thread, so the wait by itself need not end with it.
    private static let patienceMilliseconds: Int32 = 200

    /// Bytes read, 0 at the end, or the negated errno. Throws where the run was asked to stop, also
    /// at the end: a signal to a whole pipeline ends the writer too, and its half is no content.
    static func read(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer, cancellation: Cancellation
    ) throws(ReplicationError) -> Int {
        while true {
            try cancellation.check()
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = poll(&waiting, 1, patienceMilliseconds)
            if ready == 0 || ready < 0 && errno == EINTR { continue }
            let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            if count < 0, errno == EINTR { continue }
            let code = errno
            try cancellation.check()
            return count >= 0 ? count : -Int(code)
        }
    }
}

/// A program whose standard output is content.
struct CommandStream {
    let descriptor: Int32
    private let pid: pid_t
    private let words: [String]

    init(_ words: [String]) throws(ReplicationError) {
        guard let program = words.first else {
            throw ReplicationError(.usage, "--stdin-from-command", "no command is given after '--'")
        }
        var ends: [Int32] = [0, 0]
        let piped = csys_pipe(&ends)
        guard piped == 0 else {
            throw ReplicationError(
                .other, program, "cannot make a pipe: \(String(cString: strerror(-piped)))")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var pid: pid_t = 0
        let result = posix_spawnp(&pid, program, &actions, nil, &arguments, environ)
        for argument in arguments { free(argument) }
        posix_spawn_file_actions_destroy(&actions)
        close(ends[1])
        guard result == 0 else {
            close(ends[0])
            throw ReplicationError(
                .command, program, "cannot be started: \(String(cString: strerror(result)))",
                remedy: "check its name and PATH; nothing was committed")
        }
        descriptor = ends[0]
        self.pid = pid
        self.words = words
    }

    /// Waits for the program; throws where it did not end well.
    func finish() throws(ReplicationError) {
        close(descriptor)
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 {
            guard errno == EINTR else {
                throw ReplicationError(.command, words[0], "cannot be waited for")
            }
        }
        let code = status >> 8 & 0xFF
        let signal = status & 0x7F
        guard signal == 0, code == 0 else {
            let how = signal != 0 ? "was ended by signal \(signal)" : "ended with code \(code)"
            throw ReplicationError(
                .command, words.joined(separator: " "), "\(how); nothing was committed",
                remedy: "run the command by itself to see why")
        }
    }

    /// Ends the program where the backup failed.
    func abandon() {
        close(descriptor)
        kill(pid, SIGTERM)
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
    }
}
