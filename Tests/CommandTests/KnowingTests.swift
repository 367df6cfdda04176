import Glibc
import SnapshotModel
import TestSupport
import Testing

/// What a run of a profile leaves behind and whom it tells: log, history, status, metrics,
/// notifications and exit code have to say the same.
@Suite("Knowing how it went")
struct KnowingTests {
    private let fixture = CommandFixture()
    private let receiver: Receiver

    init() {
        receiver = Receiver([])
        fixture.repository()
        fixture.succeed(
            "mkdir -p host/config secrets && echo hook-secret > secrets/hook && echo mail-secret > secrets/mail"
        )
    }

    private var port: Int { JSONValue(parsing: receiver.ports)?["http"]?.count ?? 0 }

    private func next() -> JSONValue? { receiver.next().flatMap { JSONValue(parsing: $0) } }

    /// Writes the profile `home`, which tells the receiver of everything.
    private func profile(_ more: String = "", paths: String = "data", when: String = "always") {
        let base = fixture.directory.path
        fixture.directory.write(
            Array(
                """
                [repository]
                location = "\(base)/repository"
                [source]
                paths = ["\(base)/\(paths)"]
                [notify]
                when = "\(when)"
                webhook = "http://127.0.0.1:\(port)/hook?key=url-secret"
                webhook-authorization = { file = "\(base)/secrets/hook" }
                healthchecks = "http://127.0.0.1:\(port)/ping"
                [metrics]
                textfile = "\(base)/home.prom"
                [log]
                file = "\(base)/home.log"
                \(more)

                """.utf8), to: "host/config/home.toml")
    }

    private func log() throws -> [JSONValue] {
        try (fixture.directory.read("home.log") ?? []).split(separator: 0x0A).map {
            try #require(JSONValue(parsing: Array($0)))
        }
    }

    private func metric(_ name: String) -> String? {
        String(decoding: fixture.directory.read("home.prom") ?? [], as: UTF8.self)
            .split(separator: "\n").first { $0.hasPrefix("\(name){") }?
            .split(separator: " ").last.map(String.init)
    }

    @Test("A run that goes well is told everywhere, and nowhere is a secret")
    func success() throws {
        profile()
        fixture.succeed("batchsync run home")
        #expect(next()?["path"]?.string == "/ping/start")
        #expect(next()?["path"]?.string == "/ping")
        let hook = try #require(next())
        #expect(hook["path"]?.string == "/hook?key=url-secret")
        #expect(hook["headers"]?["authorization"]?.string == "hook-secret")
        let body = try #require(
            hook["body"]?.string.flatMap { JSONValue(parsing: Array($0.utf8)) })
        #expect(body["document"]?.string == "notification")
        #expect(body["run"]?["outcome"]?.string == "success")

