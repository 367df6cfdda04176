import FileTree
import Glibc
import Replication
import SnapshotModel
import TestSupport
import Testing

@Suite("What a restore tells")
struct RestoreTellingTests {
    @Test("Each entry whose owner an ordinary user may not set is named, however many there are")
    func deniedOwners() async {
        await #expect(processExitsWith: .success) {
            try #require(OrdinaryUser.become())
            let scratch = try RestoreScratch()
            let count = RestoreReport.listed + 50
            for number in 0..<count {
                scratch.add(.file, "/file-\(number)") {
                    $0.uid = 0
                    $0.gid = 4
                }
            }
            scratch.add(.file, "/mine")
            let report = try scratch.restore { $0.spoolDirectory = scratch.directory.path }
            precondition(report.problemCount == 0, "\(report.problems)")
            precondition(report.ownersDeniedCount == count, "\(report.ownersDeniedCount)")
            precondition(report.ownersDenied.count == RestoreReport.listed)
            var names = Set(report.ownersDenied.map(\.path))
            precondition(report.ownersDenied.allSatisfy { $0.uid == 0 && $0.gid == 4 })
            let further = try #require(report.furtherOwnersDenied)
            further.readEach { value in
                precondition(value["uid"]?.integer == 0 && value["gid"]?.integer == 4)
                if let path = value["path"]?.path { names.insert(path) }
            }
            precondition(names == Set((0..<count).map { Array("/file-\($0)".utf8) }))
            // Without a place for the rest there are the first ones and the count.
            let short = try scratch.restore(nil, to: scratch.directory.path("other"))
            precondition(short.ownersDeniedCount == count && short.furtherOwnersDenied == nil)
        }
    }

    @Test("A pattern of --include that matches nothing is told of, one that matches is not")
    func unmatchedInclude() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/d")
        scratch.file("/d/file.txt", [[1]])
        let nothing = try scratch.restore { $0.include = [Array("*.conf".utf8)] }
        #expect(nothing.files == 0)
        #expect(nothing.notes.contains { $0.contains("--include") })
        let one = try scratch.restore(nil, to: scratch.directory.path("other")) {
            $0.include = [Array("*.txt".utf8)]
        }
        #expect(one.files == 1)
        #expect(one.notes.isEmpty)
    }
}
