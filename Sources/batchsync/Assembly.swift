import AgeEncryption
import CSystem
import Glibc
import ObjectStorage
import Profiles
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization

/// The one place where rooms are wired: words to store, store and keys to repository.
struct Assembly {
    /// Kept for the second who wants it: a command may not be run twice, nor a question be asked.
    private final class BroughtCredential {
        var credential: OwnerCredential?
    }

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

    /// The words of the command line; nil where a profile says everything.
    private let words: RepositoryOptions?
    /// What a verb adds to what is said of stores.
    private let adjust: (inout StoreAccess) -> Void
    private let loaded: LoadedProfile
    private let brought = BroughtCredential()

    init(
        _ options: RepositoryOptions, adjusting: @escaping (inout StoreAccess) -> Void = { _ in }
    ) {
        words = options
        adjust = adjusting
        loaded = LoadedProfile(nil)
    }

    init(_ profile: Profile) {
        words = nil
        adjust = { _ in }
        loaded = LoadedProfile(profile)
    }

    /// A profile is read once for a verb.
    private final class LoadedProfile: Sendable {
        let value: Mutex<Profile?>
        init(_ profile: Profile?) { value = Mutex(profile) }
    }

    /// The profile that the user named with `-p`, where she did.
    func profile() throws -> Profile? {
        if let known = loaded.value.withLock({ $0 }) { return known }
        guard let name = words?.profile else { return nil }
        let profile = try Self.load(name)
        loaded.value.withLock { $0 = profile }
        return profile
    }

    static func load(_ name: String) throws -> Profile {
        try Profile.load(name, environment: wholeEnvironment, isRoot: geteuid() == 0)
    }

