import Foundation
import Testing

/// The rules of writing and deleting, as a model checker sees them (docs/protocol.md).
@Suite("The protocol's model")
struct ProtocolModelTests {
    static let script = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("scripts/check-model.sh")

    @Test(
        "no reachable state loses a listed snapshot, and without any one rule some state does",
        .enabled(if: ScriptRun.has("spin", "gcc"), "needs spin and gcc"))
    func modelHoldsAndEachRuleIsNeeded() throws {
        let outcome = try ScriptRun.run(Self.script, ["--quick"])
        #expect(outcome.status == 0, "\(outcome.said)")
    }
}
