import Glibc
import Replication
import SnapshotModel
import Synchronization
import TestSupport
import Testing

@testable import batchsync

/// What the command says of things that a user would otherwise have to find out.
@Suite("Telling")
struct TellingTests {
    private static let withPassphrase = "-r repository --passphrase-file passphrase"

    @Test("An owner who was added later is told that older content is sealed to the earlier ones")
    func addedOwner() {
        let fixture = CommandFixture()
        fixture.repository()
        fixture.succeed("batchsync key generate --output new.txt")
        fixture.succeed(
            "batchsync key add --recipient $(grep -o 'age1.*' new.txt | head -n 1) \(Self.withPassphrase)"
        )
        fixture.expect(
            12, "batchsync dump latest:$PWD/data/letters/anna -r repository --identity new.txt",
            says: "was stored before this owner was added",
            "restore it with the passphrase or the identity of one of them: age1")
        // What is stored from then on is theirs, too.
        fixture.succeed("rm -r host/cache data && mkdir data && echo new > data/new")
        fixture.succeed("batchsync backup -r repository data")
        #expect(
            fixture.succeed(
                "batchsync dump latest:$PWD/data/new -r repository --identity new.txt 2>/dev/null")
                == "new\n")
    }

    @Test("A backup with the owner's passphrase and without a host key says so, and how to get one")
    func withoutHostKey() {
        let fixture = CommandFixture()
        fixture.repository()
        fixture.succeed("rm -r host/config")
        let first = fixture.succeed("batchsync backup \(Self.withPassphrase) data")
        #expect(
            first.split(separator: "\n").count { $0.contains("this host has no key of its own") }
                == 1, "\(first)")
        #expect(first.contains("'batchsync key accept -r"), "\(first)")
        fixture.succeed("batchsync key accept \(Self.withPassphrase)")
        let second = fixture.succeed("batchsync backup -r repository data")
        #expect(!second.contains("this host has no key"), "\(second)")
    }

    @Test("The words for quiet are known to init, ls and snapshots")
    func quiet() {
        let fixture = CommandFixture()
        #expect(fixture.succeed("batchsync init -q \(Self.withPassphrase)") == "")
        fixture.succeed(
            "mkdir data && echo x > data/file && batchsync backup -q -r repository data")
        #expect(
            fixture.succeed("batchsync ls -q latest \(Self.withPassphrase)").hasSuffix(
                "data/file\n"))
        #expect(!fixture.succeed("batchsync snapshots -q -r repository").contains("1 snapshot"))
        // What an owner has to confirm is said all the same.
        fixture.succeed("batchsync key generate --output owner.txt")
        let made = fixture.succeed(
            "batchsync init -q -r other --recipient $(grep -o 'age1.*' owner.txt | head -n 1)")
        #expect(made.hasPrefix("Fingerprint of the keys: "))
    }

    @Test("init -p encrypts with the passphrase that the profile names, unless words name another")
    func initByProfile() {
        let fixture = CommandFixture()
        let profile = """
            [repository]
            location = "repository"
            [credentials]
            passphrase = { file = "passphrase" }
            [source]
            paths = ["data"]

            """
        fixture.directory.write(Array(profile.utf8), to: "job.toml", mode: 0o644)
        fixture.succeed(
            "chmod 600 passphrase wrong-passphrase && mkdir data && echo hello > data/file")
        fixture.succeed("BATCHSYNC_PASSPHRASE=another batchsync init -p ./job.toml")
        fixture.succeed("batchsync run -q ./job.toml")
        fixture.succeed("batchsync ls latest \(Self.withPassphrase)")
        fixture.succeed("sed -i 's/\"repository\"/\"other\"/' job.toml")
        fixture.succeed("batchsync init -p ./job.toml --passphrase-file wrong-passphrase")
        fixture.expect(12, "batchsync verify -r other --passphrase-file passphrase")
    }

    @Test("dump says why it has no --json")
    func dumpJSON() {
        let fixture = CommandFixture()
        fixture.expect(
            64, "batchsync dump latest:/x --json -r repository",
            says: "standard output is for the content", "ls --json")
    }

    @Test("A snapshot tells which patterns were in force, those out of files included")
    func rules() throws {
        let fixture = CommandFixture()
        fixture.succeed(
            """
            mkdir data && touch data/a.tmp data/b.iso data/c.txt
            printf '# images\\n*.iso\\n' > rules
            batchsync init -r repository --no-encryption
            batchsync backup -r repository -e '*.tmp' --exclude-from rules -x data
            """)
        fixture.succeed("echo '*.changed' > rules")
        let document = fixture.json("batchsync snapshots -r repository --json")
        let options = try #require(document["snapshots"]?.array?.first?["options"])
        let rules = (options["rules"]?.array ?? []).map {
            "\($0["file"]?.string ?? "-") \($0["line"]?.integer ?? -1) \($0["pattern"]?.string ?? "-")"
        }
        #expect(rules == ["- 1 *.tmp", "rules 2 *.iso"])
        #expect(options["one_file_system"]?.bool == true)
        let text = fixture.succeed("batchsync snapshots -v -r repository")
        #expect(text.contains("left out: '*.tmp'"), "\(text)")
        #expect(text.contains("left out: '*.iso' (rules, line 2)"), "\(text)")
        #expect(text.contains("other file systems"), "\(text)")
        #expect(!fixture.succeed("batchsync snapshots -r repository").contains("left out"))
    }

    @Test("A restore by an ordinary user names what belongs to others, on the terminal and in JSON")
    func deniedOwners() throws {
        guard geteuid() == 0 else {
            try Test.cancel("skipped: only root can store what belongs to somebody else")
        }
        let fixture = CommandFixture()
        fixture.succeed(
            """
            mkdir data && for n in $(seq 30); do echo $n > data/file-$n; done
            batchsync init -r repository --no-encryption
            batchsync backup -r repository data
            chmod 711 . && chmod -R a+rX repository && mkdir -m 777 out
            """)
        // As somebody else, who has places of her own.
        let other =
            "env HOME=$PWD/out BATCHSYNC_CONFIG_DIR=$PWD/out/c BATCHSYNC_CACHE_DIR=$PWD/out/k BATCHSYNC_STATE_DIR=$PWD/out/s"
            + " setpriv --reuid 65534 --regid 65534 --clear-groups"
        let words = "batchsync restore latest:$PWD/data -r $PWD/repository"
        let text = fixture.shell("\(other) \(words) --target out/text")
        #expect(text.status == 0, "\(text.output)")
        #expect(text.output.contains("only root may give files away: 31 entries"), "\(text.output)")
        #expect(text.output.contains("/data/file-1: 0:0"), "\(text.output)")
        #expect(text.output.contains("and 11 more: --json lists them"), "\(text.output)")
        let document = fixture.json("\(other) \(words) --target out/json --json")
        #expect(document["owners_not_set_count"]?.integer == 31)
        let named = document["owners_not_set"]?.array ?? []
        #expect(named.count == 31)
        #expect(named.allSatisfy { $0["uid"]?.integer == 0 && $0["gid"]?.integer == 0 })
        #expect(document["problem_count"]?.integer == 0)
    }

    @Test("The progress line never counts more than it expects")
    func progress() {
        let counts = ProgressCounts()
        counts.entriesExpected.store(3, ordering: .relaxed)
        counts.bytesExpected.store(1000, ordering: .relaxed)
        var rate = ProgressRate(start: 0)
        counts.entries.store(2, ordering: .relaxed)
        counts.bytes.store(500, ordering: .relaxed)
        let within = rate.line(phase: "", counts: counts, now: 1_000_000_000)
        #expect(within.contains("2 of 3 entries"), "\(within)")
        counts.entries.store(4, ordering: .relaxed)
        counts.bytes.store(1500, ordering: .relaxed)
        let beyond = rate.line(phase: "", counts: counts, now: 2_000_000_000)
        #expect(beyond.contains("4 entries"), "\(beyond)")
        #expect(!beyond.contains(" of "), "\(beyond)")
    }
}
