import SnapshotModel
import TOMLKit

/// Reads TOML. The only file that knows the library which does.
enum ProfileDecoder {
    /// A profile of a megabyte is none.
    static let maximumBytes = 1 << 20

    /// Reads the text of a profile into a tree with lines.
    ///
    /// - Throws: What is wrong with it as TOML, with the line.
    static func decode(_ text: [UInt8]) throws(ProfileProblem) -> ProfileNode {
        guard text.count <= maximumBytes else {
            throw ProfileProblem(
                "the file is larger than 1 MB", remedy: "a profile is a short text")
        }
        guard UTF8Text.isValid(text) else {
            throw ProfileProblem(
                "the file is not UTF-8", line: lineOfFirstInvalidByte(text),
                remedy: "save it as UTF-8; TOML is nothing else")
        }
        if let position = text.firstIndex(of: 0) {
            throw ProfileProblem(
                "the file holds a NUL byte", line: line(at: position, of: text),
                remedy: "remove it; the file may be damaged")
        }
        // Line ends of Windows are line ends; a carriage return elsewhere is for nothing to swallow.
        let text = text.indices.filter {
            text[$0] != 0x0D || $0 + 1 == text.count || text[$0 + 1] != 0x0A
        }.map { text[$0] }
        let lines = try ProfileLines(of: text)
        let table: TOMLTable
        do {
            table = try TOMLTable(string: String(decoding: text, as: UTF8.self))
        } catch let error as TOMLParseError {
            throw ProfileProblem(
                plain(error.description), line: error.source.begin.line,
                remedy: "the file is no TOML there")
        } catch {
            throw ProfileProblem("\(error)", remedy: "the file is no TOML")
        }
        return node(of: table, at: [], lines)
    }

    private static func node(
        of table: TOMLTable, at path: [String], _ lines: ProfileLines
    ) -> ProfileNode {
        var fields: [ProfileNode.Field] = []
        for key in table.keys {
            guard let value = table[key] else { continue }
            let below = path + [key]
            fields.append(
                ProfileNode.Field(
                    key: key, line: lines.keys[below] ?? 0, node: node(of: value, at: below, lines))
            )
        }
        fields.sort { ($0.line, $0.key) < ($1.line, $1.key) }
        return ProfileNode(.table(fields), line: lines.values[path] ?? lines.keys[path] ?? 0)
    }

    private static func node(
        of value: any TOMLValueConvertible, at path: [String], _ lines: ProfileLines
    ) -> ProfileNode {
        let line = lines.values[path] ?? 0
        if let table = value.table { return node(of: table, at: path, lines) }
        if let array = value.array {
            let items = (0..<array.count).map { index in
                node(of: array[index], at: path + [String(index)], lines)
            }
            return ProfileNode(.list(items), line: line)
        }
        if let text = value.string { return ProfileNode(.text(text), line: line) }
        if let flag = value.bool { return ProfileNode(.flag(flag), line: line) }
        if let number = value.int { return ProfileNode(.whole(number), line: line) }
        if let number = value.double { return ProfileNode(.decimal(number), line: line) }
        return ProfileNode(.date, line: line)
    }

    /// The library's sentence as one of ours: without its own name for things, and one line.
    private static func plain(_ description: String) -> String {
        let words = description.split(whereSeparator: \.isNewline).joined(separator: " ")
        return words.isEmpty ? "the text cannot be read" : UTF8Text.display(Array(words.utf8))
    }

    private static func line(at position: Int, of text: [UInt8]) -> Int {
        text[..<position].count { $0 == 0x0A } + 1
    }

    private static func lineOfFirstInvalidByte(_ text: [UInt8]) -> Int {
        var line = 1
        for piece in text.split(separator: 0x0A, omittingEmptySubsequences: false) {
            if !UTF8Text.isValid(Array(piece)) { return line }
            line += 1
        }
        return line
    }
}
