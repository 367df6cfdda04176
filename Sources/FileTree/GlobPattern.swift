/// One pattern of the gitignore kind, compiled from bytes: `*.o`, `/build/`, `doc/**/*.pdf`,
/// `!keep`.
///
/// The meaning is that of gitignore(5), byte for byte: names need not be UTF-8 and letters have a
/// case. A pattern without a slash (a trailing one aside) speaks of names at any depth, any other
/// of paths below the place that it is anchored to. Beyond git, a leading `//` anchors a pattern at
/// the file system's root. One reading differs from git's program and follows its manual: in
/// `ab**/c` the asterisks do not stand alone between slashes, so they match within one name only.
///
/// Matching takes at most (pattern bytes + 1) × (path bytes + 1) steps, whatever both hold.
package struct GlobPattern: Sendable {
    /// Where a pattern's path begins.
    package enum Anchor: UInt8, Sendable {
        /// The pattern has no slash: it speaks of the last component, at any depth.
        case none
        /// The directory that the pattern belongs to: a source root, or where the file of rules
        /// lies.
        case base
        /// The file system's root.
        case fileSystem
    }

    /// Why a pattern can never match anything.
    package enum Defect: String, Sendable, CustomStringConvertible {
        case empty = "the pattern is empty"
        case trailingBackslash = "a backslash at the end escapes nothing"
        case unclosedSet = "a [ is not closed by a ]"
        case unknownClass = "a [:class:] has a name that does not exist"
        case emptyComponent = "two slashes follow each other"

        package var description: String { rawValue }
    }

    /// The pattern begins with `!`: what it matches is kept.
    package let isNegated: Bool
    /// The pattern ends with `/`: it matches directories only.
    package let isDirectoryOnly: Bool
    package let anchor: Anchor
    /// Not nil for a pattern that matches nothing, ever.
    package let defect: Defect?

    let components: [GlobComponent]
    /// What the components refer to by offset: literal bytes and instructions.
    let pool: [UInt8]

    /// - Parameter text: One pattern as it stands in a file of rules, without its line end.
    package init(_ text: [UInt8]) {
        var body = text[...]
        isNegated = body.first == UInt8(ascii: "!")
        if isNegated { body.removeFirst() }
        // Nothing but slashes has no component left: such a pattern is empty, and so never matches.
        let isAbsolute = body.starts(with: [UInt8(ascii: "/"), UInt8(ascii: "/")])
        isDirectoryOnly = body.last == UInt8(ascii: "/")
        if isDirectoryOnly { body.removeLast() }
        let hasSlash = isAbsolute || body.contains(UInt8(ascii: "/"))
        anchor = isAbsolute ? .fileSystem : hasSlash ? .base : .none
        if isAbsolute {
            body = body.drop { $0 == UInt8(ascii: "/") }
        } else if body.first == UInt8(ascii: "/") {
            body.removeFirst()
        }
        var compiler = GlobCompiler(body: Array(body), isPath: hasSlash)
        compiler.compile()
        defect = compiler.defect
        components = compiler.defect == nil ? compiler.components : []
        pool = compiler.defect == nil ? compiler.pool : []
    }

    /// Whether the pattern matches an entry, negation aside.
    ///
    /// - Parameter path: Relative to the pattern's anchor; not empty, no slash at either end.
    package func matches(_ path: [UInt8], isDirectory: Bool) -> Bool {
        var uncounted = GlobUncounted()
        return matches(path, isDirectory: isDirectory, steps: &uncounted)
    }

    /// How many comparisons the answer for `path` takes: the measure of what a hostile pattern
    /// costs.
    package func steps(toMatch path: [UInt8]) -> Int {
        var counted = GlobCounted()
        _ = matches(path, isDirectory: true, steps: &counted)
        return counted.count
    }

    private func matches<Steps: GlobSteps>(
        _ path: [UInt8], isDirectory: Bool, steps: inout Steps
    ) -> Bool {
        guard defect == nil, isDirectory || !isDirectoryOnly else { return false }
        return path.withUnsafeBufferPointer { path in
            pool.withUnsafeBufferPointer { pool in
                components.withUnsafeBufferPointer { components in
                    guard let bytes = path.baseAddress, !path.isEmpty else { return false }
                    let matcher = GlobMatcher(pool: pool.baseAddress)
                    guard anchor == .none else {
                        return matcher.matches(
                            components, path: bytes, count: path.count, steps: &steps)
                    }
                    let start = path.lastIndex(of: UInt8(ascii: "/")).map { $0 + 1 } ?? 0
                    return matcher.matches(
                        components[0], name: bytes + start, count: path.count - start,
                        steps: &steps)
                }
            }
        }
    }
}

/// One component of a compiled pattern. Plain data, so that going through a thousand of them
/// touches no reference count.
struct GlobComponent: Sendable {
    enum Kind: UInt8 {
        /// Exactly these bytes.
        case literal
        /// `*` and these bytes.
        case suffix
        /// These bytes and `*`.
        case prefix
        /// `*`.
        case any
        /// Instructions; see `GlobInstruction`.
        case program
        /// `**` between slashes: any number of components, at the end at least one.
        case anyDepth
    }

    let kind: Kind
    /// The byte that every matching name begins with, where there is one; else the mask is 0.
    let firstByte: UInt8
    let firstMask: UInt8
    /// The byte that every matching name ends with, where there is one; else the mask is 0.
    let lastByte: UInt8
    let lastMask: UInt8
    /// No shorter name matches. At least 1 where a mask is not 0.
    let leastLength: UInt32
    /// Where the bytes or instructions lie in the pool.
    var offset: UInt32
    let length: UInt32

    /// Whether a name might match, by its length and its ends: most names fail here.
    @inline(__always) func mayMatch(_ name: UnsafePointer<UInt8>, count: Int) -> Bool {
        guard count >= Int(leastLength), count > 0 else { return false }
        return (name[0] ^ firstByte) & firstMask | (name[count - 1] ^ lastByte) & lastMask == 0
    }
}

/// The instructions of a component that is no simple case. Operands follow in the pool.
enum GlobInstruction {
    /// The byte that follows.
    static let byte: UInt8 = 0
    /// Any byte.
    static let one: UInt8 = 1
    /// Any number of bytes.
    static let star: UInt8 = 2
    /// A byte of the set in the 32 bytes that follow, bit n of byte n / 8.
    static let set: UInt8 = 3
}
