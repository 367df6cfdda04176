import Glibc
import SnapshotModel
import TestSupport
import Testing

/// One thing that goes wrong in a night, and what everybody has to be told of it.
struct NightFailure: Sendable, CustomTestStringConvertible {
    let name: String
    /// Before the last good run.
    var prepared = ""
    /// Tables of the profile of the good run.
    var good = ""
    /// After it.
    var damage = ""
    /// The profile of the run that fails; unset, as it was.
    var repository: String?
    var source: String?
    var metrics: String?
    var log: String?
    var more = ""
    /// How it is run.
    var line = "batchsync run home"

    let code: Int32
    let outcome: String
    /// What is said of it, on the terminal, in the log and in messages alike.
    let says: [String]
    /// An event of the log beside the end.
    var event: String?
    /// Whether a snapshot was made all the same.
    var hasSnapshot = false
    /// Whether the newest snapshot is then too old, or not there.
    var isLate = false

    var testDescription: String { name }

    private static func notIn(_ line: String) -> String {
        "\(geteuid() == 0 ? "unshare -m" : "unshare -rm") sh -c '\(line)'"
    }

    static let readAll = "[verify]\nread-data = \"100%\"\n"
    static let pruneAlways = "[verify]\ninterval = \"7d\"\n[prune]\ninterval = \"0s\"\n"

