import Crypto

/// What a header yields: the payload's key, and where the payload begins. Opens whole objects and
/// byte ranges of them; `AgeDecryptor` opens streams.
package struct AgePayload: Sendable {
    /// Length of the header and the 16 byte nonce behind it: offset of the first sealed chunk.
    package let headerBytes: Int

    let cipher: PayloadCipher

    /// A prefix of this many bytes holds any header that is accepted, and its nonce.
    package static let maximumHeaderBytes = AgeHeader.maximumBytes + PayloadCipher.nonceBytes

    // MARK: The header

    /// Opens the header at the beginning of an object.
    ///
    /// `prefix` is the object's first bytes. When they do not hold header and nonce, the error is
    /// `.needsMoreBytes`; a prefix of `maximumHeaderBytes`, or the whole object, is always enough.
    /// With a passphrase and a scrypt stanza this takes the time and memory that the file asks for,
    /// up to the identity's limit.
    package static func open(
        prefix: UnsafeRawBufferPointer, identities: [AgeIdentity]
    ) throws(AgeError) -> AgePayload {
        let (header, byteCount) = try AgeHeader.parse(prefix)
        var stanzas: [NativeStanza] = []
        for (index, stanza) in header.stanzas.enumerated() {
            stanzas.append(try NativeStanza(stanza, number: index + 1))
        }
        // A passphrase also promises who sealed the file; a second recipient would break that.
        let hasScrypt = stanzas.contains { if case .scrypt = $0 { true } else { false } }
        guard !hasScrypt || stanzas.count == 1 else {
            throw .header("a scrypt stanza stands beside others")
        }
        guard prefix.count >= byteCount + PayloadCipher.nonceBytes else { throw .needsMoreBytes }

        let fileKey = try unwrap(stanzas, identities)
        // What the MAC covers ends with the mark --- in front of the space and the MAC itself.
        let covered = byteCount - 1 - 43 - 1
        guard
            HMAC<SHA256>.isValidAuthenticationCode(
                header.mac, authenticating: UnsafeRawBufferPointer(rebasing: prefix[..<covered]),
                using: macKey(fileKey: fileKey))
        else {
            throw AgeError(
                .headerMACMismatch, .open, "the age header",
                "its MAC does not match: it was changed after sealing")
        }
        let headerBytes = byteCount + PayloadCipher.nonceBytes
        return AgePayload(
            headerBytes: headerBytes,
            cipher: PayloadCipher(
                fileKey: fileKey, nonce: Array(prefix[byteCount..<headerBytes])))
    }

    static func macKey(fileKey: SymmetricKey) -> SymmetricKey {
        HKDF<SHA256>.deriveKey(
            inputKeyMaterial: fileKey, salt: [UInt8](), info: Array("header".utf8),
            outputByteCount: 32)
    }

    private static func unwrap(
        _ stanzas: [NativeStanza], _ identities: [AgeIdentity]
    ) throws(AgeError) -> SymmetricKey {
        for identity in identities {
            for (index, stanza) in stanzas.enumerated() {
                switch (identity, stanza) {
                case (.x25519(let identity), .x25519(let share, let body)):
                    if let key = try identity.unwrap(share: share, body: body, number: index + 1) {
                        return key
                    }
                case (.scrypt(let passphrase, let maximum), .scrypt(let salt, let work, let body)):
                    // Beyond 2^40 KiB no limit of a caller makes sense, and shifts would overflow.
                    guard work <= min(maximum, 40) else {
                        throw AgeError(
                            .excessiveWork, .open, "the age header",
                            "its scrypt work factor is above the limit of \(maximum)")
                    }
                    guard !passphrase.isEmpty else { continue }
                    let key = try Scrypt.wrapKey(passphrase, salt: salt, workFactor: work, .open)
                    if let fileKey = FileKeyCipher.unwrap(body, using: key) { return fileKey }
                default:
                    continue
                }
            }
        }
        throw AgeError(
            .noMatchingIdentity, .open, "the age header", reason(stanzas, identities.count))
    }

    /// Says what the file is sealed to, so that a user knows which key to look for.
    private static func reason(_ stanzas: [NativeStanza], _ identities: Int) -> String {
        var recipients = 0
        var others: [String] = []
        for stanza in stanzas {
            switch stanza {
            case .scrypt:
                return identities == 0
                    ? "it is sealed with a passphrase, and none was given"
                    : "it is sealed with a passphrase, which none of the \(identities) given is"
            case .x25519: recipients += 1
            case .other(let type): others.append(type)
            }
        }
        var text = "it is sealed to \(recipients) X25519 recipient\(recipients == 1 ? "" : "s")"
        if !others.isEmpty {
            let named = others.prefix(3).map { $0.prefix(40) }.joined(separator: ", ")
            text += " and \(others.count) of other types (\(named))"
        }
        return text + ", and none of the \(identities) identities given opens it"
    }

    // MARK: Lengths and ranges

    /// Length of the plaintext of an object of `sealedLength` bytes. Throws `.payload` for lengths
    /// that no object has. Nothing is authenticated by this.
    package static func plaintextLength(
        sealedLength: Int, headerBytes: Int
    ) throws(AgeError) -> Int {
        try PayloadLayout(sealedLength: sealedLength, headerBytes: headerBytes).plainBytes
    }

    /// Length of the object whose plaintext has `plaintextLength` bytes.
    package static func sealedLength(plaintextLength: Int, headerBytes: Int) -> Int {
        let chunks = max(1, (plaintextLength - 1) / PayloadCipher.chunkBytes + 1)
        return headerBytes + plaintextLength + chunks * PayloadCipher.tagBytes
    }

    /// Range of sealed bytes (offsets in the whole object) that must be fetched to open `plain`
    /// (offsets in the plaintext). Empty for an empty range, unless the whole payload is empty.
    package static func sealedRange(
        for plain: Range<Int>, sealedLength: Int, headerBytes: Int
    ) throws(AgeError) -> Range<Int> {
        let layout = try PayloadLayout(sealedLength: sealedLength, headerBytes: headerBytes)
        return layout.sealedRange(of: try layout.chunks(for: plain))
    }

    /// Opens a fetched range into `output`, which has exactly the length of `plain`; `sealed` is
    /// exactly `sealedRange(for: plain, …)`.
    ///
    /// Only authenticated bytes are written, and none outside of the range; after an error, output
    /// may hold the part that was opened before it. Whether the object was cut off behind the
    /// range is known only where the range includes the last chunk.
    package func open(
        _ sealed: UnsafeRawBufferPointer, plain: Range<Int>, sealedLength: Int,
        into output: UnsafeMutableRawBufferPointer
    ) throws(AgeError) {
        let layout = try PayloadLayout(sealedLength: sealedLength, headerBytes: headerBytes)
        let chunks = try layout.chunks(for: plain)
        guard sealed.count == layout.sealedRange(of: chunks).count else {
            throw .range("\(sealed.count) sealed bytes are not what the range lies in")
        }
        guard output.count == plain.count else {
            throw .range("output has \(output.count) bytes for \(plain.count)")
        }
        var offset = 0
        for chunk in chunks {
            let size = min(PayloadCipher.sealedChunkBytes, sealed.count - offset)
            let start = chunk * PayloadCipher.chunkBytes
            let isOpen = cipher.open(
                UnsafeRawBufferPointer(rebasing: sealed[offset..<offset + size]), chunk: chunk,
                isLast: chunk == layout.chunks - 1
            ) { bytes in
                let wanted = plain.clamped(to: start..<start + bytes.count)
                guard !wanted.isEmpty else { return }
                let source = bytes[wanted.lowerBound - start..<wanted.upperBound - start]
                let target = output[(wanted.lowerBound - plain.lowerBound)...]
                UnsafeMutableRawBufferPointer(rebasing: target)
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: source))
            }
            guard isOpen else { throw .chunk(chunk, Self.damage) }
            offset += size
        }
    }

    static let damage = "it does not authenticate: it is damaged, displaced or cut off"

    /// Opens a whole object, header included. Nothing is returned unless all of it authenticates.
    package static func openAll(
        _ object: UnsafeRawBufferPointer, identities: [AgeIdentity]
    ) throws(AgeError) -> [UInt8] {
        let payload: AgePayload
        do {
            payload = try open(prefix: object, identities: identities)
        } catch {
            throw error.whenNothingFollows
        }
        let layout = try PayloadLayout(
            sealedLength: object.count, headerBytes: payload.headerBytes)
        let sealed = UnsafeRawBufferPointer(rebasing: object[payload.headerBytes...])
        var failure: AgeError?
        let plaintext = [UInt8](unsafeUninitializedCapacity: layout.plainBytes) { output, count in
            let plain = 0..<layout.plainBytes
            do throws(AgeError) {
                // The array may have reserved more than was asked for.
                try payload.open(
                    sealed, plain: plain, sealedLength: object.count,
                    into: UnsafeMutableRawBufferPointer(
                        UnsafeMutableBufferPointer(rebasing: output[plain])))
                count = layout.plainBytes
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return plaintext
    }
}
