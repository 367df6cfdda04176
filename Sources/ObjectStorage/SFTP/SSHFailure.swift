import Glibc

/// Why a server cannot be reached by ssh, or a connection to it has ended.
struct SSHFailure: Error {
    var kind: StorageError.Kind
    var cause: String
    var isTransient = false
    var isOverload = false
    var hint: String?

    /// What a call of the kernel's said.
    static func system(_ code: Int32, _ call: String) -> SSHFailure {
        let error = StorageError.system(code, call, .open, location: "")
        return SSHFailure(kind: error.kind, cause: error.cause, isTransient: error.isTransient)
    }

    /// The command cannot be started at all.
    static func cannotStart(_ program: String, _ code: Int32) -> SSHFailure {
        let why = strerror(code).map { String(cString: $0) } ?? "error \(code)"
        return SSHFailure(
            kind: .unavailable, cause: "cannot start \(program): \(why)",
            hint: "install the OpenSSH client, or name another command by --ssh-command")
    }

    /// The server sent what no SFTP server sends.
    static func malformed(_ what: String) -> SSHFailure {
        SSHFailure(
            kind: .io, cause: "the server does not speak SFTP as it should: \(what)",
            hint: "look at the server's log; `batchsync store check` examines the server")
    }

    /// Nothing has come or gone for too long.
    static func stalled(seconds: Int) -> SSHFailure {
        SSHFailure(
            kind: .unavailable, cause: "the server has not answered for \(seconds) seconds",
            isTransient: true, hint: "look at the line and the server, then try again")
    }

    /// Says what it means that the connection has ended, from what ssh said last.
    ///
    /// ssh exits with 255 whatever went wrong, so only its words tell one failure from another; they
    /// are English in every locale. Words that are not known count as a passing trouble where a
    /// connection had been there, and as a lasting one where it never was.
    static func ended(
        saying lines: [String], exitCode: Int32?, wasConnected: Bool
    ) -> SSHFailure {
        let said = lines.filter { !isOrnament($0) }
        let text = said.joined(separator: "\n").lowercased()
        let last =
            said.last ?? exitCode.map { "ssh ended with exit code \($0)" } ?? "ssh was killed"
        for meaning in meanings where meaning.words.contains(where: { text.contains($0) }) {
            // The last line is often a consequence; the one that has the words is the reason.
            let line = said.last { line in
                meaning.words.contains { line.lowercased().contains($0) }
            }
            return SSHFailure(
                kind: meaning.kind, cause: line ?? last, isTransient: meaning.isTransient,
                isOverload: meaning.isOverload, hint: meaning.hint)
        }
        return SSHFailure(
            kind: .unavailable,
            cause: wasConnected ? "the connection was lost: \(last)" : last,
            isTransient: wasConnected,
            hint: "see whether `sftp` reaches the server by the same address")
    }

    private struct Meaning {
        let words: [String]
        let kind: StorageError.Kind
        var isTransient = false
        var isOverload = false
        let hint: String
    }

    /// The first that fits holds, so what is a reason stands before what is its consequence.
    private static let meanings = [
        Meaning(
            words: ["remote host identification has changed", "host key has changed"],
            kind: .untrusted,
            hint: "find out why the server has another key; if it was set up anew, remove the old "
                + "one with `ssh-keygen -R HOST` and connect once with ssh"),
        Meaning(
            words: ["host key verification failed", "host key is known for"], kind: .untrusted,
            hint:
                "connect once with ssh and compare the key's fingerprint with the server's own, or "
                + "trust whatever key it shows now by --accept-new-host-key"),
        Meaning(
            words: ["permission denied (", "too many authentication failures"], kind: .denied,
            hint: "let the server accept a key of this user (ssh-copy-id), or give ssh the right "
                + "one by --ssh-command \"ssh -i FILE\""),
        Meaning(
            words: ["subsystem request failed"], kind: .unsupported,
            hint: "let the server offer SFTP: `Subsystem sftp internal-sftp` in its sshd_config"),
        Meaning(
            words: [
                "exceeded maxstartups", "kex_exchange_identification",
                "ssh_exchange_identification",
            ],
            kind: .unavailable, isTransient: true, isOverload: true,
            hint: "the server takes no further connection now; try again later"),
        Meaning(
            words: ["open failed", "session open refused"], kind: .unavailable, isTransient: true,
            isOverload: true,
            hint: "the server takes no further session now (MaxSessions); try again later"),
        Meaning(
            words: ["temporary failure in name resolution"], kind: .unavailable, isTransient: true,
            hint: "look at this host's network, then try again"),
        // A line that is down can look like this as well: the name server may be the router's own.
        Meaning(
            words: ["could not resolve hostname", "no address associated with"], kind: .unavailable,
            isTransient: true,
            hint: "check the host's name in the address, and this host's network"),
        Meaning(
            words: [
                "connection refused", "connection timed out", "no route to host",
                "network is unreachable", "connection reset", "connection closed",
                "connection to", "timeout, server", "broken pipe", "client_loop",
            ],
            kind: .unavailable, isTransient: true,
            hint: "see whether the server is up and its port open, then try again"),
    ]

    /// The frame that ssh draws round a warning, and its talk about its own doings.
    private static func isOrnament(_ line: String) -> Bool {
        let trimmed = line.drop { $0 == " " || $0 == "@" }
        return trimmed.isEmpty || line.hasPrefix("debug") || line.hasPrefix("Warning: Permanently")
            || line.hasPrefix("Killed by signal")
    }
}

/// Why a request over SFTP did not do what was asked.
enum SFTPFailure: Error {
    /// The server answered, and refused.
    case refused(SFTPStatus)
    /// No connection can be had.
    case unreachable(SSHFailure)
    /// The connection ended before the answer came: what was asked may have been done.
    case lost(SSHFailure)
    /// Something else than the server failed, or the answer is already known in full.
    case other(StorageError)
}
