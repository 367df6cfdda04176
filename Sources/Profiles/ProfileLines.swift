/// Where each key and each value of a TOML text stands.
///
/// The TOML library tells where an error is, but not where what is right stands. This walks over the
/// text before it: notes the lines, and refuses a text whose structure is broken. What it lets pass
/// is not TOML for certain (numbers, dates, escapes and doubled keys are the library's matter), but
/// it has a key and a value wherever the library, which ends the program otherwise, takes them for
/// granted, and nests no deeper than a stack bears.
struct ProfileLines {
    /// From a key's path to the line of the key. A step is a name, or a number in a list.
    private(set) var keys: [[String]: Int] = [:]
    /// From a value's path to the line on which the value begins.
    private(set) var values: [[String]: Int] = [:]

    private let bytes: [UInt8]
    private var at = 0
    private var line = 1
    /// Far more than a profile has, and far less than a stack bears.
    private static let depthMaximum = 32

    /// - Parameter text: UTF-8, its lines ended by line feeds alone.
    /// - Throws: What is wrong with the structure of the text, with its line.
    init(of text: [UInt8]) throws(ProfileProblem) {
        bytes = text
        try scan()
    }

    // MARK: - Statements

    private mutating func scan() throws(ProfileProblem) {
        var table: [String] = []
        var counts: [[String]: Int] = [:]
        while true {
            skipBlank(acrossLines: true)
            guard at < bytes.count else { return }
            if peek == UInt8(ascii: "[") {
                table = try header(&counts)
            } else {
                try pair(below: table, depth: 0)
            }
            skipBlank(acrossLines: false)
            guard peek == nil || peek == UInt8(ascii: "#") || peek == 0x0A else {
                throw refuse("there is something behind the end", "begin a new line there")
            }
        }
    }

    /// `[a.b]` or `[[a.b]]`; gives the path of what follows.
    private mutating func header(
        _ counts: inout [[String]: Int]
    ) throws(ProfileProblem) -> [String] {
        let line = line
        at += 1
        let isList = peek == UInt8(ascii: "[")
        if isList { at += 1 }
        let names = try dottedKey()
        try expect("]")
        if isList {
            // The library wants them side by side.
            guard peek == UInt8(ascii: "]") else {
                throw refuse("a bracket is not closed", "write [[name]] with two brackets each")
            }
            at += 1
        }
        var path: [String] = []
        for (index, name) in names.enumerated() {
            path.append(name)
            note(key: path, line)
            note(value: path, line)
            let isLast = index == names.count - 1
            // A header always means the last table of a list so far.
            if let count = counts[path], !(isLast && isList) { path.append(String(count - 1)) }
        }
        if isList {
            let count = counts[path] ?? 0
            counts[path] = count + 1
            path.append(String(count))
        }
        note(value: path, line)
        return path
    }

    /// `key = value`; the key may be dotted.
    private mutating func pair(below table: [String], depth: Int) throws(ProfileProblem) {
        let line = line
        var path = table
        for name in try dottedKey() {
            path.append(name)
            note(key: path, line)
            // With more behind its dot the name stands for a table, which begins here.
            note(value: path, line)
        }
        try expect("=")
        skipBlank(acrossLines: false)
        try value(at: path, depth: depth)
    }

    private mutating func dottedKey() throws(ProfileProblem) -> [String] {
        var names: [String] = []
        while true {
            skipBlank(acrossLines: false)
            switch peek {
            case UInt8(ascii: "\""), UInt8(ascii: "'"):
                names.append(try string(mayBeMultiline: false))
            default:
                let start = at
                while let byte = peek, TOMLText.isBareKeyByte(byte) { at += 1 }
                guard at > start else {
                    throw refuse(
                        "there is no key where one has to be",
                        "a key is one word, or text in quotes, and stands before = or in brackets")
                }
                names.append(String(decoding: bytes[start..<at], as: UTF8.self))
            }
            guard names.count < Self.depthMaximum else { throw refuseDepth() }
            skipBlank(acrossLines: false)
            guard peek == UInt8(ascii: ".") else { return names }
            at += 1
        }
    }

    // MARK: - Values

    /// How true, false, inf, nan, numbers and dates begin.
    private static let beginsWord = Set("tfin+-0123456789".utf8)

