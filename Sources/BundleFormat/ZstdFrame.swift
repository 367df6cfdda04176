internal import CLibZstd
internal import SnapshotModel

/// The header of a zstd frame (RFC 8878 section 3.1.1.1), read before anything is allocated for the
/// frame.
struct ZstdFrameHeader {
    /// Bytes of the header itself.
    let headerBytes: Int
    /// Bytes that the frame says it decompresses to.
    let contentBytes: UInt64

    static let magic: UInt32 = 0xFD2F_B528

    enum Failure: Error {
        case needsMoreBytes
        case refused(BundleError.Kind, String)
    }

    /// Reads and checks a header: content size and checksum must be stated, no dictionary, the
    /// window within bounds.
    init(_ bytes: UnsafeRawBufferPointer, maximumContent: Int) throws(Failure) {
        guard bytes.count >= 5 else { throw .needsMoreBytes }
        guard UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) == Self.magic else {
            throw .refused(.malformed, "it does not begin like a zstd frame")
        }
        let descriptor = bytes[4]
        let isSingleSegment = descriptor & 0x20 != 0
        guard descriptor & 0x08 == 0 else {
            throw .refused(.malformed, "a reserved bit of its zstd header is set")
        }
        guard descriptor & 0x04 != 0 else { throw .refused(.malformed, "it has no checksum") }
        guard descriptor & 0x03 == 0 else {
            throw .refused(.malformed, "it asks for a dictionary")
        }
        let sizeBytes: Int
        switch descriptor >> 6 {
        case 0: sizeBytes = isSingleSegment ? 1 : 0
        case 1: sizeBytes = 2
        case 2: sizeBytes = 4
        default: sizeBytes = 8
        }
        guard sizeBytes > 0 else {
            throw .refused(.malformed, "it does not state its content size")
        }
        let sizeOffset = isSingleSegment ? 5 : 6
        headerBytes = sizeOffset + sizeBytes
        guard bytes.count >= headerBytes else { throw .needsMoreBytes }
        var size: UInt64 = 0
        for index in 0..<sizeBytes {
            size |= UInt64(bytes[sizeOffset + index]) << UInt64(8 * index)
        }
        if sizeBytes == 2 { size += 256 }
        guard size <= UInt64(maximumContent) else {
            throw .refused(.limit, "it holds \(size) bytes, more than \(maximumContent)")
        }
        contentBytes = size
        // Without a window of its own, the window is the content.
        guard !isSingleSegment else { return }
        let base = UInt64(1) << UInt64(10 + (bytes[5] >> 3))
        guard base + base / 8 * UInt64(bytes[5] & 7) <= UInt64(1) << UInt64(BundleLimits.windowLog)
        else {
            throw .refused(.limit, "its window has more than 2^\(BundleLimits.windowLog) bytes")
        }
    }
}

/// Finds the end of a zstd frame while its bytes still come in. Each block header is looked at
/// once.
struct ZstdFrameWalker {
    /// Known length of the frame once all of it is there.
    private(set) var frameBytes: Int?
    private var next: Int
    private var isBehindLastBlock = false

    init(_ header: ZstdFrameHeader) { next = header.headerBytes }

    /// `bytes` begins with the frame, and with all that was shown before.
    mutating func advance(_ bytes: UnsafeRawBufferPointer) throws(ZstdFrameHeader.Failure) {
        while frameBytes == nil {
            if isBehindLastBlock {
                guard bytes.count >= next + 4 else { return }
                frameBytes = next + 4
                return
            }
            guard bytes.count >= next + 3 else { return }
            let block =
                Int(bytes[next]) | Int(bytes[next + 1]) << 8 | Int(bytes[next + 2]) << 16
            isBehindLastBlock = block & 1 != 0
            switch block >> 1 & 3 {
            case 1: next += 4
            case 3: throw .refused(.damaged, "it has a block of a reserved type")
            default: next += 3 + (block >> 3)
            }
            guard next <= BundleLimits.compressedFrameBytes else {
                throw .refused(.limit, "it takes more bytes than any frame can")
            }
        }
    }
}

/// A reused zstd decompression context. One thread at a time.
final class ZstdDecompressor {
    private let context: OpaquePointer

