import AgeEncryption
import BundleFormat
import Foundation
import SnapshotModel
import Testing

/// SplitMix64: the same numbers for the same seed, everywhere.
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    /// Random up to 64 KiB; what is longer repeats itself.
    mutating func bytes(_ count: Int) -> [UInt8] {
        let block = (0..<min(count, 65536)).map { _ in UInt8(truncatingIfNeeded: next()) }
        var bytes = [UInt8]()
        bytes.reserveCapacity(count)
        while bytes.count < count { bytes += block.prefix(count - bytes.count) }
        return bytes
    }

    /// Compresses to about a third.
    mutating func text(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in 97 + UInt8(truncatingIfNeeded: next() & 7) }
    }
}

struct Member {
    var name: MemberName
    var data: [UInt8]
    var id: ChunkID { data.withUnsafeBytes { ContentHash.sha256($0) } }

    static func file(
        _ path: [UInt8], _ data: [UInt8], mode: UInt32 = 0o644, uid: UInt32 = 1000,
        gid: UInt32 = 100, user: String? = nil, group: String? = nil, mtime: Int64 = 1_700_000_000
    ) -> Member {
        Member(
            name: .wholeFile(
                MemberMetadata(
                    path: path, mode: mode, uid: uid, gid: gid, user: user.map { Array($0.utf8) },
                    group: group.map { Array($0.utf8) },
                    mtime: Timestamp(seconds: mtime, nanoseconds: 999_999_999))),
            data: data)
    }

    static func file(_ path: String, _ data: [UInt8]) -> Member { file(Array(path.utf8), data) }
}

/// The bytes of one bundle, and what its writer said.
struct Written {
    var stored: [UInt8]
    var bundle: SealedBundle
    var raws: [[UInt8]]
}

final class Collector {
    var bytes: [UInt8] = []
}

/// Writes `members` into one bundle; a new frame begins where `frameBytes` are reached.
func write(
    _ members: [Member], kind: BundleKind = .content, recipients: [AgeRecipient] = [],
    frameBytes: Int = BundleLimits.frameBytes, level: Int = 3, wantsMD5: Bool = false,
    endsInLastFrame: Bool = false
) throws -> Written {
    let collector = Collector()
    let writer = try BundleWriter(kind: kind, recipients: recipients, wantsMD5: wantsMD5) {
        collector.bytes.append(contentsOf: $0)
    }
    let frame = FrameBuilder()
    let compressor = try FrameCompressor(level: level)
    let output = ByteBuffer()
    var raws: [[UInt8]] = []
    for (index, member) in members.enumerated() {
        try frame.add(member)
        let isLast = index == members.count - 1
        guard isLast || frame.rawBytes >= frameBytes else { continue }
        if isLast, endsInLastFrame { frame.appendEndOfArchive() }
        raws.append(Array(frame.bytes))
        try writer.append(try compressor.compress(frame, into: output))
        frame.reset()
    }
    let bundle = try writer.finish()
    return Written(stored: collector.bytes, bundle: bundle, raws: raws)
}

struct Scan {
    var bundle: SealedBundle
    var members: [ScannedMember]
    var raws: [[UInt8]]
}

/// Scans stored bytes, fed in pieces of `step`.
func scan(
    _ stored: [UInt8], identities: [AgeIdentity] = [], step: Int = 10_007,
    expecting id: BundleID? = nil, wantsMD5: Bool = false
) throws(BundleError) -> Scan {
    let scanner = try BundleScanner(identities: identities, wantsMD5: wantsMD5)
    var members: [ScannedMember] = []
    var raws: [[UInt8]] = []
    let visit = { (frame: ScannedFrame) in
        members += frame.members
        raws.append(frame.raw.array)
    }
    var offset = 0
    while offset < stored.count {
        let end = min(stored.count, offset + step)
        try stored[offset..<end].withUnsafeBufferPointer { bytes throws(BundleError) in
            try scanner.feed(UnsafeRawBufferPointer(bytes), visit)
        }
        offset = end
    }
    return Scan(bundle: try scanner.finish(expecting: id, visit), members: members, raws: raws)
}

/// Opens one frame of `written` by its range alone.
func openFrame(
    _ frame: FrameRecord, of stored: [UInt8], access: BundleAccess, opener: FrameOpener,
    into raw: ByteBuffer
) throws(BundleError) {
    let range = try access.sealedRange(
        offset: frame.offset, length: frame.length, storedSize: stored.count)
    try stored[range].withUnsafeBufferPointer { bytes throws(BundleError) in
        try opener.openFrame(
            UnsafeRawBufferPointer(bytes), frame, access: access, storedSize: stored.count,
            into: raw)
    }
}

func access(_ stored: [UInt8], _ identities: [AgeIdentity]) throws(BundleError) -> BundleAccess {
    try stored.prefix(BundleAccess.usualPrefixBytes).withUnsafeBufferPointer {
        bytes throws(BundleError) in
        try BundleAccess.open(prefix: UnsafeRawBufferPointer(bytes), identities: identities)
    }
}

/// A mixture of files, some odd: what a bundle of a real night might hold.
func mixture(_ seed: UInt64, count: Int, upTo size: Int) -> [Member] {
    var random = Seeded(seed)
    return (0..<count).map { index in
        let data = random.text(Int(random.next() % UInt64(size + 1)))
        switch index % 5 {
        case 0: return .file("/home/user/notes/file \(index).txt", data)
        case 1:
            return .file(
                Array("/srv/größe/".utf8) + [0xFF, 0x0A] + Array("\(index)".utf8), data,
                mode: 0o4755, uid: 3_000_000_000, gid: 70000, user: "jürgen", group: "staff",
                mtime: -5)
        case 2: return Member(name: .chunk(path: Array("/var/lib/big \(index)".utf8)), data: data)
        case 3:
            return .file(
                Array("/deep/".utf8) + Array(repeating: UInt8(ascii: "d"), count: 90) + [0x2F]
                    + Array(repeating: UInt8(ascii: "e"), count: 90) + Array("/\(index)".utf8),
                data, user: "root", group: "root")
        default: return .file("/.batchsync/own \(index)", data)
        }
    }
}

/// A directory of its own that goes when the test ends.
final class Scratch {
    let path: String

    init() throws {
        var template = Array((NSTemporaryDirectory() + "/bundle-XXXXXX").utf8CString)
        guard mkdtemp(&template) != nil else { throw POSIXError(.EIO) }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path + "/" + name))
    }

    /// Runs a shell command here; what it wrote to both outputs, and its exit code.
    func run(_ command: String) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "cd '\(path)' && { \(command) ; } >out.log 2>&1"]
        process.standardInput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        let output = try Data(contentsOf: URL(fileURLWithPath: path + "/out.log"))
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }
}

func isInstalled(_ tool: String) -> Bool {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    return path.split(separator: ":").contains {
        FileManager.default.isExecutableFile(atPath: $0 + "/" + tool)
    }
}

extension FrameBuilder {
    func add(_ member: Member) throws {
        try member.data.withUnsafeBytes { try add(member.name, id: member.id, data: $0) }
    }
}

/// The kind of error that `body` throws; nil where it throws none.
func kind(_ body: () throws -> Void) -> BundleError.Kind? {
    do {
        try body()
        return nil
    } catch {
        guard let error = error as? BundleError else {
            Issue.record("an error of another room: \(error)")
            return nil
        }
        return error.kind
    }
}
