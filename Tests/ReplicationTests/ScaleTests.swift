import BundleFormat
import CSystem
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// How much memory this process has for itself.
enum OwnMemory {
    /// Private bytes now: what `smaps_rollup` calls private, without pages that are the cache's own files.
    static var anonymous: Int { figure("Anonymous:") }

    /// Has the allocator return free pages to the system.
    static func giveBackWhatIsFree() {
        typealias Trim = @convention(c) (Int) -> Int32
        if let symbol = dlsym(nil, "malloc_trim") { _ = unsafeBitCast(symbol, to: Trim.self)(0) }
    }

    private static func figure(_ name: String) -> Int {
        guard let file = fopen("/proc/self/smaps_rollup", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, 256, file) != nil {
            let text = String(
                decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            guard text.hasPrefix(name) else { continue }
            return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) << 10
        }
        return 0
    }

    /// The largest figure while `body` runs, looked at some hundred times a second.
    static func peak(_ body: @escaping @Sendable () throws -> Void) throws -> Int {
        let isDone = Atomic<Bool>(false)
        let peak = Atomic<Int>(0)
        let failure = Mutex<(any Error)?>(nil)
        inParallel(2) { number in
            if number == 0 {
                do { try body() } catch { failure.withLock { $0 = error } }
                isDone.store(true, ordering: .relaxed)
            } else {
                repeat {
                    peak.store(max(anonymous, peak.load(ordering: .relaxed)), ordering: .relaxed)
                    var pause = timespec(tv_sec: 0, tv_nsec: 5_000_000)
                    nanosleep(&pause, nil)
                } while !isDone.load(ordering: .relaxed)
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
        return peak.load(ordering: .relaxed)
    }
}

/// Each claim is made in a process of its own, since memory is a matter of the whole process.
@Suite("Large repositories and large trees", .serialized)
struct ScaleTests {
    private static let megabyte = 1 << 20

    /// What the other process printed: the figures.
    private static func show(_ result: ExitTest.Result?) {
        guard let result else { return }
        print(
            String(decoding: result.standardOutputContent, as: UTF8.self).split(separator: "\n")
                .filter { $0.hasSuffix("MB") }.joined(separator: "\n"))
    }

    /// Index records that tell of so many chunks, as a repository of that size has them; nothing of what they tell is there.
    static func plantIndex(_ chunks: Int, in repository: Repository) throws {
        var generator = SeededGenerator(seed: 10)
        func id<Kind>() -> Identifier<Kind> {
            Identifier(generator.next(), generator.next(), generator.next(), generator.next())
        }
        // 256 KiB a chunk, 16 chunks a frame, 16 frames a bundle, and a record for each 200,000 chunks.
        var left = chunks
        while left > 0 {
            let lines = ByteBuffer(capacity: 32 << 20)
            var inRecord = 0
            while inRecord < 200_000, left > 0 {
                var frames: [FrameRecord] = []
                var bundles: [BundleID] = []
                for number in 0..<16 where left > 0 {
                    var places: [ChunkPlace] = []
                    for place in 0..<min(16, left) {
                        places.append(
                            ChunkPlace(id: id(), offset: UInt32(place) << 18, length: 1 << 18))
                    }
                    left -= places.count
                    inRecord += places.count
                    frames.append(
                        FrameRecord(
                            offset: 24 + number << 21, length: 1 << 21, raw: 16 << 18,
                            fingerprint: Fingerprint(high: generator.next(), low: generator.next()),
                            chunks: places))
                }
                let bundle: BundleID = id()
                bundles.append(bundle)
                IndexCodec.write(
                    SealedBundle(
                        id: bundle, kind: .content, size: 33 << 20, plain: 32 << 20 + 24, md5: nil,
                        frames: frames), to: lines)
                IndexCodec.write(segment: id(), bundles: bundles, to: lines)
            }
            try repository.putRecord(.index, time: nil, payload: lines.bytes)
        }
    }

    /// A world whose store lies in a directory: what is in memory would be counted.
    private static func worldOnDisk(
        _ directory: TemporaryDirectory, graceSeconds: Int = 86_400
    ) throws -> World {
        try World(
            store: try LocalStore.create(at: directory.path("store")), at: directory.path("store"),
            graceSeconds: graceSeconds)
    }

    @Test(
        "Both phases of prune over ten million chunks, and planning what to rewrite, stay below 300 MB",
        .timeLimit(.minutes(60)))
    func pruneLargeIndex() async {
        let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent])
        {
            let chunks = Campaign.isSoak ? 10_000_000 : 500_000
            let directory = TemporaryDirectory()
            let world = try ScaleTests.worldOnDisk(directory, graceSeconds: 0)
            plantTree(world.source, files: 100)
            try world.backup()
            try ScaleTests.plantIndex(chunks, in: try world.open())
            OwnMemory.giveBackWhatIsFree()
            print("before: \(OwnMemory.anonymous / ScaleTests.megabyte) MB")
            let peak = try OwnMemory.peak {
                var options = PruneOptions(host: "first")
                options.rewrite = .share(1)
                let report = try Prune(
                    repository: try world.open(asOwner: true), options: options,
                    monitor: SilentMonitor(), cancellation: Cancellation()
                ).run()
                precondition(report.unused != nil)
                // Nothing of what was planted is there: its lines go, and nothing else does.
                precondition(report.indexDeleted > 0 && report.deleted.bundles == 0)
            }
            print("\(chunks) chunks, prune: \(peak / ScaleTests.megabyte) MB")
            let report = try world.verify(on: world.host)
            precondition(report.isSound && report.chunks < chunks)
            precondition(peak < 300_000_000, "\(peak)")
        }
        Self.show(result)
    }

