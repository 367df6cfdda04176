import FileTree
import Foundation
import Testing

@Suite("Exclusion rules")
struct ExclusionRulesTests {
    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    private func rules(
        options: [String] = [], files: [(path: String, text: String)] = []
    ) -> ExclusionRules {
        var rules = ExclusionRules()
        for option in options { rules.add(option: bytes(option)) }
        for file in files { rules.add(file: bytes(file.path), contents: bytes(file.text)) }
        return rules
    }

    private func decide(
        _ rules: ExclusionRules, _ path: String, root: String = "/r", isDirectory: Bool = false,
        _ directory: DirectoryRules? = nil
    ) -> ExclusionDecision {
        bytes(path).withUnsafeBytes {
            rules.decide(
                path: $0, rootLength: root.utf8.count, isDirectory: isDirectory,
                directoryRules: directory)
        }
    }

    private func ignoring(
        _ text: String, in directory: String, below parent: DirectoryRules? = nil
    ) -> DirectoryRules? {
        DirectoryRules.reading(bytes(text), in: bytes(directory), below: parent)
    }

    // MARK: Order

    @Test("Without rules nothing is excluded and no reason is given")
    func noRules() {
        let decision = decide(ExclusionRules(), "/r/a")
        #expect(!decision.isExcluded)
        #expect(decision.reason == nil)
        #expect(decision.description == "kept: no rule matches")
    }

    @Test("The last rule that matches decides")
    func lastDecides() {
        let rules = rules(options: ["*.log", "!keep.log", "*.tmp", "!x.tmp", "x.tmp"])
        #expect(decide(rules, "/r/a.log").isExcluded)
        #expect(!decide(rules, "/r/keep.log").isExcluded)
        #expect(decide(rules, "/r/x.tmp").isExcluded)
    }

    @Test("Options win over ignore files, deeper ones over shallower ones, and those over files")
    func precedence() {
        let all = rules(options: ["!1"], files: [("list", "3\n4\n!2\n")])
        let shallow = ignoring("1\n2\n3\n!4\n", in: "/r")
        let deep = ignoring("!3\n", in: "/r/d", below: shallow)
        #expect(!decide(all, "/r/d/1", deep).isExcluded)
        #expect(decide(all, "/r/d/2", deep).isExcluded)
        #expect(!decide(all, "/r/d/3", deep).isExcluded)
        #expect(decide(all, "/r/3", shallow).isExcluded)
        #expect(!decide(all, "/r/d/4", deep).isExcluded)
        #expect(decide(all, "/r/4").isExcluded)
    }

    @Test("Of two files the later one wins")
    func fileOrder() {
        let rules = rules(files: [("one", "a\n!b\n"), ("two", "!a\nb\n")])
        #expect(!decide(rules, "/r/a").isExcluded)
        #expect(decide(rules, "/r/b").isExcluded)
    }

    @Test("What lies below an excluded directory is excluded with it, whatever keeps it")
    func excludedParent() throws {
        let rules = rules(options: ["cache/", "!cache/keep", "!keep"])
        let path = bytes("/r/a/cache/keep/x")
        let (decision, length) = path.withUnsafeBytes {
            rules.decideFromRoot(path: $0, rootLength: 2, isDirectory: false, directoryRules: nil)
        }
        #expect(decision.isExcluded)
        #expect(length == "/r/a/cache".utf8.count)
        #expect(decision.reason == .rule(text: bytes("cache/"), source: .option, line: 1))
    }

    @Test("Asked from the root, ignore files speak only of what lies below them")
    func fromRootWithIgnoreFiles() {
        let outer = ignoring("/d/no\n", in: "/r")
        let inner = ignoring("d\n!x\n", in: "/r/d", below: outer)
        func decide(_ path: String) -> (decision: ExclusionDecision, length: Int) {
            bytes(path).withUnsafeBytes {
                ExclusionRules().decideFromRoot(
                    path: $0, rootLength: 2, isDirectory: false, directoryRules: inner)
            }
        }
        #expect(!decide("/r/d/x").decision.isExcluded)
        #expect(decide("/r/d/x").length == 6)
        #expect(decide("/r/d/d").decision.isExcluded)
        #expect(decide("/r/d/no/x").length == 7)
        #expect(!decide("/r").decision.isExcluded)
    }

    // MARK: Anchors

    @Test(
        "A leading slash means the source root in options and files",
        arguments: ["/srv/www", "/", "/srv"])
    func anchoredAtRoot(root: String) {
        let base = root == "/" ? "" : root
        for rules in [rules(options: ["/tmp"]), rules(files: [("f", "/tmp")])] {
            #expect(decide(rules, base + "/tmp", root: root).isExcluded)
            #expect(!decide(rules, base + "/a/tmp", root: root).isExcluded)
        }
        let inner = rules(options: ["a/tmp"])
        #expect(decide(inner, base + "/a/tmp", root: root).isExcluded)
        #expect(!decide(inner, base + "/b/a/tmp", root: root).isExcluded)
    }

