import Glibc
import SnapshotModel
import TestSupport
import Testing

/// What a run of a profile leaves behind and whom it tells, where nothing goes wrong; the rest is in
/// `FailureTests`.
@Suite("Knowing how it went")
struct KnowingTests {
    private let night = NightFixture()
    private var fixture: CommandFixture { night.fixture }

    private func next() -> JSONValue? { night.next() }

    /// Writes the profile `home`, which tells the receiver of everything.
    private func profile(_ more: String = "", when: String = "always") {
        var tables = NightFixture.Tables()
        tables.notify = tables.notify.replacing("always", with: when)
        tables.more = more
        night.profile(tables)
    }

    private func metric(_ name: String) -> String? { night.metric(name) }

    @Test("A run that goes well is told everywhere, and nowhere is a secret")
    func success() throws {
        profile()
        fixture.succeed("batchsync run home")
        #expect(next()?["path"]?.string == "/ping/start")
        // Both at once, in whatever order.
        let ends = [next(), next()]
        #expect(ends.contains { $0?["path"]?.string == "/ping" })
        let hook = try #require(ends.first { $0?["path"]?.string != "/ping" } ?? nil)
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
        let lines = night.log()
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
        for secret in ["hook-secret", "url-secret"] {
            #expect(!written.contains(secret), "\(secret)")
        }
    }

