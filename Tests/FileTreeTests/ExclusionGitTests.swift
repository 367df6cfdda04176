import FileTree
import Foundation
import Testing

/// Holds the rules against git itself on generated trees: names and patterns from a small alphabet,
/// so that they meet often, with every special character and bytes that are no UTF-8.
///
/// `BATCHSYNC_SOAK_RUNS` and `BATCHSYNC_SOAK_SEED` set how many trees are made and the first seed.
@Suite("Exclusion rules and git", .enabled(if: Git.isPresent, "git is not installed"))
struct ExclusionGitTests {
    static let seeds: Range<Int> = {
        let environment = ProcessInfo.processInfo.environment
        let first = environment["BATCHSYNC_SOAK_SEED"].flatMap(Int.init) ?? 1
        let count = environment["BATCHSYNC_SOAK_RUNS"].flatMap(Int.init) ?? 24
        return first..<(first + max(1, count))
    }()

    @Test("git check-ignore names the same deciding rule for every entry", arguments: seeds)
    func checkIgnore(seed: Int) throws {
        var random = SeededNumbers(seed: seed)
        let tree = try GeneratedTree(seed: seed, using: &random)
        defer { tree.remove() }
        let git = Git(directory: tree.root)
        try git.run(["init", "-q"])
        let outer = random.ruleFile()
        let inner = random.ruleFile()
        let outerPath = tree.root + "-outer"
        defer { unlink(outerPath) }
        try tree.write(outer, to: Array(outerPath.utf8))
        try tree.write(inner, to: Array((tree.root + "/.git/info/exclude").utf8))
        try git.run(["config", "core.excludesFile", outerPath])

        // git ignores by .gitignore what batchsync ignores by .batchsyncignore: the same contents.
        var ignoreFiles: [[UInt8]: [UInt8]] = [:]
        for directory in [[]] + tree.entries.filter(\.isDirectory).map(\.path)
        where directory.isEmpty || random.oneIn(3) {
            let contents = random.ruleFile()
            ignoreFiles[directory] = contents
            try tree.write(contents, to: tree.absolute(directory) + Array("/.gitignore".utf8))
        }
        var rules = ExclusionRules()
        rules.add(file: Array(outerPath.utf8), contents: outer)
        rules.add(file: Array(".git/info/exclude".utf8), contents: inner)

        let chains = tree.chains(ignoreFiles)
        let input = tree.entries.map { $0.path + [0] }.joined()
        let output = try git.run(
            ["check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"], input: Array(input),
            statuses: [0, 1])
        let fields = output.split(separator: 0, omittingEmptySubsequences: false).map(Array.init)
        try #require(fields.count == 4 * tree.entries.count + 1)

        for (index, entry) in tree.entries.enumerated() {
            try #require(fields[4 * index + 3] == entry.path)
            let chain = chains[tree.parent(of: entry.path)]
            let decision = tree.absolute(entry.path).withUnsafeBytes {
                rules.decideFromRoot(
                    path: $0, rootLength: tree.root.utf8.count, isDirectory: entry.isDirectory,
                    directoryRules: chain
                ).decision
            }
            let text = fields[4 * index + 2]
            let expected =
                "\(text.first != nil && text.first != UInt8(ascii: "!")) "
                + "\(show(fields[4 * index])):\(show(fields[4 * index + 1])):\(show(text))"
            let actual = "\(decision.isExcluded) " + tree.described(decision.reason)
            #expect(actual == expected, "seed \(seed), \(show(entry.path))")
        }
    }

