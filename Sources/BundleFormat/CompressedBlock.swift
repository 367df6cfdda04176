package import SnapshotModel

/// A block of bytes as one zstd frame with its size and checksum, for a host's own files. One
/// thread at a time.
package final class BlockCompressor {
    private let zstd: ZstdCompressor

    package init(level: Int) throws(BundleError) { zstd = try ZstdCompressor(level: level) }

    /// Replaces what `output` holds.
    package func compress(_ raw: UnsafeRawBufferPointer, into output: ByteBuffer)
        throws(BundleError)
    {
        try zstd.compress(raw, into: output)
    }
}

/// The way back from `BlockCompressor`. One thread at a time.
package final class BlockDecompressor {
    private let zstd: ZstdDecompressor

    package init() throws(BundleError) { zstd = try ZstdDecompressor() }

    /// Replaces what `output` holds by the `rawBytes` bytes that `block` was made from.
    package func decompress(
        _ block: UnsafeRawBufferPointer, rawBytes: Int, into output: ByteBuffer
    ) throws(BundleError) {
        output.removeAll()
        output.reserve(rawBytes)
        let room = UnsafeMutableRawBufferPointer(start: output.base, count: rawBytes)
        if let reason = zstd.decompress(block, into: room) {
            throw BundleError(.damaged, "read", "a block of \(rawBytes) bytes", reason)
        }
        output.count = rawBytes
    }
}
