import Synchronization

/// Decides whether a host that is reached without ssh is the right one, and remembers what it
/// presented, for the message.
final class HostKeyJudgement: Sendable {
    private struct State {
        var verdict = KnownHosts.Verdict.unknown
        var key: [UInt8] = []
        /// Accepted in this run; other connections of it must meet the same.
        var accepted: [UInt8]?
        var failure: StorageError?
    }

    private let known: KnownHosts
    private let location: SFTPLocation
    /// Where a new key is written; nil where none is accepted.
    private let file: String?
    private let state = Mutex(State())

    init(_ known: KnownHosts, _ location: SFTPLocation, rememberingIn file: String?) {
        self.known = known
        self.location = location
        self.file = file
    }

    /// Judges the key of one connection.
    func trusts(_ key: [UInt8]) -> Bool {
        state.withLock { state in
            state.key = key
            if let accepted = state.accepted { return accepted == key }
            state.verdict = known.judge(key, of: location.host, port: location.port)
            guard state.verdict != .trusted else { return true }
            guard state.verdict == .unknown, let file else { return false }
            let subject = StorageSubject(
                operation: .open, key: nil, location: location.description)
            do throws(StorageError) {
                try KnownHosts.remember(
                    key, of: location.host, port: location.port, in: file, subject)
                state.accepted = key
                return true
            } catch {
                state.failure = error
                return false
            }
        }
    }

    /// Why the host was not trusted.
    func failure(_ subject: StorageSubject) -> StorageError? {
        state.withLock { state in
            if let failure = state.failure { return failure }
            let kind = KnownHosts.kind(of: state.key) ?? "unknown"
            let fingerprint = KnownHosts.fingerprint(of: state.key)
            let (cause, hint): (String, String)
            switch state.verdict {
            case .trusted where state.accepted == nil: return nil
            case .unknown where state.accepted == nil:
                cause = "the host is not known; its \(kind) key has the fingerprint \(fingerprint)"
                hint =
                    "compare it with the server's own (ssh-keygen -lf on its host key); if they"
                    + " agree, run this again with --accept-new-host-key"
            case .revoked:
                cause = "the host's key \(fingerprint) has been revoked"
                hint = "ask whoever runs the server; nothing was sent to it"
            case .different(let kinds) where !kinds.contains(kind):
                cause =
                    "the host is known by its \(kinds.joined(separator: " and ")) key alone, and"
                    + " presents the \(kind) key \(fingerprint)"
                hint =
                    "if that is the server's too, add it to known_hosts: ssh-keyscan -t"
                    + " \(kind.replacing("ssh-", with: "")) HOST"
            case .trusted, .unknown, .different:
                cause = "the host has another key than before: \(kind) \(fingerprint)"
                hint =
                    "find out why; if the server was set up anew, remove the old key with"
                    + " `ssh-keygen -R HOST`"
            }
            return StorageError(
                .untrusted, subject.operation, location: subject.location, cause: cause, hint: hint)
        }
    }
}
