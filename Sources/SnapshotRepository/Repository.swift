package import AgeEncryption
package import ObjectStorage
package import SnapshotModel

/// What the user brought to open content with.
package enum OwnerCredential: Sendable {
    case none
    case passphrase([UInt8])
    case identities([X25519Identity])

    package var isGiven: Bool { if case .none = self { false } else { true } }
}

/// The keys that are at hand, and how far they are proven.
package struct RepositoryAccess: Sendable {
    /// Nil in a repository without encryption.
    package let host: HostKey?
    /// Identities that open content; empty where none was given.
    package let owners: [X25519Identity]
    /// Whom content is sealed to; empty without encryption.
    package let recipients: [X25519Recipient]
    package let recipientNumber: Int
    /// What the user should know about the keys, as sentences.
    package let notes: [String]

    package var canReadContent: Bool { host == nil || !owners.isEmpty }
}

/// An open repository: its objects by their meaning. Knows in which order they may be written, and
/// checks what it reads.
///
/// All methods may be called from several threads at once; all block.
package final class Repository: Sendable {
    package let location: String
    package let config: RepositoryConfig
    package let configDigest: RecordID
    package let access: RepositoryAccess
    package let directories: HostDirectories
    let store: any ObjectStore
    let layout: RepositoryLayout
    /// Whether small records are kept in this host's cache: where a read costs a round trip.
    let cachesRecords: Bool
    let ahead = RecordsAhead()
    /// Empty, or for a second store of the repository the folder that keeps it apart.
    private let replicaFolder: String

    init(
        store: any ObjectStore, location: String, config: RepositoryConfig, configDigest: RecordID,
        access: RepositoryAccess, directories: HostDirectories, cachesRecords: Bool = true
    ) {
        self.store = store
        self.location = location
        self.config = config
        self.configDigest = configDigest
        self.access = access
        self.directories = directories
        self.cachesRecords = cachesRecords && !store.capabilities.isLocal
        layout = RepositoryLayout(isEncrypted: config.isEncrypted)
        replicaFolder = directories.replicaFolder(config.repository, at: location)
    }

    /// The same repository on another store.
    convenience init(_ other: Repository, on store: any ObjectStore, location: String) {
        self.init(
            store: store, location: location, config: other.config,
            configDigest: other.configDigest, access: other.access,
            directories: other.directories)
    }

    /// The same repository for who wants to know what lies in the store, not what lies in this
    /// host's cache.
    package var readingStore: Repository {
        Repository(
            store: store, location: location, config: config, configDigest: configDigest,
            access: access, directories: directories, cachesRecords: false)
    }

    package var id: RepositoryID { config.repository }
    /// What this host keeps of the repository's content, whichever store it lies on.
    package var cachePath: String { directories.cachePath(id) }
    /// What this host keeps of this store: its index and its records.
    var storeCachePath: String { cachePath + replicaFolder }
    /// What this host has done with this store.
    package var statePath: String { directories.statePath(id) + replicaFolder }
    package var isLocalStore: Bool { store.capabilities.isLocal }

    // MARK: Opening one

    /// Opens a repository with what is at hand: the host key in this host's configuration, an
    /// owner's credential, or both.
    ///
    /// - Parameter needsOwner: content or names are going to be read, so a credential must be there
    ///   and fit.
    /// - Parameter acceptUnproven: go on although no owner has proven the recipients yet.
    /// - Parameter known: What `readConfig` has given already, to spare a request.
    package static func open(
        store: any ObjectStore, location: String, credential: OwnerCredential, needsOwner: Bool,
        acceptUnproven: Bool = false, directories: HostDirectories,
        known: (config: RepositoryConfig, digest: RecordID)? = nil
    ) throws(RepositoryError) -> Repository {
        let read =
            if let known { known } else { try readConfig(store: store, location: location) }
        func open(
            _ read: (config: RepositoryConfig, digest: RecordID)
        ) throws(RepositoryError) -> Repository {
            try self.open(
                store: store, location: location, credential: credential, needsOwner: needsOwner,
                acceptUnproven: acceptUnproven, directories: directories, read)
        }
        do throws(RepositoryError) {
            return try open(read)
        } catch {
            // Nothing in it proves it right before it is compared with what is pinned: the fault may
            // be a byte that was altered on its way.
            guard error.kind != .storage, !store.capabilities.isLocal else { throw error }
            let again = try readConfig(store: store, location: location)
            guard again.digest != read.digest else { throw error }
            let repository = try open(again)
            store.noteAlteredTransfer()
            return repository
        }
    }

    private static func open(
        store: any ObjectStore, location: String, credential: OwnerCredential, needsOwner: Bool,
        acceptUnproven: Bool, directories: HostDirectories,
        _ read: (config: RepositoryConfig, digest: RecordID)
    ) throws(RepositoryError) -> Repository {
        let (config, digest) = read
        let path = directories.hostKeyPath(config.repository)
        guard config.isEncrypted else {
            // Whoever has the store could say so in order to be sent everything in clear.
            let known = LocalFile.exists(path) ? path : directories.encryptionPath(location)
            guard !LocalFile.exists(known) else {
                throw RepositoryError(
                    .notProven, "config.json",
                    "says that the repository at \(location) is not encrypted, but this host knows it encrypted",
                    remedy: "somebody may have replaced it: compare with a copy"
                        + (known == path
                            ? ""
                            : "; if you have put another repository there yourself, remove \(known)")
                )
            }
            return Repository(
                store: store, location: location, config: config, configDigest: digest,
                access: RepositoryAccess(
                    host: nil, owners: [], recipients: [], recipientNumber: 0, notes: []),
                directories: directories)
        }
        var pinned: HostConfiguration?
        if let bytes = try LocalFile.read(path, maximumBytes: 1 << 20) {
            let found = try HostConfiguration(parsing: bytes, path: path)
            guard found.repository == config.repository, found.configDigest == digest else {
                throw RepositoryError(
                    .notProven, "config.json", "is not the one this host has pinned in \(path)",
                    remedy:
                        "somebody has altered it, or put another repository in its place: compare with a copy"
                )
            }
            pinned = found
        }
        let access: RepositoryAccess
        if credential.isGiven {
            access = try RepositoryKeys(store: store, config: config, configDigest: digest)
                .openAsOwner(credential, pinned: pinned, acceptUnproven: acceptUnproven)
        } else if needsOwner {
            throw RepositoryError(
                .wrongKey, location,
                "the owner's passphrase or identity is needed to read content and names",
                remedy:
                    "set BATCHSYNC_PASSPHRASE, or give --passphrase-file FILE or --identity FILE")
        } else if let pinned {
            access = RepositoryAccess(
                host: HostKey(identity: pinned.identity, repository: config.repository), owners: [],
                recipients: pinned.owners, recipientNumber: pinned.recipientNumber, notes: [])
        } else {
            throw RepositoryError(
                .noHostKey, location,
                "this host has no key for the repository (\(path) is missing)",
                remedy:
                    "on a machine with the owner's key run 'batchsync key export --host', and 'batchsync key accept FILE' here"
            )
        }
        directories.noteEncryption(at: location, isEncrypted: true)
        return Repository(
            store: store, location: location, config: config, configDigest: digest, access: access,
            directories: directories)
    }

    package static func readConfig(
        store: any ObjectStore, location: String
    ) throws(RepositoryError) -> (config: RepositoryConfig, digest: RecordID) {
        func attempt() throws(RepositoryError) -> [UInt8] {
            do {
                return try store.get(RepositoryLayout.config, maximumBytes: 1 << 20)
            } catch {
                if error.kind == .notFound, error.key == nil {
                    // Not the object is missing but what should hold it: the bucket.
                    throw RepositoryError(
                        .notARepository, location, error.cause, remedy: error.remedy)
                }
                if error.kind == .notFound || error.kind == .notADirectory {
                    throw RepositoryError(
                        .notARepository, location, "there is no repository here",
                        remedy:
                            "check the path, or make one with 'batchsync init -r \(location)'; where there was one, put a copy of its config.json back"
                    )
                }
                throw .storage(error)
            }
        }
        let bytes = try attempt()
        do throws(RepositoryError) {
            return (try RepositoryConfig(parsing: bytes), Authentication.digest(bytes))
        } catch {
            guard !store.capabilities.isLocal else { throw error }
            let again = try attempt()
            guard again != bytes else { throw error }
            let config = try RepositoryConfig(parsing: again)
            store.noteAlteredTransfer()
            return (config, Authentication.digest(again))
        }
    }
}
