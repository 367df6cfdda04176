/// Sizes that decide, in bytes (format.md sections 7 and 13).
package enum BundleLimits {
    /// A frame closes when it holds this much tar: one ranged read for one file stays small, and a
    /// larger frame would compress no better.
    package static let frameBytes = 4 << 20
    /// No raw frame is larger, whoever wrote it.
    package static let rawFrameBytes = 16 << 20
    /// A bundle closes when its plain text reaches this.
    package static let bundleBytes = 64 << 20
    /// The compression level of content where nobody asks for another, and of records.
    package static let defaultLevel = 3
    /// No chunk is larger.
    package static let chunkBytes = 16 << 20
    /// Of the path in a pax record.
    package static let pathBytes = 1 << 20
    /// The base-two logarithm of the largest zstd window: what every zstd reads without being asked
    /// to.
    package static let windowLog = 27
    /// What a compressed frame of `rawFrameBytes` can take at most: zstd's bound, and room for the
    /// headers of empty blocks that another writer might make.
    static let compressedFrameBytes = rawFrameBytes + rawFrameBytes / 256 + (64 << 10)
}
