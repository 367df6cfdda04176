/// Where each key and each value of a TOML text stands.
///
/// The TOML library reads the text and says what is wrong with it, but not where what is right
/// stands. This walks over a text that the library has accepted and notes the lines. It decides
/// nothing: where it meets something that it does not know it stops, and what lies behind has no
/// line.
struct ProfileLines {
    /// From a key's path to the line of the key. A step is a name, or a number in a list.
    private(set) var keys: [[String]: Int] = [:]
    /// From a value's path to the line on which the value begins.
    private(set) var values: [[String]: Int] = [:]
    /// The line of a string with an escaped NUL, which would end a string of C in its midst.
    private(set) var lineOfNUL: Int?

    private let bytes: [UInt8]
    private var at = 0
    private var line = 1
    /// Deeper than the library allows.
    private static let depthMaximum = 300

    init(of text: [UInt8]) {
        bytes = text
        scan()
    }

    // MARK: - Statements

    private struct Unknown: Error {}

    private mutating func scan() {
        var table: [String] = []
        var counts: [[String]: Int] = [:]
        do throws(Unknown) {
            while true {
                skipBlank(acrossLines: true)
                guard at < bytes.count else { return }
                if peek == UInt8(ascii: "[") {
                    table = try header(&counts)
                } else {
                    try pair(below: table, depth: 0)
                }
            }
        } catch {
            return
        }
    }

    /// `[a.b]` or `[[a.b]]`; gives the path of what follows.
    private mutating func header(_ counts: inout [[String]: Int]) throws(Unknown) -> [String] {
        let line = line
        at += 1
        let isList = peek == UInt8(ascii: "[")
        if isList { at += 1 }
        let names = try dottedKey()
        try expect(UInt8(ascii: "]"))
        if isList { try expect(UInt8(ascii: "]")) }
        var path: [String] = []
        for (index, name) in names.enumerated() {
            path.append(name)
            let isLast = index == names.count - 1
            // A header always means the last table of a list so far.
            if let count = counts[path], !(isLast && isList) { path.append(String(count - 1)) }
        }
        note(key: path, line)
        if isList {
            let count = counts[path] ?? 0
            counts[path] = count + 1
            path.append(String(count))
        }
        note(value: path, line)
        return path
    }

    /// `key = value`; the key may be dotted.
    private mutating func pair(below table: [String], depth: Int) throws(Unknown) {
        let line = line
        var path = table
        for name in try dottedKey() {
            path.append(name)
            note(key: path, line)
        }
        try expect(UInt8(ascii: "="))
        skipBlank(acrossLines: false)
        try value(at: path, depth: depth)
    }

    private mutating func dottedKey() throws(Unknown) -> [String] {
        var names: [String] = []
        while true {
            skipBlank(acrossLines: false)
            switch peek {
            case UInt8(ascii: "\""), UInt8(ascii: "'"): names.append(try string())
            default:
                let start = at
                while let byte = peek, TOMLText.isBareKeyByte(byte) { at += 1 }
                guard at > start else { throw Unknown() }
                names.append(String(decoding: bytes[start..<at], as: UTF8.self))
            }
            guard names.count < Self.depthMaximum else { throw Unknown() }
            skipBlank(acrossLines: false)
            guard peek == UInt8(ascii: ".") else { return names }
            at += 1
        }
    }

    // MARK: - Values

    private mutating func value(at path: [String], depth: Int) throws(Unknown) {
        guard depth < Self.depthMaximum else { throw Unknown() }
        note(value: path, line)
        switch peek {
        case UInt8(ascii: "\""), UInt8(ascii: "'"): _ = try string()
        case UInt8(ascii: "["): try list(at: path, depth: depth)
        case UInt8(ascii: "{"): try inlineTable(at: path, depth: depth)
        default:
            // Numbers, dates and words: all that does not end the value.
            let start = at
            while let byte = peek, !",]}#\r\n".utf8.contains(byte) { at += 1 }
            guard at > start else { throw Unknown() }
        }
    }

    private mutating func list(at path: [String], depth: Int) throws(Unknown) {
        at += 1
        var index = 0
        while true {
            skipBlank(acrossLines: true)
            if peek == UInt8(ascii: "]") { break }
            try value(at: path + [String(index)], depth: depth + 1)
            index += 1
            skipBlank(acrossLines: true)
            guard peek == UInt8(ascii: ",") else { break }
            at += 1
        }
        try expect(UInt8(ascii: "]"))
    }

    private mutating func inlineTable(at path: [String], depth: Int) throws(Unknown) {
        at += 1
        while true {
            skipBlank(acrossLines: true)
            if peek == UInt8(ascii: "}") { break }
            try pair(below: path, depth: depth + 1)
            skipBlank(acrossLines: true)
            guard peek == UInt8(ascii: ",") else { break }
            at += 1
        }
        try expect(UInt8(ascii: "}"))
    }

    /// A string of any of the four kinds. The text is that of keys: escapes stay as they are unless
    /// they stand for one character of ASCII, since no key of a profile needs more.
    private mutating func string() throws(Unknown) -> String {
        guard let quote = peek else { throw Unknown() }
        let isMultiline = starts(with: [quote, quote, quote])
        let hasEscapes = quote == UInt8(ascii: "\"")
        at += isMultiline ? 3 : 1
        let start = at
        while let byte = peek {
            if byte == UInt8(ascii: "\\"), hasEscapes {
                if starts(with: Array("\\u0000".utf8)) || starts(with: Array("\\U00000000".utf8)) {
                    lineOfNUL = lineOfNUL ?? line
                }
                at += 1
                if peek == UInt8(ascii: "\n") { line += 1 }
                at += 1
            } else if byte == quote {
                if !isMultiline {
                    at += 1
                    return String(decoding: bytes[start..<(at - 1)], as: UTF8.self)
                }
                guard starts(with: [quote, quote, quote]) else {
                    at += 1
                    continue
                }
                // Up to two quotes may stand before the three that end it.
                var end = at + 3
                while end < bytes.count, end < at + 5, bytes[end] == quote { end += 1 }
                at = end
                return String(decoding: bytes[start..<(end - 3)], as: UTF8.self)
            } else {
                if byte == UInt8(ascii: "\n") { line += 1 }
                at += 1
            }
        }
        throw Unknown()
    }

    // MARK: - Bytes

    private var peek: UInt8? { at < bytes.count ? bytes[at] : nil }

    private func starts(with text: [UInt8]) -> Bool { bytes[at...].starts(with: text) }

    private mutating func expect(_ byte: UInt8) throws(Unknown) {
        skipBlank(acrossLines: false)
        guard peek == byte else { throw Unknown() }
        at += 1
    }

    /// Spaces and comments; line ends too where they may stand.
    private mutating func skipBlank(acrossLines: Bool) {
        while let byte = peek {
            switch byte {
            case 0x20, 0x09, 0x0D: at += 1
            case 0x0A where acrossLines:
                line += 1
                at += 1
            case UInt8(ascii: "#") where acrossLines:
                while at < bytes.count, bytes[at] != 0x0A { at += 1 }
            default: return
            }
        }
    }

    private mutating func note(key path: [String], _ line: Int) {
        // The first place counts: a dotted key may come again with another end.
        if keys[path] == nil { keys[path] = line }
    }

    private mutating func note(value path: [String], _ line: Int) {
        if values[path] == nil { values[path] = line }
    }
}
