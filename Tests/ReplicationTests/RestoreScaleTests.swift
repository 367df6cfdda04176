import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// In a process of its own, since memory is a matter of the whole process.
@Suite("Restoring large trees", .serialized)
struct RestoreScaleTests {
    @Test(
        "A restore of many files, and one over the same tree, stay below 200 MB",
        .timeLimit(.minutes(60)))
    func manyFiles() async {
        let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent])
        {
            let megabyte = 1 << 20
            let files = Campaign.isSoak ? 500_000 : 40_000
            let directory = TemporaryDirectory()
            let world = try World(
                store: try LocalStore.create(at: directory.path("store")),
                at: directory.path("store"))
            for number in 0..<files {
                let folder = "\(number / 5000)/\(number / 50)"
                if number % 5000 == 0 { makeDirectory(world.source.path("\(number / 5000)")) }
                if number % 50 == 0 { makeDirectory(world.source.path(folder)) }
                writeFile(
                    Array("\(number)".utf8), to: world.source.path("\(folder)/file-\(number)"))
            }
            // Content that has to be cut, of which a restore may hold a few frames at once.
            var generator = SeededGenerator(seed: 3)
            for number in 0..<8 {
                writeFile(generator.bytes(16 << 20), to: world.source.path("large-\(number)"))
            }
            let snapshot = try world.backup().snapshot
            let repository = try world.open(asOwner: true)
            OwnMemory.giveBackWhatIsFree()
            print("before: \(OwnMemory.anonymous / megabyte) MB")
            for rule in [nil, RestoreOptions.IfExists.replace] {
                let peak = try OwnMemory.peak {
                    var options = RestoreOptions()
                    options.ifExists = rule
                    let report = try Restore(
                        repository: repository, index: try ChunkIndex.load(repository),
                        snapshot: snapshot, options: options, monitor: SilentMonitor(),
                        cancellation: Cancellation()
                    ).run(
                        path: Array(world.source.path.utf8), target: directory.path("restored"))
                    precondition(report.problemCount == 0, "\(report.problems)")
                    precondition(report.files + report.kept == files + 8)
                    precondition(rule == nil ? report.kept == 0 : report.files == 0)
                }
                let name = rule == nil ? "restore" : "restore over it"
                print("\(files) files, \(name): \(peak / megabyte) MB")
                precondition(peak < 200_000_000, "\(name): \(peak)")
            }
        }
        guard let result else { return }
        print(
            String(decoding: result.standardOutputContent, as: UTF8.self).split(separator: "\n")
                .filter { $0.hasSuffix("MB") }.joined(separator: "\n"))
    }
}
