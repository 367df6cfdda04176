import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

@Suite("Several hosts and one repository")
struct ManyHostsTests {
    @Test(
        "Backups at once all become whole snapshots, night after night",
        .timeLimit(.minutes(60)), arguments: Campaign.seeds(share: 3, soakDividedBy: 20),
        [false, true])
    func atOnce(seed: UInt64, inDirectory: Bool) throws {
        let directory = TemporaryDirectory.inMemory()
        let store: any ObjectStore =
            inDirectory ? try LocalStore.create(at: directory.path("store")) : MemoryStore()
        let world = try World(
            store: store, at: inDirectory ? directory.path("store") : "memory", sourceInMemory: true
        )
        let crowd = try Crowd(world, hosts: 4, seed: seed, files: 20, largeBytes: 700_000)
        for night in 0..<3 {
            let failures = crowd.night(steps: 12) {
                inDirectory ? try LocalStore.open(at: directory.path("store")) : store
            }
            #expect(failures == [], "seed \(seed), night \(night)")
        }
        try crowd.check()
    }

    @Test("What one host has stored the next one does not store again")
    func sharing() throws {
        let world = try World(sourceInMemory: true)
        plantTree(world.source, files: 20)
        try world.backup()
        let other = try world.addHost("other")
        let report = try world.backup(on: other)
        #expect(report.statistics.newChunks == 0 && report.statistics.readBytes > 1 << 20)
        #expect(try world.snapshots().map(\.host) == ["first", "other"])
    }

    @Test("Two runs of one host at once do not take each other's journal")
    func sameHost() throws {
        let world = try World(sourceInMemory: true)
        plantTree(world.source, files: 20)
        let second = TemporaryDirectory.inMemory()
        plantTree(second, seed: 8, files: 20)
        let failures = Mutex<[String]>([])
        let roots = [world.source.path, second.path]
        for _ in 0..<4 {
            inParallel(2) { number in
                do { try world.backup(roots: [roots[number]]) { $0.checkpointSeconds = 0 } } catch {
                    failures.withLock { $0.append("\(error)") }
                }
            }
        }
        #expect(failures.withLock { $0 } == [])
        let snapshots = try world.snapshots()
        #expect(snapshots.count == 8)
        for (root, directory) in zip(roots, [world.source, second]) {
            for snapshot in snapshots where snapshot.roots == [Array(root.utf8)] {
                #expect(
                    TreeImage(of: directory.path).differences(
                        try world.image(of: snapshot, root: root)) == [])
            }
        }
    }
}
