import AgeEncryption
import CSystem
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository

/// The one place where rooms are wired: words to store, store and keys to repository.
struct Assembly {
    /// What a verb is going to read.
    enum Need {
        /// Records only: the key of this host is enough. A passphrase is used where the user names
        /// one.
        case hostKey
        /// More can be done with the owner's identity, and it is used if it is at hand.
        case ownerIfGiven
        /// Content and names: without the owner's identity there is nothing to do.
        case owner
    }

    let options: RepositoryOptions
    /// What a verb adds to what the options say of stores.
    private let adjust: (inout StoreAccess) -> Void

    init(
        _ options: RepositoryOptions, adjusting: @escaping (inout StoreAccess) -> Void = { _ in }
    ) {
        self.options = options
        adjust = adjusting
    }

    static let program = "batchsync \(Version.text)"

    // MARK: This host

    static var environment: [String: String] {
        var values: [String: String] = [:]
        let names = [
            "BATCHSYNC_CONFIG_DIR", "BATCHSYNC_CACHE_DIR", "BATCHSYNC_STATE_DIR", "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME",
        ]
        for name in names {
            if let value = RawArguments.environment(name) {
                values[name] = String(decoding: value, as: UTF8.self)
            }
        }
        return values
    }

    func directories() throws(CommandError) -> HostDirectories {
        let directories = HostDirectories(environment: Self.environment, isRoot: geteuid() == 0)
        guard let cache = options.cacheDir else { return directories }
        return HostDirectories(
            configuration: directories.configuration,
            cache: try Self.text(cache.bytes, of: "a cache directory"),
            state: directories.state)
    }

    /// A variable of the environment that has to be text; nil where it is not set.
    static func variable(_ name: String) -> String? {
        RawArguments.environment(name).flatMap {
            UTF8Text.isValid($0) ? String(decoding: $0, as: UTF8.self) : nil
        }
    }

    static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return name.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    static var now: Timestamp { Timestamp(nanosecondsSince1970: csys_realtime_ns()) }

    // MARK: The repository

    /// The repository's place, as the user named it.
    func location() throws(CommandError) -> String {
        guard
            let bytes = options.repository?.bytes
                ?? RawArguments.environment("BATCHSYNC_REPOSITORY")
        else {
            throw .usage(
                "no repository is named",
                remedy: "say which with -r REPOSITORY, or set BATCHSYNC_REPOSITORY")
        }
        return try Self.text(bytes, of: "a repository")
    }

    /// A path that has to be text.
    static func text(_ path: [UInt8], of what: String) throws(CommandError) -> String {
        guard !path.isEmpty else { throw .usage("the path of \(what) is empty") }
        guard UTF8Text.isValid(path) else {
            throw .usage(
                "the path of \(what) must be UTF-8: \(UTF8Text.display(path))",
                remedy: "make a symbolic link with a name in UTF-8 and give its path")
        }
        return String(decoding: path, as: UTF8.self)
    }

    /// What turns an address into a store, with the options of this verb.
    func opener(_ location: String) throws -> StoreOpener {
        var access = try options.store.access()
        adjust(&access)
        return StoreOpener(
            location: location, access: access,
            directories: try directories(), counter: StoreSession.shared.counter)
    }

    /// Makes the store for a new repository.
    func createStore() throws -> OpenedStore {
        StoreSession.shared.note(try opener(try location()).create())
    }

    func openStore() throws -> OpenedStore { try openStore(try opener(try location())) }

    func openStore(_ opener: StoreOpener) throws -> OpenedStore {
        do {
            return StoreSession.shared.note(try opener.open())
        } catch let error as StorageError {
            guard error.kind == .notFound || error.kind == .notADirectory else { throw error }
            throw RepositoryError(
                .notARepository, opener.location, "there is no repository here",
                remedy:
                    "check the path or address, or make one with 'batchsync init -r \(opener.location)'"
            )
        }
    }

    /// Opens the repository with what the verb needs.
    func open(_ need: Need) throws -> Repository { try open(need, in: try openStore()) }

    /// - Parameter asReplica: Whether this is a further store beside another of the same repository.
    func open(
        _ need: Need, in opened: OpenedStore, asReplica: Bool = false
    ) throws -> Repository {
        let (store, location) = (opened.store, opened.location)
        let directories = try directories()
        let known = try Repository.readConfig(store: store, location: location)
        let config = known.0
        func open(_ credential: OwnerCredential) throws -> Repository {
            try Repository.open(
                store: store, location: location, credential: credential,
                needsOwner: need == .owner,
                directories: directories, known: known)
        }
        let repository: Repository
        if asReplica { directories.noteReplica(config.repository, at: location) }
        if !config.isEncrypted {
            repository = try open(.none)
        } else if need != .hostKey || passphrases.isNamed || !options.identity.isEmpty {
            repository = try open(try credential(mayAsk: need == .owner))
        } else {
            do {
                repository = try open(.none)
            } catch let error as RepositoryError where error.kind == .noHostKey {
                // Who has the owner's identity needs no host key.
                let credential = try credential(mayAsk: false)
                guard credential.isGiven else { throw error }
                repository = try open(credential)
            }
        }
        for note in repository.access.notes { Console.shared.say("batchsync: \(note)") }
        return repository
    }

    var passphrases: PassphraseSource {
        PassphraseSource(
            file: options.passphraseFile, command: options.passphraseCommand,
            variable: "BATCHSYNC_PASSPHRASE",
            credential: "batchsync-passphrase")
    }

    /// What the user brought to open content with.
    func credential(mayAsk: Bool) throws -> OwnerCredential {
        if !options.identity.isEmpty {
            var identities: [X25519Identity] = []
            for path in options.identity {
                let bytes = try HostFile.read(
                    path.bytes, purpose: "the identity file", maximumBytes: 1 << 20)
                do {
                    identities += try AgeIdentityFile.parse(bytes)
                } catch {
                    throw CommandError(
                        .wrongKey, "\(path.display): \(error.description)",
                        remedy: "an identity file holds a line that begins with AGE-SECRET-KEY-1")
                }
            }
            return .identities(identities)
        }
        if let passphrase = try passphrases.given() { return .passphrase(passphrase) }
        if mayAsk, PassphraseSource.canAsk {
            return .passphrase(try PassphraseSource.ask("passphrase of \(try location())"))
        }
        return .none
    }

    // MARK: What lies in it

    /// The snapshots, with a line for each record that cannot be read.
    static func catalog(_ repository: Repository) throws -> SnapshotCatalog {
        let catalog = try SnapshotCatalog.load(repository)
        for error in catalog.damaged { Console.shared.say("batchsync: \(error)") }
        return catalog
    }

    /// The one snapshot that the user means. `latest` is this host's, unless a host is named.
    static func find(
        _ text: String, in catalog: SnapshotCatalog, _ selection: SelectionOptions
    ) throws -> Snapshot {
        try catalog.find(
            TimeText.selector(text), host: selection.host ?? hostName, isWanted: selection.wants)
    }

    /// Opens the index, kept in this host's cache.
    static func index(_ repository: Repository) throws -> ChunkIndex {
        try ChunkIndex.load(repository)
    }
}
