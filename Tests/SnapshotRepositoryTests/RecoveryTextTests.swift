import SnapshotRepository
import TestSupport
import Testing

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
}
