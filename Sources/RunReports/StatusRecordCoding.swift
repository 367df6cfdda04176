import SnapshotModel

extension StatusRecord {
    private static let version = 1

    var document: JSONValue {
        .object([
            ("version", .integer(Int64(Self.version))), ("profile", .optionalText(profile)),
            ("location", .string(location)), ("profile_file", .optionalText(profileFile)),
            ("sources", .array(sources.map(\.document))),
            (
                "last_runs",
                .object(
                    RunSummary.Verb.allCases.compactMap { verb in
                        lastRuns[verb].map { (verb.rawValue, $0.document) }
                    })
            ),
            ("coverage", coverage?.document ?? .null), ("space", .byDay(space)),
        ])
    }

    /// Nil where it is no record, or one of a later release that this one would misunderstand.
    init?(_ value: JSONValue) {
        guard value["version"]?.count == Self.version, let location = value["location"]?.string
        else { return nil }
        self.init(profile: value["profile"]?.string, location: location)
        profileFile = value["profile_file"]?.string
        sources = (value["sources"]?.array ?? []).compactMap { Source($0) }
        for verb in RunSummary.Verb.allCases {
            lastRuns[verb] = value["last_runs"]?[verb.rawValue].flatMap { LastRun($0) }
        }
        coverage = value["coverage"].flatMap { Coverage($0) }
        take(space: value["space"]?.byDay ?? [:])
    }
}

extension StatusRecord.Source {
    fileprivate var document: JSONValue {
        .object([
            ("host", .string(host)), ("roots", .array(roots.map { JSONValue(path: $0) })),
            ("snapshot", .string(snapshot.description)), ("time", .string(time.rfc3339)),
            ("problems", .integer(Int64(problemCount))), ("files", .integer(Int64(files))),
            ("bytes", .integer(Int64(bytes))),
        ])
    }

    fileprivate init?(_ value: JSONValue) {
        guard let host = value["host"]?.string,
            let snapshot = value["snapshot"]?.string.flatMap({ SnapshotID($0) }),
            let time = value["time"]?.string.flatMap({ Timestamp(rfc3339: $0) })
        else { return nil }
        self.init(
            host: host, roots: (value["roots"]?.array ?? []).compactMap(\.path),
            snapshot: snapshot, time: time, problemCount: value["problems"]?.count ?? 0,
            files: value["files"]?.count ?? 0, bytes: value["bytes"]?.count ?? 0)
    }
}

extension StatusRecord.LastRun {
    fileprivate var document: JSONValue {
        .object([
            ("began", .string(began.rfc3339)), ("duration_ms", .integer(Int64(milliseconds))),
            ("outcome", .string(outcome.rawValue)), ("exit_code", .integer(Int64(exitCode))),
            ("summary", .string(text)),
        ])
    }

    fileprivate init?(_ value: JSONValue) {
        guard let began = value["began"]?.string.flatMap({ Timestamp(rfc3339: $0) }),
            let outcome = value["outcome"]?.string.flatMap(RunSummary.Outcome.init(rawValue:))
        else { return nil }
        self.init(
            began: began, milliseconds: value["duration_ms"]?.count ?? 0, outcome: outcome,
            exitCode: value["exit_code"]?.count ?? 0, text: value["summary"]?.string ?? "")
    }
}

extension StatusRecord.Coverage {
    fileprivate var document: JSONValue {
        .object([
            ("total_bytes", .integer(Int64(totalBytes))),
            ("never_read_bytes", .integer(Int64(neverReadBytes))),
            ("bytes_by_day", .byDay(bytesByDay)),
        ])
    }

    fileprivate init?(_ value: JSONValue) {
        guard let totalBytes = value["total_bytes"]?.count else { return nil }
        self.init(
            totalBytes: totalBytes, neverReadBytes: value["never_read_bytes"]?.count ?? 0,
            bytesByDay: value["bytes_by_day"]?.byDay ?? [:])
    }
}

extension JSONValue {
    /// Pairs of a day and a number, in order.
    fileprivate static func byDay(_ values: [Int: Int]) -> JSONValue {
        .array(
            values.sorted { $0.key < $1.key }.map {
                .array([.integer(Int64($0.key)), .integer(Int64($0.value))])
            })
    }

    fileprivate var byDay: [Int: Int] {
        (array ?? []).reduce(into: [:]) { values, pair in
            guard let pair = pair.array, pair.count == 2, let day = pair[0].integer,
                let value = pair[1].integer
            else { return }
            values[Int(day)] = Int(value)
        }
    }
}
