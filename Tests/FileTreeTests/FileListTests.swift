import FileTree
import Testing

@Suite("Lists of files")
struct FileListTests {
    private func strings(_ text: String, _ separator: FileList.Separator = .automatic) -> [String] {
        FileList.paths(in: Array(text.utf8), separatedBy: separator).map {
            String(decoding: $0, as: UTF8.self)
        }
    }

    @Test("Lines are paths as they stand, in their order, the last with or without its end")
    func lines() {
        #expect(strings("/b\n/a b \n#c\n\n/d\r\n/b") == ["/b", "/a b ", "#c", "/d\r", "/b"])
        #expect(strings("/a\n") == ["/a"])
        #expect(strings("") == [])
        #expect(strings("\n\n") == [])
    }

    @Test("A list that holds a NUL is separated by NUL, and names may hold line feeds")
    func nul() {
        #expect(strings("/a\nb\0/c\0") == ["/a\nb", "/c"])
        #expect(strings("/a\n\0") == ["/a\n"])
    }

    @Test("A separator that was asked for is the only one")
    func explicit() {
        #expect(strings("/a\n/b", .nul) == ["/a\n/b"])
        #expect(strings("/a\0\n/b", .lineFeed) == ["/a\0", "/b"])
    }

    @Test("Bytes that are not UTF-8 pass through")
    func bytes() {
        #expect(
            FileList.paths(in: [0x2f, 0xff, 0x0a, 0x2f, 0x80]) == [[0x2f, 0xff], [0x2f, 0x80]])
    }
}
