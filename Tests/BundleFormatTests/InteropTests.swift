import AgeEncryption
import BundleFormat
import Foundation
import SnapshotModel
import Testing

/// What anybody finds in a bundle who has never heard of this program.
@Suite("Bundles in the hands of other tools")
struct InteropTests {
    struct Want {
        var member: Member
        /// Without the leading slash, as it should lie in the archive.
        var name: [UInt8]
        var mode: UInt32
        var uid: UInt32
        var gid: UInt32
        var user = ""
        var group = ""
        var mtime: Int64
        var comment: [UInt8]?
    }

    /// One of each oddity.
    static let wants: [Want] = {
        var random = Seeded(20)
        var wants: [Want] = []
        func file(
            _ path: [UInt8], _ size: Int, mode: UInt32 = 0o644, uid: UInt32 = 1000,
            gid: UInt32 = 100, user: String = "", group: String = "",
            mtime: Int64 = 1_700_000_000
        ) {
            let data = random.text(size)
            wants.append(
                Want(
                    member: .file(
                        path, data, mode: mode, uid: uid, gid: gid,
                        user: user.isEmpty ? nil : user, group: group.isEmpty ? nil : group,
                        mtime: mtime),
                    name: Array(path.dropFirst()), mode: mode, uid: uid, gid: gid, user: user,
                    group: group, mtime: mtime))
        }
        func part(_ path: String) {
            let data = random.text(5000)
            let member = Member(name: .chunk(path: Array(path.utf8)), data: data)
            wants.append(
                Want(
                    member: member, name: Array(".batchsync/chunk/\(member.id)".utf8),
                    mode: 0o600, uid: 0, gid: 0, mtime: 0, comment: Array(path.utf8)))
        }
        let component = [UInt8](repeating: UInt8(ascii: "n"), count: 90) + [0x2F]
        file(Array("/plain".utf8), 0)
        file(Array("/dir/plain text".utf8), 1000, mode: 0o600, user: "user", group: "group")
        file(Array("/dir/setuid".utf8), 512, mode: 0o6755, uid: 0, gid: 0, user: "root")
        file(Array("/dir/-rf *".utf8), 1)
        file(Array("/utf8/größe 漢字".utf8), 700, user: "jürgen", group: "straße")
        file(Array("/raw/".utf8) + [0xFF, 0xFE, 0x20, 0xC3], 700)
        file(Array("/new\nline/a\\b\"c'd\te".utf8), 700)
        file([0x2F] + component + Array("split".utf8), 10)
        file([0x2F] + component + component + Array("pax".utf8), 10)
        file(
            [0x2F] + Array(repeating: component, count: 6).joined() + Array("six hundred".utf8), 10)
        file([0x2F] + [UInt8](repeating: UInt8(ascii: "m"), count: 101), 10)
        file(Array("/ids".utf8), 10, uid: 262_143, gid: 262_144)
        file(Array("/large ids".utf8), 10, uid: 4_294_967_294, gid: 4_000_000_000)
        file(Array("/before 1970".utf8), 10, mtime: -86_400)
        file(Array("/epoch".utf8), 10, mtime: 0)
        file(Array("/far".utf8), 10, mtime: 8_589_934_592)
        file(
            Array("/long names".utf8), 10, user: String(repeating: "u", count: 31),
            group: String(repeating: "g", count: 40))
        file(Array("/raw owner".utf8), 10, user: "größe")
        part("/var/lib/images/disk image.raw")
        part("/var/lib/größe")
        file(Array("/last".utf8), 4096)
        return wants
    }()

    static let identity = X25519Identity()

    func makeBundle(_ scratch: Scratch, isSealed: Bool) throws -> Written {
        let written = try write(
            Self.wants.map(\.member),
            recipients: isSealed ? [.x25519(Self.identity.recipient)] : [], frameBytes: 3000,
            wantsMD5: true)
        try scratch.write("bundle", written.stored)
        try scratch.write("identity", Array(Self.identity.encoded().utf8) + [0x0A])
        try scratch.write("raw.tar", written.raws.flatMap { $0 })
        return written
    }

    @Test("sha256sum and md5sum of the stored bytes are what the writer said")
    func digests() throws {
        let scratch = try Scratch()
        let written = try makeBundle(scratch, isSealed: true)
        let sums = try scratch.run("sha256sum bundle; md5sum bundle")
        #expect(sums.output.contains(written.bundle.id.description))
        #expect(sums.output.contains(Hex.text(try #require(written.bundle.md5))))
    }

    @Test(
        "zstd takes the plain text as one whole, archive ended and all",
        .enabled(if: isInstalled("zstd"), "zstd is not installed"))
    func zstd() throws {
        let scratch = try Scratch()
        let written = try makeBundle(scratch, isSealed: false)
        let result = try scratch.run(
            "mv bundle bundle.zst && zstd -q -t bundle.zst && zstd -q -d bundle.zst -o whole.tar")
        #expect(result.status == 0, "\(result.output)")
        let whole = [UInt8](try Data(contentsOf: URL(fileURLWithPath: scratch.path + "/whole.tar")))
        #expect(whole == written.raws.flatMap { $0 } + [UInt8](repeating: 0, count: 1024))
    }

