import Glibc
import TestSupport
import Testing

enum Shell {
    /// Runs a command with `input` as its standard input; it must succeed.
    static func output(of command: String, input: [UInt8] = []) throws -> String {
        let directory = TemporaryDirectory()
        directory.write(input, to: "input")
        let pipe = try #require(popen("\(command) < \(directory.path("input"))", "r"))
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = fread(&buffer, 1, buffer.count, pipe)
            if count == 0 { break }
            bytes += buffer[..<count]
        }
        try #require(pclose(pipe) == 0, "\(command) has failed")
        return String(decoding: bytes, as: UTF8.self)
    }
}
