/// The textual part of an age file: the version, the stanzas that wrap the file key, and the MAC.
///
/// The parser takes nothing but what the grammar of the specification (age-encryption.org/v1)
/// produces, so a header has one encoding only: what was parsed encodes to the same bytes.
package struct AgeHeader: Sendable, Hashable {
    /// One wrapping of the file key. The first argument is the stanza's type.
    package struct Stanza: Sendable, Hashable {
        package let arguments: [[UInt8]]
        package let body: [UInt8]
    }

    /// At least one.
    package let stanzas: [Stanza]
    /// 32 bytes.
    package let mac: [UInt8]

    /// A header that claims to be longer is refused before more of it is read.
    package static let maximumBytes = 65_536

    static let macBytes = 32
    private static let versionPrefix = [UInt8]("age-encryption.org/".utf8)
    private static let versionLine = [UInt8]("age-encryption.org/v1\n".utf8)
    private static let macMark = [UInt8]("---".utf8)
    private static let stanzaMark = [UInt8]("-> ".utf8)
    private static let bodyColumns = 64

    // MARK: Writing

    /// The bytes that the MAC covers: everything up to and including `---`.
    static func authenticatedBytes(_ stanzas: [Stanza]) -> [UInt8] {
        var text = versionLine
        for stanza in stanzas {
            text += stanzaMark
            text += stanza.arguments.joined(separator: [UInt8(ascii: " ")])
            text.append(UInt8(ascii: "\n"))
            var start = 0
            while true {
                let end = min(start + bodyColumns / 4 * 3, stanza.body.count)
                Base64.encode(stanza.body[start..<end], into: &text)
                text.append(UInt8(ascii: "\n"))
                // The last line is always shorter than a full one, though it may be empty.
                guard end - start == bodyColumns / 4 * 3 else { break }
                start = end
            }
        }
        return text + macMark
    }

    package func encoded() -> [UInt8] {
        var text = Self.authenticatedBytes(stanzas)
        text.append(UInt8(ascii: " "))
        Base64.encode(mac, into: &text)
        text.append(UInt8(ascii: "\n"))
        return text
    }

    // MARK: Reading

    /// Reads the header at the beginning of `bytes`; `byteCount` is its length up to and including
    /// the line feed behind the MAC. Throws `.needsMoreBytes` when `bytes` ends within it.
    package static func parse(
        _ bytes: UnsafeRawBufferPointer
    ) throws(AgeError) -> (header: AgeHeader, byteCount: Int) {
        var lines = Lines(bytes)
        try readVersion(&lines)
        var stanzas: [Stanza] = []
        while true {
            let line = try lines.next()
            if line.starts(with: macMark) {
                guard !stanzas.isEmpty else { throw .header("it has no stanza") }
                guard line.count == 47, line[3] == UInt8(ascii: " "),
                    let mac = Base64.decode(line[4...]), mac.count == macBytes
                else { throw .header("its last line is not --- and a MAC of 43 characters") }
                return (AgeHeader(stanzas: stanzas, mac: mac), lines.position)
            }
            guard line.starts(with: stanzaMark) else {
                throw .header("a line begins neither with -> nor with ---")
            }
            stanzas.append(try readStanza(line, &lines, number: stanzas.count + 1))
        }
    }

    private static func readVersion(_ lines: inout Lines) throws(AgeError) {
        let start = lines.peek(versionLine.count)
        guard !start.elementsEqual(versionLine) else {
            _ = try lines.next()
            return
        }
        if start.count < versionLine.count, versionLine.starts(with: start) {
            throw .needsMoreBytes
        }
        if start.starts(with: versionPrefix) {
            let version = try lines.next().dropFirst(versionPrefix.count)
            guard !version.isEmpty, version.allSatisfy({ (33...126).contains($0) }) else {
                throw .header("its version is not a word of printable ASCII")
            }
            throw AgeError(
                .unsupported, .read, "the age header", "its version is not v1")
        }
        if start.starts(with: AgeArmor.beginLine.prefix(versionLine.count)) {
            throw .header("the file is armored")
        }
        throw .header("it does not begin with age-encryption.org/v1")
    }

    private static func readStanza(
        _ firstLine: [UInt8], _ lines: inout Lines, number: Int
    ) throws(AgeError) -> Stanza {
        let arguments = firstLine.dropFirst(stanzaMark.count)
            .split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            .map { Array($0) }
        guard !arguments.contains(where: \.isEmpty) else {
            throw .stanza(number, "an argument is empty")
        }
        guard arguments.allSatisfy({ $0.allSatisfy { (33...126).contains($0) } }) else {
            throw .stanza(number, "an argument contains a character that is not printable ASCII")
        }
        var body: [UInt8] = []
        while true {
            let line = try lines.next()
            guard line.count <= bodyColumns else {
                throw .stanza(number, "a line of its body is longer than 64 characters")
            }
            guard Base64.decode(line, into: &body) else {
                throw .stanza(
                    number, "its body is not canonical base64 that ends with a short line")
            }
            if line.count < bodyColumns { return Stanza(arguments: arguments, body: body) }
        }
    }

    /// The lines of a header, each without its line feed.
    private struct Lines {
        private let bytes: UnsafeRawBufferPointer
        private(set) var position = 0

        init(_ bytes: UnsafeRawBufferPointer) {
            self.bytes = bytes
        }

        func peek(_ count: Int) -> [UInt8] {
            Array(bytes.prefix(count))
        }

        mutating func next() throws(AgeError) -> [UInt8] {
            let limit = min(bytes.count, AgeHeader.maximumBytes)
            var end = position
            while end < limit, bytes[end] != UInt8(ascii: "\n") { end += 1 }
            guard end < limit else {
                guard bytes.count < AgeHeader.maximumBytes else {
                    throw .header("it is longer than 64 KiB")
                }
                throw .needsMoreBytes
            }
            let line = Array(bytes[position..<end])
            position = end + 1
            return line
        }
    }
}
