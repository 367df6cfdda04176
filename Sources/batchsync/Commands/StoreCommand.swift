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

            First it tries anew what an S3 service can do, and puts and deletes one object, with no retention even where a profile asks for one. Where it \
            is not let in, or cannot delete what it put, it says so and examines nothing: the exit code is 1.

                batchsync store check -r s3://bucket/prefix --endpoint https://s3.example.org
            """)

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository) { access in
            access.mayWrite = true
            access.triesAnew = true
            // What is put here is deleted again.
            access.objectLock = nil
        }
        let opened = try Self.open(assembly)
        var generator = SystemRandomNumberGenerator()
        let prefix = "check-\(String(generator.next() as UInt64, radix: 16))/"
        try Self.putAndDelete(in: opened.store, below: prefix)
        let conformance = StoreConformance(of: opened.store, prefix: prefix) { Self.digest($0) }
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

    private static func open(_ assembly: Assembly) throws -> OpenedStore {
        do {
            return try assembly.openStore()
        } catch let error as RepositoryError where error.kind == .notARepository {
            // A directory is made, as init makes one. The name of a bucket may be wrong.
            if case .s3(_)? = try? StoreLocation(assembly.location()) {
                throw CommandError(.failed, error.description, remedy: error.remedy)
            }
            return try assembly.createStore()
        }
    }

    /// One object: where it cannot be deleted, the examination would leave a thousand more.
    private static func putAndDelete(in store: any ObjectStore, below prefix: String) throws {
        let key = ObjectKey(validated: prefix + "first")
        let bytes = Array("batchsync asks whether this can be deleted again\n".utf8)
        try store.put(.bytes(bytes, digest: digest(bytes)), at: key)
        var failure: StorageError?
        store.delete([key]) { _, error in failure = error }
        guard let failure else { return }
        throw CommandError(
            .failed,
            "\(failure.description); nothing was examined, since a thousand objects more would stay there",
            remedy:
                "examine the store as somebody who may delete what she puts, in a place that retains nothing"
        )
    }

    private static func digest(_ bytes: [UInt8]) -> [UInt8] {
        let digest: RecordID = bytes.withUnsafeBytes { ContentHash.sha256($0) }
        return digest.bytes
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
