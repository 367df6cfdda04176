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
}
