import ArgumentParser
import BundleFormat
import ObjectStorage
import SnapshotModel
import SnapshotRepository

struct StoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store",
        abstract: "Examine the place where a repository lies.",
        discussion: """
            A store is the directory, SFTP server or S3 bucket in which a repository keeps its objects.

                batchsync store check -r sftp://backup@nas/srv/batchsync
            """,
        subcommands: [StoreCheckCommand.self])
}

struct StoreCheckCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Prove that a server keeps what batchsync relies on.",
        discussion: """
            Tries every promise that a repository relies on: that an object is there as a whole or not at all, that what was \
            written is read back at once, ranges, listings of more than a thousand names, what happens when two write the same name. \
            Some of it depends on the server alone, and not every service that speaks S3 keeps all of it. Works in a folder of its own \
            beside the repository, or in an empty place before there is one, and removes what it put there. Needs no key.

                batchsync store check -r s3://bucket/prefix --endpoint https://s3.example.org
            """)

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        let opened: OpenedStore
        do {
            opened = try assembly.openStore()
        } catch let error as RepositoryError where error.kind == .notARepository {
            opened = try assembly.createStore()
        }
        var generator = SystemRandomNumberGenerator()
        let prefix = "check-\(String(generator.next() as UInt64, radix: 16))/"
        let conformance = StoreConformance(of: opened.store, prefix: prefix) { bytes in
            let digest: RecordID = bytes.withUnsafeBytes { ContentHash.sha256($0) }
            return digest.bytes
        }
        var outcomes: [JSONValue] = []
        defer { opened.removeMade() }
        let isKept = conformance.run { outcome in
            if output.json {
                outcomes.append(Self.document(outcome))
            } else {
                Self.tell(outcome)
            }
        }
        if output.json {
            JSONOutput.print(
                "store-check",
                [
                    ("location", .string(opened.location)), ("kept", .bool(isKept)),
                    ("promises", .array(outcomes)),
                ])
        } else {
            let console = Console.shared
            console.out(
                isKept
                    ? console.styled("the store keeps what batchsync relies on", .green)
                    : console.styled("the store breaks a promise that batchsync relies on", .red))
        }
        return isKept ? .done : .damaged
    }

    private static func tell(_ outcome: StoreConformance.Outcome) {
        let console = Console.shared
        switch outcome.verdict {
        case .kept:
            console.out("\(console.styled("kept", .green))     \(outcome.promise.claim)")
        case .broken(let how):
            console.out("\(console.styled("broken", .red))   \(outcome.promise.claim)")
            console.out("         \(how)")
        case .skipped(let why):
            console.out("\(console.styled("skipped", .yellow))  \(outcome.promise.claim)")
            console.out("         \(why)")
        }
        for figure in outcome.figures { console.out("         \(text(of: figure))") }
        console.flush()
    }

    /// `put of 8 MiB: 41.3 ms, 203 MB/s`
    private static func text(of figure: StoreConformance.Figure) -> String {
        let milliseconds = Int64((figure.seconds * 10_000).rounded())
        let time = "\(figure.operation): \(milliseconds / 10).\(milliseconds % 10) ms"
        guard figure.bytes >= 1 << 20, figure.seconds > 0 else { return time }
        return time + ", \(Int((Double(figure.bytes) / figure.seconds / 1e6).rounded())) MB/s"
    }

    private static func document(_ outcome: StoreConformance.Outcome) -> JSONValue {
        let (verdict, reason): (String, String) =
            switch outcome.verdict {
            case .kept: ("kept", "")
            case .broken(let how): ("broken", how)
            case .skipped(let why): ("skipped", why)
            }
        return .object([
            ("promise", .string(outcome.promise.rawValue)),
            ("claim", .string(outcome.promise.claim)), ("verdict", .string(verdict)),
            ("reason", .string(reason)),
            (
                "figures",
                .array(
                    outcome.figures.map { figure in
                        .object([
                            ("operation", .string(figure.operation)),
                            ("seconds", .decimal(String(figure.seconds))),
                            ("bytes", .count(figure.bytes)),
                        ])
                    })
            ),
        ])
    }
}