        let history = try #require(
            fixture.json("batchsync history home --json")["runs"]?.array?.first)
        #expect(history == body["run"])
        #expect(history["statistics"]?["files"]?.count == 3)
        #expect(history["traffic"]?["latency"]?["put"]?["count"]?.count ?? 0 > 0)
        let lines = try log()
        #expect(lines.map { $0["event"]?.string }.first == "started")
        #expect(lines.last?["event"]?.string == "ended")
        #expect(lines.last?["run"] == history)
        #expect(metric("batchsync_run_trouble") == "0")
        #expect(metric("batchsync_run_files") == "3")
        let status = try #require(
            fixture.json("batchsync status home --json")["lines"]?.array?.first)
        #expect(status["late"]?.bool == false)
        #expect(status["snapshot"] == history["snapshot"])
        #expect(status["last_run"]?["outcome"]?.string == "success")
        let written = fixture.shell("cat home.log home.prom; grep -r '' host/state").output
        for secret in ["hook-secret", "mail-secret", "url-secret"] {
            #expect(!written.contains(secret), "\(secret)")
        }
    }

    @Test("A run that fails is told everywhere with its reason and code")
    func failure() throws {
        profile(paths: "missing", when: "failure")
        fixture.expect(1, "batchsync run home", says: "missing")
        #expect(next()?["path"]?.string == "/ping/start")
        let ping = try #require(next())
        #expect(ping["path"]?.string == "/ping/fail")
        #expect(ping["body"]?.string?.contains("missing") == true)
        let body = try #require(
            next()?["body"]?.string.flatMap { JSONValue(parsing: Array($0.utf8)) })
        #expect(body["trouble"]?.bool == true)
        #expect(body["run"]?["exit_code"]?.count == 1)
        #expect(body["run"]?["failures"]?.array?.first?["remedy"]?.string?.isEmpty == false)
        #expect(try log().last?["level"]?.string == "error")
        #expect(metric("batchsync_run_exit_code") == "1")
        let status = fixture.shell("batchsync status home")
        #expect(status.status == 1)
        #expect(status.output.contains("never") && status.output.contains("failure"))
    }

    @Test("A file that changes nothing and a quiet profile: only the check is told")
    func quiet() throws {
        profile(when: "failure")
        fixture.succeed("batchsync run -q home && batchsync run -q home")
        let paths = (0..<4).map { _ in next()?["path"]?.string }
        #expect(paths == ["/ping/start", "/ping", "/ping/start", "/ping"])
    }

    @Test("Whom nobody answers costs a line, not the run")
    func unreachable() throws {
        profile()
        // Refused for good, so that it is not tried again.
        let broken = Receiver(["--http", "404"])
        let other = JSONValue(parsing: broken.ports)?["http"]?.count ?? 0
        fixture.succeed("sed -i 's/:\(port)/:\(other)/' host/config/home.toml")
        let output = fixture.succeed("batchsync run home")
        #expect(output.contains("webhook: the notification did not arrive"), "\(output)")
        #expect(!output.contains("url-secret"))
        #expect(try log().contains { $0["event"]?.string == "notification" })
        #expect(metric("batchsync_run_trouble") == "0")
    }

    @Test("A secret that cannot be had costs that way alone, and is named by its reference")
    func missingSecret() throws {
        profile()
        fixture.succeed("rm secrets/hook")
        let output = fixture.succeed("batchsync run home")
        #expect(output.contains("webhook") && output.contains("secrets/hook"), "\(output)")
        #expect(next()?["path"]?.string == "/ping/start")
        #expect(next()?["path"]?.string == "/ping")
    }

    @Test("A file with problems makes the run partial, in words and numbers")
    func partial() throws {
        let unreadable = fixture.shell(
            "find /sys -type f -perm 0200 -size +0 2>/dev/null | head -n 1"
        ).output.prefix { $0 != "\n" }
        if unreadable.isEmpty {
            try Test.cancel("skipped: this machine cannot show a file that root may not read")
        }
        profile()
        fixture.succeed(
            "sed -i 's|paths = .*|paths = [\"'$PWD'/data\", \"\(unreadable)\"]|' host/config/home.toml"
        )
        fixture.expect(3, "batchsync run home", says: "1 problem")
        #expect(metric("batchsync_run_problems") == "1")
        #expect(metric("batchsync_run_exit_code") == "3")
        let lines = try log()
        #expect(
            lines.contains {
                $0["event"]?.string == "problem" && $0["path"]?.string == String(unreadable)
            })
        #expect(lines.last?["level"]?.string == "warning")
        // It is there, so it is not late.
        let status = try #require(
            fixture.json("batchsync status home --json")["lines"]?.array?.first)
        #expect(status["problems"]?.count == 1)
        #expect(status["late"]?.bool == false)
    }

    @Test("A second run is refused, and the log has it while the history has not")
    func secondRun() throws {
        profile("[hooks]\nbefore = [\"batchsync run home; echo code $? > second\"]")
        fixture.succeed("batchsync run -q home")
        #expect(fixture.succeed("cat second") == "code 5\n")
        #expect(try log().contains { $0["event"]?.string == "refused" })
        #expect(fixture.json("batchsync history home --json")["runs"]?.array?.count == 1)
    }

    @Test("Damage that a run finds is the worst that is told")
    func damage() throws {
        profile("[verify]\nread-data = \"100%\"")
        fixture.succeed("batchsync run -q home")
        fixture.succeed(
            "for b in repository/bundles/*/*; do chmod u+w $b; printf damage | dd of=$b bs=1 seek=400 conv=notrunc status=none; done"
        )
        fixture.expect(4, "batchsync run home", says: "bundles/")
        #expect(metric("batchsync_run_exit_code") == "4")
        let runs = fixture.json("batchsync history home --json")["runs"]?.array
        #expect(runs?.compactMap { $0["outcome"]?.string } == ["success", "damage"])
        #expect(runs?.last?["stores"]?.array?.first?["verified"]?["sound"]?.bool == false)
    }

    @Test("What was verified is remembered by share and day, and space as it is")
    func coverage() throws {
        profile("[verify]\nread-data = \"100%\"")
        fixture.succeed("batchsync run -q home")
        let line = try #require(
            fixture.json("batchsync status home --json")["lines"]?.array?.first)
        #expect(line["verified_30_days"]?.text == "1.0")
        #expect(line["never_verified_bytes"]?.count == 0)
        let stored = fixture.shell("cat repository/bundles/*/* | wc -c").output
        #expect("\(line["stored_bytes"]?.count ?? 0)\n" == stored)
        #expect(metric("batchsync_store_verified_ratio") == "1")
    }

    @Test("A signal is told as one")
    func interrupted() throws {
        profile("[hooks]\nbefore = [\"kill -TERM $PPID\"]")
        fixture.expect(143, "batchsync run home")
        #expect(next()?["path"]?.string == "/ping/start")
        #expect(next()?["path"]?.string == "/ping/fail")
        let runs = fixture.json("batchsync history home --json")["runs"]?.array
        #expect(runs?.last?["outcome"]?.string == "interrupted")
    }
}
