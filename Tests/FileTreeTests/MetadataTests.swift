import CSystem
import Glibc
import SnapshotModel
import Testing

@testable import FileTree

@Suite("What is known of a file beyond its status")
struct MetadataTests {
    private func entry(
        _ name: String, in scratch: WalkScratch, byDescriptor: Bool = false
    ) throws -> (entry: Entry, problems: [MetadataProblem]) {
        let status = try scratch.handle.status(of: name)
        var entry = Entry(
            path: name.withCString { scratch.handle.path(of: $0) },
            kind: try #require(status.kind), status: status)
        let problems =
            byDescriptor
            ? scratch.withDescriptor(Array(name.utf8)) {
                FileMetadata.complete(
                    &entry, status: status, descriptor: $0, name: name, in: scratch.handle)
            } : FileMetadata.complete(&entry, status: status, name: name, in: scratch.handle)
        return (entry, problems)
    }

    @Test("Plain files, by name and by descriptor alike")
    func plain() throws {
        let scratch = try WalkScratch()
        scratch.file("file", "content")
        let (byName, problems) = try entry("file", in: scratch)
        #expect(problems.isEmpty)
        #expect(try entry("file", in: scratch, byDescriptor: true).entry == byName)
        #expect(byName.size == 7)
        #expect(byName.mode == 0o644)
        #expect(byName.links == 1)
        #expect(byName.xattrs.isEmpty && byName.acl == nil && byName.flags == 0)
        #expect(byName.user == AccountNames.user(getuid()))
        if isRoot {
            #expect(byName.user == Array("root".utf8))
            #expect(byName.group == Array("root".utf8))
        }
        if let birth = byName.btime {
            #expect(birth <= byName.ctime)
            #expect(birth.seconds > 1_500_000_000)
        } else {
            skipped("the birth time", because: "the file system does not tell")
        }
    }

    @Test("Who has no name has none")
    func noName() {
        #expect(AccountNames.user(3_999_999_999) == nil)
        #expect(AccountNames.user(3_999_999_999) == nil)
        #expect(AccountNames.group(3_999_999_999) == nil)
        #expect(AccountNames.user(0) == Array("root".utf8))
        #expect(AccountNames.group(0) == Array("root".utf8))
    }

    @Test("Permission bits and links")
    func modes() throws {
        let scratch = try WalkScratch()
        scratch.file("setuid")
        scratch.directory("sticky")
        let place = scratch.handle.descriptor
        _ = csys_fchmodat(place, "setuid", 0o6755)
        _ = csys_fchmodat(place, "sticky", 0o1777)
        _ = csys_linkat(place, "setuid", place, "second")
        #expect(try entry("setuid", in: scratch).entry.mode == 0o6755)
        #expect(try entry("sticky", in: scratch).entry.mode == 0o1777)
        #expect(try entry("sticky", in: scratch).entry.links == 1)
        let first = try entry("setuid", in: scratch).entry
        let second = try entry("second", in: scratch).entry
        #expect(first.links == 2 && second.links == 2 && first.inode == second.inode)
    }

    @Test("Targets of links, as long as they get", arguments: [1, 126, 127, 128, 129, 4095])
    func targets(length: Int) throws {
        let scratch = try WalkScratch(below: "/tmp")
        let target = String(repeating: "t", count: length)
        scratch.symlink(target, "link")
        let (entry, problems) = try entry("link", in: scratch)
        #expect(problems.isEmpty)
        #expect(entry.target == Array(target.utf8))
        #expect(entry.size == 0)
    }

    @Test("Special files")
    func special() throws {
        let scratch = try WalkScratch()
        let place = scratch.handle.descriptor
        _ = csys_mknodat(place, "pipe", 0o010600, 0, 0)
        _ = csys_mknodat(place, "socket", 0o140600, 0, 0)
        for (name, kind) in [("pipe", EntryKind.fifo), ("socket", .socket)] {
            let (entry, problems) = try entry(name, in: scratch)
            #expect(entry.kind == kind)
            #expect(problems.isEmpty)
        }
        guard csys_mknodat(place, "null", 0o020666, 1, 3) == 0,
            csys_mknodat(place, "disk", 0o060600, 259, 70_000) == 0
        else {
            skipped("device files", because: "this user may not make them")
            return
        }
        let null = try entry("null", in: scratch).entry
        #expect(null.kind == .characterDevice && null.deviceMajor == 1 && null.deviceMinor == 3)
        let disk = try entry("disk", in: scratch).entry
        #expect(disk.kind == .blockDevice && disk.deviceMajor == 259 && disk.deviceMinor == 70_000)
    }

    @Test("Extended attributes, sorted, of every size")
    func attributes() throws {
        let scratch = try WalkScratch(below: quickPlace)
        scratch.file("file")
        scratch.directory("directory")
        let large = [UInt8](repeating: 0xA5, count: 3000)
        for name in ["file", "directory"] {
            guard scratch.attribute("user.b", [1, 0, 2], of: name) == 0 else {
                skipped("user attributes", because: "the file system has none")
                return
            }
            #expect(scratch.attribute("user.empty", [], of: name) == 0)
            #expect(scratch.attribute("user.a\u{FF}", large, of: name) == 0)
            for index in 0..<60 {
                #expect(
                    scratch.attribute(
                        "user.many-\(index)-\(String(repeating: "x", count: 20))", [7], of: name)
                        == 0)
            }
            let (entry, problems) = try entry(name, in: scratch)
            #expect(problems.isEmpty)
            #expect(entry.xattrs.count == 63)
            let names = entry.xattrs.map(\.name)
            #expect(names == names.sorted { $0.lexicographicallyPrecedes($1) })
            func value(_ name: String) -> [UInt8]? {
                entry.xattrs.first { $0.name == Array(name.utf8) }?.value
            }
            #expect(value("user.b") == [1, 0, 2])
            #expect(value("user.empty") == [])
            #expect(value("user.a\u{FF}") == large)
        }
    }

