package import SnapshotModel

/// Where a snapshot's files lay: entry n of the snapshot's table is file system number n of its
/// entries.
package struct FileSystemName: Sendable, Equatable {
    package var type: String
    package var source: String
    package var uuid: String?

    package init(type: String, source: String, uuid: String?) {
        self.type = type
        self.source = source
        self.uuid = uuid
    }

    /// Whether both name one file system. Where it has an identifier of its own that decides: the
    /// device it lies on may be called otherwise after each start of the machine.
    package func isSame(as other: FileSystemName) -> Bool {
        guard type == other.type else { return false }
        guard let uuid, let otherID = other.uuid else { return self == other }
        return uuid == otherID
    }
}

/// One file that was not kept whole, or not at all.
package struct SnapshotProblem: Sendable, Equatable {
    package enum Kind: String, Sendable, CaseIterable {
        case unreadable, vanished, changed, metadata, unsupported, lost
    }
    package var path: [UInt8]
    package var kind: Kind
    package var message: String

    package init(path: [UInt8], kind: Kind, message: String) {
        self.path = path
        self.kind = kind
        self.message = message
    }

    package func write(to out: ByteBuffer) {
        out.append(0x7B)
        path.withUnsafeBytes { out.append(field: "path", text: $0) }
        out.append(",\"kind\":\"\(kind.rawValue)\",\"message\":")
        JSONValue.string(message).write(to: out)
        out.append("}\n")
    }

    package static func read(_ bytes: UnsafeRawBufferPointer) -> [SnapshotProblem]? {
        var problems: [SnapshotProblem] = []
        let isWhole = JSONLines.forEach(bytes) { line in
            guard let value = JSONValue(parsing: line),
                let kind = value["kind"]?.string.flatMap(Kind.init(rawValue:)),
                let message = value["message"]?.string
            else { return false }
            let path: [UInt8]
            if let text = value["path"]?.string {
                path = Array(text.utf8)
            } else if let text = value["path_b64"]?.string,
                let bytes = Array(text.utf8).withUnsafeBytes({ Base64.decode($0) })
            {
                path = bytes
            } else {
                return false
            }
            problems.append(SnapshotProblem(path: path, kind: kind, message: message))
            return true
        }
        return isWhole ? problems : nil
    }
}

/// What a run counted. Every figure goes into the snapshot under its name.
package struct SnapshotStatistics: Sendable, Equatable {
    package var files = 0, directories = 0, others = 0, bytes = 0
    package var new = 0, changed = 0, touched = 0, metadata = 0, unchanged = 0, removed = 0
    package var readBytes = 0, newChunks = 0, newBytes = 0, storedBytes = 0, bundles = 0
    package var durationMilliseconds = 0

    package init() {}

    package var fields: [(name: String, value: Int)] {
        [
            ("files", files), ("directories", directories), ("others", others), ("bytes", bytes),
            ("new", new),
            ("changed", changed), ("touched", touched), ("metadata", metadata),
            ("unchanged", unchanged),
            ("removed", removed), ("read_bytes", readBytes), ("new_chunks", newChunks),
            ("new_bytes", newBytes),
            ("stored_bytes", storedBytes), ("bundles", bundles),
            ("duration_ms", durationMilliseconds),
        ]
    }

    init(_ value: JSONValue?) {
        func number(_ name: String) -> Int { value?[name]?.count ?? 0 }
        files = number("files")
        directories = number("directories")
        others = number("others")
        bytes = number("bytes")
        new = number("new")
        changed = number("changed")
        touched = number("touched")
        metadata = number("metadata")
        unchanged = number("unchanged")
        removed = number("removed")
        readBytes = number("read_bytes")
        newChunks = number("new_chunks")
        newBytes = number("new_bytes")
        storedBytes = number("stored_bytes")
        bundles = number("bundles")
        durationMilliseconds = number("duration_ms")
    }
}

