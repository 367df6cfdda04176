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
        let count = 4
        var hosts = [world.host]
        for number in 1..<count { hosts.append(try world.addHost("host-\(number)")) }
        let sources = hosts.map { _ in TemporaryDirectory.inMemory() }
        for (number, source) in sources.enumerated() {
            // Half of what they hold they hold in common.
            plantTree(source, seed: seed, files: 20, largeBytes: 700_000)
            source.put(SeededGenerator.numbers(seed &* 100 &+ UInt64(number), 500_000), "own")
        }
        var expected: [[TreeImage]] = []
        for night in 0..<3 {
            for (number, source) in sources.enumerated() where night > 0 {
                var life = TreeLife(source, seed: seed &* 1_000 &+ UInt64(night * 10 + number))
                for _ in 0..<12 { _ = life.step() }
            }
            expected.append(sources.map { TreeImage(of: $0.path) })
            let failures = Mutex<[String]>([])
            let (everyone, roots) = (hosts, sources.map(\.path))
            inParallel(count) { number in
                do {
                    // Each through its own eyes, as if on its own machine.
                    let own: any ObjectStore =
                        inDirectory ? try LocalStore.open(at: directory.path("store")) : store
                    let report = try world.backup(
                        through: own, on: everyone[number], roots: [roots[number]]
                    ) {
                        if (seed + UInt64(number)) % 2 == 0 { $0.checkpointSeconds = 0 }
                    }
                    if report.problemCount > 0 {
                        failures.withLock { $0.append("\(report.problems)") }
                    }
                } catch {
                    failures.withLock { $0.append("host \(number): \(error)") }
                }
            }
            #expect(failures.withLock { $0 } == [], "seed \(seed), night \(night)")
        }
        let snapshots = try world.snapshots()
        #expect(snapshots.count == 3 * count)
        for (number, host) in hosts.enumerated() {
            let own = snapshots.filter { $0.host == host.name }
            #expect(own.count == 3)
            for (night, snapshot) in own.enumerated() {
                let image = try world.image(of: snapshot, root: sources[number].path)
                #expect(
                    expected[night][number].differences(image) == [],
                    "seed \(seed), host \(number), night \(night)")
            }
        }
        #expect(try world.open().listRecords(.run).isEmpty)
        let report = try world.verify(data: true)
        #expect(report.isSound, "seed \(seed): \(report.findings.map(\.description))")
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
