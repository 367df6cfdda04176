package import AgeEncryption
internal import SnapshotModel

/// Puts frames one behind the other into one bundle: the random frame, the frames, the end of the
/// archive; sealed, digested and handed on as the bytes come.
///
/// One thread at a time. After an error the bundle is lost, and every further call throws the same
/// error.
package final class BundleWriter: @unchecked Sendable {
    // Sendable: has one owner at a time, which hands it over whole.
    package let kind: BundleKind
    /// Bytes of plain text so far.
    package private(set) var plainBytes = 0
    /// Stored bytes so far.
    package private(set) var storedBytes = 0
    private let emit: (UnsafeRawBufferPointer) throws -> Void
    private var encryptor: AgeEncryptor?
    private var digest = DigestStream()
    private var md5: MD5Stream?
    private var frames: [FrameRecord] = []
    private var endsArchive = false
    private var failure: BundleError?

    static let skippableMagic: UInt32 = 0x184D_2A50
    static let randomBytes = 16
    /// Of the skippable frame that opens every bundle.
    static let prefixBytes = 8 + randomBytes

    /// - Parameters:
    ///   - recipients: Empty for a repository without encryption.
    ///   - wantsMD5: For stores whose listings show it; costs as much as a second digest.
    ///   - emit: Takes the stored bytes in order, valid during the call only. What it throws comes
    ///     back as `.output` with the error itself in `underlying`.
    package init(
        kind: BundleKind, recipients: [AgeRecipient], wantsMD5: Bool,
        emit: @escaping (UnsafeRawBufferPointer) throws -> Void
    ) throws(BundleError) {
        self.kind = kind
        self.emit = emit
        md5 = wantsMD5 ? MD5Stream() : nil
        if recipients.isEmpty {
            encryptor = nil
        } else {
            do throws(AgeError) {
                encryptor = try AgeEncryptor(recipients: recipients)
            } catch {
                throw BundleError(error, "seal", "a bundle")
            }
        }
        var generator = SystemRandomNumberGenerator()
        let prefix = ByteBuffer(capacity: 64)
        withUnsafeBytes(of: Self.skippableMagic.littleEndian) { prefix.append($0) }
        withUnsafeBytes(of: UInt32(Self.randomBytes).littleEndian) { prefix.append($0) }
        for _ in 0..<Self.randomBytes {
            prefix.append(UInt8.random(in: 0...255, using: &generator))
        }
        try write(prefix.bytes)
    }

    /// Whether it is time to finish.
    package var isFull: Bool { plainBytes >= BundleLimits.bundleBytes }
    package var frameCount: Int { frames.count }

    /// Appends one frame. Its bytes may be used again when this returns.
    package func append(_ frame: CompressedFrame) throws(BundleError) {
        precondition(!endsArchive, "the archive has ended")
        let offset = plainBytes
        try write(frame.bytes.bytes)
        frames.append(
            FrameRecord(
                offset: offset, length: frame.bytes.count, raw: frame.rawLength,
                fingerprint: frame.fingerprint, chunks: frame.chunks))
        endsArchive = frame.endsArchive
    }

    /// Ends the archive, where no frame has, and the seal. All bytes have been emitted when this
    /// returns.
    package func finish() throws(BundleError) -> SealedBundle {
        if !endsArchive { try append(Self.makeEnd()) }
        if let failure { throw failure }
        if let encryptor = encryptor.take() {
            do throws(AgeError) {
                try encryptor.finish { self.output($0) }
            } catch {
                throw fail(BundleError(error, "seal", "a bundle"))
            }
            if let failure { throw failure }
        }
        return SealedBundle(
            id: digest.finish(), kind: kind, size: storedBytes, plain: plainBytes,
            md5: md5?.finish(), frames: frames)
    }

    /// A frame that holds the end-of-archive mark alone. Which frame is the last is known only when
    /// its compressed size is, and by then another thread has long compressed it.
    private static func makeEnd() throws(BundleError) -> CompressedFrame {
        let frame = FrameBuilder()
        frame.appendEndOfArchive()
        return try FrameCompressor(level: 1).compress(frame, into: ByteBuffer(capacity: 2048))
    }

    private func write(_ bytes: UnsafeRawBufferPointer) throws(BundleError) {
        if let failure { throw failure }
        plainBytes += bytes.count
        if encryptor == nil {
            output(bytes)
        } else {
            do throws(AgeError) {
                try encryptor!.update(bytes) { self.output($0) }
            } catch {
                throw fail(BundleError(error, "seal", "a bundle"))
            }
        }
        if let failure { throw failure }
    }

    private func output(_ bytes: UnsafeRawBufferPointer) {
        guard failure == nil else { return }
        digest.update(bytes)
        md5?.update(bytes)
        storedBytes += bytes.count
        do {
            try emit(bytes)
        } catch {
            failure = BundleError(
                .output, "write", "a bundle", String(describing: error), underlying: error)
        }
    }

    private func fail(_ error: BundleError) -> BundleError {
        failure = error
        return error
    }
}
