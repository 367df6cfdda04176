/// A JSON document as a value: for the small records of which a repository holds few. Long lists go
/// through `JSONScanner`.
///
/// Objects keep the order of their fields and the fields nobody asked for, so that a record written
/// anew loses nothing.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int64)
    /// A number that is not an integer, as it was written.
    case decimal(String)
    case string(String)
    case array([JSONValue])
    case object([(key: String, value: JSONValue)])

    package static func == (left: JSONValue, right: JSONValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        case (.integer(let a), .integer(let b)): a == b
        case (.decimal(let a), .decimal(let b)): a == b
        case (.string(let a), .string(let b)): a == b
        case (.array(let a), .array(let b)): a == b
        case (.object(let a), .object(let b)):
            a.count == b.count && zip(a, b).allSatisfy { $0.key == $1.key && $0.value == $1.value }
        default: false
        }
    }

    // MARK: Reading

    /// Nil for anything but one well-formed JSON value with nothing behind it.
    package init?(parsing bytes: UnsafeRawBufferPointer) {
        var scanner = JSONScanner(bytes)
        guard let value = scanner.value(), scanner.isAtEnd(),
            let parsed = JSONValue(scanner: scanner, value: value, depth: 0)
        else { return nil }
        self = parsed
    }

    package init?(parsing bytes: [UInt8]) {
        guard let value = bytes.withUnsafeBytes({ JSONValue(parsing: $0) }) else { return nil }
        self = value
    }

    private init?(scanner: JSONScanner, value: JSONScanner.Value, depth: Int) {
        guard depth < 64 else { return nil }
        switch value.kind {
        case .text:
            guard let text = scanner.string(value) else { return nil }
            self = .string(text)
        case .number:
            guard JSONText.isNumber(scanner.slice(value)) else { return nil }
            let text = String(decoding: scanner.slice(value), as: UTF8.self)
            if let integer = Int64(text) { self = .integer(integer) } else { self = .decimal(text) }
        case .literal:
            switch scanner.bytes[value.start] {
            case 0x74: self = .bool(true)
            case 0x66: self = .bool(false)
            default: self = .null
            }
        case .array:
            var inner = JSONScanner(scanner.bytes, at: value.start)
            var items: [JSONValue] = []
            guard inner.enter(0x5B) else { return nil }
            while let element = inner.nextElement(isFirst: items.isEmpty) {
                guard let item = JSONValue(scanner: inner, value: element, depth: depth + 1) else {
                    return nil
                }
                items.append(item)
            }
            if inner.isBroken { return nil }
            self = .array(items)
        case .object:
            var inner = JSONScanner(scanner.bytes, at: value.start)
            var fields: [(key: String, value: JSONValue)] = []
            guard inner.enter(0x7B) else { return nil }
            while let (key, element) = inner.nextField(isFirst: fields.isEmpty) {
                guard let name = JSONText.unescape(inner.slice(key)),
                    let item = JSONValue(scanner: inner, value: element, depth: depth + 1)
                else { return nil }
                fields.append((String(decoding: name, as: UTF8.self), item))
            }
            if inner.isBroken { return nil }
            self = .object(fields)
        }
    }

    package subscript(key: String) -> JSONValue? {
        guard case .object(let fields) = self else { return nil }
        return fields.first { $0.key == key }?.value
    }

    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    /// An integer that is not negative.
    package var count: Int? {
        if case .integer(let value) = self, value >= 0 { Int(value) } else { nil }
    }
    package var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var fields: [(key: String, value: JSONValue)]? {
        if case .object(let value) = self { value } else { nil }
    }
    package var timestamp: Timestamp? { string.flatMap { Timestamp($0) } }

    /// Text or `{"b64":…}`.
    package var path: [UInt8]? {
        if let string { return Array(string.utf8) }
        guard let encoded = self["b64"]?.string else { return nil }
        return Array(encoded.utf8).withUnsafeBytes { Base64.decode($0) }
    }

    /// Field names this object declares critical which `known` lacks.
    package func unknownCritical(known: Set<String>) -> [String] {
        (self["critical"]?.array ?? []).compactMap(\.string).filter { !known.contains($0) }
    }

    // MARK: Making

    package init(path bytes: [UInt8]) {
        if UTF8Text.isValid(bytes) {
            self = .string(String(decoding: bytes, as: UTF8.self))
        } else {
            self = .object([("b64", .string(Base64.encode(bytes)))])
        }
    }

    package init(ids: some Sequence<Identifier<some Any>>) {
        self = .array(ids.map { .string($0.description) })
    }

    /// Without white space.
    package func write(to out: ByteBuffer) {
        switch self {
        case .null: out.append("null")
        case .bool(let value): out.append(value ? "true" : "false")
        case .integer(let value): out.append(String(value))
        case .decimal(let value): out.append(value)
        case .string(let value): Self.write(value, to: out)
        case .array(let items):
            out.append(0x5B)
            for (index, item) in items.enumerated() {
                if index > 0 { out.append(0x2C) }
                item.write(to: out)
            }
            out.append(0x5D)
        case .object(let fields):
            out.append(0x7B)
            for (index, field) in fields.enumerated() {
                if index > 0 { out.append(0x2C) }
                Self.write(field.key, to: out)
                out.append(0x3A)
                field.value.write(to: out)
            }
            out.append(0x7D)
        }
    }

    private static func write(_ text: String, to out: ByteBuffer) {
        var text = text
        text.withUTF8 { out.append(jsonText: UnsafeRawBufferPointer($0)) }
    }

    package var bytes: [UInt8] {
        let out = ByteBuffer(capacity: 1024)
        write(to: out)
        return out.array
    }

    package var text: String { String(decoding: bytes, as: UTF8.self) }
}
