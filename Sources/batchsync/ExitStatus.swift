import Replication
import SnapshotRepository

/// The exit codes of every verb. The manual quotes this table.
enum ExitStatus: Int32, CaseIterable, Sendable {
    case done = 0
    case failed = 1
    case partial = 3
    case damaged = 4
    case running = 5
    case noRepository = 10
    case wrongKey = 12
    case usage = 64
    case interrupted = 130
    case terminated = 143

    /// What it means, in a phrase.
    var meaning: String {
        switch self {
        case .done: "done"
        case .failed: "failed; nothing was committed"
        case .partial: "done, but not whole: the summary names what was left out"
        case .damaged: "damage was found in the repository"
        case .running: "the same is already running"
        case .noRepository: "there is no repository at that place"
        case .wrongKey: "a passphrase or key is wrong, missing or not proven"
        case .usage: "the command was not understood"
        case .interrupted: "interrupted (SIGINT)"
        case .terminated: "terminated (SIGTERM)"
        }
    }

    init(_ kind: RepositoryError.Kind) {
        switch kind {
        case .notARepository: self = .noRepository
        case .wrongKey, .noHostKey, .notProven: self = .wrongKey
        case .damaged: self = .damaged
        case .newerFormat, .exists, .storage, .local, .notFound, .refused: self = .failed
        }
    }

    init(_ error: ReplicationError) {
        switch error.kind {
        case .repository(let kind): self.init(kind)
        case .usage: self = .usage
        case .interrupted: self = Signals.statusOfInterruption
        case .files, .command, .outputClosed, .other: self = .failed
        }
    }

    /// The table as the manual shows it, a code a line.
    static var table: String {
        allCases.map { status in
            let code = String(status.rawValue)
            return "    " + code + String(repeating: " ", count: 6 - code.count) + status.meaning
        }.joined(separator: "\n")
    }
}
