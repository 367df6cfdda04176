import TestSupport
import Testing

@testable import Profiles

/// The library does not say where a key stands; our own walk over the text does.
@Suite("Lines")
struct LineTests {
    @Test("Every way to write a key is found on its line")
    func keys() throws {
        let text = """
            # comment with [brackets] and "quotes
            top = 1
            "quoted" = 'it''s'
            a.b.c = 2 # comment
            [ table . "inner" ]
            list = [ 1, # one ]
              [2, 3],
              "x]", '''
            ]''',
              { deep = 1 },
            ]
            inline = { x = 1, y.z = "}" }
            text = \"""
            [not.a.table]
            key = 1 \\
            \"quotes\" \"""\""
            after = true
            [[array]]
            first = 1
            [array.below]
            under = 2
            [[array]]
            second = 3
            [[array.nested]]
            third = 4
            """
            .replacing("'it''s'", with: "'its'")
        let lines = try ProfileLines(of: Array(text.utf8))
        let expected: [(String, Int)] = [
            ("top", 2), ("quoted", 3), ("a", 4), ("a/b", 4), ("a/b/c", 4), ("table/inner", 5),
            ("table/inner/list", 6), ("table/inner/list/4/deep", 10), ("table/inner/inline", 12),
            ("table/inner/inline/x", 12), ("table/inner/inline/y/z", 12), ("table/inner/text", 13),
            ("table/inner/after", 17), ("array/0/first", 19), ("array/0/below/under", 21),
            ("array/1/second", 23), ("array/1/nested/0/third", 25),
        ]
        for (path, line) in expected {
            let steps = path.split(separator: "/").map(String.init)
            #expect(lines.keys[steps] == line, "\(path)")
        }
        #expect(lines.values[["table", "inner", "list", "1"]] == 7)
        #expect(lines.values[["table", "inner", "list", "2"]] == 8)
        #expect(lines.keys[["not"]] == nil && lines.keys[["key"]] == nil)
        // And the library agrees that it is TOML with these keys.
        let root = try ProfileDecoder.decode(Array(text.utf8))
        #expect(withoutLine(root, at: "") == [])
    }

    @Test("Every key of the reference and the examples has its line", arguments: ExampleTests.names)
    func examples(_ name: String) throws {
        let text = try #require(readFile("\(ProfilesTests.examples)/\(name).toml"))
        let root = try ProfileDecoder.decode(text)
        #expect(withoutLine(root, at: "") == [])
        let lines = String(decoding: text, as: UTF8.self)
            .split(separator: "\n", omittingEmptySubsequences: false)
        guard case .table(let fields) = root.value else { return }
        for field in fields {
            #expect(lines[field.line - 1].contains(field.key))
        }
    }

    /// Keys and values without a line.
    private func withoutLine(_ node: ProfileNode, at path: String) -> [String] {
        switch node.value {
        case .table(let fields):
            fields.flatMap { field in
                (field.line > 0 && field.node.line > 0 ? [] : ["\(path)/\(field.key)"])
                    + withoutLine(field.node, at: "\(path)/\(field.key)")
            }
        case .list(let items):
            items.enumerated().flatMap { withoutLine($1, at: "\(path)/\($0)") }
        default: []
        }
    }

    @Test("Windows line ends are line ends")
    func carriageReturns() throws {
        let root = try ProfileDecoder.decode(Array("a = 1\r\n[b]\r\nc = [\r\n2]\r\n".utf8))
        #expect(withoutLine(root, at: "") == [])
        guard case .table(let fields) = root.value else { return }
        #expect(fields.map(\.line) == [1, 2])
    }
}

@Suite("Damaged text")
struct DamagedTextTests {
    /// Rounds of each seed; `BATCHSYNC_TEST_RUNS` is for the campaigns, this is quick.
    private static let rounds = 400

    @Test("No text, however it is damaged, does more than fail", arguments: 0..<8)
    func mutations(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let fixture = ProfileFixture()
        var texts = ExampleTests.names.compactMap { readFile("\(examples)/\($0).toml") }
        texts.append(Array(uncommented.utf8))
        let spice = Array("[]{}\"'=.,#\n\\\u{0}${}~".utf8) + [0xFF, 0xC3, 0x80]
        for _ in 0..<Self.rounds {
            guard var text = texts.randomElement(using: &random) else { return }
            for _ in 0..<Int.random(in: 1...6, using: &random) where !text.isEmpty {
                let at = Int.random(in: 0..<text.count, using: &random)
                switch Int.random(in: 0..<5, using: &random) {
                case 0: text[at] = spice.randomElement(using: &random) ?? 0
                case 1: text.insert(spice.randomElement(using: &random) ?? 0, at: at)
                case 2:
                    text.removeSubrange(
                        at..<min(text.count, at + Int.random(in: 1...40, using: &random)))
                case 3:
                    let from = Int.random(in: 0..<text.count, using: &random)
                    text.insert(contentsOf: text[from..<min(text.count, from + 30)], at: at)
                default: text[at] = UInt8.random(in: 0...255, using: &random)
                }
            }
            fixture.directory.write(text, to: "test.toml", mode: 0o644)
            do throws(ProfileError) {
                let profile = try fixture.load(fixture.directory.path("test.toml"))
                #expect(!profile.repository.location.isEmpty)
            } catch {
                #expect(!error.problems.isEmpty)
                for problem in error.problems {
                    #expect(!problem.message.isEmpty && problem.line >= 0)
                    #expect(problem.line <= text.count { $0 == 0x0A } + 2, "\(problem)")
                }
            }
        }
    }

    /// The reference with every key.
    private var uncommented: String {
        ReferenceTests.text.split(separator: "\n", omittingEmptySubsequences: false).map {
            $0.hasPrefix("#") && !$0.hasPrefix("# ") ? $0.dropFirst() : $0
        }.joined(separator: "\n")
    }

    @Test("What nests without end has an end")
    func nesting() {
        let deep = 100_000
        let fixture = ProfileFixture()
        for text in [
            "a = " + String(repeating: "[", count: deep),
            "a = " + String(repeating: "[", count: deep) + String(repeating: "]", count: deep),
            "a = " + String(repeating: "{ b = ", count: deep / 2),
            Array(repeating: "a", count: deep).joined(separator: ".") + " = 1",
            "[" + Array(repeating: "a", count: deep).joined(separator: ".") + "]",
            "a = \"" + String(repeating: "\\", count: deep),
            String(repeating: "\"", count: deep),
        ] {
            #expect(throws: ProfileError.self, "\(text.prefix(20))") {
                try fixture.load(text: text)
            }
        }
    }
}
