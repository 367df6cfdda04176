/// Turns the text of one pattern, without `!`, anchor and trailing slash, into components.
struct GlobCompiler {
    private enum Token: Equatable {
        case byte(UInt8)
        case one
        /// A run of asterisks and how long it is.
        case star(Int)
        case set(GlobByteSet)

        var byte: UInt8? { if case .byte(let byte) = self { byte } else { nil } }
        var isStar: Bool { if case .star = self { true } else { false } }
    }

    private let body: [UInt8]
    private let isPath: Bool
    private(set) var components: [GlobComponent] = []
    private(set) var pool: [UInt8] = []
    private(set) var defect: GlobPattern.Defect?

    init(body: [UInt8], isPath: Bool) {
        self.body = body
        self.isPath = isPath
    }

    mutating func compile() {
        guard !body.isEmpty else {
            defect = .empty
            return
        }
        guard let tokens = tokens() else { return }
        for part in tokens.split(separator: .byte(slash), omittingEmptySubsequences: false) {
            guard !part.isEmpty else {
                defect = .emptyComponent
                return
            }
            append(part)
        }
    }

    // MARK: Components

    private mutating func append(_ tokens: ArraySlice<Token>) {
        // Without a slash in the pattern `**` says no more than `*`: a name holds no slash.
        if isPath, tokens.count == 1, case .star(let run) = tokens.first, run > 1 {
            append(.anyDepth, [], of: tokens)
            return
        }
        let stars = tokens.indices.filter { tokens[$0].isStar }
        let bytes = tokens.compactMap(\.byte)
        if bytes.count + stars.count == tokens.count {
            switch (stars.count, stars.first) {
            case (0, _): return append(.literal, bytes, of: tokens)
            case (1, tokens.startIndex) where bytes.isEmpty: return append(.any, [], of: tokens)
            case (1, tokens.startIndex): return append(.suffix, bytes, of: tokens)
            case (1, tokens.endIndex - 1): return append(.prefix, bytes, of: tokens)
            default: break
            }
        }
        append(.program, tokens.flatMap(Self.instructions), of: tokens)
    }

    private mutating func append(
        _ kind: GlobComponent.Kind, _ bytes: [UInt8], of tokens: ArraySlice<Token>
    ) {
        let first = tokens.first?.byte
        let last = tokens.last?.byte
        components.append(
            GlobComponent(
                kind: kind,
                firstByte: first ?? 0, firstMask: first == nil ? 0 : 0xff,
                lastByte: last ?? 0, lastMask: last == nil ? 0 : 0xff,
                leastLength: UInt32(tokens.count { !$0.isStar }),
                offset: UInt32(pool.count),
                length: UInt32(bytes.count)))
        pool += bytes
    }

    private static func instructions(_ token: Token) -> [UInt8] {
        switch token {
        case .byte(let byte): [GlobInstruction.byte, byte]
        case .one: [GlobInstruction.one]
        case .star: [GlobInstruction.star]
        case .set(let set): [GlobInstruction.set] + set.bytes
        }
    }

    // MARK: Tokens

    private mutating func tokens() -> [Token]? {
        var tokens: [Token] = []
        var index = 0
        while index < body.count {
            let byte = body[index]
            switch byte {
            case UInt8(ascii: "\\"):
                guard index + 1 < body.count else {
                    defect = .trailingBackslash
                    return nil
                }
                tokens.append(.byte(body[index + 1]))
                index += 2
            case UInt8(ascii: "?"):
                tokens.append(.one)
                index += 1
            case UInt8(ascii: "*"):
                let start = index
                while index < body.count, body[index] == byte { index += 1 }
                tokens.append(.star(index - start))
            case UInt8(ascii: "["):
                guard let set = set(from: &index) else { return nil }
                tokens.append(.set(set))
            default:
                tokens.append(.byte(byte))
                index += 1
            }
        }
        return tokens
    }

