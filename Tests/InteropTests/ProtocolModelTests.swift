import Foundation
import Testing

/// The rules of writing and deleting, as a model checker sees them (docs/protocol.md).
@Suite("The protocol's model")
struct ProtocolModelTests {
    static let script = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("scripts/check-model.sh")

    static let hasTools = ["spin", "gcc"].allSatisfy { name in
        (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").contains {
            FileManager.default.isExecutableFile(atPath: "\($0)/\(name)")
        }
    }

    @Test(
        "no reachable state loses a listed snapshot, and without any one rule some state does",
        .enabled(if: hasTools, "needs spin and gcc"))
    func modelHoldsAndEachRuleIsNeeded() throws {
        let process = Process()
        process.executableURL = Self.script
        process.arguments = ["--quick"]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let said = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(String(decoding: said, as: UTF8.self))")
    }
}