    @Test("A file that changes nothing and a quiet profile: only the check is told")
    func quiet() throws {
        profile(when: "failure")
        fixture.succeed("batchsync run -q home && batchsync run -q home")
        let paths = (0..<4).map { _ in next()?["path"]?.string }
        #expect(paths == ["/ping/start", "/ping", "/ping/start", "/ping"])
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

    @Test(
        "Rules of a profile forget its own snapshots, and none of other sources or by other hosts")
    func retention() {
        func profile(_ name: String, _ source: String, _ more: String) {
            let text = """
                [repository]
                location = "\(night.base)/repository"
                [source]
                paths = ["\(night.base)/\(source)"]
                \(more)

                """
            fixture.directory.write(Array(text.utf8), to: "host/config/\(name).toml")
        }
        profile("long", "data/letters", "[retention]\nkeep-last = 100")
        profile("away", "data", "host = \"away\"")
        profile("short", "data", "[retention]\nkeep-last = 1\ngroup-by = []")
        fixture.succeed("for n in 1 2 3; do batchsync run -q long; done; batchsync run -q away")
        fixture.succeed("batchsync run -q short && batchsync run short")
        let left =
            fixture.json("batchsync snapshots -r repository --json")["snapshots"]?.array ?? []
        let roots = left.compactMap { $0["roots"]?.array?.first?.string }
        #expect(roots.count { $0.hasSuffix("/letters") } == 3, "\(roots)")
        #expect(roots.count { $0.hasSuffix("/data") } == 2, "\(roots)")
        #expect(left.count { $0["host"]?.string == "away" } == 1)
    }

    @Test("What hooks print is kept in the log, the end of it, and shown on demand")
    func hooks() throws {
        profile("[hooks]\nbefore = [\"seq 100000; echo dump of 42 tables written\"]")
        #expect(!fixture.succeed("batchsync run home").contains("42 tables"))
        let line = try #require(night.log().first { $0["event"]?.string == "hook" })
        #expect(line["level"]?.string == "info" && line["hook"]?.string == "before")
        #expect(line["ok"]?.bool == true && line["command"]?.string?.hasPrefix("seq ") == true)
        let output = line["output"]?.string ?? ""
        #expect(output.hasSuffix("\n100000\ndump of 42 tables written\n"))
        #expect(output.utf8.count == 8 << 10)
        #expect(fixture.succeed("batchsync run -v home").contains("dump of 42 tables written"))
        profile("[hooks]\nafter = [\"echo no such table; exit 3\"]")
        fixture.expect(3, "batchsync run home", says: "no such table")
        let failed = night.log().last { $0["event"]?.string == "hook" }
        #expect(failed?["level"]?.string == "warning" && failed?["ok"]?.bool == false)
        #expect(failed?["output"]?.string == "no such table\n")
    }

    @Test("A profile that only others inherit from is no job for status and daemon, unless it ran")
    func base() {
        let common = """
            [repository]
            location = "\(night.base)/repository"
            [schedule]
            calendar = "2000-01-01 00:00:00"

            """
        let source = "[source]\npaths = [\"\(night.base)/data\"]\n"
        fixture.directory.write(Array(common.utf8), to: "host/config/common.toml")
        fixture.directory.write(
            Array("inherit = \"common\"\n\(source)".utf8), to: "host/config/job.toml")
        // One that is no profile by itself, either.
        fixture.directory.write(
            Array("[backup]\ncompression = 1\n".utf8), to: "host/config/few.toml")
        fixture.directory.write(
            Array("inherit = \"few\"\n\(common)\(source)".utf8), to: "host/config/other.toml")
        fixture.succeed("batchsync run -q job && batchsync run -q other")
        #expect(!fixture.succeed("batchsync status").contains("common"))
        fixture.expect(1, "batchsync status common", says: "never")
        let daemon = fixture.succeed("batchsync daemon")
        #expect(daemon.contains("common: left out, since job inherits from it"), "\(daemon)")
        #expect(daemon.contains("the times that the profiles name are over"), "\(daemon)")
        // One that could run and did is a job as well.
        fixture.directory.write(Array((common + source).utf8), to: "host/config/common.toml")
        #expect(!fixture.succeed("batchsync status").contains("common"))
        fixture.succeed("batchsync run -q common")
        #expect(fixture.succeed("batchsync status").contains("common"))
        #expect(!fixture.succeed("batchsync daemon").contains("common: left out"))
    }

    @Test("What prune gives back is seen by status, by words and in a run")
    func pruned() throws {
        fixture.succeed("batchsync init -q -r other --no-encryption --grace-hours 0")
        func stored(_ words: String) -> Int? {
            let lines = fixture.json("batchsync status \(words) --json")["lines"]?.array
            return lines?.first?["stored_bytes"]?.count
        }
        func heldBytes() -> Int? {
            Int(
                fixture.succeed("cat other/bundles/*/* | wc -c").split(separator: "\n").first ?? "")
        }
        let backup = """
            head -c 400000 /dev/urandom > data/noise && batchsync backup -q -r other data
            rm data/noise && batchsync backup -q -r other data
            """
        for prune in [
            "batchsync forget --keep-last 1 --prune -r other",
            "batchsync forget --keep-last 1 -r other && batchsync prune -q -r other",
        ] {
            fixture.succeed(backup)
            #expect((stored("-r other") ?? 0) > 400_000)
            fixture.succeed(prune)
            let held = try #require(heldBytes())
            #expect(held < 400_000 && stored("-r other") == held)
        }
        fixture.succeed(backup)
        var tables = NightFixture.Tables()
        tables.repository = "location = \"@/other\""
        tables.more =
            "[retention]\nkeep-last = 1\n[verify]\ninterval = \"7d\"\n[prune]\ninterval = \"0s\""
        night.profile(tables)
        fixture.succeed("batchsync run -q home")
        let held = try #require(heldBytes())
        #expect(held < 400_000 && stored("home") == held)
        #expect(metric("batchsync_store_bytes") == "\(held)")
    }

    @Test("A young snapshot makes a run needless only where the repository is the same")
    func ifOlderThan() {
        profile()
        fixture.succeed("batchsync run -q home")
        let line = "batchsync run --if-older-than 20h home"
        #expect(fixture.succeed(line).contains("nothing to do"))
        fixture.succeed("batchsync init -q -r other --recipient $(cat recipient)")
        var tables = NightFixture.Tables()
        tables.repository = "location = \"@/other\""
        night.profile(tables)
        #expect(!fixture.succeed(line).contains("nothing to do"))
        fixture.succeed("test -n \"$(ls other/snapshots)\"")
        #expect(fixture.succeed(line).contains("nothing to do"))
    }

    @Test("Two profiles that write one file of metrics are named by profile check")
    func sharedTextfile() {
        profile()
        fixture.succeed("cp host/config/home.toml host/config/twin.toml")
        fixture.expect(
            0, "batchsync profile check", says: "twin writes \(night.base)/home.prom as well",
            "home writes \(night.base)/home.prom as well")
        // What only the twin inherits from is no job and writes nothing.
        fixture.directory.write(
            Array("inherit = \"home\"\n".utf8), to: "host/config/twin.toml", mode: 0o644)
        #expect(!fixture.succeed("batchsync profile check").contains("as well"))
        fixture.succeed("batchsync run -q home")
        fixture.expect(0, "batchsync profile check twin", says: "home writes ")
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
}
