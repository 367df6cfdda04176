import CSystem
import Glibc
import SnapshotModel
import TestSupport
import Testing

/// The built binary in a world of its own: a directory with keys, cache and state of nobody else,
/// and a shell that finds the command by its name.
struct CommandFixture {
    let directory = TemporaryDirectory()

    /// What a command printed, both streams in the order in which they were written, and its code.
    struct Outcome {
        let output: String
        let status: Int32
    }

    init() {
        directory.write(Array("correct horse battery staple\n".utf8), to: "passphrase")
        directory.write(Array("something else\n".utf8), to: "wrong-passphrase")
    }

    /// `BATCHSYNC_BINARY`, else what was built beside the tests.
    static let binary: String = {
        if let given = getenv("BATCHSYNC_BINARY").map({ String(cString: $0) }), !given.isEmpty {
            return given
        }
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        precondition(count > 0, "/proc is not mounted")
        let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return path[..<(path.lastIndex(of: "/") ?? path.startIndex)] + "/batchsync"
    }()

    /// Runs a line of shell in the directory.
    @discardableResult
    func shell(_ line: String, variables: [String] = []) -> Outcome {
        let folder = String(
            Self.binary[..<(Self.binary.lastIndex(of: "/") ?? Self.binary.startIndex)])
        let environment =
            [
                "PATH=\(folder):/usr/sbin:/usr/bin:/sbin:/bin", "HOME=\(directory.path)", "TZ=UTC",
                "LC_ALL=C.UTF-8",
                "BATCHSYNC_CONFIG_DIR=\(directory.path("host/config"))",
                "BATCHSYNC_CACHE_DIR=\(directory.path("host/cache"))",
                "BATCHSYNC_STATE_DIR=\(directory.path("host/state"))",
            ] + variables
        let result = directory.path(".output-\(UInt32.random(in: 0 ... .max))")
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, result, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        let arguments = ["sh", "-c", "cd '\(directory.path)' || exit 99\n\(line)"]
        let words = arguments.map { (word: String) in strdup(word) }
        let values = environment.map { (value: String) in strdup(value) }
        defer { for word in words + values { free(word) } }
        var process = pid_t()
        let started = withUsualSignals {
            posix_spawn(&process, "/bin/sh", &actions, $0, words + [nil], values + [nil])
        }
        precondition(started == 0, "cannot start a shell: \(started)")
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        let bytes = readFile(result) ?? []
        unlink(result)
        let code = status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
        return Outcome(output: String(decoding: bytes, as: UTF8.self), status: code)
    }

    /// Runs a line that has to succeed.
    @discardableResult
    func succeed(_ line: String, sourceLocation: SourceLocation = #_sourceLocation) -> String {
        let outcome = shell(line)
        #expect(outcome.status == 0, "\(line)\n\(outcome.output)", sourceLocation: sourceLocation)
        return outcome.output
    }

    /// Runs a line that has to end with `status` and to say `words`.
    func expect(
        _ status: Int32, _ line: String, says words: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let outcome = shell(line)
        #expect(
            outcome.status == status, "\(line)\n\(outcome.output)", sourceLocation: sourceLocation)
        for word in words {
            #expect(
                outcome.output.contains(word), "\(line)\n\(outcome.output)",
                sourceLocation: sourceLocation)
        }
    }

    /// A document of `--json`.
    func json(_ line: String, sourceLocation: SourceLocation = #_sourceLocation) -> JSONValue {
        let outcome = shell("\(line) 2>/dev/null")
        guard let value = JSONValue(parsing: Array(outcome.output.utf8)) else {
            Issue.record(
                "\(line) printed no JSON document:\n\(outcome.output)",
                sourceLocation: sourceLocation)
            return .null
        }
        return value
    }

    /// A repository with one snapshot of `data`, which holds a few files.
    func repository() {
        succeed(
            "mkdir -p data/letters && echo hello > data/letters/anna && echo world > data/letters/ben"
        )
        succeed("head -c 300000 /dev/zero | tr '\\0' x > data/large")
        succeed("batchsync init -r repository --passphrase-file passphrase")
        succeed("batchsync backup -r repository data")
    }
}
