import Glibc
import Synchronization

/// A real server of one of the scripts in `scripts/servers`, on a port of 127.0.0.1 and with a
/// state directory of its own, for as long as somebody holds it.
///
/// Its supervisor watches this process: whatever becomes of a test, no server outlives it.
package final class TestServer: Sendable {
    /// Which script starts it.
    package enum Kind: String, CaseIterable, Sendable {
        case openSSH = "sftp-openssh.sh"
        case asyncSSH = "sftp-asyncssh.py"
        case rclone = "s3-rclone.sh"
        case moto = "s3-moto.sh"
        case strictS3 = "s3-strict.py"
        case ceph = "s3-ceph.sh"
        case faultProxy = "faultproxy.py"
    }

    /// What this machine lacks for a server. A test that needs it is cancelled with this reason.
    package struct Unavailable: Error, CustomStringConvertible {
        package let description: String
    }

    /// A server that should have come up and did not.
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    package let kind: Kind
    /// Where its keys, data and logs lie.
    package let state: TemporaryDirectory
    /// What a client needs to know: the lines that its script prints, such as `S3_ENDPOINT`.
    package let environment: [String: String]
    private let isStopped = Mutex(false)

    /// - Parameter options: Those of the script, which says what they mean.
    /// - Throws: `Unavailable` where the server cannot be had here, `Failure` where it failed.
    package static func start(_ kind: Kind, _ options: String...) throws -> TestServer {
        try TestServer(kind, options)
    }

    /// The same, with the options in an array.
    package init(_ kind: Kind, _ options: [String] = []) throws {
        self.kind = kind
        state = .inMemory()
        let (code, said) = Self.run(kind, "start", state, options)
        guard code == 0 else {
            let reason = "\(kind.rawValue): \(said)"
            if code == 69 { throw Unavailable(description: reason) }
            throw Failure(description: "\(reason) (exit code \(code))")
        }
        environment = Self.values(in: state.read("env") ?? [])
    }

    deinit { stop() }

    /// Ends it and everything it started; returns when all of it is gone. Idempotent.
    package func stop() {
        let isFirst = isStopped.withLock { stopped in
            defer { stopped = true }
            return !stopped
        }
        if isFirst { _ = Self.run(kind, "stop", state, []) }
    }

    /// A line that its script prints; a test that asks for another is wrong.
    package subscript(name: String) -> String {
        guard let value = environment[name] else {
            preconditionFailure("\(kind.rawValue) prints no \(name)")
        }
        return value
    }

    /// Sends one command to its control port and gives the lines of the answer.
    @discardableResult
    package func tell(_ words: String...) -> [String] { tell(words) }

    /// The same, with the words in an array.
    @discardableResult
    package func tell(_ words: [String]) -> [String] {
        let port = UInt16(self["CONTROL_PORT"]) ?? 0
        let answer = exchange(words.joined(separator: " ") + "\n", port: port)
        var lines = answer.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if lines.last == "" { lines.removeLast() }
        precondition(lines.first == "ok", "\(kind.rawValue), told \(words): \(lines.first ?? "")")
        return Array(lines.dropFirst())
    }

    // MARK: - The script

    /// The tree that this file belongs to, wherever a link to it lies.
    private static let scripts: String = {
        guard let resolved = realpath(#filePath, nil) else { return "scripts" }
        defer { free(resolved) }
        let parts = String(cString: resolved).split(separator: "/").dropLast(3)
        return parts.reduce("") { $0 + "/" + $1 } + "/scripts/servers"
    }()

    /// Runs one verb of a script and gives its exit code and what it complained of.
    private static func run(
        _ kind: Kind, _ verb: String, _ state: TemporaryDirectory, _ options: [String]
    ) -> (code: Int32, said: String) {
        let complaints = state.path("complaints")
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_addopen(
            &actions, 2, complaints, O_CREAT | O_TRUNC | O_WRONLY, 0o600)
        var variables = ["BATCHSYNC_SERVER_OWNER=\(getpid())"]
        var next = environ
        while let entry = next.pointee {
            variables.append(String(cString: entry))
            next += 1
        }
        let words = ["\(scripts)/\(kind.rawValue)", verb, state.path] + options
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
        defer { for pointer in arguments + environment { free(pointer) } }
        var pid: pid_t = 0
        let result = posix_spawn(&pid, words[0], &actions, nil, &arguments, &environment)
        guard result == 0 else { return (-1, "\(words[0]) cannot be run: error \(result)") }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        let said = String(decoding: readFile(complaints) ?? [], as: UTF8.self)
        return (status & 0x7F == 0 ? status >> 8 & 0xFF : -1, said.trimmingNewlines)
    }

    private static func values(in text: [UInt8]) -> [String: String] {
        var values: [String: String] = [:]
        for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { values[String(parts[0])] = String(parts[1]) }
        }
        return values
    }
}

/// Sends `request` to a port of this host and gives all that comes back.
private func exchange(_ request: String, port: UInt16) -> String {
    let connection = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    precondition(connection >= 0, "no socket: \(errno)")
    defer { close(connection) }
    var patience = timeval(tv_sec: 60, tv_usec: 0)
    setsockopt(
        connection, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let connected = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            connect(connection, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
    guard connected == 0 else { return "error the control port does not answer: \(errno)" }
    let bytes = Array(request.utf8)
    guard send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
        return "error the control port takes nothing: \(errno)"
    }
    var answer: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = recv(connection, &buffer, buffer.count, 0)
        if count <= 0 { break }
        answer.append(contentsOf: buffer[..<count])
    }
    return String(decoding: answer, as: UTF8.self)
}

extension String {
    fileprivate var trimmingNewlines: String {
        var text = self[...]
        while text.last?.isNewline == true { text.removeLast() }
        return String(text)
    }
}
