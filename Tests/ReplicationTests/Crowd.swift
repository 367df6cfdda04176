import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// Several hosts that back sources of their own up into one repository, night after night, all at
/// once.
final class Crowd {
    let world: World
    let hosts: [TestHost]
    private let sources: [TemporaryDirectory]
    private let seed: UInt64
    /// What each source held, by night.
    private var expected: [[TreeImage]] = []

    /// Half of what the sources hold they hold in common.
    init(_ world: World, hosts count: Int, seed: UInt64, files: Int, largeBytes: Int) throws {
        self.world = world
        self.seed = seed
        hosts = [world.host] + (try (1..<count).map { try world.addHost("host-\($0)") })
        sources = hosts.map { _ in TemporaryDirectory.inMemory() }
        for (number, source) in sources.enumerated() {
            plantTree(source, seed: seed, files: files, largeBytes: largeBytes)
            source.put(SeededGenerator.numbers(seed &* 100 &+ UInt64(number), largeBytes), "own")
        }
    }

    /// Lets so many things happen to each source, but on the first day, and backs all of them up at
    /// once.
    ///
    /// - Parameters:
    ///   - store: Makes each host's own way to the store, as if on its own machine.
    ///   - beside: Goes on meanwhile, again and again until no backup is under way.
    ///   - change: Of the options of all hosts.
    /// - Returns: What went wrong.
    func night(
        steps: Int, through store: @escaping @Sendable () throws -> any ObjectStore,
        beside: (@Sendable () throws -> [String])? = nil,
        change: @escaping @Sendable (inout BackupOptions) -> Void = { _ in }
    ) -> [String] {
        let night = expected.count
        for (number, source) in sources.enumerated() where night > 0 {
            var life = TreeLife(source, seed: seed &* 1_000 &+ UInt64(night * 20 + number))
            for _ in 0..<steps { _ = life.step() }
        }
        expected.append(sources.map { TreeImage(of: $0.path) })
        let failures = Mutex<[String]>([])
        let running = Mutex(hosts.count)
        let (world, hosts, roots, seed) = (world, hosts, sources.map(\.path), seed)
        inParallel(hosts.count + (beside == nil ? 0 : 1)) { number in
            do {
                guard number < hosts.count else {
                    guard let beside else { return }
                    repeat {
                        let found = try beside()
                        failures.withLock { $0 += found }
                    } while running.withLock { $0 > 0 }
                    return
                }
                defer { running.withLock { $0 -= 1 } }
                let report = try world.backup(
                    through: try store(), on: hosts[number], roots: [roots[number]]
                ) {
                    change(&$0)
                    if (seed + UInt64(number)) % 2 == 0 { $0.checkpointSeconds = 0 }
                }
                if report.problemCount > 0 {
                    failures.withLock { $0.append("\(report.problems)") }
                }
            } catch {
                failures.withLock { $0.append("number \(number): \(error)") }
            }
        }
        return failures.withLock { $0 }
    }

    /// Every snapshot of every host and night is there and restores, and nothing is left over.
    func check() throws {
        let snapshots = try world.snapshots()
        #expect(snapshots.count == expected.count * hosts.count)
        for (number, host) in hosts.enumerated() {
            let own = snapshots.filter { $0.host == host.name }
            #expect(own.count == expected.count)
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
}