    /// Reads `[…]` from `index`, which afterwards stands behind the `]`.
    ///
    /// A `]` that comes first is a member, `!` and `^` negate, `\` escapes, a `-` that is first or
    /// last is itself. A slash in it has no effect, since sets meet single names only.
    private mutating func set(from index: inout Int) -> GlobByteSet? {
        var set = GlobByteSet()
        var low: UInt8?
        index += 1
        let isNegated =
            index < body.count
            && (body[index] == UInt8(ascii: "!") || body[index] == UInt8(ascii: "^"))
        if isNegated { index += 1 }
        repeat {
            guard let byte = member(&index) else { return nil }
            if byte.isPlain, byte.value == UInt8(ascii: "-"), let first = low,
                index + 1 < body.count, body[index + 1] != UInt8(ascii: "]")
            {
                index += 1
                guard let last = member(&index) else { return nil }
                if first <= last.value { set.insert(first...last.value) }
                low = nil
            } else if byte.isPlain, byte.value == UInt8(ascii: "["), index + 1 < body.count,
                body[index + 1] == UInt8(ascii: ":")
            {
                guard let named = className(after: index) else { return nil }
                if let name = named.name {
                    guard set.insert(class: name) else {
                        defect = .unknownClass
                        return nil
                    }
                    index = named.end
                    low = nil
                } else {
                    set.insert(byte.value...byte.value)
                    low = byte.value
                }
            } else {
                set.insert(byte.value...byte.value)
                low = byte.value
            }
            index += 1
        } while index >= body.count || body[index] != UInt8(ascii: "]")
        index += 1
        if isNegated { set.invert() }
        return set
    }

    /// The member of a set at `index`, which moves on to an escaped byte. Nil where the text ends.
    private mutating func member(_ index: inout Int) -> (value: UInt8, isPlain: Bool)? {
        let isPlain = index >= body.count || body[index] != UInt8(ascii: "\\")
        if !isPlain { index += 1 }
        guard index < body.count else {
            defect = .unclosedSet
            return nil
        }
        return (body[index], isPlain)
    }

    /// The name in `[:name:]` whose `[` stands at `index`, and where its `]` stands. The name is
    /// nil where no `:` comes before the next `]`: the `[` then is an ordinary member.
    private mutating func className(after index: Int) -> (name: ArraySlice<UInt8>?, end: Int)? {
        let start = index + 2
        guard let end = body[start...].firstIndex(of: UInt8(ascii: "]")) else {
            defect = .unclosedSet
            return nil
        }
        guard end > start, body[end - 1] == UInt8(ascii: ":") else { return (nil, end) }
        return (body[start..<(end - 1)], end)
    }
}

/// The separator of path components.
private let slash = UInt8(ascii: "/")

/// A set of byte values.
struct GlobByteSet: Equatable {
    private(set) var bytes = [UInt8](repeating: 0, count: 32)

    mutating func insert(_ range: ClosedRange<UInt8>) {
        for value in range { bytes[Int(value >> 3)] |= 1 << (value & 7) }
    }

    mutating func invert() {
        for index in bytes.indices { bytes[index] = ~bytes[index] }
    }

    /// Adds a POSIX class as it is in the C locale; false if there is none of that name.
    mutating func insert(class name: ArraySlice<UInt8>) -> Bool {
        guard let ranges = Self.classes[String(decoding: name, as: UTF8.self)] else { return false }
        for range in ranges { insert(range) }
        return true
    }

    private static let classes: [String: [ClosedRange<UInt8>]] = [
        "alnum": [0x30...0x39, 0x41...0x5a, 0x61...0x7a],
        "alpha": [0x41...0x5a, 0x61...0x7a],
        "blank": [0x09...0x09, 0x20...0x20],
        "cntrl": [0x00...0x1f, 0x7f...0x7f],
        "digit": [0x30...0x39],
        "graph": [0x21...0x7e],
        "lower": [0x61...0x7a],
        "print": [0x20...0x7e],
        "punct": [0x21...0x2f, 0x3a...0x40, 0x5b...0x60, 0x7b...0x7e],
        "space": [0x09...0x0d, 0x20...0x20],
        "upper": [0x41...0x5a],
        "xdigit": [0x30...0x39, 0x41...0x46, 0x61...0x66],
    ]
}
