import CSystem
import Glibc
import SnapshotModel
import Testing

@testable import FileTree

/// What a restore does with the metadata of something that was there before.
@Suite("Correcting metadata")
struct CorrectingMetadataTests {
    private typealias Scratch = TargetScratch

    private static let list = bytes("u::rw-,u:1:r--,g::r--,g:2:rw-,m::rw-,o::---")
    private static let defaultList = bytes("u::rwx,u:1:rwx,g::r-x,m::rwx,o::---")

    /// An entry with all the metadata that this user may set and this place keeps.
    private static func full(_ scratch: Scratch, _ kind: EntryKind, _ name: String) -> Entry {
        var entry = scratch.entry(kind, name)
        entry.mode = kind == .directory ? 0o2751 : 0o640
        if Scratch.keepsAttributes {
            entry.xattrs = [
                ExtendedAttribute(name: bytes("user.a"), value: bytes("value")),
                ExtendedAttribute(name: bytes("user.empty"), value: []),
            ]
        }
        if Scratch.keepsACLs {
            if kind == .file {
                entry.acl = list
                entry.mode = 0o660
            } else {
                entry.defaultACL = defaultList
            }
        }
        if Scratch.keepsFlags { entry.flags = InodeFlags.nodump }
        if Scratch.isRoot {
            entry.uid = 12345
            entry.gid = 54321
        }
        return entry
    }