    static let all: [NightFailure] = [
        .init(
            name: "a source is missing", damage: "mv data elsewhere", code: 1, outcome: "failure",
            says: ["/data: No such file", "nothing was written"]),
        .init(
            name: "the disk with the repository is not there", damage: "mv repository elsewhere",
            code: 10, outcome: "failure", says: ["/repository: there is no repository here"]),
        .init(
            name: "the store is full",
            damage: "head -c 9000000 /dev/urandom > data/noise; mkdir full",
            repository: "location = \"@/full/repository\"",
            line: notIn(
                "mount -t tmpfs -o size=4m tmpfs full && cp -a repository full && batchsync run home"
            ),
            code: 1, outcome: "failure", says: ["No space left on device", "free space"],
            isLate: true),
        .init(
            name: "the store is mounted read-only", damage: "mkdir m && echo more > data/more",
            repository: "location = \"@/m\"",
            line: notIn(
                "mount --bind repository m && mount -o remount,bind,ro m && batchsync run home"),
            code: 1, outcome: "failure", says: ["Read-only file system", "writable"], isLate: true),
        .init(
            name: "the server is down",
            repository: """
                location = "s3://bucket/prefix"
                endpoint = "http://127.0.0.1:1"
                region = "us-east-1"
                aws-access-key-id = { file = "@/secrets/hook" }
                aws-secret-access-key = { file = "@/secrets/hook" }
                """,
            code: 1, outcome: "failure", says: ["connect to 127.0.0.1 port 1", "can be reached"],
            isLate: true),
        .init(
            name: "one of two servers is down",
            prepared:
                "batchsync init --replica-of repository -r second",
            good: "[[replica]]\nlocation = \"@/second\"", damage: "mv second elsewhere",
            more: "[[replica]]\nlocation = \"@/second\"", code: 3, outcome: "partial",
            says: ["/second", "there is no repository here"], hasSnapshot: true),
        .init(
            name: "neither of two servers is there",
            prepared:
                "batchsync init --replica-of repository -r second",
            good: "[[replica]]\nlocation = \"@/second\"",
            damage: "mv second elsewhere; mv repository gone",
            more: "[[replica]]\nlocation = \"@/second\"", code: 1, outcome: "failure",
            says: ["no store of the repository answers", "/second", "/repository"]),
        .init(
            name: "a hook fails", more: "[hooks]\nbefore = [\"echo no database; exit 7\"]", code: 1,
            outcome: "failure", says: ["hook before", "ended with code 7", "no database"]),
        .init(
            name: "a hook hangs",
            more: "[hooks]\nbefore = [\"sleep 600\"]\ntime-limit = \"1s\"", code: 1,
            outcome: "failure", says: ["hook before", "ran longer than it may and was ended"]),
        .init(
            name: "a hook after the backup fails", more: "[hooks]\nafter = [\"exit 3\"]", code: 3,
            outcome: "partial", says: ["hook after", "ended with code 3"], hasSnapshot: true),
        .init(
            name: "the command whose output is stored fails",
            source:
                "stdin-from-command = { name = \"shop.sql\", command = [\"sh\", \"-c\", \"echo half; exit 9\"] }",
            code: 1, outcome: "failure", says: ["ended with code 9", "nothing was committed"]),
        .init(
            name: "the run is asked to stop",
            more: "[hooks]\nbefore = [\"kill -TERM $PPID; sleep 600\"]",
            code: 143, outcome: "interrupted", says: ["asked to stop"]),
        .init(
            name: "the repository is of a newer format",
            damage:
                "chmod u+w repository/config.json; sed -i 's/\"batchsync\":1/\"batchsync\":2/' repository/config.json",
            code: 1, outcome: "failure", says: ["format 2", "newer"]),
        .init(
            name: "the repository is another one than before",
            damage:
                "chmod u+w repository/config.json; sed -i 's/\"average\":262144/\"average\":131072/' repository/config.json",
            code: 12, outcome: "failure", says: ["config.json", "pinned"]),
        .init(
            name: "the repository was rolled back", prepared: "cp -a repository earlier",
            damage: "rm -r repository; mv earlier repository", code: 4, outcome: "damage",
            says: ["rolled back"], hasSnapshot: true),
        .init(
            name: "a bundle is damaged", good: readAll,
            damage:
                "for b in repository/bundles/*/*; do chmod u+w $b; printf damage | dd of=$b bs=1 seek=400 conv=notrunc status=none; done",
            more: readAll, code: 4, outcome: "damage", says: ["bundles/"], hasSnapshot: true),
        .init(
            name: "a snapshot is damaged",
            damage:
                "f=$(ls repository/snapshots/* | head -n 1); chmod u+w $f; printf damage | dd of=$f bs=1 seek=30 conv=notrunc status=none",
            code: 4, outcome: "damage",
            says: ["/repository: snapshots/", "copy it back from another copy"], hasSnapshot: true),
        .init(
            name: "what an earlier snapshot needs is missing, and prune finds out",
            good: pruneAlways,
            damage: "rm -f repository/bundles/*/* data/large", more: pruneAlways, code: 4,
            outcome: "damage", says: ["it needs bundles/", "'batchsync repair index'"],
            hasSnapshot: true),
        .init(
            name: "the key of the host is gone", damage: "rm host/config/keys/*", code: 12,
            outcome: "failure", says: ["host/config/keys/", "key export --host"]),
        .init(
            name: "the key of the host is another one",
            damage:
                "batchsync init -r other --recipient $(cat recipient); cd host/config/keys; cp -f $(ls -t | head -n 1) $(ls -tr | head -n 1)",
            code: 12, outcome: "failure", says: ["pinned"]),
        .init(
            name: "the passphrase is wrong",
            prepared: "rm -r repository; batchsync init -r repository --passphrase-file passphrase",
            more: readAll + "[credentials]\npassphrase = { file = \"@/wrong-passphrase\" }",
            code: 3,
            outcome: "partial", says: ["/repository: wrong passphrase"], hasSnapshot: true),
        .init(
            name: "the file of the owner's identity is missing",
            more: readAll + "[credentials]\nidentity = { file = \"@/absent\" }", code: 3,
            outcome: "partial", says: ["/absent", "No such file"], hasSnapshot: true),
        .init(
            name: "everybody can read the owner's identity", damage: "chmod 644 identity",
            more: readAll + "[credentials]\nidentity = { file = \"@/identity\" }", code: 0,
            outcome: "success", says: ["/identity, which holds a secret", "chmod 600"],
            event: "note", hasSnapshot: true),
        .init(
            name: "the rules would leave nothing", more: "[retention]\nkeep-tags = [\"never\"]",
            code: 3, outcome: "partial", says: ["/repository: the policy would leave nothing"],
            hasSnapshot: true),
        .init(
            name: "the cache cannot be written", damage: "rm -r host/cache; echo > host/cache",
            code: 0, outcome: "success", says: ["host/cache", "cannot be used"], event: "note",
            hasSnapshot: true),
        .init(
            name: "the metrics cannot be written", metrics: "textfile = \"@/absent/home.prom\"",
            code: 0, outcome: "success", says: ["/absent/home.prom", "No such file"],
            event: "report", hasSnapshot: true),
        .init(
            name: "the log cannot be written", log: "file = \"@/absent/home.log\"", code: 0,
            outcome: "success", says: ["/absent/home.log", "No such file"], hasSnapshot: true),
    ]
}

