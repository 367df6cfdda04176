import FileTree
import Testing

@Suite("Glob patterns")
struct GlobPatternTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let pattern: String
        let matching: [String]
        let failing: [String]
        var testDescription: String { pattern }

        init(_ pattern: String, matches matching: [String], not failing: [String]) {
            self.pattern = pattern
            self.matching = matching
            self.failing = failing
        }
    }

    static let cases: [Case] = [
        Case("foo", matches: ["foo", "a/foo", "a/b/foo"], not: ["foob", "afoo", "foo/a", "Foo"]),
        Case("/foo", matches: ["foo"], not: ["a/foo", "foo/foo"]),
        Case("a/b", matches: ["a/b"], not: ["x/a/b", "a/b/c", "a/bb"]),
        Case("foo/", matches: ["foo", "a/foo"], not: ["foo/a"]),
        Case("*", matches: ["a", "a/b", ".a"], not: []),
        Case("*.o", matches: ["x.o", ".o", "a/x.o"], not: ["x.oo", "o", "x.o/a"]),
        Case("a*", matches: ["a", "ab", "x/abc"], not: ["ba", "ab/c"]),
        Case("a*c", matches: ["ac", "abc", "a*c"], not: ["ab", "abcd"]),
        Case("*a*", matches: ["a", "bab"], not: ["b"]),
        Case("*a*b*c", matches: ["abc", "xaybzc", "aabbcc"], not: ["acb", "abcd"]),
        Case("?", matches: ["a", "*"], not: ["ab"]),
        Case("a?c", matches: ["abc", "a?c"], not: ["ac", "a/c"]),
        Case("/a*c", matches: ["abc"], not: ["a/c", "x/abc"]),
        Case("a/*", matches: ["a/b", "a/.b"], not: ["a", "a/b/c"]),
        Case("a/*/c", matches: ["a/b/c"], not: ["a/c", "a/b/b/c"]),
        Case("**", matches: ["a", "a/b/c"], not: []),
        Case("/**", matches: ["a", "a/b/c"], not: []),
        Case("**/foo", matches: ["foo", "a/foo", "a/b/foo"], not: ["afoo", "foo/a"]),
        Case("**/a/b", matches: ["a/b", "x/a/b", "a/a/b"], not: ["a/x/b", "xa/b"]),
        Case("a/**", matches: ["a/b", "a/b/c"], not: ["a", "b/a/b"]),
        Case("a/**/b", matches: ["a/b", "a/x/b", "a/x/y/b", "a/b/b"], not: ["ab", "a/b/c", "a"]),
        Case("**/x/**/y", matches: ["x/y", "a/x/b/c/y", "x/x/y/y"], not: ["y/x", "x", "x/yy"]),
        Case("a/**/**", matches: ["a/b", "a/b/c"], not: ["a"]),
        Case("a/***/b", matches: ["a/b", "a/x/y/b"], not: ["a"]),
        Case("ab**", matches: ["ab", "abc", "x/abc"], not: ["b"]),
        Case("ab**/c", matches: ["ab/c", "abx/c"], not: ["abx/y/c", "x/ab/c"]),
        Case("x/ab**", matches: ["x/ab", "x/abc"], not: ["x/abc/d"]),
        Case("[ab]", matches: ["a", "b"], not: ["c", "ab", "[ab]"]),
        Case("[!ab]", matches: ["c", "!"], not: ["a", "b"]),
        Case("[^ab]", matches: ["c", "^"], not: ["a", "b"]),
        Case("[a-c]x", matches: ["ax", "cx"], not: ["dx", "-x"]),
        Case("[c-a]", matches: ["c"], not: ["a", "b", "-"]),
        Case("[]a]", matches: ["]", "a"], not: ["b", "]a"]),
        Case("[!]a]", matches: ["b"], not: ["]", "a"]),
        Case("[a-]", matches: ["a", "-"], not: ["b"]),
        Case("[-a]", matches: ["a", "-"], not: ["b"]),
        Case("[a-c-e]", matches: ["a", "b", "c", "-", "e"], not: ["d"]),
        Case("[\\]]", matches: ["]"], not: ["\\"]),
        Case("[\\a-c]", matches: ["a", "b", "c"], not: ["\\"]),
        Case("[a-\\c]", matches: ["a", "b", "c"], not: ["\\"]),
        Case("[[:digit:]x]", matches: ["0", "9", "x"], not: ["a", ":", "d"]),
        Case("[![:digit:]]", matches: ["a"], not: ["0"]),
        Case("[[:upper:][:space:]]", matches: ["A", " ", "\t"], not: ["a"]),
        Case("[[:x]", matches: ["[", ":", "x"], not: ["y"]),
        Case("x[/]y", matches: [], not: ["x/y", "xy"]),
        Case("a[!b]c", matches: ["axc"], not: ["abc", "a/c"]),
        Case("\\*", matches: ["*", "a/*"], not: ["a", "\\*"]),
        Case("\\!a", matches: ["!a"], not: ["a"]),
        Case("\\#a", matches: ["#a"], not: ["a"]),
        Case("\\a\\b", matches: ["ab"], not: ["\\a\\b"]),
        Case("a\\ ", matches: ["a "], not: ["a"]),
        Case("a\\?c*", matches: ["a?cd"], not: ["abcd"]),
        Case("é*", matches: ["é", "éa"], not: ["e"]),
        Case("//srv/*/tmp", matches: ["srv/a/tmp"], not: ["a/srv/a/tmp", "srv/tmp"]),
        Case("///srv", matches: ["srv"], not: ["a/srv"]),
    ]

    @Test("Patterns match what gitignore(5) says and nothing else", arguments: cases)
    func table(_ example: Case) {
        let pattern = GlobPattern(Array(example.pattern.utf8))
        #expect(pattern.defect == nil)
        for path in example.matching {
            #expect(pattern.matches(Array(path.utf8), isDirectory: true), "\(path) should match")
        }
        for path in example.failing {
            #expect(!pattern.matches(Array(path.utf8), isDirectory: true), "\(path) should not")
        }
    }

    @Test("A trailing slash matches directories only")
    func directoryOnly() {
        let pattern = GlobPattern(Array("build/".utf8))
        #expect(pattern.isDirectoryOnly)
        #expect(pattern.matches(Array("a/build".utf8), isDirectory: true))
        #expect(!pattern.matches(Array("a/build".utf8), isDirectory: false))
    }

    @Test("A first exclamation mark negates, a second one is a character")
    func negation() {
        let pattern = GlobPattern(Array("!!a".utf8))
        #expect(pattern.isNegated)
        #expect(pattern.matches(Array("!a".utf8), isDirectory: false))
        #expect(!GlobPattern(Array("\\!a".utf8)).isNegated)
    }

    @Test("One question mark is one byte, and bytes need not be UTF-8")
    func bytes() {
        let latin: [UInt8] = [0x66, 0xfc, 0x72]
        #expect(GlobPattern(latin).matches(latin, isDirectory: false))
        #expect(GlobPattern(Array("f?r".utf8)).matches(latin, isDirectory: false))
        #expect(!GlobPattern(Array("f?r".utf8)).matches(Array("für".utf8), isDirectory: false))
        let range: [UInt8] = [0x5b, 0x80, 0x2d, 0xff, 0x5d]
        #expect(GlobPattern(range).matches([0xc3], isDirectory: false))
        #expect(!GlobPattern(range).matches([0x7f], isDirectory: false))
    }

    @Test(
        "A pattern that cannot match says why",
        arguments: [
            ("", GlobPattern.Defect.empty), ("!", .empty), ("/", .empty), ("//", .empty),
            ("a\\", .trailingBackslash), ("a\\/", .trailingBackslash), ("[a", .unclosedSet),
            ("[", .unclosedSet), ("[]", .unclosedSet), ("[!", .unclosedSet), ("[a\\", .unclosedSet),
            ("[[:alpha:]", .unclosedSet), ("[a-", .unclosedSet), ("[[:alpha", .unclosedSet),
            ("[[:word:]]", .unknownClass), ("[[::]]", .unknownClass), ("a//b", .emptyComponent),
            ("a//", .emptyComponent),
        ])
    func defects(_ text: String, _ defect: GlobPattern.Defect) {
        let pattern = GlobPattern(Array(text.utf8))
        #expect(pattern.defect == defect)
        for path in ["", "a", "[", "a/b", "\\", "/"] {
            #expect(!pattern.matches(Array(path.utf8), isDirectory: true))
        }
    }

    @Test(
        "No pattern takes more steps than its length times the path's",
        arguments: [
            "a*a*a*a*a*a*a*a*a*a*a*a*b", "*a*a*a*a*b?", "[ab]*[ab]*[ab]*[ab]*c*d",
            "**/a*/**/a*/**/a*/**/a*/b", "/**/**/**/**/**/b", "**/*a*a*a*b*/**/*a*a*a*b*/**/c",
            "?*?*?*?*?*?*?*b", "**/a/**/a/**/a/**/a/**/a/**/a/**/a/b",
        ])
    func hostile(_ text: String) {
        let pattern = GlobPattern(Array(text.utf8))
        let name = [UInt8](repeating: UInt8(ascii: "a"), count: 255)
        let slash = [UInt8(ascii: "/")]
        let wide = [UInt8](Array(repeating: name, count: 40).joined(separator: slash))
        let deep = [UInt8](Array(repeating: [name[0]], count: 5000).joined(separator: slash))
        for path in [name, wide, deep] {
            #expect(!pattern.matches(path, isDirectory: true))
            let steps = pattern.steps(toMatch: path)
            #expect(steps <= (text.utf8.count + 1) * (path.count + 1), "\(steps) steps")
        }
    }
}
