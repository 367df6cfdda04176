import Glibc
import SnapshotModel
import TestSupport
import Testing

/// What a script can rely on: one code for one outcome.
@Suite("Exit codes")
struct ExitStatusTests {
    let fixture = CommandFixture()

    @Test("A newer format is refused by name")
    func newerFormat() {
        fixture.repository()
        fixture.succeed(
            "chmod u+w repository/config.json && sed -i 's/\"batchsync\":1/\"batchsync\":2/' repository/config.json"
        )
        fixture.expect(1, "batchsync snapshots -r repository", says: "format 2", "newer")
    }

    @Test("A configuration that was altered is not the one that this host has pinned")
    func alteredConfiguration() {
        fixture.repository()
        fixture.succeed(
            "chmod u+w repository/config.json && sed -i 's/\"average\":262144/\"average\":131072/' repository/config.json"
        )
        fixture.expect(12, "batchsync snapshots -r repository", says: "config.json", "pinned")
    }

    @Test("A host without its key is told where the key belongs and how to get it")
    func missingHostKey() {
        fixture.repository()
        fixture.succeed("rm host/config/keys/*")
        fixture.expect(
            12, "batchsync backup -r repository data",
            says: "\(fixture.directory.path)/host/config/keys/",
            "key export --host")
    }

    @Test("A source that does not exist fails the run before anything is written")
    func missingRoot() {
        fixture.repository()
        let before = treeContents(fixture.directory.path("repository"))
        fixture.expect(
            1, "batchsync backup -r repository data missing", says: "missing", "nothing was written"
        )
        #expect(treeContents(fixture.directory.path("repository")) == before)
    }

    @Test("A source in the repository is refused, also through a link")
    func sourceInRepository() {
        fixture.repository()
        fixture.expect(
            1, "batchsync backup -r repository repository/bundles", says: "lies in the repository")
        fixture.succeed("ln -s repository/bundles link")
        fixture.expect(1, "batchsync backup -r repository link/", says: "lies in the repository")
    }

    @Test("A restore into the repository is refused")
    func targetInRepository() {
        fixture.repository()
        fixture.expect(
            64,
            "batchsync restore latest --target repository/bundles/x -r repository --passphrase-file passphrase",
            says: "repository")
    }

    @Test("A repository in a source is left out of the backup")
    func repositoryInSource() {
        fixture.repository()
        fixture.succeed("mv repository 'data/a[b]*c'")
        let output = fixture.succeed("batchsync backup -r 'data/a[b]*c' data -v")
        #expect(output.contains("lies in a source and is left out"), "\(output)")
        #expect(!output.contains("config.json"), "\(output)")
    }

    @Test("A restore into a source says that the next backup stores it")
    func targetInSource() {
        fixture.repository()
        let output = fixture.succeed(
            "batchsync restore latest:\"$PWD\"/data/letters --target data/restored -r repository --passphrase-file passphrase"
        )
        #expect(output.contains("the target lies in the source"), "\(output)")
    }

    @Test("A file that cannot be read makes the backup partial, and is named")
    func partialBackup() throws {
        fixture.repository()
        let unreadable: String
        if geteuid() == 0 {
            // Root reads everything but what the kernel itself does not let be read.
            let found = fixture.shell(
                "find /sys -type f -perm 0200 -size +0 2>/dev/null | head -n 1"
            ).output
            unreadable = String(found.prefix { $0 != "\n" })
            if unreadable.isEmpty {
                try Test.cancel("skipped: this machine cannot show a file that root may not read")
            }
        } else {
            fixture.succeed("echo secret > data/secret && chmod 000 data/secret")
            unreadable = "data"
        }
        let document = fixture.json("batchsync backup -r repository data \(unreadable) --json")
        #expect(document["problem_count"]?.count == 1)
        #expect(document["problems"]?.array?.first?["kind"]?.string == "unreadable")
        fixture.expect(3, "batchsync backup -r repository data \(unreadable)", says: "1 problem")
        let listed = fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array?
            .last
        #expect(listed?["problems"]?.count == 1)
    }

