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
        if let command {
            return try cut(try ShellOutput.of(command.bytes, purpose: "the passphrase"))
        }
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

    // MARK: Asking

    static var canAsk: Bool {
        var columns: Int32 = 0
        return csys_terminal(0, &columns) == 1 && csys_terminal(2, &columns) == 1
    }

    /// Asks on the terminal, without echo.
    static func ask(_ prompt: String) throws(CommandError) -> [UInt8] {
        Console.shared.flush()
        let text = Array("\(prompt): ".utf8)
        // The question comes once the echo is off: with that, what was typed before is thrown away,
        // and an answer that comes at once must not be.
        let line = Signals.withoutEcho {
            _ = text.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
            return readLine()
        }
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
