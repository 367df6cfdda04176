/// Rules in the order in which they were written; the last one that matches decides.
///
/// Immutable, so threads share it. Everything that matching looks at lies in three flat arrays of
/// plain data; text and line of a rule are looked up only when a reason is wanted.
final class ExclusionRuleList: Sendable {
    /// The spot a rule was written at.
    struct Origin: Sendable {
        let text: [UInt8]
        let source: ExclusionSource
        let line: Int
    }

    /// A rule as matching sees it.
    private struct Rule: Sendable {
        let anchor: GlobPattern.Anchor
        let isNegated: Bool
        let isDirectoryOnly: Bool
        /// The last component, which has to match the entry's name unless it is `**`. All that a
        /// rule without anchor has; for the others the cheapest question to begin with.
        let last: GlobComponent
        /// Where the rule's components lie, the last one included.
        let start: Int
        let end: Int
    }

    private let rules: [Rule]
    private let components: [GlobComponent]
    private let pool: [UInt8]
    /// Parallel to `rules`.
    let origins: [Origin]
    /// Rules that can never match, and why; they take no part in matching.
    let defects: [(origin: Origin, defect: GlobPattern.Defect)]

    static let empty = ExclusionRuleList(extending: nil, by: [])

    /// The rules of `list` and behind them those of `origins`.
    init(extending list: ExclusionRuleList?, by added: [Origin]) {
        var rules = list?.rules ?? []
        var components = list?.components ?? []
        var pool = list?.pool ?? []
        var origins = list?.origins ?? []
        var defects = list?.defects ?? []
        for origin in added {
            let pattern = GlobPattern(origin.text)
            if let defect = pattern.defect {
                defects.append((origin, defect))
                continue
            }
            let base = UInt32(pool.count)
            let moved = pattern.components.map { component in
                var component = component
                component.offset += base
                return component
            }
            rules.append(
                Rule(
                    anchor: pattern.anchor, isNegated: pattern.isNegated,
                    isDirectoryOnly: pattern.isDirectoryOnly, last: moved[moved.count - 1],
                    start: components.count, end: components.count + moved.count))
            components += moved
            pool += pattern.pool
            origins.append(origin)
        }
        self.rules = rules
        self.components = components
        self.pool = pool
        self.origins = origins
        self.defects = defects
    }

    var isEmpty: Bool { rules.isEmpty }

    /// How many rules were written so far, those that never match included.
    var writtenCount: Int { rules.count + defects.count }

    func isNegated(_ index: Int) -> Bool { rules[index].isNegated }

    func reason(_ index: Int) -> ExclusionReason {
        let origin = origins[index]
        return .rule(text: origin.text, source: origin.source, line: origin.line)
    }

    /// The last rule that matches an entry, or nil.
    ///
    /// - Parameters:
    ///   - path: Absolute, `count` bytes.
    ///   - base: Where in `path` begins what is relative to the place the rules are anchored to.
    ///   - name: Where in `path` the last component begins.
    func lastMatch(
        path: UnsafePointer<UInt8>, count: Int, base: Int, name: Int, isDirectory: Bool
    ) -> Int? {
        var uncounted = GlobUncounted()
        return rules.withUnsafeBufferPointer { rules in
            components.withUnsafeBufferPointer { components in
                pool.withUnsafeBufferPointer { pool in
                    let matcher = GlobMatcher(pool: pool.baseAddress)
                    var index = rules.count
                    while index > 0 {
                        index -= 1
                        let rule = rules[index]
                        if rule.isDirectoryOnly && !isDirectory { continue }
                        if rule.last.kind != .anyDepth {
                            guard rule.last.mayMatch(path + name, count: count - name),
                                matcher.matches(
                                    rule.last, name: path + name, count: count - name,
                                    steps: &uncounted)
                            else { continue }
                            if rule.anchor == .none { return index }
                        }
                        // An absolute path's components begin behind its leading slash.
                        let start = rule.anchor == .base ? base : 1
                        if matcher.matches(
                            UnsafeBufferPointer(rebasing: components[rule.start..<rule.end]),
                            path: path + start, count: count - start, steps: &uncounted)
                        {
                            return index
                        }
                    }
                    return nil
                }
            }
        }
    }

    // MARK: Files of rules

    /// Reads a file of rules: one a line, `#` begins a comment, blank lines separate.
    ///
    /// A byte order mark at the start, a carriage return and then spaces at a line's end do
    /// not count; a backslash before such a space keeps it.
    static func origins(in contents: [UInt8], source: ExclusionSource) -> [Origin] {
        var origins: [Origin] = []
        var rest = contents[...]
        if rest.starts(with: [0xef, 0xbb, 0xbf]) { rest = rest.dropFirst(3) }
        var number = 0
        for line in rest.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            let line = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
            if line.isEmpty || line.first == UInt8(ascii: "#") { continue }
            let text = Array(withoutTrailingSpaces(line))
            if !text.isEmpty { origins.append(Origin(text: text, source: source, line: number)) }
        }
        return origins
    }

    private static func withoutTrailingSpaces(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        // Forward, since only then is it known which backslash escapes and which is escaped.
        var end = line.startIndex
        var index = line.startIndex
        while index < line.endIndex {
            switch line[index] {
            case UInt8(ascii: " "):
                index += 1
                continue
            case UInt8(ascii: "\\"):
                index = min(index + 2, line.endIndex)
            default:
                index += 1
            }
            end = index
        }
        return line[..<end]
    }
}
