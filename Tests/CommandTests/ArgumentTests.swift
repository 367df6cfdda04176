import Glibc
import SnapshotModel
import TestSupport
import Testing

/// Words as the system passes them, and passphrases by each of their ways.
@Suite("Arguments")
struct ArgumentTests {
    let fixture = CommandFixture()

    @Test("A path that is not UTF-8 can be backed up, excluded, explained and restored")
    func bytes() {
        fixture.succeed("batchsync init -r repository --passphrase-file passphrase")
        fixture.succeed(
            "d=$(printf 'caf\\351'); mkdir \"$d\"; echo one > \"$d/keep\"; echo two > \"$d/$(printf 'l\\377st')\""
        )
        fixture.succeed(
            "d=$(printf 'caf\\351'); batchsync backup -r repository \"$d\" --exclude \"$(printf 'l\\377*')\""
        )
        let output = fixture.succeed(
            "d=$(printf 'caf\\351'); batchsync explain -r repository \"$d/$(printf 'l\\377st')\" \"$d/keep\""
        )
        #expect(
            output.contains("caf\\xe9/l\\xffst is excluded by --exclude 'l\\xff*'"), "\(output)")
        #expect(output.contains("caf\\xe9/keep is included"), "\(output)")
        fixture.succeed(
            "batchsync restore latest:\"$PWD/$(printf 'caf\\351')\" --target restored -r repository --passphrase-file passphrase"
        )
        #expect(treeContents(fixture.directory.path("restored")) == ["keep"])
        let root = fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array?
            .first?["roots"]?.array?.first
        #expect(root?.path == Array("\(fixture.directory.path)/caf".utf8) + [0xE9])
    }

    @Test("A word that has to be text is refused where it is not UTF-8, in a sentence")
    func text() {
        fixture.repository()
        fixture.expect(
            64, "batchsync backup -r repository data --tag \"$(printf 'x\\377')\"", says: "x\\xff",
            "not UTF-8")
        fixture.expect(
            64, "batchsync snapshots -r \"$(printf 'x\\377')\"", says: "x\\xff", "must be UTF-8")
        fixture.expect(64, "batchsync \"$(printf 'x\\377')\"", says: "x\\xff")
    }

    @Test(
        "A passphrase comes from a file, a command, a variable or a credential",
        arguments: [
            "--passphrase-file passphrase", "--passphrase-command 'cat passphrase'",
            "--passphrase-command \"printf 'correct horse battery staple'\"",
        ])
    func passphrase(_ option: String) {
        fixture.repository()
        fixture.succeed("batchsync restore latest --target restored -r repository \(option)")
    }

    @Test("A passphrase in the environment is used, and a named source comes before it")
    func environment() {
        fixture.repository()
        fixture.succeed(
            "BATCHSYNC_PASSPHRASE='correct horse battery staple' batchsync restore latest --target one -r repository"
        )
        fixture.succeed("mkdir credentials && cp passphrase credentials/batchsync-passphrase")
        fixture.succeed(
            "CREDENTIALS_DIRECTORY=$PWD/credentials batchsync restore latest --target two -r repository"
        )
        fixture.expect(
            12,
            "BATCHSYNC_PASSPHRASE='correct horse battery staple' batchsync restore latest --target three -r repository --passphrase-file wrong-passphrase",
            says: "wrong passphrase")
        fixture.expect(
            12, "batchsync restore latest --target four -r repository --passphrase-command false",
            says: "failed: false")
    }

    @Test("A terminal is asked for the passphrase twice at init, and shows none of it")
    func prompt() {
        // Types each answer once its question is there: what is typed before is thrown away, as it
        // should be.
        let session = """
            import os, pty, sys
            child, terminal = pty.fork()
            if child == 0:
                os.execvp("batchsync", ["batchsync", "init", "-r", "repository"])
            seen, answers = b"", [(b"passphrase for repository: ", b"secret\\n"), (b"again: ", b"secret\\n")]
            while True:
                try:
                    piece = os.read(terminal, 4096)
                except OSError:
                    break
                if not piece:
                    break
                seen += piece
                if answers and seen.endswith(answers[0][0]):
                    os.write(terminal, answers.pop(0)[1])
            sys.stdout.write(seen.decode())
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            """
        fixture.directory.write(Array(session.utf8), to: "session.py")
        let output = fixture.succeed("python3 -B session.py")
        #expect(!output.contains("secret"), "\(output)")
        #expect(output.contains("passphrase for repository"), "\(output)")
        #expect(output.contains("made repository"), "\(output)")
        fixture.succeed("mkdir data && batchsync backup -q -r repository data")
        fixture.succeed(
            "BATCHSYNC_PASSPHRASE=secret batchsync restore latest --target restored -r repository")
    }

    @Test("A backup needs no passphrase, and none that is lying about is used")
    func night() {
        fixture.repository()
        fixture.succeed("BATCHSYNC_PASSPHRASE=wrong batchsync backup -r repository data")
        fixture.succeed("BATCHSYNC_PASSPHRASE=wrong batchsync snapshots -r repository")
    }

    @Test("A list of sources is read from a file, by lines or by NUL", arguments: ["\\n", "\\0"])
    func filesFrom(_ separator: String) {
        fixture.repository()
        fixture.succeed(
            "printf 'data/letters/anna\(separator)data/large\(separator)' > list && batchsync backup -r repository --files-from list"
        )
        let last = fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array?
            .last
        #expect(last?["roots"]?.array?.count == 2)
        #expect(last?["statistics"]?["files"]?.count == 2)
    }

    @Test("The environment names the repository where no option does")
    func repositoryVariable() {
        fixture.repository()
        fixture.succeed("BATCHSYNC_REPOSITORY=repository batchsync snapshots")
    }

    @Test("latest means this host's, and other hosts are named where it has none")
    func latest() {
        fixture.repository()
        fixture.succeed(
            "batchsync init -r second --no-encryption && batchsync backup -q -r second data --host mars"
        )
        fixture.expect(
            1, "batchsync restore latest --target restored -r second", says: "mars", "--host")
        fixture.succeed("batchsync restore latest --host mars --target restored -r second")
    }

    @Test("A date means the newest snapshot at or before it, in local time")
    func dates() {
        fixture.succeed("mkdir data && batchsync init -r repository --no-encryption")
        fixture.succeed(
            "echo 1 > data/file && batchsync backup -q -r repository data --time 2026-03-01T12:00:00Z"
        )
        fixture.succeed(
            "echo 22 > data/file && batchsync backup -q -r repository data --time 2026-03-02T12:00:00Z"
        )
        func restored(_ moment: String, zone: String = "UTC") -> [UInt8]? {
            fixture.succeed(
                "rm -rf restored && TZ=\(zone) batchsync restore '\(moment)' -q --target restored -r repository"
            )
            return readFile(fixture.directory.path("restored\(fixture.directory.path)/data/file"))
        }
        #expect(restored("2026-03-01") == Array("1\n".utf8))
        #expect(restored("2026-03-02") == Array("22\n".utf8))
        #expect(restored("2026-03-02T12:00:00Z") == Array("22\n".utf8))
        #expect(restored("2026-03-02 11:59") == Array("1\n".utf8))
        #expect(restored("2026-03-02 13:30", zone: "UTC-2") == Array("1\n".utf8))
        fixture.expect(
            1, "batchsync restore 2026-02-28 --target restored -r repository",
            says: "no snapshot is as old")
    }
}
