import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("How many requests a night costs")
struct RequestCountTests {
    private func settledWorld(
        _ store: any ObjectStore, at location: String = "memory", runs: Int = 1
    ) throws -> World {
        let world = try World(store: store, at: location, sourceInMemory: true)
        plantTree(world.source, files: 60)
        for _ in 0..<runs { try world.backup() }
        world.settle()
        return world
    }

    private func describe(_ store: RecordingStore) -> String {
        store.calls.map { "\($0.operation.rawValue) \($0.subject)" }.joined(separator: ", ")
    }

    @Test(
        "An unchanged night asks an object store five times at most, reads no bundle and puts the snapshot alone"
    )
    func unchanged() throws {
        let world = try settledWorld(MemoryStore())
        let store = RecordingStore(world.store)
        let report = try world.backup(through: store)
        #expect(report.statistics.readBytes == 0)
        #expect(store.requests <= 5, "\(describe(store))")
        #expect(
            store.count(of: .put) == 1 && store.count(of: .put, below: "snapshots/") == 1,
            "\(describe(store))")
        #expect(store.count(of: .delete) == 0)
        #expect(
            store.calls.allSatisfy { !$0.subject.hasPrefix("bundles/") || $0.operation == .list },
            "\(describe(store))")
        // config.json, and nothing of the index that the cache holds already.
        #expect(store.count(of: .get) == 1 && store.count(of: .range) == 0, "\(describe(store))")
        #expect(store.bytesPut < 4_096)
    }

    @Test("The count does not grow with the nights that have been")
    func manyNights() throws {
        let world = try settledWorld(MemoryStore())
        for night in 0..<12 {
            world.source.put([UInt8](repeating: UInt8(night), count: 2_000), "night-\(night)")
            try world.backup()
            world.settle()
        }
        let store = RecordingStore(world.store)
        try world.backup(through: store)
        #expect(store.requests <= 5, "\(describe(store))")
    }

    @Test("Listing the snapshots costs two requests once this host has seen them")
    func listing() throws {
        let world = try settledWorld(MemoryStore())
        for night in 0..<3 {
            world.source.put([UInt8](repeating: UInt8(night), count: 2_000), "night-\(night)")
            try world.backup()
            world.settle()
        }
        _ = try SnapshotCatalog.load(try world.open())
        let store = RecordingStore(world.store)
        let catalog = try SnapshotCatalog.load(try world.open(through: store))
        #expect(catalog.snapshots.count == 4)
        #expect(store.requests <= 2, "\(describe(store))")
    }

    @Test("One changed file costs two bundles, one index record and the snapshot")
    func oneFile() throws {
        let world = try settledWorld(MemoryStore())
        world.source.put(Array("new".utf8), "new")
        let store = RecordingStore(world.store)
        try world.backup(through: store)
        #expect(store.count(of: .put, below: "bundles/") == 2, "\(describe(store))")
        #expect(store.count(of: .put, below: "index/") == 1, "\(describe(store))")
        #expect(store.count(of: .put) == 4, "\(describe(store))")
        #expect(store.requests <= 9, "\(describe(store))")
    }

    @Test("A directory is listed as well, and still nothing of a bundle is read")
    func directory() throws {
        let directory = TemporaryDirectory.inMemory()
        let world = try settledWorld(
            try LocalStore.create(at: directory.path("store")), at: directory.path("store"))
        let store = RecordingStore(world.store)
        try world.backup(through: store)
        #expect(store.count(of: .get, below: "bundles/") + store.count(of: .range) == 0)
        #expect(store.count(of: .put) == 1)
        // Folder by folder: asking a directory costs nothing.
        #expect(store.requests == 3 + RecordType.allCases.count, "\(describe(store))")
    }

    @Test("A dry run puts nothing")
    func dryRun() throws {
        let world = try settledWorld(MemoryStore())
        world.source.put([UInt8](repeating: 7, count: 300_000), "new")
        let before = try world.open().listAll().map(\.name)
        let store = RecordingStore(world.store)
        let report = try world.backup(through: store) { $0.dryRun = true }
        #expect(report.statistics.newBytes == 300_000 && report.statistics.new == 1)
        #expect(store.count(of: .put) + store.count(of: .delete) == 0)
        #expect(try world.open().listAll().map(\.name) == before)
        // The real run afterwards finds all of it still to be done.
        #expect(try world.backup().statistics.newBytes == 300_000)
    }

    @Test("A new host reads each index record once")
    func newHost() throws {
        let world = try settledWorld(MemoryStore(), runs: 1)
        for night in 0..<3 {
            world.source.put([UInt8](repeating: UInt8(night), count: 2_000), "night-\(night)")
            try world.backup()
        }
        let records = try world.open().listRecords(.index).count
        #expect(records == 4)
        let other = try world.addHost("other")
        let store = RecordingStore(world.store)
        try world.backup(through: store, on: other)
        #expect(store.count(of: .get, below: "index/") == records)
        #expect(
            store.count(of: .get, below: "bundles/") + store.count(of: .range, below: "bundles/")
                == 0)
        store.reset()
        world.settle(on: other)
        try world.backup(through: store, on: other)
        #expect(store.count(of: .get, below: "index/") <= 1, "\(describe(store))")
    }
}
