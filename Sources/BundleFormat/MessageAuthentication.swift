internal import Crypto

/// HMAC-SHA256 and HKDF-SHA256 (RFC 2104, RFC 5869), so that no other room needs the library.
package enum MessageAuthentication {
    /// The code, 32 bytes, over all `pieces` joined.
    package static func hmacSHA256(
        key: [UInt8], _ pieces: [UnsafeRawBufferPointer]
    ) -> [UInt8] {
        var code = HMAC<SHA256>(key: SymmetricKey(data: key))
        for piece in pieces { code.update(data: piece) }
        return Array(code.finalize())
    }

    /// The code, 32 bytes, over all `pieces` joined.
    package static func hmacSHA256(key: [UInt8], _ pieces: [[UInt8]]) -> [UInt8] {
        var code = HMAC<SHA256>(key: SymmetricKey(data: key))
        for piece in pieces { code.update(data: piece) }
        return Array(code.finalize())
    }

    /// `count` bytes of key, at most 8,160.
    package static func hkdfSHA256(
        secret: [UInt8], salt: [UInt8], info: [UInt8], count: Int = 32
    ) -> [UInt8] {
        HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: secret), salt: salt, info: info,
            outputByteCount: count
        ).withUnsafeBytes { Array($0) }
    }

    /// Compares in a time that depends on the lengths only.
    package static func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        for index in left.indices { difference |= left[index] ^ right[index] }
        return difference == 0
    }
}
