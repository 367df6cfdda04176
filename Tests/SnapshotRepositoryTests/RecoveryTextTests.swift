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

    @Test(
        "What this release writes is the newest of what verify accepts",
        arguments: Recovery.Object.allCases)
    func isReleased(_ object: Recovery.Object) {
        #expect(
            object.released.first == object.digest.description,
            "\(object.name) has changed: put its digest first in Recovery.Object.released")
    }

    @Test(
        "What earlier releases wrote is accepted, what was altered is not",
        arguments: Recovery.Object.allCases)
    func earlier(_ object: Recovery.Object) throws {
        let folder = #filePath.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
        let golden = try #require(readFile("\(folder)/Fixtures/v1/encrypted/\(object.name)"))
        #expect(Recovery.judge(golden, among: object.released) == .released)
        let earlier = Array("an earlier release".utf8)
        let digest: RecordID = Authentication.digest(earlier)
        let digests = object.released + [digest.description]
        #expect(Recovery.judge(earlier, among: digests) == .released)
        let altered = earlier + [0x0A]
        #expect(
            Recovery.judge(altered, among: digests) == .foreign(Authentication.digest(altered)))
    }
}
