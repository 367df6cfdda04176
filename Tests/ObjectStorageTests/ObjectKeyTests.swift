import ObjectStorage
import TestSupport
import Testing

@Suite("Object keys")
struct ObjectKeyTests {
    @Test(
        "A legal key is taken as it is",
        arguments: [
            "a", "config.json", "bundles/ab/0123.tar.zst.age", ".hidden", "...", "..a", "a..", "-",
            "_/-/.x", "UPPER/lower/09", String(repeating: "n", count: 255),
        ])
    func legal(text: String) {
        #expect(ObjectKey(text)?.text == text)
        #expect(ObjectKey(text)?.description == text)
    }

    @Test(
        "A key that could leave its root, or need escaping, is refused",
        arguments: [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a b", "a\u{0}b",
            "a\n",
            "é", "a+b", "a\\b", "a:b", "+tmp", "+tmp/x", String(repeating: "n", count: 256),
            "a/" + String(repeating: "n", count: 256),
        ])
    func illegal(text: String) {
        #expect(ObjectKey(text) == nil)
    }

    @Test("A key has at most 1,024 bytes")
    func length() {
        let component = String(repeating: "c", count: 127)
        let longest = Array(repeating: component, count: 8).joined(separator: "/")
        #expect(ObjectKey(longest + "x") != nil)
        #expect(ObjectKey(longest + "xx") == nil)
    }

    @Test("Keys are ordered by their bytes, a slash being one of them")
    func order() {
        let sorted = ["A", "a", "a-b/x", "a.b", "a/b", "a/b/c", "a0", "ab", "b"]
        var generator = SeededGenerator(seed: 1)
        let keys = sorted.shuffled(using: &generator).map { ObjectKey(validated: $0) }
        #expect(keys.sorted().map(\.text) == sorted)
    }

    @Test("A key is taken apart at its last slash")
    func parts() {
        let key = ObjectKey(validated: "bundles/ab/abc.tar")
        #expect(key.directory == "bundles/ab")
        #expect(key.name == "abc.tar")
        #expect(ObjectKey(validated: "config.json").directory == "")
        #expect(ObjectKey(validated: "config.json").name == "config.json")
    }

    @Test("A prefix is empty or a key with a slash behind it")
    func prefixes() {
        for prefix in ["", "a/", "bundles/ab/"] { #expect(ObjectKey.isDirectoryPrefix(prefix)) }
        for prefix in ["/", "a", "a//", "../", "/a/", "a b/"] {
            #expect(!ObjectKey.isDirectoryPrefix(prefix))
        }
    }

    @Test("A program that puts together an illegal key is stopped")
    func trap() async {
        await #expect(processExitsWith: .failure) {
            _ = ObjectKey(validated: "../etc/passwd")
        }
    }
}
