import CSystem
import Glibc

/// A program of the system's, run to its end.
enum SystemProgram {
    struct Outcome {
        /// Nil where there is no such program.
        let status: Int32?
        let output: String
        /// What it said on standard error; one line of it is worth telling.
        let complaint: String

        var isGood: Bool { status == 0 }
    }

    /// - Parameter input: What the program reads from standard input.
    static func run(_ words: [String], input: String = "") -> Outcome {
        // Files, not pipes: whoever reads one and not the other would wait for ever.
        guard let inputFile = scratch(input), let output = scratch(""), let errors = scratch("")
        else { return Outcome(status: nil, output: "", complaint: "no temporary file") }
        defer { for file in [inputFile, output, errors] { close(file) } }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, inputFile, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
        let arguments = words.map { (word: String) in strdup(word) }
        defer { for argument in arguments { free(argument) } }
        var process = pid_t()
        guard posix_spawnp(&process, words[0], &actions, nil, arguments + [nil], environ) == 0
        else { return Outcome(status: nil, output: "", complaint: "there is no \(words[0])") }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        let code = status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
        return Outcome(status: code, output: text(output), complaint: text(errors))
    }

    /// A file that goes with its descriptor.
    private static func scratch(_ contents: String) -> Int32? {
        var name = Array("/tmp/batchsync-XXXXXX".utf8CString)
        let file = mkstemp(&name)
        guard file >= 0 else { return nil }
        _ = fcntl(file, F_SETFD, FD_CLOEXEC)
        unlink(name)
        let bytes = Array(contents.utf8)
        guard write(file, bytes, bytes.count) == bytes.count, lseek(file, 0, SEEK_SET) == 0 else {
            close(file)
            return nil
        }
        return file
    }

    private static func text(_ file: Int32) -> String {
        lseek(file, 0, SEEK_SET)
        let bytes = (try? HostFile.readAll(file, maximumBytes: 4 << 20)) ?? []
        return String(decoding: bytes, as: UTF8.self)
    }
}