    @Test(
        "A walk with options, ignore files and files keeps what git ls-files keeps",
        arguments: seeds)
    func listFiles(seed: Int) throws {
        var random = SeededNumbers(seed: seed &+ 1_000_000)
        let tree = try GeneratedTree(seed: seed &+ 1_000_000, using: &random)
        defer { tree.remove() }
        let git = Git(directory: tree.root)
        try git.run(["init", "-q"])
        var rules = ExclusionRules()
        // A process argument is text here, so options are drawn until they are UTF-8.
        let options = (0..<5).map { _ in random.pattern() }.filter { isText($0) && !$0.isEmpty }
        for option in options { rules.add(option: option) }
        let file = random.ruleFile()
        let filePath = tree.root + "-list"
        defer { unlink(filePath) }
        try tree.write(file, to: Array(filePath.utf8))
        rules.add(file: Array(filePath.utf8), contents: file)
        var ignoreFiles: [[UInt8]: [UInt8]] = [:]
        for directory in [[]] + tree.entries.filter(\.isDirectory).map(\.path)
        where random.oneIn(3) {
            let contents = random.ruleFile()
            ignoreFiles[directory] = contents
            let name = [UInt8(ascii: "/")] + ExclusionRules.ignoreFileName
            try tree.write(contents, to: tree.absolute(directory) + name)
        }

        let output = try git.run(
            ["ls-files", "--others", "-z", "--exclude-per-directory=.batchsyncignore"]
                + options.map { "--exclude=" + String(decoding: $0, as: UTF8.self) }
                + ["--exclude-from=" + filePath])
        let kept = Set(
            output.split(separator: 0).map(Array.init)
                .filter { !$0.reversed().starts(with: ExclusionRules.ignoreFileName.reversed()) })
        let chains = tree.chains(ignoreFiles)
        for entry in tree.entries where !entry.isDirectory {
            let chain = chains[tree.parent(of: entry.path)]
            let decision = tree.absolute(entry.path).withUnsafeBytes {
                rules.decideFromRoot(
                    path: $0, rootLength: tree.root.utf8.count, isDirectory: false,
                    directoryRules: chain
                ).decision
            }
            #expect(
                decision.isExcluded != kept.contains(entry.path),
                "seed \(seed), \(show(entry.path)): \(decision)")
        }
    }

    private func isText(_ bytes: [UInt8]) -> Bool {
        String(validating: bytes, as: UTF8.self) != nil
    }
}

private func show(_ bytes: [UInt8]) -> String {
    String(decoding: bytes, as: UTF8.self).debugDescription
        + (bytes.contains { $0 > 127 } ? "\(bytes)" : "")
}

// MARK: Chance

