import AgeEncryption
import BundleFormat
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Verify")
struct VerifyTests {
    static let now = Timestamp(seconds: 1_700_100_000)

    static func run(
        _ made: MadeRepository, asOwner: Bool = true, _ share: VerifyOptions.Share? = nil,
        now: Timestamp = now
    ) throws -> VerifyReport {
        let verify = Verify(
            repository: try made.open(asOwner: asOwner),
            options: VerifyOptions(readData: share, host: "alpha", now: now),
            monitor: SilentMonitor(),
            cancellation: Cancellation())
        return try verify.run()
    }

    /// The one finding of a kind.
    static func one(_ report: VerifyReport, _ kind: VerifyFinding.Kind) throws -> VerifyFinding {
        let found = report.findings.filter { $0.kind == kind }
        #expect(
            found.count == 1, "\(report.findings.map { "\($0.kind.rawValue) \($0.description)" })")
        return try #require(found.first)
    }

    // MARK: What is sound

    @Test(
        "A sound repository has no finding, at any depth, with any key", arguments: [true, false],
        [true, false])
    func sound(encrypted: Bool, asOwner: Bool) throws {
        let made = try MadeRepository(encrypted: encrypted)
        try made.commit(MadeRepository.files(20))
        try made.commit(MadeRepository.files(25), at: 1_700_000_200)
        for share in [nil, VerifyOptions.Share.everything] {
            let report = try Self.run(made, asOwner: asOwner, share)
            #expect(report.findings.map(\.description) == [])
            #expect(report.snapshots == 2 && report.soundSnapshots == 2)
            #expect(report.bundles == made.contentBundles.count + made.manifestBundles.count)
            #expect(report.orphans == 0)
            let readsContent = asOwner || !encrypted
            #expect(report.manifestsRead == readsContent)
            #expect(report.bundlesRead == (share == nil ? 0 : report.bundles))
            #expect(report.contentRead == (share != nil && readsContent))
            if readsContent {
                #expect(report.entries == 21 + 26 - 4 * 5, "equal segments are read once")
            }
        }
    }

    /// The owner's identity comes when every bundle has been read against its name.
    static func runAhead(_ made: MadeRepository) throws -> VerifyReport {
        let store = RecordingStore(made.store)
        let host = try Repository.open(
            store: store, location: "memory", credential: .none, needsOwner: false,
            directories: made.directories)
        let bundles = made.contentBundles.count + made.manifestBundles.count
        // Nobody else touches it until the verification has ended.
        nonisolated(unsafe) let made = made
        let owner = OwnerOpening {
            while store.count(of: .range, below: "bundles/") < bundles { sched_yield() }
            return try made.open(asOwner: true)
        }
        return try Verify(
            repository: host, owner: owner,
            options: VerifyOptions(readData: .everything, host: "alpha", now: now),
            monitor: SilentMonitor(), cancellation: Cancellation()
        ).run()
    }

    @Test("What is found while the owner's identity is still to come is what is found with it")
    func ahead() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(20))
        let sound = try Self.runAhead(made)
        #expect(sound.findings.map(\.description) == [])
        #expect(sound.manifestsRead && sound.contentRead && sound.bundlesRead == sound.bundles)
        let marks = try VerifiedRecord.load(made.open(asOwner: false)).marks
        #expect(marks.count == sound.bundles && marks.values.allSatisfy { $0.depth == .content })
        made.store.alter(made.key(made.contentBundles[0])) { $0[$0.count / 2] ^= 1 }
        let damaged = try Self.runAhead(made)
        #expect(
            damaged.findings.map(\.description)
                == (try Self.run(made, .everything)).findings.map(\.description))
        #expect(!(try Self.one(damaged, .bundleDamaged).files.isEmpty))
    }

    @Test("An owner's identity that cannot be had ends it with the reason")
    func noOwner() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(3))
        let owner = OwnerOpening { throw RepositoryError(.wrongKey, "", "wrong passphrase") }
        let verify = Verify(
            repository: try made.open(asOwner: false), owner: owner,
            options: VerifyOptions(readData: nil, host: "alpha", now: Self.now),
            monitor: SilentMonitor(), cancellation: Cancellation())
        #expect {
            try verify.run()
        } throws: { error in
            (error as? ReplicationError)?.kind == .repository(.wrongKey)
        }
    }

    @Test("A bundle that no snapshot needs is counted and is no damage")
    func orphans() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(4))
        let other = try made.commit(
            MadeRepository.files(4, seed: 2), at: 1_700_000_200, isIndexed: false)
        try made.store.delete(made.key(try #require(other.name)))
        let report = try Self.run(made)
        #expect(report.isSound)
        #expect(report.orphans == 2)
        #expect(report.orphanBytes > 0)
    }

    // MARK: Bundles

    @Test(
        "A missing bundle is named with its snapshots, and with the owner's identity with its files"
    )
    func missingBundle() throws {
        let made = try MadeRepository()
        let first = try made.commit(MadeRepository.files(6))
        let second = try made.commit(
            MadeRepository.files(6) + [MadeRepository.file("/data/g", [1, 2, 3])], at: 1_700_000_200
        )
        let third = try made.commit(MadeRepository.files(2, seed: 9), at: 1_700_000_300)
        let lost = made.contentBundles[0]
        try made.store.delete(made.key(lost))
        let asHost = try Self.one(try Self.run(made, asOwner: false), .bundleMissing)
        #expect(asHost.object == made.repository.bundleKey(lost))
        #expect(asHost.snapshots == [first.id, second.id])
        #expect(asHost.files.isEmpty)
        let report = try Self.run(made)
        let asOwner = try Self.one(report, .bundleMissing)
        #expect(asOwner.snapshots == [first.id, second.id])
        #expect(!asOwner.snapshots.contains(third.id))
        let names = Set(asOwner.files.map { String(decoding: $0.path, as: UTF8.self) })
        #expect(names == Set((0..<6).map { "/data/f000\($0)" }))
        #expect(report.damagedSnapshots == 2)
        #expect(report.findings.count == 1)
    }

    @Test("A bundle of another size is named, by structure alone")
    func wrongSize() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(MadeRepository.files(6))
        made.store.alter(made.key(made.contentBundles[0])) { $0.removeLast(3) }
        let finding = try Self.one(try Self.run(made, asOwner: false), .bundleSize)
        #expect(finding.snapshots == [snapshot.id])
    }

    @Test("One flipped byte is found by reading, and costs only the files of its frame")
    func flippedByte() throws {
        let made = try MadeRepository(encrypted: false)
        made.framesPerBundle = 8
        let snapshot = try made.commit(MadeRepository.files(8))
        let bundle = made.contentBundles[0]
        // Two files a frame; the second frame begins behind the random frame and the first.
        let frames = try ChunkIndex.load(made.repository).frames(of: bundle)
        made.store.alter(made.key(bundle)) { $0[frames[1].offset + frames[1].length / 2] ^= 1 }
        #expect(try Self.run(made).isSound, "structure alone cannot see it")
        let report = try Self.run(made, .everything)
        let finding = try Self.one(report, .bundleDamaged)
        #expect(finding.object == made.repository.bundleKey(bundle))
        #expect(finding.snapshots == [snapshot.id])
        #expect(
            finding.files.map { String(decoding: $0.path, as: UTF8.self) } == [
                "/data/f0002", "/data/f0003",
            ])
        #expect(finding.fileCount == 2)
        #expect(report.findings.count == 1)
    }

    @Test("Without an owner's identity a flipped byte names snapshots")
    func flippedByteAsHost() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(MadeRepository.files(8))
        made.store.alter(made.key(made.contentBundles[0])) { $0[$0.count / 2] ^= 1 }
        let finding = try Self.one(try Self.run(made, asOwner: false, .everything), .bundleDamaged)
        #expect(finding.snapshots == [snapshot.id])
        #expect(finding.message.contains("hash"))
    }

    @Test("A damaged bundle whose chunks lie in a sound one as well harms no file")
    func secondCopy() throws {
        let made = try MadeRepository(encrypted: false)
        let files = MadeRepository.files(6)
        try made.commit(files)
        let copies = try made.storeAgain(files)
        made.store.alter(made.key(made.contentBundles[0])) { $0[$0.count / 2] ^= 1 }
        let finding = try Self.one(try Self.run(made, .everything), .bundleDamaged)
        #expect(finding.fileCount == 0)
        #expect(copies.count == 1)
    }

    @Test("Two bundles that changed places are both named")
    func reordered() throws {
        let made = try MadeRepository()
        made.framesPerBundle = 1
        try made.commit(MadeRepository.files(4))
        let (left, right) = (made.key(made.contentBundles[0]), made.key(made.contentBundles[1]))
        let (a, b) = (try #require(made.store.bytes(left)), try #require(made.store.bytes(right)))
        made.store.plant(b, at: left)
        made.store.plant(a, at: right)
        for asOwner in [true, false] {
            let damaged = try Self.run(made, asOwner: asOwner, .everything).findings
                .filter { $0.kind == .bundleDamaged || $0.kind == .bundleSize }.map(\.object)
            #expect(Set(damaged) == [left.text, right.text])
        }
    }

    // MARK: Manifests and index

    @Test("A missing manifest bundle is named with the snapshots that begin in it")
    func missingManifest() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(6))
        let second = try made.commit(MadeRepository.files(3, seed: 4), at: 1_700_000_200)
        try made.store.delete(made.key(made.manifestBundles[1]))
        for asOwner in [true, false] {
            let report = try Self.run(made, asOwner: asOwner)
            #expect(try Self.one(report, .bundleMissing).snapshots == [second.id])
            #expect(report.soundSnapshots == 1)
        }
    }

    @Test("A manifest whose chunks do not add up to the size is named with the file")
    func wrongLength() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(MadeRepository.files(3)) { entry in
            if entry.path == Array("/data/f0001".utf8) { entry.size += 1 }
        }
        let finding = try Self.one(try Self.run(made), .manifest)
        #expect(finding.files.map(\.path) == [Array("/data/f0001".utf8)])
        #expect(finding.snapshots == [snapshot.id])
    }

    @Test("A chunk that the index does not know is named with its file")
    func unknownChunk() throws {
        let made = try MadeRepository()
        let lost = ChunkID(1, 2, 3, 4)
        try made.commit(MadeRepository.files(3)) { entry in
            if entry.path == Array("/data/f0002".utf8) { entry.chunks = [lost] }
        }
        let finding = try Self.one(try Self.run(made), .index)
        #expect(finding.files.map(\.path) == [Array("/data/f0002".utf8)])
        #expect(finding.message.contains("\(lost)"))
    }

    @Test("A segment line that keeps silent about a bundle is found")
    func shortNeed() throws {
        let made = try MadeRepository()
        made.framesPerBundle = 1
        let files = MadeRepository.files(8)
        try made.commit(files)
        let record = made.indexRecords[0]
        let silent = made.contentBundles[2]
        let lines = String(decoding: try made.repository.readRecord(record), as: UTF8.self)
            .split(separator: "\n").map { line -> String in
                guard line.hasPrefix("{\"segment\"") else { return String(line) }
                return String(line).replacing("\"\(silent)\",", with: "").replacing(
                    ",\"\(silent)\"", with: ""
                )
                .replacing("\"\(silent)\"", with: "")
            }
        try made.store.delete(made.key(record))
        let bytes = Array((lines.joined(separator: "\n") + "\n").utf8)
        try bytes.withUnsafeBytes {
            _ = try made.repository.putRecord(.index, time: nil, payload: $0)
        }
        #expect(try Self.run(made, asOwner: false).isSound, "the host key alone believes the index")
        let finding = try Self.one(try Self.run(made), .index)
        #expect(finding.message.contains(made.repository.bundleKey(silent)))
        #expect(finding.fileCount == 2)
    }

    @Test("An index that misplaces a chunk is named when the bundle is read")
    func misplacedChunk() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(3))
        let record = made.indexRecords[0]
        let payload = String(decoding: try made.repository.readRecord(record), as: UTF8.self)
        let id = try #require(
            made.bundleOf.keys.filter { payload.contains("[[\"\($0)\",512,") }.sorted().first)
        let wrong = payload.replacing("[[\"\(id)\",512,", with: "[[\"\(id)\",511,")
        try made.store.delete(made.key(record))
        try Array(wrong.utf8).withUnsafeBytes {
            _ = try made.repository.putRecord(.index, time: nil, payload: $0)
        }
        #expect(try Self.run(made, asOwner: false, .everything).isSound)
        let finding = try Self.one(try Self.run(made, .everything), .index)
        #expect(finding.object == made.repository.bundleKey(try #require(made.bundleOf[id])))
    }

    @Test(
        "An altered index record is refused and named, and so are the snapshots that only it knows")
    func alteredIndex() throws {
        let made = try MadeRepository()
        let first = try made.commit(MadeRepository.files(3))
        try made.commit(MadeRepository.files(3, seed: 2), at: 1_700_000_200)
        let key = made.key(made.indexRecords[0])
        made.store.alter(key) { $0[$0.count / 2] ^= 4 }
        made.dropCache()
        let report = try Self.run(made, asOwner: false)
        #expect(try Self.one(report, .record).object == key.text)
        #expect(try Self.one(report, .index).snapshots == [first.id])
        #expect(report.soundSnapshots == 1)
    }

    @Test("A cached index does not hide that the stored record is damaged")
    func alteredIndexBehindCache() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(3))
        #expect(try Self.run(made).isSound)
        let key = made.key(made.indexRecords[0])
        made.store.alter(key) { $0[$0.count - 1] ^= 4 }
        let report = try Self.run(made)
        #expect(try Self.one(report, .record).object == key.text)
        #expect(report.soundSnapshots == 1, "this host can still restore")
    }

    // MARK: Tampering

    @Test(
        "A snapshot forged with the public keys alone is refused and named; the others are listed")
    func forgedSnapshot() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(MadeRepository.files(3))
        let name = try #require(snapshot.name)
        let header =
            "{\"batchsync\":1,\"kind\":\"snapshot\",\"repository\":\"\(made.repository.id)\",\"mac\":\"\(String(repeating: "0", count: 64))\"}\n"
        let plain = Array(header.utf8) + (try made.repository.readRecord(name))
        let recipients =
            made.repository.access.recipients + [
                try #require(made.repository.access.host).identity.recipient
            ]
        let forged = try plain.withUnsafeBytes {
            try SealedRecord.seal($0, level: 3, recipients: recipients.map { .x25519($0) })
        }
        let id: RecordID = forged.withUnsafeBytes { ContentHash.sha256($0) }
        let key = made.key(RecordName(type: .snapshot, utc: name.utc, id: id))
        made.store.plant(forged, at: key)
        let report = try Self.run(made, asOwner: false)
        let finding = try Self.one(report, .record)
        #expect(finding.object == key.text)
        #expect(finding.message.contains("forged"))
        #expect(report.snapshots == 1 && report.soundSnapshots == 1)
    }

    @Test("A record under another record's name is named")
    func renamedRecord() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(MadeRepository.files(3))
        let name = try #require(snapshot.name)
        let later = made.key(RecordName(type: .snapshot, utc: "20301231T235959Z", id: name.id))
        made.store.plant(try #require(made.store.bytes(made.key(name))), at: later)
        let finding = try Self.one(try Self.run(made, asOwner: false), .record)
        #expect(finding.object == later.text)
        #expect(finding.message.contains("renamed"))
    }

    @Test("Swapped recipients are named")
    func swappedRecipients() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(1))
        let opened = try made.open(asOwner: false)
        let attacker = X25519Identity()
        for key in made.store.keys where key.text.hasPrefix("keys/recipients-1-") {
            let text = String(decoding: try #require(made.store.bytes(key)), as: UTF8.self)
                .replacing(made.owner.recipient.encoded(), with: attacker.recipient.encoded())
            try made.store.delete(key)
            made.store.plant(
                Array(text.utf8),
                at: ObjectKey(validated: "keys/recipients-1-\(sha256Hex(Array(text.utf8))).json"))
        }
        let report = try Verify(
            repository: opened, options: VerifyOptions(host: "alpha", now: Self.now),
            monitor: SilentMonitor(),
            cancellation: Cancellation()
        ).run()
        let findings = report.findings.filter { $0.kind == .keys && $0.isDamage }
        #expect(findings.contains { $0.message.contains("forged") })
        #expect(findings.contains { $0.message.contains("no authentic recipient set") })
    }

    @Test(
        "A removed or altered key object is named", arguments: ["keys/host-", "keys/recipients-"])
    func keysHarmed(prefix: String) throws {
        for isRemoved in [true, false] {
            let made = try MadeRepository()
            try made.commit(MadeRepository.files(1))
            for key in made.store.keys where key.text.hasPrefix(prefix) {
                if isRemoved {
                    try made.store.delete(key)
                } else {
                    made.store.alter(key) { $0[$0.count - 5] ^= 1 }
                }
            }
            let report = try Self.run(made, asOwner: false)
            #expect(
                report.findings.contains {
                    $0.kind == .keys && $0.isDamage && $0.object.hasPrefix(prefix)
                })
            #expect(report.findings.allSatisfy { $0.kind == .keys })
        }
    }

    @Test("A recipient set newer than the pinned one is told, not taken")
    func newerRecipients() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(1))
        let host = try #require(made.repository.access.host)
        _ = try RepositoryKeys(of: made.repository).putRecipients(
            [made.owner.recipient, X25519Identity().recipient], host: host, provenBy: [made.owner],
            now: Self.now)
        let report = try Self.run(made, asOwner: false)
        let finding = try Self.one(report, .keys)
        #expect(!finding.isDamage && finding.message.contains("newer"))
        #expect(report.isSound)
    }

    @Test("A key set that was rolled back below the pinned one is named")
    func rolledBackRecipients() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(1))
        let path = made.directories.hostKeyPath(made.repository.id)
        let pinned = try HostConfiguration(
            parsing: try #require(try LocalFile.read(path)), path: path)
        let newer = HostConfiguration(
            repository: pinned.repository, configDigest: pinned.configDigest,
            identity: pinned.identity,
            recipientNumber: 2, owners: pinned.owners)
        try LocalFile.write(newer.bytes, to: path)
        let finding = try Self.one(try Self.run(made, asOwner: false), .keys)
        #expect(finding.message.contains("rolled back"))
    }

    @Test("An altered recover.py is named, and so is a missing one")
    func recovery() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(1))
        let key = ObjectKey(validated: "recover.py")
        made.store.alter(key) { $0.append(0x0A) }
        #expect(try Self.one(try Self.run(made, asOwner: false), .recovery).isDamage)
        try made.store.delete(key)
        #expect(
            try Self.one(try Self.run(made, asOwner: false), .recovery).message.contains("missing"))
    }

    @Test("A host whose last commit has vanished says so, unless it was forgotten")
    func vanished() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(2))
        let last = try made.commit(MadeRepository.files(3), at: 1_700_000_200)
        let name = try #require(last.name)
        try LastCommit(snapshot: last.id, name: name.text, time: last.time, host: last.host)
            .store(for: made.repository)
        #expect(try Self.run(made, asOwner: false).isSound)
        try made.store.delete(made.key(name))
        let finding = try Self.one(try Self.run(made, asOwner: false), .vanished)
        #expect(finding.object.contains(last.id.description))
        try made.repository.putRecord(
            .forgotten, time: Self.now,
            .object([
                ("time", .string(Self.now.text)), ("host", .string("alpha")),
                ("snapshots", .array([.string(last.id.description)])),
            ]))
        #expect(try Self.run(made, asOwner: false).isSound)
    }

    // MARK: Condemned bundles

    private func condemn(_ made: MadeRepository, _ bundles: [BundleID], at seconds: Int64) throws
        -> RecordName
    {
        let time = Timestamp(seconds: seconds)
        return try made.repository.putRecord(
            .condemned, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string("alpha")),
                ("state", .string("condemned")),
                ("bundles", JSONValue(ids: bundles)), ("index", .array([])),
            ]))
    }

    @Test("A condemned bundle that is needed is told and is no damage")
    func condemnedAndNeeded() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(MadeRepository.files(3))
        _ = try condemn(made, [made.contentBundles[0]], at: 1_700_000_300)
        let report = try Self.run(made, asOwner: false)
        #expect(report.isSound)
        #expect(try Self.one(report, .condemned).snapshots == [snapshot.id])
    }

    @Test("A snapshot that a delete phase had not seen is named as incomplete")
    func incomplete() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(MadeRepository.files(3))
        let record = try condemn(made, [made.contentBundles[0]], at: 1_700_000_000)
        let time = Timestamp(seconds: 1_700_000_050)
        try made.repository.putRecord(
            .condemned, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string("alpha")),
                ("state", .string("deleting")),
                ("records", .array([.string(record.text)])), ("snapshots", .array([])),
            ]))
        try made.store.delete(made.key(made.contentBundles[0]))
        let report = try Self.run(made, asOwner: false)
        #expect(try Self.one(report, .incomplete).snapshots == [snapshot.id])
        #expect(try Self.one(report, .bundleMissing).snapshots == [snapshot.id])
    }

    // MARK: Shares

    @Test("A thirtieth each night covers everything in thirty nights", arguments: [true, false])
    func nightly(asOwner: Bool) throws {
        let made = try MadeRepository()
        made.framesPerBundle = 1
        try made.commit(MadeRepository.files(90))
        var read = 0
        for night in 0..<30 {
            let now = Timestamp(seconds: Self.now.seconds + Int64(night) * 86_400)
            read += try Self.run(made, asOwner: asOwner, .fraction(1, of: 30), now: now).bundlesRead
        }
        let verified = try VerifiedRecord.load(made.repository)
        #expect(verified.marks.count == made.contentBundles.count + made.manifestBundles.count)
        #expect(verified.marks.values.allSatisfy { $0.depth == (asOwner ? .content : .digest) })
        #expect(
            read < 2 * verified.marks.count, "no night reads what another has read before all are")
        #expect(try made.repository.listRecords(.verified).count == 1)
        let report = try Self.run(made, asOwner: asOwner)
        #expect(report.neverRead == 0)
        #expect(report.oldestRead != nil)
    }

    @Test("The longest unverified comes first, and a digest does not count as content")
    func order() throws {
        let made = try MadeRepository()
        made.framesPerBundle = 1
        try made.commit(MadeRepository.files(8))
        _ = try Self.run(made, asOwner: false, .everything, now: Timestamp(seconds: 1000))
        _ = try Self.run(made, asOwner: true, .share(percent: 40), now: Timestamp(seconds: 2000))
        let half = try VerifiedRecord.load(made.repository).marks
        let opened = Set(half.filter { $0.value.depth == .content }.keys)
        #expect(!opened.isEmpty && opened.count < half.count)
        let report = try Self.run(
            made, asOwner: true, .share(percent: 40), now: Timestamp(seconds: 3000))
        let later = try VerifiedRecord.load(made.repository).marks.filter {
            $0.value.time.seconds == 3000
        }
        #expect(later.count == report.bundlesRead)
        #expect(later.keys.allSatisfy { !opened.contains($0) })
    }

    @Test("A damaged bundle is not remembered as verified")
    func damagedIsNotRemembered() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(8))
        made.store.alter(made.key(made.contentBundles[0])) { $0[$0.count / 2] ^= 1 }
        _ = try Self.run(made, .everything)
        let marks = try VerifiedRecord.load(made.repository).marks
        #expect(marks[made.contentBundles[0]] == nil)
        #expect(!marks.isEmpty)
    }

    @Test(
        "A share of stored bytes is what it says",
        arguments: [
            (VerifyOptions.Share.everything, 40), (.bytes(5), 5), (.bytes(0), 0), (.bytes(50), 40),
            (.share(percent: 100), 40), (.share(percent: 0.1), 1), (.share(percent: 200), 40),
            (.fraction(1, of: 5), 8),
            (.fraction(1, of: 3), 14), (.fraction(3, of: 3), 40),
        ])
    func shares(share: VerifyOptions.Share, bytes: Int) { #expect(share.bytes(of: 40) == bytes) }

    @Test("A run that is cancelled ends with that")
    func cancelled() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(8))
        let cancellation = Cancellation()
        cancellation.cancel()
        let verify = Verify(
            repository: made.repository,
            options: VerifyOptions(readData: .everything, host: "alpha", now: Self.now),
            monitor: SilentMonitor(), cancellation: cancellation)
        #expect { try verify.run() } throws: { ($0 as? ReplicationError)?.kind == .interrupted }
    }

    @Test("A store that fails while a bundle is read is told apart from damage")
    func storeFails() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(8))
        let faulty = FaultyStore(
            made.store,
            faults: [FaultyStore.Fault(.range, below: "bundles/", kind: .io, isTransient: true)])
        let repository = try Repository.open(
            store: faulty, location: "memory", credential: .none, needsOwner: false,
            directories: made.directories)
        let report = try Verify(
            repository: repository,
            options: VerifyOptions(readData: .everything, host: "alpha", now: Self.now),
            monitor: SilentMonitor(), cancellation: Cancellation()
        ).run()
        #expect(report.findings.count == 1)
        #expect(report.findings.first?.kind == .unreadable)
    }
}
