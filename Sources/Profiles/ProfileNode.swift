import SnapshotModel

/// A value of a profile as it stands in the file, with its line: what the TOML library found,
/// joined with the places that it does not tell.
struct ProfileNode: Sendable, Equatable {
    indirect enum Value: Sendable, Equatable {
        case text(String)
        case whole(Int)
        case decimal(Double)
        case flag(Bool)
        case list([ProfileNode])
        /// In order of the file, as far as the places are known.
        case table([Field])
        /// A date or a time, which no key takes.
        case date
    }

    struct Field: Sendable, Equatable {
        let key: String
        /// Where the key stands, counted from 1; 0 where it is not known.
        let line: Int
        let node: ProfileNode
    }

    let value: Value
    /// Where the value begins, counted from 1; 0 where it is not known.
    let line: Int

    init(_ value: Value, line: Int = 0) {
        self.value = value
        self.line = line
    }

    /// The kind of the value, for "it is …".
    var kind: String {
        switch value {
        case .text: "text"
        case .whole, .decimal: "a number"
        case .flag: "true or false"
        case .list: "a list"
        case .table: "a table"
        case .date: "a date or time"
        }
    }

    // MARK: As text

    static func text(_ text: String) -> ProfileNode { ProfileNode(.text(text)) }
    static func texts(_ texts: [String]) -> ProfileNode { ProfileNode(.list(texts.map(Self.text))) }

    /// As a profile writes it, on one line.
    var toml: String {
        switch value {
        case .text(let text): TOMLText.quoted(text)
        case .whole(let number): String(number)
        case .decimal(let number): String(number)
        case .flag(let flag): flag ? "true" : "false"
        case .list(let items): "[" + items.map(\.toml).joined(separator: ", ") + "]"
        case .table(let fields):
            fields.isEmpty
                ? "{}"
                : "{ "
                    + fields.map { "\(TOMLText.key($0.key)) = \($0.node.toml)" }
                    .joined(separator: ", ") + " }"
        case .date: ""
        }
    }

    var json: JSONValue {
        switch value {
        case .text(let text): .string(text)
        case .whole(let number): .integer(Int64(number))
        case .decimal(let number): .decimal(String(number))
        case .flag(let flag): .bool(flag)
        case .list(let items): .array(items.map(\.json))
        case .table(let fields): .object(fields.map { ($0.key, $0.node.json) })
        case .date: .null
        }
    }
}

/// The spelling of TOML.
enum TOMLText {
    /// A basic string: quotes, backslashes and what would steer a terminal are escaped.
    static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case "\u{0}"..."\u{1F}", "\u{7F}"..."\u{9F}":
                let digits = String(scalar.value, radix: 16, uppercase: true)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }

    /// Bare where that is possible.
    static func key(_ name: String) -> String {
        let isBare = !name.isEmpty && name.utf8.allSatisfy { isBareKeyByte($0) }
        return isBare ? name : quoted(name)
    }

    static func isBareKeyByte(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte | 0x20) || byte == 0x2D
            || byte == 0x5F
    }
}
