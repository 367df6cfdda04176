internal import CLibArchive
internal import Glibc
internal import SnapshotModel

/// Appends tar members to a buffer. libarchive writes the headers and the padding, as ustar; what
/// does not fit into a ustar header goes into a pax header in front.
///
/// One libarchive writer and one entry serve all frames: it is never closed, so it never ends the
/// archive.
final class TarWriter {
    private let output: ByteBuffer
    private var archive: OpaquePointer
    private let entry: OpaquePointer
    private let pax = PaxHeader()
    private let name = ByteBuffer(capacity: 1024)
    // The entry keeps its strings, so that the owner of thousands of files is set once.
    private var user: [UInt8] = []
    private var group: [UInt8] = []

    init(output: ByteBuffer) {
        self.output = output
        guard let entry = archive_entry_new() else { fatalError("out of memory") }
        self.entry = entry
        archive = Self.makeArchive(output)
    }

    deinit {
        // A failed writer writes no end of archive when it is freed.
        archive_write_fail(archive)
        archive_write_free(archive)
        archive_entry_free(entry)
    }

    private static func makeArchive(_ output: ByteBuffer) -> OpaquePointer {
        guard let archive = archive_write_new() else { fatalError("out of memory") }
        archive_write_set_format_ustar(archive)
        archive_write_add_filter_none(archive)
        archive_write_set_bytes_per_block(archive, 0)
        archive_write_open(
            archive, Unmanaged.passUnretained(output).toOpaque(), nil,
            { _, context, bytes, count in
                Unmanaged<ByteBuffer>.fromOpaque(context!)._withUnsafeGuaranteedRef {
                    $0.append(UnsafeRawBufferPointer(start: bytes, count: count))
                }
                return count
            }, nil)
        return archive
    }

    /// Appends one regular file. `path` has no leading slash and no zero byte; `comment` may be
    /// empty. Answers where the data begins in the output. Nothing is appended where it throws.
    func append(
        path: UnsafeRawBufferPointer, mode: UInt32, uid: UInt32, gid: UInt32,
        user: [UInt8]?, group: [UInt8]?, mtime: Int64, comment: [UInt8],
        data: UnsafeRawBufferPointer
    ) throws(BundleError) -> Int {
        pax.removeAll()
        setPath(path)
        archive_entry_set_mode(entry, 0o100000 | (mode & 0o7777))
        archive_entry_set_uid(entry, fitting(uid, "uid"))
        archive_entry_set_gid(entry, fitting(gid, "gid"))
        archive_entry_set_size(entry, Int64(data.count))
        let canHoldTime = mtime >= 0 && mtime <= 0o77777777777
        if !canHoldTime { pax.add("mtime", number: mtime) }
        archive_entry_set_mtime(entry, canHoldTime ? Int(mtime) : 0, 0)
        setOwner(user ?? [], group ?? [])
        if !comment.isEmpty { comment.withUnsafeBytes { pax.add("comment", text: $0) } }

        let start = output.count
        let headers = (pax.isEmpty ? 0 : pax.tarBytes) + 512
        guard
            start + headers + Tar.padded(data.count) + Tar.endOfArchiveBytes
                <= BundleLimits.rawFrameBytes
        else {
            throw BundleError(
                .limit, "write", "a frame",
                "with another chunk of \(data.count) bytes it exceeds \(BundleLimits.rawFrameBytes)"
            )
        }
        if !pax.isEmpty { pax.write(to: output) }
        // As in TarStream: libarchive may ask what errno holds from earlier.
        errno = 0
        guard archive_write_header(archive, entry) >= ARCHIVE_WARN else { throw failed(start) }
        let place = output.count
        if data.count > 0 {
            guard archive_write_data(archive, data.baseAddress, data.count) == data.count else {
                throw failed(start)
            }
        }
        guard archive_write_finish_entry(archive) >= ARCHIVE_WARN,
            place == start + headers, output.count == place + Tar.padded(data.count)
        else { throw failed(start) }
        return place
    }

    /// Names stand in the header as the bytes that they are, whatever their encoding: so every tar
    /// on Unix gives back the same bytes, in any locale. Only what is too long goes into a pax
    /// header.
    private func setPath(_ path: UnsafeRawBufferPointer) {
        name.removeAll()
        if fitsHeader(path) {
            name.append(path)
        } else {
            pax.add("path", text: path)
            // What a reader shows that knows no pax headers.
            for byte in path.suffix(96) { name.append(byte == 0x2F ? 0x5F : byte) }
        }
        name.append(0)
        archive_entry_set_pathname(
            entry, UnsafePointer(name.base.assumingMemoryBound(to: CChar.self)))
    }

    private func setOwner(_ user: [UInt8], _ group: [UInt8]) {
        let shownUser = fitting(user, "uname")
        if shownUser != self.user {
            self.user = shownUser
            archive_entry_set_uname(entry, (shownUser + [0]).map { CChar(bitPattern: $0) })
        }
        let shownGroup = fitting(group, "gname")
        if shownGroup != self.group {
            self.group = shownGroup
            archive_entry_set_gname(entry, (shownGroup + [0]).map { CChar(bitPattern: $0) })
        }
    }

    /// The name where the header has room for it; nothing, and a pax record, where it has not.
    private func fitting(_ name: [UInt8], _ key: StaticString) -> [UInt8] {
        guard name.count >= 32 else { return name }
        name.withUnsafeBytes { pax.add(key, text: $0) }
        return []
    }

    /// The number as the header can hold it, in six octal digits; zero, and a pax record, where it
    /// cannot.
    private func fitting(_ number: UInt32, _ key: StaticString) -> Int64 {
        if number <= 0o777777 { return Int64(number) }
        pax.add(key, number: Int64(number))
        return 0
    }

    /// Up to 100 bytes, or up to 155 more before a slash.
    private func fitsHeader(_ path: UnsafeRawBufferPointer) -> Bool {
        if path.count <= 100 { return true }
        guard path.count <= 256 else { return false }
        var slash = path.count - 101
        while slash < path.count - 1 {
            if path[slash] == 0x2F, slash > 0 { return slash <= 155 }
            slash += 1
        }
        return false
    }

    /// Takes back what a failed member has left, and begins with a new writer, since this one's
    /// state is unknown.
    private func failed(_ start: Int) -> BundleError {
        let cause = archive_error_string(archive).map { String(cString: $0) }
        archive_write_fail(archive)
        archive_write_free(archive)
        output.count = start
        archive = Self.makeArchive(output)
        return BundleError(
            .library, "write", "a member of a tar archive",
            cause ?? "libarchive wrote another length")
    }
}