    @Test("The root / may be given with its slash counted or not")
    func rootOfFileSystem() {
        let rules = rules(options: ["/proc"])
        bytes("/proc").withUnsafeBytes { path in
            for length in [0, 1] {
                #expect(
                    rules.decide(
                        path: path, rootLength: length, isDirectory: true, directoryRules: nil
                    ).isExcluded)
            }
        }
    }

    @Test("A leading slash means the directory itself in an ignore file", arguments: ["/r/d", "/"])
    func anchoredAtDirectory(directory: String) {
        let base = directory == "/" ? "" : directory
        let rules = ignoring("/tmp\nx/y\n", in: directory)
        #expect(decide(ExclusionRules(), base + "/tmp", root: "/", rules).isExcluded)
        #expect(!decide(ExclusionRules(), base + "/e/tmp", root: "/", rules).isExcluded)
        #expect(decide(ExclusionRules(), base + "/x/y", root: "/", rules).isExcluded)
        #expect(!decide(ExclusionRules(), base + "/e/x/y", root: "/", rules).isExcluded)
    }

    @Test("Two leading slashes mean the file system's root, everywhere")
    func anchoredAtFileSystem() {
        let option = rules(options: ["//r/*/tmp"])
        #expect(decide(option, "/r/a/tmp").isExcluded)
        #expect(decide(option, "/r/a/tmp", root: "/r/a").isExcluded)
        #expect(decide(option, "/r/a/tmp", root: "/").isExcluded)
        #expect(!decide(option, "/r/a/r/a/tmp", root: "/r/a").isExcluded)
        let ignore = ignoring("//r/d/x\n//**/y\n", in: "/r/d")
        #expect(decide(ExclusionRules(), "/r/d/x", ignore).isExcluded)
        #expect(!decide(ExclusionRules(), "/r/d/r/d/x", ignore).isExcluded)
        #expect(decide(ExclusionRules(), "/r/d/e/y", ignore).isExcluded)
        let directory = rules(options: ["//r/a/"])
        #expect(decide(directory, "/r/a", isDirectory: true).isExcluded)
        #expect(!decide(directory, "/r/a").isExcluded)
    }

    @Test("A source root is never excluded by a pattern")
    func rootItself() {
        let rules = rules(options: ["*", "r", "/r", "//r"])
        #expect(!decide(rules, "/r", isDirectory: true).isExcluded)
        #expect(!decide(rules, "/", root: "/", isDirectory: true).isExcluded)
    }

    // MARK: Reasons

    @Test("The reason names the rule's text, its source and its line")
    func reasons() throws {
        let rules = rules(
            options: ["[", "*.iso"], files: [("/etc/list", "# list\n\n  \n!a.tmp  \n*.o\n")])
        let ignore = ignoring("\n*.a\r\n", in: "/r/d")
        #expect(
            decide(rules, "/r/x.iso").reason
                == .rule(text: bytes("*.iso"), source: .option, line: 2))
        #expect(
            decide(rules, "/r/x.o").reason
                == .rule(text: bytes("*.o"), source: .file(bytes("/etc/list")), line: 5))
        #expect(
            decide(rules, "/r/d/x.a", ignore).reason
                == .rule(
                    text: bytes("*.a"), source: .ignoreFile(bytes("/r/d/.batchsyncignore")), line: 2
                ))
        #expect(decide(rules, "/r/x.iso").description == "excluded by --exclude '*.iso'")
        #expect(decide(rules, "/r/a.tmp").description == "kept by '!a.tmp' (/etc/list, line 4)")
    }

    @Test("A reason shows bytes that are no text, or would steer a terminal, as numbers")
    func printing() {
        var rules = ExclusionRules()
        rules.add(option: [0x61, 0xff, 0x1b, 0xc3, 0xa9, 0xc3])
        let path: [UInt8] = bytes("/r/") + [0x61, 0xff, 0x1b, 0xc3, 0xa9, 0xc3]
        let decision = path.withUnsafeBytes {
            rules.decide(path: $0, rootLength: 2, isDirectory: false, directoryRules: nil)
        }
        #expect(decision.description == "excluded by --exclude 'a\\xff\\x1bé\\xc3'")
    }

    @Test("Rules that can never match are told, with their spot, and match nothing")
    func neverMatching() {
        let rules = rules(options: ["a", "[a"], files: [("f", "ok\nb\\\n")])
        #expect(rules.neverMatching.map(\.defect) == [.unclosedSet, .trailingBackslash])
        #expect(
            rules.neverMatching.map(\.rule) == [
                .rule(text: bytes("[a"), source: .option, line: 2),
                .rule(text: bytes("b\\"), source: .file(bytes("f")), line: 2),
            ])
        #expect(decide(rules, "/r/ok").isExcluded)
        #expect(ignoring("[", in: "/r")?.neverMatching.count == 1)
    }

    @Test("A pattern that repeats the root's path is suspected to want a second slash")
    func probablyAbsolute() {
        let rules = rules(
            options: ["/r/tmp", "!/r", "/rx", "r/tmp", "//r/tmp"], files: [("f", "/r/x/")])
        #expect(
            rules.probablyAbsolute(roots: [bytes("/"), bytes("/r")]) == [
                .rule(text: bytes("/r/tmp"), source: .option, line: 1),
                .rule(text: bytes("!/r"), source: .option, line: 2),
                .rule(text: bytes("/r/x/"), source: .file(bytes("f")), line: 1),
            ])
    }

    // MARK: Reading files of rules

    @Test("Comments, blank lines, line ends, a byte order mark and trailing spaces do not count")
    func fileSyntax() {
        var text: [UInt8] = [0xef, 0xbb, 0xbf]
        text += bytes("a\r\n#b\n\\#c\n\n   \nd  \ne\\ \nf \\  \ng\\\\ \nh\t\ni")
        var rules = ExclusionRules()
        rules.add(file: bytes("f"), contents: text)
        for name in ["a", "#c", "d", "e ", "f  ", "g\\", "h\t", "i"] {
            #expect(decide(rules, "/r/" + name).isExcluded, "\(name)")
        }
        for name in ["b", "#b", "d  ", "e", "f", "f ", "h"] {
            #expect(!decide(rules, "/r/" + name).isExcluded, "\(name)")
        }
        #expect(rules.neverMatching.isEmpty)
    }

    @Test("In an option a number sign and trailing spaces are part of the pattern")
    func optionSyntax() {
        let rules = rules(options: ["#a", "b "])
        #expect(decide(rules, "/r/#a").isExcluded)
        #expect(decide(rules, "/r/b ").isExcluded)
        #expect(!decide(rules, "/r/b").isExcluded)
    }

    @Test("An ignore file without rules adds no link")
    func emptyIgnoreFile() {
        let parent = ignoring("a", in: "/r")
        #expect(ignoring("# nothing\n\n", in: "/r/d", below: parent) === parent)
        #expect(ignoring("", in: "/r") == nil)
    }

    @Test(
        "A chain of ignore files as deep as a hostile tree is released without using up the stack")
    func deepChain() {
        let isReleased = DispatchSemaphore(value: 0)
        let thread = Thread {
            var chain: DirectoryRules?
            for _ in 0..<20_000 {
                chain = DirectoryRules.reading([0x61], in: [0x2f, 0x72], below: chain)
            }
            chain = nil
            isReleased.signal()
        }
        thread.stackSize = 256 << 10
        thread.start()
        isReleased.wait()
    }

    @Test("Links that are still in use outlive the chain they were part of")
    func heldChain() {
        var chain: DirectoryRules?
        for _ in 0..<5 { chain = ignoring("a", in: "/r", below: chain) }
        let held = chain?.parent?.parent
        chain = nil
        #expect(decide(ExclusionRules(), "/r/a", held).isExcluded)
        #expect(held?.parent?.parent != nil)
        #expect(held?.parent?.parent?.parent == nil)
    }

    // MARK: Markers and facts

    @Test("A cache directory is known by the 43 bytes of its tag")
    func cacheDirectory() {
        let marker = ExclusionMarker.cacheDirectory
        #expect(marker.header.count == 43)
        #expect(marker.name == bytes("CACHEDIR.TAG"))
        #expect(marker.isConfirmed(by: marker.header))
        #expect(marker.isConfirmed(by: marker.header + bytes("\n# made by …")))
        #expect(!marker.isConfirmed(by: Array(marker.header.dropLast())))
        #expect(!marker.isConfirmed(by: bytes(" ") + marker.header))
        #expect(marker.reason == .cacheDirectory)
    }

    @Test("A marker option holds a name and perhaps a header behind the first colon")
    func markerOption() throws {
        let plain = try #require(ExclusionMarker(option: bytes(".nobackup")))
        #expect(plain.name == bytes(".nobackup"))
        #expect(plain.isConfirmed(by: []))
        #expect(plain.reason == .marker(name: bytes(".nobackup")))
        let header = try #require(ExclusionMarker(option: bytes("TAG:a:b")))
        #expect(header.name == bytes("TAG"))
        #expect(header.header == bytes("a:b"))
        #expect(!header.isConfirmed(by: bytes("a:")))
        for text in ["", ":x", ".", "..", "a/b", "/a"] {
            #expect(ExclusionMarker(option: bytes(text)) == nil, "\(text)")
        }
    }

    @Test("Size, flag and file system exclude only where that is asked for")
    func facts() {
        var rules = ExclusionRules()
        #expect(rules.reason(size: .max, isNoDump: true, isOnOtherFileSystem: true) == nil)
        rules.largestFileBytes = 100
        #expect(rules.reason(size: 100) == nil)
        #expect(rules.reason(size: 101) == .tooLarge(size: 101, limit: 100))
        #expect(rules.reason(size: nil) == nil)
        rules.excludesNoDump = true
        #expect(rules.reason(size: 1, isNoDump: true) == .noDump)
        rules.staysOnFileSystem = true
        #expect(rules.reason(size: nil, isOnOtherFileSystem: true) == .otherFileSystem)
        #expect(rules.reason(size: nil) == nil)
    }
}
