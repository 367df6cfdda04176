import Foundation
import TestSupport
import Testing

/// The servers of our own are held to what they claim by programs in their own language, with the
/// client that others use.
@Suite("Servers of our own")
struct PythonClaimTests {
    private static let fixtures = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().appendingPathComponent("Fixtures")

    private static let python = fixtures.deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent(".build/venv-test/bin/python")

    @Test(
        "The strict S3 server, the fault proxy and the supervisor keep their claims",
        arguments: ["check_strict_s3.py", "check_faultproxy.py", "check_supervisor.py"])
    func claims(script: String) throws {
        guard FileManager.default.isExecutableFile(atPath: Self.python.path) else {
            try Test.cancel(
                "the tests' Python packages are not installed: scripts/install-dependencies.sh test"
            )
        }
        let process = Process()
        process.executableURL = Self.python
        process.arguments = ["-B", Self.fixtures.appendingPathComponent(script).path]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let said = String(
            decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let lines = said.split(separator: "\n")
        for line in lines where !line.hasPrefix("kept: ") { Issue.record("\(line)") }
        #expect(lines.count > 5)
        #expect(process.terminationStatus == 0)
    }
}