    @Test("Damage in a bundle costs a restore what lay in it, and verify names it")
    func damagedBundle() {
        fixture.repository()
        fixture.succeed(
            "for b in repository/bundles/*/*; do chmod u+w $b; printf damage | dd of=$b bs=1 seek=400 conv=notrunc status=none; done"
        )
        fixture.expect(
            4, "batchsync verify --read-data -r repository", says: "bundles/", "of damage")
        fixture.expect(
            4,
            "batchsync restore latest --target restored -r repository --passphrase-file passphrase",
            says: "damage")
    }

    @Test("A bundle that is missing is found by verify without reading anything")
    func missingBundle() {
        fixture.repository()
        fixture.succeed("rm -f repository/bundles/*/*")
        let document = fixture.json("batchsync verify -r repository --json")
        #expect(document["sound"]?.bool == false)
        #expect(
            document["findings"]?.array?.contains { $0["kind"]?.string == "bundle-missing" } == true
        )
        fixture.expect(4, "batchsync verify -r repository", says: "bundles/")
    }

    /// The test's own mounts, in a name space that ends with it.
    private func withMounts(_ line: String) throws -> CommandFixture.Outcome {
        let words = geteuid() == 0 ? "unshare -m" : "unshare -rm"
        if fixture.shell("mkdir -p m && \(words) mount -t tmpfs tmpfs m").status != 0 {
            try Test.cancel(
                "skipped: this machine cannot mount a file system in a name space of its own")
        }
        return fixture.shell("\(words) sh -c '\(line)'")
    }

    @Test("A full file system stops the backup, and what was stored stays good")
    func noSpace() throws {
        fixture.succeed(
            "mkdir data && head -c 6000000 /dev/urandom > data/noise && echo small > data/small")
        let outcome = try withMounts(
            """
            set -e
            mount -t tmpfs -o size=4m tmpfs m
            batchsync init -q -r m/repository --passphrase-file passphrase > /dev/null 2>&1 || \
            batchsync init -r m/repository --passphrase-file passphrase > /dev/null
            batchsync backup -q -r m/repository data/small
            code=0
            batchsync backup -q -r m/repository data || code=$?
            batchsync verify --read-data -q -r m/repository --passphrase-file passphrase
            exit $code
            """)
        #expect(outcome.status == 1, "\(outcome.output)")
        #expect(outcome.output.contains("No space left on device"), "\(outcome.output)")
        #expect(outcome.output.contains("free space"), "\(outcome.output)")
    }

    @Test("A store that cannot be written is read all the same")
    func readOnlyStore() throws {
        fixture.repository()
        let outcome = try withMounts(
            """
            set -e
            mount --bind repository m
            mount -o remount,bind,ro m
            batchsync snapshots -r m > /dev/null
            batchsync verify -q -r m
            batchsync restore -q latest --target restored -r m --passphrase-file passphrase
            echo more > data/more
            batchsync backup -q -r m data
            """)
        #expect(outcome.status == 1, "\(outcome.output)")
        #expect(outcome.output.contains("Read-only file system"), "\(outcome.output)")
        #expect(outcome.output.contains("writable"), "\(outcome.output)")
        #expect(
            readFile(fixture.directory.path("restored\(fixture.directory.path)/data/letters/anna"))
                == Array("hello\n".utf8))
    }

    @Test(
        "A signal ends a backup with its code, commits nothing, and the next run is whole",
        arguments: [("INT", 130), ("TERM", 143)])
    func signal(_ name: String, _ code: Int32) {
        fixture.repository()
        // The command whose output is stored sends the signal and goes on for ever: only the backup
        // can end it.
        fixture.expect(
            code,
            "batchsync backup -r repository --stdin-from-command zeros -- sh -c 'kill -\(name) $PPID; cat /dev/zero'",
            says: "interrupted")
        let snapshots = fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array
        #expect(snapshots?.count == 1)
        fixture.succeed(
            "batchsync backup -r repository data && batchsync verify --read-data -r repository")
        #expect(
            treeContents(fixture.directory.path("repository")).allSatisfy {
                !$0.hasPrefix("+tmp/") || $0 == "+tmp/"
            })
    }

    @Test("A closed pipe ends the output quietly")
    func closedPipe() {
        fixture.repository()
        let outcome = fixture.shell(
            "{ batchsync help; echo \"code $?\" >&2; } 2>&1 | head -n 1; { batchsync snapshots -r repository; } | true"
        )
        #expect(!outcome.output.contains("batchsync: "), "\(outcome.output)")
        // More than a pipe holds, so that it is still being written when its reader has gone.
        for path in ["data/large", "data"] {
            fixture.expect(
                0,
                "{ batchsync dump \"latest:$PWD/\(path)\" -r repository --passphrase-file passphrase;"
                    + " echo $? > code; } 2> said | head -c 1 > /dev/null;"
                    + " [ \"$(cat code)\" = 141 ] && [ ! -s said ]")
        }
    }

    @Test("Who waits for standard input stops cleanly", arguments: [("INT", 130), ("TERM", 143)])
    func interruptedStream(name: String, code: Int32) {
        fixture.repository()
        // A pipe holds 64 KiB: once a MiB has gone into it, it is being read, and then nothing comes
        // as long as the reader lives.
        fixture.expect(
            code,
            Self.backupOfPipe(then: "kill -\(name) $pid; while kill -0 $pid; do sleep 0.1; done"),
            says: "interrupted")
        let snapshots = fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array
        #expect(snapshots?.count == 1)
    }

    @Test("What a writer left that a signal ended together with the backup is no snapshot")
    func interruptedPipeline() {
        fixture.repository()
        fixture.expect(130, Self.backupOfPipe(then: "kill -INT $pid"), says: "interrupted")
        let snapshots = fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array
        #expect(snapshots?.count == 1)
    }

    /// A backup of standard input whose writer writes a MiB and then does `act`.
    private static func backupOfPipe(then act: String) -> String {
        """
        mkfifo input
        { exec 3> input; head -c 1048576 /dev/zero >&3; pid=$(cat pid); \(act); } 2> /dev/null &
        exec sh -c 'echo $$ > pid; exec batchsync backup -r repository --stdin-filename zeros < input'
        """
    }

    @Test("What a command prints is stored, and nothing is if it fails")
    func stream() {
        fixture.repository()
        fixture.succeed(
            "batchsync backup -r repository --stdin-from-command dumps/db.sql -- echo select")
        fixture.expect(
            1,
            "batchsync backup -r repository --stdin-from-command db.sql -- sh -c 'echo half; exit 7'",
            says: "ended with code 7", "nothing was committed")
        fixture.expect(
            1, "batchsync backup -r repository --stdin-from-command db.sql -- no-such-program",
            says: "cannot be started", "check its name")
        fixture.succeed(
            "printf 'from a pipe' | batchsync backup -r repository --stdin-filename piped")
        let snapshots = fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array
        #expect(snapshots?.count == 3)
        fixture.succeed(
            "batchsync restore latest --target restored -q -r repository --passphrase-file passphrase"
        )
        #expect(readFile(fixture.directory.path("restored/piped")) == Array("from a pipe".utf8))
        fixture.succeed(
            "batchsync restore latest~1 --target before -q -r repository --passphrase-file passphrase"
        )
        #expect(readFile(fixture.directory.path("before/dumps/db.sql")) == Array("select\n".utf8))
        // A name may have a date in it, so nobody would come back for a draft.
        fixture.succeed("test -z \"$(find host/cache -name '*.draft')\"")
    }

    @Test("Every code that the manual lists has a meaning of its own")
    func table() {
        let help = fixture.succeed("batchsync --help")
        for code in [0, 1, 3, 4, 5, 10, 12, 64, 130, 143] {
            #expect(help.contains("\n    \(code) "), "code \(code) is missing")
        }
    }
}
