import CSystem
import Glibc
import TestSupport
import Testing

/// The built command is killed while it talks to a server that lives on.
@Suite("The built command, killed before a remote store", .serialized)
struct RemoteKillTests {
    @Test(
        "Killed at a random moment, it loses no generation and repeats no completed upload",
        .timeLimit(.minutes(120)), arguments: StoreKind.campaigns,
        Campaign.seeds(share: 1, soakDividedBy: 50))
    func randomMoments(kind: StoreKind, seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let place = try StorePlace(kind, ownServer: true)
        var scene = try KillScene(
            in: place, largeBytes: 1 << 20, options: ["--bundle-size", "1M"])
        // How long such a run takes here is what the moments are chosen from.
        let usual = try measureRun(&scene, &generator)
        var killed = 0
        let rounds = Campaign.isSoak ? 5 : 4
        for round in 0..<rounds {
            change(scene, round, &generator)
            let pid = BuiltCommand.start(scene.words, scene.environment)
            let moment = Int64.random(in: 0..<usual, using: &generator)
            sleep(nanoseconds: moment)
            kill(pid, SIGKILL)
            if BuiltCommand.wait(pid).signal == SIGKILL { killed += 1 }
            try scene.checkAndGoOn("seed \(seed), round \(round), after \(moment / 1000) µs")
        }
        #expect(killed > 0, "seed \(seed): every run was over before it was killed")
        if kind == .strictS3, let server = place.server {
            let puts = StrictS3(server).log().filter {
                $0.operation == "PutObject" && $0.status == 200 && $0.key.contains("/bundles/")
            }
            #expect(!puts.isEmpty)
            #expect(Set(puts.map(\.key)).count == puts.count, "seed \(seed): a bundle came twice")
        }
    }

    @Test(
        "Asked to stop while its bundles leave slowly, it stops soon and goes on from there",
        .timeLimit(.minutes(60)), arguments: StoreKind.campaigns)
    func askedToStop(kind: StoreKind) throws {
        var generator = SeededGenerator(seed: 1)
        let place = try StorePlace(kind, ownServer: true)
        var scene = try KillScene(
            in: place, largeBytes: 1 << 20, options: ["--bundle-size", "1M"])
        change(scene, 0, &generator)
        // What it has to store takes twenty seconds.
        let pid = BuiltCommand.start(scene.words + ["--limit-upload", "1MB/s"], scene.environment)
        sleep(nanoseconds: 4_000_000_000)
        kill(pid, SIGTERM)
        // Had it gone on, it would have come to its end, with 0.
        #expect(BuiltCommand.wait(pid).code == 143)
        try scene.checkAndGoOn("asked to stop")
    }

    /// Several bundles' worth of what cannot be compressed.
    private func change(_ scene: KillScene, _ round: Int, _ generator: inout SeededGenerator) {
        scene.world.source.put(
            generator.bytes(20 << 20), "dir-1/new", time: 1_710_000_000 + Int64(round))
    }

    private func measureRun(
        _ scene: inout KillScene, _ generator: inout SeededGenerator
    ) throws -> Int64 {
        change(scene, -1, &generator)
        let begun = csys_boottime_ns()
        #expect(BuiltCommand.run(scene.words, scene.environment).code == 0)
        let usual = csys_boottime_ns() - begun
        try scene.noteGeneration()
        return usual
    }

    private func sleep(nanoseconds: Int64) {
        var time = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        nanosleep(&time, nil)
    }
}
