package import AgeEncryption
package import BundleFormat
import Crypto
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
    /// Empty, or for a second store of the repository the folder that keeps it apart.
    private let replicaFolder: String

    private init(
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

    // MARK: Making one

    /// How a new repository is to be kept secret.
    package enum Protection: Sendable {
        case none
        case passphrase([UInt8])
        case recipients([X25519Recipient])
    }

    /// What `init` has to tell its user.
    package struct Created: Sendable {
        package let repository: Repository
        package let hostKeyPath: String?
        package let recoverDigest: RecordID
        /// The owner's confirmation is still to come: what she compares.
        package let unprovenFingerprint: String?
    }

    /// Makes a repository in an empty store. `config.json` is written last: until then nothing
    /// there is a repository.
    package static func create(
        store: any ObjectStore, location: String, protection: Protection, now: Timestamp,
        graceSeconds: Int = 86_400,
        directories: HostDirectories
    ) throws(RepositoryError) -> Created {
        let present = try stored { () throws(StorageError) in
            try store.head(RepositoryLayout.config)
        }
        guard present == nil else {
            throw RepositoryError(
                .exists, location, "is already a repository",
                remedy: "choose another place, or use this one as it is")
        }
        guard let id = RepositoryID(bytes: Authentication.randomBytes(32)) else {
            preconditionFailure("32 bytes asked for")
        }
        var isEncrypted = true
        if case .none = protection { isEncrypted = false }
        let config = RepositoryConfig(
            repository: id, created: now, isEncrypted: isEncrypted, graceSeconds: graceSeconds)
        let configBytes = config.bytes
        let configDigest: RecordID = Authentication.digest(configBytes)
        var access = RepositoryAccess(
            host: nil, owners: [], recipients: [], recipientNumber: 0, notes: [])
        var hostKeyPath: String?
        var fingerprint: String?
        var objects: [(bytes: [UInt8], key: ObjectKey)] = []
        if isEncrypted {
            let host = HostKey(identity: X25519Identity(), repository: id)
            var owners: [X25519Recipient] = []
            var identities: [X25519Identity] = []
            switch protection {
            case .none: break
            case .passphrase(let passphrase):
                let owner = X25519Identity()
                identities = [owner]
                owners = [owner.recipient]
                let sealed = try Self.sealOwner(owner, passphrase: passphrase)
                objects.append(
                    (
                        sealed,
                        RepositoryLayout.ownerKey(
                            label: "passphrase", id: Authentication.digest(sealed))
                    ))
            case .recipients(let given): owners = given
            }
            let set = RecipientSet.make(
                number: 1, owners: owners, host: host, configDigest: configDigest, created: now,
                provenBy: identities)
            let sealed = try Self.sealHostKey(host, owners: owners)
            objects.append((sealed, RepositoryLayout.hostKey(id: Authentication.digest(sealed))))
            objects.append(
                (
                    set.bytes,
                    RepositoryLayout.recipients(number: 1, id: Authentication.digest(set.bytes))
                ))
            // Where this host cannot keep its key, nothing is begun.
            let path = directories.hostKeyPath(id)
            try LocalFile.write(HostConfiguration(pinning: set, key: host).bytes, to: path)
            hostKeyPath = path
            if identities.isEmpty { fingerprint = set.fingerprint }
            access = RepositoryAccess(
                host: host, owners: identities, recipients: owners, recipientNumber: 1, notes: [])
        }
        objects.append((Recovery.page, RepositoryLayout.recoverPage))
        objects.append((Recovery.program, RepositoryLayout.recoverProgram))
        objects.append((configBytes, RepositoryLayout.config))
        for (position, object) in objects.enumerated() {
            do throws(RepositoryError) {
                try put(object.bytes, at: object.key, in: store)
            } catch {
                // The place is left as it was, so that the same command works once the cause is
                // gone.
                for made in objects[..<position].reversed() { try? store.delete(made.key) }
                if let hostKeyPath { LocalFile.remove(hostKeyPath) }
                throw error
            }
        }
        // Two that make a repository here at once write the same number of bytes, which a store may
        // take for one put sent twice.
        let kept = try stored { () throws(StorageError) in
            try store.get(RepositoryLayout.config, maximumBytes: 1 << 20)
        }
        guard kept == configBytes else {
            if let hostKeyPath { LocalFile.remove(hostKeyPath) }
            throw RepositoryError(
                .exists, location, "somebody else has made a repository here at the same time",
                remedy: "use that one")
        }
        directories.noteEncryption(at: location, isEncrypted: isEncrypted)
        let repository = Repository(
            store: store, location: location, config: config, configDigest: configDigest,
            access: access,
            directories: directories)
        return Created(
            repository: repository, hostKeyPath: hostKeyPath, recoverDigest: Recovery.digest,
            unprovenFingerprint: fingerprint)
    }

    static func put(_ bytes: [UInt8], at key: ObjectKey, in store: any ObjectStore)
        throws(RepositoryError)
    {
        let digest: RecordID = Authentication.digest(bytes)
        let content = ObjectContent(bytes: bytes, digest: digest.bytes)
        try stored { () throws(StorageError) in try store.put(content, at: key) }
    }

    static func sealOwner(
        _ owner: X25519Identity, passphrase: [UInt8]
    ) throws(RepositoryError) -> [UInt8] {
        let text =
            "# The owner's identity of a batchsync repository. It opens everything in it.\n# public key: \(owner.recipient.encoded())\n\(owner.encoded())\n"
        do {
            return try AgeEncryptor.seal(
                Array(text.utf8),
                to: [.scrypt(passphrase: passphrase, workFactor: AgeRecipient.defaultWorkFactor)])
        } catch {
            throw RepositoryError(.local, "keys/", error.description)
        }
    }

    static func putHostKey(_ host: HostKey, owners: [X25519Recipient], in store: any ObjectStore)
        throws(RepositoryError)
    {
        let sealed = try sealHostKey(host, owners: owners)
        try put(sealed, at: RepositoryLayout.hostKey(id: Authentication.digest(sealed)), in: store)
    }

    private static func sealHostKey(
        _ host: HostKey, owners: [X25519Recipient]
    ) throws(RepositoryError) -> [UInt8] {
        let text =
            "# The host key of batchsync repository \(host.repository).\n# public key: \(host.identity.recipient.encoded())\n\(host.identity.encoded())\n"
        do {
            return try AgeEncryptor.seal(Array(text.utf8), to: owners.map { .x25519($0) })
        } catch {
            throw RepositoryError(.local, "keys/", error.description)
        }
    }

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
        let config: RepositoryConfig
        let digest: RecordID
        if let known {
            (config, digest) = known
        } else {
            (config, digest) = try readConfig(store: store, location: location)
        }
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
    ) throws(RepositoryError) -> (RepositoryConfig, RecordID) {
        let bytes: [UInt8]
        do {
            bytes = try store.get(RepositoryLayout.config, maximumBytes: 1 << 20)
        } catch {
            if error.kind == .notFound || error.kind == .notADirectory {
                throw RepositoryError(
                    .notARepository, location, "there is no repository here",
                    remedy: "check the path, or make one with 'batchsync init -r \(location)'")
            }
            throw .storage(error)
        }
        return (try RepositoryConfig(parsing: bytes), Authentication.digest(bytes))
    }

    // MARK: Records

    private var recordRecipients: [AgeRecipient] {
        guard let host = access.host else { return [] }
        return access.recipients.map { .x25519($0) } + [.x25519(host.identity.recipient)]
    }

    /// Whom bundles are sealed to; empty without encryption.
    package var contentRecipients: [AgeRecipient] { access.recipients.map { .x25519($0) } }

    package var contentIdentities: [AgeIdentity] { access.owners.map { .x25519($0) } }

    private func macMessageHead(_ type: RecordType) -> [UInt8] {
        Array("batchsync 1\n\(type.rawValue)\n\(config.repository)\n".utf8)
    }

    /// Seals a payload as a record of this kind: its name and its bytes.
    func sealRecord(
        _ type: RecordType, time: Timestamp?, payload: UnsafeRawBufferPointer
    ) throws(RepositoryError) -> (name: RecordName, bytes: [UInt8]) {
        var header =
            "{\"batchsync\":1,\"kind\":\"\(type.rawValue)\",\"repository\":\"\(config.repository)\""
        if let host = access.host {
            let mac = macMessageHead(type).withUnsafeBytes {
                Authentication.mac(host.macKey(type.rawValue), [$0, payload])
            }
            header += ",\"mac\":\"\(Hex.text(mac))\""
        } else if type.isLines {
            // Sealing makes each name new. Without it equal lines would bring back the name of an
            // index object that prune has condemned.
            header += ",\"salt\":\"\(Hex.text(Authentication.randomBytes(16)))\""
        }
        header += "}\n"
        let plain = ByteBuffer(capacity: header.utf8.count + payload.count)
        plain.append(header)
        plain.append(payload)
        let bytes: [UInt8]
        do {
            bytes = try SealedRecord.seal(
                plain.bytes, level: BundleLimits.defaultLevel, recipients: recordRecipients)
        } catch {
            throw .bundle(error, type.prefix)
        }
        let name = RecordName(
            type: type, utc: time?.compactUTC ?? "", id: Authentication.digest(bytes))
        return (name, bytes)
    }

    /// Seals and stores a record; it is durable when this returns.
    @discardableResult
    package func putRecord(
        _ type: RecordType, time: Timestamp?, payload: UnsafeRawBufferPointer
    ) throws(RepositoryError) -> RecordName {
        let (name, bytes) = try sealRecord(type, time: time, payload: payload)
        try Self.put(bytes, at: layout.record(name), in: store)
        return name
    }

    @discardableResult
    package func putRecord(_ type: RecordType, time: Timestamp, _ value: JSONValue)
        throws(RepositoryError) -> RecordName
    {
        let payload = value.bytes + [0x0A]
        return try payload.withRawBytes { (bytes) throws(RepositoryError) -> RecordName in
            try putRecord(type, time: time, payload: bytes)
        }
    }

    /// Stores a snapshot's record: the commit.
    ///
    /// - Parameter deadline: On the clock that runs through suspend, in nanoseconds: no attempt
    ///   begins later, however patient the store is otherwise. What the commit relies on is known to
    ///   be there until then.
    /// - Throws: Where the store does not tell any more whether the record is there, the message
    ///   says so.
    package func commit(
        time: Timestamp, _ value: JSONValue, by deadline: Int64
    ) throws(RepositoryError) -> RecordName {
        let payload = value.bytes + [0x0A]
        let record = try payload.withRawBytes { (bytes) throws(RepositoryError) in
            try seal(.snapshot, time: time, payload: bytes)
        }
        let key = layout.record(record.name)
        do throws(RepositoryError) {
            try Self.put(record.bytes, at: key, in: store.withDeadline(deadline))
        } catch {
            guard error.isTransient else { throw error }
            // The answer may have been lost after its effect: the store is asked once more.
            let store = store.withDeadline(deadline)
            let there: StoredObject?
            do {
                there = try store.head(key)
            } catch _ {
                throw RepositoryError(
                    .storage, "",
                    "\(error.message); whether snapshot \(record.name.id.short) was committed is not known",
                    remedy: "'batchsync snapshots' tells once the store answers again")
            }
            guard there?.length == record.bytes.count else { throw error }
        }
        return record.name
    }

    private static let headerMaximumBytes = 4096

    /// Refuses what declares a field critical that this release does not know.
    private static func checkCritical(
        _ value: JSONValue, known: Set<String>, _ key: String
    ) throws(RepositoryError) {
        let unknown = value.unknownCritical(known: known)
        guard unknown.isEmpty else {
            throw RepositoryError(
                .newerFormat, key,
                "uses \(unknown.joined(separator: ", ")), which this release does not know",
                remedy: "use a newer release of batchsync")
        }
    }

    /// Opens the bytes of a record: name, seal, length, authenticity, in that order. What comes
    /// back is the payload.
    package func openRecord(_ name: RecordName, bytes: [UInt8]) throws(RepositoryError) -> [UInt8] {
        let key = layout.record(name).text
        let digest: RecordID = Authentication.digest(bytes)
        guard digest == name.id else { throw .damaged(key, "its bytes do not hash to its name") }
        var identities: [AgeIdentity] = []
        if let host = access.host { identities = [.x25519(host.identity)] + contentIdentities }
        let plain: [UInt8]
        do throws(BundleError) {
            plain = try bytes.withRawBytes { (bytes) throws(BundleError) -> [UInt8] in
                try SealedRecord.open(
                    bytes, identities: identities, maximumBytes: name.type.maximumBytes)
            }
        } catch {
            throw .damaged(key, error.description)
        }
        // Nothing has been authenticated yet: no more is parsed than a header can take.
        guard let end = plain.prefix(Self.headerMaximumBytes).firstIndex(of: 0x0A),
            let header = JSONValue(parsing: Array(plain[..<end]))
        else {
            throw .damaged(key, "has no header line")
        }
        guard let version = header["batchsync"]?.integer, version > 0 else {
            throw .damaged(key, "its header states no format")
        }
        guard version <= RepositoryConfig.formatVersion else {
            throw RepositoryError(
                .newerFormat, key,
                "was written in format \(version), this release reads up to \(RepositoryConfig.formatVersion)",
                remedy: "use a newer release of batchsync")
        }
        try Self.checkCritical(header, known: ["batchsync", "kind", "repository", "mac", "salt"], key)
        guard header["kind"]?.string == name.type.rawValue,
            header["repository"]?.string == config.repository.description
        else {
            throw .damaged(
                key,
                "belongs elsewhere: its header names another kind of record, or another repository")
        }
        let payload = Array(plain[(end + 1)...])
        if let host = access.host {
            guard let mac = header["mac"]?.string.flatMap({ Hex.bytes($0) }) else {
                throw .damaged(
                    key,
                    "is not authenticated: nobody with this repository's host key has written it")
            }
            let expected = macMessageHead(name.type).withUnsafeBytes { head in
                payload.withUnsafeBytes {
                    Authentication.mac(host.macKey(name.type.rawValue), [head, $0])
                }
            }
            guard Authentication.areEqual(mac, expected) else {
                throw .damaged(
                    key, "is forged: nobody with this repository's host key has written it")
            }
        }
        return payload
    }

    /// The payload of a record.
    package func readRecord(_ name: RecordName) throws(RepositoryError) -> [UInt8] {
        let cache = cachesRecords && RecordCache.holds(name.type) ? RecordCache(self) : nil
        if let bytes = cache?.read(name) { return try openRecord(name, bytes: bytes) }
        let key = layout.record(name)
        let limit = name.type.storedMaximumBytes
        let bytes = try stored { () throws(StorageError) in try store.get(key, maximumBytes: limit)
        }
        let payload = try openRecord(name, bytes: bytes)
        cache?.write(bytes, as: name)
        return payload
    }

    /// The object in a record: nothing in it is critical and unknown, and its time agrees with its
    /// name.
    package func readJSON(_ name: RecordName) throws(RepositoryError) -> JSONValue {
        let payload = try readRecord(name)
        let key = layout.record(name).text
        guard let value = JSONValue(parsing: payload), value.fields != nil else {
            throw .damaged(key, "is not a JSON object")
        }
        try Self.checkCritical(value, known: name.type.knownFields, key)
        guard let time = value["time"]?.timestamp else { throw .damaged(key, "states no time") }
        guard time.compactUTC == name.utc else {
            throw .damaged(
                key,
                "its name says \(name.utc), its content \(time.compactUTC): it has been renamed")
        }
        return value
    }

    /// Names and sizes of all records of a kind, in order of name. Names of other shapes are passed
    /// over.
    package func listRecords(
        _ type: RecordType
    ) throws(RepositoryError) -> [(name: RecordName, length: Int, modified: Int64?)] {
        let objects = try stored { () throws(StorageError) in try store.list(prefix: type.prefix) }
        return objects.compactMap { object in
            layout.recordName(object.key, type: type).map { ($0, object.length, object.modified) }
        }
    }

    package func deleteRecord(_ name: RecordName) throws(RepositoryError) {
        let key = layout.record(name)
        try stored { () throws(StorageError) in try store.delete(key) }
    }

    package func recordKey(_ name: RecordName) -> String { layout.record(name).text }

    // MARK: Bundles

    package func makeBundleSpool() throws(RepositoryError) -> BundleSpool {
        BundleSpool(try stored { () throws(StorageError) in try store.makeSpool() })
    }

    /// Whether the store's listing shows MD5 sums, so that it is worth computing them.
    package var wantsMD5: Bool { store.capabilities.listingShowsMD5 }

    /// Stores a finished bundle; it is durable when this returns.
    package func putBundle(_ bundle: SealedBundle, spool: BundleSpool) throws(RepositoryError) {
        let content = ObjectContent(file: spool.file, digest: bundle.id.bytes, md5: bundle.md5)
        let key = layout.bundle(bundle.id)
        try stored { () throws(StorageError) in try store.put(content, at: key) }
    }

    package func bundleKey(_ id: BundleID) -> String { layout.bundle(id).text }

    /// Ids and stored sizes of all bundles.
    package func listBundles() throws(RepositoryError) -> [BundleID: Int] {
        var bundles: [BundleID: Int] = [:]
        try listBundles { id, size, _ in bundles[id] = size }
        return bundles
    }

    /// Hands each bundle's id, stored size and, where the listing shows it, MD5 to `body`.
    package func listBundles(
        _ body: (BundleID, Int, [UInt8]?) -> Void
    ) throws(RepositoryError) {
        try stored { () throws(StorageError) in
            try store.list(prefix: RepositoryLayout.bundles) { object in
                if let id = layout.bundleID(object.key) { body(id, object.length, object.md5) }
                return true
            }
        }
    }

    /// Whether the store keeps a SHA-256 with each object and tells it.
    package var storeKeepsSHA256: Bool { store.capabilities.headShowsSHA256 }

    /// Whether the store can compute SHA-256 sums where the objects lie.
    package var storeComputesDigests: Bool { store.capabilities.remoteDigests }

    /// The SHA-256 that the store keeps of a bundle, which it computed when the bundle came; nil
    /// where it has none.
    package func storedDigest(_ id: BundleID) throws(RepositoryError) -> [UInt8]? {
        let key = layout.bundle(id)
        return try stored { () throws(StorageError) in try store.head(key) }?.sha256
    }

    /// Hands the SHA-256 that the store computes now of each of these bundles to `body`, in any
    /// order; one that is missing is left out.
    package func computeDigests(
        _ ids: [BundleID], _ body: (BundleID, [UInt8]) -> Void
    ) throws(RepositoryError) {
        let keys = ids.map { layout.bundle($0) }
        try stored { () throws(StorageError) in
            try store.digests(of: keys) { key, digest in
                if let id = layout.bundleID(key) { body(id, digest) }
                return true
            }
        }
    }

    /// Reads a range of a bundle's stored bytes into `buffer`; the count may be short only at its
    /// end.
    package func readBundle(
        _ id: BundleID, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(RepositoryError) -> Int {
        let key = layout.bundle(id)
        return try stored { () throws(StorageError) in
            try store.get(key, range: range, into: buffer)
        }
    }

    package func bundleSize(_ id: BundleID) throws(RepositoryError) -> Int? {
        let key = layout.bundle(id)
        return try stored { () throws(StorageError) in try store.head(key) }?.length
    }

    /// All objects with their lengths, for statistics and audits.
    package func listAll() throws(RepositoryError) -> [(name: String, length: Int)] {
        try stored { () throws(StorageError) in try store.list(prefix: "") }.map {
            ($0.key.text, $0.length)
        }
    }

    /// The stored bytes of a small object by its name, for audits.
    package func readObject(_ name: String, maximumBytes: Int) throws(RepositoryError) -> [UInt8] {
        guard let key = ObjectKey(name) else {
            throw RepositoryError(.notFound, name, "is not the name of an object")
        }
        return try stored { () throws(StorageError) in
            try store.get(key, maximumBytes: maximumBytes)
        }
    }

    /// Difference of the store's clock to this host's, in seconds.
    package func storeTime() throws(RepositoryError) -> Int64 {
        try stored { () throws(StorageError) in try store.currentTime() }
    }
}
