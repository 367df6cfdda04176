import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// Notes after how many operations each put returned.
private final class ReturnsRecorder: StoreDecorator {
    let base: any ObjectStore
    private let operations: RecordingFileOperations
    private let returns = Mutex<[String: Int]>([:])

    init(_ base: any ObjectStore, _ operations: RecordingFileOperations) {
        self.base = base
        self.operations = operations
    }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        _ = try effect()
        guard operation == .put else { return }
        let count = operations.operations.count
        returns.withLock { $0[subject] = count }
    }

    subscript(key: String) -> Int? { returns.withLock { $0[key] } }
}

/// Two backups into a directory, with every change of the file system that the store made, in order.
private struct RecordedBackups {
    let world: World
    let log: [FileOperation]
    /// For each backup: the operations after which it had returned, and the tree.
    let returns: [(operations: Int, image: TreeImage)]
    /// Names and bytes of all objects, with the operation that made each visible, and the one after which its put had returned.
    let objects: [(path: String, bytes: [UInt8], visibleAt: Int, returnedAt: Int)]
    private let directory: TemporaryDirectory

    /// - Parameter checkpoints: Whether each bundle is followed by an index record and a lease, which goes at the end.
    init(checkpoints: Bool) throws {
        directory = TemporaryDirectory.inMemory()
        let operations = RecordingFileOperations(watching: directory.path)
        let store = try LocalStore.create(at: directory.path("store"), operations: operations)
        let watched = ReturnsRecorder(store, operations)
        world = try World(store: watched, at: directory.path("store"), sourceInMemory: true)
        plantTree(world.source, seed: 2, files: 8, largeBytes: 100_000)
        var returns: [(Int, TreeImage)] = []
        for night in 0..<2 {
            if night > 0 {
                world.settle()
                world.source.put(SeededGenerator.numbers(55, 20_000), "dir-1/new")
            }
            let image = TreeImage(of: world.source.path)
            try world.backup {
                $0.readers = 1
                if checkpoints { $0.checkpointSeconds = 0 }
            }
            returns.append((operations.operations.count, image))
        }
        self.returns = returns
        let recorded = operations.operations
        log = recorded
        let folder = directory
        objects = try store.list(prefix: "").map { object in
            let path = "store/\(object.key)"
            let made = recorded.firstIndex { operation in
                switch operation {
                case .rename(_, let to), .link(_, let to): to == path
                default: false
                }
            }
            return (
                path, folder.read(path) ?? [], try #require(made) + 1,
                try #require(watched[object.key.text])
            )
        }
    }

    /// What some state of the disk breaks, as text: an object that is there is whole and has everything that was stored before it, and
    /// an object whose put had returned is there.
    func violations(without removed: Int? = nil, stopAtFirst: Bool = false) -> Set<String> {
        var found: Set<String> = []
        var model = PowerLoss()
        for count in 0...log.count {
            if count > 0, count - 1 != removed { model.apply(log[count - 1]) }
            // Before the synchronisation that is left out nothing is different.
            if let removed, count <= removed { continue }
            for image in model.images() {
                let newest =
                    objects.filter { image.bytes(at: $0.path) != nil }.map(\.visibleAt).max() ?? 0
                for object in objects where object.visibleAt <= newest || object.returnedAt <= count
                {
                    if image.bytes(at: object.path) != object.bytes {
                        found.insert(
                            "\(object.path) is not whole, and later ones are there or its put had returned"
                        )
                    }
                }
                if stopAtFirst, !found.isEmpty { return found }
            }
        }
        return found
    }
}

@Suite("A loss of power during a backup")
struct PowerLossBackupTests {
    @Test(
        "What is there is whole and has all it needs, at every moment, whatever was not synchronised",
        arguments: [false, true])
    func ordered(checkpoints: Bool) throws {
        let recorded = try RecordedBackups(checkpoints: checkpoints)
        #expect(recorded.objects.count { $0.path.hasPrefix("store/snapshots/") } == 2)
        #expect(recorded.violations() == [])
    }

    @Test(
        "Without any one of the synchronisations something would be lost", .timeLimit(.minutes(60)))
    func everySynchronisationIsNeeded() throws {
        let recorded = try RecordedBackups(checkpoints: false)
        let synchronisations = recorded.log.indices.filter { recorded.log[$0].isSynchronization }
        #expect(synchronisations.count >= 20)
        for index in synchronisations {
            #expect(
                !recorded.violations(without: index, stopAtFirst: true).isEmpty,
                "\(recorded.log[index]), operation \(index + 1) of \(recorded.log.count), is not needed"
            )
        }
    }

    @Test(
        "From each state of the disk the snapshots that were committed restore byte for byte, and the next run succeeds",
        .timeLimit(.minutes(60)), arguments: Campaign.seeds(share: 1, soakDividedBy: 50),
        [false, true])
    func restores(seed: UInt64, checkpoints: Bool) throws {
        let recorded = try RecordedBackups(checkpoints: checkpoints)
        var choice = SeededGenerator(seed: seed)
        var states = 0
        var tried = 0
        let first = try #require(recorded.returns.first?.operations)
        // A share of all states, and every one soon after a commit; in a soak all of them, once.
        let takesAll = Campaign.isSoak && seed == Campaign.firstSeed
        try forEachPowerLoss(in: recorded.log) { operations, directory in
            states += 1
            guard operations >= first else { return }
            guard
                takesAll || choice.next() % 12 == 0
                    || recorded.returns.contains(where: { $0.operations == operations })
            else { return }
            tried += 1
            let what =
                "seed \(seed), state \(states) at operation \(operations) of \(recorded.log.count)"
            let store = try LocalStore.open(at: directory.path("store"))
            let repository = try recorded.world.open(through: store)
            let snapshots = try SnapshotCatalog.load(repository).snapshots
            let promised = recorded.returns.count { $0.operations <= operations }
            #expect(snapshots.count >= promised, "\(what)")
            let machine = TestHost("reader")
            defer { withExtendedLifetime(machine) {} }
            let reader = try recorded.world.open(
                through: store, on: machine, asOwner: true)
            let index = try ChunkIndex.load(reader)
            for (position, snapshot) in snapshots.enumerated() {
                let target = TemporaryDirectory.inMemory()
                let report = try Restore(
                    repository: reader, index: index, snapshot: snapshot, options: RestoreOptions(),
                    monitor: SilentMonitor(), cancellation: Cancellation()
                ).run(path: Array(recorded.world.source.path.utf8), target: target.path("out"))
                #expect(report.damagedCount == 0, "\(what): \(report.damaged)")
                let differences = recorded.returns[position].image.differences(
                    TreeImage(of: target.path("out")))
                #expect(differences == [], "\(what)")
            }
            // A host without any memory of its own goes on from there.
            let host = try recorded.world.addHost("next")
            let next = try recorded.world.backup(through: store, on: host)
            #expect(next.problemCount == 0, "\(what)")
        }
        #expect(states > 100 && tried > 10)
    }
}
