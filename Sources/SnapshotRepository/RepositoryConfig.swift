package import SnapshotModel

/// `config.json`: clear, written once (format.md section 3).
package struct RepositoryConfig: Sendable, Equatable {
    package static let formatVersion = 1

    package var repository: RepositoryID
    package var created: Timestamp
    package var isEncrypted: Bool
    package var chunker: ChunkerParameters
    package var graceSeconds: Int

    package init(
        repository: RepositoryID, created: Timestamp, isEncrypted: Bool,
        chunker: ChunkerParameters = .standard, graceSeconds: Int = 86_400
    ) {
        self.repository = repository
        self.created = created
        self.isEncrypted = isEncrypted
        self.chunker = chunker
        self.graceSeconds = graceSeconds
    }

    var bytes: [UInt8] {
        JSONValue.object([
            ("batchsync", .integer(Int64(Self.formatVersion))), ("kind", .string("config")),
            ("repository", .string(repository.description)), ("created", .string(created.text)),
            ("encryption", .string(isEncrypted ? "age" : "none")),
            (
                "chunker",
                .object([
                    ("algorithm", .string("fastcdc-2")),
                    ("minimum", .integer(Int64(chunker.minimum))),
                    ("average", .integer(Int64(chunker.average))),
                    ("maximum", .integer(Int64(chunker.maximum))),
                ])
            ),
            ("grace_seconds", .integer(Int64(graceSeconds))),
        ]).bytes + [0x0A]
    }

    private static let knownFields: Set<String> = [
        "batchsync", "kind", "repository", "created", "encryption", "chunker", "grace_seconds",
    ]
    /// A hundred years: what is counted in nanoseconds stays countable.
    private static let graceMaximumSeconds = 100 * 366 * 86_400

    init(parsing bytes: [UInt8]) throws(RepositoryError) {
        func bad(_ what: String) -> RepositoryError {
            RepositoryError(
                .damaged, "config.json", what,
                remedy:
                    "compare it with a copy of the repository; init writes it once and nothing changes it"
            )
        }
        guard let value = JSONValue(parsing: bytes) else { throw bad("is not JSON") }
        guard let version = value["batchsync"]?.integer, value["kind"]?.string == "config" else {
            throw bad("is not the configuration of a batchsync repository")
        }
        guard version <= Self.formatVersion else {
            throw RepositoryError(
                .newerFormat, "config.json",
                "the repository has format \(version), this release reads up to \(Self.formatVersion)",
                remedy: "use the release that made the repository, or a newer one")
        }
        let unknown = value.unknownCritical(known: Self.knownFields)
        guard unknown.isEmpty else {
            throw RepositoryError(
                .newerFormat, "config.json",
                "uses \(unknown.joined(separator: ", ")), which this release does not know",
                remedy: "use the release that made the repository, or a newer one")
        }
        guard version == 1, let id = value["repository"]?.string.flatMap({ RepositoryID($0) }),
            let created = value["created"]?.timestamp, let encryption = value["encryption"]?.string,
            let chunker = value["chunker"], chunker["algorithm"]?.string == "fastcdc-2",
            let minimum = chunker["minimum"]?.count, let average = chunker["average"]?.count,
            let maximum = chunker["maximum"]?.count,
            let parameters = ChunkerParameters(
                minimum: minimum, average: average, maximum: maximum),
            let grace = value["grace_seconds"]?.count, grace <= Self.graceMaximumSeconds
        else { throw bad("lacks a field of format 1, or has a value out of range") }
        guard encryption == "age" || encryption == "none" else {
            throw bad("names an unknown encryption '\(encryption)'")
        }
        self.init(
            repository: id, created: created, isEncrypted: encryption == "age", chunker: parameters,
            graceSeconds: grace)
    }
}
