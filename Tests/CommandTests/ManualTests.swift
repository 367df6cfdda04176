import Glibc
import TestSupport
import Testing

/// The manual and the help say what the command does.
@Suite("Manual")
struct ManualTests {
    static let root = String(#filePath.dropLast("/Tests/CommandTests/ManualTests.swift".count))

    @Test("The manual pages in man/ are those that the command's own words make")
    func fresh() throws {
        let fixture = CommandFixture()
        fixture.succeed(
            "python3 -B '\(Self.root)/scripts/generate-man.py' '\(CommandFixture.binary)' man")
        let made = treeContents(fixture.directory.path("man"))
        let kept = treeContents("\(Self.root)/man").filter {
            // The only page that is written by hand.
            $0 != "batchsync-recovery.7"
        }
        #expect(made == kept, "scripts/generate-man.py BINARY man makes them")
        for name in made {
            let same = fixture.directory.read("man/\(name)") == readFile("\(Self.root)/man/\(name)")
            #expect(same, "man/\(name) is not fresh: scripts/generate-man.py BINARY man makes it")
        }
    }

    @Test("mandoc has nothing to warn of")
    func lint() throws {
        let fixture = CommandFixture()
        if fixture.shell("command -v mandoc").status != 0 {
            try Test.cancel("skipped: there is no mandoc command (package mandoc)")
        }
        for name in treeContents("\(Self.root)/man") {
            let outcome = fixture.shell("mandoc -T lint -W warning '\(Self.root)/man/\(name)'")
            #expect(outcome.output.isEmpty, "\(outcome.output)")
        }
    }

    @Test("Each verb teaches: what it does, and an example")
    func teaches() {
        let fixture = CommandFixture()
        for name in treeContents("\(Self.root)/man")
        where name.hasPrefix("batchsync-") && name.hasSuffix(".1") {
            let verb = name.dropFirst("batchsync-".count).dropLast(2)
            let help = fixture.succeed("batchsync help \(verb)")
            #expect(help.contains("\n    batchsync \(verb)"), "\(verb) has no example")
        }
    }

    @Test("Examples fit the width of a terminal")
    func width() {
        let fixture = CommandFixture()
        for name in treeContents("\(Self.root)/man")
        where name.hasPrefix("batchsync-") && name.hasSuffix(".1") {
            let verb = name.dropFirst("batchsync-".count).dropLast(2)
            for line in fixture.succeed("COLUMNS=200 batchsync help \(verb)").split(separator: "\n")
            where line.hasPrefix("    batchsync ") {
                #expect(line.count < 80, "\(line)")
            }
        }
    }

    @Test("A completion script is made for each shell", arguments: ["bash", "zsh", "fish"])
    func completions(_ shell: String) {
        let output = CommandFixture().succeed("batchsync --generate-completion-script \(shell)")
        #expect(output.contains("passphrase-file"))
    }

    @Test("The version is one line")
    func version() {
        #expect(CommandFixture().succeed("batchsync --version").split(separator: "\n").count == 1)
    }
}
