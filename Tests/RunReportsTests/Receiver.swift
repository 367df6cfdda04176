import CSystem
import Glibc
import SnapshotModel
import TestSupport
import Testing

/// `Fixtures/receiver.py` while a test needs it. Its standard input is a pipe of this process, so
/// that it does not outlive it.
final class Receiver {
    let httpPort: Int
    let smtpPort: Int
    private let process: pid_t
    private let input: Int32
    private let output: UnsafeMutablePointer<FILE>

    init(_ options: String...) throws {
        let script =
            String(#filePath.dropLast("/Receiver.swift".count)) + "/Fixtures/receiver.py"
        var toChild: [Int32] = [0, 0]
        var fromChild: [Int32] = [0, 0]
        try #require(csys_pipe(&toChild) == 0 && csys_pipe(&fromChild) == 0)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
        let words = (["python3", "-B", script] + options).map { (word: String) in strdup(word) }
        defer { for word in words { free(word) } }
        var process = pid_t()
        let started = posix_spawnp(&process, "python3", &actions, nil, words + [nil], environ)
        _ = csys_close(toChild[0])
        _ = csys_close(fromChild[1])
        try #require(started == 0)
        self.process = process
        input = toChild[1]
        output = try #require(fdopen(fromChild[0], "r"))
        let ports = try #require(Receiver.line(output))
        httpPort = ports["http"]?.count ?? 0
        smtpPort = ports["smtp"]?.count ?? 0
    }

    deinit {
        _ = csys_close(input)
        var status: Int32 = 0
        waitpid(process, &status, 0)
        fclose(output)
    }

    var http: String { "http://127.0.0.1:\(httpPort)" }
    var smtp: String { "smtp://127.0.0.1:\(smtpPort)" }

    /// What it has received next; waits for it.
    func next() -> JSONValue? { Receiver.line(output) }

    private static func line(_ stream: UnsafeMutablePointer<FILE>) -> JSONValue? {
        var buffer: UnsafeMutablePointer<CChar>?
        var capacity = 0
        let count = getline(&buffer, &capacity, stream)
        defer { free(buffer) }
        guard count > 0, let buffer else { return nil }
        return JSONValue(
            parsing: Array(UnsafeRawBufferPointer(start: buffer, count: count)))
    }
}
