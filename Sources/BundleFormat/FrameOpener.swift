package import SnapshotModel

/// Turns stored bytes back into raw frames, and checks them. Reuses its memory; one thread at a
/// time.
package final class FrameOpener: @unchecked Sendable {
    // Sendable: has one owner at a time, which hands it over whole.
    private let zstd: ZstdDecompressor
    private let compressed = ByteBuffer(capacity: 64 << 10)

    package init() throws(BundleError) {
        zstd = try ZstdDecompressor()
    }

    /// Opens the seal of one frame and decompresses it: `sealed` is what
    /// `access.sealedRange(offset: frame.offset, length: frame.length, …)` names.
    /// Replaces what `raw` holds.
    package func openFrame(
        _ sealed: UnsafeRawBufferPointer, _ frame: FrameRecord, access: BundleAccess,
        storedSize: Int, into raw: ByteBuffer
    ) throws(BundleError) {
        raw.removeAll()
        try Self.check(frame)
        try access.open(
            sealed, offset: frame.offset, length: frame.length, storedSize: storedSize,
            into: compressed)
        defer { compressed.shrink(to: max(compressed.count, 8 << 20)) }
        try decompress(compressed.bytes, frame, into: raw)
    }

    /// Decompresses a frame whose seal has been opened already, where one range held several.
    /// The raw bytes have the stated length and fingerprint, or it throws and `raw` is empty.
    package func decompress(
        _ bytes: UnsafeRawBufferPointer, _ frame: FrameRecord, into raw: ByteBuffer
    ) throws(BundleError) {
        raw.removeAll()
        try Self.check(frame)
        guard bytes.count == frame.length else {
            throw .frame(
                .malformed, at: frame.offset, "\(bytes.count) bytes are not its \(frame.length)")
        }
        let header = try Self.header(bytes, at: frame.offset)
        guard header.contentBytes == UInt64(frame.raw) else {
            throw .frame(
                .damaged, at: frame.offset,
                "it states \(header.contentBytes) bytes where the index states \(frame.raw)")
        }
        try expand(bytes, header, at: frame.offset, into: raw)
        guard ContentHash.fingerprint(raw.bytes) == frame.fingerprint else {
            raw.removeAll()
            throw .frame(.damaged, at: frame.offset, "its fingerprint is not the index's")
        }
    }

    /// Decompresses a frame of which nothing is known.
    func decompress(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, into raw: ByteBuffer
    ) throws(BundleError) {
        raw.removeAll()
        try expand(bytes, try Self.header(bytes, at: offset), at: offset, into: raw)
    }

    private func expand(
        _ bytes: UnsafeRawBufferPointer, _ header: ZstdFrameHeader, at offset: Int,
        into raw: ByteBuffer
    ) throws(BundleError) {
        let count = Int(header.contentBytes)
        raw.reserve(count)
        if let reason = zstd.decompress(
            bytes, into: UnsafeMutableRawBufferPointer(start: raw.base, count: count))
        {
            throw .frame(.damaged, at: offset, reason)
        }
        raw.count = count
    }

    private static func header(
        _ bytes: UnsafeRawBufferPointer, at offset: Int
    ) throws(BundleError) -> ZstdFrameHeader {
        do throws(ZstdFrameHeader.Failure) {
            return try ZstdFrameHeader(bytes, maximumContent: BundleLimits.rawFrameBytes)
        } catch {
            switch error {
            case .needsMoreBytes:
                throw .frame(.malformed, at: offset, "it ends within its zstd header")
            case .refused(let kind, let cause): throw .frame(kind, at: offset, cause)
            }
        }
    }

    private static func check(_ frame: FrameRecord) throws(BundleError) {
        guard frame.raw > 0, frame.raw <= BundleLimits.rawFrameBytes, frame.length > 0,
            frame.length <= BundleLimits.compressedFrameBytes
        else {
            throw .frame(
                .limit, at: frame.offset,
                "it has \(frame.raw) bytes, \(frame.length) of them stored")
        }
    }

    /// The bytes of one chunk in its raw frame, once its SHA-256 has been found to be its id.
    /// They are the frame's own: valid as long as it is.
    package static func chunk(
        _ place: ChunkPlace, in raw: UnsafeRawBufferPointer
    ) throws(BundleError) -> UnsafeRawBufferPointer {
        let start = Int(place.offset)
        let length = Int(place.length)
        guard length <= BundleLimits.chunkBytes, start + length <= raw.count else {
            throw BundleError(
                .malformed, "read", "chunk \(place.id.short)…", "it does not lie in its frame")
        }
        let bytes = UnsafeRawBufferPointer(rebasing: raw[start..<start + length])
        let id: ChunkID = ContentHash.sha256(bytes)
        guard id == place.id else {
            throw BundleError(
                .damaged, "read", "chunk \(place.id.short)…", "its bytes hash to \(id.short)…")
        }
        return bytes
    }
}
