package import SnapshotModel
import Synchronization

/// The log of a profile's runs: a JSON object a line, for programs that collect logs and for people
/// with `jq`.
///
/// May be used by several threads. A log that cannot be written stops no backup: the first error is
/// kept for whoever asks.
package final class RunLog: Sendable {
    package enum Level: String, Sendable, CaseIterable, Comparable {
        case error, warning, info, debug

        private var rank: Int {
            switch self {
            case .error: 0
            case .warning: 1
            case .info: 2
            case .debug: 3
            }
        }

        package static func < (left: Level, right: Level) -> Bool { left.rank < right.rank }
    }

    package let path: String
    /// What is more talkative than this is not written.
    package let level: Level
    private let rotateAtBytes: Int
    private let profile: String?
    private let now: @Sendable () -> Timestamp
    private let state = Mutex<RunReportError?>(nil)
    private static let keeping = 5

    /// - Parameter rotateAtBytes: A file that has grown to this is put aside as `path.1`; five are
    ///   kept.
    package init(
        path: String, level: Level, rotateAtBytes: Int, profile: String?,
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.path = path
        self.level = level
        self.rotateAtBytes = rotateAtBytes
        self.profile = profile
        self.now = now
    }

    /// Why something could not be written, the first time.
    package var failure: RunReportError? { state.withLock { $0 } }

    /// Whether a line of this level is written.
    package func takes(_ level: Level) -> Bool { level <= self.level }

    /// Writes a line.
    ///
    /// - Parameter event: What happened, one word, by which lines are told apart: `started`,
    ///   `hook`, `problem`, `note`, `ended`.
    /// - Parameter message: A sentence.
    package func write(
        _ level: Level, _ event: String, _ message: String,
        _ fields: [(key: String, value: JSONValue)] = []
    ) {
        guard takes(level) else { return }
        let head: [(key: String, value: JSONValue)] = [
            ("time", .string(now().rfc3339)), ("level", .string(level.rawValue)),
            ("profile", .optionalText(profile)), ("event", .string(event)),
            ("message", .string(message)),
        ]
        let line = JSONValue.object(head + fields).bytes
        // One at a time: the file is locked by descriptor, and threads would wait in the kernel.
        state.withLock { failure in
            guard failure == nil else { return }
            do throws(RunReportError) {
                try ReportFile.append(
                    line, to: path, mode: 0o640, limitBytes: rotateAtBytes, keeping: Self.keeping,
                    isDurable: level == .error || event == "ended")
            } catch {
                failure = error
            }
        }
    }

    /// The end of a run with all that is known of it.
    package func write(_ run: RunSummary) {
        write(
            run.outcome == .success || run.outcome == .skipped
                ? .info : run.outcome == .partial ? .warning : .error,
            "ended", run.text, [("run", run.document)])
    }
}
