/// The ASCII form of an age file: strict PEM (RFC 7468, figure 3) with the label
/// AGE ENCRYPTED FILE.
package enum AgeArmor {
    static let beginLine = [UInt8]("-----BEGIN AGE ENCRYPTED FILE-----".utf8)
    static let endLine = [UInt8]("-----END AGE ENCRYPTED FILE-----".utf8)
    private static let columns = 64

    /// The file in armor: lines of 64 characters, LF at the end of each, also of the last.
    package static func encode(_ bytes: [UInt8]) -> [UInt8] {
        var text = beginLine + [UInt8(ascii: "\n")]
        text.reserveCapacity(bytes.count / 3 * 4 + bytes.count / 48 + 128)
        for start in stride(from: 0, to: bytes.count, by: columns / 4 * 3) {
            let end = min(start + columns / 4 * 3, bytes.count)
            Base64.encode(bytes[start..<end], into: &text)
            text += [UInt8](repeating: UInt8(ascii: "="), count: (3 - (end - start) % 3) % 3)
            text.append(UInt8(ascii: "\n"))
        }
        return text + endLine + [UInt8(ascii: "\n")]
    }

    /// The file in `text`. White space before and behind the armor is let pass, and lines may end
    /// with CRLF; whatever else differs from what `encode` writes is refused.
    package static func decode(_ text: [UInt8]) throws(AgeError) -> [UInt8] {
        var rest = text[...]
        while let first = rest.first, isSpace(first) { rest.removeFirst() }
        guard rest.starts(with: beginLine) else {
            throw failure(1, "it does not begin with -----BEGIN AGE ENCRYPTED FILE-----")
        }
        var bytes: [UInt8] = []
        var number = 0
        var isLast = false
        while !rest.isEmpty {
            number += 1
            let end = rest.firstIndex(of: UInt8(ascii: "\n")) ?? rest.endIndex
            var line = rest[..<end]
            if line.last == UInt8(ascii: "\r") { line.removeLast() }
            rest = rest[min(end + 1, rest.endIndex)...]
            if number == 1 {
                guard line.elementsEqual(beginLine) else {
                    throw failure(number, "something follows the mark of the beginning")
                }
            } else if line.first == UInt8(ascii: "-") {
                guard line.elementsEqual(endLine) else {
                    throw failure(number, "it is not -----END AGE ENCRYPTED FILE-----")
                }
                guard rest.allSatisfy(isSpace) else {
                    throw failure(number, "something other than white space follows the end")
                }
                return bytes
            } else {
                guard !isLast else {
                    throw failure(number, "it follows a line that must be the last")
                }
                isLast = try decodeLine(line, number, into: &bytes)
            }
        }
        throw failure(number, "the end is missing")
    }

    /// True when only the end may follow: the line is short or padded.
    private static func decodeLine(
        _ line: ArraySlice<UInt8>, _ number: Int, into bytes: inout [UInt8]
    ) throws(AgeError) -> Bool {
        guard !line.isEmpty, line.count <= columns, line.count % 4 == 0 else {
            throw failure(number, "its length is not 4 to 64 characters in steps of 4")
        }
        let padding = line.suffix(2).reversed().prefix { $0 == UInt8(ascii: "=") }.count
        guard Base64.decode(line.dropLast(padding), into: &bytes) else {
            throw failure(number, "it is not canonical base64")
        }
        return padding > 0 || line.count < columns
    }

    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: " ") || (9...13).contains(byte)
    }

    private static func failure(_ line: Int, _ cause: String) -> AgeError {
        AgeError(.armor, .read, "line \(line) of the age armor", cause)
    }
}
