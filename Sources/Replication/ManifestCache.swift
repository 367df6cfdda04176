import BundleFormat
import CSystem
import Glibc
import SnapshotModel
import SnapshotRepository

/// The last manifest of one set of roots of this host, kept in plain text in its cache: what change
/// detection compares with, since the host's key opens no manifest in the repository.
///
/// Two files: `KEY.head`, one JSON document that names the snapshot and the body; and the body,
/// blocks of whole lines, each `compressed length, raw length` as 32-bit little-endian numbers and
/// one zstd frame, ended by two zeros. Deleting either costs one run that reads everything.
struct ManifestCache {
    struct Head {
        var snapshot: String
        /// When the reading began, by this host's clock: files modified from then on are read
        /// again.
        var readingBegan: Timestamp
        var manifestDepth: Int
        var manifestIDs: [ChunkID]
        var fileSystems: [FileSystemName]
        var entries: Int
        /// Name of the body's file.
        var body: String
    }

    let folder: String
    let key: String

    init(repository: Repository, host: String, roots: [[UInt8]]) {
        folder = repository.cachePath + "/manifests"
        var bytes = Array(host.utf8) + [0]
        for root in roots { bytes += root + [0] }
        let id: ChunkID = bytes.withUnsafeBytes { ContentHash.sha256($0) }
        key = String(id.description.prefix(32))
    }

    private var headPath: String { "\(folder)/\(key).head" }
    func bodyPath(_ name: String) -> String { "\(folder)/\(name)" }

    // MARK: Drafts

    /// Where a run that begins now writes its manifest. Each run has a name of its own, so two at
    /// once do not meet.
    func draftPath(began: Timestamp) -> String {
        "\(folder)/\(key)-\(began.nanosecondsSince1970)-\(UInt32.random(in: 0 ... .max)).draft"
    }

    /// Drafts of runs that died, the youngest first, each with the time at which its run began. A
    /// living run holds a lock on its own.
    func leftDrafts() -> [(path: String, began: Timestamp)] {
        var drafts: [(path: String, began: Timestamp)] = []
        for name in LocalFile.names(in: folder)
        where name.hasPrefix(key + "-") && name.hasSuffix(".draft") {
            let parts = name.dropLast(6).split(separator: "-")
            guard parts.count == 3, let began = Int64(parts[1]) else { continue }
            let path = bodyPath(name)
            let fd = csys_open(path, O_RDWR | CSYS_O_CLOEXEC, 0)
            guard fd >= 0 else { continue }
            if csys_try_lock(fd) == 0 {
                drafts.append((path, Timestamp(nanosecondsSince1970: began)))
            }
            _ = csys_close(fd)
        }
        return drafts.sorted { $0.began > $1.began }
    }

    func readHead() -> Head? {
        guard let bytes = try? LocalFile.read(headPath), let value = JSONValue(parsing: bytes),
            let snapshot = value["snapshot"]?.string, let began = value["reading_began"]?.timestamp,
            let depth = value["depth"]?.count, let ids = value["ids"]?.array,
            let body = value["body"]?.string,
            let entries = value["entries"]?.count, !body.contains("/")
        else { return nil }
        let systems = (value["file_systems"]?.array ?? []).map {
            FileSystemName(
                type: $0["type"]?.string ?? "", source: $0["source"]?.string ?? "",
                uuid: $0["uuid"]?.string)
        }
        let parsed = ids.compactMap { $0.string.flatMap { ChunkID($0) } }
        guard parsed.count == ids.count else { return nil }
        return Head(
            snapshot: snapshot, readingBegan: began, manifestDepth: depth, manifestIDs: parsed,
            fileSystems: systems,
            entries: entries, body: body)
    }

    /// Makes `head` the current one and removes bodies that it does not name.
    func writeHead(_ head: Head) throws(RepositoryError) {
        let value = Self.json(head)
        try LocalFile.write(value.bytes + [0x0A], to: headPath)
        for name in LocalFile.names(in: folder)
        where name.hasPrefix(key) && name.hasSuffix(".lines") && name != head.body {
            LocalFile.remove(bodyPath(name))
        }
    }

    static func json(_ head: Head) -> JSONValue {
        .object([
            ("snapshot", .string(head.snapshot)),
            ("reading_began", .string(head.readingBegan.text)),
            ("depth", .integer(Int64(head.manifestDepth))),
            ("ids", JSONValue(ids: head.manifestIDs)),
            ("entries", .integer(Int64(head.entries))), ("body", .string(head.body)),
            (
                "file_systems",
                .array(
                    head.fileSystems.map { system in
                        var fields: [(key: String, value: JSONValue)] = [
                            ("type", .string(system.type)), ("source", .string(system.source)),
                        ]
                        if let uuid = system.uuid { fields.append(("uuid", .string(uuid))) }
                        return .object(fields)
                    })
            ),
        ])
    }

