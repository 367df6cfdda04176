import Glibc
import SnapshotModel
import TestSupport
import Testing

/// A host with a repository and the profile `home`, which tells a receiver of everything, and what
/// everybody is told of a run of it.
struct NightFixture {
    let fixture = CommandFixture()
    private let receiver = Receiver([])

    init() {
        // The owner's key is on another machine, so that no run has to stretch a passphrase.
        fixture.succeed(
            """
            mkdir -p data/letters host/config secrets && echo hook-secret > secrets/hook
            echo hello > data/letters/anna && echo world > data/letters/ben
            head -c 300000 /dev/zero | tr '\\0' x > data/large
            batchsync key generate --output identity
            grep -o 'age1[0-9a-z]*' identity | head -n 1 > recipient
            chmod 600 secrets/* identity passphrase wrong-passphrase
            batchsync init -r repository --recipient $(cat recipient)
            """)
    }

    var base: String { fixture.directory.path }
    var port: Int { JSONValue(parsing: receiver.ports)?["http"]?.count ?? 0 }
    var mailPort: Int { JSONValue(parsing: receiver.ports)?["smtp"]?.count ?? 0 }

    /// What the receiver gets next; waits for it.
    func next() -> JSONValue? { receiver.next().flatMap { JSONValue(parsing: $0) } }

    /// The tables of a profile that tests change.
    struct Tables {
        var repository = "location = \"@/repository\""
        var source = "paths = [\"@/data\"]"
        var notify = """
            when = "always"
            webhook = "http://127.0.0.1:PORT/hook?key=url-secret"
            webhook-authorization = { file = "@/secrets/hook" }
            healthchecks = "http://127.0.0.1:PORT/ping"
            """
        var metrics = "textfile = \"@/home.prom\""
        var log = "file = \"@/home.log\""
        /// Further tables.
        var more = ""
    }

    /// Writes the profile; `@` stands for the fixture's directory, `PORT` for the receiver's port.
    func profile(_ tables: Tables = Tables()) {
        let text = """
            [repository]
            \(tables.repository)
            [source]
            \(tables.source)
            [notify]
            \(tables.notify)
            [metrics]
            \(tables.metrics)
            [log]
            \(tables.log)
            \(tables.more)

            """.replacing("@", with: base).replacing("PORT", with: "\(port)")
        fixture.directory.write(Array(text.utf8), to: "host/config/home.toml")
    }

    func log() -> [JSONValue] {
        (fixture.directory.read("home.log") ?? []).split(separator: 0x0A).map { line in
            guard let value = JSONValue(parsing: Array(line)) else {
                Issue.record("no line of a log: \(String(decoding: line, as: UTF8.self))")
                return .null
            }
            return value
        }
    }

    func metric(_ name: String) -> String? {
        String(decoding: fixture.directory.read("home.prom") ?? [], as: UTF8.self)
            .split(separator: "\n").first { $0.hasPrefix("\(name){") }?
            .split(separator: " ").last.map(String.init)
    }

    func history() -> [JSONValue] {
        fixture.json("batchsync history home --json")["runs"]?.array ?? []
    }

    /// What was said of one run, everywhere.
    struct Told {
        let code: Int32
        /// On the terminal.
        let output: String
        let log: [JSONValue]
        /// What arrived, in order.
        let messages: [JSONValue]
        let history: JSONValue?
        /// `batchsync status`, and the code with which it ends.
        let status: JSONValue
        let statusCode: Int32

        var ended: JSONValue? { log.first { $0["event"]?.string == "ended" } }

        /// What arrived at a path that begins so.
        func message(_ path: String) -> JSONValue? {
            messages.last { $0["path"]?.string?.hasPrefix(path) == true }
        }

        /// The document that the webhook got.
        var webhook: JSONValue? {
            message("/hook")?["body"]?.string.flatMap { JSONValue(parsing: Array($0.utf8)) }
        }

        func event(_ name: String) -> JSONValue? { log.first { $0["event"]?.string == name } }
    }

    /// Runs a line, which runs the profile, and gathers what was told of it.
    func run(_ line: String = "batchsync run home") -> Told {
        let linesBefore = log().count
        _ = receiver.received()
        let outcome = fixture.shell(line)
        return Told(
            code: outcome.status, output: outcome.output,
            log: Array(log().dropFirst(linesBefore)),
            messages: receiver.received().compactMap { JSONValue(parsing: $0) },
            history: history().last,
            status: fixture.json("batchsync status home --json"),
            statusCode: fixture.shell("batchsync status home").status)
    }
}
