import Crypto

/// One sealing in progress: `start`, any number of `update`, `finish`.
///
/// Output goes through the closure as raw bytes that are valid during the call only. Whole chunks
/// are sealed straight from the input; what does not fill one, at most 64 KiB, is kept until more
/// comes, because the last chunk must be marked as such.
package struct AgeEncryptor: ~Copyable {
    /// Header and nonce.
    private let prologue: [UInt8]
    private let cipher: PayloadCipher
    private var isStarted = false
    private var chunk = 0
    private var pending: [UInt8] = []

    /// The work factors that may be written; other readers refuse more than 22 by default.
    package static let workFactors = 1...22

    /// Draws a file key and wraps it for all `recipients`. With a passphrase this takes scrypt's
    /// time and memory. Throws `.malformedRecipient` for an empty set, an empty passphrase, or a
    /// passphrase beside other recipients, and `.excessiveWork` for a work factor out of bounds.
    package init(recipients: [AgeRecipient]) throws(AgeError) {
        guard !recipients.isEmpty else {
            throw AgeError(.malformedRecipient, .seal, "an age file", "it has no recipient")
        }
        let fileKey = SymmetricKey(size: .bits128)
        var stanzas: [AgeHeader.Stanza] = []
        for recipient in recipients {
            switch recipient {
            case .x25519(let key):
                stanzas.append(try AgeHeader.Stanza(wrapping: fileKey, for: key))
            case .scrypt(let passphrase, let workFactor):
                try Self.check(passphrase, workFactor, isAlone: recipients.count == 1)
                stanzas.append(
                    try AgeHeader.Stanza(
                        wrapping: fileKey, passphrase: passphrase, workFactor: workFactor))
            }
        }
        let text = AgeHeader.authenticatedBytes(stanzas)
        let code = HMAC<SHA256>.authenticationCode(
            for: text, using: AgePayload.macKey(fileKey: fileKey))
        let header = AgeHeader(stanzas: stanzas, mac: Array(code)).encoded()
        guard header.count <= AgeHeader.maximumBytes else {
            throw AgeError(
                .malformedRecipient, .seal, "an age file",
                "a header for \(recipients.count) recipients is longer than 64 KiB")
        }
        let nonce = randomBytes(PayloadCipher.nonceBytes)
        prologue = header + nonce
        cipher = PayloadCipher(fileKey: fileKey, nonce: nonce)
    }

    private static func check(
        _ passphrase: [UInt8], _ workFactor: Int, isAlone: Bool
    ) throws(AgeError) {
        guard isAlone else {
            throw AgeError(
                .malformedRecipient, .seal, "an age file",
                "a passphrase cannot stand beside other recipients")
        }
        guard !passphrase.isEmpty else {
            throw AgeError(.malformedRecipient, .seal, "an age file", "the passphrase is empty")
        }
        guard workFactors.contains(workFactor) else {
            throw AgeError(
                .excessiveWork, .seal, "an age file",
                "work factor \(workFactor) is not within \(workFactors)")
        }
    }

    /// Length of header and nonce in bytes: where the first chunk begins.
    package var headerBytes: Int { prologue.count }

    /// Emits header and nonce. The first `update` or `finish` does it where this was not called.
    package mutating func start(_ emit: (UnsafeRawBufferPointer) -> Void) {
        guard !isStarted else { return }
        isStarted = true
        prologue.withUnsafeBytes(emit)
    }

    /// Takes the next bytes of the plaintext, of any length, and emits the chunks that are whole.
    package mutating func update(
        _ bytes: UnsafeRawBufferPointer, _ emit: (UnsafeRawBufferPointer) -> Void
    ) throws(AgeError) {
        start(emit)
        var rest = bytes
        if !pending.isEmpty {
            let count = min(PayloadCipher.chunkBytes - pending.count, rest.count)
            pending.append(contentsOf: UnsafeRawBufferPointer(rebasing: rest[..<count]))
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            // A full chunk waits too: it may be the last one.
            guard !rest.isEmpty else { return }
            try sealPending(isLast: false, emit)
        }
        while rest.count > PayloadCipher.chunkBytes {
            try cipher.seal(
                UnsafeRawBufferPointer(rebasing: rest[..<PayloadCipher.chunkBytes]),
                chunk: chunk, isLast: false, emit)
            chunk += 1
            rest = UnsafeRawBufferPointer(rebasing: rest[PayloadCipher.chunkBytes...])
        }
        if pending.capacity == 0, !rest.isEmpty {
            pending.reserveCapacity(PayloadCipher.chunkBytes)
        }
        pending.append(contentsOf: rest)
    }

    /// Emits the last chunk. Without this the file is cut off, and readers will say so.
    package consuming func finish(_ emit: (UnsafeRawBufferPointer) -> Void) throws(AgeError) {
        start(emit)
        try sealPending(isLast: true, emit)
    }

    private mutating func sealPending(
        isLast: Bool, _ emit: (UnsafeRawBufferPointer) -> Void
    ) throws(AgeError) {
        let (cipher, chunk) = (cipher, chunk)
        try pending.withUnsafeBufferPointer { bytes throws(AgeError) in
            try cipher.seal(UnsafeRawBufferPointer(bytes), chunk: chunk, isLast: isLast, emit)
        }
        self.chunk += 1
        pending.removeAll(keepingCapacity: true)
    }

    /// Seals `plaintext` in one go.
    package static func seal(
        _ plaintext: [UInt8], to recipients: [AgeRecipient]
    ) throws(AgeError) -> [UInt8] {
        var encryptor = try AgeEncryptor(recipients: recipients)
        var output: [UInt8] = []
        output.reserveCapacity(
            AgePayload.sealedLength(
                plaintextLength: plaintext.count, headerBytes: encryptor.headerBytes))
        try plaintext.withUnsafeBufferPointer { bytes throws(AgeError) in
            try encryptor.update(UnsafeRawBufferPointer(bytes)) { output.append(contentsOf: $0) }
        }
        try encryptor.finish { output.append(contentsOf: $0) }
        return output
    }
}
