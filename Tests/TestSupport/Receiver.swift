import CSystem
import Glibc

/// `receiver.py`, which takes notifications by HTTP and SMTP, for as long as somebody holds it. Its
/// standard input is a pipe of this process, so that it does not outlive it.
package final class Receiver {
    /// The line that names its ports: a JSON object with `http` and `smtp`.
    package let ports: [UInt8]
    private let process: pid_t
    private let input: Int32
    private let output: LineReader

    /// - Parameter options: Those of the script, which says what they mean.
    package init(_ options: [String]) {
        let script = String(#filePath.dropLast("Receiver.swift".count)) + "receiver.py"
        var toChild: [Int32] = [0, 0]
        var fromChild: [Int32] = [0, 0]
        precondition(csys_pipe(&toChild) == 0 && csys_pipe(&fromChild) == 0, "there are no pipes")
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
        let words = (["python3", "-B", script] + options).map { (word: String) in strdup(word) }
        defer { for word in words { free(word) } }
        var process = pid_t()
        let started = posix_spawnp(&process, "python3", &actions, nil, words + [nil], environ)
        precondition(started == 0, "cannot start python3: \(started)")
        _ = csys_close(toChild[0])
        _ = csys_close(fromChild[1])
        self.process = process
        input = toChild[1]
        output = LineReader(fromChild[0])
        guard let ports = output.next() else { preconditionFailure("receiver.py does not start") }
        self.ports = ports
    }

    deinit {
        _ = csys_close(input)
        var status: Int32 = 0
        waitpid(process, &status, 0)
    }

    /// What it has received next, a JSON object; waits for it, a minute at most. Nil where nothing came.
    package func next() -> [UInt8]? { output.next() }

    /// All that it has received since somebody asked last. It notes a message before it answers: who
    /// has its answer is in here.
    package func received() -> [[UInt8]] {
        var lines: [[UInt8]] = []
        while let line = output.nextIfThere() { lines.append(line) }
        return lines
    }
}

/// Lines from a pipe, which it closes.
private final class LineReader {
    private let descriptor: Int32
    private var buffer: [UInt8] = []

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit { _ = csys_close(descriptor) }

    /// Waits for the next line, a minute for each piece of it; nil at the end.
    func next() -> [UInt8]? {
        while true {
            if let line = take() { return line }
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, 60_000) > 0, fill() else { return nil }
        }
    }

    /// The next line where it is there already.
    func nextIfThere() -> [UInt8]? {
        while true {
            if let line = take() { return line }
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, 0) > 0, fill() else { return nil }
        }
    }

    private func take() -> [UInt8]? {
        guard let end = buffer.firstIndex(of: 0x0A) else { return nil }
        let line = Array(buffer[..<end])
        buffer.removeFirst(end + 1)
        return line
    }

    private func fill() -> Bool {
        var piece = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(descriptor, &piece, piece.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            buffer += piece[..<count]
            return true
        }
    }
}
