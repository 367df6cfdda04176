import Crypto

/// ChaCha20-Poly1305 over the chunks of a payload: 64 KiB each, the last one marked in its nonce.
package struct PayloadCipher: Sendable {
    package static let chunkBytes = 65_536
    package static let tagBytes = 16
    package static let sealedChunkBytes = chunkBytes + tagBytes
    package static let nonceBytes = 16

    private static let chunkNonceBytes = 12

    private let key: SymmetricKey

    /// Derives the payload's key from the file key and the nonce in front of the first chunk.
    init(fileKey: SymmetricKey, nonce: [UInt8]) {
        key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: fileKey, salt: nonce, info: Array("payload".utf8),
            outputByteCount: 32)
    }

    /// The same from the file key's 16 bytes.
    package init(fileKeyBytes: [UInt8], nonce: [UInt8]) {
        self.init(fileKey: SymmetricKey(data: fileKeyBytes), nonce: nonce)
    }

    /// Seals one chunk. `emit` gets ciphertext and tag, valid during the call only.
    package func seal(
        _ plain: UnsafeRawBufferPointer, chunk: Int, isLast: Bool,
        _ emit: (UnsafeRawBufferPointer) -> Void
    ) throws(AgeError) {
        do {
            let box = try ChaChaPoly.seal(
                plain, using: key, nonce: Self.nonce(chunk: chunk, isLast: isLast))
            // The box is one piece, nonce, ciphertext and tag, so its tail goes out as it is.
            Self.withBytes(of: box.combined) {
                emit(UnsafeRawBufferPointer(rebasing: $0[Self.chunkNonceBytes...]))
            }
        } catch {
            throw AgeError(
                .payload, .seal, "chunk \(chunk) of an age payload", "the cipher failed: \(error)")
        }
    }

    /// Opens one chunk with its tag. False, without a call of `use`, when it does not authenticate;
    /// the plaintext is valid during the call only.
    package func open(
        _ sealed: UnsafeRawBufferPointer, chunk: Int, isLast: Bool,
        _ use: (UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        guard sealed.count >= Self.tagBytes else { return false }
        let split = sealed.count - Self.tagBytes
        guard
            let box = try? ChaChaPoly.SealedBox(
                nonce: Self.nonce(chunk: chunk, isLast: isLast),
                ciphertext: UnsafeRawBufferPointer(rebasing: sealed[..<split]),
                tag: UnsafeRawBufferPointer(rebasing: sealed[split...])),
            let plain = try? ChaChaPoly.open(box, using: key)
        else { return false }
        Self.withBytes(of: plain, use)
        return true
    }

    /// Eleven bytes of counter, big-endian, and one that is 1 for the last chunk.
    private static func nonce(chunk: Int, isLast: Bool) throws -> ChaChaPoly.Nonce {
        try withUnsafeTemporaryAllocation(byteCount: chunkNonceBytes, alignment: 1) { bytes in
            bytes.initializeMemory(as: UInt8.self, repeating: 0)
            bytes.storeBytes(of: UInt64(chunk).bigEndian, toByteOffset: 3, as: UInt64.self)
            bytes[11] = isLast ? 1 : 0
            return try ChaChaPoly.Nonce(data: UnsafeRawBufferPointer(bytes))
        }
    }

    /// The bytes of what the cipher returns, without naming its type.
    private static func withBytes<Bytes: Sequence>(
        of bytes: Bytes, _ use: (UnsafeRawBufferPointer) -> Void
    ) where Bytes.Element == UInt8 {
        let isDone: Void? = bytes.withContiguousStorageIfAvailable {
            use(UnsafeRawBufferPointer($0))
        }
        if isDone == nil {
            Array(bytes).withUnsafeBytes(use)
        }
    }
}

/// Where the chunks of a payload lie: arithmetic on lengths, which an attacker may have chosen.
struct PayloadLayout {
    let headerBytes: Int
    let chunks: Int
    let plainBytes: Int

    /// Refuses lengths that no payload has.
    init(sealedLength: Int, headerBytes: Int) throws(AgeError) {
        guard headerBytes >= 0, sealedLength >= headerBytes else {
            throw .payload("the object of \(sealedLength) bytes ends before its payload")
        }
        let sealed = sealedLength - headerBytes
        guard sealed >= PayloadCipher.tagBytes else {
            throw .payload("it is cut off before its first chunk ends")
        }
        let full = (sealed - 1) / PayloadCipher.sealedChunkBytes
        let last = sealed - full * PayloadCipher.sealedChunkBytes
        guard last >= PayloadCipher.tagBytes else {
            throw .payload("its last chunk is cut off, or something follows it")
        }
        guard last > PayloadCipher.tagBytes || full == 0 else {
            throw .payload("its last chunk is empty though others precede it")
        }
        self.headerBytes = headerBytes
        chunks = full + 1
        plainBytes = sealed - chunks * PayloadCipher.tagBytes
    }

    /// The chunks that hold `plain`. An empty range needs none, but for the one chunk of an empty
    /// payload, which is needed to know that the payload is empty.
    func chunks(for plain: Range<Int>) throws(AgeError) -> Range<Int> {
        guard plain.lowerBound >= 0, plain.upperBound <= plainBytes else {
            throw .range(
                "\(plain.lowerBound)..<\(plain.upperBound) is outside of its \(plainBytes) bytes")
        }
        let first = plain.lowerBound / PayloadCipher.chunkBytes
        if plain.isEmpty {
            return plainBytes == 0 ? 0..<1 : first..<first
        }
        return first..<(plain.upperBound - 1) / PayloadCipher.chunkBytes + 1
    }

    /// Where `chunks` lie, as offsets in the whole object.
    func sealedRange(of chunks: Range<Int>) -> Range<Int> {
        offset(of: chunks.lowerBound)..<offset(of: chunks.upperBound)
    }

    private func offset(of chunk: Int) -> Int {
        chunk == chunks
            ? headerBytes + plainBytes + chunks * PayloadCipher.tagBytes
            : headerBytes + chunk * PayloadCipher.sealedChunkBytes
    }
}
