import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Directories that cannot be read")
struct UnreadableDirectoryTests {
    @Test("A directory that cannot be opened is one problem, and is kept")
    func once() async {
        await #expect(processExitsWith: .success) {
            try #require(OrdinaryUser.become())
            let world = try World()
            world.source.put([1], "open/file")
            makeDirectory(world.source.path("closed"), mode: 0)
            let report = try world.backup()
            precondition(report.problemCount == 1, "\(report.problems)")
            precondition(report.problems[0].kind == .unreadable, "\(report.problems)")
            precondition(report.statistics.directories == 3)
        }
    }
}
