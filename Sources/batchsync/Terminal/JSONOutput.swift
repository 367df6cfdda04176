import SnapshotModel

/// One document of `--json`, as docs/json.md describes it.
enum JSONOutput {
    /// The version of all documents; it grows when a field changes its meaning or goes.
    static let version: Int64 = 1

    /// Prints the document of a verb: its name and version, then the fields.
    static func print(_ document: String, _ fields: [(key: String, value: JSONValue)]) {
        let head: [(key: String, value: JSONValue)] = [
            ("document", .string(document)), ("version", .integer(version)),
        ]
        Console.shared.write(JSONValue.object(head + fields).bytes + [0x0A])
    }
}

extension JSONValue {
    static func count(_ value: Int) -> JSONValue { .integer(Int64(value)) }

    static func time(_ value: Timestamp) -> JSONValue { .string(TimeText.machine(value)) }

    static func optional(_ value: String?) -> JSONValue { value.map { .string($0) } ?? .null }
}
