import Glibc
import TestSupport
import Testing

/// What somebody relies on who has only the command and a bad day.
@Suite("Promises of the command")
struct PromiseTests {
    let fixture = CommandFixture()
    private static let owner = "-r repository --passphrase-file passphrase"

    @Test("restore --delete leaves alone what the backup could not store, and names it")
    func unstoredFilesStay() throws {
        fixture.repository()
        // A file that is locked for everybody cannot be made for root: one that vanishes between
        // listing and reading is not stored either.
        fixture.succeed(
            """
            mkdir data/closed && echo precious > data/closed/kept && ln -s nowhere data/extra-later
            """)
        // A directory on which nobody may act is one that is no directory any more when it is
        // opened; a user without rights sees the same. Only the latter can be told to happen.
        try #require(geteuid() == 0 || access("/proc/1/root", R_OK) != 0)
        let refuse =
            geteuid() == 0
            ? "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all" : ""
        if geteuid() == 0 {
            fixture.succeed(
                "chown -R 65534:65534 . && chmod 711 . && chown 0:0 data/closed && chmod 700 data/closed"
            )
        } else {
            fixture.succeed("chmod 000 data/closed")
        }
        fixture.expect(
            3, "\(refuse) batchsync backup -r repository data", says: "data/closed", "problem")
        fixture.succeed("rm data/extra-later && chmod 755 data/closed && echo new > data/extra")
        let data = fixture.directory.path("data")
        let command =
            "batchsync restore latest:\(data) --target data --if-exists replace --delete \(Self.owner)"
        fixture.expect(3, command, says: "data/closed", "stays", "extra")
        fixture.succeed("test ! -e data/extra && grep -q precious data/closed/kept")
        fixture.expect(
            1, "batchsync restore latest:\(data)/closed/kept --target other \(Self.owner)",
            says: "could not store", "find")
    }

    @Test("A repository that was rolled back is named by the next backup and stays named")
    func rollback() {
        fixture.repository()
        fixture.succeed("cp -a repository earlier")
        fixture.succeed("echo more > data/more && batchsync backup -r repository data")
        fixture.succeed("rm -r repository && mv earlier repository")
        fixture.expect(
            3, "batchsync backup -r repository data", says: "rolled back", "snapshots/")
        fixture.expect(4, "batchsync verify -r repository", says: "rolled back")
        fixture.expect(3, "batchsync backup -r repository data", says: "rolled back")
        fixture.succeed("rm host/state/*/last-commit.json")
        fixture.succeed("batchsync backup -r repository data && batchsync verify -r repository")
    }

    @Test("restore --verify finds a flipped byte behind the right size and time, and mends it")
    func flippedByte() {
        fixture.repository()
        let restore =
            "batchsync restore latest --target there --if-exists replace \(Self.owner)"
        fixture.succeed(restore)
        let file = "there\(fixture.directory.path("data"))/large"
        fixture.succeed(
            """
            touch -r \(file) stamp && printf y | dd of=\(file) bs=1 seek=150000 conv=notrunc \
            2>/dev/null && touch -r stamp \(file)
            """)
        fixture.succeed("\(restore) && ! cmp -s \(file) data/large")
        fixture.succeed("\(restore) --verify && cmp \(file) data/large")
    }

    @Test(
        "Neither restore nor backup needs a cache that can be written",
        arguments: ["host/cache", "host/state"])
    func noCache(_ place: String) {
        fixture.repository()
        // Root writes everywhere; below a file nobody does.
        fixture.succeed("rm -r \(place) && echo > \(place)")
        fixture.succeed("echo more > data/more")
        fixture.expect(0, "batchsync backup -r repository data", says: "cannot be used")
        fixture.expect(
            0, "batchsync restore latest --target there \(Self.owner)", says: "cannot be used")
        fixture.succeed("cmp data/more there\(fixture.directory.path("data"))/more")
        fixture.expect(0, "batchsync verify \(Self.owner)", says: "no damage found")
        fixture.succeed("test -z \"$(ls -d tmp/batchsync-* 2>/dev/null)\"")
    }

    @Test("An init that could not keep its key leaves the place as it was")
    func failedInit() {
        fixture.succeed("mkdir host && echo > host/config")
        fixture.expect(
            1, "batchsync init -r repository --passphrase-file passphrase", says: "host/config")
        fixture.succeed("rm host/config")
        fixture.succeed("batchsync init -r repository --passphrase-file passphrase")
    }

    @Test("A verb that does not exist is an error that names the nearest one")
    func misspelledVerb() {
        fixture.expect(64, "batchsync bakup data", says: "'bakup'", "'backup'")
        fixture.expect(64, "batchsync help retsore", says: "'retsore'", "'restore'")
        fixture.expect(0, "batchsync help restore", says: "--target")
    }

    @Test("recover.py brings back what batchsync stored: every generation, byte for byte")
    func recovery() {
        fixture.succeed(
            """
            mkdir -p data/letters && seq 1 400000 > data/large && echo one > data/letters/anna
            ln data/letters/anna data/letters/again && ln -s large data/link
            truncate -s 3M data/holes && printf end >> data/holes
            batchsync init -r repository --passphrase-file passphrase
            batchsync backup -r repository data && cp -a data first
            (seq 1 200000; echo middle; seq 200001 400000) > data/large && cp data/large data/copy
            rm data/letters/again && touch -d 2001-02-03 data/letters/anna
            batchsync backup -r repository data && cp -a data second
            """)
        for (snapshot, copy) in [("latest~1", "first"), ("latest", "second")] {
            fixture.succeed(
                """
                id=$(batchsync snapshots -r repository --json | python3 -c '
                import json, sys
                all = json.load(sys.stdin)["snapshots"]
                print(all[\(snapshot == "latest" ? -1 : -2)]["id"])')
                (cd repository && python3 -B recover.py restore $id ../out-\(copy) \
                --passphrase-file ../passphrase) &&
                diff -r --no-dereference out-\(copy)\(fixture.directory.path("data")) \(copy) &&
                for list in out-\(copy)\(fixture.directory.path("data")) \(copy); do
                  (cd $list && find . -printf '%P %m %U %G %T@ %n %l\\n' | sort)
                done | sort | uniq -c | awk '$1 != 2 { print; bad = 1 } END { exit bad }'
                """)
        }
    }
}
