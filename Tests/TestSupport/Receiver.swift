import CSystem
import Glibc

/// `receiver.py`, which takes notifications by HTTP and SMTP, for as long as somebody holds it. Its
/// standard input is a pipe of this process, so that it does not outlive it.
package final class Receiver {
    /// The line that names its ports: a JSON object with `http` and `smtp`.
    package let ports: [UInt8]
    private let process: pid_t
    private let input: Int32
    private let output: UnsafeMutablePointer<FILE>

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
        guard let output = fdopen(fromChild[0], "r"), let ports = Self.line(output) else {
            preconditionFailure("receiver.py does not start")
        }
        self.output = output
        self.ports = ports
    }

    deinit {
        _ = csys_close(input)
        var status: Int32 = 0
        waitpid(process, &status, 0)
        fclose(output)
    }

    /// What it has received next, a JSON object; waits for it.
    package func next() -> [UInt8]? { Self.line(output) }

    private static func line(_ stream: UnsafeMutablePointer<FILE>) -> [UInt8]? {
        var buffer: UnsafeMutablePointer<CChar>?
        var capacity = 0
        let count = getline(&buffer, &capacity, stream)
        defer { free(buffer) }
        guard count > 0, let buffer else { return nil }
        return Array(UnsafeRawBufferPointer(start: buffer, count: count))
    }
}
