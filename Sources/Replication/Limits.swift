/// Every bound of the program's memory and patience, with its reason.
package enum Limits {
    /// Manifest lines carried over in one part: large enough that handing a part over costs
    /// nothing, small enough to wait for.
    static let partLineBytes = 1 << 20
    /// Files that one part reads, and their bytes: about one frame, so that a frame holds
    /// neighbours.
    static let partItems = 512
    static let partContentBytes = 4 << 20
    /// Parts between the walk and the manifest: bounds what waits for one slow file.
    static let partsInFlight = 24
    /// Frames waiting to be compressed, beside those being filled.
    static let sparesOfFrames = 2
    /// A bundle of so many chunks closes before it is full: what the journal and an index record say of
    /// one is held in memory several times over, and tiny files are many to a bundle.
    static let bundleChunks = 96 << 10
    /// Finished bundles waiting to be stored.
    static let bundlesWaiting = 2
    /// Spool files for a store that is not a directory of this host, beside which reading goes on
    /// while the line is slow.
    package static let spoolBytes = 1 << 30
    /// A file that changes while it is read is read this often before it is kept with a mark.
    static let readAttempts = 3
    /// What is remembered of files with several names until the last of them has come: some
    /// thousand of them.
    static let linkedFileBytes = 8 << 20
    /// Bytes read at once from a large file. At least the largest chunk, so that a cut never
    /// depends on where a read ended.
    static let readBufferBytes = 2 << 20
    /// Chunks whose index lines wait in memory; above, an index record is written.
    static let pendingChunks = 64 << 10
    /// A run that goes on renews its lease at least this often.
    package static let checkpointSeconds = 300
    static let checkpointBytes = 2 << 30
    /// Modification this close to the last reading may have come after it (design: what "unchanged"
    /// means).
    static let racySeconds: Int64 = 2
    /// Of a bundle that prune rewrites, read with one request.
    static let rewriteStepBytes = 8 << 20
    /// Problems are stored in pieces of this size.
    static let problemPieceBytes = 256 << 10
}

/// How many bundles leave at once, and how many may wait for it.
package struct UploadLimits: Sendable {
    /// Threads that store finished bundles; what the store really bears at once is for the store's
    /// own wrapper to find out.
    package var threads: Int
    package var bundlesWaiting: Int
    /// Bytes of finished bundles in spool files. The one being made and one being stored are
    /// allowed in any case.
    package var spoolBytes: Int

    /// A directory is as fast as its disk: one writer, and what waits would only take memory.
    package static let local = UploadLimits(
        threads: 1, bundlesWaiting: Limits.bundlesWaiting, spoolBytes: .max)

    /// A line has latency and moods.
    package static func remote(threads: Int, spoolBytes: Int = Limits.spoolBytes) -> UploadLimits {
        UploadLimits(threads: threads, bundlesWaiting: .max, spoolBytes: spoolBytes)
    }

    package init(threads: Int, bundlesWaiting: Int, spoolBytes: Int) {
        self.threads = threads
        self.bundlesWaiting = bundlesWaiting
        self.spoolBytes = spoolBytes
    }
}
