package import SnapshotModel
package import SnapshotRepository

/// What a user may ask of a restore.
package struct RestoreOptions: Sendable {
    /// What happens to something that lies in the target already. Directories are always entered.
    package enum IfExists: String, Sendable, CaseIterable {
        /// What differs in size or modification time becomes what the snapshot says.
        case replace
        /// What is there stays as it is; what is missing is restored.
        case keep
        /// As `replace`, but only what the snapshot has newer than the target.
        case newer
        /// Every file that is there and differs is named as a problem, and stays as it is.
        case fail
    }

    /// Nil: the target must not exist, or be empty.
    package var ifExists: IfExists?
    /// Rewrites blocks of existing files instead of building the new file beside the old one.
    package var inPlace = false
    /// Removes what lies in restored directories and not in the snapshot.
    package var delete = false
    /// Patterns of the gitignore kind; where there is any, only what one of them matches is
    /// restored, with all below it.
    package var include: [[UInt8]] = []
    /// Patterns of the gitignore kind for what is left out, with all below it.
    package var exclude: [[UInt8]] = []
    package var numericIDs = false
    /// Decides and counts everything, and changes nothing.
    package var dryRun = false
    /// Reads every written file back, and those that are kept since their size and time are right,
    /// and compares the digests of their chunks. What differs all the same is restored.
    package var verify = false
    /// Where lists wait that are wanted whole, however long; nil keeps no more of each than
    /// `RestoreReport.listed`.
    package var spoolDirectory: String?
    /// Threads that fetch, open and write; nil for two, or more where each fetch is a round trip.
    package var threads: Int?

    package init() {}
}

/// What a restore would do.
package struct RestorePlan: Sendable, Equatable {
    package var files = 0
    package var directories = 0
    package var links = 0
    package var others = 0
    /// Stored bytes of the frames that would be fetched.
    package var fetchBytes = 0
    /// Content bytes that would be written, holes not counted.
    package var writeBytes = 0
}

/// What a restore did; in a dry run what it would have done.
package struct RestoreReport: Sendable {
    /// Something that is not as the snapshot has it.
    package struct Problem: Sendable, Equatable {
        package var path: [UInt8]
        /// For programs; docs/json.md lists them.
        package var kind: String
        package var message: String
    }

    /// A file that damage in the repository made impossible to restore.
    package struct Damage: Sendable, Equatable {
        /// The object, segment or chunk that is damaged.
        package var object: String
        package var path: [UInt8]
        package var message: String
    }

    /// An entry whose owner or group an ordinary user could not set.
    package struct DeniedOwner: Sendable, Equatable {
        package var path: [UInt8]
        /// What they should be on this host.
        package var uid: UInt32
        package var gid: UInt32
    }

    /// Restored regular files, further names of hard-linked ones not counted.
    package var files = 0
    package var directories = 0
    /// Symbolic links and further names of hard-linked files.
    package var links = 0
    /// Fifos, sockets and devices.
    package var others = 0
    /// Left as they were, or only given their metadata.
    package var kept = 0
    /// Extra names that `--delete` removed; a directory with all in it counts once.
    package var removed = 0
    /// Content bytes that went into files, without those that were taken over from existing ones.
    package var writtenBytes = 0
    package var fetchedBytes = 0
    /// Bytes that were there already.
    package var reusedBytes = 0
    /// Files whose content was read back and found right.
    package var verified = 0

    /// The first of the problems, up to `listed`; `problemCount` counts them all.
    package var problems: [Problem] = []
    package var problemCount = 0
    /// What is missing from `problems`, each as an object with `path`, `kind` and `message`; nil
    /// where that was not asked for.
    package var furtherProblems: RestoreSpool?
    /// The first of the entries whose owner could not be set, which is no problem, up to `listed`;
    /// `ownersDeniedCount` counts them all.
    package var ownersDenied: [DeniedOwner] = []
    package var ownersDeniedCount = 0
    /// What is missing from `ownersDenied`, each as an object with `path`, `uid` and `gid`; nil
    /// where that was not asked for.
    package var furtherOwnersDenied: RestoreSpool?
    /// The first of the damaged files, up to `listed`; `damagedCount` counts them all.
    package var damaged: [Damage] = []
    package var damagedCount = 0
    /// The first of the extra names, relative to the target, up to `listed`.
    package var removedPaths: [[UInt8]] = []
    /// What the backup had not stored, or not whole, of what was asked for; up to `listed`.
    package var notStoredWhole: [SnapshotProblem] = []
    /// What the user should know and that is no problem.
    package var notes: [String] = []

    /// How many of a kind are kept in memory, so that a repository that lost everything cannot fill
    /// it. Monitors see all.
    package static let listed = 10_000

    package init() {}
}

extension RestoreReport.Problem {
    /// As in the documents of `--json`.
    package var document: JSONValue {
        .object([
            ("path", JSONValue(path: path)), ("kind", .string(kind)), ("message", .string(message)),
        ])
    }
}

extension RestoreReport.DeniedOwner {
    /// As in the documents of `--json`.
    package var document: JSONValue {
        .object([
            ("path", JSONValue(path: path)), ("uid", .integer(Int64(uid))),
            ("gid", .integer(Int64(gid))),
        ])
    }
}
