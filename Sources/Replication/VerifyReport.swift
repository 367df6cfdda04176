package import SnapshotModel

/// What `Verify` is asked to do.
package struct VerifyOptions: Sendable {
    /// How much of the stored data is read back, the longest-unverified bundles first.
    package enum Share: Sendable, Equatable {
        case everything
        /// Of the stored bytes, 0 to 100.
        case share(percent: Double)
        /// At least so many stored bytes.
        case bytes(Int)
        /// `.fraction(1, of: 30)` each night covers everything in thirty.
        case fraction(Int, of: Int)

        /// Stored bytes to read of `total`.
        package func bytes(of total: Int) -> Int {
            switch self {
            case .everything: total
            case .share(let percent):
                Int((Double(total) * min(max(percent, 0), 100) / 100).rounded(.up))
            case .bytes(let bytes): min(bytes, total)
            case .fraction(let part, let whole):
                whole > 0 ? min((total * part + whole - 1) / whole, total) : total
            }
        }
    }

    /// Nil: structure only.
    package var readData: Share?
    /// Whether the store is to compute SHA-256 sums of all bundles where they lie.
    package var hashesRemotely = false
    /// Name of this host, for the record of what was read.
    package var host: String
    package var now: Timestamp

    package init(readData: Share? = nil, host: String, now: Timestamp) {
        self.readData = readData
        self.host = host
        self.now = now
    }
}

/// One thing that is wrong, or that the user should know.
package struct VerifyFinding: Sendable {
    package enum Kind: String, Sendable, CaseIterable {
        /// `config.json` is not what was opened.
        case config
        case keys
        /// `RECOVER.md` or `recover.py`.
        case recovery
        /// A record cannot be read, authenticated or understood.
        case record
        /// What this host committed last has vanished.
        case vanished
        /// Prune deleted what a snapshot needs that was committed late.
        case incomplete
        /// The index lacks or contradicts something.
        case index
        case bundleMissing = "bundle-missing"
        case bundleSize = "bundle-size"
        case bundleDamaged = "bundle-damaged"
        /// The store failed; nothing is known of the object.
        case unreadable
        /// A piece of a manifest is damaged, or says what cannot be.
        case manifest
        /// A snapshot needs a bundle that is condemned. It is kept as long as it is needed.
        case condemned
    }

    package let kind: Kind
    /// Name of the object concerned, as it lies in the store.
    package let object: String
    /// The second half of a sentence that begins with the object.
    package let message: String
    /// What to do next; empty where there is nothing to say.
    package let remedy: String
    /// False for what is no fault of the repository.
    package let isDamage: Bool
    /// Snapshots that are not whole because of it, the oldest first.
    package var snapshots: [SnapshotID] = []
    /// A file that is not whole in some snapshots.
    package struct HarmedFile: Sendable, Equatable {
        package let path: [UInt8]
        /// The snapshots, the oldest first.
        package let snapshots: [SnapshotID]
    }

    /// Files that are not whole because of it, in path order, up to `pathsKept`; known only with
    /// an owner's identity.
    package var files: [HarmedFile] = []
    /// How many files there are.
    package var fileCount = 0

    /// At most so many files are kept with one finding.
    package static let pathsKept = 1000

    init(
        _ kind: Kind, _ object: String, _ message: String, remedy: String = "",
        isDamage: Bool = true,
        snapshots: [SnapshotID] = []
    ) {
        self.kind = kind
        self.object = object
        self.message = message
        self.remedy = remedy
        self.isDamage = isDamage
        self.snapshots = snapshots
    }

    package var description: String { "\(object): \(message)" }
}

/// What `Verify` has looked at and found.
package struct VerifyReport: Sendable {
    package var findings: [VerifyFinding] = []
    /// Snapshots listed, and those of them that no finding names.
    package var snapshots = 0
    package var soundSnapshots = 0
    /// Records that were read and authenticated.
    package var records = 0
    package var indexRecords = 0
    package var bundles = 0
    package var bundleBytes = 0
    /// Chunks that the index tells of, counted once for each line.
    package var chunks = 0
    /// Bundles that no snapshot needs: from runs in progress, or for prune to remove. No damage.
    package var orphans = 0
    package var orphanBytes = 0
    /// Bundles that were compared with what the store says of their bytes, without being read: by
    /// the MD5 of its listing, by a SHA-256 it keeps, by one it computed now; and those of which it
    /// says nothing.
    package var comparedByMD5 = 0
    package var comparedBySHA256 = 0
    package var computedRemotely = 0
    package var uncompared = 0
    /// Whether manifests were read, so that findings name files.
    package var manifestsRead = false
    package var segments = 0
    package var entries = 0
    /// Bundles read back now, and their stored bytes.
    package var bundlesRead = 0
    package var bytesRead = 0
    /// Whether the bundles that were read were also opened and every chunk hashed.
    package var contentRead = false
    /// Bundles never read back so far, and the oldest time at which one of the others was.
    package var neverRead = 0
    package var neverReadBytes = 0
    package var oldestRead: Timestamp?
    /// Stored bytes by the day since 1970 on which they were last read.
    package var readBytesByDay: [Int: Int] = [:]

    package var isSound: Bool { !findings.contains(where: \.isDamage) }
    package var damagedSnapshots: Int { snapshots - soundSnapshots }
}
