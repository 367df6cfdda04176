package import AgeEncryption
package import ObjectStorage
package import SnapshotModel

/// Making a new repository.
extension Repository {
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
}
