import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// A byte comes as another over a line that nobody guards, which looks like damage until it is
/// fetched once more.
@Suite("What arrives altered", .serialized)
struct AlteredTransferTests {
    /// A repository with two snapshots on a server of its own behind a proxy.
    private struct Scene {
        let place: StorePlace
        let proxy: FaultProxy
        let world: World
        let counter = TrafficCounter()
        /// What counts is counted through this one.
        let store: any ObjectStore
        let image: TreeImage

        init(isEncrypted: Bool) throws {
            place = try StorePlace(.strictS3, ownServer: true, behindProxy: true)
            proxy = try #require(place.proxy)
            world = try World(
                store: try place.store(), at: place.location, isEncrypted: isEncrypted,
                sourceInMemory: true)
            plantTree(world.source, files: 30, largeBytes: 9 << 20)
            let uploads = place.uploads
            func change(_ options: inout BackupOptions) {
                options.uploads = uploads
                options.bundleBytes = 1 << 20
            }
            try world.backup { change(&$0) }
            world.source.put(SeededGenerator.numbers(5, 3 << 20), "dir-2/new")
            try world.backup { change(&$0) }
            image = TreeImage(of: world.source.path)
            store = try place.store(counter: counter)
        }

        func verify(asOwner: Bool) throws -> VerifyReport {
            try Verify(
                repository: try world.open(through: store, asOwner: asOwner),
                options: VerifyOptions(
                    readData: .everything, host: "verifier",
                    now: Timestamp(nanosecondsSince1970: HostClock.now)),
                monitor: SilentMonitor(), cancellation: Cancellation()
            ).run()
        }

        /// Restores the newest snapshot on a machine that has seen nothing of the repository.
        func restore(_ what: String) throws {
            let reader = try world.addHost("reader")
            defer { withExtendedLifetime(reader) {} }
            let repository = try world.open(through: store, on: reader, asOwner: true)
            let target = TemporaryDirectory.inMemory()
            let report = try Restore(
                repository: repository, index: try ChunkIndex.load(repository),
                snapshot: try #require(try SnapshotCatalog.load(repository).snapshots.last),
                options: RestoreOptions(), monitor: SilentMonitor(), cancellation: Cancellation()
            ).run(path: Array(world.source.path.utf8), target: target.path("out"))
            #expect(report.damagedCount == 0, "\(what): \(report.damaged)")
            #expect(image.differences(TreeImage(of: target.path("out"))) == [], "\(what)")
        }

        /// Runs `body` while the line alters what the rule says; gives how often it did, and how
        /// often that was noticed.
        func altering(
            _ rule: String, _ body: () throws -> Void
        ) throws -> (fired: Int, noticed: Int) {
            let before = counter.now.altered
            proxy.set(rule)
            try body()
            let fired = proxy.fired.reduce(0, +)
            proxy.set()
            return (fired, counter.now.altered - before)
        }
    }

    @Test(
        "Verify reads it once more before it names damage, and counts it",
        .timeLimit(.minutes(60)), arguments: [true, false], [true, false])
    func verify(isEncrypted: Bool, asOwner: Bool) throws {
        let scene = try Scene(isEncrypted: isEncrypted)
        for rule in ["nth=1,flip-down=3", "nth=2,flip-down=200", "nth=3,flip-down=50"] {
            let (fired, noticed) = try scene.altering("method=GET,path=/bundles/,\(rule)") {
                let report = try scene.verify(asOwner: asOwner)
                #expect(report.isSound, "\(rule): \(report.findings.map(\.description))")
            }
            #expect(fired == 1 && noticed == 1, "\(rule)")
        }
    }

    @Test(
        "Restore fetches it once more, whatever it was", .timeLimit(.minutes(60)),
        arguments: [true, false])
    func restore(isEncrypted: Bool) throws {
        let scene = try Scene(isEncrypted: isEncrypted)
        var (fired, noticed) = (0, 0)
        for number in 1...9 {
            // In the head of a seal, behind what proves the head, and in the content.
            for byte in [20, 175, 5_000] {
                let rule = "method=GET,path=/bundles/,nth=\(number),flip-down=\(byte)"
                let outcome = try scene.altering(rule) { try scene.restore(rule) }
                // Without a seal nothing proves the head of an archive's member, on which no
                // content depends: altered there, it does no harm and is not noticed.
                let isNoticed =
                    outcome.fired == outcome.noticed || !isEncrypted && outcome.noticed == 0
                #expect(isNoticed, "\(rule): \(outcome)")
                fired += outcome.fired
                noticed += outcome.noticed
            }
        }
        #expect(fired >= (isEncrypted ? 18 : 9) && noticed >= (isEncrypted ? 18 : 5))
    }

