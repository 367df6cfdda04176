import CSystem
import Glibc
import SnapshotModel
import Synchronization
import TestSupport
import Testing

@testable import FileTree

@Suite("Writing metadata")
struct TreeWriterMetadataTests {
    private typealias Scratch = TargetScratch

    private static let plainACL = bytes("u::rw-,u:1:r--,g::r--,g:2:rw-,m::rw-,o::---")
    private static let defaultACL = bytes("u::rwx,u:1:rwx,g::r-x,m::rwx,o::---")

    private static func text(_ attribute: String, of path: String) -> [UInt8]? {
        Scratch.attribute(attribute, of: path).flatMap { AccessControlList(binary: $0)?.text }
    }

    // MARK: Times and modes

    @Test(
        "Times are kept to the nanosecond, before 1970 too",
        arguments: [
            Timestamp(seconds: 1_700_000_000, nanoseconds: 1), Timestamp(seconds: 0),
            Timestamp(seconds: -2, nanoseconds: 500_000_000),
            Timestamp(seconds: 4_200_000_000, nanoseconds: 999_999_999),
        ])
    func times(time: Timestamp) throws {
        let scratch = try Scratch()
        try scratch.put("file", bytes("x")) { $0.mtime = time }
        var link = scratch.entry(.symlink, "link")
        link.mtime = time
        link.target = bytes("nowhere")
        #expect(try scratch.writer.makeSymlink(bytes("link"), entry: link) == [])
        var fifo = scratch.entry(.fifo, "fifo")
        fifo.mtime = time
        #expect(try scratch.writer.makeSpecial(bytes("fifo"), entry: fifo) == [])
        for name in ["file", "link", "fifo"] {
            #expect(Scratch.time(scratch.inside + "/" + name) == time, "\(name)")
        }
    }