/// SplitMix64: the same numbers for the same seed, everywhere.
private struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(seed: Int) { state = UInt64(bitPattern: Int64(seed)) }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func oneIn(_ count: Int) -> Bool { Int.random(in: 0..<count, using: &self) == 0 }

    mutating func pick<Element>(_ elements: [Element]) -> Element {
        elements[Int.random(in: 0..<elements.count, using: &self)]
    }

    static let names: [[UInt8]] =
        [
            "a", "b", "ab", "ba", "abc", "aab", "A", "Ab", ".a", "a.b", "b.o", "a.o", "a-b", "x y",
            " a", "a ", "a  ", "#a", "!a", "*", "a*", "[a]", "[", "]", "^", "a\\", "\\", "?", "é",
            "a\n", "0", "z9", "-", "\t",
        ].map { Array($0.utf8) } + [[0xff], [0x61, 0xff], [0xc3]]

    static let atoms: [[UInt8]] =
        [
            "*", "*", "*", "?", "[ab]", "[!a]", "[^b-z]", "[a-c]", "[[:alpha:]]", "[![:digit:]]",
            "[]a]", "[a-]", "[--0]", "[\\]^]", "[\\!-b]", "[[:punct:]a]", "[[:space:]]", "[b-a]",
            "[[:xdigit:]-z]", "[[]", "[[:]", "[a", "[[:no:]]", "[a/b]", "\\a", "\\*", "\\\\",
            "\\[", "\\#", "\\!", "\\ ", "\\", "a", "b", "o", ".", " ", "**", "***", "#", "!", "]",
            "-", "é", "[é]",
        ].map { Array($0.utf8) } + [[0xff], [0x5b, 0x80, 0x2d, 0xff, 0x5d]]

    /// One pattern; see `isReadOtherwise` for what is not drawn.
    mutating func pattern() -> [UInt8] {
        while true {
            var text: [UInt8] = oneIn(4) ? [UInt8(ascii: "!")] : []
            if oneIn(4) { text.append(UInt8(ascii: "/")) }
            for index in 0..<pick([1, 1, 1, 2, 2, 3, 4]) {
                if index > 0 { text.append(UInt8(ascii: "/")) }
                switch Int.random(in: 0..<10, using: &self) {
                case 0..<4: text += pick(Self.names)
                case 4, 5: text += Array("**".utf8)
                case 6: text += Array("*".utf8)
                default: for _ in 0..<pick([1, 2, 2, 3, 4]) { text += pick(Self.atoms) }
                }
            }
            if oneIn(4) { text.append(UInt8(ascii: "/")) }
            if !Self.isReadOtherwise(text) { return text }
        }
    }

    /// Where batchsync reads a pattern otherwise than git's program, on purpose.
    ///
    /// `//` at the start is batchsync's own. git strips the literal beginning of a pattern before
    /// it looks at `**`, so that in `ab**/c` they count as if they stood alone, against its manual.
    /// And `**\/` does not match zero directories there. A line feed ends a line.
    private static func isReadOtherwise(_ text: [UInt8]) -> Bool {
        var body = String(decoding: text.map { $0 > 127 ? 120 : $0 }, as: UTF8.self)
        if body.contains("\n") { return true }
        if body.hasPrefix("!") { body.removeFirst() }
        if body.hasPrefix("//") || body.contains("\\/") { return true }
        guard body.dropLast(body.hasSuffix("/") ? 1 : 0).contains("/") else { return false }
        let literal = body.prefix { !"*?[\\".contains($0) }
        return body.dropFirst(literal.count).hasPrefix("**") && !literal.isEmpty
            && !literal.hasSuffix("/")
    }

    /// A file of rules with everything that may stand between them.
    mutating func ruleFile() -> [UInt8] {
        var text: [UInt8] = oneIn(8) ? [0xef, 0xbb, 0xbf] : []
        for _ in 0..<Int.random(in: 0...8, using: &self) {
            if oneIn(8) { text += Array(pick(["\n", "# a\n", "#\n", "  \n", "!\n", "/\n"]).utf8) }
            text += pattern()
            if oneIn(6) { text += Array(pick([" ", "  ", "\\ ", "\\  ", " \\ ", "\t"]).utf8) }
            text += Array(pick(["\n", "\n", "\n", "\r\n", "\n\n"]).utf8)
        }
        if oneIn(4), text.last == UInt8(ascii: "\n") { text.removeLast() }
        return text
    }
}

// MARK: Trees

/// A tree of empty files below a temporary directory; paths are relative to it and sorted.
private struct GeneratedTree {
    struct Entry {
        let path: [UInt8]
        let isDirectory: Bool
    }

    let root: String
    private(set) var entries: [Entry] = []

