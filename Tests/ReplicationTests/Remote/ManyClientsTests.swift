import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

@Suite("Many clients of one server")
struct ManyClientsTests {
    @Test(
        "Ten back up at once while another verifies; every snapshot restores",
        .timeLimit(.minutes(60)), arguments: [StoreKind.strictS3, .openSSH],
        Campaign.seeds(share: 1, soakDividedBy: 100))
    func tenAtOnce(kind: StoreKind, seed: UInt64) throws {
        let place = try StorePlace(kind)
        let world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        let (count, nights) = (10, 2)
        var hosts = [world.host]
        for number in 1..<count { hosts.append(try world.addHost("host-\(number)")) }
        let verifier = try world.addHost("verifier")
        let sources = hosts.map { _ in TemporaryDirectory.inMemory() }
        for (number, source) in sources.enumerated() {
            // Half of what they hold they hold in common.
            plantTree(source, seed: seed, files: 15, largeBytes: 600_000)
            source.put(SeededGenerator.numbers(seed &* 100 &+ UInt64(number), 600_000), "own")
        }
        var expected: [[TreeImage]] = []
        for night in 0..<nights {
            for (number, source) in sources.enumerated() where night > 0 {
                var life = TreeLife(source, seed: seed &* 1_000 &+ UInt64(night * 20 + number))
                for _ in 0..<8 { _ = life.step() }
            }
            expected.append(sources.map { TreeImage(of: $0.path) })
            let failures = Mutex<[String]>([])
            let running = Mutex(count)
            let looks = Mutex(0)
            let (everyone, roots) = (hosts, sources.map(\.path))
            inParallel(count + 1) { number in
                let client = number < count
                defer { if client { running.withLock { $0 -= 1 } } }
                do {
                    // Each over connections of its own, as if on its own machine.
                    let own = try place.store()
                    guard client else {
                        repeat {
                            let repository = try world.open(
                                through: own, on: verifier, asOwner: true)
                            let report = try verify(repository)
                            looks.withLock { $0 += 1 }
                            if !report.isSound {
                                failures.withLock {
                                    $0.append("\(report.findings.map(\.description))")
                                }
                            }
                        } while running.withLock { $0 > 0 }
                        return
                    }
                    let report = try world.backup(
                        through: own, on: everyone[number], roots: [roots[number]]
                    ) {
                        $0.uploads = place.uploads
                        if (seed + UInt64(number)) % 2 == 0 { $0.checkpointSeconds = 0 }
                    }
                    if report.problemCount > 0 {
                        failures.withLock { $0.append("\(report.problems)") }
                    }
                } catch {
                    failures.withLock { $0.append("client \(number): \(error)") }
                }
            }
            #expect(failures.withLock { $0 } == [], "seed \(seed), night \(night)")
            #expect(looks.withLock { $0 } > 0)
        }
        let snapshots = try world.snapshots()
        #expect(snapshots.count == nights * count)
        for (number, host) in hosts.enumerated() {
            let own = snapshots.filter { $0.host == host.name }
            #expect(own.count == nights)
            for (night, snapshot) in own.enumerated() {
                let image = try world.image(of: snapshot, root: sources[number].path)
                #expect(
                    expected[night][number].differences(image) == [],
                    "seed \(seed), host \(number), night \(night)")
            }
        }
        #expect(try world.open().listRecords(.run).isEmpty)
        #expect(try world.verify(data: true).isSound, "seed \(seed)")
    }
}

private func verify(_ repository: Repository) throws -> VerifyReport {
    try Verify(
        repository: repository,
        options: VerifyOptions(
            readData: .everything, host: "verifier",
            now: Timestamp(nanosecondsSince1970: HostClock.now)),
        monitor: SilentMonitor(), cancellation: Cancellation()
    ).run()
}