/// What goes wrong at night and nobody sees has to be found in the morning: on the terminal or in
/// the journal, in the log, in messages, in the metrics, in the history, in the status and in the
/// exit code, and everywhere the same.
@Suite("Failures of a night")
struct FailureTests {
    private let night = NightFixture()
    private var fixture: CommandFixture { night.fixture }

    /// That everybody was told the same of a run.
    private func expect(
        _ told: NightFixture.Told, code: Int32, outcome: String, says: [String],
        hasSnapshot: Bool, isLate: Bool, tables: NightFixture.Tables = .init(),
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let isTrouble = outcome != "success"
        #expect(told.code == code, "\(told.output)", sourceLocation: sourceLocation)
        let history = told.history
        #expect(history?["outcome"]?.string == outcome, sourceLocation: sourceLocation)
        #expect(history?["exit_code"]?.count == Int(code), sourceLocation: sourceLocation)
        #expect(
            (history?["snapshot"]?.string != nil) == hasSnapshot, sourceLocation: sourceLocation)

        // The log, where there is one, and the messages have the run as the history has it, but for
        // what could not be written after that.
        if tables.log == NightFixture.Tables().log {
            let levels = ["success": "info", "partial": "warning"]
            #expect(
                told.ended?["level"]?.string == levels[outcome, default: "error"],
                sourceLocation: sourceLocation)
            #expect(
                told.ended?["run"]?["summary"] == history?["summary"],
                sourceLocation: sourceLocation)
            #expect(
                told.ended?["run"]?["failures"] == history?["failures"],
                sourceLocation: sourceLocation)
        }
        #expect(told.webhook?["trouble"]?.bool == isTrouble, sourceLocation: sourceLocation)
        #expect(
            told.webhook?["run"]?["exit_code"]?.count == Int(code), sourceLocation: sourceLocation)
        #expect(
            told.webhook?["run"]?["failures"] == history?["failures"],
            sourceLocation: sourceLocation)
        #expect(
            told.messages.first?["path"]?.string == "/ping/start", sourceLocation: sourceLocation)
        let ping = told.message(isTrouble ? "/ping/fail" : "/ping")
        #expect(ping?["path"]?.string == (isTrouble ? "/ping/fail" : "/ping"))

        // Nor is anything shown as the program has it inside.
        for text in [told.output, told.webhook?.text ?? ""] {
            #expect(
                !text.contains("(kind:") && !text.contains("Error("), "\(text)",
                sourceLocation: sourceLocation)
        }
        let log = told.log.map(\.text).joined(separator: "\n")
        for word in says {
            #expect(
                told.output.contains(word), "on the terminal: \(told.output)",
                sourceLocation: sourceLocation)
            #expect(
                ping?["body"]?.string?.contains(word) == true,
                "in the message: \(ping?.text ?? "")", sourceLocation: sourceLocation)
            if tables.log == NightFixture.Tables().log {
                // JSON writes some characters in a way of its own.
                let escaped = JSONValue.string(word).text.dropFirst().dropLast()
                #expect(log.contains(escaped), "in the log: \(log)", sourceLocation: sourceLocation)
            }
        }

        if tables.metrics == NightFixture.Tables().metrics {
            #expect(
                night.metric("batchsync_run_exit_code") == "\(code)", sourceLocation: sourceLocation
            )
            #expect(
                night.metric("batchsync_run_trouble") == (isTrouble ? "1" : "0"),
                sourceLocation: sourceLocation)
        }

        let line = told.status["lines"]?.array?.first
        #expect(line?["last_run"]?["outcome"]?.string == outcome, sourceLocation: sourceLocation)
        #expect(line?["last_run"]?["exit_code"]?.count == Int(code), sourceLocation: sourceLocation)
        #expect(line?["last_run"]?["summary"] == history?["summary"])
        if hasSnapshot { #expect(line?["snapshot"] == history?["snapshot"]) }
        #expect(told.status["late"]?.bool == isLate, sourceLocation: sourceLocation)
        #expect(told.statusCode == (isLate ? 1 : 0), sourceLocation: sourceLocation)
    }

    @Test(
        "Log, messages, metrics, history, status and exit code say what went wrong",
        arguments: NightFailure.all)
    func failure(_ failure: NightFailure) throws {
        if failure.line.hasPrefix("unshare") {
            let words = failure.line.prefix { $0 != "'" }.split(separator: " ").dropLast(2)
                .joined(separator: " ")
            if fixture.shell("mkdir probe && \(words) mount -t tmpfs tmpfs probe").status != 0 {
                try Test.cancel(
                    "skipped: this machine cannot mount a file system in a name space of its own")
            }
        }
        if !failure.prepared.isEmpty { fixture.succeed(failure.prepared) }
        var tables = NightFixture.Tables()
        tables.more = failure.good
        night.profile(tables)
        let good = night.run()
        #expect(good.code == 0 && good.statusCode == 0, "\(good.output)")

        if !failure.damage.isEmpty { fixture.succeed(failure.damage) }
        tables.more = failure.more
        if let repository = failure.repository { tables.repository = repository }
        if let source = failure.source { tables.source = source }
        if let metrics = failure.metrics { tables.metrics = metrics }
        if let log = failure.log { tables.log = log }
        night.profile(tables)
        let told = night.run(failure.line)
        expect(
            told, code: failure.code, outcome: failure.outcome, says: failure.says,
            hasSnapshot: failure.hasSnapshot, isLate: failure.isLate, tables: tables)
        if let event = failure.event { #expect(told.event(event) != nil) }
    }

    @Test("There are enough of them, each with a name of its own")
    func count() {
        #expect(NightFailure.all.count >= 20)
        #expect(Set(NightFailure.all.map(\.name)).count == NightFailure.all.count)
    }

    // MARK: Files

    @Test("A file that cannot be read is named everywhere, and the snapshot is there")
    func unreadable() throws {
        let path = fixture.shell("find /sys -type f -perm 0200 -size +0 2>/dev/null | head -n 1")
            .output.prefix { $0 != "\n" }
        if path.isEmpty {
            try Test.cancel("skipped: this machine cannot show a file that root may not read")
        }
        var tables = NightFixture.Tables()
        tables.source = "paths = [\"@/data\", \"\(path)\"]"
        night.profile(tables)
        let told = night.run()
        expect(
            told, code: 3, outcome: "partial", says: ["1 problem"], hasSnapshot: true,
            isLate: false)
        #expect(night.metric("batchsync_run_problems") == "1")
        #expect(told.event("problem")?["path"]?.string == String(path))
        #expect(told.status["lines"]?.array?.first?["problems"]?.count == 1)
        #expect(told.webhook?["run"]?["problem_count"]?.count == 1)
    }

    // MARK: Servers

    /// An S3 server of the test's own with a repository, which the profile names.
    private func server(_ more: String = "") throws -> (StrictS3, NightFixture.Tables) {
        let server = try StrictS3()
        fixture.directory.write(
            Array(server["S3_ACCESS_KEY"].utf8), to: "secrets/id", mode: 0o600)
        fixture.directory.write(
            Array(server["S3_SECRET_KEY"].utf8), to: "secrets/key", mode: 0o600)
        let (endpoint, location) = (server["S3_ENDPOINT"], "s3://test/prefix")
        var tables = NightFixture.Tables()
        tables.repository = """
            location = "\(location)"
            endpoint = "\(endpoint)"
            region = "us-east-1"
            aws-access-key-id = { file = "@/secrets/id" }
            aws-secret-access-key = { file = "@/secrets/key" }
            """
        tables.more = more
        night.profile(tables)
        fixture.succeed("batchsync init -p home --recipient $(cat recipient)")
        let good = night.run()
        #expect(good.code == 0, "\(good.output)")
        return (server, tables)
    }

    @Test("A server that does not know the credentials any more is no server that is down")
    func credentials() throws {
        let (server, tables) = try server()
        fixture.succeed("echo other > secrets/key")
        night.profile(tables)
        let told = night.run()
        expect(
            told, code: 1, outcome: "failure",
            says: ["the secret key does not belong to the access key"],
            hasSnapshot: false, isLate: false)
        withExtendedLifetime(server) {}
    }

    @Test("A clock that is wrong is named, and not the signature that it spoils")
    func clock() throws {
        let (server, _) = try server()
        server.server.tell("clock", "7200")
        let told = night.run()
        expect(
            told, code: 1, outcome: "failure",
            says: ["the clocks differ too much", "set the clock of this host"], hasSnapshot: false,
            isLate: false)
    }

    @Test("A store that denies deletes is told of, and is no failure")
    func deniedDelete() throws {
        let (server, _) = try server("[prune]\ninterval = \"0s\"\n")
        server.deny("s3:DeleteObject")
        let told = night.run()
        expect(
            told, code: 0, outcome: "success",
            says: ["not pruned: the store does not let this user delete"], hasSnapshot: true,
            isLate: false)
    }

    // MARK: Messages

    @Test("Whom nobody answers costs a line, not the run, and the others are told")
    func unreachable() {
        var tables = NightFixture.Tables()
        tables.notify = """
            when = "always"
            webhook = "http://127.0.0.1:1/hook?key=url-secret"
            healthchecks = "http://127.0.0.1:PORT/ping"
            ntfy = { file = "@/absent" }
            mail-server = "smtp://127.0.0.1:1"
            mail-from = "batchsync@example.org"
            mail-to = ["anna@example.org"]
            """
        night.profile(tables)
        let told = night.run()
        #expect(told.code == 0 && told.message("/ping")?["path"]?.string == "/ping")
        let lines = told.log.filter { $0["event"]?.string == "notification" }
            .compactMap { $0["message"]?.string }
        for way in [
            "webhook: the notification did not arrive", "ntfy: cannot read", "mail: the not",
        ] {
            #expect(told.output.contains(way), "\(told.output)")
            #expect(lines.contains { $0.hasPrefix(way) }, "\(lines)")
        }
        #expect(!told.output.contains("url-secret") && !"\(lines)".contains("url-secret"))
        #expect(night.metric("batchsync_run_trouble") == "0")
    }

    @Test("A server that takes no mail is named in the log, and the mail that it takes says it all")
    func mail() throws {
        var tables = NightFixture.Tables()
        tables.notify = """
            mail-server = "smtp://127.0.0.1:\(night.mailPort)"
            mail-from = "batchsync@example.org"
            mail-to = ["anna@example.org"]
            """
        tables.more = "[hooks]\nbefore = [\"exit 7\"]"
        night.profile(tables)
        let told = night.run()
        #expect(told.code == 1)
        // It is noted when the conversation is over, which nobody but the server waits for.
        let data = try #require((told.messages.first ?? night.next())?["data"]?.string)
        #expect(data.contains("home failed") && data.contains("ended with code 7"), "\(data)")
        let firm = Receiver(["--smtp", "554"])
        let port = JSONValue(parsing: firm.ports)?["smtp"]?.count ?? 0
        tables.notify = tables.notify.replacing("\(night.mailPort)", with: "\(port)")
        night.profile(tables)
        let refused = night.run()
        #expect(refused.code == 1)
        #expect(refused.event("notification")?["message"]?.string?.contains("554") == true)
    }

    // MARK: Runs

    @Test("A second run is refused with who runs since when; the log has it, the history has not")
    func secondRun() throws {
        var tables = NightFixture.Tables()
        tables.more = "[hooks]\nbefore = [\"batchsync run home 2> second; echo code $? >> second\"]"
        night.profile(tables)
        let told = night.run()
        #expect(told.code == 0, "\(told.output)")
        let second = fixture.succeed("cat second")
        #expect(
            second.contains("already running since ") && second.hasSuffix("code 5\n"), "\(second)")
        let line = try #require(told.event("refused"))
        #expect(line["level"]?.string == "warning")
        #expect(line["message"]?.string?.contains("already running since ") == true)
        #expect(night.history().count == 1)
        #expect(told.messages.count == 3)
    }

    @Test("A run that cannot even begin is told like any other that fails")
    func cannotBegin() {
        night.profile()
        #expect(night.run().code == 0)
        fixture.succeed("rm -r host/state/runs && echo > host/state/runs")
        let told = night.run()
        expect(
            told, code: 1, outcome: "failure", says: ["host/state/runs"], hasSnapshot: false,
            isLate: false)
    }

    @Test("While a run goes on, status says so, and not that it was killed")
    func running() throws {
        night.profile()
        #expect(night.run().code == 0)
        var tables = NightFixture.Tables()
        tables.more = """
            [hooks]
            before = ["batchsync status home --json > during", "batchsync status home > words"]
            """
        night.profile(tables)
        let told = night.run()
        #expect(told.code == 0, "\(told.output)")
        let during = try #require(JSONValue(parsing: fixture.directory.read("during") ?? []))
        let runs = during["unfinished_runs"]?.array ?? []
        #expect(runs.count == 1 && runs.first?["running"]?.bool == true, "\(runs)")
        let words = fixture.succeed("cat words")
        #expect(words.contains("home: running since ") && !words.contains("killed"), "\(words)")
        #expect(told.status["unfinished_runs"]?.array?.isEmpty == true)
    }

    @Test("A run that was killed is told of by status and by the next run, and then no more")
    func killed() {
        night.profile()
        #expect(night.run().code == 0)
        var tables = NightFixture.Tables()
        tables.more = "[hooks]\nbefore = [\"kill -9 $PPID\"]"
        night.profile(tables)
        let killed = night.run()
        #expect(killed.code == 137)
        // Silence is what a check takes for an alarm: a beginning, and no end.
        #expect(killed.messages.compactMap { $0["path"]?.string } == ["/ping/start"])
        #expect(killed.log.compactMap { $0["event"]?.string } == ["started"])
        #expect(killed.status["unfinished_runs"]?.array?.first?["running"]?.bool == false)
        fixture.expect(0, "batchsync status home", says: "was killed before its end")
        night.profile()
        let next = night.run()
        expect(
            next, code: 0, outcome: "success", says: ["was killed before its end"],
            hasSnapshot: true, isLate: false)
        #expect(next.status["unfinished_runs"]?.array?.isEmpty == true)
        #expect(night.run().output.contains("killed") == false)
    }

    @Test(
        "A profile that cannot be used is told by status and history, since it names nobody",
        arguments: [
            ("echo 'no = profile' >> host/config/home.toml", Int32(64), "no"),
            ("sed -i 's/paths/path/' host/config/home.toml", 64, "paths"),
            ("echo '[' >> host/config/home.toml", 64, "home.toml:"),
            ("chmod o+w host/config/home.toml", 1, "chmod o-w"),
        ])
    func unusableProfile(_ damage: String, _ code: Int32, _ words: String) throws {
        night.profile()
        #expect(night.run().code == 0)
        fixture.succeed(damage)
        let outcome = fixture.shell("batchsync run home")
        #expect(outcome.status == code, "\(outcome.output)")
        #expect(outcome.output.contains(words), "\(outcome.output)")
        fixture.expect(1, "batchsync status", says: "profile home cannot be read", "home.toml")
        let last = try #require(night.history().last)
        #expect(last["outcome"]?.string == "failure" && last["exit_code"]?.count == Int(code))
        #expect(last["summary"]?.string?.contains("home.toml") == true)
        let log = fixture.directory.read("host/state/log/home.jsonl") ?? []
        #expect(JSONValue(parsing: Array(log.dropLast()))?["level"]?.string == "error")
    }

    @Test("A backup by words whose source is missing is in the history as well")
    func backupWithoutSource() {
        fixture.expect(1, "batchsync backup -r repository absent", says: "absent")
        let runs = fixture.json("batchsync history -r repository --json")["runs"]?.array
        #expect(runs?.last?["verb"]?.string == "backup")
        #expect(runs?.last?["outcome"]?.string == "failure")
        #expect(runs?.last?["failures"]?.array?.first?["remedy"]?.string?.isEmpty == false)
    }
}
