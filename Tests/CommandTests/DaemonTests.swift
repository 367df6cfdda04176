import SnapshotModel
import TestSupport
import Testing

@testable import Profiles
@testable import batchsync

/// The process that runs schedules where nothing else does.
@Suite("Daemon")
struct DaemonTests {
    private func fixture(_ text: String) -> CommandFixture {
        let fixture = CommandFixture()
        fixture.succeed("mkdir data && echo hello > data/file")
        fixture.succeed("batchsync init -r repository --no-encryption")
        let profile = """
            [repository]
            location = "repository"
            [source]
            paths = ["data"]
            [schedule]
            calendar = "*-*-* *:*:*"
            \(text)

            """
        fixture.directory.write(Array(profile.utf8), to: "job.toml", mode: 0o644)
        return fixture
    }

    /// Starts the daemon, waits for a line of shell to be true, asks it to stop, and gives its words.
    private func run(_ fixture: CommandFixture, until condition: String, signal: String = "TERM")
        -> CommandFixture.Outcome
    {
        // A background job of a shell ignores SIGINT, which the daemon would respect.
        fixture.shell(
            """
            python3 -c 'import os, signal, sys
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execvp(sys.argv[1], sys.argv[1:])' batchsync daemon ./job.toml > said 2>&1 &
            i=0; until \(condition); do i=$((i + 1)); [ $i -lt 1200 ] || exit 98; sleep 0.05; done
            kill -\(signal) $!; wait $!; code=$?; cat said; exit $code
            """)
    }

    @Test(
        "It runs a profile at each of its times, and ends with 0 when it is asked to",
        arguments: ["TERM", "INT"])
    func runs(_ signal: String) {
        let fixture = fixture("")
        let outcome = run(
            fixture, until: "[ $(ls repository/snapshots | wc -l) -ge 2 ]", signal: signal)
        #expect(outcome.status == 0, "\(outcome.output)")
        #expect(outcome.output.contains("./job.toml: next at "), "\(outcome.output)")
        #expect(outcome.output.contains("./job.toml: ended with code 0"), "\(outcome.output)")
        #expect(outcome.output.hasSuffix("asked to stop: done\n"), "\(outcome.output)")
    }

    @Test("A job that runs when it is asked to stop is stopped, and waited for")
    func stops() {
        let fixture = fixture(
            "[hooks]\nbefore = [\"touch '$PWD/started'; exec sleep 600\"]\nafter = [\"touch ended\"]"
        )
        fixture.succeed("sed -i \"s,.PWD,$PWD,; s,touch ended,touch $PWD/ended,\" job.toml")
        let outcome = run(fixture, until: "[ -e started ]")
        #expect(outcome.status == 0, "\(outcome.output)")
        #expect(outcome.output.contains("./job.toml: ended with code 143"), "\(outcome.output)")
        #expect(fixture.directory.read("ended") != nil)
    }

    @Test("A profile without times, or none at all, is refused")
    func refused() {
        let fixture = fixture("")
        fixture.succeed("sed -i /calendar/d job.toml")
        fixture.expect(64, "batchsync daemon ./job.toml", says: "does not say when it runs")
        fixture.expect(64, "HOME=$PWD batchsync daemon", says: "calendar = \"02:30\"")
    }

    @Test("A time that passes while another job runs is made up for once")
    func queue() throws {
        func at(_ text: String) throws -> Timestamp {
            try #require(Timestamp(rfc3339: "2026-11-26T\(text):00.000000000Z"))
        }
        var queue = JobQueue()
        for (name, time) in [("one", "*:00/10 UTC"), ("two", "*:05/10 UTC")] {
            queue.add(
                JobQueue.Job(
                    name: name, calendar: [try CalendarExpression(parsing: time)],
                    randomDelaySeconds: 0),
                after: try at("10:01"))
        }
        #expect(queue.waiting.map(\.name) == ["two", "one"])
        #expect(queue.take(try at("10:04")) == nil)
        #expect(queue.take(try at("10:05")) == "two")
        // It takes half an hour, in which the other's time comes three times.
        #expect(queue.reschedule("two", after: try at("10:36")) == (try at("10:45")))
        #expect(queue.take(try at("10:36")) == "one")
        #expect(queue.reschedule("one", after: try at("10:37")) == (try at("10:40")))
        #expect(queue.take(try at("10:37")) == nil)
    }
}
