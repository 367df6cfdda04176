import Foundation
import Testing

/// recover.py is what a person has left in a disaster, so it is held to the format by repositories
/// that neither it nor the program wrote.
@Suite("recover.py")
struct RecoveryScriptTests {
    static let fixtures = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().appendingPathComponent("Fixtures")

    static let hasTools = ["python3", "age", "age-keygen", "zstd"].allSatisfy { name in
        (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").contains {
            FileManager.default.isExecutableFile(atPath: "\($0)/\(name)")
        }
    }

    @Test(
        "recover.py restores what an independent writer stored, and withstands damage and forgery",
        .enabled(if: hasTools, "needs python3, age and zstd"))
    func scriptPassesItsOwnSuite() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "python3", Self.fixtures.appendingPathComponent("test_recover.py").path,
        ]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let said = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(String(decoding: said, as: UTF8.self))")
    }
}
