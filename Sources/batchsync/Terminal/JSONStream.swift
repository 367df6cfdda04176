import SnapshotModel

/// A document of `--json` with lists that may be long: each element is written as it comes.
final class JSONStream {
    private var hasElements = false

    /// Writes the beginning: the document's name and version, the fields, and the opening of its
    /// list.
    init(_ document: String, _ fields: [(key: String, value: JSONValue)] = [], list: String) {
        let head: [(key: String, value: JSONValue)] = [
            ("document", .string(document)), ("version", .integer(JSONOutput.version)),
        ]
        let text = JSONValue.object(head + fields).bytes.dropLast()
        Console.shared.write(Array(text) + Array(",\"\(list)\":[".utf8))
    }

    func append(_ value: JSONValue) {
        Console.shared.write((hasElements ? [0x2C] : []) + value.bytes)
        hasElements = true
    }

    /// Closes the list and opens another one.
    func begin(list: String) {
        Console.shared.write(Array("],\"\(list)\":[".utf8))
        hasElements = false
    }

    /// Closes the list and adds what is known only now.
    func finish(_ fields: [(key: String, value: JSONValue)] = []) {
        let rest = JSONValue.object(fields).bytes.dropFirst().dropLast()
        Console.shared.write([0x5D] + (rest.isEmpty ? [] : [0x2C] + Array(rest)) + [0x7D, 0x0A])
    }
}
