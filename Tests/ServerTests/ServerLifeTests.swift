import Glibc
import TestSupport
import Testing

@Suite("Test servers")
struct ServerLifeTests {
    @Test(
        "Started, each server tells what a client needs; stopped, nothing of it is left",
        arguments: [
            TestServer.Kind.openSSH, .asyncSSH, .rclone, .moto, .strictS3,
        ])
    func life(kind: TestServer.Kind) throws {
        let server = try available { try TestServer(kind) }
        let isS3 = server.environment["S3_ENDPOINT"] != nil
        let names =
            isS3
            ? ["S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_REGION"]
            : ["SFTP_HOST", "SFTP_PORT", "SFTP_USER", "SFTP_PATH", "SFTP_SSH_CONFIG"]
        for name in names { #expect(server.environment[name]?.isEmpty == false, "\(name)") }
        let state = server.state.path
        #expect(Processes.naming(state).count >= 2, "a supervisor and its server")
        server.stop()
        #expect(Processes.naming(state) == [])
    }
}

/// What `body` starts, or the test ends here and says what this machine lacks.
func available<T>(_ body: () throws -> T) throws -> T {
    do {
        return try body()
    } catch let lack as TestServer.Unavailable {
        try Test.cancel("\(lack)")
    }
}

/// What runs on this machine.
enum Processes {
    /// The command lines of those that name `text`, such as the state directory of a server, in
    /// their arguments or their environment.
    static func naming(_ text: String) -> [String] {
        guard let directory = opendir("/proc") else { return [] }
        defer { closedir(directory) }
        var found: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard Int(name) != nil else { continue }
            let line = read("/proc/\(name)/cmdline")
            if line.contains(text) || read("/proc/\(name)/environ").contains(text) {
                found.append(line)
            }
        }
        return found
    }

    private static func read(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer[..<count].map { $0 == 0 ? 32 : $0 }, as: UTF8.self)
    }
}
