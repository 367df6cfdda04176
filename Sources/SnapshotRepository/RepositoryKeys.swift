package import AgeEncryption
import ObjectStorage
package import SnapshotModel

/// The objects below `keys/`, and the root of trust that they are (format.md section 4).
package struct RepositoryKeys: Sendable {
    let store: any ObjectStore
    let config: RepositoryConfig
    let configDigest: RecordID
    /// The host key of the open repository: nil before it is known, and without encryption.
    private let host: HostKey?

    init(
        store: any ObjectStore, config: RepositoryConfig, configDigest: RecordID,
        host: HostKey? = nil
    ) {
        self.host = host
        self.store = store
        self.config = config
        self.configDigest = configDigest
    }

    package init(of repository: Repository) {
        self.init(
            store: repository.store, config: repository.config,
            configDigest: repository.configDigest,
            host: repository.access.host)
    }

    package func list() throws(RepositoryError) -> [KeyObject] {
        try stored { () throws(StorageError) in try store.list(prefix: RepositoryLayout.keys) }
            .compactMap { KeyObject($0.key) }
    }

    private func read(_ object: KeyObject) throws(RepositoryError) -> [UInt8] {
        try Repository.fetch(object.key, maximumBytes: 64 << 10, from: store) {
            Authentication.digest($0) == object.id
        }
    }

    /// Reads a key object whose bytes hash to its name.
    func readChecked(_ object: KeyObject) throws(RepositoryError) -> [UInt8] {
        let bytes = try read(object)
        let digest: RecordID = Authentication.digest(bytes)
        guard digest == object.id else {
            throw .damaged(object.name, "its bytes do not hash to its name")
        }
        return bytes
    }

    /// Opens the owner's identities with what the user brought.
    ///
    /// One passphrase may open several objects, such as one left by an `init` that did not get to
    /// its end: the one whose identity `isWanted` is taken. An object that is damaged does not keep
    /// the others from being tried.
    package func owners(
        _ credential: OwnerCredential, objects: [KeyObject],
        isWanted: (X25519Recipient) -> Bool = { _ in true }
    ) throws(RepositoryError) -> [X25519Identity] {
        switch credential {
        case .none: return []
        case .identities(let identities): return identities
        case .passphrase(let passphrase):
            var tried = 0
            var unwanted: [X25519Identity]?
            var damage: RepositoryError?
            for object in objects {
                guard case .owner = object.role else { continue }
                tried += 1
                let bytes = try read(object)
                do throws(AgeError) {
                    let plain = try bytes.withRawBytes { (bytes) throws(AgeError) -> [UInt8] in
                        try AgePayload.openAll(
                            bytes,
                            identities: [
                                .scrypt(
                                    passphrase: passphrase,
                                    maximumWorkFactor: AgeIdentity.defaultMaximumWorkFactor)
                            ])
                    }
                    let identities = try AgeIdentityFile.parse(plain)
                    if identities.contains(where: { isWanted($0.recipient) }) { return identities }
                    unwanted = unwanted ?? identities
                } catch {
                    if error.kind != .noMatchingIdentity, damage == nil {
                        damage = .damaged(object.name, error.description)
                    }
                }
            }
            if let unwanted { return unwanted }
            if let damage { throw damage }
            guard tried > 0 else {
                throw RepositoryError(
                    .wrongKey, "keys/", "no passphrase opens this repository, only identities",
                    remedy: "give the owner's identity with --identity FILE")
            }
            throw RepositoryError(
                .wrongKey, "", "wrong passphrase",
                remedy: "check the passphrase, or give --identity FILE")
        }
    }

    /// All recipient sets that parse and belong to this repository, the highest number first. Once
    /// the host key is known, those that it did not write are refused as well.
    package func recipientSets(_ objects: [KeyObject]) throws(RepositoryError) -> (
        sets: [RecipientSet], refused: [String]
    ) {
        var sets: [RecipientSet] = []
        var refused: [String] = []
        for object in objects {
            guard case .recipients(let number) = object.role else { continue }
            let bytes = try read(object)
            let digest: RecordID = Authentication.digest(bytes)
            guard digest == object.id, let set = RecipientSet(parsing: bytes), set.number == number,
                set.repository == config.repository, set.configDigest == configDigest
            else {
                refused.append("\(object.name): is not a recipient set of this repository")
                continue
            }
            if let host, !set.isAuthentic(under: host) {
                refused.append(
                    "\(object.name): is forged: nobody with this repository's host key has written it"
                )
                continue
            }
            sets.append(set)
        }
        return (sets.sorted { $0.number > $1.number }, refused)
    }

    /// Opens the host key with an owner's identity; nil where no object holds the one that
    /// `recipient` names.
    func hostKey(
        for recipient: X25519Recipient, owners: [X25519Identity], objects: [KeyObject]
    ) throws(RepositoryError) -> HostKey? {
        for object in objects where object.role == .host {
            let bytes = try read(object)
            let opened = try? bytes.withRawBytes {
                (bytes: UnsafeRawBufferPointer) throws(AgeError) -> [UInt8] in
                try AgePayload.openAll(bytes, identities: owners.map { .x25519($0) })
            }
            guard let opened, let identities = try? AgeIdentityFile.parse(opened) else { continue }
            if let identity = identities.first(where: { $0.recipient == recipient }) {
                return HostKey(identity: identity, repository: config.repository)
            }
        }
        return nil
    }

    /// The way of format.md section 4 for a reader with an owner's identity.
    func openAsOwner(
        _ credential: OwnerCredential, pinned: HostConfiguration?, acceptUnproven: Bool
    ) throws(RepositoryError) -> RepositoryAccess {
        let objects = try list()
        let (sets, refused) = try recipientSets(objects)
        let owners = try owners(credential, objects: objects) { recipient in
            sets.contains { $0.owners.contains(recipient) }
        }
        var notes = refused
        func named(_ set: RecipientSet) -> Bool {
            owners.contains { set.owners.contains($0.recipient) }
        }
        var chosen: RecipientSet?
        for set in sets where chosen == nil {
            if owners.contains(where: { set.hasFalseProof(of: $0) }) {
                notes.append(
                    "keys/recipients-\(set.number): is forged: its proof in the owner's name is false"
                )
                continue
            }
            if owners.contains(where: { set.isProven(by: $0) }) {
                chosen = set
            } else if named(set),
                !sets.contains(where: { other in
                    // A confirmation is one more object with the same body: the one without the proof
                    // stays beside it.
                    other.body == set.body && owners.contains { other.isProven(by: $0) }
                })
            {
                notes.append(
                    "sender not proven: the owner's identity that was given has not confirmed keys/recipients-\(set.number) (fingerprint \(set.fingerprint)); compare it with the one that init printed, then run 'batchsync key accept --identity FILE'"
                )
            }
        }
        func isPinned(_ set: RecipientSet) -> Bool {
            pinned?.recipientNumber == set.number && pinned?.owners == set.owners
                && pinned?.identity.recipient == set.host
        }
        let unproven = sets.filter { set in
            named(set) && !owners.contains { set.hasFalseProof(of: $0) }
        }
        if chosen == nil, let set = unproven.first(where: isPinned) ?? unproven.first {
            guard acceptUnproven || isPinned(set) else {
                throw RepositoryError(
                    .notProven, "keys/recipients-\(set.number)",
                    "sender not proven: no owner has confirmed this repository's keys yet (fingerprint \(set.fingerprint))",
                    remedy:
                        "compare the fingerprint with the one init printed, then run 'batchsync key accept --identity FILE'"
                )
            }
            chosen = set
        }
        // Who has been removed since is no owner any more, but what was stored in his time is sealed
        // to him. This host knows from its own record that the newer set is the right one.
        if let pinned, let earlier = chosen, earlier.number < pinned.recipientNumber,
            let current = sets.first(where: isPinned)
        {
            chosen = current
            notes.append(
                "the identity that was given is an owner no more, and opens what was stored up to keys/recipients-\(earlier.number)"
            )
        }
        guard let set = chosen else {
            if sets.isEmpty {
                throw RepositoryError(
                    .damaged, "keys/", "there is no recipient set of this repository",
                    remedy:
                        "copy keys/ back from a host that has pinned it, or from a copy of the repository"
                )
            }
            throw RepositoryError(
                .wrongKey, "", "the identity given is not an owner of this repository",
                remedy: "owners are \(sets[0].owners.map { $0.encoded() }.joined(separator: ", "))")
        }
        if let pinned, set.number < pinned.recipientNumber {
            throw RepositoryError(
                .notProven, "keys/recipients-\(set.number)",
                "is older than set \(pinned.recipientNumber), which this host has pinned: the repository has been rolled back",
                remedy: "compare with another copy of the repository")
        }
        if let pinned, pinned.identity.recipient != set.host {
            throw RepositoryError(
                .notProven, "keys/recipients-\(set.number)",
                "names another host key than the one that this host has pinned",
                remedy:
                    "somebody may have replaced it: compare keys/ with another copy of the repository"
            )
        }
        let host: HostKey
        if let pinned {
            host = HostKey(identity: pinned.identity, repository: config.repository)
        } else if let found = try hostKey(for: set.host, owners: owners, objects: objects) {
            host = found
        } else {
            throw RepositoryError(
                .damaged, "keys/host-…",
                "the host key is missing, or is not the one that the recipient set names",
                remedy:
                    "copy keys/ back from another copy of the repository, or from a host's configuration"
            )
        }
        guard set.isAuthentic(under: host) else {
            throw RepositoryError(
                .notProven, "keys/recipients-\(set.number)",
                "is forged: the host key does not confirm it",
                remedy:
                    "somebody has altered keys/: copy it back from another copy of the repository")
        }
        // Those of today first. Whoever was an owner once opens what was sealed then.
        let current = owners.filter { set.owners.contains($0.recipient) }
        let former = owners.filter { owner in
            !set.owners.contains(owner.recipient)
                && sets.contains { $0.owners.contains(owner.recipient) }
        }
        return RepositoryAccess(
            host: host, owners: current + former, recipients: set.owners,
            recipientNumber: set.number,
            notes: notes)
    }

    // MARK: Changing keys

    /// Seals an owner's identity to one more passphrase.
    package func addPassphrase(
        _ passphrase: [UInt8], label: String, for owner: X25519Identity
    ) throws(RepositoryError) -> String {
        try Self.checkLabel(label)
        let sealed = try Repository.sealOwner(owner, passphrase: passphrase)
        let key = RepositoryLayout.ownerKey(label: label, id: Authentication.digest(sealed))
        try Repository.put(sealed, at: key, in: store)
        return key.text
    }

    static func checkLabel(_ label: String) throws(RepositoryError) {
        let isGood =
            (1...32).contains(label.utf8.count)
            && label.utf8.allSatisfy {
                (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x5F || $0 == 0x2E
            }
        guard isGood else {
            throw RepositoryError(
                .refused, label, "is not a label",
                remedy: "write 1 to 32 of the characters a-z, 0-9, '_' and '.'")
        }
    }

    /// Stores a new recipient set, numbered one above the highest, with the host key sealed to it.
    package func putRecipients(
        _ owners: [X25519Recipient], host: HostKey, provenBy identities: [X25519Identity],
        now: Timestamp
    ) throws(RepositoryError) -> RecipientSet {
        let highest = try recipientSets(try list()).sets.first?.number ?? 0
        let set = RecipientSet.make(
            number: highest + 1, owners: owners, host: host, configDigest: configDigest,
            created: now, provenBy: identities)
        try Repository.putHostKey(host, owners: owners, in: store)
        let bytes = set.bytes
        try Repository.put(
            bytes,
            at: RepositoryLayout.recipients(number: set.number, id: Authentication.digest(bytes)),
            in: store)
        return set
    }

    /// An owner confirms a set that `init` could not prove.
    package func confirm(_ set: RecipientSet, by owner: X25519Identity) throws(RepositoryError) {
        let bytes = set.proven(by: owner).bytes
        try Repository.put(
            bytes,
            at: RepositoryLayout.recipients(number: set.number, id: Authentication.digest(bytes)),
            in: store)
    }

    /// Removes a key object by its name or the beginning of it.
    ///
    /// - Parameter staying: A credential that will still be there. It has to open, without the
    ///   object, something of each set of owners that ever was: so nothing that is stored loses its
    ///   last key.
    /// - Throws: `.refused` where it does not, and of what a host needs.
    package func remove(
        _ name: String, staying: OwnerCredential
    ) throws(RepositoryError) -> String {
        let objects = try list()
        let matching = objects.filter { $0.name == name || $0.name.dropFirst(5).hasPrefix(name) }
        guard matching.count == 1, let object = matching.first else {
            throw RepositoryError(
                .notFound, name,
                matching.isEmpty ? "no key has this name" : "several keys begin like this",
                remedy: "'batchsync key list' shows their names")
        }
        guard case .owner = object.role else {
            throw RepositoryError(.refused, object.name, "cannot be removed: every reader needs it")
        }
        let rest = objects.filter { $0 != object }
        let staying = try stayingOwners(staying, objects: rest)
        guard !staying.isEmpty else {
            // One that is damaged opens nothing, so it is no reason to let another go.
            let others = rest.contains { other in
                guard case .owner = other.role else { return false }
                return (try? readChecked(other)) != nil
            }
            throw RepositoryError(
                .refused, object.name,
                others
                    ? "is the only key that the passphrase given opens: nothing shows that another one stays"
                    : "is the last key that opens this repository",
                remedy: others
                    ? "give the passphrase of a key that stays"
                    : "add another passphrase first: 'batchsync key add --passphrase'")
        }
        for set in try recipientSets(objects).sets
        where !set.owners.contains(where: { staying.contains($0) }) {
            throw RepositoryError(
                .refused, object.name,
                "may be the last key to what was stored under keys/recipients-\(set.number), which the key given does not open",
                remedy:
                    "give the passphrase or identity, other than this one, of \(set.owners.map { $0.encoded() }.joined(separator: " or "))"
            )
        }
        try stored { () throws(StorageError) in try store.delete(object.key) }
        return object.name
    }

    private func stayingOwners(
        _ credential: OwnerCredential, objects: [KeyObject]
    ) throws(RepositoryError) -> [X25519Recipient] {
        do throws(RepositoryError) {
            return try owners(credential, objects: objects).map(\.recipient)
        } catch {
            guard error.kind == .wrongKey else { throw error }
            return []
        }
    }

    /// What a host needs to back up into this repository, for `key export --host`.
    package func hostConfiguration(_ repository: Repository) throws(RepositoryError)
        -> HostConfiguration
    {
        guard let host = repository.access.host else {
            throw RepositoryError(
                .refused, repository.location, "has no encryption, so hosts need no key")
        }
        return HostConfiguration(
            repository: config.repository, configDigest: configDigest, identity: host.identity,
            recipientNumber: repository.access.recipientNumber, owners: repository.access.recipients
        )
    }
}
