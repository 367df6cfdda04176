import CSystem
import Testing

@testable import FileTree

@Suite("Access control lists")
struct AccessControlListTests {
    private static let full = "u::rwx,u:0:---,u:1000:r-x,g::r-x,g:50:rwx,m::rwx,o::r--"

    @Test(
        "Text and binary form say the same",
        arguments: [full, "u::rw-,g::r--,o::---", "u::---,g:4294967294:--x,g::---,m::--x,o::---"])
    func roundTrip(text: String) throws {
        let list = try #require(AccessControlList(text: Array(text.utf8)))
        let again = try #require(AccessControlList(binary: list.binary))
        #expect(again == list)
        #expect(AccessControlList(text: again.text) == list)
    }

    @Test("The binary form is the kernel's, to the byte")
    func bytes() throws {
        let list = try #require(
            AccessControlList(text: Array("u::rw-,u:1000:r-x,g::r--,m::rwx,o::---".utf8)))
        #expect(
            list.binary == [
                2, 0, 0, 0,
                0x01, 0, 6, 0, 0xFF, 0xFF, 0xFF, 0xFF,
                0x02, 0, 5, 0, 0xE8, 0x03, 0, 0,
                0x04, 0, 4, 0, 0xFF, 0xFF, 0xFF, 0xFF,
                0x10, 0, 7, 0, 0xFF, 0xFF, 0xFF, 0xFF,
                0x20, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
            ])
    }

    @Test("The text has one order")
    func order() throws {
        let list = try #require(
            AccessControlList(
                text: Array("o::r--,m::rwx,g:50:rwx,u:1000:r-x,g::r-x,u:0:---,u::rwx".utf8)))
        #expect(String(decoding: list.text, as: UTF8.self) == Self.full)
    }

    @Test(
        "Text that is no list is refused",
        arguments: [
            "", ",", "u::rwx", "u::rwx,g::r-x", "u::rwx,g::r-x,o::r--,",
            "u::rwx,u::rwx,g::r-x,o::r--",
            "u::rwx,u:5:r--,g::r-x,o::r--", "u::rwx,u:5:r--,u:5:rw-,g::r-x,m::rwx,o::r--",
            "u::rwx,g::r-x,o:5:r--", "u::rwx,g::r-x,m:5:rwx,o::r--", "u::xwr,g::r-x,o::r--",
            "u::rw,g::r-x,o::r--", "u::rwxx,g::r-x,o::r--", "user::rwx,g::r-x,o::r--",
            "u:-1:rwx,u::rwx,g::r-x,m::rwx,o::r--", "u:4294967295:rwx,u::rwx,g::r-x,m::rwx,o::r--",
            "u:99999999999:rwx,u::rwx,g::r-x,m::rwx,o::r--",
            "u:ada:rwx,u::rwx,g::r-x,m::rwx,o::r--",
            "u::rwx:,g::r-x,o::r--", "u:rwx,g::r-x,o::r--", "u::rwx, g::r-x,o::r--",
            "x::rwx,g::r-x,o::r--",
        ])
    func refusedText(text: String) {
        #expect(AccessControlList(text: Array(text.utf8)) == nil)
    }

    @Test("Bytes that are no list are refused")
    func refusedBinary() throws {
        let good = try #require(AccessControlList(text: Array(Self.full.utf8))).binary
        #expect(AccessControlList(binary: []) == nil)
        #expect(AccessControlList(binary: [2, 0, 0, 0]) == nil)
        #expect(AccessControlList(binary: Array(good.dropLast())) == nil)
        #expect(AccessControlList(binary: [3] + good.dropFirst()) == nil)
        var bad = good
        bad[4] = 0x40
        #expect(AccessControlList(binary: bad) == nil)
        bad = good
        bad[6] = 8
        #expect(AccessControlList(binary: bad) == nil)
    }

    @Test("The kernel takes what is made from text, and gives it back")
    func kernel() throws {
        let scratch = try WalkScratch()
        scratch.file("file")
        let list = try #require(AccessControlList(text: Array(Self.full.utf8)))
        let result = scratch.attribute(AccessControlList.accessAttribute, list.binary, of: "file")
        guard result == 0 else {
            skipped("setting an access control list", because: FileTreeError.text(of: -result))
            return
        }
        var buffer = [UInt8](repeating: 0, count: 1000)
        let got = buffer.withUnsafeMutableBytes {
            csys_getxattr_at(
                scratch.handle.descriptor, "file", AccessControlList.accessAttribute,
                $0.baseAddress,
                $0.count)
        }
        #expect(AccessControlList(binary: Array(buffer.prefix(max(got, 0)))) == list)
    }
}
