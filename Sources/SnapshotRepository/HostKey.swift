package import AgeEncryption
import Crypto
package import SnapshotModel

/// HMAC and key derivation as format.md sections 4 and 6 have them.
enum Authentication {
    static func derive(secret: [UInt8], repository: RepositoryID, info: String) -> SymmetricKey {
        HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: secret), salt: repository.bytes,
            info: Array(info.utf8),
            outputByteCount: 32)
    }

    static func mac(_ key: SymmetricKey, _ pieces: [UnsafeRawBufferPointer]) -> [UInt8] {
        var hmac = HMAC<SHA256>(key: key)
        for piece in pieces { hmac.update(data: piece) }
        return Array(hmac.finalize())
    }

    static func mac(_ key: SymmetricKey, _ message: [UInt8]) -> [UInt8] {
        message.withUnsafeBytes { mac(key, [$0]) }
    }

    /// Takes the same time wherever the first difference is.
    static func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        for index in left.indices { difference |= left[index] ^ right[index] }
        return difference == 0
    }

    static func digest<Kind>(_ bytes: [UInt8]) -> Identifier<Kind> {
        let digest = SHA256.hash(data: bytes)
        return digest.withUnsafeBytes { Identifier(reading: $0.baseAddress!) }
    }

    static func randomBytes(_ count: Int) -> [UInt8] {
        SymmetricKey(size: SymmetricKeySize(bitCount: count * 8)).withUnsafeBytes(Array.init)
    }
}

/// The host key of one repository: opens everything but bundles, and authenticates records.
package struct HostKey: Sendable {
    package let identity: X25519Identity
    let repository: RepositoryID

    package init(identity: X25519Identity, repository: RepositoryID) {
        self.identity = identity
        self.repository = repository
    }

    func macKey(_ kind: String) -> SymmetricKey {
        Authentication.derive(
            secret: identity.secretBytes, repository: repository, info: "batchsync/mac/\(kind)")
    }
}
