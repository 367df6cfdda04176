import CSystem
import Glibc
import SnapshotModel

/// Where a passphrase comes from. Never from the words of the command line, which every user of the
/// host can read.
struct PassphraseSource {
    let file: PathArgument?
    let command: PathArgument?
    /// The variable that holds it.
    let variable: String
    /// The name of the systemd credential.
    let credential: String

    /// Whether the user named a source on the command line.
    var isNamed: Bool { file != nil || command != nil }

    /// The passphrase from what was named, or from the environment; nil where there is nothing.
    func given() throws(CommandError) -> [UInt8]? {
        if let file {
            return try cut(
                try HostFile.read(file.bytes, purpose: "the passphrase from", maximumBytes: 1 << 20)
            )
        }
        if let command { return try cut(try Self.output(of: command)) }
        if let value = RawArguments.environment(variable) { return value }
        if let directory = RawArguments.environment("CREDENTIALS_DIRECTORY") {
            let path = directory + Array("/\(credential)".utf8)
            if path.withCString({ access($0, F_OK) }) == 0 {
                return try cut(
                    try HostFile.read(path, purpose: "the passphrase from", maximumBytes: 1 << 20))
            }
        }
        return nil
    }

    /// Editors and `echo` end a line; nobody's passphrase does.
    private func cut(_ bytes: [UInt8]) throws(CommandError) -> [UInt8] {
        var bytes = bytes
        if bytes.last == 0x0A { bytes.removeLast() }
        if bytes.last == 0x0D { bytes.removeLast() }
        guard !bytes.isEmpty else {
            throw CommandError(
                .wrongKey, "the passphrase is empty", remedy: "its source holds no text")
        }
        return bytes
    }

    /// What a command prints, run by the shell.
    private static func output(of command: PathArgument) throws(CommandError) -> [UInt8] {
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
        let words = [Array("sh".utf8), Array("-c".utf8), command.bytes].map { word in
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
                .wrongKey, "the command for the passphrase failed: \(command.display)",
                remedy: "run it by hand to see why; it must print the passphrase and exit with 0")
        }
        return bytes
    }

    // MARK: Asking

    static var canAsk: Bool {
        var columns: Int32 = 0
        return csys_terminal(0, &columns) == 1 && csys_terminal(2, &columns) == 1
    }

    /// Asks on the terminal, without echo.
    static func ask(_ prompt: String) throws(CommandError) -> [UInt8] {
        Console.shared.flush()
        let text = Array("\(prompt): ".utf8)
        _ = text.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
        let line = Signals.withoutEcho { readLine() }
        _ = "\n".utf8CString.withUnsafeBytes { write(2, $0.baseAddress, 1) }
        guard let line, !line.isEmpty else {
            throw CommandError(.wrongKey, "the passphrase is empty")
        }
        return line
    }

    /// Asks twice and until both agree: a slip of the finger would lock the repository for good.
    static func askForNew(_ prompt: String) throws(CommandError) -> [UInt8] {
        while true {
            let first = try ask(prompt)
            if first == (try ask("the same again")) { return first }
            Console.shared.say("batchsync: the two differ; once more")
        }
    }

    /// One line of standard input, byte for byte: what comes after it stays there.
    private static func readLine() -> [UInt8]? {
        var line: [UInt8] = []
        while true {
            var byte: UInt8 = 0
            let count = read(0, &byte, 1)
            if count < 0, errno == EINTR { continue }
            guard count == 1 else { return line.isEmpty ? nil : line }
            if byte == 0x0A { return line }
            line.append(byte)
        }
    }
}