    @Test(
        "Records, keys and the configuration are fetched once more", .timeLimit(.minutes(60)),
        arguments: ["/index/", "/snapshots/", "/keys/", "/config.json"])
    func records(path: String) throws {
        let scene = try Scene(isEncrypted: true)
        for byte in [0, 30, 100] {
            let rule = "method=GET,path=\(path),nth=1,flip-down=\(byte)"
            let outcome = try scene.altering(rule) { try scene.restore(rule) }
            #expect(outcome.fired == 1 && outcome.noticed == 1, "\(rule)")
        }
    }

    @Test("What is damaged where it lies is named, and no line is blamed", .timeLimit(.minutes(60)))
    func atRest() throws {
        let scene = try Scene(isEncrypted: true)
        let server = StrictS3(try #require(scene.place.server))
        let largest = try #require(
            try scene.world.open().listBundles().max { $0.value < $1.value })
        let prefix = try #require(scene.place.location.split(separator: "/").last)
        let key = try scene.world.open().bundleKey(largest.key)
        server.alter("\(prefix)/\(key)", "flip", at: 200_000)
        let report = try scene.verify(asOwner: true)
        #expect(report.findings.filter(\.isDamage).map(\.object) == [key])
        #expect(scene.counter.now.altered == 0)
    }

    @Test("The command says so in its summary", .timeLimit(.minutes(60)))
    func summary() throws {
        guard let binary = BuiltCommand.path else {
            try Test.cancel("the command is not built: make test builds it")
        }
        let scene = try Scene(isEncrypted: false)
        let host = TestHost("teller")
        scene.proxy.set("method=GET,path=/bundles/,nth=2,flip-down=1000")
        let outcome = BuiltCommand.output(
            [binary, "verify", "--read-data"] + scene.place.words,
            scene.place.environment.merging(host.environment) { $1 })
        #expect(scene.proxy.fired == [1])
        #expect(outcome.code == 0, "\(outcome.said)")
        #expect(outcome.said.contains("1 transfer arrived altered"), "\(outcome.said)")
    }
}

/// A name is listed, and for a while nothing can be read under it: a server that lists names before
/// the objects are whole.
@Suite("An index record that comes late", .serialized)
struct LateIndexTests {
    private func scene() throws -> (place: StorePlace, world: World) {
        let place = try StorePlace(.strictS3, behindProxy: true)
        let world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        plantTree(world.source, files: 20)
        try world.backup()
        return (place, world)
    }

    @Test("It is waited for with growing pauses, and is no damage then", .timeLimit(.minutes(60)))
    func late() throws {
        let (place, world) = try scene()
        let proxy = try #require(place.proxy)
        let reader = try world.addHost("reader")
        proxy.set("method=GET,path=/index/,first=4,status=404:NoSuchKey")
        var pauses: [Double] = []
        let index = try ChunkIndex.load(try world.open(on: reader), pause: { pauses.append($0) })
        #expect(proxy.fired == [4])
        #expect(pauses == [0.25, 0.5, 1])
        #expect(index.damaged.isEmpty && index.chunkCount > 0)
    }

    @Test("It is not waited for for ever, and the error says what to do", .timeLimit(.minutes(60)))
    func never() throws {
        let (place, world) = try scene()
        let proxy = try #require(place.proxy)
        let reader = try world.addHost("reader")
        proxy.set("method=GET,path=/index/,first=1000,status=404:NoSuchKey")
        var pauses: [Double] = []
        let index = try ChunkIndex.load(try world.open(on: reader), pause: { pauses.append($0) })
        #expect(pauses == [0.25, 0.5, 1, 2, 4, 8])
        #expect(proxy.fired == [8])
        let error = try #require(index.damaged.first)
        #expect(index.damaged.count == 1 && error.isMissing && error.kind == .storage)
        #expect(
            error.description.contains("index/") && error.description.contains("cannot be read"))
        #expect(error.remedy.contains("try again") && error.remedy.contains("repair index"))
        proxy.set()
        #expect(try ChunkIndex.load(try world.open(on: reader)).damaged.isEmpty)
    }

    @Test("One that was replaced meanwhile is not waited for")
    func replaced() throws {
        let memory = MemoryStore()
        let world = try World(store: memory, sourceInMemory: true)
        plantTree(world.source, files: 20)
        try world.backup()
        world.source.put(SeededGenerator.numbers(1, 5_000), "more")
        try world.backup()
        let reader = try world.addHost("reader")
        let store = InterferingStore(memory) { (operation, subject) throws(StorageError) in
            guard operation == .get, subject.hasPrefix("index/"), let key = ObjectKey(subject),
                memory.keys.count(where: { $0.text.hasPrefix("index/") }) == 2
            else { return }
            try memory.delete(key)
        }
        let index = try ChunkIndex.load(
            try world.open(through: store, on: reader), pause: { _ in Issue.record("a pause") })
        #expect(index.damaged.isEmpty && index.records.count == 1)
    }
}
