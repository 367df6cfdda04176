import CScrypt
import Crypto

/// scrypt as RFC 7914 specifies it, with the parameters that age fixes: r = 8, p = 1.
///
/// The mixing is our own, since what a library does with 2^workFactor KiB it does here with a third of
/// them: at the usual factor of 18 that is 90 MB and not 270, for half a second, in about the same
/// time.
enum Scrypt {
    private static let blockBytes = 1024

    static func wrapKey(
        _ passphrase: [UInt8], salt: [UInt8], workFactor: Int, _ operation: AgeError.Operation
    ) throws(AgeError) -> SymmetricKey {
        guard (1...40).contains(workFactor),
            let bytes = derive(
                passphrase, salt: Array("age-encryption.org/v1/scrypt".utf8) + salt,
                workFactor: workFactor, count: 32)
        else {
            throw AgeError(
                .excessiveWork, operation, "a scrypt stanza",
                "work factor \(workFactor) needs \(memoryText(workFactor)) of memory")
        }
        return SymmetricKey(data: bytes)
    }

    /// Nil where the memory is not to be had.
    static func derive(
        _ passphrase: [UInt8], salt: [UInt8], workFactor: Int, count: Int
    ) -> [UInt8]? {
        let key = SymmetricKey(data: passphrase)
        var block = stretch(key, salt, count: blockBytes)
        let result = block.withUnsafeMutableBufferPointer {
            cscrypt_romix($0.baseAddress, 1 << UInt64(workFactor))
        }
        return result == 0 ? stretch(key, block, count: count) : nil
    }

    /// PBKDF2 with HMAC-SHA256 and one iteration: one HMAC over the salt and a number for every 32
    /// bytes.
    private static func stretch(_ key: SymmetricKey, _ salt: [UInt8], count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 32)
        var number: UInt32 = 0
        while bytes.count < count {
            number += 1
            var message = HMAC<SHA256>(key: key)
            message.update(data: salt)
            withUnsafeBytes(of: number.bigEndian) { message.update(data: $0) }
            bytes += message.finalize()
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    private static func memoryText(_ workFactor: Int) -> String {
        (1...40).contains(workFactor) ? "\((1 << workFactor) / 3) KiB" : "too much"
    }
}
