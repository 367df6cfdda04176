/// One opening in progress, of a file whose length is not known: any number of `update`, `finish`.
///
/// Plaintext goes through the closure as it authenticates, chunk by chunk, valid during the call
/// only. That the file is whole is known only when `finish` returns; until then what came out is a
/// true beginning of it and nothing more. After an error every further call throws the same error.
package struct AgeDecryptor: ~Copyable {
    private let identities: [AgeIdentity]
    private var payload: AgePayload?
    /// The header as far as it has come, later the chunk that waits for what follows it.
    private var pending: [UInt8] = []
    /// Parsing is tried again only when the header has doubled, so that single bytes cost no
    /// square.
    private var nextAttempt = 0
    private var chunk = 0
    private var failure: AgeError?

    package init(identities: [AgeIdentity]) {
        self.identities = identities
    }

    /// Takes the next bytes of the file, of any length.
    package mutating func update(
        _ bytes: UnsafeRawBufferPointer, _ emit: (UnsafeRawBufferPointer) -> Void
    ) throws(AgeError) {
        if let failure { throw failure }
        do throws(AgeError) {
            try take(bytes, emit)
        } catch {
            failure = error
            throw error
        }
    }

    /// Opens the last chunk, and throws when the file does not end there.
    package consuming func finish(_ emit: (UnsafeRawBufferPointer) -> Void) throws(AgeError) {
        if let failure { throw failure }
        if payload == nil {
            do throws(AgeError) {
                try readHeader(emit)
            } catch {
                throw error.whenNothingFollows
            }
        }
        guard pending.count >= PayloadCipher.tagBytes else {
            throw .payload("it is cut off within chunk \(chunk)")
        }
        guard pending.count > PayloadCipher.tagBytes || chunk == 0 else {
            throw .payload("its last chunk is empty though others precede it")
        }
        if openPending(isLast: true, emit) { return }
        if pending.count == PayloadCipher.sealedChunkBytes, openPending(isLast: false, emit) {
            throw .payload("it is cut off behind chunk \(chunk)")
        }
        throw .chunk(chunk, AgePayload.damage)
    }

    private mutating func take(
        _ bytes: UnsafeRawBufferPointer, _ emit: (UnsafeRawBufferPointer) -> Void
    ) throws(AgeError) {
        if payload != nil {
            return try takeChunks(bytes, emit)
        }
        pending.append(contentsOf: bytes)
        guard pending.count >= nextAttempt else { return }
        do throws(AgeError) {
            try readHeader(emit)
        } catch  where error.kind == .needsMoreBytes {
            nextAttempt = min(2 * pending.count, AgePayload.maximumHeaderBytes)
        }
    }

    private mutating func readHeader(
        _ emit: (UnsafeRawBufferPointer) -> Void
    ) throws(AgeError) {
        let identities = identities
        let opened = try pending.withUnsafeBufferPointer { bytes throws(AgeError) in
            try AgePayload.open(prefix: UnsafeRawBufferPointer(bytes), identities: identities)
        }
        payload = opened
        let rest = Array(pending[opened.headerBytes...])
        pending = []
        try rest.withUnsafeBufferPointer { bytes throws(AgeError) in
            try takeChunks(UnsafeRawBufferPointer(bytes), emit)
        }
    }

    private mutating func takeChunks(
        _ bytes: UnsafeRawBufferPointer, _ emit: (UnsafeRawBufferPointer) -> Void
    ) throws(AgeError) {
        guard let cipher = payload?.cipher else { return }
        var rest = bytes
        if !pending.isEmpty {
            let count = min(PayloadCipher.sealedChunkBytes - pending.count, rest.count)
            pending.append(contentsOf: UnsafeRawBufferPointer(rebasing: rest[..<count]))
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            // A full chunk waits until it is known whether anything follows it.
            guard !rest.isEmpty else { return }
            guard openPending(isLast: false, emit) else {
                if openPending(isLast: true, emit) { throw Self.trailing(chunk) }
                throw .chunk(chunk, AgePayload.damage)
            }
            chunk += 1
            pending.removeAll(keepingCapacity: true)
        }
        while rest.count > PayloadCipher.sealedChunkBytes {
            let sealed = UnsafeRawBufferPointer(
                rebasing: rest[..<PayloadCipher.sealedChunkBytes])
            guard cipher.open(sealed, chunk: chunk, isLast: false, emit) else {
                if cipher.open(sealed, chunk: chunk, isLast: true, emit) {
                    throw Self.trailing(chunk)
                }
                throw .chunk(chunk, AgePayload.damage)
            }
            chunk += 1
            rest = UnsafeRawBufferPointer(rebasing: rest[PayloadCipher.sealedChunkBytes...])
        }
        if pending.capacity == 0, !rest.isEmpty {
            pending.reserveCapacity(PayloadCipher.sealedChunkBytes)
        }
        pending.append(contentsOf: rest)
    }

    private func openPending(
        isLast: Bool, _ emit: (UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        guard let cipher = payload?.cipher else { return false }
        return pending.withUnsafeBytes {
            cipher.open($0, chunk: chunk, isLast: isLast, emit)
        }
    }

    private static func trailing(_ chunk: Int) -> AgeError {
        .payload("bytes follow chunk \(chunk), which is marked as the last one")
    }
}
