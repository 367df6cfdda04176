import BundleFormat
package import FileTree
package import SnapshotModel
package import SnapshotRepository

/// Content that comes from a program instead of a file.
package enum StreamSource: Sendable {
    /// Read from an open descriptor until it ends.
    case descriptor(Int32, name: [UInt8])
    /// Read from a program's standard output; where the program fails nothing is committed.
    case command([String], name: [UInt8])

    var name: [UInt8] {
        switch self {
        case .descriptor(_, let name), .command(_, let name): name
        }
    }
}

/// What a backup is to do.
package struct BackupOptions: Sendable {
    package var roots: [SourceRoot] = []
    package var walk = WalkOptions()
    package var host: String
    /// Name and version, for the snapshot.
    package var program: String
    package var tags: [String] = []
    package var description: String?
    /// The snapshot's time, where it is not the time at which the run begins.
    package var time: Timestamp?
    /// zstd level of content.
    package var level = BundleLimits.defaultLevel
    /// Threads that read, hash and compress.
    package var readers = 2
    // What change detection is not to look at.
    package var ignoresInode = false
    package var ignoresCtime = false
    package var ignoresMtime = false
    /// Trusts nothing but content.
    package var rehash = false
    /// Reads and counts, stores nothing.
    package var dryRun = false
    package var checkpointSeconds = Limits.checkpointSeconds
    /// Compressed content at which a bundle closes.
    package var bundleBytes = BundleLimits.bundleBytes
    package var uploads = UploadLimits.local
    /// Goes into the snapshot as it is.
    package var recordedOptions = JSONValue.object([])
    package var stream: StreamSource?

    package init(host: String, program: String) {
        self.host = host
        self.program = program
    }
}

/// How a backup went.
package struct BackupReport: Sendable {
    /// Without a name in a dry run.
    package var snapshot: Snapshot
    package var statistics: SnapshotStatistics
    /// The first thousand; all of them are in the snapshot.
    package var problems: [SnapshotProblem]
    package var problemCount: Int
    /// Whether the last manifest of these roots was in this host's cache.
    package var hadCache: Bool
    /// Bundles that an interrupted run had stored and this one used.
    package var resumedBundles: Int
    package var notes: [String]
    /// Names of snapshots that this host committed and that are gone without being forgotten: the
    /// repository has been rolled back.
    package var vanished: [String] = []
    /// How it ended on each store of the repository, the leading one first.
    package var stores: [StoreOutcome] = []

    /// Whether something was left out, a file or a store, or is gone.
    package var isPartial: Bool {
        problemCount > 0 || !vanished.isEmpty || stores.contains { $0.failure != nil }
    }
}

/// A further store of the repository that a backup goes to.
package struct ReplicaTarget: Sendable {
    package let repository: Repository
    package let uploads: UploadLimits

    package init(_ repository: Repository, uploads: UploadLimits) {
        self.repository = repository
        self.uploads = uploads
    }
}
