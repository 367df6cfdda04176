import ArgumentParser
import SnapshotModel
import SnapshotRepository

/// Which repository, and what opens it.
struct RepositoryOptions: ParsableArguments {
    @Option(
        name: [.customShort("r"), .customLong("repo")],
        help: ArgumentHelp(
            "The repository: a directory, sftp://[user@]host[:port]/path, or s3://bucket[/prefix].",
            discussion: "Without it the variable BATCHSYNC_REPOSITORY says which.",
            valueName: "repository"))
    var repository: PathArgument?

    @Option(
        name: [.customShort("p"), .customLong("profile")],
        help: ArgumentHelp(
            "Take the repository, and what opens it, from a profile: its name or its path.",
            valueName: "profile"),
        transform: plainText)
    var profile: String?

    @Option(
        help: ArgumentHelp(
            "Read the passphrase from a file; a line end at its end is cut.", valueName: "file"))
    var passphraseFile: PathArgument?

    @Option(
        help: ArgumentHelp(
            "Take the passphrase from what a command prints; it runs in a shell.",
            valueName: "command"))
    var passphraseCommand: PathArgument?

    @Option(
        help: ArgumentHelp(
            "Open content with an age identity file. May be given several times.", valueName: "file"
        ))
    var identity: [PathArgument] = []

    @Option(
        help: ArgumentHelp(
            "Keep the cache here. It may be deleted at any time.",
            discussion:
                "Without it BATCHSYNC_CACHE_DIR says where, else /var/cache/batchsync for root and $XDG_CACHE_HOME/batchsync for others.",
            valueName: "directory"))
    var cacheDir: PathArgument?

    @OptionGroup(title: "Store") var store: StoreOptions

    func validate() throws {
        if repository != nil && profile != nil {
            throw ValidationError("--repo and --profile both say which repository; give one")
        }
        if passphraseFile != nil && passphraseCommand != nil {
            throw ValidationError(
                "--passphrase-file and --passphrase-command say the same thing twice")
        }
        if !identity.isEmpty && (passphraseFile != nil || passphraseCommand != nil) {
            throw ValidationError(
                "--identity opens the repository without a passphrase; give one of the two")
        }
    }
}

/// How much is said, and in which form.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print one JSON document for programs.")
    var json = false

    @Flag(name: .shortAndLong, help: "Say what becomes of each file.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Say nothing but problems and errors.")
    var quiet = false

    @Flag(help: "Show no progress line on a terminal.")
    var noProgress = false

    func validate() throws {
        if verbose && quiet { throw ValidationError("--verbose and --quiet contradict each other") }
    }
}

/// Verbs that only print take fewer words.
struct PrintOptions: ParsableArguments {
    @Flag(help: "Print one JSON document for programs.")
    var json = false
}

/// Which snapshots are meant.
struct SelectionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Only snapshots of this host.", valueName: "name"), transform: plainText)
    var host: String?

    @Option(
        help: ArgumentHelp("Only snapshots that hold this path. All of several.", valueName: "path")
    )
    var path: [PathArgument] = []

    @Option(
        help: ArgumentHelp("Only snapshots with this tag. All of several.", valueName: "tag"),
        transform: plainText)
    var tag: [String] = []

    var isEmpty: Bool { host == nil && path.isEmpty && tag.isEmpty }

    func wants(_ snapshot: Snapshot) -> Bool {
        (host == nil || snapshot.host == host)
            && tag.allSatisfy { snapshot.tags.contains($0) }
            && path.allSatisfy { wanted in
                snapshot.roots.contains { EntryPath.contains($0, EntryPath.trimmed(wanted.bytes)) }
            }
    }
}

extension EntryPath {
    /// The path without slashes at its end.
    static func trimmed(_ path: [UInt8]) -> [UInt8] {
        var path = path
        while path.count > 1, path.last == 0x2F { path.removeLast() }
        return path
    }
}

/// `SNAPSHOT` or `SNAPSHOT:/PATH`.
struct SnapshotArgument: ExpressibleByArgument, Sendable {
    /// Id, `latest`, `latest~2`, or a date or time.
    let snapshot: String
    /// Absolute; nil where the whole snapshot is meant.
    let path: [UInt8]?
    /// What stands behind the colon and is no absolute path.
    let malformed: Bool

    init?(argument: String) {
        let bytes = RawArguments.bytes(argument)
        // A time has colons too, but none with a slash behind it.
        var colon: Int?
        for index in bytes.indices where bytes[index] == 0x3A {
            if index + 1 == bytes.count || bytes[index + 1] == 0x2F {
                colon = index
                break
            }
        }
        var head = bytes[...]
        var path: [UInt8]?
        var malformed = false
        if let colon {
            head = bytes[..<colon]
            let rest = bytes[(colon + 1)...]
            if !rest.isEmpty { path = EntryPath.trimmed(Array(rest)) }
        } else if let first = bytes.firstIndex(of: 0x3A),
            SnapshotCatalog.moment(String(decoding: bytes, as: UTF8.self)) == nil
        {
            malformed = true
            head = bytes[..<first]
        }
        guard !head.isEmpty, UTF8Text.isValid(Array(head)) else { return nil }
        snapshot = String(decoding: head, as: UTF8.self)
        self.path = path
        self.malformed = malformed
    }

    func validate() throws {
        guard malformed else { return }
        throw ValidationError("paths in a snapshot are absolute: \(snapshot):/PATH")
    }

    func withoutPath() throws {
        try validate()
        if path != nil {
            throw ValidationError("'\(snapshot)' stands for a whole snapshot here, without a path")
        }
    }
}

/// A number of bytes such as `100M`.
struct SizeArgument: ExpressibleByArgument, Sendable {
    let bytes: UInt64

    init?(argument: String) {
        guard let count = ByteCount(parsing: argument) else { return nil }
        bytes = count.bytes
    }
}
