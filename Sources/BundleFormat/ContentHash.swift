internal import CLibXXHash
internal import Crypto
package import SnapshotModel

/// Digests of bytes that are all there.
package enum ContentHash {
    /// The SHA-256 of `bytes`, as the name that it becomes.
    package static func sha256<Kind>(_ bytes: UnsafeRawBufferPointer) -> Identifier<Kind> {
        var hash = SHA256()
        hash.update(bufferPointer: bytes)
        return hash.finalize().withUnsafeBytes { Identifier(reading: $0.baseAddress!) }
    }

    /// The XXH3-128, seed 0, of `bytes`.
    package static func fingerprint(_ bytes: UnsafeRawBufferPointer) -> Fingerprint {
        let hash = batchsync_xxh3_128bits(bytes.baseAddress, bytes.count)
        return Fingerprint(high: hash.high64, low: hash.low64)
    }
}

/// A SHA-256 in progress.
package struct DigestStream: Sendable {
    private var hash = SHA256()

    package init() {}

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        hash.update(bufferPointer: bytes)
    }

    /// The digest of everything so far; more may follow.
    package func finish<Kind>() -> Identifier<Kind> {
        hash.finalize().withUnsafeBytes { Identifier(reading: $0.baseAddress!) }
    }
}

/// An MD5 in progress: what stores show for an object, and nothing that is relied on.
struct MD5Stream: Sendable {
    private var hash = Insecure.MD5()

    mutating func update(_ bytes: UnsafeRawBufferPointer) { hash.update(bufferPointer: bytes) }

    func finish() -> [UInt8] { Array(hash.finalize()) }
}

/// An XXH3-128 in progress. One thread at a time.
package final class FingerprintStream: @unchecked Sendable {
    // Sendable: has one owner at a time, which hands it over whole.
    private let state: OpaquePointer

    package init() {
        guard let state = XXH3_createState() else { fatalError("out of memory") }
        self.state = state
        XXH3_128bits_reset(state)
    }

    deinit { XXH3_freeState(state) }

    /// Forgets what was seen, for the next content.
    package func reset() { XXH3_128bits_reset(state) }

    package func update(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count > 0 else { return }
        _ = batchsync_xxh3_128bits_update(state, bytes.baseAddress, bytes.count)
    }

    /// The fingerprint of everything so far; more may follow.
    package func finish() -> Fingerprint {
        let hash = XXH3_128bits_digest(state)
        return Fingerprint(high: hash.high64, low: hash.low64)
    }
}
