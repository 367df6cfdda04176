package import AgeEncryption
package import SnapshotModel

/// What one host keeps of a repository in its own configuration: the host key, and what it has
/// pinned. Whoever only has the store can change none of it.
package struct HostConfiguration: Sendable {
    package let repository: RepositoryID
    package let configDigest: RecordID
    package let identity: X25519Identity
    package let recipientNumber: Int
    package let owners: [X25519Recipient]

    package init(
        repository: RepositoryID, configDigest: RecordID, identity: X25519Identity,
        recipientNumber: Int,
        owners: [X25519Recipient]
    ) {
        self.repository = repository
        self.configDigest = configDigest
        self.identity = identity
        self.recipientNumber = recipientNumber
        self.owners = owners
    }

    init(pinning set: RecipientSet, key: HostKey) {
        self.init(
            repository: set.repository, configDigest: set.configDigest, identity: key.identity,
            recipientNumber: set.number, owners: set.owners)
    }

    package var bytes: [UInt8] {
        JSONValue.object([
            ("batchsync", .integer(1)), ("kind", .string("host")),
            ("repository", .string(repository.description)),
            ("config", .string(configDigest.description)),
            ("host_identity", .string(identity.encoded())),
            ("recipients_number", .integer(Int64(recipientNumber))),
            ("owners", .array(owners.map { .string($0.encoded()) })),
        ]).bytes + [0x0A]
    }

    package init(parsing bytes: [UInt8], path: String) throws(RepositoryError) {
        guard let value = JSONValue(parsing: bytes), value["batchsync"]?.integer == 1,
            value["kind"]?.string == "host",
            let repository = value["repository"]?.string.flatMap({ RepositoryID($0) }),
            let config = value["config"]?.string.flatMap({ RecordID($0) }),
            let identity = value["host_identity"]?.string.flatMap({
                try? X25519Identity(parsing: $0)
            }),
            let number = value["recipients_number"]?.count,
            let owners = value["owners"]?.array?.compactMap({
                $0.string.flatMap { try? X25519Recipient(parsing: $0) }
            }),
            !owners.isEmpty
        else {
            throw RepositoryError(
                .local, path, "is not a host key file",
                remedy:
                    "fetch a fresh one from a machine with the owner's key: batchsync key export --host"
            )
        }
        self.init(
            repository: repository, configDigest: config, identity: identity,
            recipientNumber: number, owners: owners)
    }
}
