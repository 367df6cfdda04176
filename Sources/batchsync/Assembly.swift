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

    init(_ options: RepositoryOptions) { self.options = options }

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
        let location = try Self.text(bytes, of: "a repository")
        guard let end = location.range(ofScheme: "://") else { return location }
        let scheme = location[..<end]
        throw CommandError(
            .usage,
            "\(scheme):// is no place for a repository in this release, which stores in directories",
            remedy: "name a directory; a path that looks like an address is written ./\(location)")
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

    /// Makes the store for a new repository.
    func createStore() throws -> (store: any ObjectStore, location: String) {
        let location = try location()
        // What is a repository already is better named so than as a directory that is not empty.
        if LocalFile.exists(location + "/config.json") {
            return (try LocalStore.open(at: location), location)
        }
        return (try LocalStore.create(at: location), location)
    }

    func openStore() throws -> (store: any ObjectStore, location: String) {
        let location = try location()
        do {
            return (try LocalStore.open(at: location), location)
        } catch {
            guard error.kind == .notFound || error.kind == .notADirectory else { throw error }
            throw RepositoryError(
                .notARepository, location, "there is no repository here",
                remedy: "check the path, or make one with 'batchsync init -r \(location)'")
        }
    }

    /// Opens the repository with what the verb needs.
    func open(_ need: Need) throws -> Repository {
        let (store, location) = try openStore()
        let directories = try directories()
        func open(_ credential: OwnerCredential) throws -> Repository {
            try Repository.open(
                store: store, location: location, credential: credential,
                needsOwner: need == .owner,
                directories: directories)
        }
        let repository: Repository
        let (config, _) = try Repository.readConfig(store: store, location: location)
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

extension String {
    /// Where a scheme such as `s3` ends that stands before `separator`; nil where none does.
    fileprivate func range(ofScheme separator: String) -> String.Index? {
        var end = startIndex
        while end < endIndex, self[end].isASCII, self[end].isLetter || self[end].isNumber {
            end = index(after: end)
        }
        guard end > startIndex, self[end...].hasPrefix(separator) else { return nil }
        return end
    }
}
