import SnapshotModel
import TestSupport
import Testing

@testable import SnapshotRepository

@Suite("What every repository carries")
struct RecoveryTextTests {
    @Test(
        "The texts in this release are those of its sources",
        arguments: [("recover.py", Recovery.program), ("RECOVER.md", Recovery.page)])
    func embedded(name: String, text: [UInt8]) {
        let project = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let source = readFile("\(project)/Sources/SnapshotRepository/Recovery/\(name)")
        #expect(text == source, "run scripts/embed-recovery.sh")
    }

    @Test("The program of this release is the newest of those that verify accepts")
    func isReleased() {
        #expect(
            Recovery.released.first == Recovery.digest.description,
            "recover.py has changed: put its digest first in Recovery.released")
        #expect(Recovery.judge(Recovery.program) == .released)
    }

    @Test("The programs of earlier releases are accepted, altered ones are not")
    func earlier() throws {
        let folder = #filePath.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
        let golden = try #require(readFile("\(folder)/Fixtures/v1/encrypted/recover.py"))
        #expect(Recovery.judge(golden) == .released)
        let earlier = Array("print('an earlier release')".utf8)
        let digest: RecordID = Authentication.digest(earlier)
        let digests = Recovery.released + [digest.description]
        #expect(Recovery.judge(earlier, among: digests) == .released)
        let altered = earlier + [0x0A]
        #expect(
            Recovery.judge(altered, among: digests) == .foreign(Authentication.digest(altered)))
    }
}
