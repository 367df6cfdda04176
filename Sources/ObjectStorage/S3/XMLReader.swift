/// Reads an XML document piece by piece, as far as S3 uses XML, and trusts none of it.
///
/// Elements, text, character data and the five named and the numbered entities (XML 1.0). Attributes
/// are passed over, comments and processing instructions too. A document type is refused, and with
/// it every entity that a sender could define; so is anything not well formed, not UTF-8, or nested
/// more than `maximumDepth` deep. Gives names without their namespace prefix.
struct XMLReader {
    enum Event: Equatable {
        case start(String)
        /// The text between two tags, entities resolved; never empty, and whole.
        case text(String)
        case end(String)
        /// The document is complete, with nothing but white space behind it.
        case finish
    }

    /// What is wrong, and at which byte.
    struct Malformed: Error, CustomStringConvertible {
        let what: String
        let offset: Int
        var description: String { "\(what) at byte \(offset)" }
    }

    static let maximumDepth = 32
    static let maximumNameBytes = 256

    private let bytes: [UInt8]
    private var position = 0
    private var open: [String] = []
    private var hasRoot = false
    /// The end that belongs to a tag of the form `<Name/>`.
    private var pendingEnd: String?

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        // A byte order mark.
        if bytes.starts(with: [0xef, 0xbb, 0xbf]) { position = 3 }
    }

    mutating func next() throws(Malformed) -> Event {
        if let name = pendingEnd {
            pendingEnd = nil
            open.removeLast()
            return .end(name)
        }
        let text = try text()
        if !text.isEmpty {
            if !open.isEmpty { return .text(text) }
            guard text.utf8.allSatisfy({ XMLReader.isBlank($0) }) else {
                throw malformed("text outside of the document")
            }
        }
        guard position < bytes.count else {
            guard open.isEmpty, hasRoot else { throw malformed("the document ends early") }
            return .finish
        }
        // Text ends at a tag only.
        return try tag()
    }

    // MARK: - Text

    /// Everything up to the next tag, comments left out.
    private mutating func text() throws(Malformed) -> String {
        var collected: [UInt8] = []
        while position < bytes.count {
            let byte = bytes[position]
            if byte == UInt8(ascii: "&") {
                try entity(into: &collected)
            } else if byte != UInt8(ascii: "<") {
                guard byte >= 0x20 || XMLReader.isBlank(byte) else {
                    throw malformed("a control character")
                }
                collected.append(byte)
                position += 1
            } else if starts(with: "<!--") {
                try skip(past: "-->", after: 4)
            } else if starts(with: "<![CDATA[") {
                guard !open.isEmpty else { throw malformed("text outside of the document") }
                let start = position + 9
                try skip(past: "]]>", after: 9)
                collected.append(contentsOf: bytes[start..<position - 3])
            } else if starts(with: "<?") {
                try skip(past: "?>", after: 2)
            } else {
                break
            }
        }
        guard let text = String(validating: collected, as: UTF8.self) else {
            throw malformed("text that is not UTF-8")
        }
        return text
    }

    private mutating func entity(into collected: inout [UInt8]) throws(Malformed) {
        guard !open.isEmpty else { throw malformed("text outside of the document") }
        let end = bytes[position...].prefix(12).firstIndex(of: UInt8(ascii: ";"))
        guard let end else { throw malformed("an entity without end") }
        let name = String(decoding: bytes[position + 1..<end], as: UTF8.self)
        let scalar: Unicode.Scalar? =
            switch name {
            case "amp": "&"
            case "lt": "<"
            case "gt": ">"
            case "quot": "\""
            case "apos": "'"
            default: XMLReader.numberedCharacter(name)
            }
        guard let scalar else { throw malformed("an unknown entity") }
        collected.append(contentsOf: Array(String(Character(scalar)).utf8))
        position = end + 1
    }

    private static func numberedCharacter(_ name: String) -> Unicode.Scalar? {
        guard name.first == "#" else { return nil }
        let digits = name.dropFirst()
        let isHex = digits.first == "x"
        let figures = isHex ? digits.dropFirst() : digits
        guard !figures.isEmpty, figures.utf8.allSatisfy({ $0 != 0x2b && $0 != 0x2d }),
            let number = UInt32(figures, radix: isHex ? 16 : 10), number != 0
        else { return nil }
        return Unicode.Scalar(number)
    }

    // MARK: - Tags

    private mutating func tag() throws(Malformed) -> Event {
        if starts(with: "<!") { throw malformed("a document type, which no answer needs") }
        if starts(with: "</") {
            position += 2
            let name = try name()
            skipBlanks()
            try expect(UInt8(ascii: ">"))
            guard open.last == name else { throw malformed("an end without its beginning") }
            open.removeLast()
            return .end(XMLReader.localName(name))
        }
        position += 1
        guard !open.isEmpty || !hasRoot else { throw malformed("a second document") }
        let name = try name()
        guard open.count < XMLReader.maximumDepth else { throw malformed("too deep a nesting") }
        try skipAttributes()
        open.append(name)
        hasRoot = true
        if position < bytes.count, bytes[position] == UInt8(ascii: "/") {
            position += 1
            pendingEnd = XMLReader.localName(name)
        }
        try expect(UInt8(ascii: ">"))
        return .start(XMLReader.localName(name))
    }

    private mutating func skipAttributes() throws(Malformed) {
        while true {
            let before = position
            skipBlanks()
            guard position < bytes.count else { throw malformed("a tag without end") }
            let byte = bytes[position]
            if byte == UInt8(ascii: ">") || byte == UInt8(ascii: "/") { return }
            guard position > before else { throw malformed("an attribute without a blank before") }
            _ = try name()
            skipBlanks()
            try expect(UInt8(ascii: "="))
            skipBlanks()
            guard position < bytes.count else { throw malformed("a tag without end") }
            let quote = bytes[position]
            guard quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") else {
                throw malformed("an attribute without quotes")
            }
            position += 1
            guard let end = bytes[position...].firstIndex(of: quote),
                !bytes[position..<end].contains(UInt8(ascii: "<"))
            else { throw malformed("an attribute without end") }
            position = end + 1
        }
    }

    private mutating func name() throws(Malformed) -> String {
        let start = position
        while position < bytes.count, XMLReader.isNameByte(bytes[position]) { position += 1 }
        let length = position - start
        guard length > 0, length <= XMLReader.maximumNameBytes,
            let name = String(validating: bytes[start..<position], as: UTF8.self)
        else { throw malformed("a tag without a legal name") }
        return name
    }

    private static func localName(_ name: String) -> String {
        guard let colon = name.utf8.lastIndex(of: UInt8(ascii: ":")) else { return name }
        return String(name[name.utf8.index(after: colon)...])
    }

    // MARK: - Bytes

    private func starts(with text: StaticString) -> Bool {
        let length = text.utf8CodeUnitCount
        guard position + length <= bytes.count else { return false }
        for index in 0..<length where bytes[position + index] != text.utf8Start[index] {
            return false
        }
        return true
    }

    private mutating func skip(past end: StaticString, after count: Int) throws(Malformed) {
        let start = position
        position += count
        while position < bytes.count {
            if starts(with: end) {
                position += end.utf8CodeUnitCount
                return
            }
            position += 1
        }
        position = start
        throw malformed("a comment or the like without end")
    }

    private mutating func skipBlanks() {
        while position < bytes.count, XMLReader.isBlank(bytes[position]) { position += 1 }
    }

    private mutating func expect(_ byte: UInt8) throws(Malformed) {
        guard position < bytes.count, bytes[position] == byte else {
            throw malformed("something else where a tag should go on")
        }
        position += 1
    }

    private func malformed(_ what: String) -> Malformed {
        Malformed(what: what, offset: position)
    }

    private static func isBlank(_ byte: UInt8) -> Bool {
        byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d
    }

    /// Letters, digits, `-_.:` and whatever is not ASCII.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
            UInt8(ascii: "."), UInt8(ascii: ":"), 0x80...:
            true
        default:
            false
        }
    }
}