    @Test(
        "Backup and verify of a repository of ten million chunks stay below 300 MB",
        .timeLimit(.minutes(60)))
    func largeIndex() async {
        let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent])
        {
            let chunks = Campaign.isSoak ? 10_000_000 : 500_000
            let directory = TemporaryDirectory()
            let world = try ScaleTests.worldOnDisk(directory)
            try ScaleTests.plantIndex(chunks, in: try world.open())
            // What the planting freed is not the backup's.
            OwnMemory.giveBackWhatIsFree()
            print("before: \(OwnMemory.anonymous / ScaleTests.megabyte) MB")
            plantTree(world.source, files: 500)
            var figures: [(String, Int)] = []
            for run in [
                "first backup, which reads the index", "backup with the index in the cache",
                "verify",
            ] {
                figures.append(
                    (
                        run,
                        try OwnMemory.peak {
                            if run == "verify" {
                                let report = try world.verify(on: world.host)
                                precondition(report.chunks > chunks)
                            } else {
                                let report = try world.backup()
                                precondition(report.problemCount == 0)
                            }
                        }
                    ))
            }
            for (run, peak) in figures {
                print("\(chunks) chunks, \(run): \(peak / ScaleTests.megabyte) MB")
            }
            precondition(figures.allSatisfy { $0.1 < 300_000_000 }, "\(figures)")
        }
        Self.show(result)
    }

    @Test(
        "A backup of a million tiny files stays below 200 MB, and so does a night without changes",
        .timeLimit(.minutes(60)))
    func manyFiles() async {
        let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent])
        {
            let files = Campaign.isSoak ? 1_000_000 : 60_000
            let directory = TemporaryDirectory()
            let world = try ScaleTests.worldOnDisk(directory)
            for number in 0..<files {
                let folder = "\(number / 5000)/\(number / 50)"
                if number % 5000 == 0 { makeDirectory(world.source.path("\(number / 5000)")) }
                if number % 50 == 0 { makeDirectory(world.source.path(folder)) }
                writeFile(
                    Array("\(number)".utf8), to: world.source.path("\(folder)/file-\(number)"))
            }
            var figures: [(String, Int)] = []
            for run in ["first backup", "nothing changed"] {
                figures.append(
                    (
                        run,
                        try OwnMemory.peak {
                            let report = try world.backup()
                            precondition(
                                report.statistics.files == files && report.problemCount == 0)
                            if run == "nothing changed" {
                                precondition(report.statistics.readBytes == 0)
                            }
                        }
                    ))
                world.settle()
            }
            for (run, peak) in figures {
                print("\(files) files, \(run): \(peak / ScaleTests.megabyte) MB")
            }
            precondition(figures.allSatisfy { $0.1 < 200_000_000 }, "\(figures)")
        }
        Self.show(result)
    }
}
