import CSystem
import Glibc
import Replication
import SnapshotModel

/// How one command of a hook ended.
struct HookOutcome: Sendable {
    enum Ending: Sendable, Equatable {
        case code(Int32)
        case signal(Int32)
        /// It ran longer than it may and was ended.
        case timedOut
        /// The run was asked to stop while it ran.
        case stopped
        case notStarted(String)
    }

    let line: String
    let ending: Ending
    /// What it printed, to both outputs; of much, the beginning and the end.
    let output: [UInt8]
    let milliseconds: Int

    var isGood: Bool { ending == .code(0) }

    /// What went wrong, as the second half of a sentence that begins with the command.
    var failure: String {
        switch ending {
        case .code(let code): "ended with code \(code)"
        case .signal(let signal): "was ended by signal \(signal)"
        case .timedOut: "ran longer than it may and was ended"
        case .stopped: "was ended because the run was asked to stop"
        case .notStarted(let why): "could not be started: \(why)"
        }
    }
}

/// Runs the commands of hooks by the shell, each in a process group of its own, so that all of what
/// it started ends with it.
struct HookRunner {
    let timeLimitSeconds: Int
    /// Added to the environment of this process.
    let environment: [String: String]
    let cancellation: Cancellation

    private static let outputBytes = 64 << 10
    /// How long a command may take to end after it was asked to.
    private static let mercySeconds: Int64 = 10

    /// Runs the lines one after another, to the first that fails.
    func run(_ lines: [String]) -> [HookOutcome] {
        var outcomes: [HookOutcome] = []
        for line in lines {
            let outcome = run(line)
            outcomes.append(outcome)
            guard outcome.isGood else { break }
        }
        return outcomes
    }

    private func run(_ line: String) -> HookOutcome {
        let began = HostClock.monotonic
        func ended(_ ending: HookOutcome.Ending, _ output: OutputTail = OutputTail()) -> HookOutcome
        {
            HookOutcome(
                line: line, ending: ending, output: output.bytes,
                milliseconds: Int((HostClock.monotonic - began) / 1_000_000))
        }
        var ends: [Int32] = [0, 0]
        let piped = csys_pipe(&ends)
        guard piped == 0 else { return ended(.notStarted(String(cString: strerror(-piped)))) }
        defer { close(ends[0]) }
        let (pid, failed) = spawn(line, output: ends[1])
        close(ends[1])
        guard failed == 0 else { return ended(.notStarted(String(cString: strerror(failed)))) }

        var output = OutputTail()
        var deadline = began + Int64(timeLimitSeconds) * 1_000_000_000
        var verdict: HookOutcome.Ending?
        var isOpen = true
        while true {
            if isOpen { isOpen = output.read(ends[0], milliseconds: 100) } else { usleep(50_000) }
            var status: Int32 = 0
            let waited = waitpid(pid, &status, WNOHANG)
            if waited == pid || (waited < 0 && errno != EINTR) {
                // What it left running in the background keeps the pipe; it is not waited for.
                while isOpen, output.read(ends[0], milliseconds: 0, onlyIfReady: true) {}
                if verdict != nil { kill(-pid, SIGKILL) }
                let signal = status & 0x7F
                return ended(
                    verdict ?? (signal != 0 ? .signal(signal) : .code(status >> 8 & 0xFF)), output)
            }
            let now = HostClock.monotonic
            if verdict == nil, now > deadline || cancellation.isCancelled {
                verdict = now > deadline ? .timedOut : .stopped
                kill(-pid, SIGTERM)
                deadline = now + Self.mercySeconds * 1_000_000_000
            } else if verdict != nil, now > deadline {
                kill(-pid, SIGKILL)
            }
        }
    }

    private func spawn(_ line: String, output: Int32) -> (pid: pid_t, error: Int32) {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, output, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        posix_spawnattr_setpgroup(&attributes, 0)
        var words: [UnsafeMutablePointer<CChar>?] = []
        for word in ["/bin/sh", "-c", line] { words.append(strdup(word)) }
        words.append(nil)
        var variables = inherited()
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) {
            variables.append(strdup("\(name)=\(value)"))
        }
        variables.append(nil)
        defer {
            for word in words { free(word) }
            for variable in variables { free(variable) }
        }
        var pid: pid_t = 0
        let failed = posix_spawn(&pid, "/bin/sh", &actions, &attributes, words, variables)
        return (pid, failed)
    }

    /// This process's environment without what the hook's own replaces, and without the passphrase,
    /// which is nobody's business but the run's.
    private func inherited() -> [UnsafeMutablePointer<CChar>?] {
        var kept: [UnsafeMutablePointer<CChar>?] = []
        var next = environ
        while let variable = next.pointee {
            let name = String(cString: variable).prefix { $0 != "=" }
            if environment[String(name)] == nil, !name.hasPrefix("BATCHSYNC_PASSPHRASE") {
                kept.append(strdup(variable))
            }
            next += 1
        }
        return kept
    }

    /// The beginning and the end of what a command prints.
    private struct OutputTail {
        private var head: [UInt8] = []
        private var tail: [UInt8] = []
        private var dropped = 0

        var bytes: [UInt8] {
            guard dropped > 0 else { return head + tail }
            return head + Array("\n[\(dropped) bytes left out]\n".utf8) + tail
        }

        /// Takes what is there, waiting for it a while. False at the end.
        mutating func read(
            _ descriptor: Int32, milliseconds: Int32, onlyIfReady: Bool = false
        ) -> Bool {
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, milliseconds) > 0 else { return !onlyIfReady }
            var buffer = [UInt8](repeating: 0, count: 16 << 10)
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            guard count > 0 else { return count < 0 && errno == EINTR }
            for byte in buffer[..<count] {
                if head.count < HookRunner.outputBytes / 2 {
                    head.append(byte)
                } else {
                    tail.append(byte)
                }
            }
            let excess = tail.count - HookRunner.outputBytes / 2
            if excess > 0 {
                tail.removeFirst(excess)
                dropped += excess
            }
            return true
        }
    }
}