    @Test("Capabilities and trusted attributes, also of links")
    func privileged() throws {
        let scratch = try WalkScratch()
        scratch.file("tool")
        scratch.symlink("tool", "link")
        // cap_net_raw, permitted and effective, version 2.
        let capability: [UInt8] = [1, 0, 0, 2, 0, 0x20, 0, 0] + [UInt8](repeating: 0, count: 12)
        guard scratch.attribute("security.capability", capability, of: "tool") == 0,
            scratch.attribute("trusted.note", [1], of: "tool") == 0,
            scratch.attribute("trusted.note", [2], of: "link") == 0
        else {
            skipped("capabilities", because: "this user may not set them")
            return
        }
        let tool = try entry("tool", in: scratch)
        #expect(tool.problems.isEmpty)
        #expect(
            tool.entry.xattrs == [
                ExtendedAttribute(name: Array("security.capability".utf8), value: capability),
                ExtendedAttribute(name: Array("trusted.note".utf8), value: [1]),
            ])
        #expect(try entry("link", in: scratch).entry.xattrs.map(\.value) == [[2]])
    }

    @Test("Access control lists stand by themselves")
    func accessControl() throws {
        let scratch = try WalkScratch()
        scratch.directory("place")
        let access = Array("u::rwx,u:1000:r-x,g::r-x,m::r-x,o::---".utf8)
        let inherited = Array("u::rwx,g::r-x,g:50:rwx,m::rwx,o::r--".utf8)
        let accessBytes = try #require(AccessControlList(text: access)).binary
        let inheritedBytes = try #require(AccessControlList(text: inherited)).binary
        guard scratch.attribute(AccessControlList.accessAttribute, accessBytes, of: "place") == 0,
            scratch.attribute(AccessControlList.defaultAttribute, inheritedBytes, of: "place") == 0
        else {
            skipped("access control lists", because: "the file system has none")
            return
        }
        let (entry, problems) = try entry("place", in: scratch)
        #expect(problems.isEmpty)
        #expect(entry.acl == access)
        #expect(entry.defaultACL == inherited)
        #expect(entry.xattrs.isEmpty)
    }

    @Test("Inode flags, without those that tell how the disk stores a file")
    func flags() throws {
        let scratch = try WalkScratch()
        let wanted: [(String, UInt32)] = [
            ("nodump", InodeFlags.nodump), ("noatime", 0x80), ("append", InodeFlags.append),
            ("immutable", InodeFlags.immutable),
        ]
        scratch.directory("directory")
        for (name, flag) in wanted {
            scratch.file(name, "content")
            guard scratch.add(flags: flag, to: name) else {
                skipped("the flag \(name)", because: "the file system or this user cannot set it")
                continue
            }
            let (entry, problems) = try entry(name, in: scratch)
            scratch.remove(flags: flag, from: name)
            #expect(problems.isEmpty)
            #expect(entry.flags == flag)
        }
        if scratch.add(flags: 0x40, to: "directory") {
            #expect(try entry("directory", in: scratch).entry.flags == 0x40)
        }
        // tmpfs, sockets and links have other sets or none; nothing of it is a problem.
        let other = try WalkScratch(below: quickPlace)
        other.file("file")
        #expect(try entry("file", in: other).problems.isEmpty)
    }

    @Test("A file that was exchanged is not described as the one that was seen")
    func exchanged() throws {
        let scratch = try WalkScratch()
        scratch.file("file")
        let status = try scratch.handle.status(of: "file")
        // A link keeps the old inode busy, so that the new file cannot have it.
        _ = csys_linkat(scratch.handle.descriptor, "file", scratch.handle.descriptor, "old")
        _ = csys_unlinkat(scratch.handle.descriptor, "file", 0)
        scratch.file("file")
        var entry = Entry(path: scratch.path("file"), kind: .file, status: status)
        let problems = FileMetadata.complete(
            &entry, status: status, name: "file", in: scratch.handle)
        #expect(problems.count == 1)
    }

    @Test("The kernel's table of mounts is read as it is written")
    func mounts() {
        let text = """
            36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
            40 35 0:52 / /a\\040b\\134 rw - fuse.sshfs me@host:/x\\011y rw
            41 35 0:53 / / rw shared:2 master:3 - btrfs /dev/none rw
            42 35 8:1 / /home rw - ext4 /dev/sda1 rw
            broken line
            """
        let table = FileSystemTable(
            mountinfo: Array(text.utf8), uuids: [8 << 32 | 1: Array("1234-ABCD".utf8)])
        let old = table.description(device: 98 << 32, path: [0x2F])
        #expect(
            old
                == FileSystemDescription(
                    type: Array("ext3".utf8), source: Array("/dev/root".utf8), uuid: nil))
        #expect(old.keepsInodeNumbers)
        let remote = table.description(device: 52, path: [0x2F])
        #expect(remote.source == Array("me@host:/x\ty".utf8))
        #expect(!remote.keepsInodeNumbers)
        // No number of the table: the mount point above the path decides.
        #expect(
            table.description(device: 999, path: Array("/var/x".utf8)).type == Array("btrfs".utf8))
        #expect(
            table.description(device: 999, path: Array("/a b\\/x".utf8)).type
                == Array("fuse.sshfs".utf8))
        #expect(
            table.description(device: 8 << 32 | 1, path: [0x2F]).uuid == Array("1234-ABCD".utf8))
        let empty = FileSystemTable(mountinfo: [], uuids: [:])
        #expect(empty.description(device: 1, path: [0x2F]).type == Array("unknown".utf8))
    }

    @Test("Sentences about errors show every byte and steer no terminal")
    func sentences() {
        let error = FileTreeError.system(
            -EACCES, "openat", "open", path: [0x2F, 0x61, 0x0A, 0xFF, 0xC3, 0xA9])
        #expect(error.description == "cannot open /a\\x0a\\xffé: Permission denied (openat)")
        #expect(error.kind == .denied)
        #expect(error.message(after: error.path) == "cannot open it: Permission denied (openat)")
        #expect(error.message(after: [0x2F]) == error.description)
    }
}
