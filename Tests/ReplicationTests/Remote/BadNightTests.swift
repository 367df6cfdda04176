import FileTree
import Glibc
import ObjectStorage
import Replication
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// The network goes away for minutes, which nobody waits for here.
@Suite("A bad night", .serialized)
struct BadNightTests {
    /// A repository behind a line that can be taken away, with one snapshot in it.
    private struct Scene {
        let place: StorePlace
        let proxy: FaultProxy
        let world: World
        let first: TreeImage
        let now: TreeImage

        init(_ kind: StoreKind) throws {
            place = try StorePlace(kind, behindProxy: true)
            proxy = try #require(place.proxy)
            world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
            plantTree(world.source, files: 20, largeBytes: 1 << 20)
            try world.backup()
            first = TreeImage(of: world.source.path)
            for number in 0..<6 {
                world.source.put(SeededGenerator.numbers(UInt64(number), 4 << 20), "new-\(number)")
            }
            now = TreeImage(of: world.source.path)
        }

        func change(_ options: inout BackupOptions) {
            options.uploads = place.uploads
            options.bundleBytes = 1 << 20
        }

        /// A store whose line goes away with the put of the `number`-th bundle.
        func store(losingLineAt number: Int, _ store: any ObjectStore) -> InterferingStore {
            let seen = Mutex(0)
            let proxy = proxy
            return InterferingStore(store) { (operation, subject) throws(StorageError) in
                guard operation == .put, subject.hasPrefix("bundles/") else { return }
                let isTime = seen.withLock { seen in
                    seen += 1
                    return seen == number
                }
                if isTime { proxy.goOffline() }
            }
        }

        func check(_ images: [TreeImage]) throws {
            let snapshots = try world.snapshots()
            #expect(snapshots.count == images.count)
            for (snapshot, image) in zip(snapshots, images) {
                #expect(image.differences(try world.image(of: snapshot)) == [])
            }
            let waste = try world.waste()
            #expect(waste.twice == 0 && waste.unindexed == 0, "\(waste)")
            #expect(try world.verify(data: true).isSound)
        }
    }

    @Test(
        "A run that loses the network for minutes goes on by itself", .timeLimit(.minutes(60)),
        arguments: StoreKind.campaigns)
    func minutes(kind: StoreKind) throws {
        let scene = try Scene(kind)
        let time = SkippedTime()
        let retries = Mutex(0)
        let longest = Mutex(0.0)
        let proxy = scene.proxy
        let store = try scene.place.store(time: time) { event in
            switch event {
            case .retrying:
                retries.withLock { $0 += 1 }
                if time.seconds > 300 { proxy.goOnline() }
            case .recovered(_, let seconds): longest.withLock { $0 = max($0, seconds) }
            case .unreachable, .reachable: break
            }
        }
        let report = try scene.world.backup(through: scene.store(losingLineAt: 3, store)) {
            scene.change(&$0)
        }
        #expect(report.problemCount == 0)
        #expect(retries.withLock { $0 } >= 3)
        #expect(longest.withLock { $0 } > 200)
        #expect(try scene.world.open().listRecords(.run).isEmpty)
        try scene.check([scene.first, scene.now])
    }