    /// Every variable that is text.
    static var wholeEnvironment: [String: String] {
        var values: [String: String] = [:]
        var next = environ
        while let variable = next.pointee {
            let bytes = Array(UnsafeRawBufferPointer(start: variable, count: strlen(variable)))
            if let equals = bytes.firstIndex(of: 0x3D), UTF8Text.isValid(bytes) {
                values[String(decoding: bytes[..<equals], as: UTF8.self)] = String(
                    decoding: bytes[(equals + 1)...], as: UTF8.self)
            }
            next += 1
        }
        return values
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

    func directories() throws -> HostDirectories {
        let directories = Self.standardDirectories
        var cache = try profile()?.backup.cacheDirectory
        if let given = words?.cacheDir {
            cache = try Self.text(given.bytes, of: "a cache directory")
        }
        return HostDirectories(
            configuration: directories.configuration,
            cache: HostPlaces.usable(cache ?? directories.cache, "cache directory"),
            state: HostPlaces.usable(directories.state, "state directory"))
    }

    /// Where this host keeps its own files, unless it is told otherwise.
    static var standardDirectories: HostDirectories {
        HostDirectories(environment: environment, isRoot: geteuid() == 0)
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
    func location() throws -> String {
        if let profile = try profile() { return profile.repository.location }
        guard
            let bytes = words?.repository?.bytes
                ?? RawArguments.environment("BATCHSYNC_REPOSITORY")
        else {
            throw CommandError.usage(
                "no repository is named",
                remedy:
                    "say which with -r REPOSITORY or -p PROFILE, or set BATCHSYNC_REPOSITORY")
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
    func opener(_ location: String, mayWrite: Bool = false) throws -> StoreOpener {
        var access = try words?.store.access() ?? StoreAccess()
        if let profile = try profile() {
            let stores = [profile.repository] + profile.replicas
            let store = stores.first { $0.location == location } ?? profile.repository
            access = try StoreAccess(store, of: profile, words: access)
        }
        access.mayWrite = mayWrite
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
            // A directory that is missing is where init would make one; a bucket's name may be wrong.
            if case .s3(_)? = try? StoreLocation(opener.location) {
                throw RepositoryError(
                    .notARepository, opener.location, error.cause, remedy: error.remedy)
            }
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
        let known = try Repository.readConfig(store: opened.firstContact, location: location)
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
        } else if need != .hostKey || passphrases.isNamed || !(words?.identity.isEmpty ?? true) {
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

    /// Opens for a verb that can begin with the host key alone: where the owner's passphrase is at
    /// hand and this host has its key, the owner's identity follows.
    func openBeforeOwner() throws -> (repository: Repository, owner: OwnerOpening?) {
        let opened = try openStore()
        let (store, location) = (opened.store, opened.location)
        let directories = try directories()
        let known = try Repository.readConfig(store: opened.firstContact, location: location)
        guard known.0.isEncrypted,
            LocalFile.exists(directories.hostKeyPath(known.0.repository)),
            case .passphrase(let passphrase) = try credential(mayAsk: false)
        else { return (try open(.ownerIfGiven, in: opened), nil) }
        let repository = try Repository.open(
            store: store, location: location, credential: .none, needsOwner: false,
            directories: directories, known: known)
        let owner = OwnerOpening {
            let repository = try Repository.open(
                store: store, location: location, credential: .passphrase(passphrase),
                needsOwner: true, directories: directories, known: known)
            for note in repository.access.notes { Console.shared.say("batchsync: \(note)") }
            return repository
        }
        return (repository, owner)
    }

    var passphrases: PassphraseSource {
        PassphraseSource(
            file: words?.passphraseFile, command: words?.passphraseCommand,
            variable: "BATCHSYNC_PASSPHRASE",
            credential: "batchsync-passphrase")
    }

    /// What the user brought to open content with. Asked for, or fetched, once for a verb.
    func credential(mayAsk: Bool) throws -> OwnerCredential {
        if let known = brought.credential { return known }
        let credential = try bring(mayAsk: mayAsk)
        if case .none = credential { return credential }
        brought.credential = credential
        return credential
    }

    private func bring(mayAsk: Bool) throws -> OwnerCredential {
        if let files = words?.identity, !files.isEmpty {
            var identities: [X25519Identity] = []
            for path in files {
                identities += try Self.identities(
                    try HostFile.read(
                        path.bytes, purpose: "the identity file", maximumBytes: 1 << 20),
                    from: path.display)
            }
            return .identities(identities)
        }
        if passphrases.isNamed, let passphrase = try passphrases.given() {
            return .passphrase(passphrase)
        }
        if let credential = try profile()?.ownerCredential() { return credential }
        if let passphrase = try passphrases.given() { return .passphrase(passphrase) }
        if mayAsk, PassphraseSource.canAsk {
            return .passphrase(try PassphraseSource.ask("passphrase of \(try location())"))
        }
        return .none
    }

    /// The identities in a file's text.
    static func identities(
        _ bytes: [UInt8], from origin: String
    ) throws(CommandError) -> [X25519Identity] {
        do throws(AgeError) {
            return try AgeIdentityFile.parse(bytes)
        } catch {
            throw CommandError(
                .wrongKey, "\(origin): \(error.description)",
                remedy: "an identity file holds a line that begins with AGE-SECRET-KEY-1")
        }
    }

    // MARK: What lies in it

    /// The snapshots, with a line for each record that cannot be read, and for each snapshot that this
    /// host committed and that has vanished.
    static func catalog(
        _ repository: Repository, in listing: RecordListing? = nil
    ) throws -> SnapshotCatalog {
        let catalog = try SnapshotCatalog.load(repository, in: listing)
        for error in catalog.damaged { Console.shared.say("batchsync: \(error)") }
        for snapshot in LastCommit.vanished(from: catalog, of: repository) {
            Console.shared.say(
                "batchsync: snapshots/\(snapshot.name): \(LastCommit.vanishedMessage)\n  \(LastCommit.vanishedRemedy(repository))"
            )
        }
        return catalog
    }

    /// The same with those marked that are not whole, from one look at the store.
    static func markedCatalog(_ repository: Repository) throws -> SnapshotCatalog {
        let listing = try repository.listAllRecords()
        var catalog = try catalog(repository, in: listing)
        catalog.markIncomplete(try ChunkIndex.load(repository, in: listing))
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
