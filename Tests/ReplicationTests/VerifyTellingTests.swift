import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("What verify tells")
struct VerifyTellingTests {
    @Test("A harmed file is named once, with all snapshots that do not have it whole")
    func filesOnce() throws {
        let made = try MadeRepository(encrypted: false)
        // All content in one bundle each, so that one damage harms every version.
        made.framesPerBundle = 100
        let files = MadeRepository.files(6)
        let first = try made.commit(files)
        // The same content under other times: the second snapshot has segments of its own.
        let second = try made.commit(files, at: 1_700_000_200) {
            $0.mtime = Timestamp(seconds: 1_600_000_500)
        }
        let third = try made.commit(MadeRepository.files(2, seed: 9), at: 1_700_000_300)
        try made.store.delete(made.key(made.contentBundles[0]))
        let report = try VerifyTests.run(made)
        let finding = try VerifyTests.one(report, .bundleMissing)
        #expect(finding.snapshots == [first.id, second.id])
        #expect(
            finding.files.map { String(decoding: $0.path, as: UTF8.self) }
                == (0..<6).map { "/data/f000\($0)" })
        #expect(finding.files.allSatisfy { $0.snapshots == [first.id, second.id] })
        #expect(finding.fileCount == 6)
        #expect(!finding.snapshots.contains(third.id))
    }

    @Test(
        "The page and the program for a restore without batchsync are named where they were altered or taken away",
        arguments: ["RECOVER.md", "recover.py"])
    func recovery(_ name: String) throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(3))
        #expect(try VerifyTests.run(made, asOwner: false).findings.isEmpty)
        let key = try #require(ObjectKey(name))
        made.store.alter(key) { $0[$0.count / 2] ^= 1 }
        let altered = try VerifyTests.one(
            try VerifyTests.run(made, asOwner: false), .recovery)
        #expect(altered.object == name)
        #expect(altered.message.contains("SHA-256"))
        try made.store.delete(key)
        let missing = try VerifyTests.one(
            try VerifyTests.run(made, asOwner: false), .recovery)
        #expect(missing.object == name)
        #expect(missing.message.contains("missing"))
    }

    @Test("Of what a server that computes sums does not answer, that is said")
    func unanswered() throws {
        let made = try MadeRepository()
        try made.commit(MadeRepository.files(20))
        let hidden = made.key(made.contentBundles[0])
        let repository = try Repository.open(
            store: HashingStore(made.store, hiding: hidden), location: "memory", credential: .none,
            needsOwner: false, directories: made.directories)
        var options = VerifyOptions(host: "alpha", now: VerifyTests.now)
        options.hashesRemotely = true
        let report = try Verify(
            repository: repository, options: options, monitor: SilentMonitor(),
            cancellation: Cancellation()
        ).run()
        #expect(report.isSound)
        #expect(report.bundles > 1)
        #expect(report.computedRemotely == report.bundles - 1)
        #expect(report.uncompared == 1)
    }

    @Test("Deleting a damaged bundle and backing up again stores anew what is still on disk")
    func remedy() throws {
        let store = MemoryStore()
        let world = try World(store: store)
        plantTree(world.source)
        let first = try world.backup().snapshot
        let before = TreeImage(of: world.source.path)
        // What verify calls damaged is removed, as it advises.
        let bundles = try world.open().listBundles().keys.sorted()
        for id in bundles {
            let key = try #require(ObjectKey(try world.open().bundleKey(id)))
            store.alter(key) { $0[$0.count / 2] ^= 1 }
        }
        let damaged = try world.verify(data: true).findings.filter { $0.kind == .bundleDamaged }
        #expect(damaged.count == bundles.count)
        for finding in damaged {
            #expect(finding.remedy.contains("delete the object and back up again"))
            try store.delete(try #require(ObjectKey(finding.object)))
        }
        let second = try world.backup().snapshot
        #expect(try world.image(of: second) == before)
        let report = try world.verify(data: true)
        #expect(
            !report.findings.contains { $0.isDamage && $0.snapshots.contains(second.id) },
            "\(report.findings)")
        // Nothing had changed, so the older snapshot is whole again as well.
        #expect(try world.image(of: first) == before)
    }
}

/// A server that computes sums where its objects lie, but does not find one of them there.
private final class HashingStore: StoreDecorator {
    let base: any ObjectStore
    private let hidden: ObjectKey

    init(_ base: any ObjectStore, hiding hidden: ObjectKey) {
        self.base = base
        self.hidden = hidden
    }

    var capabilities: StoreCapabilities {
        var capabilities = base.capabilities
        capabilities.remoteDigests = true
        return capabilities
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        _ = try effect()
    }

    func digests(
        of keys: [ObjectKey], _ body: (ObjectKey, [UInt8]) -> Bool
    ) throws(StorageError) {
        for key in keys where key != hidden {
            let bytes = try base.get(key)
            let digest: RecordID = bytes.withUnsafeBytes { ContentHash.sha256($0) }
            guard body(key, digest.bytes) else { return }
        }
    }
}
