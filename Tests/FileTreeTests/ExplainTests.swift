import CSystem
import Glibc
import SnapshotModel
import Testing

@testable import FileTree

@Suite("What a walk leaves out, and why")
struct ExplainTests {
    private func options(_ patterns: [String] = []) -> WalkOptions {
        var options = WalkOptions()
        for pattern in patterns { options.rules.add(option: Array(pattern.utf8)) }
        options.reportsExclusions = true
        return options
    }

    /// Every path in the tree, whatever the rules say.
    private func everything(_ scratch: WalkScratch) throws -> [[UInt8]] {
        var options = WalkOptions()
        options.readsIgnoreFiles = false
        return try walk([scratch.root()], options).map(\.path)
    }

    /// Walks, and asks for each path of the tree what becomes of it: both must agree.
    private func check(_ scratch: WalkScratch, _ options: WalkOptions) throws -> [WalkRecord] {
        let records = try walk([scratch.root()], options)
        var quiet = options
        quiet.reportsExclusions = false
        #expect(try walk([scratch.root()], quiet) == records.filter { $0.event != "excluded" })
        let delivered = Set(records.filter { $0.event == "entry" }.map(\.path))
        let reasons = Dictionary(
            uniqueKeysWithValues: records.filter { $0.event == "excluded" }.map {
                ($0.path, $0.detail)
            })
        for path in try everything(scratch) {
            let answer = try ExclusionExplanation.explain(
                path, roots: [scratch.root()], options: options)
            #expect(answer.isIncluded == delivered.contains(path), "\(answer)")
            #expect(answer.exists)
            if case .excluded(let reason) = answer.verdict {
                #expect(reasons[answer.decidedPath] == "\(reason)")
            }
        }
        return records
    }

    @Test("Patterns, and files of patterns below each other")
    func patterns() throws {
        let scratch = try WalkScratch()
        for name in [
            "a.o", "keep.o", "src/b.o", "src/b.c", "src/gen/x.c", "out/y", "deep/er/tmp/z",
            "deep/er/w",
        ] {
            scratch.file(name)
        }
        scratch.file("src/.batchsyncignore", "/gen/\n*.c\n!b.c\n")
        scratch.file("deep/.batchsyncignore", "tmp\n")
        let records = try check(scratch, options(["*.o", "!keep.o", "out/"]))
        #expect(
            names(records, below: scratch.path) == [
                ".", "deep", "deep/.batchsyncignore", "deep/er", "deep/er/w", "keep.o", "src",
                "src/.batchsyncignore", "src/b.c",
            ])
        #expect(
            names(records, below: scratch.path, event: "excluded") == [
                "a.o", "deep/er/tmp", "out", "src/b.o", "src/gen",
            ])
    }

    @Test("A tagged cache keeps its directory and its tag")
    func caches() throws {
        let scratch = try WalkScratch()
        scratch.file("good/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# more\n")
        scratch.file("good/data")
        scratch.file("good/sub/data")
        scratch.file("bad/CACHEDIR.TAG", "Signature: something else entirely, of the same length")
        scratch.file("bad/data")
        scratch.file("short/CACHEDIR.TAG", "Sig")
        scratch.file("short/data")
        scratch.directory("linked")
        scratch.symlink("../good/CACHEDIR.TAG", "linked/CACHEDIR.TAG")
        scratch.file("linked/data")
        var options = options()
        #expect(try check(scratch, options).filter { $0.event != "entry" }.isEmpty)
        options.rules.markers = [.cacheDirectory]
        let records = try check(scratch, options)
        #expect(
            names(records, below: scratch.path, event: "excluded") == ["good/data", "good/sub"])
    }

    @Test("A marker empties its directory")
    func markers() throws {
        let scratch = try WalkScratch()
        scratch.file("a/.nobackup")
        scratch.file("a/data")
        scratch.file("b/tag", "no backup, please")
        scratch.file("b/data")
        scratch.file("c/tag", "hello")
        scratch.file("c/data")
        var options = options()
        options.rules.markers = [
            try #require(ExclusionMarker(option: Array(".nobackup".utf8))),
            try #require(ExclusionMarker(option: Array("tag:no backup".utf8))),
        ]
        let records = try check(scratch, options)
        #expect(names(records, below: scratch.path, event: "excluded") == ["a/data", "b/data"])
    }

    @Test("Size and the flag \"no dump\" keep files out")
    func facts() throws {
        let scratch = try WalkScratch()
        scratch.file("large", [UInt8](repeating: 1, count: 101))
        scratch.file("limit", [UInt8](repeating: 1, count: 100))
        scratch.file("flagged")
        scratch.file("directory/inside")
        var options = options()
        options.rules.largestFileBytes = 100
        #expect(
            try names(check(scratch, options), below: scratch.path, event: "excluded") == ["large"])
        options.rules.largestFileBytes = nil
        options.rules.excludesNoDump = true
        guard scratch.add(flags: InodeFlags.nodump, to: "flagged"),
            scratch.add(flags: InodeFlags.nodump, to: "directory")
        else {
            skipped("the flag \"no dump\"", because: "the file system has none")
            return
        }
        #expect(
            try names(check(scratch, options), below: scratch.path, event: "excluded")
                == ["directory", "flagged"])
    }

    @Test("An unusable file of patterns is a problem and leaves nothing out")
    func unusableRules() throws {
        let scratch = try WalkScratch()
        scratch.file(
            "a/.batchsyncignore",
            [UInt8](repeating: 0x2A, count: ExclusionRules.ignoreFileBytes + 1))
        scratch.file("a/b")
        let records = try check(scratch, options())
        #expect(names(records, below: scratch.path) == [".", "a", "a/.batchsyncignore", "a/b"])
        #expect(names(records, below: scratch.path, event: "problem") == ["a/.batchsyncignore"])
    }

    @Test("Paths outside, behind links and not yet there are told apart")
    func verdicts() throws {
        let scratch = try WalkScratch()
        scratch.file("root/a/file")
        scratch.symlink("a", "root/link")
        let options = options(["*.tmp"])
        func explain(_ name: String) throws -> ExclusionExplanation {
            try .explain(scratch.path(name), roots: [scratch.root("root")], options: options)
        }
        #expect(try explain("root").verdict == .included(nil))
        #expect(try explain("elsewhere").verdict == .outside)
        #expect(try explain("root/link").verdict == .included(nil))
        #expect(try explain("root/link/file").verdict == .behindLink)
        #expect(try explain("root/a/../a/./file").verdict == .included(nil))
        let future = try explain("root/not/yet/x.tmp")
        #expect(!future.exists)
        guard case .excluded = future.verdict else {
            Issue.record("\(future)")
            return
        }
        #expect(try explain("root/cache.tmp/below").decidedPath == scratch.path("root/cache.tmp"))
    }
}
