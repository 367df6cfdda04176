import AgeEncryption
import BundleFormat
import ObjectStorage
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// What somebody can do who has the store and the public keys, and nothing else.
@Suite("Tampering with the store")
struct TamperTests {
    static let files = (0..<20).map {
        SmallFile(path: "/srv/f\($0)", content: Array("content \($0)".utf8))
    }

    /// A repository with one snapshot, and that snapshot.
    static func make() throws -> (RepositoryFixture, Repository, Snapshot) {
        let fixture = try RepositoryFixture.withRecipient()
        let repository = try fixture.open()
        return (fixture, repository, try SmallBackup(repository: repository).store(files))
    }

    static func publicKeys(_ repository: Repository) throws -> [AgeRecipient] {
        repository.contentRecipients + [
            .x25519(try #require(repository.access.host).identity.recipient)
        ]
    }

    static func header(
        _ kind: String, _ repository: Repository, mac: String? = nil, version: Int = 1,
        more: String = ""
    ) -> [UInt8] {
        var text =
            "{\"batchsync\":\(version),\"kind\":\"\(kind)\",\"repository\":\"\(repository.id)\""
        if let mac { text += ",\"mac\":\"\(mac)\"" }
        return Array((text + more + "}\n").utf8)
    }

    // MARK: Snapshots

    @Test(
        "A snapshot sealed to the public keys by somebody else is refused and named",
        arguments: [nil, "00", String(repeating: "ab", count: 32)])
    func forgedSnapshot(mac: String?) throws {
        let (fixture, repository, genuine) = try Self.make()
        var forged = Snapshot(
            time: Timestamp(seconds: 1_800_000_000), host: "here", roots: [],
            program: "batchsync test")
        forged.manifestIDs = genuine.manifestIDs
        let bytes = try sealedByOutsider(
            Self.header("snapshot", repository, mac: mac) + forged.json.bytes + [0x0A],
            to: Self.publicKeys(repository))
        let key = recordKey("snapshots", utc: forged.time.compactUTC, bytes)
        fixture.store.plant(bytes, at: key)
        for reader in [repository, try fixture.openAsOwner(on: HostPlaces())] {
            let catalog = try SnapshotCatalog.load(reader)
            #expect(catalog.snapshots.map(\.id) == [genuine.id])
            #expect(catalog.damaged.count == 1)
            #expect(catalog.damaged.first?.kind == .damaged)
            #expect(catalog.damaged.first?.subject == key.text)
        }
    }

    @Test("A snapshot under another time, another id or another folder is refused and named")
    func renamed() throws {
        let (fixture, repository, genuine) = try Self.make()
        let name = try #require(genuine.name)
        let key = try #require(fixture.keys("snapshots/").first)
        let bytes = try #require(fixture.store.bytes(key))
        let later = try #require(ObjectKey("snapshots/20991231T235959Z-\(name.id).json.zst.age"))
        fixture.store.plant(bytes, at: later)
        let otherID = try #require(
            ObjectKey("snapshots/\(name.utc)-\(String(repeating: "5", count: 64)).json.zst.age"))
        fixture.store.plant(bytes, at: otherID)
        fixture.store.plant(bytes, at: try #require(ObjectKey("marks/\(name.text).json.zst.age")))
        fixture.store.plant(
            bytes, at: try #require(ObjectKey("forgotten/\(name.text).json.zst.age")))
        let catalog = try SnapshotCatalog.load(repository)
        #expect(catalog.snapshots.map(\.id) == [genuine.id])
        #expect(
            Set(catalog.damaged.map(\.subject)) == [
                later.text, otherID.text, "marks/\(name.text).json.zst.age",
                "forgotten/\(name.text).json.zst.age",
            ])
    }

    @Test("Names that are not of the format are passed over")
    func strangeNames() throws {
        let (fixture, repository, genuine) = try Self.make()
        for name in [
            "snapshots/hello", "snapshots/20260101T000000Z.json.zst.age",
            "snapshots/2026-01-01-\(genuine.id).json.zst.age",
            "snapshots/20260101T000000Z-\(genuine.id).json.zst", "index/x.jsonl.zst.age",
            "bundles/zz/\(genuine.id).tar.zst.age",
            "later/20260101T000000Z-\(genuine.id).json.zst.age", "keys/notes.txt",
            "keys/owner-a-b-c.age",
        ] {
            fixture.store.plant([1], at: try #require(ObjectKey(name)))
        }
        let catalog = try SnapshotCatalog.load(repository)
        #expect(catalog.damaged.isEmpty)
        #expect(catalog.snapshots.count == 1)
        #expect(try repository.listBundles().count == 2)
        #expect(try fixture.openAsOwner(on: HostPlaces()).access.notes.isEmpty)
    }

    @Test("One bit turned anywhere in a snapshot is noticed")
    func bits() throws {
        let (fixture, repository, genuine) = try Self.make()
        let key = try #require(fixture.keys("snapshots/").first)
        let bytes = try #require(fixture.store.bytes(key))
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<60 {
            let position = Int.random(in: 0..<bytes.count, using: &generator)
            fixture.store.alter(key) {
                $0[position] ^= 1 << UInt8.random(in: 0...7, using: &generator)
            }
            let catalog = try SnapshotCatalog.load(repository)
            #expect(catalog.snapshots.isEmpty)
            #expect(catalog.damaged.map(\.subject) == [key.text])
            fixture.store.plant(bytes, at: key)
        }
        #expect(try SnapshotCatalog.load(repository).snapshots.map(\.id) == [genuine.id])
    }

    @Test("A record of one kind is none of another, although the same host has sealed it")
    func kinds() throws {
        let (fixture, repository, _) = try Self.make()
        let value = JSONValue.object([
            ("time", .string(RepositoryFixture.time.text)), ("host", .string("here")),
            ("snapshots", .array([])),
        ])
        for kind in RecordType.allCases where kind != .index {
            let name = try repository.putRecord(kind, time: RepositoryFixture.time, value)
            let key = try #require(
                fixture.keys(kind.prefix).first { $0.text.contains("\(name.id)") })
            let bytes = try #require(fixture.store.bytes(key))
            #expect(try repository.openRecord(name, bytes: bytes) == value.bytes + [0x0A])
            for other in RecordType.allCases where other != kind {
                let renamed = RecordName(
                    type: other, utc: other == .index ? "" : name.utc, id: name.id)
                #expect(
                    failure { _ = try repository.openRecord(renamed, bytes: bytes) }?.kind
                        == .damaged)
            }
        }
    }

