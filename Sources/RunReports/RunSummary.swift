package import SnapshotModel

/// How one run of a verb went, in values that a list, a metric, a log or a message is made from.
///
/// Kept in the history for years, so whatever is added to it later is optional.
package struct RunSummary: Sendable, Equatable {
    /// What ran.
    package enum Verb: String, Sendable, CaseIterable {
        /// All that a profile says.
        case run
        case backup
        case verify
        case forget
        case prune
    }

    package enum Outcome: String, Sendable, CaseIterable {
        case success
        /// Done, but something was left out.
        case partial
        /// Damage was found in a repository.
        case damage
        case failure
        /// Somebody stopped it.
        case interrupted
        /// There was nothing to do.
        case skipped

        /// Whether somebody has to look.
        package var isTrouble: Bool { self != .success && self != .skipped }
    }

    package struct Failure: Sendable, Equatable {
        package var message: String
        /// What to do next; may be empty.
        package var remedy: String

        package init(_ message: String, remedy: String = "") {
            self.message = message
            self.remedy = remedy
        }
    }

    package var verb: Verb
    /// Nil where no profile was named.
    package var profile: String?
    /// The host on which it ran.
    package var host: String
    /// Name and version of the program.
    package var program: String
    package var began: Timestamp
    package var milliseconds = 0
    package var outcome = Outcome.success
    package var exitCode = 0
    /// One sentence for people.
    package var text = ""
    /// The snapshot that was made.
    package var snapshot: SnapshotID?
    /// What was backed up.
    package var roots: [[UInt8]] = []
    /// Counts of the backup, by the names that snapshots use.
    package var statistics: [String: Int] = [:]
    /// Files that were not kept whole, or not at all.
    package var problemCount = 0
    package var stores: [StoreSummary] = []
    package var traffic = TrafficSummary()
    /// What went wrong, the reason first.
    package var failures: [Failure] = []
    /// What somebody should know that is no failure of the run, as sentences.
    package var notes: [String] = []

    package init(
        _ verb: Verb, profile: String? = nil, host: String, program: String, began: Timestamp
    ) {
        self.verb = verb
        self.profile = profile
        self.host = host
        self.program = program
        self.began = began
    }

    package var ended: Timestamp {
        Timestamp(
            nanosecondsSince1970: began.nanosecondsSince1970 + Int64(milliseconds) * 1_000_000)
    }

    /// Content bytes read in a second; nil where it was too quick to say.
    package var readBytesPerSecond: Int? { rate(statistics["read_bytes"] ?? 0) }

    /// Bytes that went to the stores in a second; nil where it was too quick to say.
    package var sentBytesPerSecond: Int? { rate(traffic.bytesSent) }

    private func rate(_ bytes: Int) -> Int? {
        guard milliseconds >= 100, bytes > 0 else { return nil }
        return Int(Double(bytes) * 1000 / Double(milliseconds))
    }
}

/// What a run did with one store.
package struct StoreSummary: Sendable, Equatable {
    package var location: String
    /// Why the store has not got what it should have.
    package var failure: String?
    /// Calls at once at which the run settled.
    package var concurrency: Int?
    /// Snapshots and bundles that it lacked and were copied from another store.
    package var broughtSnapshots = 0
    package var copiedBundles = 0
    package var copiedBytes = 0
    package var verified: VerificationSummary?
    package var forgotten = 0
    /// Stored bytes that prune has removed.
    package var freedBytes = 0
    /// What was left undone, as sentences.
    package var notices: [String] = []

    package init(_ location: String) { self.location = location }
}

/// What a verification looked at and found.
package struct VerificationSummary: Sendable, Equatable {
    package var isSound: Bool
    package var findings: Int
    package var bundles: Int
    package var bundleBytes: Int
    package var bundlesRead: Int
    package var bytesRead: Int

    package init(
        isSound: Bool, findings: Int, bundles: Int, bundleBytes: Int, bundlesRead: Int,
        bytesRead: Int
    ) {
        self.isSound = isSound
        self.findings = findings
        self.bundles = bundles
        self.bundleBytes = bundleBytes
        self.bundlesRead = bundlesRead
        self.bytesRead = bytesRead
    }
}

/// What a run asked of its stores.
package struct TrafficSummary: Sendable, Equatable {
    /// How long requests of one kind took.
    package struct Latency: Sendable, Equatable {
        package var count: Int
        package var meanMilliseconds: Int
        /// The longest of them.
        package var maximumMilliseconds: Int

        package init(count: Int, meanMilliseconds: Int, maximumMilliseconds: Int) {
            self.count = count
            self.meanMilliseconds = meanMilliseconds
            self.maximumMilliseconds = maximumMilliseconds
        }
    }

    /// By kind: `put`, `get`, `head`, `list`, `delete`, `other`.
    package var requests: [String: Int] = [:]
    package var bytesSent = 0
    package var bytesReceived = 0
    /// Calls that were made again.
    package var retries = 0
    /// What arrived altered, and came right when it was fetched once more.
    package var altered = 0
    package var latency: [String: Latency] = [:]

    package init() {}

    package var requestCount: Int { requests.values.reduce(0, +) }
}