/// The state of the sources at one time (format.md section 10).
package struct Snapshot: Sendable {
    /// Nil until it is committed.
    package var name: RecordName?
    package var time: Timestamp
    package var host: String
    package var roots: [[UInt8]]
    package var tags: [String] = []
    package var description: String?
    package var program: String
    package var options: JSONValue = .object([])
    package var fileSystems: [FileSystemName] = []
    package var manifestDepth = 1
    package var manifestIDs: [ChunkID] = []
    package var statistics = SnapshotStatistics()
    package var problemCount = 0
    package var problemIDs: [ChunkID] = []
    /// Names of the condemned records that the run had seen.
    package var seen: [String] = []

    // What later records say of it.
    package var isPinned = false
    /// Prune deleted something it needs before it was committed.
    package var isIncomplete = false
    /// The index tells nothing of something that it needs: a delete phase that did not see it has
    /// taken that out and left no record, or the index is damaged.
    package var isUndescribed = false
    /// As far as the records tell, all is there that it needs.
    package var isWhole: Bool { !isIncomplete && !isUndescribed }

    package init(time: Timestamp, host: String, roots: [[UInt8]], program: String) {
        self.time = time
        self.host = host
        self.roots = roots
        self.program = program
    }

    package var id: SnapshotID {
        guard let id = name?.id else { return SnapshotID(0, 0, 0, 0) }
        return SnapshotID(id.word0, id.word1, id.word2, id.word3)
    }

    /// Ids at the top: what has to be in the index, with a line each, for the snapshot to be whole.
    package var topIDs: [ChunkID] { manifestIDs + problemIDs }

    package var json: JSONValue {
        var fields: [(key: String, value: JSONValue)] = [
            ("time", .string(time.text)), ("host", .string(host)),
            ("roots", .array(roots.map { JSONValue(path: $0) })),
        ]
        if !tags.isEmpty { fields.append(("tags", .array(tags.map { .string($0) }))) }
        if let description { fields.append(("description", .string(description))) }
        fields += [
            ("program", .string(program)), ("options", options),
            (
                "file_systems",
                .array(
                    fileSystems.map { system in
                        var fields: [(key: String, value: JSONValue)] = [
                            ("type", .string(system.type)), ("source", .string(system.source)),
                        ]
                        if let uuid = system.uuid { fields.append(("uuid", .string(uuid))) }
                        return .object(fields)
                    })
            ),
            (
                "manifest",
                .object([
                    ("depth", .integer(Int64(manifestDepth))), ("ids", JSONValue(ids: manifestIDs)),
                ])
            ),
            ("statistics", .object(statistics.fields.map { ($0.name, .integer(Int64($0.value))) })),
        ]
        if problemCount > 0 {
            fields.append(
                (
                    "problems",
                    .object([
                        ("count", .integer(Int64(problemCount))),
                        ("ids", JSONValue(ids: problemIDs)),
                    ])
                ))
        }
        fields.append(("seen", .array(seen.map { .string($0) })))
        return .object(fields)
    }

    static let knownFields: Set<String> = [
        "time", "host", "roots", "tags", "description", "program", "options", "file_systems",
        "manifest", "statistics",
        "problems", "seen",
    ]

    package init(name: RecordName, json value: JSONValue, key: String) throws(RepositoryError) {
        let unknown = value.unknownCritical(known: Self.knownFields)
        guard unknown.isEmpty else {
            throw RepositoryError(
                .newerFormat, key,
                "uses \(unknown.joined(separator: ", ")), which this release does not know",
                remedy: "use a newer release of batchsync")
        }
        func ids(_ value: JSONValue?) -> [ChunkID]? {
            guard let list = value?.array else { return nil }
            let ids = list.compactMap { $0.string.flatMap { ChunkID($0) } }
            return ids.count == list.count ? ids : nil
        }
        guard let time = value["time"]?.timestamp, let host = value["host"]?.string,
            let roots = value["roots"]?.array, let program = value["program"]?.string,
            let depth = value["manifest"]?["depth"]?.count,
            (1...ManifestLimits.levelsMaximum).contains(depth),
            let top = ids(value["manifest"]?["ids"])
        else { throw .damaged(key, "is not a snapshot of format 1") }
        let paths = roots.compactMap(\.path)
        guard paths.count == roots.count else {
            throw .damaged(key, "is not a snapshot of format 1")
        }
        guard time.compactUTC == name.utc else {
            throw .damaged(
                key,
                "its name says \(name.utc), its content \(time.compactUTC): it has been renamed")
        }
        self.init(time: time, host: host, roots: paths, program: program)
        self.name = name
        tags = (value["tags"]?.array ?? []).compactMap(\.string)
        description = value["description"]?.string
        options = value["options"] ?? .object([])
        fileSystems = (value["file_systems"]?.array ?? []).map {
            FileSystemName(
                type: $0["type"]?.string ?? "", source: $0["source"]?.string ?? "",
                uuid: $0["uuid"]?.string)
        }
        manifestDepth = depth
        manifestIDs = top
        statistics = SnapshotStatistics(value["statistics"])
        if let problems = value["problems"] {
            guard let list = ids(problems["ids"]) else {
                throw .damaged(key, "is not a snapshot of format 1")
            }
            problemCount = problems["count"]?.count ?? 0
            problemIDs = list
        }
        seen = (value["seen"]?.array ?? []).compactMap(\.string)
    }
}
