import Glibc
import SnapshotModel
import Testing

@testable import FileTree

@Suite("What a person names as a source")
struct SourceRootTests {
    @Test("Paths become absolute and canonical")
    func canonical() throws {
        let scratch = try WalkScratch()
        scratch.file("a/b/c")
        func path(_ words: String) throws -> String {
            let root = try SourceRoot(Array(words.utf8), workingDirectory: scratch.path)
            return String(decoding: root.path.dropFirst(scratch.path.count), as: UTF8.self)
        }
        #expect(try path("a/b") == "/a/b")
        #expect(try path("./a//b/./c") == "/a/b/c")
        #expect(try path("a/b/") == "/a/b")
        #expect(try path("a/b/..") == "/a")
        #expect(try path(".") == "")
        #expect(try path(scratch.text + "/a/../a/b") == "/a/b")
        #expect(try SourceRoot(Array("/".utf8)).path == [0x2F])
        #expect(try SourceRoot(Array("/../..//".utf8)).path == [0x2F])
    }

    @Test("`..` behind a link goes where the kernel goes")
    func parentOfLink() throws {
        let scratch = try WalkScratch()
        scratch.file("real/inner/x")
        scratch.file("real/y")
        scratch.symlink("real/inner", "link")
        #expect(try SourceRoot(scratch.path("link/../y")).path == scratch.path("real/y"))
        // What is left is a link again, and means the directory that it leads to.
        scratch.symlink("real", "outer")
        let outer = try SourceRoot(scratch.path("outer/inner/.."))
        #expect(outer.path == scratch.path("outer") && outer.followsLink)
        // Without it the path stays as it was written.
        #expect(try SourceRoot(scratch.path("link/x")).path == scratch.path("link/x"))
    }

    @Test("A link is kept unless a slash behind it says otherwise")
    func links() throws {
        let scratch = try WalkScratch()
        scratch.file("real/x")
        scratch.symlink("real", "link")
        scratch.symlink("nowhere", "broken")
        let kept = try scratch.root("link")
        #expect(kept.isSymbolicLink && !kept.followsLink)
        for words in ["link/", "link/."] {
            let followed = try scratch.root(words)
            #expect(followed.followsLink && !followed.isSymbolicLink)
            #expect(followed.path == scratch.path("link"))
        }
        #expect(try scratch.root("broken").isSymbolicLink)
    }

    @Test(
        "What is not there is refused",
        arguments: ["missing", "a/missing", "file/", "file/below", "broken/", ""])
    func refused(words: String) throws {
        let scratch = try WalkScratch()
        scratch.file("file")
        scratch.directory("a")
        scratch.symlink("nowhere", "broken")
        #expect(throws: FileTreeError.self) {
            try SourceRoot(words.isEmpty ? [] : scratch.path(words))
        }
    }

    @Test("Roots that lie in others are walked once")
    func overlaps() throws {
        let scratch = try WalkScratch()
        for name in ["a/x", "a/b/y", "a-b/z", "c"] { scratch.file(name) }
        let roots = try ["a/b", "c", "a-b", "a", "a/b/y", "a/"].map { try scratch.root($0) }
        let merged = try SourceRoot.merged(roots)
        #expect(merged.map(\.path) == ["a", "a-b", "c"].map { scratch.path($0) })
    }

    @Test("A root that is reached through a link inside another is not lost")
    func throughLink() throws {
        let scratch = try WalkScratch()
        scratch.file("data/sub/x")
        scratch.file("home/y")
        scratch.symlink("../data", "home/link")
        let roots = [try scratch.root("home"), try scratch.root("home/link/sub")]
        let merged = try SourceRoot.merged(roots)
        #expect(merged.map(\.path) == [scratch.path("data/sub"), scratch.path("home")])
        let followed = try SourceRoot.merged([scratch.root("home"), scratch.root("home/link/")])
        #expect(followed.map(\.path) == [scratch.path("data"), scratch.path("home")])
        let records = try walk(roots)
        #expect(names(records, below: scratch.path).contains("data/sub/x"))
        // The link alone is what the walk of the outer one delivers anyway.
        #expect(
            try SourceRoot.merged([scratch.root("home"), scratch.root("home/link")]).count == 1)
        // Both as what the link is and as what it leads to: the latter says more.
        let both = try SourceRoot.merged([scratch.root("home/link"), scratch.root("home/link/")])
        #expect(both.map(\.followsLink) == [true])
    }
}
