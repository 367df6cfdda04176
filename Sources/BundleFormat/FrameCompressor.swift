package import SnapshotModel

/// Compresses frames, one after the other. One thread at a time; make one for each.
package final class FrameCompressor: @unchecked Sendable {
    // Sendable: has one owner at a time, which hands it over whole.
    private let zstd: ZstdCompressor

    /// - Parameter level: 1 to 19, or -1 to -100 for less ratio at more speed.
    package init(level: Int) throws(BundleError) {
        zstd = try ZstdCompressor(level: level)
    }

    /// Compresses the frame into `output`, whose content it replaces, and takes its list of chunks.
    /// The frame can be reset at once; `output` belongs to the result.
    package func compress(
        _ frame: FrameBuilder, into output: ByteBuffer
    ) throws(BundleError) -> CompressedFrame {
        let raw = frame.bytes
        precondition(raw.count > 0, "an empty frame")
        try zstd.compress(raw, parts: frame.chunks.count, into: output)
        return CompressedFrame(
            bytes: output, rawLength: raw.count, fingerprint: ContentHash.fingerprint(raw),
            chunks: frame.takeChunks(), endsArchive: frame.endsArchive)
    }
}