    /// A file, a directory, a link and a fifo with all their metadata.
    private static func make(_ scratch: Scratch) throws -> [Entry] {
        let file = full(scratch, .file, "file")
        #expect(try scratch.put("file") { $0 = file } == [])
        let directory = full(scratch, .directory, "d")
        try scratch.writer.makeDirectory(bytes("d"), flags: directory.flags)
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("d"), entry: directory) == [])
        var link = scratch.entry(.symlink, "link")
        link.target = bytes("nowhere")
        #expect(try scratch.writer.makeSymlink(bytes("link"), entry: link) == [])
        let fifo = scratch.entry(.fifo, "fifo")
        #expect(try scratch.writer.makeSpecial(bytes("fifo"), entry: fifo) == [])
        return [file, directory, link, fifo]
    }

    private static func changeTime(_ path: String) -> Timestamp? {
        Scratch.status(path).map { Timestamp(seconds: $0.ctime_sec, nanoseconds: $0.ctime_nsec) }
    }

    @Test("What is right already is not set again")
    func right() throws {
        let scratch = try Scratch()
        for entry in try Self.make(scratch) {
            let name = Array(entry.path.dropFirst())
            let path = scratch.inside + String(decoding: entry.path, as: UTF8.self)
            let before = try #require(Self.changeTime(path))
            #expect(try scratch.writer.applyMetadata(name, entry: entry) == [])
            #expect(Self.changeTime(path) == before, "\(path)")
        }
    }

    enum Change: CaseIterable {
        case mode, owner, time, value, attribute, list, defaultList, flag
    }

    /// Alters one thing of a file or directory; false where this user or this place cannot.
    private static func alter(_ change: Change, _ path: String) -> Bool {
        switch change {
        case .mode: return chmod(path, 0o600) == 0
        case .owner: return Scratch.isRoot && chown(path, 1, 1) == 0
        case .time: return csys_lutimensat(AT_FDCWD, path, 1_234_567_890, 5) == 0
        case .value: return Scratch.setAttribute("user.a", [1], of: path) == 0
        case .attribute: return Scratch.setAttribute("user.more", [1], of: path) == 0
        case .list:
            let list = AccessControlList(text: bytes("u::rwx,u:7:rwx,g::---,m::rwx,o::---"))
            return Scratch.setAttribute(
                AccessControlList.accessAttribute, list?.binary ?? [], of: path) == 0
        case .defaultList:
            let list = AccessControlList(text: bytes("u::rwx,u:7:rwx,g::---,m::rwx,o::---"))
            return Scratch.setAttribute(
                AccessControlList.defaultAttribute, list?.binary ?? [], of: path) == 0
        case .flag:
            guard Scratch.keepsFlags else { return false }
            Scratch.clearFlags(of: path)
            return true
        }
    }

    /// All that there is to compare, as text.
    private static func image(_ path: String) -> String {
        let status = Scratch.status(path)
        var parts = [
            "\(status?.mode ?? 0) \(status?.uid ?? 0):\(status?.gid ?? 0)",
            "\(status?.mtime_sec ?? 0).\(status?.mtime_nsec ?? 0)",
            "\((Scratch.flags(of: path) ?? 0) & ~InodeFlags.incidental)",
        ]
        for name in [
            "user.a", "user.empty", "user.more", AccessControlList.accessAttribute,
            AccessControlList.defaultAttribute,
        ] {
            parts.append("\(name)=\(Scratch.attribute(name, of: path).map { "\($0)" } ?? "-")")
        }
        return parts.joined(separator: " ")
    }

    @Test("What differs is set right, whatever it is", arguments: Change.allCases, ["file", "d"])
    func different(change: Change, name: String) throws {
        let scratch = try Scratch()
        let entries = try Self.make(scratch)
        let entry = try #require(entries.first { $0.path == bytes("/" + name) })
        let path = scratch.inside + "/" + name
        let right = Self.image(path)
        // A file has no default list.
        if change == .defaultList, name == "file" { return }
        guard Self.alter(change, path) else { return }
        #expect(Self.image(path) != right)
        #expect(try scratch.writer.applyMetadata(bytes(name), entry: entry) == [])
        #expect(Self.image(path) == right)
    }

    // MARK: Flags that forbid changes

    /// A target with an immutable file in an append-only directory in an immutable one.
    private static func locked() throws -> (
        scratch: Scratch, file: Entry, inner: Entry, outer: Entry
    ) {
        let scratch = try Scratch()
        try scratch.writer.makeDirectory(bytes("outer"))
        try scratch.writer.makeDirectory(bytes("outer/inner"))
        var file = scratch.entry(.file, "outer/inner/file")
        file.size = 3
        file.flags = InodeFlags.immutable
        try scratch.put("outer/inner/file", bytes("abc")) { $0 = file }
        var inner = scratch.entry(.directory, "outer/inner")
        inner.flags = InodeFlags.append
        var outer = scratch.entry(.directory, "outer")
        outer.flags = InodeFlags.immutable
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("outer/inner"), entry: inner) == [])
        #expect(try scratch.writer.applyDirectoryMetadata(bytes("outer"), entry: outer) == [])
        #expect(scratch.writer.applyLockingFlags() == [])
        return (scratch, file, inner, outer)
    }

    private static func unlock(_ scratch: Scratch) {
        for name in ["outer", "outer/inner", "outer/inner/file", "outer/inner/link"] {
            Scratch.clearFlags(of: scratch.inside + "/" + name)
        }
    }

    private static func locks(_ scratch: Scratch) -> [UInt32] {
        ["outer", "outer/inner", "outer/inner/file"].map {
            (Scratch.flags(of: scratch.inside + "/" + $0) ?? 0) & InodeFlags.locking
        }
    }

    private static let allLocked = [InodeFlags.immutable, InodeFlags.append, InodeFlags.immutable]

    @Test(
        "What is immutable and right is left alone",
        .enabled(if: TargetScratch.isRoot && TargetScratch.keepsFlags, "needs root"))
    func immutableAndRight() throws {
        let (scratch, file, inner, outer) = try Self.locked()
        defer { Self.unlock(scratch) }
        for entry in [file, inner, outer] {
            let path = scratch.inside + String(decoding: entry.path, as: UTF8.self)
            let before = Self.changeTime(path)
            let name = Array(entry.path.dropFirst())
            #expect(try scratch.writer.applyMetadata(name, entry: entry) == [])
            #expect(scratch.writer.applyLockingFlags() == [])
            #expect(Self.changeTime(path) == before, "\(path)")
        }
        #expect(Self.locks(scratch) == Self.allLocked)
    }

    @Test(
        "The flags are lifted for a change and set again in the end",
        .enabled(if: TargetScratch.isRoot && TargetScratch.keepsFlags, "needs root"))
    func lifted() throws {
        var (scratch, file, inner, outer) = try Self.locked()
        defer { Self.unlock(scratch) }
        let writer = scratch.writer
        // Metadata.
        file.mode = 0o600
        outer.mtime = Timestamp(seconds: 1_000_000_000)
        #expect(try writer.applyMetadata(bytes("outer/inner/file"), entry: file) == [])
        #expect(try writer.applyMetadata(bytes("outer"), entry: outer) == [])
        #expect(Scratch.status(scratch.inside + "/outer/inner/file")?.mode == 0o100600)
        #expect(Scratch.time(scratch.inside + "/outer") == outer.mtime)
        #expect(writer.applyLockingFlags() == [])
        #expect(Self.locks(scratch) == Self.allLocked)
        // Content, in place and by replacement; names.
        for placement in [TreeWriter.Placement.inPlace, .replacing] {
            #expect(
                try scratch.put("outer/inner/file", bytes("xyz"), placement: placement) {
                    $0 = file
                }
                    == [])
            #expect(Scratch.content(of: scratch.inside + "/outer/inner/file") == bytes("xyz"))
            #expect(try writer.applyDirectoryMetadata(bytes("outer/inner"), entry: inner) == [])
            #expect(writer.applyLockingFlags() == [])
            #expect(Self.locks(scratch) == Self.allLocked)
        }
        try writer.makeHardLink(from: bytes("outer/inner/file"), to: bytes("outer/inner/link"))
        try writer.makeDirectory(bytes("outer/new"))
        #expect(writer.applyLockingFlags() == [])
        // What no entry spoke of has its flags again.
        #expect(Self.locks(scratch) == Self.allLocked)
        #expect(try scratch.target.remove(bytes("outer/inner")) == 3)
        #expect(writer.applyLockingFlags() == [])
        #expect(Scratch.names(in: scratch.inside + "/outer") == ["new"])
        #expect(
            (Scratch.flags(of: scratch.inside + "/outer") ?? 0) & InodeFlags.locking
                == InodeFlags.immutable)
    }

    @Test(
        "A lock that the snapshot does not know is taken off",
        .enabled(if: TargetScratch.isRoot && TargetScratch.keepsFlags, "needs root"))
    func surplus() throws {
        var (scratch, file, _, _) = try Self.locked()
        defer { Self.unlock(scratch) }
        file.flags = 0
        #expect(try scratch.writer.applyMetadata(bytes("outer/inner/file"), entry: file) == [])
        #expect(scratch.writer.applyLockingFlags() == [])
        #expect(Self.locks(scratch) == [InodeFlags.immutable, InodeFlags.append, 0])
    }
}