    private mutating func value(at path: [String], depth: Int) throws(ProfileProblem) {
        guard depth < Self.depthMaximum else { throw refuseDepth() }
        values[path] = line
        switch peek {
        case UInt8(ascii: "\""), UInt8(ascii: "'"): _ = try string(mayBeMultiline: true)
        case UInt8(ascii: "["): try list(at: path, depth: depth)
        case UInt8(ascii: "{"): try inlineTable(at: path, depth: depth)
        case let byte? where Self.beginsWord.contains(byte):
            // All that does not end the value.
            while let byte = peek, !",]}#\n".utf8.contains(byte) { at += 1 }
        default:
            throw refuse(
                "there is no value where one has to be",
                "a value is text in quotes, a number, true, false, a list or a table")
        }
    }

    private mutating func list(at path: [String], depth: Int) throws(ProfileProblem) {
        let line = line
        at += 1
        var index = 0
        while true {
            skipBlank(acrossLines: true)
            if peek == UInt8(ascii: "]") { break }
            guard peek != nil else { throw unclosed("list", "]", line) }
            try value(at: path + [String(index)], depth: depth + 1)
            index += 1
            skipBlank(acrossLines: true)
            guard peek == UInt8(ascii: ",") else { break }
            at += 1
        }
        guard peek == UInt8(ascii: "]") else { throw unclosed("list", "]", line) }
        at += 1
    }

    /// On one line, as TOML has it.
    private mutating func inlineTable(at path: [String], depth: Int) throws(ProfileProblem) {
        let line = line
        at += 1
        skipBlank(acrossLines: false)
        if peek != UInt8(ascii: "}") {
            while true {
                try pair(below: path, depth: depth + 1)
                skipBlank(acrossLines: false)
                guard peek == UInt8(ascii: ",") else { break }
                at += 1
            }
        }
        guard peek == UInt8(ascii: "}") else { throw unclosed("table", "}", line) }
        at += 1
    }

    /// A string of any of the four kinds, without its quotes. Escapes stay as they are, since no
    /// key of a profile needs one.
    private mutating func string(mayBeMultiline: Bool) throws(ProfileProblem) -> String {
        let quote = bytes[at]
        let first = line
        let isMultiline = mayBeMultiline && starts(with: [quote, quote, quote])
        let hasEscapes = quote == UInt8(ascii: "\"")
        at += isMultiline ? 3 : 1
        let start = at
        while let byte = peek {
            if byte == UInt8(ascii: "\\"), hasEscapes {
                // In C, where the library hands texts over, it would be the end of the text.
                guard !starts(with: Array("\\u0000".utf8)),
                    !starts(with: Array("\\U00000000".utf8))
                else {
                    throw refuse(
                        "a string holds a NUL character",
                        "no path and no word of a command can hold one")
                }
                at += 1
                // An escaped line end is counted like any other.
                if let next = peek, next != 0x0A { at += 1 }
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
                if byte == 0x0A {
                    guard isMultiline else { break }
                    line += 1
                }
                at += 1
            }
        }
        throw unclosed("text", String(UnicodeScalar(quote)), first)
    }

    // MARK: - Bytes

    private var peek: UInt8? { at < bytes.count ? bytes[at] : nil }

    private func starts(with text: [UInt8]) -> Bool { bytes[at...].starts(with: text) }

    private mutating func expect(_ character: Character) throws(ProfileProblem) {
        skipBlank(acrossLines: false)
        guard let byte = character.asciiValue, peek == byte else {
            throw refuse("a \(character) is missing", "see what stands before it on the line")
        }
        at += 1
    }

    /// Spaces and comments; line ends too where they may stand.
    private mutating func skipBlank(acrossLines: Bool) {
        while let byte = peek {
            switch byte {
            case 0x20, 0x09: at += 1
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

    // MARK: - What is wrong

    private func refuse(_ message: String, _ remedy: String) -> ProfileProblem {
        ProfileProblem(message, line: line, remedy: remedy)
    }

    private func refuseDepth() -> ProfileProblem {
        refuse("something is nested too deep", "no key of a profile lies so deep")
    }

    private func unclosed(_ what: String, _ end: String, _ line: Int) -> ProfileProblem {
        ProfileProblem(
            "a \(what) that begins here does not end", line: line,
            remedy: "write \(end) at its end")
    }
}
