import CSystem
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// Real processes on one repository with a grace period of two seconds: hosts that back up, forgets
/// and prunes, all at once, some of them killed at some moment.
@Suite("Backups, forgets and prunes at once", .serialized)
struct PruneStressTests {
    private static let graceSeconds = 2
    private static let hosts = 2
    private static let rounds = 6

    /// What each source looked like when it was backed up, by the number of the round.
    private struct Job: Sendable {
        let host: TestHost
        let source: TemporaryDirectory
    }

    @Test(
        "Whoever is killed, every snapshot that is listed and complete restores, and verify is clean",
        .enabled(if: BuiltCommand.path != nil, "there is no built command"),
        .timeLimit(.minutes(60)),
        arguments: Campaign.seeds(share: 2))
    func everybodyAtOnce(seed: UInt64) throws {
        let binary = try #require(BuiltCommand.path)
        let directory = TemporaryDirectory.inMemory()
        let path = directory.path("store")
        let world = try World(
            store: try LocalStore.create(at: path), at: path, isEncrypted: false,
            graceSeconds: Self.graceSeconds, sourceInMemory: true)
        let jobs = (0..<Self.hosts).map { number in
            Job(host: TestHost("host-\(number)"), source: .inMemory())
        }
        let images = Mutex<[String: [TreeImage]]>([:])
        let failures = Mutex<[String]>([])
        let isOver = Atomic<Int>(0)

        @Sendable func environment(_ host: TestHost) -> [String: String] {
            [
                "BATCHSYNC_CONFIG_DIR": host.directories.configuration,
                "BATCHSYNC_CACHE_DIR": host.directories.cache,
                "BATCHSYNC_STATE_DIR": host.directories.state, "BATCHSYNC_REPOSITORY": path,
            ]
        }
        /// Runs a verb, and kills it after a while where the seed says so.
        @Sendable func run(
            _ words: [String], _ host: TestHost, _ choice: inout SeededGenerator
        ) {
            let pid = BuiltCommand.start([binary] + words, environment(host))
            let killed = choice.next() % 4 == 0
            if killed {
                usleep(UInt32(choice.next() % 60_000))
                kill(pid, SIGKILL)
            }
            let end = BuiltCommand.wait(pid)
            // A backup that finds the repository changed under it three times gives up and says so; a
            // forget may find nothing; a prune may leave it to another.
            if !killed, ![0, 1].contains(end.code) || end.signal != 0 {
                failures.withLock { $0.append("\(words[0]) ended with \(end)") }
            }
        }

        inParallel(Self.hosts + 2) { thread in
            var choice = SeededGenerator(seed: seed &* 31 &+ UInt64(thread))
            if thread < Self.hosts {
                let job = jobs[thread]
                plantTree(job.source, seed: seed &+ UInt64(thread), files: 12, largeBytes: 1 << 18)
                for round in 0..<Self.rounds {
                    job.source.put(
                        choice.bytes(Int(choice.next() % 90_000)),
                        "dir-1/changing-\(choice.next() % 3)",
                        time: 1_650_000_000 + Int64(round))
                    images.withLock {
                        $0[job.host.name, default: []].append(TreeImage(of: job.source.path))
                    }
                    run(
                        ["backup", "--host", job.host.name, "-q", job.source.path], job.host,
                        &choice)
                }
                isOver.add(1, ordering: .relaxed)
            } else {
                let host = TestHost("keeper-\(thread)")
                while isOver.load(ordering: .relaxed) < Self.hosts {
                    run(["forget", "--keep-last", "2"], host, &choice)
                    run(["prune"], host, &choice)
                }
            }
        }
        #expect(failures.withLock { $0 } == [], "seed \(seed)")
        try check(world, images.withLock { $0 }, roots: jobs, "seed \(seed)")

        // Then prune alone gets everything done.
        let keeper = TestHost("last keeper")
        for _ in 0..<4 {
            sleep(UInt32(Self.graceSeconds) + 1)
            #expect(
                BuiltCommand.run([binary, "prune"], environment(keeper)).code == 0, "seed \(seed)")
        }
        try check(world, images.withLock { $0 }, roots: jobs, "seed \(seed), pruned")
    }

    private func check(
        _ world: World, _ images: [String: [TreeImage]], roots: [Job], _ what: Comment
    ) throws {
        let repository = try world.open()
        var catalog = try SnapshotCatalog.load(repository)
        catalog.markIncomplete(try ChunkIndex.load(repository))
        #expect(catalog.damaged.isEmpty, what)
        for snapshot in catalog.snapshots where !snapshot.isIncomplete {
            let job = try #require(roots.first { $0.host.name == snapshot.host })
            let image = try world.image(of: snapshot, root: job.source.path)
            #expect(
                images[snapshot.host]?.contains { $0.differences(image).isEmpty } == true,
                "\(what): snapshot \(snapshot.id.short) is none of those that were backed up")
        }
        let report = try world.verify(data: true)
        let damage = report.findings.filter { $0.isDamage && $0.kind != .incomplete }
        #expect(damage.isEmpty, "\(what): \(damage.map(\.description))")
    }
}
