import CSystem
import Glibc
import Synchronization

/// An ssh command that runs: its standard input and output are one socket, and what it says on its
/// standard error is kept for messages.
///
/// One thread reads (`receive`, `takeErrors`, `end`); any may send. It is ended by `end`, at the
/// latest when the last reference goes.
final class SSHProcess: Sendable {
    /// Our end of the socket.
    private let socket: Int32
    /// Where its standard error can be read, -1 where nobody speaks there.
    private let errors: Int32
    /// nil where somebody else runs what is behind the socket.
    private let process: pid_t?
    private let state = Mutex(State())

    private struct State {
        var saidErrors: [UInt8] = []
        var errorsHaveEnded = false
        var hasEnded = false
    }

    /// Speaks over a socket that somebody else serves.
    init(adopting socket: Int32) {
        self.socket = socket
        self.errors = -1
        self.process = nil
    }

    /// Starts a command found by the search path.
    init(_ words: [String]) throws(SSHFailure) {
        var ends: [Int32] = [0, 0]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
            throw SSHFailure.system(errno, "socketpair")
        }
        var errorEnds: [Int32] = [0, 0]
        let piped = csys_pipe(&errorEnds)
        guard piped == 0 else {
            _ = csys_close(ends[0])
            _ = csys_close(ends[1])
            throw SSHFailure.system(-piped, "pipe")
        }
        defer {
            _ = csys_close(ends[1])
            _ = csys_close(errorEnds[1])
        }
        var started = pid_t()
        let result = SSHProcess.spawn(words, over: ends[1], errors: errorEnds[1], &started)
        guard result == 0 else {
            _ = csys_close(ends[0])
            _ = csys_close(errorEnds[0])
            throw SSHFailure.cannotStart(words[0], result)
        }
        // Only the reading of errors never waits: an answer does, in poll.
        _ = fcntl(errorEnds[0], F_SETFL, O_NONBLOCK)
        socket = ends[0]
        errors = errorEnds[0]
        process = started
    }

    deinit {
        _ = end(waitMilliseconds: 0)
        _ = csys_close(socket)
        if errors >= 0 { _ = csys_close(errors) }
    }

    private static func spawn(
        _ words: [String], over socket: Int32, errors: Int32, _ started: inout pid_t
    ) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, socket, 0)
        posix_spawn_file_actions_adddup2(&actions, socket, 1)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // Ctrl-C and a service's stop reach every process of the group. A run that is asked to stop
        // still stores its checkpoint, over this very connection, so ssh must not hear them; it
        // ends when its input does.
        var blocked = sigset_t()
        sigemptyset(&blocked)
        sigaddset(&blocked, SIGINT)
        sigaddset(&blocked, SIGTERM)
        posix_spawnattr_setsigmask(&attributes, &blocked)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        return posix_spawnp(&started, words[0], &actions, &attributes, &arguments, environ)
    }

    // MARK: - Sending

    /// Sends both buffers, waiting as long as it takes. False where nobody reads any more.
    func send(_ head: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer) -> Bool {
        var sent = 0
        while sent < head.count + body.count {
            let first = UnsafeRawBufferPointer(rebasing: head[min(sent, head.count)...])
            let second = UnsafeRawBufferPointer(rebasing: body[max(0, sent - head.count)...])
            let count = SSHProcess.sendSome(socket, first, second)
            if count < 0 {
                if errno == EINTR { continue }
                return false
            }
            sent += count
        }
        return true
    }

    private static func sendSome(
        _ socket: Int32, _ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer
    ) -> Int {
        withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { parts in
            parts.initializeElement(
                at: 0,
                to: iovec(
                    iov_base: UnsafeMutableRawPointer(mutating: first.baseAddress),
                    iov_len: first.count))
            parts.initializeElement(
                at: 1,
                to: iovec(
                    iov_base: UnsafeMutableRawPointer(mutating: second.baseAddress),
                    iov_len: second.count))
            var message = msghdr()
            message.msg_iov = parts.baseAddress
            message.msg_iovlen = 2
            return sendmsg(socket, &message, Int32(MSG_NOSIGNAL))
        }
    }

    /// Ends what is sent: the other side sees the end of its input.
    func finishSending() { _ = shutdown(socket, Int32(SHUT_WR)) }

    /// Ends both directions: whoever sends or receives here is woken and told so.
    func disconnect() { _ = shutdown(socket, Int32(SHUT_RDWR)) }

    // MARK: - Receiving

    enum Received {
        case bytes(Int)
        case ended
        /// Nothing has come for as long as the caller wanted to wait.
        case nothing
    }

    /// Receives what is there into `buffer`, waiting at most so long for the first byte. Keeps what
    /// is said on standard error meanwhile.
    func receive(
        into buffer: UnsafeMutableRawBufferPointer, waitMilliseconds: Int32
    ) -> Received {
        while true {
            let count = recv(
                socket, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
            if count > 0 { return .bytes(count) }
            if count == 0 { return .ended }
            if errno == EINTR { continue }
            guard errno == EAGAIN else { return .ended }
            let listens = errors >= 0 && !state.withLock { $0.errorsHaveEnded }
            var descriptors = [pollfd(fd: socket, events: Int16(POLLIN), revents: 0)]
            if listens { descriptors.append(pollfd(fd: errors, events: Int16(POLLIN), revents: 0)) }
            let ready = poll(&descriptors, nfds_t(descriptors.count), waitMilliseconds)
            if ready == 0 { return .nothing }
            if listens, descriptors[1].revents != 0 { readErrors() }
        }
    }

    private func readErrors() {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(errors, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            state.withLock { state in
                if count > 0 {
                    state.saidErrors += buffer[..<count]
                    let excess = state.saidErrors.count - SSHProcess.keptErrorBytes
                    if excess > 0 { state.saidErrors.removeFirst(excess) }
                } else if count == 0 || errno != EAGAIN {
                    state.errorsHaveEnded = true
                }
            }
            if count <= 0 { return }
        }
    }

    /// The lines said on standard error so far, the last few kilobytes of them.
    var saidErrors: [String] {
        state.withLock { $0.saidErrors }
            .split { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }
            .map { printable($0) }
    }

    /// Enough for ssh's longest warning, and nothing that a chatty server could fill memory with.
    private static let keptErrorBytes = 8192

    // MARK: - Ending

    /// Ends both directions, waits so long for the command to end by itself, then kills it.
    ///
    /// - Returns: Its exit code; nil where it was killed or is not ours.
    @discardableResult func end(waitMilliseconds: Int) -> Int32? {
        let isFirst = state.withLock { state in
            defer { state.hasEnded = true }
            return !state.hasEnded
        }
        guard isFirst else { return nil }
        disconnect()
        guard let process else { return nil }
        var status: Int32 = 0
        var waited = 0
        while true {
            let ended = waitpid(process, &status, WNOHANG)
            if ended == process || (ended < 0 && errno != EINTR) { break }
            if waited >= waitMilliseconds {
                kill(process, SIGKILL)
                while waitpid(process, &status, 0) < 0, errno == EINTR {}
                break
            }
            usleep(5_000)
            waited += 5
        }
        // What it said last may still lie in the pipe.
        if errors >= 0 { readErrors() }
        return status & 0x7F == 0 ? status >> 8 & 0xFF : nil
    }
}