    init(seed: Int, using random: inout SeededNumbers) throws {
        root = NSTemporaryDirectory() + "exclusion-\(getpid())-\(seed)"
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: false)
        try fill([], depth: 0, using: &random)
    }

    private mutating func fill(
        _ directory: [UInt8], depth: Int, using random: inout SeededNumbers
    ) throws {
        let names = SeededNumbers.names.shuffled(using: &random).prefix(depth == 0 ? 9 : 5)
        for name in names {
            let path = directory + (directory.isEmpty ? [] : [UInt8(ascii: "/")]) + name
            let isDirectory = depth < 4 && random.oneIn(2)
            entries.append(Entry(path: path, isDirectory: isDirectory))
            if isDirectory {
                guard withPath(absolute(path), { mkdir($0, 0o777) }) == 0 else {
                    throw POSIXError(.EIO)
                }
                try fill(path, depth: depth + 1, using: &random)
            } else {
                try write([], to: absolute(path))
            }
        }
    }

    func absolute(_ path: [UInt8]) -> [UInt8] {
        Array(root.utf8) + (path.isEmpty ? [] : [UInt8(ascii: "/")] + path)
    }

    func write(_ contents: [UInt8], to path: [UInt8]) throws {
        let file = withPath(path) { open($0, O_WRONLY | O_CREAT | O_TRUNC, 0o666) }
        guard file >= 0 else { throw POSIXError(.EIO) }
        defer { close(file) }
        let written = contents.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        guard written == contents.count else { throw POSIXError(.EIO) }
    }

    private func withPath(_ path: [UInt8], _ call: (UnsafePointer<CChar>) -> Int32) -> Int32 {
        (path.map { CChar(bitPattern: $0) } + [0]).withUnsafeBufferPointer {
            $0.baseAddress.map(call) ?? -1
        }
    }

    func remove() { try? FileManager.default.removeItem(atPath: root) }

    /// The chain of rules that a walk would hold in each directory, the entries' parents among
    /// them.
    func chains(_ contents: [[UInt8]: [UInt8]]) -> [[UInt8]: DirectoryRules] {
        var chains: [[UInt8]: DirectoryRules] = [:]
        // A directory stands before what is in it.
        for directory in [[]] + entries.filter(\.isDirectory).map(\.path) {
            let above = directory.isEmpty ? nil : chains[parent(of: directory)]
            chains[directory] =
                contents[directory].map {
                    DirectoryRules.reading($0, in: absolute(directory), below: above)
                } ?? above
        }
        return chains
    }

    func parent(of path: [UInt8]) -> [UInt8] {
        Array(path[..<(path.lastIndex(of: UInt8(ascii: "/")) ?? 0)])
    }

    /// A reason as check-ignore writes it: source, line and text.
    func described(_ reason: ExclusionReason?) -> String {
        guard case .rule(let text, let source, let line) = reason else {
            return [[], [], []].map(show).joined(separator: ":")
        }
        let path: [UInt8]
        switch source {
        case .option: path = Array("option".utf8)
        case .file(let file): path = file
        case .ignoreFile(let file):
            let ending = ExclusionRules.ignoreFileName.count
            path = file.dropFirst(root.utf8.count + 1).dropLast(ending) + Array(".gitignore".utf8)
        }
        return [path, Array("\(line)".utf8), text].map(show).joined(separator: ":")
    }
}

// MARK: git

/// Runs git in a directory, away from the configuration of whoever runs the tests.
private struct Git {
    let directory: String

    static let path: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin")
        .split(separator: ":").map { $0 + "/git" }
        .first { FileManager.default.isExecutableFile(atPath: $0) }

    static var isPresent: Bool { path != nil }

    @discardableResult
    func run(
        _ arguments: [String], input: [UInt8] = [], statuses: Set<Int32> = [0]
    ) throws -> [UInt8] {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(Self.path))
        process.arguments = arguments
        process.currentDirectoryURL = URL(fileURLWithPath: directory)
        process.environment = [
            "PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin", "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
            "HOME": directory,
        ]
        // Files instead of pipes: neither side waits for the other.
        let files = [directory + "-in", directory + "-out"]
        defer { for file in files { unlink(file) } }
        try Data(input).write(to: URL(fileURLWithPath: files[0]))
        try Data().write(to: URL(fileURLWithPath: files[1]))
        process.standardInput = try FileHandle(forReadingFrom: URL(fileURLWithPath: files[0]))
        process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: files[1]))
        try process.run()
        process.waitUntilExit()
        try #require(statuses.contains(process.terminationStatus), "git \(arguments)")
        return Array(try Data(contentsOf: URL(fileURLWithPath: files[1])))
    }
}