    @Test("The MAC of one kind, of another repository or of another payload proves nothing")
    func macs() throws {
        let (_, repository, _) = try Self.make()
        let host = try #require(repository.access.host)
        let payload = Array(
            "{\"time\":\"\(RepositoryFixture.time.text)\",\"host\":\"here\"}\n".utf8)
        func opens(kind: String, as type: RecordType, id: String, payload signed: [UInt8]) throws
            -> Bool
        {
            let mac = try macByHand(
                secret: host.identity.secretBytes, repository: id, kind: kind, payload: signed)
            let bytes = try sealedByOutsider(
                Self.header(type.rawValue, repository, mac: mac) + payload,
                to: Self.publicKeys(repository))
            let name = RecordName(
                type: type, utc: RepositoryFixture.time.compactUTC, id: digest(bytes))
            return failure { _ = try repository.openRecord(name, bytes: bytes) } == nil
        }
        let own = repository.id.description
        // Computed here from the page of the format: this is the one that counts.
        #expect(try opens(kind: "mark", as: .mark, id: own, payload: payload))
        for kind in [
            "snapshot", "run", "condemned", "forgotten", "verified", "index", "recipients", "Mark",
            "",
        ] {
            #expect(try !opens(kind: kind, as: .mark, id: own, payload: payload))
        }
        #expect(
            try !opens(
                kind: "mark", as: .mark, id: String(repeating: "0", count: 64), payload: payload))
        #expect(try !opens(kind: "mark", as: .mark, id: own, payload: payload + [0x20]))
    }

    @Test(
        "A header is read only as far as a header goes, and no critical field in it is passed over")
    func headers() throws {
        let (_, repository, _) = try Self.make()
        func refusal(_ plain: [UInt8]) throws -> RepositoryError? {
            let bytes = try sealedByOutsider(plain, to: Self.publicKeys(repository))
            let name = RecordName(type: .snapshot, utc: "20260101T000000Z", id: digest(bytes))
            return failure { _ = try repository.openRecord(name, bytes: bytes) }
        }
        let mac = String(repeating: "0", count: 64)
        #expect(
            try refusal(Array(repeating: 0x20, count: 1 << 20) + [0x0A])?.message.contains(
                "no header line") == true)
        #expect(try refusal([])?.kind == .damaged)
        #expect(try refusal(Array("no json\n".utf8))?.kind == .damaged)
        #expect(try refusal(Array("[1]\n".utf8))?.kind == .damaged)
        #expect(
            try refusal(Self.header("snapshot", repository, mac: mac, version: 0) + [0x0A])?.kind
                == .damaged)
        let newer = try refusal(Self.header("snapshot", repository, mac: mac, version: 2) + [0x0A])
        #expect(newer?.kind == .newerFormat)
        #expect(newer?.remedy.contains("newer release") == true)
        let critical = Self.header(
            "snapshot", repository, mac: mac, more: ",\"new\":1,\"critical\":[\"new\"]")
        #expect(try refusal(critical + [0x0A])?.kind == .newerFormat)
    }

    // MARK: Old records

    @Test(
        "An old record under its own name is what it was, and a host whose own record is newer names the rollback"
    )
    func replay() throws {
        let (fixture, repository, first) = try Self.make()
        let old = fixture.copied()
        let second = try SmallBackup(
            repository: repository, time: Timestamp(seconds: 1_700_000_100)
        ).store(Self.files + [SmallFile(path: "/srv/new", content: [1])])
        try LastCommit(
            snapshot: second.id, name: second.name!.text, time: second.time, host: second.host
        ).store(for: repository)

        // The store is put back to what it was before the second snapshot.
        let rolledBack = try old.open()
        let catalog = try SnapshotCatalog.load(rolledBack)
        #expect(catalog.damaged.isEmpty, "every object there is genuine")
        let last = try #require(LastCommit.load(for: rolledBack))
        #expect(last.name == second.name?.text)
        #expect(last.time == second.time)
        #expect(last.snapshot == second.id)
        #expect(!catalog.snapshots.contains { $0.id == last.snapshot })
        #expect(!catalog.forgotten.contains(last.snapshot))
        #expect(catalog.snapshots.last.map { $0.time < last.time } == true)
        #expect(catalog.snapshots.map(\.id) == [first.id])
        #expect(LastCommit.vanished(from: catalog, of: rolledBack).map(\.snapshot) == [second.id])
        let present = try SnapshotCatalog.load(repository)
        #expect(LastCommit.vanished(from: present, of: repository).isEmpty)
        // Another host, which has no record of its own, cannot see it.
        let fresh = try old.openAsOwner(on: HostPlaces())
        #expect(LastCommit.vanished(from: catalog, of: fresh).isEmpty)
        #expect(LastCommit.load(for: fresh) == nil)
    }

    @Test(
        "A state file that is damaged says nothing rather than something wrong",
        arguments: [
            "", "{}", "[]",
            "{\"snapshot\":\"xx\",\"name\":\"a\",\"time\":\"1.000000000\",\"host\":\"h\"}",
            "{\"snapshot\":",
        ])
    func lastCommit(text: String) throws {
        let (_, repository, _) = try Self.make()
        try LocalFile.write(Array(text.utf8), to: repository.statePath + "/last-commit.json")
        #expect(LastCommit.load(for: repository) == nil)
    }

    // MARK: The configuration

    @Test(
        "An altered config.json is refused by a host and by an owner, whatever was altered",
        arguments: [
            ("\"minimum\":65536", "\"minimum\":32768"),
            ("\"grace_seconds\":86400", "\"grace_seconds\":1"),
            ("\"encryption\":\"age\"", "\"encryption\":\"none\""), ("}\n", " }\n"),
        ])
    func alteredConfig(old: String, new: String) throws {
        let (fixture, _, _) = try Self.make()
        let key = try #require(ObjectKey("config.json"))
        fixture.store.alter(key) {
            $0 = Array(String(decoding: $0, as: UTF8.self).replacing(old, with: new).utf8)
        }
        #expect(failure { _ = try fixture.open() }?.kind == .notProven)
        #expect(failure { _ = try fixture.openAsOwner() }?.kind == .notProven)
        if new.contains("none") { return }
        let error = failure { _ = try fixture.openAsOwner(on: HostPlaces()) }
        #expect(error?.kind == .damaged)
    }

    @Test(
        "A host that knows the repository encrypted sends nothing to one without encryption in its place"
    )
    func downgrade() throws {
        let (fixture, _, _) = try Self.make()
        let plain = try RepositoryFixture.plain()
        let swapped = RepositoryFixture(store: plain.store, host: fixture.host, owner: nil)
        let error = try #require(failure { _ = try swapped.open() })
        #expect(error.kind == .notProven)
        #expect(error.message.contains("not encrypted"))
        // Whoever makes a repository without encryption at that place herself is believed.
        let own = RepositoryFixture(store: MemoryStore(), host: fixture.host, owner: nil)
        _ = try Repository.create(
            store: own.store, location: RepositoryFixture.location, protection: .none,
            now: RepositoryFixture.time,
            directories: own.host.directories)
        #expect(try own.open().access.host == nil)
    }

    @Test(
        "A repository of a newer format is refused with a word about the release, and an unknown critical field as well"
    )
    func newerConfig() throws {
        for (old, new) in [
            ("\"batchsync\":1", "\"batchsync\":2"),
            ("\"kind\"", "\"new\":1,\"critical\":[\"new\"],\"kind\""),
        ] {
            let fixture = try RepositoryFixture.plain()
            fixture.store.alter(try #require(ObjectKey("config.json"))) {
                $0 = Array(String(decoding: $0, as: UTF8.self).replacing(old, with: new).utf8)
            }
            let error = failure { _ = try fixture.open() }
            #expect(error?.kind == .newerFormat)
            #expect(error?.remedy.contains("newer") == true)
        }
    }

    @Test("A place without config.json is no repository, and one with it takes no second")
    func places() throws {
        let empty = RepositoryFixture(store: MemoryStore(), host: HostPlaces(), owner: nil)
        let error = failure { _ = try empty.open() }
        #expect(error?.kind == .notARepository)
        #expect(error?.remedy.contains("init") == true)
        let fixture = try RepositoryFixture.plain()
        let before = fixture.store.contents
        #expect(
            failure {
                _ = try Repository.create(
                    store: fixture.store, location: "x", protection: .none,
                    now: RepositoryFixture.time,
                    directories: HostPlaces().directories)
            }?.kind == .exists)
        #expect(fixture.store.contents == before)
    }

    @Test("Of two that make a repository at one place at once, one is told that it lost")
    func race() throws {
        let fixture = try RepositoryFixture.withRecipient()
        let winner = try #require(fixture.store.bytes(ObjectKey("config.json")!))
        let late = LateStore(fixture.store.copy(), appearing: winner)
        let places = HostPlaces()
        let error = failure {
            _ = try Repository.create(
                store: late, location: "x", protection: .recipients([X25519Identity().recipient]),
                now: RepositoryFixture.time,
                directories: places.directories)
        }
        #expect(error?.kind == .exists)
        #expect(
            !places.home.contents().contains { $0.hasSuffix(".json") },
            "no key of a repository that is none")
    }

    // MARK: Recipients and host keys

    /// A recipient set as an outsider would write it: his host key, his MAC, and what proofs he
    /// likes.
    static func outsiderSet(
        of repository: Repository, number: Int, owners: [X25519Recipient], host: X25519Identity,
        config: String? = nil,
        proofs: [(String, String)] = []
    ) throws -> [UInt8] {
        let body = Array(
            "{\"batchsync\":1,\"kind\":\"recipients\",\"repository\":\"\(repository.id)\",\"number\":\(number),\"owners\":[\(owners.map { "\"\($0.encoded())\"" }.joined(separator: ","))],\"host\":\"\(host.recipient.encoded())\",\"config\":\"\(config ?? repository.configDigest.description)\",\"created\":\"0.000000000\"}"
                .utf8)
        let mac = try hmacByHand(
            secret: host.secretBytes, salt: repository.id.bytes, info: "batchsync/mac/recipients",
            message: body)
        let list = proofs.map { "{\"owner\":\"\($0.0)\",\"mac\":\"\($0.1)\"}" }.joined(
            separator: ",")
        return body + Array("\n{\"mac\":\"\(mac)\",\"proofs\":[\(list)]}\n".utf8)
    }

    static func plantSet(_ bytes: [UInt8], number: Int, in fixture: RepositoryFixture) {
        fixture.store.plant(
            bytes, at: ObjectKey("keys/recipients-\(number)-\(digest(bytes)).json")!)
    }

    static func plantHostKey(
        _ host: X25519Identity, for owner: X25519Recipient, in fixture: RepositoryFixture
    ) throws {
        let sealed = try AgeEncryptor.seal(Array("\(host.encoded())\n".utf8), to: [.x25519(owner)])
        fixture.store.plant(sealed, at: ObjectKey("keys/host-\(digest(sealed)).age")!)
    }

    @Test(
        "A recipient set of somebody else is not taken: not a higher one, not one with a false proof, not one of the same number",
        arguments: [1, 2, 999_999_999])
    func forgedSet(number: Int) throws {
        let (fixture, repository, genuine) = try Self.make()
        let outsider = X25519Identity()
        let outsidersHost = X25519Identity()
        let owner = fixture.owner!.recipient
        for proofs in [[], [(owner.encoded(), String(repeating: "ab", count: 32))]] {
            let fixture = fixture.copied()
            Self.plantSet(
                try Self.outsiderSet(
                    of: repository, number: number, owners: [owner, outsider.recipient],
                    host: outsidersHost, proofs: proofs),
                number: number, in: fixture)
            try Self.plantHostKey(outsidersHost, for: owner, in: fixture)
            for place in [fixture.host, HostPlaces()] {
                let opened = try fixture.openAsOwner(on: place)
                #expect(opened.access.recipients == [owner])
                #expect(opened.access.host?.identity == repository.access.host?.identity)
                #expect(try SnapshotCatalog.load(opened).snapshots.map(\.id) == [genuine.id])
                // It is named, and whoever asks for the sets of the open repository does not get
                // it.
                let keys = RepositoryKeys(of: opened)
                let (sets, refused) = try keys.recipientSets(try keys.list())
                #expect(sets.allSatisfy { $0.owners == [owner] })
                #expect(
                    refused.contains {
                        $0.contains("recipients-\(number)-") && $0.contains("forged")
                    })
                #expect(
                    try keys.audit(opened.access, pinned: nil).contains {
                        $0.isDamage && $0.object.contains("recipients-\(number)-")
                    })
                let next = try keys.putRecipients(
                    [owner], host: try #require(opened.access.host), provenBy: [fixture.owner!],
                    now: RepositoryFixture.time)
                #expect(next.number == 2)
                // The next place finds the repository as this one did.
                for key in fixture.keys("keys/recipients-2-") {
                    let isOutsiders = KeyTests.contains(
                        fixture.store.bytes(key)!, Array(outsidersHost.recipient.encoded().utf8))
                    if !isOutsiders { try fixture.store.delete(key) }
                }
            }
            #expect(
                try fixture.open().access.recipients == [owner], "a host goes by what it has pinned"
            )
        }
    }

    @Test(
        "Where no owner has confirmed yet, a swapped host key is refused by the host that has pinned the true one"
    )
    func swappedHostKey() throws {
        let fixture = try RepositoryFixture.withRecipient(isConfirmed: false)
        let repository = try fixture.open()
        let owner = fixture.owner!
        let outsidersHost = X25519Identity()
        for key in fixture.keys("keys/") { try? fixture.store.delete(key) }
        Self.plantSet(
            try Self.outsiderSet(
                of: repository, number: 1, owners: [owner.recipient], host: outsidersHost),
            number: 1, in: fixture)
        try Self.plantHostKey(outsidersHost, for: owner.recipient, in: fixture)
        #expect(failure { _ = try fixture.openAsOwner() }?.kind == .notProven)
        #expect(
            failure { _ = try fixture.open(.identities([owner]), acceptUnproven: true) }?.kind
                == .notProven)
        // A machine that knows nothing can only compare the fingerprint, and is told so.
        #expect(failure { _ = try fixture.openAsOwner(on: HostPlaces()) }?.kind == .notProven)
    }

    @Test(
        "The true set counts for the host that has pinned it, although a higher forged one lies beside it"
    )
    func pinnedAmongForged() throws {
        let fixture = try RepositoryFixture.withRecipient(isConfirmed: false)
        let repository = try fixture.open()
        let outsidersHost = X25519Identity()
        Self.plantSet(
            try Self.outsiderSet(
                of: repository, number: 7, owners: [fixture.owner!.recipient], host: outsidersHost),
            number: 7,
            in: fixture)
        try Self.plantHostKey(outsidersHost, for: fixture.owner!.recipient, in: fixture)
        #expect(try fixture.openAsOwner().access.recipientNumber == 1)
    }

    @Test("A set whose number has been lowered, altered or renamed is refused and named")
    func alteredSet() throws {
        let (fixture, repository, _) = try Self.make()
        let sets = fixture.keys("keys/recipients-")
        for key in sets {
            let bytes = try #require(fixture.store.bytes(key))
            let id = digest(bytes)
            let renamed = fixture.copied()
            try renamed.store.delete(key)
            for key in sets { try? renamed.store.delete(key) }
            renamed.store.plant(bytes, at: try #require(ObjectKey("keys/recipients-4-\(id).json")))
            let error = try #require(failure { _ = try renamed.openAsOwner(on: HostPlaces()) })
            #expect(error.kind == .damaged)
            let findings = try RepositoryKeys(of: try renamed.open()).audit(
                repository.access, pinned: Self.pin(fixture, repository))
            #expect(findings.contains { $0.object.hasPrefix("keys/recipients-4-") && $0.isDamage })
        }
        // One owner swapped in a set that keeps its MAC and its proof.
        let swapped = fixture.copied()
        let proven = try #require(
            sets.first {
                String(decoding: fixture.store.bytes($0)!, as: UTF8.self).contains("\"proofs\":[{")
            })
        var text = String(decoding: fixture.store.bytes(proven)!, as: UTF8.self)
        text = text.replacing(
            "\"owners\":[\"\(fixture.owner!.recipient.encoded())\"",
            with: "\"owners\":[\"\(X25519Identity().recipient.encoded())\"")
        for key in sets { try? swapped.store.delete(key) }
        Self.plantSet(Array(text.utf8), number: 1, in: swapped)
        #expect(failure { _ = try swapped.openAsOwner(on: HostPlaces()) } != nil)
        #expect(
            try RepositoryKeys(of: try swapped.open()).audit(repository.access, pinned: nil)
                .contains { $0.isDamage })
    }

    static func pin(_ fixture: RepositoryFixture, _ repository: Repository) throws
        -> HostConfiguration
    {
        let path = fixture.host.directories.hostKeyPath(repository.id)
        return try HostConfiguration(parsing: try #require(try LocalFile.read(path)), path: path)
    }

    @Test(
        "A host that has pinned a higher set refuses the repository when only a lower one is left")
    func loweredSet() throws {
        let (fixture, _, _) = try Self.make()
        let before = fixture.copied()
        let opened = try fixture.openAsOwner()
        let set = try RepositoryKeys(of: opened).putRecipients(
            [fixture.owner!.recipient, X25519Identity().recipient],
            host: try #require(opened.access.host),
            provenBy: [fixture.owner!], now: RepositoryFixture.time)
        let current = try fixture.openAsOwner()
        let fresh = try RepositoryKeys(of: current).hostConfiguration(current)
        #expect(fresh.recipientNumber == set.number)
        try LocalFile.write(fresh.bytes, to: fixture.host.directories.hostKeyPath(current.id))
        #expect(try fixture.open().access.recipients.count == 2)
        let error = try #require(failure { _ = try before.openAsOwner() })
        #expect(error.kind == .notProven)
        #expect(error.message.contains("rolled back"))
        let findings = try RepositoryKeys(of: try before.open()).audit(
            try before.open().access, pinned: fresh)
        #expect(findings.contains { $0.isDamage && $0.message.contains("rolled back") })
    }

    @Test("A sealed host key that is swapped or gone is named to an owner on a new machine")
    func lostHostKey() throws {
        let (fixture, repository, _) = try Self.make()
        for key in fixture.keys("keys/host-") { try? fixture.store.delete(key) }
        #expect(failure { _ = try fixture.openAsOwner(on: HostPlaces()) }?.kind == .damaged)
        try Self.plantHostKey(X25519Identity(), for: fixture.owner!.recipient, in: fixture)
        #expect(failure { _ = try fixture.openAsOwner(on: HostPlaces()) }?.kind == .damaged)
        // A host that has the key in its configuration still opens it, and its audit names what is
        // missing.
        let owned = try fixture.openAsOwner()
        #expect(owned.access.host?.identity == repository.access.host?.identity)
        #expect(
            try RepositoryKeys(of: owned).audit(owned.access, pinned: nil).contains {
                $0.object.hasPrefix("keys/host-") && $0.isDamage
            })
    }

    @Test("An audit of sound keys finds nothing")
    func soundKeys() throws {
        let (fixture, repository, _) = try Self.make()
        let pin = try Self.pin(fixture, repository)
        for reader in [repository, try fixture.openAsOwner()] {
            #expect(try RepositoryKeys(of: reader).audit(reader.access, pinned: pin).isEmpty)
        }
        #expect(
            try RepositoryKeys(of: try RepositoryFixture.plain().open()).audit(
                try RepositoryFixture.plain().open().access, pinned: nil
            ).isEmpty)
    }

    // MARK: Index and bundles

    @Test("An index record that is altered or forged says nothing and is named")
    func alteredIndex() throws {
        let (fixture, repository, _) = try Self.make()
        let key = try #require(fixture.keys("index/").first)
        let bytes = try #require(fixture.store.bytes(key))
        fixture.store.alter(key) { $0[$0.count / 2] ^= 1 }
        let index = try ChunkIndex.load(repository)
        #expect(index.damaged.map(\.subject) == [key.text])
        #expect(index.chunkCount == 0)
        fixture.store.plant(bytes, at: key)
        let forged = try sealedByOutsider(
            Self.header("index", repository, mac: String(repeating: "0", count: 64))
                + Array("{\"segment\":\"\(chunkID([1]))\",\"bundles\":[]}\n".utf8),
            to: Self.publicKeys(repository))
        let forgedKey = try #require(ObjectKey("index/\(digest(forged)).jsonl.zst.age"))
        fixture.store.plant(forged, at: forgedKey)
        let both = try ChunkIndex.load(repository)
        #expect(both.damaged.map(\.subject) == [forgedKey.text])
        #expect(both.bundles(ofSegment: chunkID([1])) == nil)
        #expect(both.bundleCount == 2)
    }

    @Test("A bundle in another's place is noticed when it is read, and so is each bit turned in it")
    func swappedBundle() throws {
        let (fixture, _, snapshot) = try Self.make()
        let owned = try fixture.openAsOwner()
        let sound = try contents(snapshot, of: owned)
        #expect(sound.count == Self.files.count)
        let bundles = fixture.keys("bundles/")
        let first = try #require(fixture.store.bytes(bundles[0]))
        let second = try #require(fixture.store.bytes(bundles[1]))
        fixture.store.plant(second, at: bundles[0])
        fixture.store.plant(first, at: bundles[1])
        #expect(failure { _ = try contents(snapshot, of: owned) }?.kind == .damaged)
        fixture.store.plant(first, at: bundles[0])
        fixture.store.plant(second, at: bundles[1])
        var generator = SeededGenerator(seed: 3)
        for _ in 0..<40 {
            let key = bundles[Int.random(in: 0...1, using: &generator)]
            let bytes = try #require(fixture.store.bytes(key))
            let position = Int.random(in: 0..<bytes.count, using: &generator)
            fixture.store.alter(key) { $0[position] ^= 0x10 }
            // What is not read is not noticed here, but nothing wrong ever comes out.
            let outcome = try? contents(snapshot, of: owned)
            #expect(outcome == nil || outcome == sound)
            fixture.store.plant(bytes, at: key)
        }
        #expect(try contents(snapshot, of: owned) == sound)
    }
}

/// A store in which somebody else's `config.json` appears between the look and the put.
final class LateStore: ObjectStore {
    private let inner: MemoryStore

    init(_ inner: MemoryStore, appearing config: [UInt8]) {
        self.inner = inner
        inner.plant(config, at: ObjectKey("config.json")!)
    }

    var capabilities: StoreCapabilities { inner.capabilities }
    func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        // The other's has the same length, as `config.json` of one release always has.
        if key.text == "config.json" { return }
        // What both write under one name is the same.
        if inner.bytes(key) != nil { return }
        try inner.put(content, at: key)
    }
    func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        try inner.get(key, maximumBytes: maximumBytes)
    }
    func get(_ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer)
        throws(StorageError) -> Int
    {
        try inner.get(key, range: range, into: buffer)
    }
    func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? { nil }
    func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        try inner.list(prefix: prefix, body)
    }
    func delete(_ key: ObjectKey) throws(StorageError) { try inner.delete(key) }
    func makeSpool() throws(StorageError) -> SpoolFile { try inner.makeSpool() }
    func currentTime() throws(StorageError) -> Int64 { try inner.currentTime() }
}
