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
        let verifier = try world.addHost("verifier")
        let crowd = try Crowd(world, hosts: 10, seed: seed, files: 15, largeBytes: 600_000)
        for night in 0..<2 {
            let looks = Mutex(0)
            let failures = crowd.night(
                steps: 8, through: { try place.store() },
                beside: {
                    let repository = try world.open(
                        through: try place.store(), on: verifier, asOwner: true)
                    let report = try verify(repository)
                    looks.withLock { $0 += 1 }
                    return report.isSound ? [] : report.findings.map(\.description)
                },
                change: { $0.uploads = place.uploads })
            #expect(failures == [], "seed \(seed), night \(night)")
            #expect(looks.withLock { $0 } > 0)
        }
        try crowd.check()
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