    @Test(
        "age, zstd and tar bring every file back",
        .enabled(
            if: isInstalled("age") && isInstalled("zstd") && isInstalled("bsdtar"),
            "age, zstd or bsdtar is not installed"),
        arguments: ["tar --zstd -x", "bsdtar -x", "LC_ALL=C tar --zstd -x"])
    func extracted(tool: String) throws {
        let scratch = try Scratch()
        _ = try makeBundle(scratch, isSealed: true)
        let result = try scratch.run(
            "export LC_ALL=C.UTF-8; mkdir out && age -d -i identity bundle > z.tar.zst && cd out && "
                + "\(tool) -p --no-same-owner -f ../z.tar.zst")
        #expect(result.status == 0, "\(result.output)")
        let complaints = result.output.split(separator: "\n").filter {
            // True of two of the files, and asked for by them.
            !$0.contains("implausibly old time stamp") && !$0.contains("in the future")
        }
        #expect(complaints == [])
        for want in Self.wants {
            let path = Array((scratch.path + "/out/").utf8) + want.name
            let (data, mode, mtime) = try #require(
                Self.read(path), "\(UTF8Text.display(want.name))")
            #expect(data == want.member.data, "\(UTF8Text.display(want.name))")
            #expect(mode == want.mode)
            #expect(mtime == want.mtime)
        }
    }

    /// Content, permission bits and modification time of the file with this name of bytes.
    static func read(_ path: [UInt8]) -> ([UInt8], UInt32, Int64)? {
        let name = path.map { CChar(bitPattern: $0) } + [0]
        let file = open(name, O_RDONLY)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { return nil }
        var data = [UInt8](repeating: 0, count: Int(status.st_size))
        guard Glibc.read(file, &data, data.count) == data.count else { return nil }
        return (data, status.st_mode & 0o7777, Int64(status.st_mtim.tv_sec))
    }

    static let lister = """
        import hashlib, sys, tarfile
        with tarfile.open("raw.tar") as archive:
            for m in archive:
                body = archive.extractfile(m).read()
                text = lambda s: s.encode("utf-8", "surrogateescape").hex()
                print(text(m.name), oct(m.mode)[2:], m.uid, m.gid, text(m.uname) or "-",
                      text(m.gname) or "-", int(m.mtime), m.offset_data, m.size,
                      hashlib.sha256(body).hexdigest(),
                      text(m.pax_headers.get("comment", "")) or "-",
                      m.isreg())
        """

    @Test(
        "Python's tarfile reads every field, and finds the data where the writer says it is",
        .enabled(if: isInstalled("python3"), "python3 is not installed"))
    func python() throws {
        let scratch = try Scratch()
        let written = try makeBundle(scratch, isSealed: false)
        try scratch.write("list.py", Array(Self.lister.utf8))
        let result = try scratch.run("python3 list.py")
        #expect(result.status == 0, "\(result.output)")
        var starts: [Int] = []
        var start = 0
        for (frame, raw) in zip(written.bundle.frames, written.raws) {
            starts += frame.chunks.map { start + Int($0.offset) }
            start += raw.count
        }
        var expected = ""
        for (want, start) in zip(Self.wants, starts) {
            func hex(_ bytes: [UInt8]) -> String { bytes.isEmpty ? "-" : Hex.text(bytes) }
            let fields = [
                hex(want.name), String(want.mode, radix: 8), "\(want.uid)", "\(want.gid)",
                hex(Array(want.user.utf8)), hex(Array(want.group.utf8)), "\(want.mtime)",
                "\(start)", "\(want.member.data.count)", want.member.id.description,
                hex(want.comment ?? []), "True",
            ]
            expected += fields.joined(separator: " ") + "\n"
        }
        #expect(result.output == expected)
    }

    @Test(
        "GNU tar and bsdtar list owners and times without a word of complaint",
        .enabled(if: isInstalled("bsdtar"), "bsdtar is not installed"),
        arguments: [
            "tar --zstd -tvf bundle --numeric-owner --full-time --utc --quoting-style=escape",
            "bsdtar -tvf bundle --numeric-owner",
        ])
    func listed(command: String) throws {
        let scratch = try Scratch()
        _ = try makeBundle(scratch, isSealed: false)
        let result = try scratch.run("export LC_ALL=C.UTF-8; \(command)")
        #expect(result.status == 0, "\(result.output)")
        let lines = result.output.split(separator: "\n")
        #expect(lines.count >= Self.wants.count)
        #expect(lines.contains { $0.contains("4294967294") && $0.contains("4000000000") })
        #expect(!result.output.contains("tar: "), "\(result.output)")
    }

    @Test(
        "A long name that is not UTF-8 keeps its bytes, which only pax can hold",
        .enabled(if: isInstalled("bsdtar"), "bsdtar is not installed"),
        arguments: ["tar --zstd -x", "bsdtar -x"])
    func longRawName(tool: String) throws {
        let scratch = try Scratch()
        let name = [UInt8](repeating: 0xE9, count: 120)
        let written = try write([
            .file([0x2F] + name, [1, 2, 3]),
            Member(name: .chunk(path: [0x2F, 0xFF]), data: [4, 5, 6]),
        ])
        try scratch.write("bundle", written.stored)
        let result = try scratch.run("export LC_ALL=C.UTF-8; \(tool) -f bundle")
        #expect(result.status == 0, "\(result.output)")
        #expect(Self.read(Array((scratch.path + "/").utf8) + name)?.0 == [1, 2, 3])
        let members = try scan(written.stored).members
        #expect(members.map(\.path) == [[0x2F] + name, [0x2F, 0xFF]])
    }
}
