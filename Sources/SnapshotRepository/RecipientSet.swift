package import AgeEncryption
package import SnapshotModel

/// Who can read a repository's content, and the proof that the owner wants it so (format.md section
/// 4).
package struct RecipientSet: Sendable {
    package let number: Int
    package let owners: [X25519Recipient]
    package let host: X25519Recipient
    package let repository: RepositoryID
    package let configDigest: RecordID
    /// The first line of the object, to which MAC and proofs apply.
    let body: [UInt8]
    let mac: [UInt8]
    let proofs: [(owner: String, mac: [UInt8])]

    /// A new set, proven by the owners whose identities are at hand.
    static func make(
        number: Int, owners: [X25519Recipient], host: HostKey, configDigest: RecordID,
        created: Timestamp,
        provenBy identities: [X25519Identity]
    ) -> RecipientSet {
        let body = JSONValue.object([
            ("batchsync", .integer(1)), ("kind", .string("recipients")),
            ("repository", .string(host.repository.description)),
            ("number", .integer(Int64(number))),
            ("owners", .array(owners.map { .string($0.encoded()) })),
            ("host", .string(host.identity.recipient.encoded())),
            ("config", .string(configDigest.description)),
            ("created", .string(created.text)),
        ]).bytes
        let proofs = identities.filter { owners.contains($0.recipient) }.map {
            (
                owner: $0.recipient.encoded(),
                mac: proof(by: $0, repository: host.repository, body: body)
            )
        }
        return RecipientSet(
            number: number, owners: owners, host: host.identity.recipient,
            repository: host.repository,
            configDigest: configDigest, body: body,
            mac: Authentication.mac(host.macKey("recipients"), body), proofs: proofs)
    }

    private static func proof(by identity: X25519Identity, repository: RepositoryID, body: [UInt8])
        -> [UInt8]
    {
        Authentication.mac(
            Authentication.derive(
                secret: identity.secretBytes, repository: repository, info: "batchsync/owner-proof"),
            body)
    }

    var bytes: [UInt8] {
        let second = JSONValue.object([
            ("mac", .string(Hex.text(mac))),
            (
                "proofs",
                .array(
                    proofs.map {
                        .object([("owner", .string($0.owner)), ("mac", .string(Hex.text($0.mac)))])
                    })
            ),
        ])
        return body + [0x0A] + second.bytes + [0x0A]
    }

    private init(
        number: Int, owners: [X25519Recipient], host: X25519Recipient, repository: RepositoryID,
        configDigest: RecordID,
        body: [UInt8], mac: [UInt8], proofs: [(owner: String, mac: [UInt8])]
    ) {
        self.number = number
        self.owners = owners
        self.host = host
        self.repository = repository
        self.configDigest = configDigest
        self.body = body
        self.mac = mac
        self.proofs = proofs
    }

    /// Nobody changes owners so often; a number that could not be counted up would close the
    /// repository to changes.
    static let numberMaximum = 999_999_999

    private static let knownFields: Set<String> = [
        "batchsync", "kind", "repository", "number", "owners", "host", "config", "created",
    ]

    /// Nil where the bytes are not a recipient set of format 1.
    init?(parsing bytes: [UInt8]) {
        guard let end = bytes.firstIndex(of: 0x0A) else { return nil }
        let body = Array(bytes[..<end])
        guard let first = JSONValue(parsing: body),
            let second = JSONValue(parsing: Array(bytes[(end + 1)...])),
            first["batchsync"]?.integer == 1, first["kind"]?.string == "recipients",
            let repository = first["repository"]?.string.flatMap({ RepositoryID($0) }),
            first.unknownCritical(known: Self.knownFields).isEmpty,
            let number = first["number"]?.count, (1...Self.numberMaximum).contains(number),
            let ownerTexts = first["owners"]?.array?.compactMap(\.string), !ownerTexts.isEmpty,
            let host = first["host"]?.string.flatMap({ try? X25519Recipient(parsing: $0) }),
            let config = first["config"]?.string.flatMap({ RecordID($0) }),
            let mac = second["mac"]?.string.flatMap({ Hex.bytes($0) }),
            let proofs = second["proofs"]?.array
        else { return nil }
        var owners: [X25519Recipient] = []
        for text in ownerTexts {
            guard let owner = try? X25519Recipient(parsing: text) else { return nil }
            owners.append(owner)
        }
        var parsed: [(owner: String, mac: [UInt8])] = []
        for proof in proofs {
            guard let owner = proof["owner"]?.string,
                let mac = proof["mac"]?.string.flatMap({ Hex.bytes($0) })
            else { return nil }
            parsed.append((owner, mac))
        }
        self.init(
            number: number, owners: owners, host: host, repository: repository,
            configDigest: config, body: body,
            mac: mac, proofs: parsed)
    }

    func isProven(by identity: X25519Identity) -> Bool {
        let expected = Self.proof(by: identity, repository: repository, body: body)
        let name = identity.recipient.encoded()
        return owners.contains(identity.recipient)
            && proofs.contains { $0.owner == name && Authentication.areEqual($0.mac, expected) }
    }

    /// Whether there is a proof in this identity's name that the identity did not make.
    func hasFalseProof(of identity: X25519Identity) -> Bool {
        let name = identity.recipient.encoded()
        return proofs.contains { $0.owner == name } && !isProven(by: identity)
    }

    func isAuthentic(under host: HostKey) -> Bool {
        host.identity.recipient == self.host
            && Authentication.areEqual(mac, Authentication.mac(host.macKey("recipients"), body))
    }

    /// The same set with one more proof.
    func proven(by identity: X25519Identity) -> RecipientSet {
        var proofs = proofs.filter { $0.owner != identity.recipient.encoded() }
        proofs.append(
            (
                identity.recipient.encoded(),
                Self.proof(by: identity, repository: repository, body: body)
            ))
        return RecipientSet(
            number: number, owners: owners, host: host, repository: repository,
            configDigest: configDigest, body: body,
            mac: mac, proofs: proofs)
    }

    /// What an owner compares by eye, once: the digest of the body in groups of four digits.
    package var fingerprint: String {
        let digest: RecordID = Authentication.digest(body)
        let digits = Array(digest.description.prefix(32))
        return stride(from: 0, to: 32, by: 4).map { String(digits[$0..<($0 + 4)]) }.joined(
            separator: "-")
    }
}