    static let blockBytes = 1 << 20
}

/// Reads the blocks of a manifest body one after the other, or from a place named before. One
/// thread at a time.
final class ManifestBodyReader {
    private let fd: Int32
    private var offset: Int64 = 0
    private let compressed = ByteBuffer(capacity: 256 << 10)
    private let decompressor: BlockDecompressor
    /// Lines of the current block.
    let block = ByteBuffer(capacity: ManifestCache.blockBytes + (64 << 10))
    /// Where the current block begins in the file.
    private(set) var blockOffset: Int64 = 0
    /// Whether the end mark was met: without it the body was cut short.
    private(set) var isWhole = false

    init?(path: String) {
        fd = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        guard fd >= 0 else { return nil }
        guard let decompressor = try? BlockDecompressor() else {
            _ = csys_close(fd)
            return nil
        }
        self.decompressor = decompressor
        _ = csys_fadvise_sequential(fd)
    }

    deinit { if fd >= 0 { _ = csys_close(fd) } }

    func seek(to offset: Int64) { self.offset = offset }

    /// False at the end, or where the rest cannot be read.
    func next() -> Bool {
        var lengths: (UInt32, UInt32) = (0, 0)
        let got = withUnsafeMutableBytes(of: &lengths) {
            csys_pread(fd, $0.baseAddress!, 8, offset)
        }
        guard got == 8 else { return false }
        if lengths.0 == 0 {
            isWhole = lengths.1 == 0
            return false
        }
        guard lengths.0 <= 64 << 20, lengths.1 <= 64 << 20 else { return false }
        compressed.removeAll()
        compressed.reserve(Int(lengths.0))
        guard csys_pread(fd, compressed.base, Int(lengths.0), offset + 8) == Int(lengths.0) else {
            return false
        }
        compressed.count = Int(lengths.0)
        do {
            try decompressor.decompress(compressed.bytes, rawBytes: Int(lengths.1), into: block)
        } catch { return false }
        blockOffset = offset
        offset += 8 + Int64(lengths.0)
        return true
    }
}

/// Writes a manifest body. Kept as a draft until the run commits; what a synchronised draft holds
/// is not read again after a crash.
final class ManifestBodyWriter {
    let path: String
    private let fd: Int32
    private var offset: Int64 = 0
    private let block = ByteBuffer(capacity: ManifestCache.blockBytes + (64 << 10))
    private let compressed = ByteBuffer(capacity: 512 << 10)
    private let compressor: BlockCompressor
    private var failure: Int32 = 0

    init(path: String) throws(RepositoryError) {
        self.path = path
        do { compressor = try BlockCompressor(level: 1) } catch {
            throw RepositoryError(.local, path, error.description)
        }
        let slash = path.lastIndex(of: "/")!
        try LocalFile.makeDirectory(String(path[..<slash]))
        fd = csys_open(path, O_RDWR | O_CREAT | O_TRUNC | CSYS_O_CLOEXEC, 0o600)
        guard fd >= 0 else {
            throw RepositoryError(
                .local, path, String(cString: strerror(-fd)), remedy: "check the cache directory")
        }
        _ = csys_try_lock(fd)
    }

    deinit { if fd >= 0 { _ = csys_close(fd) } }

    /// Whole lines only.
    func append(_ lines: UnsafeRawBufferPointer) {
        block.append(lines)
        if block.count >= ManifestCache.blockBytes { flush() }
    }

    private func flush() {
        guard block.count > 0, failure == 0 else { return }
        do { try compressor.compress(block.bytes, into: compressed) } catch {
            failure = -EIO
            return
        }
        var lengths = (UInt32(compressed.count), UInt32(block.count))
        withUnsafeBytes(of: &lengths) { write($0) }
        write(compressed.bytes)
        block.removeAll()
        block.shrink(to: ManifestCache.blockBytes + (64 << 10))
    }

    private func write(_ bytes: UnsafeRawBufferPointer) {
        var done = 0
        while done < bytes.count, failure == 0 {
            let count = csys_pwrite(fd, bytes.baseAddress! + done, bytes.count - done, offset)
            if count <= 0 {
                failure = count == 0 ? -EIO : Int32(count)
            } else {
                done += count
                offset += Int64(count)
            }
        }
    }

    /// Brings what was appended so far to the disk, so that it outlives this process and a loss of
    /// power.
    func synchronise() {
        flush()
        if failure == 0 { failure = csys_fdatasync(fd) }
    }

    /// Ends the body. False where it could not be written: the cache is only a convenience, so the
    /// run goes on.
    func finish() -> Bool {
        flush()
        let end: (UInt32, UInt32) = (0, 0)
        withUnsafeBytes(of: end) { write($0) }
        return failure == 0
    }
}
