import ObjectStorage
import Replication
import SnapshotRepository
import TestSupport
import Testing

/// What the built command asks of a server, by the server's own log.
@Suite("How many requests the built command makes")
struct RemoteRequestTests {
    @Test(
        "A first backup, a night without changes, one with some, and a listing stay within bounds",
        .timeLimit(.minutes(60)))
    func counts() throws {
        guard let binary = BuiltCommand.path else {
            try Test.cancel(
                "the command is not built: make test builds it, and BATCHSYNC_BINARY says where it is"
            )
        }
        let place = try StorePlace(.strictS3, ownServer: true)
        let world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        let server = StrictS3(try #require(place.server))
        let directories = world.host.directories
        let environment = place.environment.merging([
            "BATCHSYNC_CONFIG_DIR": directories.configuration,
            "BATCHSYNC_CACHE_DIR": directories.cache, "BATCHSYNC_STATE_DIR": directories.state,
        ]) { $1 }

        /// Requests of one verb, and how many bundles it stored.
        func requests(_ verb: String, _ more: [String]) -> (all: [StrictS3.Request], bundles: Int) {
            server.reset()
            #expect(BuiltCommand.run([binary, verb] + place.words + more, environment).code == 0)
            let log = server.log()
            #expect(log.allSatisfy { $0.status < 500 && $0.status != 0 })
            let bundles = log.count { $0.operation == "PutObject" && $0.key.contains("/bundles/") }
            return (log, bundles)
        }
        func describe(_ log: [StrictS3.Request]) -> String {
            log.map { "\($0.operation) \($0.key) \($0.query)" }.joined(separator: ", ")
        }

        plantTree(world.source, files: 60, largeBytes: 20 << 20)
        let backup = ["--bundle-size", "1M", world.source.path]
        let first = requests("backup", backup)
        #expect(first.bundles > 4)
        #expect(first.all.count <= first.bundles + 12, "\(describe(first.all))")
        world.settle()

        let unchanged = requests("backup", backup)
        #expect(unchanged.bundles == 0 && unchanged.all.count <= 5, "\(describe(unchanged.all))")
        world.settle()

        world.source.put(SeededGenerator.numbers(9, 200_000), "dir-2/new")
        let changed = requests("backup", backup)
        #expect(
            changed.bundles == 2 && changed.all.count <= changed.bundles + 8,
            "\(describe(changed.all))")

        _ = requests("snapshots", [])
        let listing = requests("snapshots", [])
        #expect(listing.all.count <= 2, "\(describe(listing.all))")
    }

    @Test(
        "One small file of a large repository costs a new machine the records, a piece of the manifest and one frame"
    )
    func oneFile() throws {
        let world = try World(store: MemoryStore(), sourceInMemory: true)
        for number in 0..<8 {
            world.source.put(SeededGenerator.numbers(UInt64(number), 8 << 20), "large/\(number)")
        }
        for number in 0..<2_000 { world.source.put(Array("\(number)".utf8), "many/\(number)") }
        world.source.put(Array("here".utf8), "wanted/file")
        try world.backup { $0.bundleBytes = 8 << 20 }
        let bundles = try world.open().listBundles()
        #expect(bundles.count > 5)

        let reader = try world.addHost("reader")
        let store = RecordingStore(world.store)
        let repository = try world.open(through: store, on: reader, asOwner: true)
        let snapshot = try #require(try SnapshotCatalog.load(repository).snapshots.last)
        let target = TemporaryDirectory.inMemory()
        let report = try Restore(
            repository: repository, index: try ChunkIndex.load(repository), snapshot: snapshot,
            options: RestoreOptions(), monitor: SilentMonitor(), cancellation: Cancellation()
        ).run(path: Array(world.source.path("wanted/file").utf8), target: target.path("out"))
        #expect(report.damagedCount == 0 && target.read("out/file") == Array("here".utf8))

        let said = store.calls.map { "\($0.operation.rawValue) \($0.subject) \($0.count)" }
        // Of the manifest's bundle and of the content's: its seal, and one frame.
        #expect(store.count(of: .range) <= 4, "\(said)")
        #expect(Set(store.calls.filter { $0.operation == .range }.map(\.subject)).count == 2)
        #expect(store.count(of: .get, below: "index/") == 1, "\(said)")
        #expect(store.count(of: .get, below: "snapshots/") == 1, "\(said)")
        #expect(store.requests <= 14, "\(said)")
        #expect(store.bytesRead < 6 << 20, "\(said)")
    }
}
