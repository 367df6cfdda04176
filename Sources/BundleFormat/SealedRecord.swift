package import AgeEncryption
internal import SnapshotModel

/// Whole objects that fit in memory: seal(compress(plain text)), as every record is (format.md
/// section 6).
package enum SealedRecord {
    /// - Parameter recipients: Empty for a repository without encryption.
    package static func seal(
        _ plaintext: UnsafeRawBufferPointer, level: Int, recipients: [AgeRecipient]
    ) throws(BundleError) -> [UInt8] {
        let compressed = ByteBuffer(capacity: 4096)
        try ZstdCompressor(level: level).compress(plaintext, into: compressed)
        guard !recipients.isEmpty else { return compressed.array }
        do throws(AgeError) {
            var encryptor = try AgeEncryptor(recipients: recipients)
            var output: [UInt8] = []
            output.reserveCapacity(
                AgePayload.sealedLength(
                    plaintextLength: compressed.count, headerBytes: encryptor.headerBytes))
            try encryptor.update(compressed.bytes) { output.append(contentsOf: $0) }
            try encryptor.finish { output.append(contentsOf: $0) }
            return output
        } catch {
            throw BundleError(error, "seal", "a record")
        }
    }

    /// The plain text of `object`.
    ///
    /// - Parameters:
    ///   - identities: Empty for a repository without encryption.
    ///   - maximumBytes: A record that states more is refused before memory is taken for it.
    package static func open(
        _ object: UnsafeRawBufferPointer, identities: [AgeIdentity], maximumBytes: Int
    ) throws(BundleError) -> [UInt8] {
        if identities.isEmpty { return try decompress(object, maximumBytes) }
        let compressed: [UInt8]
        do throws(AgeError) {
            compressed = try AgePayload.openAll(object, identities: identities)
        } catch {
            throw BundleError(error, "open", "a record")
        }
        return try compressed.withRawBytes { bytes throws(BundleError) in
            try decompress(bytes, maximumBytes)
        }
    }

    private static func decompress(
        _ bytes: UnsafeRawBufferPointer, _ maximumBytes: Int
    ) throws(BundleError) -> [UInt8] {
        let header: ZstdFrameHeader
        do throws(ZstdFrameHeader.Failure) {
            header = try ZstdFrameHeader(bytes, maximumContent: maximumBytes)
        } catch {
            switch error {
            case .needsMoreBytes:
                throw BundleError(
                    .malformed, "open", "a record", "it ends within its zstd header")
            case .refused(let kind, let cause):
                throw BundleError(kind, "open", "a record", cause)
            }
        }
        let zstd = try ZstdDecompressor()
        var failure: String?
        let plaintext = [UInt8](unsafeUninitializedCapacity: Int(header.contentBytes)) {
            output, count in
            failure = zstd.decompress(
                bytes,
                into: UnsafeMutableRawBufferPointer(
                    rebasing: UnsafeMutableRawBufferPointer(output)[..<Int(header.contentBytes)]))
            count = failure == nil ? Int(header.contentBytes) : 0
        }
        if let failure { throw BundleError(.damaged, "open", "a record", failure) }
        return plaintext
    }
}