    @Test(
        "Permissions do not depend on the umask",
        arguments: [0o777, 0o666, 0o400, 0, 0o1644] as [UInt32])
    func modes(mode: UInt32) throws {
        let scratch = try Scratch()
        #expect(try scratch.put("file", bytes("x")) { $0.mode = mode } == [])
        var fifo = scratch.entry(.fifo, "fifo")
        fifo.mode = mode
        #expect(try scratch.writer.makeSpecial(bytes("fifo"), entry: fifo) == [])
        try scratch.writer.makeDirectory(bytes("d"))
        var directory = scratch.entry(.directory, "d")
        directory.mode = mode
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: directory) == [])
        for name in ["file", "fifo", "d"] {
            #expect(
                Scratch.status(scratch.inside + "/" + name).map { $0.mode & 0o7777 } == mode,
                "\(name)")
        }
    }

    @Test("A file is closed to others until it is finished")
    func closedWhileWritten() throws {
        let scratch = try Scratch()
        var entry = scratch.entry(.file, "file")
        entry.mode = 0o4777
        let file = try scratch.writer.createFile(bytes("file"), entry: entry)
        let name = try #require(Scratch.names(in: scratch.inside).first)
        #expect(Scratch.status(scratch.inside + "/" + name).map { $0.mode & 0o7777 } == 0o600)
        #expect(try file.finish(entry) == [])
        #expect(Scratch.status(scratch.inside + "/file").map { $0.mode & 0o7777 } == 0o4777)
    }

    @Test("A directory gets its time and mode after its contents")
    func directories() throws {
        let scratch = try Scratch()
        try scratch.writer.makeDirectory(bytes("d"))
        #expect(Scratch.status(scratch.inside + "/d").map { $0.mode & 0o7777 } == 0o700)
        try scratch.put("d/file", bytes("x"))
        var entry = scratch.entry(.directory, "d")
        entry.mode = 0o2555
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: entry) == [])
        let status = try #require(Scratch.status(scratch.inside + "/d"))
        #expect(status.mode & 0o7777 == 0o2555)
        #expect(Scratch.time(scratch.inside + "/d") == entry.mtime)
        // Whoever restores over it once more can write in it.
        #expect(try !scratch.writer.makeDirectory(bytes("d")))
        try scratch.put("d/second")
        // The target itself is a directory like the others.
        entry.mode = 0o751
        #expect(try scratch.writer.applyDirectoryMetadata([], entry: entry) == [])
        #expect(Scratch.status(scratch.inside).map { $0.mode & 0o7777 } == 0o751)
    }

    // MARK: Extended attributes, ACLs, flags

    @Test(
        "Extended attributes are set, and the refused one is named",
        .enabled(if: TargetScratch.keepsAttributes, "/tmp keeps no extended attributes"))
    func attributes() throws {
        let scratch = try Scratch()
        let value = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
        let problems = try scratch.put("file", bytes("x")) {
            $0.mode = 0o444
            $0.xattrs = [
                ExtendedAttribute(name: bytes("nonsense.a"), value: [1]),
                ExtendedAttribute(name: bytes("user.a"), value: value),
                ExtendedAttribute(name: bytes("user.b\0c"), value: [1]),
                ExtendedAttribute(name: bytes("user.empty"), value: []),
            ]
        }
        #expect(
            problems.map(\.aspect) == [
                .extendedAttribute(bytes("nonsense.a")), .extendedAttribute(bytes("user.b\0c")),
            ])
        #expect(problems.first?.errno == EOPNOTSUPP)
        #expect(
            problems.first?.description
                == "/file: cannot set the extended attribute nonsense.a: Operation not supported")
        #expect(
            problems.first?.message
                == "cannot set the extended attribute nonsense.a: Operation not supported")
        let path = scratch.inside + "/file"
        #expect(Scratch.attribute("user.a", of: path) == value)
        #expect(Scratch.attribute("user.empty", of: path) == [])
        #expect(Scratch.attribute("user.b", of: path) == nil)
        #expect(Scratch.status(path).map { $0.mode & 0o7777 } == 0o444)
        #expect(Scratch.time(path) == scratch.entry(.file, "file").mtime)
    }

    @Test(
        "ACLs are set, and a malformed one is named",
        .enabled(if: TargetScratch.keepsACLs, "/tmp keeps no ACLs"))
    func accessControlLists() throws {
        let scratch = try Scratch()
        let problems = try scratch.put("file", bytes("x")) {
            $0.mode = 0o660
            $0.acl = Self.plainACL
        }
        #expect(problems == [])
        let path = scratch.inside + "/file"
        #expect(Self.text(AccessControlList.accessAttribute, of: path) == Self.plainACL)
        #expect(Scratch.status(path).map { $0.mode & 0o7777 } == 0o660)

        let malformed = try scratch.put("second") { $0.acl = bytes("u::rw-") }
        #expect(malformed.map(\.aspect) == [.accessControlList])

        // A file that is kept loses a list that the entry lacks.
        #expect(
            try scratch.writer.applyMetadata(bytes("file"), entry: scratch.entry(.file, "file"))
                == [])
        #expect(Self.text(AccessControlList.accessAttribute, of: path) == nil)
        #expect(Scratch.status(path).map { $0.mode & 0o7777 } == 0o644)
    }

    @Test(
        "A default ACL is set in the end, and passes to nothing restored",
        .enabled(if: TargetScratch.keepsACLs, "/tmp keeps no ACLs"))
    func defaultAccessControlList() throws {
        let scratch = try Scratch()
        // The target was there before the restore and has a default ACL.
        let binary = try #require(AccessControlList(text: Self.defaultACL)).binary
        let attribute = AccessControlList.defaultAttribute
        #expect(Scratch.setAttribute(attribute, binary, of: scratch.inside) == 0)
        let target = try TargetDirectory.open(path: bytes(scratch.inside), create: false)
        let writer = TreeWriter(target: target)

        let made = try writer.makeDirectory(bytes("d"))
        #expect(made)
        for name in ["file", "d/file"] {
            var entry = scratch.entry(.file, name)
            entry.mode = 0o640
            let file = try writer.createFile(bytes(name), entry: entry)
            #expect(try file.finish(entry) == [])
        }
        #expect(try writer.makeSpecial(bytes("fifo"), entry: scratch.entry(.fifo, "fifo")) == [])
        var withList = scratch.entry(.file, "own")
        withList.acl = Self.plainACL
        withList.mode = 0o660
        let own = try writer.createFile(bytes("own"), entry: withList)
        #expect(try own.finish(withList) == [])
        var directory = scratch.entry(.directory, "d")
        directory.defaultACL = Self.defaultACL
        #expect(try writer.applyDirectoryMetadata(bytes("d"), entry: directory) == [])

        let access = AccessControlList.accessAttribute
        for name in ["file", "d", "d/file", "fifo"] {
            #expect(Self.text(access, of: scratch.inside + "/" + name) == nil, "\(name)")
        }
        #expect(Scratch.status(scratch.inside + "/file").map { $0.mode & 0o7777 } == 0o640)
        #expect(Self.text(access, of: scratch.inside + "/own") == Self.plainACL)
        #expect(Self.text(attribute, of: scratch.inside + "/d") == Self.defaultACL)
        // Even a file that comes late does not inherit it.
        let late = scratch.entry(.file, "d/late")
        let file = try writer.createFile(bytes("d/late"), entry: late)
        #expect(try file.finish(late) == [])
        #expect(Self.text(access, of: scratch.inside + "/d/late") == nil)

        // The target's own goes where the entry has none.
        #expect(try writer.applyDirectoryMetadata([], entry: scratch.entry(.directory, "")) == [])
        #expect(Self.text(attribute, of: scratch.inside) == nil)
    }

    @Test(
        "Flags are set, inherited ones taken off, and those that the file system lacks are named",
        .enabled(if: TargetScratch.keepsFlags, "/tmp keeps no inode flags"))
    func flags() throws {
        let scratch = try Scratch()
        let noatime: UInt32 = 0x80
        try scratch.put("file", bytes("x")) { $0.flags = InodeFlags.nodump | noatime }
        let file = try #require(Scratch.flags(of: scratch.inside + "/file"))
        #expect(file & (InodeFlags.nodump | noatime) == InodeFlags.nodump | noatime)

        try scratch.writer.makeDirectory(bytes("d"), flags: InodeFlags.nodump)
        var entry = scratch.entry(.directory, "d")
        entry.flags = InodeFlags.nodump
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: entry) == [])
        #expect(
            Scratch.flags(of: scratch.inside + "/d").map { $0 & InodeFlags.nodump != 0 } == true)
        try scratch.put("d/plain", bytes("x"))
        #expect(
            Scratch.flags(of: scratch.inside + "/d/plain").map { $0 & ~InodeFlags.incidental } == 0)

        // The kernel's own bits cannot be set by anybody; the rest of the entry's flags are.
        let problems = try scratch.put("odd", bytes("x")) {
            $0.flags = InodeFlags.nodump | 0x0100_0000
        }
        #expect(problems.count <= 1)
        #expect(
            Scratch.flags(of: scratch.inside + "/odd").map { $0 & InodeFlags.nodump != 0 } == true)
    }

    @Test(
        "Immutable and append-only come last, so that links and contents can be made",
        .enabled(if: TargetScratch.isRoot && TargetScratch.keepsFlags, "needs root"))
    func lockingFlags() throws {
        let scratch = try Scratch()
        defer {
            for name in ["", "/file", "/d", "/d/file", "/link"] {
                Scratch.clearFlags(of: scratch.inside + name)
            }
        }
        try scratch.writer.makeDirectory(bytes("d"))
        try scratch.put("file", bytes("x")) { $0.flags = InodeFlags.immutable | InodeFlags.nodump }
        try scratch.put("d/file", bytes("x")) { $0.flags = InodeFlags.append }
        var entry = scratch.entry(.directory, "d")
        entry.flags = InodeFlags.immutable
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: entry) == [])
        try scratch.writer.makeHardLink(from: bytes("file"), to: bytes("link"))
        try scratch.put("d/late")
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: entry) == [])
        let before = Scratch.flags(of: scratch.inside + "/file") ?? 0
        #expect(before & InodeFlags.immutable == 0)
        #expect(before & InodeFlags.nodump != 0)

        #expect(scratch.writer.applyLockingFlags() == [])
        #expect(scratch.writer.applyLockingFlags() == [])
        let file = Scratch.flags(of: scratch.inside + "/file") ?? 0
        #expect(file & InodeFlags.immutable != 0)
        #expect(file & InodeFlags.nodump != 0)
        #expect((Scratch.flags(of: scratch.inside + "/d/file") ?? 0) & InodeFlags.append != 0)
        #expect((Scratch.flags(of: scratch.inside + "/d") ?? 0) & InodeFlags.immutable != 0)
        #expect(Scratch.status(scratch.inside + "/link")?.links == 2)
        #expect(Scratch.time(scratch.inside + "/d") == entry.mtime)
        #expect(Scratch.time(scratch.inside + "/file") == entry.mtime)
        #expect(open(scratch.inside + "/d/no", O_CREAT | O_WRONLY, 0o600) == -1)
    }

    // MARK: Owners

    @Test(
        "Owners are set by number where no name says otherwise",
        .enabled(if: TargetScratch.isRoot, "needs root"))
    func ownersByNumber() throws {
        let scratch = try Scratch()
        func assign(_ entry: inout Entry) {
            entry.uid = 54_321
            entry.gid = 12_345
            entry.mode = entry.kind == .file ? 0o6755 : 0o755
        }
        #expect(try scratch.put("file", bytes("x"), change: assign) == [])
        var link = scratch.entry(.symlink, "link")
        assign(&link)
        link.target = bytes("file")
        #expect(try scratch.writer.makeSymlink(bytes("link"), entry: link) == [])
        var device = scratch.entry(.characterDevice, "null")
        assign(&device)
        device.deviceMajor = 1
        device.deviceMinor = 3
        #expect(try scratch.writer.makeSpecial(bytes("null"), entry: device) == [])
        var block = scratch.entry(.blockDevice, "block")
        assign(&block)
        block.deviceMajor = 700
        block.deviceMinor = 70_000
        #expect(try scratch.writer.makeSpecial(bytes("block"), entry: block) == [])
        var socket = scratch.entry(.socket, "socket")
        assign(&socket)
        #expect(try scratch.writer.makeSpecial(bytes("socket"), entry: socket) == [])
        try scratch.writer.makeDirectory(bytes("d"))
        var directory = scratch.entry(.directory, "d")
        assign(&directory)
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: directory) == [])

        for name in ["file", "link", "null", "block", "socket", "d"] {
            let status = try #require(Scratch.status(scratch.inside + "/" + name))
            #expect(status.uid == 54_321, "\(name)")
            #expect(status.gid == 12_345, "\(name)")
        }
        #expect(Scratch.status(scratch.inside + "/file").map { $0.mode & 0o7777 } == 0o6755)
        let null = try #require(Scratch.status(scratch.inside + "/null"))
        #expect(EntryKind(mode: null.mode) == .characterDevice)
        #expect([null.rdev_major, null.rdev_minor] == [1, 3])
        let disk = try #require(Scratch.status(scratch.inside + "/block"))
        #expect(EntryKind(mode: disk.mode) == .blockDevice)
        #expect([disk.rdev_major, disk.rdev_minor] == [700, 70_000])
    }

    @Test(
        "A name that this host knows decides, unless numbers are asked for",
        .enabled(if: TargetScratch.isRoot, "needs root"),
        arguments: [TargetOwnership.names, .numbers, .none])
    func ownersByName(ownership: TargetOwnership) throws {
        let scratch = try Scratch(ownership: ownership)
        let daemon = try #require(getpwnam("daemon")).pointee.pw_uid
        let group = try #require(getgrnam("daemon")).pointee.gr_gid
        #expect(
            try scratch.put("known") {
                $0.uid = 54_321
                $0.gid = 12_345
                $0.user = bytes("daemon")
                $0.group = bytes("daemon")
            } == [])
        #expect(
            try scratch.put("unknown") {
                $0.uid = 54_321
                $0.gid = 12_345
                $0.user = bytes("no such user here")
                $0.group = bytes("no such group here")
            } == [])
        let known = try #require(Scratch.status(scratch.inside + "/known"))
        let unknown = try #require(Scratch.status(scratch.inside + "/unknown"))
        switch ownership {
        case .names:
            #expect([known.uid, known.gid] == [daemon, group])
            #expect([unknown.uid, unknown.gid] == [54_321, 12_345])
        case .numbers:
            #expect([known.uid, known.gid] == [54_321, 12_345])
            #expect([unknown.uid, unknown.gid] == [54_321, 12_345])
        case .none:
            #expect([known.uid, known.gid] == [geteuid(), getegid()])
            #expect([unknown.uid, unknown.gid] == [geteuid(), getegid()])
        }
    }

    @Test("Without owners, a setuid bit does not come with another owner's file")
    func setIDWithoutOwners() throws {
        let scratch = try Scratch(ownership: .none)
        let problems = try scratch.put("file", bytes("x")) {
            $0.uid = 54_321
            $0.mode = 0o4755
        }
        #expect(problems.map(\.aspect) == [.setID])
        #expect(Scratch.status(scratch.inside + "/file").map { $0.mode & 0o7777 } == 0o755)
        #expect(try scratch.put("own", bytes("x")) { $0.mode = 0o4755 } == [])
        #expect(Scratch.status(scratch.inside + "/own").map { $0.mode & 0o7777 } == 0o4755)
    }

    @Test(
        "In a setgid directory, a file still gets the entry's group",
        .enabled(if: TargetScratch.isRoot, "needs root"))
    func setGIDDirectory() throws {
        let scratch = try Scratch()
        mkdir(scratch.inside + "/shared", 0o755)
        chown(scratch.inside + "/shared", 0, 12_345)
        chmod(scratch.inside + "/shared", 0o2775)
        for name in ["shared/1", "shared/2"] { try scratch.put(name, bytes("x")) }
        try scratch.put("shared/3", bytes("x")) { $0.gid = 12_345 }
        #expect(Scratch.status(scratch.inside + "/shared/1")?.gid == getegid())
        #expect(Scratch.status(scratch.inside + "/shared/2")?.gid == getegid())
        #expect(Scratch.status(scratch.inside + "/shared/3")?.gid == 12_345)
    }

    @Test(
        "Capabilities survive the change of owner, and go where the entry has none",
        .enabled(if: TargetScratch.isRoot && TargetScratch.keepsAttributes, "needs root"))
    func capabilities() throws {
        let scratch = try Scratch()
        // Version 2, effective; permitted: cap_net_bind_service (10).
        let value: [UInt8] = [1, 0, 0, 2, 0, 4, 0, 0] + [UInt8](repeating: 0, count: 12)
        let name = "security.capability"
        #expect(
            try scratch.put("file", bytes("x")) {
                $0.uid = 54_321
                $0.xattrs = [ExtendedAttribute(name: bytes(name), value: value)]
            } == [])
        #expect(Scratch.attribute(name, of: scratch.inside + "/file") == value)
        var plain = scratch.entry(.file, "file")
        plain.uid = 54_321
        #expect(try scratch.writer.applyMetadata(bytes("file"), entry: plain) == [])
        #expect(Scratch.attribute(name, of: scratch.inside + "/file") == nil)
    }

    @Test("An ordinary user is asked once for what cannot be given away")
    func ordinaryUser() {
        let owners = TargetOwners(.numbers, user: 1000)
        var calls = 0
        func attempt(_ uid: UInt32, _ gid: UInt32) -> TargetOwners.Outcome {
            owners.apply(uid: uid, gid: gid, current: (1000, 1000)) { user, group in
                calls += 1
                // A member of group 50.
                return user == .max && group == 50 ? 0 : -EPERM
            }
        }
        let first = attempt(0, 0)
        #expect(calls == 2)
        #expect(!first.userIsRight && !first.groupIsRight && first.errno == 0)
        _ = attempt(0, 0)
        #expect(calls == 2)
        let member = attempt(0, 50)
        #expect(calls == 3)
        #expect(!member.userIsRight && member.groupIsRight)
        let own = attempt(1000, 1000)
        #expect(calls == 3)
        #expect(own.userIsRight && own.groupIsRight)
    }

    @Test("An ordinary user's restore keeps everything but owners, setuid bits and devices")
    func asOrdinaryUser() async {
        await #expect(processExitsWith: .success) {
            // To root nothing is refused: there the claim is tried by a process that gives its
            // rights up.
            try #require(OrdinaryUser.become())
            try TreeWriterMetadataTests.restoreAsOrdinaryUser()
        }
    }

    private static func restoreAsOrdinaryUser() throws {
        let scratch = try Scratch()
        let problems = try scratch.put("file", bytes("x")) {
            $0.uid = 0
            $0.gid = 0
            $0.mode = 0o4755
        }
        #expect(problems.map(\.aspect) == [.ownerDenied(uid: 0, gid: 0), .setID])
        let second = try scratch.put("second", bytes("x")) { $0.uid = 0 }
        #expect(second.map(\.aspect) == [.ownerDenied(uid: 0, gid: getegid())])
        #expect(Scratch.status(scratch.inside + "/file").map { $0.mode & 0o7777 } == 0o755)
        // Not 0:0, which anybody may make.
        var null = scratch.entry(.characterDevice, "null")
        null.deviceMajor = 1
        null.deviceMinor = 3
        let device = try scratch.writer.makeSpecial(bytes("null"), entry: null)
        #expect(device.map(\.aspect) == [.specialFile])
        #expect(Scratch.status(scratch.inside + "/null") == nil)
        // A directory and a file that their owner may not write can be restored over.
        try scratch.writer.makeDirectory(bytes("d"))
        try scratch.put("d/file", bytes("x")) { $0.mode = 0o400 }
        var entry = scratch.entry(.directory, "d")
        entry.mode = 0o500
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: entry) == [])
        #expect(try !scratch.writer.makeDirectory(bytes("d")))
        try scratch.put("d/second")
        let over = try scratch.put("d/file", bytes("y"), placement: .inPlace) {
            $0.mode = 0o400
            $0.xattrs = [ExtendedAttribute(name: bytes("user.a"), value: [1])]
        }
        #expect(over == [])
        #expect(Scratch.content(of: scratch.inside + "/d/file") == bytes("y"))
        // And removed.
        entry.mode = 0
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: entry) == [])
        #expect(try scratch.target.remove(bytes("d")) == 3)
    }

    // MARK: Symbolic links

    @Test("A symbolic link keeps what it points to, whatever that is")
    func symlinks() throws {
        let scratch = try Scratch()
        let targets = [
            bytes("../../../etc/passwd"), [0xff, 0xfe], [UInt8](repeating: 0x61, count: 4000),
        ]
        for (number, link) in targets.enumerated() {
            var entry = scratch.entry(.symlink, "l\(number)")
            entry.target = link
            #expect(try scratch.writer.makeSymlink(bytes("l\(number)"), entry: entry) == [])
            #expect(try scratch.target.compareExisting(bytes("l\(number)"), entry: entry) == .same)
        }
        var entry = scratch.entry(.symlink, "bad")
        entry.target = bytes("a\0b")
        #expect(
            thrownKind { _ = try scratch.writer.makeSymlink(bytes("bad"), entry: entry) }
                == .malformed)
        #expect(Scratch.names(in: scratch.inside) == ["l0", "l1", "l2"])
    }
}
