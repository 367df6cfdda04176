import Crypto
import SnapshotModel

/// HMAC-SHA256 under a derived key, put together from sections 4 and 6 of docs/format.md and from
/// RFC 2104 and 5869.
func hmacByHand(secret: [UInt8], salt: [UInt8], info: String, message: [UInt8]) throws -> String {
    func hmac(_ key: [UInt8], _ message: [UInt8]) -> [UInt8] {
        var block = key.count > 64 ? Array(SHA256.hash(data: key)) : key
        block += [UInt8](repeating: 0, count: 64 - block.count)
        let inner = Array(SHA256.hash(data: block.map { $0 ^ 0x36 } + message))
        return Array(SHA256.hash(data: block.map { $0 ^ 0x5C } + inner))
    }
    let key = hmac(hmac(salt, secret), Array(info.utf8) + [1])
    return Hex.text(hmac(key, message))
}

func macByHand(secret: [UInt8], repository: String, kind: String, payload: [UInt8]) throws -> String
{
    try hmacByHand(
        secret: secret, salt: Hex.bytes(repository)!, info: "batchsync/mac/\(kind)",
        message: Array("batchsync 1\n\(kind)\n\(repository)\n".utf8) + payload)
}
