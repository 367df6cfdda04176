import Glibc
import TestSupport
import Testing

/// All that Linux keeps of files, through the built command and back.
@Suite("A tree with one of everything")
struct RoundTripTests {
    private static let lines = """
        set -e
        umask 022
        python3 plant-tree.py tree
        batchsync init -q -r repository --passphrase-file passphrase
        batchsync backup -r repository tree/first tree/second
        batchsync restore latest --target out -r repository --passphrase-file passphrase
        python3 compare-trees.py --flags --no-root tree "out$PWD/tree"
        """

    @Test("What root stores comes back equal", .enabled(if: geteuid() == 0, "needs root"))
    func byRoot() {
        roundTrip(as: "")
    }

    @Test("What an ordinary user stores comes back equal")
    func byOrdinaryUser() {
        roundTrip(
            as: geteuid() == 0 ? "setpriv --reuid=65534 --regid=65534 --clear-groups" : "")
    }

    /// - Parameter user: Words before a command that have somebody else run it.
    private func roundTrip(as user: String) {
        let fixture = CommandFixture()
        // Nothing else here removes what is immutable, and paths longer than PATH_MAX.
        defer {
            fixture.shell(
                """
                for place in tree "out$PWD/tree"; do
                    chattr -f -ia "$place/first/immutable" "$place/first/append"
                done
                rm -rf tree out
                """)
        }
        let root = ManualTests.root
        fixture.succeed(
            """
            cp '\(root)/Tests/CommandTests/Fixtures/plant-tree.py' .
            cp '\(root)/scripts/compare-trees.py' .
            """)
        fixture.directory.write(Array(Self.lines.utf8), to: "lines.sh")
        if !user.isEmpty { fixture.succeed("chown -R 65534:65534 .") }
        let outcome = fixture.shell("\(user) sh lines.sh")
        #expect(outcome.status == 0, "\(outcome.output)")
        #expect(outcome.output.contains("compared: no difference"), "\(outcome.output)")
        for line in outcome.output.split(separator: "\n") where line.hasPrefix("skipped: ") {
            print(line)
        }
    }
}
