import AgeEncryption
import SnapshotModel

/// One thing that is not as it should be with the objects below `keys/`.
package struct KeyFinding: Sendable {
    /// The object's name, or the folder where one is missing.
    package let object: String
    package let message: String
    package let remedy: String
    /// False for what the user should only know.
    package let isDamage: Bool

    init(_ object: String, _ message: String, remedy: String, isDamage: Bool = true) {
        self.object = object
        self.message = message
        self.remedy = remedy
        self.isDamage = isDamage
    }
}

extension RepositoryKeys {
    private static let copyBack =
        "copy keys/ back from another copy of the repository, and find out who can write to this one"

    /// Checks every key object as far as the keys at hand reach: names against bytes, recipient
    /// sets against the host key and against what this host has pinned, and that the host key is
    /// there for the owner. Goes on past whatever it finds.
    ///
    /// - Parameter pinned: This host's own configuration of the repository, where it has one.
    /// - Throws: only where `keys/` cannot be listed.
    package func audit(
        _ access: RepositoryAccess, pinned: HostConfiguration?
    ) throws(RepositoryError) -> [KeyFinding] {
        guard let host = access.host else { return [] }
        var findings: [KeyFinding] = []
        var sets: [(name: String, set: RecipientSet)] = []
        var hostObjects = 0
        let objects = try list()
        for object in objects {
            let bytes: [UInt8]
            do {
                bytes = try readChecked(object)
            } catch {
                findings.append(
                    KeyFinding(
                        object.name,
                        error.kind == .damaged ? error.message : "cannot be read: \(error.message)",
                        remedy: Self.copyBack))
                continue
            }
            switch object.role {
            case .owner: break
            case .host: hostObjects += 1
            case .recipients(let number):
                guard let set = RecipientSet(parsing: bytes), set.repository == config.repository,
                    set.configDigest == configDigest
                else {
                    findings.append(
                        KeyFinding(
                            object.name, "is not a recipient set of this repository",
                            remedy: Self.copyBack))
                    continue
                }
                if let finding = check(set, named: object.name, number: number, host: host) {
                    findings.append(finding)
                } else {
                    sets.append((object.name, set))
                }
            }
        }
        if hostObjects == 0 {
            findings.append(
                KeyFinding(
                    "keys/host-…",
                    "the sealed host key is missing: an owner on a new machine cannot authenticate this repository",
                    remedy: Self.copyBack))
        } else if !access.owners.isEmpty {
            let opened = try? hostKey(
                for: host.identity.recipient, owners: access.owners, objects: objects)
            if opened == nil {
                findings.append(
                    KeyFinding(
                        "keys/host-…",
                        "no host key object opens to the key that the recipient set names",
                        remedy: Self.copyBack))
            }
        }
        findings += compare(sets, access: access, pinned: pinned)
        return findings
    }

    private func check(_ set: RecipientSet, named name: String, number: Int, host: HostKey)
        -> KeyFinding?
    {
        guard set.number == number else {
            return KeyFinding(
                name, "has been renamed: it is set \(set.number)", remedy: Self.copyBack)
        }
        guard set.host == host.identity.recipient else {
            return KeyFinding(
                name, "names another host key than the one in use", remedy: Self.copyBack)
        }
        guard set.isAuthentic(under: host) else {
            return KeyFinding(
                name, "is forged: nobody with this repository's host key has written it",
                remedy: Self.copyBack)
        }
        return nil
    }

    private func compare(
        _ sets: [(name: String, set: RecipientSet)], access: RepositoryAccess,
        pinned: HostConfiguration?
    ) -> [KeyFinding] {
        var findings: [KeyFinding] = []
        guard let highest = sets.map(\.set.number).max() else {
            return [
                KeyFinding(
                    "keys/recipients-…", "no authentic recipient set is left", remedy: Self.copyBack
                )
            ]
        }
        // An owner's confirmation is stored as one more object with the same body, so equal numbers
        // are no fault by themselves.
        for (index, (name, set)) in sets.enumerated()
        where sets[..<index].contains(where: {
            $0.set.number == set.number && $0.set.body != set.body
        }) {
            findings.append(
                KeyFinding(
                    name, "contradicts another set of the same number", remedy: Self.copyBack))
        }
        for owner in access.owners {
            let named = sets.filter {
                $0.set.number == highest && $0.set.owners.contains(owner.recipient)
            }
            if let first = named.first, !named.contains(where: { $0.set.isProven(by: owner) }) {
                findings.append(
                    KeyFinding(
                        first.name,
                        "sender not proven: the owner whose identity was given has not confirmed it",
                        remedy:
                            "compare the fingerprint \(first.set.fingerprint) with the one init printed, then run 'batchsync key accept'",
                        isDamage: false))
            }
        }
        guard let pinned else { return findings }
        let accepted = sets.filter { $0.set.number == pinned.recipientNumber }
        if accepted.isEmpty {
            findings.append(
                KeyFinding(
                    "keys/recipients-\(pinned.recipientNumber)",
                    highest < pinned.recipientNumber
                        ? "is missing, and set \(highest) is the newest there: keys/ has been rolled back"
                        : "is missing: this host has pinned it",
                    remedy: Self.copyBack))
        }
        for (name, set) in accepted where set.owners != pinned.owners {
            findings.append(
                KeyFinding(
                    name, "names other owners than those this host has pinned",
                    remedy: Self.copyBack))
        }
        if highest > pinned.recipientNumber {
            findings.append(
                KeyFinding(
                    "keys/recipients-\(highest)",
                    "is newer than set \(pinned.recipientNumber), which this host has pinned and goes on sealing to",
                    remedy:
                        "if the owner has changed the recipients, run 'batchsync key accept' with a fresh export",
                    isDamage: false))
        }
        return findings
    }
}
