package import AgeEncryption
package import SnapshotModel

/// How to read ranges of one bundle: where its plain text lies in the stored bytes, and the key.
package struct BundleAccess: Sendable {
    private let payload: AgePayload?

    /// Of a bundle that is not sealed.
    package static let plain = BundleAccess(payload: nil)

    /// A prefix that is enough for a score of recipients; `maximumPrefixBytes` is always enough.
    package static let usualPrefixBytes = 4096
    package static let maximumPrefixBytes = AgePayload.maximumHeaderBytes

    /// Opens the seal of a bundle, given its first stored bytes.
    ///
    /// - Throws: `.needsMoreBytes` where `prefix` is too short, `.noIdentity`, `.damaged`,
    ///   `.malformed`.
    package static func open(
        prefix: UnsafeRawBufferPointer, identities: [AgeIdentity]
    ) throws(BundleError) -> BundleAccess {
        do throws(AgeError) {
            return BundleAccess(
                payload: try AgePayload.open(prefix: prefix, identities: identities))
        } catch {
            throw BundleError(error, "open", "a bundle")
        }
    }

    /// Stored bytes before the first sealed one.
    package var headerBytes: Int { payload?.headerBytes ?? 0 }

    /// Length of the plain text of a bundle with `storedSize` bytes.
    package func plainLength(storedSize: Int) throws(BundleError) -> Int {
        guard let payload else { return storedSize }
        do throws(AgeError) {
            return try AgePayload.plaintextLength(
                sealedLength: storedSize, headerBytes: payload.headerBytes)
        } catch {
            throw BundleError(error, "read", "a bundle")
        }
    }

    /// The stored bytes that must be fetched for `length` bytes of plain text from `offset` on.
    package func sealedRange(
        offset: Int, length: Int, storedSize: Int
    ) throws(BundleError) -> Range<Int> {
        let plain = try Self.range(offset, length, try plainLength(storedSize: storedSize))
        guard let payload else { return plain }
        do throws(AgeError) {
            return try AgePayload.sealedRange(
                for: plain, sealedLength: storedSize, headerBytes: payload.headerBytes)
        } catch {
            throw BundleError(error, "read", "a bundle")
        }
    }

    /// Replaces what `output` holds by `length` bytes of plain text from `offset` on. `sealed` is
    /// exactly what `sealedRange` names. What comes out has been authenticated, where there is a
    /// seal.
    package func open(
        _ sealed: UnsafeRawBufferPointer, offset: Int, length: Int, storedSize: Int,
        into output: ByteBuffer
    ) throws(BundleError) {
        output.removeAll()
        let plain = try Self.range(offset, length, try plainLength(storedSize: storedSize))
        guard let payload else {
            guard sealed.count == length else {
                throw BundleError(
                    .malformed, "read", "a bundle",
                    "\(sealed.count) bytes were fetched where \(length) were asked for")
            }
            output.append(sealed)
            return
        }
        output.reserve(length)
        do throws(AgeError) {
            try payload.open(
                sealed, plain: plain, sealedLength: storedSize,
                into: UnsafeMutableRawBufferPointer(start: output.base, count: length))
        } catch {
            throw BundleError(error, "open", "a bundle")
        }
        output.count = length
    }

    private static func range(
        _ offset: Int, _ length: Int, _ plainLength: Int
    ) throws(BundleError) -> Range<Int> {
        guard offset >= 0, length >= 0, offset <= plainLength, length <= plainLength - offset else {
            throw BundleError(
                .malformed, "read", "a bundle",
                "bytes \(offset) and \(length) more do not lie in its \(plainLength)")
        }
        return offset..<offset + length
    }
}
