package import SnapshotModel

extension RunSummary {
    /// Longer lists and texts are cut in what is kept: a line of the history stays small whatever
    /// went wrong.
    private static let failuresKept = 20
    private static let notesKept = 20
    private static let textBytesKept = 2_000

    /// The object that docs/json.md calls a run.
    package var document: JSONValue {
        .object([
            ("verb", .string(verb.rawValue)), ("profile", .optionalText(profile)),
            ("host", .string(host)), ("program", .string(program)),
            ("began", .string(began.rfc3339)), ("duration_ms", .integer(Int64(milliseconds))),
            ("outcome", .string(outcome.rawValue)), ("exit_code", .integer(Int64(exitCode))),
            ("summary", .string(Self.cut(text))),
            ("snapshot", .optionalText(snapshot?.description)),
            ("sources", .array(roots.map { JSONValue(path: $0) })),
            ("statistics", .counts(statistics)), ("problem_count", .integer(Int64(problemCount))),
            ("stores", .array(stores.map(\.document))), ("traffic", traffic.document),
            (
                "failures",
                .array(
                    failures.prefix(Self.failuresKept).map {
                        .object([
                            ("message", .string(Self.cut($0.message))),
                            ("remedy", .string(Self.cut($0.remedy))),
                        ])
                    })
            ),
            ("notes", .array(notes.prefix(Self.notesKept).map { .string(Self.cut($0)) })),
        ])
    }

    /// Reads what `document` writes, also of releases that knew fewer or more fields. Nil where it
    /// is no run.
    package init?(_ value: JSONValue) {
        guard let verb = value["verb"]?.string.flatMap(Verb.init(rawValue:)),
            let began = value["began"]?.string.flatMap({ Timestamp(rfc3339: $0) }),
            let outcome = value["outcome"]?.string.flatMap(Outcome.init(rawValue:))
        else { return nil }
        self.init(
            verb, profile: value["profile"]?.string, host: value["host"]?.string ?? "",
            program: value["program"]?.string ?? "", began: began)
        self.outcome = outcome
        milliseconds = value["duration_ms"]?.count ?? 0
        exitCode = value["exit_code"]?.count ?? 0
        text = value["summary"]?.string ?? ""
        snapshot = value["snapshot"]?.string.flatMap { SnapshotID($0) }
        roots = (value["sources"]?.array ?? []).compactMap(\.path)
        statistics = value["statistics"]?.counts ?? [:]
        problemCount = value["problem_count"]?.count ?? 0
        stores = (value["stores"]?.array ?? []).compactMap { StoreSummary($0) }
        traffic = value["traffic"].map { TrafficSummary($0) } ?? TrafficSummary()
        failures = (value["failures"]?.array ?? []).map {
            Failure($0["message"]?.string ?? "", remedy: $0["remedy"]?.string ?? "")
        }
        notes = (value["notes"]?.array ?? []).compactMap(\.string)
    }

    /// At most so many bytes, whole characters.
    static func cut(_ text: String) -> String {
        guard text.utf8.count > textBytesKept else { return text }
        var end = text.startIndex
        var room = textBytesKept - 3
        while room >= text[end].utf8.count {
            room -= text[end].utf8.count
            end = text.index(after: end)
        }
        return text[..<end] + "…"
    }
}

extension StoreSummary {
    package var document: JSONValue {
        .object([
            ("location", .string(location)),
            ("error", .optionalText(failure.map(RunSummary.cut))),
            ("concurrency", concurrency.map { .integer(Int64($0)) } ?? .null),
            ("brought_snapshots", .integer(Int64(broughtSnapshots))),
            ("copied_bundles", .integer(Int64(copiedBundles))),
            ("copied_bytes", .integer(Int64(copiedBytes))),
            ("verified", verified?.document ?? .null), ("forgotten", .integer(Int64(forgotten))),
            ("freed_bytes", .integer(Int64(freedBytes))),
            ("notices", .array(notices.prefix(20).map { .string(RunSummary.cut($0)) })),
        ])
    }

    init?(_ value: JSONValue) {
        guard let location = value["location"]?.string else { return nil }
        self.init(location)
        failure = value["error"]?.string
        concurrency = value["concurrency"]?.count
        broughtSnapshots = value["brought_snapshots"]?.count ?? 0
        copiedBundles = value["copied_bundles"]?.count ?? 0
        copiedBytes = value["copied_bytes"]?.count ?? 0
        verified = value["verified"].flatMap { VerificationSummary($0) }
        forgotten = value["forgotten"]?.count ?? 0
        freedBytes = value["freed_bytes"]?.count ?? 0
        notices = (value["notices"]?.array ?? []).compactMap(\.string)
    }
}

extension VerificationSummary {
    package var document: JSONValue {
        .object([
            ("sound", .bool(isSound)), ("findings", .integer(Int64(findings))),
            ("bundles", .integer(Int64(bundles))), ("bundle_bytes", .integer(Int64(bundleBytes))),
            ("bundles_read", .integer(Int64(bundlesRead))),
            ("bytes_read", .integer(Int64(bytesRead))),
        ])
    }

    init?(_ value: JSONValue) {
        guard let isSound = value["sound"]?.bool else { return nil }
        self.init(
            isSound: isSound, findings: value["findings"]?.count ?? 0,
            bundles: value["bundles"]?.count ?? 0, bundleBytes: value["bundle_bytes"]?.count ?? 0,
            bundlesRead: value["bundles_read"]?.count ?? 0,
            bytesRead: value["bytes_read"]?.count ?? 0)
    }
}

extension TrafficSummary {
    package var document: JSONValue {
        .object([
            ("requests", .counts(requests)), ("bytes_sent", .integer(Int64(bytesSent))),
            ("bytes_received", .integer(Int64(bytesReceived))),
            ("retries", .integer(Int64(retries))), ("altered", .integer(Int64(altered))),
            (
                "latency",
                .object(
                    latency.sorted { $0.key < $1.key }.map { kind, latency in
                        (
                            kind,
                            .object([
                                ("count", .integer(Int64(latency.count))),
                                ("mean_ms", .integer(Int64(latency.meanMilliseconds))),
                                ("maximum_ms", .integer(Int64(latency.maximumMilliseconds))),
                            ])
                        )
                    })
            ),
        ])
    }

    init(_ value: JSONValue) {
        requests = value["requests"]?.counts ?? [:]
        bytesSent = value["bytes_sent"]?.count ?? 0
        bytesReceived = value["bytes_received"]?.count ?? 0
        retries = value["retries"]?.count ?? 0
        altered = value["altered"]?.count ?? 0
        for (kind, value) in value["latency"]?.fields ?? [] {
            latency[kind] = Latency(
                count: value["count"]?.count ?? 0,
                meanMilliseconds: value["mean_ms"]?.count ?? 0,
                maximumMilliseconds: value["maximum_ms"]?.count ?? 0)
        }
    }
}

extension JSONValue {
    static func optionalText(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }

    /// Numbers by name, in the order of the names.
    static func counts(_ counts: [String: Int]) -> JSONValue {
        .object(counts.sorted { $0.key < $1.key }.map { ($0.key, .integer(Int64($0.value))) })
    }

    var counts: [String: Int]? {
        fields.map { fields in
            fields.reduce(into: [:]) { counts, field in
                if let count = field.value.count { counts[field.key] = count }
            }
        }
    }
}