    init() throws(BundleError) {
        guard let context = ZSTD_createDCtx() else {
            throw BundleError(.library, "read", "a zstd frame", "no memory for a decompressor")
        }
        self.context = context
        ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, Int32(BundleLimits.windowLog))
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Opens exactly one frame into `output`, which has exactly the length that the header states.
    /// Answers nil, or why not.
    func decompress(
        _ frame: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) -> String? {
        // One frame and nothing behind it: the library would read on through several.
        let length = ZSTD_findFrameCompressedSize(frame.baseAddress, frame.count)
        if ZSTD_isError(length) != 0 { return Self.reason(length) }
        guard length == frame.count else { return "other bytes follow the zstd frame" }
        let written = ZSTD_decompressDCtx(
            context, output.baseAddress, output.count, frame.baseAddress, frame.count)
        if ZSTD_isError(written) != 0 { return Self.reason(written) }
        return written == output.count
            ? nil : "it holds \(written) bytes and states \(output.count)"
    }

    static func reason(_ code: Int) -> String { String(cString: ZSTD_getErrorName(code)) }
}

/// A reused zstd compression context. One thread at a time.
final class ZstdCompressor {
    private let context: OpaquePointer
    /// Those that are set; nil at the beginning, and at other levels than the default one.
    private var tables: Tables?
    private let isDefault: Bool

    /// Both look a position up in a long and a short table (decision 0017).
    private enum Tables {
        /// For few large files: small tables stay in the nearest cache, and matches begin with six
        /// bytes.
        case small
        /// For many small files, whose likeness is spread over the whole frame.
        case large

        var parameters: [(ZSTD_cParameter, Int32)] {
            let (hashLog, chainLog, minMatch): (Int32, Int32, Int32) =
                switch self {
                case .small: (16, 15, 6)
                case .large: (18, 17, 5)
                }
            return [
                (ZSTD_c_hashLog, hashLog), (ZSTD_c_chainLog, chainLog),
                (ZSTD_c_minMatch, minMatch),
            ]
        }
    }
    /// From so many chunks on a frame holds many small files.
    private static let many = 128

    /// Levels 1 to 19, and -1 to -100, which are faster.
    init(level: Int) throws(BundleError) {
        guard (-100 ... -1).contains(level) || (1...19).contains(level) else {
            throw BundleError(
                .limit, "compress with", "level \(level)", "levels are 1 to 19 and -1 to -100")
        }
        guard let context = ZSTD_createCCtx() else {
            throw BundleError(.library, "compress", "a frame", "no memory for a compressor")
        }
        self.context = context
        isDefault = level == BundleLimits.defaultLevel
        // No window is larger at level 19 or below than 2^23, so BundleLimits.windowLog holds by
        // itself.
        var parameters: [(ZSTD_cParameter, Int32)] = [
            (ZSTD_c_compressionLevel, Int32(level)), (ZSTD_c_contentSizeFlag, 1),
            (ZSTD_c_checksumFlag, 1),
        ]
        if isDefault {
            parameters += [
                (ZSTD_c_strategy, Int32(ZSTD_dfast.rawValue)), (ZSTD_c_windowLog, 22),
            ]
        }
        for (parameter, value) in parameters {
            let code = ZSTD_CCtx_setParameter(context, parameter, value)
            guard ZSTD_isError(code) == 0 else {
                // The context is freed by deinit, since all is initialised by now.
                throw BundleError(
                    .library, "compress with", "level \(level)", ZstdDecompressor.reason(code))
            }
        }
    }

    deinit { ZSTD_freeCCtx(context) }

    /// Replaces what `output` holds by one zstd frame of `input`.
    /// - Parameter parts: How many chunks the input consists of: says whether it is many small
    ///   files.
    func compress(
        _ input: UnsafeRawBufferPointer, parts: Int = 1, into output: ByteBuffer
    ) throws(BundleError) {
        output.removeAll()
        if isDefault {
            let wanted: Tables = parts < Self.many ? .small : .large
            if wanted != tables {
                for (parameter, value) in wanted.parameters {
                    ZSTD_CCtx_setParameter(context, parameter, value)
                }
                tables = wanted
            }
        }
        let bound = ZSTD_compressBound(input.count)
        output.reserve(bound)
        let count = ZSTD_compress2(context, output.base, bound, input.baseAddress, input.count)
        guard ZSTD_isError(count) == 0 else {
            throw BundleError(.library, "compress", "a frame", ZstdDecompressor.reason(count))
        }
        output.count = count
    }
}