    @Test(
        "A run that cannot go on leaves what it has stored, and the next one takes it up",
        .timeLimit(.minutes(60)), arguments: StoreKind.campaigns, [true, false])
    func givenUp(kind: StoreKind, withCheckpoints: Bool) throws {
        let scene = try Scene(kind)
        let before = try scene.world.open().listBundles().count
        let store = try scene.place.store(time: SkippedTime())
        var failure: (any Error)?
        do {
            try scene.world.backup(through: scene.store(losingLineAt: 4, store)) {
                scene.change(&$0)
                if withCheckpoints { $0.checkpointSeconds = 0 }
                $0.uploads.threads = 1
            }
        } catch {
            failure = error
        }
        #expect(
            (failure as? ReplicationError)?.kind == .repository(.storage),
            "it ended otherwise: \(String(describing: failure))")
        scene.proxy.goOnline()
        let left = try scene.world.open().listBundles()
        #expect(left.count == before + 3)
        // Where a checkpoint was due the index tells of them, and nobody has to come back for them;
        // else the host's journal does.
        let waste = try scene.world.waste()
        #expect(waste.unindexed == (withCheckpoints ? 0 : 3), "\(waste)")
        let report = try scene.world.backup { scene.change(&$0) }
        #expect(report.resumedBundles == (withCheckpoints ? 0 : 3))
        #expect(Set(left.keys).isSubset(of: try scene.world.open().listBundles().keys))
        #expect(report.statistics.newBytes <= 24 << 20 - 3 * (4 << 20) + 1 << 20)
        try scene.check([scene.first, scene.now])
    }

    @Test("A spool lets reading come to its end while nothing leaves", .timeLimit(.minutes(60)))
    func spool() throws {
        let place = try StorePlace(.strictS3)
        let world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        for number in 0..<6 {
            world.source.put(SeededGenerator.numbers(UInt64(number), 4 << 20), "file-\(number)")
        }
        // No bundle leaves before everything has been read.
        let hasBeenRead = Gate()
        let line = InterferingStore(world.store) { (operation, subject) throws(StorageError) in
            if operation == .put, subject.hasPrefix("bundles/") { hasBeenRead.wait() }
        }
        let monitor = EventMonitor(onPhase: {
            if $0 == "writing the manifest" { hasBeenRead.open() }
        })
        let report = try world.backup(through: line, monitor: monitor) {
            $0.uploads = .remote(threads: 2, spoolBytes: 64 << 20)
            $0.bundleBytes = 1 << 20
        }
        #expect(report.statistics.bundles >= 6)
        #expect(try world.verify(data: true).isSound)
    }

    @Test(
        "A full spool makes reading wait, and progress says so", .timeLimit(.minutes(60)))
    func fullSpool() throws {
        let place = try StorePlace(.strictS3)
        let world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        for number in 0..<6 {
            world.source.put(SeededGenerator.numbers(UInt64(number), 4 << 20), "file-\(number)")
        }
        // No bundle leaves before reading has had to wait.
        let isWaiting = Gate()
        let line = InterferingStore(world.store) { (operation, subject) throws(StorageError) in
            if operation == .put, subject.hasPrefix("bundles/") { isWaiting.wait() }
        }
        let monitor = EventMonitor()
        let spooled = Mutex(0)
        let isOver = Atomic<Bool>(false)
        inParallel(2) { thread in
            if thread == 0 {
                var pace = timespec(tv_sec: 0, tv_nsec: 1_000_000)
                for _ in 0..<60_000
                where monitor.counts.waitingForStore.load(ordering: .relaxed) == 0
                    && !isOver.load(ordering: .relaxed)
                {
                    nanosleep(&pace, nil)
                }
                spooled.withLock { $0 = monitor.counts.spooledBytes.load(ordering: .relaxed) }
                isWaiting.open()
                return
            }
            defer { isOver.store(true, ordering: .relaxed) }
            do {
                let report = try world.backup(through: line, monitor: monitor) {
                    $0.uploads = .remote(threads: 1, spoolBytes: 9 << 20)
                    $0.bundleBytes = 1 << 20
                }
                #expect(report.statistics.bundles >= 6)
            } catch {
                Issue.record("\(error)")
            }
        }
        #expect((4 << 20...9 << 20).contains(spooled.withLock { $0 }))
        #expect(monitor.counts.waitingForStore.load(ordering: .relaxed) == 0)
        #expect(monitor.counts.spooledBytes.load(ordering: .relaxed) == 0)
        #expect(try world.verify(data: true).isSound)
    }

    @Test(
        "A run that is asked to stop stores nothing that waits, and the next goes on from the rest",
        .timeLimit(.minutes(60)))
    func interrupted() throws {
        let world = try World(sourceInMemory: true)
        for number in 0..<6 {
            world.source.put(SeededGenerator.numbers(UInt64(number), 4 << 20), "file-\(number)")
        }
        let monitor = EventMonitor()
        let cancellation = Cancellation()
        // The first bundle leaves when others wait behind it, and then it is over.
        let line = InterferingStore(world.store) { (operation, subject) throws(StorageError) in
            guard operation == .put, subject.hasPrefix("bundles/") else { return }
            var pace = timespec(tv_sec: 0, tv_nsec: 1_000_000)
            for _ in 0..<60_000
            where monitor.counts.spooledBytes.load(ordering: .relaxed) < 8 << 20
                && !cancellation.isCancelled
            {
                nanosleep(&pace, nil)
            }
            cancellation.cancel()
        }
        var options = BackupOptions(host: world.host.name, program: "batchsync tests")
        options.roots = [try SourceRoot(Array(world.source.path.utf8))]
        options.uploads = .remote(threads: 1, spoolBytes: 64 << 20)
        options.bundleBytes = 1 << 20
        let run = Backup(
            try world.open(through: line), options: options, monitor: monitor,
            cancellation: cancellation)
        let error = #expect(throws: ReplicationError.self) { try run.run() }
        #expect(error?.kind == .interrupted)
        #expect(monitor.counts.spooledBytes.load(ordering: .relaxed) == 0)
        #expect(try world.open().listBundles().count == 1)
        #expect(try world.backup().resumedBundles == 1)
        #expect(try world.verify(data: true).isSound)
    }

    @Test(
        "Started before the network is there, the command waits for it when it is told to",
        .timeLimit(.minutes(60)), arguments: StoreKind.campaigns)
    func waitOnline(kind: StoreKind) throws {
        let place = try StorePlace(kind, behindProxy: true)
        let proxy = try #require(place.proxy)
        let scene = try KillScene(in: place, largeBytes: 100_000)
        let directory = TemporaryDirectory.inMemory()
        let complaints = directory.path("complaints")

        proxy.goOffline()
        let patient = BuiltCommand.start(
            scene.words + ["--wait-online", "10m"], scene.environment, complaints: complaints)
        // Its first complaint says that it waits.
        var pace = timespec(tv_sec: 0, tv_nsec: 10_000_000)
        while readFile(complaints)?.isEmpty != false { nanosleep(&pace, nil) }
        proxy.goOnline()
        #expect(BuiltCommand.wait(patient).code == 0)
        #expect(try scene.world.snapshots().count == 2)
    }
}
