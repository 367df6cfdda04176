import AgeEncryption
import BundleFormat
import ObjectStorage
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Keys")
struct KeyTests {
    static let secret = Array("the content that no host may read, whatever lies on it".utf8)

    @Test(
        "A passphrase opens, a wrong one does not, another can be added, and the last cannot be removed"
    )
    func passphrases() throws {
        let first = Array("correct horse".utf8)
        let second = Array("battery staple".utf8)
        let fixture = RepositoryFixture(store: MemoryStore(), host: HostPlaces(), owner: nil)
        let created = try Repository.create(
            store: fixture.store, location: RepositoryFixture.location,
            protection: .passphrase(first),
            now: RepositoryFixture.time, directories: fixture.host.directories)
        #expect(created.unprovenFingerprint == nil)
        #expect(fixture.keys("keys/owner-passphrase-").count == 1)
        let opened = try fixture.open(.passphrase(first), on: HostPlaces())
        let owner = try #require(opened.access.owners.first)
        #expect(opened.access.canReadContent)
        #expect(
            failure { _ = try fixture.open(.passphrase(second), on: HostPlaces()) }?.kind
                == .wrongKey)

        let keys = RepositoryKeys(of: opened)
        let only = try #require(fixture.keys("keys/owner-").first)
        #expect(
            failure { _ = try keys.remove(only.text, staying: .passphrase(first)) }?.kind
                == .refused)
        #expect(
            failure { _ = try keys.addPassphrase(second, label: "Not A Label", for: owner) }?.kind
                == .refused)
        #expect(fixture.keys("keys/owner-").count == 1)

        _ = try keys.addPassphrase(second, label: "anna", for: owner)
        #expect(try fixture.open(.passphrase(second), on: HostPlaces()).access.owners == [owner])
        // A name that several begin with names none of them; nor does one that nothing has.
        #expect(
            failure { _ = try keys.remove("owner-", staying: .passphrase(second)) }?.kind
                == .notFound)
        #expect(
            failure { _ = try keys.remove("owner-bert", staying: .passphrase(second)) }?.kind
                == .notFound)
        #expect(
            failure { _ = try keys.remove("host-", staying: .identities([owner])) }?.kind
                == .refused)

        // A damaged one is none: the other cannot go as long as nothing else opens the repository.
        let anna = try #require(fixture.keys("keys/owner-anna-").first)
        let whole = try #require(fixture.store.bytes(anna))
        fixture.store.alter(anna) { $0[$0.count - 1] ^= 1 }
        #expect(
            failure { _ = try keys.remove(only.text, staying: .passphrase(first)) }?.kind
                == .refused)
        // Nor does it keep the sound one from opening.
        #expect(try fixture.open(.passphrase(first), on: HostPlaces()).access.owners == [owner])
        fixture.store.plant(whole, at: anna)

        // The passphrase that goes shows nothing of the one that stays.
        #expect(
            failure { _ = try keys.remove("owner-passphrase", staying: .passphrase(first)) }?.kind
                == .refused)
        #expect(try keys.remove("owner-passphrase", staying: .passphrase(second)) == only.text)
        #expect(
            failure { _ = try fixture.open(.passphrase(first), on: HostPlaces()) }?.kind
                == .wrongKey)
    }

    @Test("The last key to what was stored before an owner was added cannot be removed")
    func lastKeyOfEarlierTime() throws {
        let words = Array("the first owner's".utf8)
        let fixture = RepositoryFixture(store: MemoryStore(), host: HostPlaces(), owner: nil)
        _ = try Repository.create(
            store: fixture.store, location: RepositoryFixture.location,
            protection: .passphrase(words), now: RepositoryFixture.time,
            directories: fixture.host.directories)
        let opened = try fixture.open(.passphrase(words), on: HostPlaces())
        let first = try #require(opened.access.owners.first)
        let host = try #require(opened.access.host)
        let keys = RepositoryKeys(of: opened)
        let second = X25519Identity()
        _ = try keys.putRecipients(
            [first.recipient, second.recipient], host: host, provenBy: [first],
            now: RepositoryFixture.time)
        let others = Array("the second owner's".utf8)
        _ = try keys.addPassphrase(others, label: "second", for: second)
        for staying in [OwnerCredential.identities([second]), .passphrase(others)] {
            #expect(
                failure { _ = try keys.remove("owner-passphrase", staying: staying) }?.kind
                    == .refused)
        }
        #expect(fixture.keys("keys/owner-passphrase-").count == 1)
        _ = try keys.remove("owner-second", staying: .passphrase(words))
        _ = try keys.remove("owner-passphrase", staying: .identities([first]))
        #expect(fixture.keys("keys/owner-").isEmpty)
    }

    @Test("A former owner opens what was stored in his time, where the next set is pinned")
    func formerOwner() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let first = try #require(fixture.owner)
        let opened = try fixture.openAsOwner()
        let host = try #require(opened.access.host)
        let keys = RepositoryKeys(of: opened)
        let second = X25519Identity()
        _ = try keys.putRecipients(
            [first.recipient, second.recipient], host: host, provenBy: [first],
            now: RepositoryFixture.time)
        let set = try keys.putRecipients(
            [second.recipient], host: host, provenBy: [second], now: RepositoryFixture.time)
        let pinned = HostConfiguration(
            repository: opened.id, configDigest: opened.configDigest, identity: host.identity,
            recipientNumber: set.number, owners: set.owners)
        try LocalFile.write(
            pinned.bytes, to: fixture.host.directories.hostKeyPath(opened.id))

        let later = try fixture.open(.identities([second]))
        #expect(later.access.owners == [second] && later.access.recipientNumber == set.number)
        let former = try fixture.open(.identities([first]))
        #expect(former.access.owners == [first])
        #expect(former.access.recipients == [second.recipient])
        #expect(former.access.recipientNumber == set.number)
        let together = try fixture.open(.identities([first, second]))
        #expect(together.access.owners == [second, first])
    }

    @Test("What an interrupted init left under the same passphrase keeps nobody out")
    func leftOwner() throws {
        let words = Array("the same words".utf8)
        let fixture = RepositoryFixture(store: MemoryStore(), host: HostPlaces(), owner: nil)
        for _ in 0..<2 {
            // `config.json` is written last: without it the first attempt never was.
            for key in fixture.keys("config.json") { try? fixture.store.delete(key) }
            _ = try Repository.create(
                store: fixture.store, location: RepositoryFixture.location,
                protection: .passphrase(words),
                now: RepositoryFixture.time, directories: fixture.host.directories)
        }
        #expect(fixture.keys("keys/owner-").count == 2)
        #expect(try fixture.open(.passphrase(words), on: HostPlaces()).access.canReadContent)
    }

    @Test("A repository made for a recipient is unproven until its owner has confirmed it")
    func unproven() throws {
        let fixture = try RepositoryFixture.withRecipient(isConfirmed: false)
        let credential = OwnerCredential.identities([fixture.owner!])
        let refused = try #require(failure { _ = try fixture.open(credential, on: HostPlaces()) })
        #expect(refused.kind == .notProven)
        let accepted = try fixture.open(credential, on: HostPlaces(), acceptUnproven: true)
        let set = try RepositoryKeys(of: accepted).recipientSets(
            try RepositoryKeys(of: accepted).list()
        ).sets[0]
        #expect(refused.message.contains(set.fingerprint))
        #expect(set.fingerprint.count == 39)
        // The host that made it knows its own keys.
        #expect(try fixture.open(credential).access.recipientNumber == 1)

        try fixture.confirm()
        let proven = try fixture.open(credential, on: HostPlaces())
        #expect(proven.access.canReadContent)
        #expect(proven.access.recipients == [fixture.owner!.recipient])
    }

    @Test("What init tells for comparison is the fingerprint of the set in the repository")
    func fingerprint() throws {
        let owner = X25519Identity()
        let store = MemoryStore()
        let created = try Repository.create(
            store: store, location: "s", protection: .recipients([owner.recipient]),
            now: RepositoryFixture.time,
            directories: HostPlaces().directories)
        let keys = RepositoryKeys(of: created.repository)
        #expect(
            created.unprovenFingerprint
                == (try keys.recipientSets(try keys.list()).sets[0].fingerprint))
    }

    @Test("An identity that is no owner's opens nothing")
    func stranger() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let error = failure {
            _ = try fixture.open(.identities([X25519Identity()]), on: HostPlaces())
        }
        #expect(error?.kind == .wrongKey)
    }

    @Test("A host without a key is told where it belongs and how to get it")
    func noHostKey() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let other = HostPlaces()
        let error = try #require(failure { _ = try fixture.open(on: other) })
        #expect(error.kind == .noHostKey)
        #expect(error.message.contains(other.directories.hostKeyPath(try fixture.open().id)))
        #expect(error.remedy.contains("key export --host"))
    }

    @Test("An exported host configuration lets another host write and list, and read no content")
    func exported() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let owned = try fixture.openAsOwner(on: HostPlaces())
        let exported = try RepositoryKeys(of: owned).hostConfiguration(owned).bytes
        let read = try HostConfiguration(parsing: exported, path: "host.json")
        #expect(read.bytes == exported)
        let other = HostPlaces()
        try LocalFile.write(exported, to: other.directories.hostKeyPath(read.repository))
        let repository = try fixture.open(on: other)
        #expect(!repository.access.canReadContent)
        let snapshot = try SmallBackup(repository: repository, host: "other").store([
            SmallFile(path: "/a", content: Self.secret)
        ])
        #expect(try SnapshotCatalog.load(try fixture.open()).snapshots.map(\.id) == [snapshot.id])
        #expect(try contents(snapshot, of: owned) == ["/a": Self.secret])
        #expect(failure { _ = try contents(snapshot, of: repository) }?.kind == .wrongKey)
    }

    @Test(
        "Nothing on a host, in its configuration, cache, state or repository, opens content; the owner's identity does"
    )
    func hostReadsNothing() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let repository = try fixture.open()
        let snapshot = try SmallBackup(repository: repository).store([
            SmallFile(path: "/srv/a", content: Self.secret),
            SmallFile(path: "/srv/b", content: [1, 2, 3]),
        ])
        try LastCommit(
            snapshot: snapshot.id, name: try #require(snapshot.name).text, time: snapshot.time,
            host: snapshot.host
        ).store(for: repository)
        _ = try ChunkIndex.load(repository)

        // Whatever on this host, or in the store, reads as an age identity, in clear or opened by
        // one found before.
        var identities: [X25519Identity] = []
        var pool: [[UInt8]] = fixture.host.home.contents().compactMap { fixture.host.home.read($0) }
        #expect(pool.count >= 3)
        pool += fixture.store.contents.values
        var isNew = true
        while isNew {
            isNew = false
            for bytes in pool {
                var texts = [bytes]
                if let opened = try? openAge(bytes, identities) {
                    texts.append(opened)
                }
                for identity in texts.flatMap(Self.identities) where !identities.contains(identity)
                {
                    identities.append(identity)
                    isNew = true
                }
            }
        }
        #expect(identities.count == 1, "the host key, and it alone")
        #expect(identities[0] == repository.access.host?.identity)
        let bundles = fixture.keys("bundles/")
        #expect(bundles.count == 2)
        for key in bundles {
            let bytes = try #require(fixture.store.bytes(key))
            #expect(throws: AgeError.self) {
                try openAge(bytes, identities)
            }
            let opened = try openAge(bytes, [fixture.owner!])
            #expect(!opened.isEmpty)
        }
        for bytes in pool { #expect(!Self.contains(bytes, Self.secret)) }
        #expect(failure { _ = try contents(snapshot, of: repository) }?.kind == .wrongKey)
        #expect(try contents(snapshot, of: fixture.openAsOwner())["/srv/a"] == Self.secret)
    }

    @Test("Whoever a later set of owners adds opens what is sealed from then on, and only that")
    func laterOwner() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let before = try SmallBackup(repository: fixture.open()).store([
            SmallFile(path: "/a", content: Self.secret)
        ])
        let opened = try fixture.openAsOwner()
        let later = X25519Identity()
        let set = try RepositoryKeys(of: opened).putRecipients(
            [fixture.owner!.recipient, later.recipient], host: try #require(opened.access.host),
            provenBy: [fixture.owner!], now: RepositoryFixture.time)
        #expect(set.number == 2)
        // This host goes on with what it has pinned; the owner takes the newer set.
        #expect(try fixture.open().access.recipientNumber == 1)
        let owned = try fixture.openAsOwner()
        #expect(owned.access.recipientNumber == 2)
        let after = try SmallBackup(
            repository: owned, time: Timestamp(seconds: 1_700_000_100)
        ).store([SmallFile(path: "/b", content: [9, 9, 9])])
        let asLater = try fixture.open(.identities([later]), on: HostPlaces(), acceptUnproven: true)
        #expect(try contents(after, of: asLater)["/b"] == [9, 9, 9])
        #expect(failure { _ = try contents(before, of: asLater) }?.kind == .wrongKey)
        #expect(try contents(before, of: owned)["/a"] == Self.secret)
    }

    @Test("The host's key lies in a file of its own that nobody else may read")
    func keyFile() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let path = fixture.host.directories.hostKeyPath(try fixture.open().id)
        #expect(permissions(path) == 0o600)
        #expect(permissions(fixture.host.home.path("config/keys")) == 0o700)
    }

    private static func identities(_ bytes: [UInt8]) -> [X25519Identity] {
        let prefix = Array("AGE-SECRET-KEY-1".utf8)
        guard bytes.count > prefix.count else { return [] }
        return (0..<(bytes.count - prefix.count)).compactMap { start in
            guard bytes[start] == prefix[0], Array(bytes[start..<(start + prefix.count)]) == prefix
            else { return nil }
            let text = bytes[start...].prefix {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || $0 == 0x2D
            }
            return try? X25519Identity(parsing: String(decoding: text, as: UTF8.self))
        }
    }

    static func contains(_ bytes: [UInt8], _ part: [UInt8]) -> Bool {
        guard bytes.count >= part.count else { return false }
        return (0...(bytes.count - part.count)).contains {
            bytes[$0] == part[0] && Array(bytes[$0..<($0 + part.count)]) == part
        }
    }
}
