import Crypto
package import ObjectStorage

/// The conformance suite of a store, for tests.
package enum StoreContract {
    /// Runs every check against `store` and gives the promises that were broken, each with how;
    /// empty for a store that keeps the contract.
    package static func run(
        _ store: any ObjectStore, prefix: String = "contract/", listedObjects: Int = 1_100
    ) -> [String] {
        let conformance = StoreConformance(
            of: store, prefix: prefix, listedObjects: listedObjects, digest: { sha256($0) })
        var broken: [String] = []
        let isKept = conformance.run { outcome in
            if case .broken(let how) = outcome.verdict {
                broken.append("\(outcome.promise.claim): \(how)")
            }
        }
        precondition(isKept == broken.isEmpty)
        return broken
    }
}

/// The SHA-256 of `bytes`.
package func sha256(_ bytes: [UInt8]) -> [UInt8] { Array(SHA256.hash(data: bytes)) }

/// The SHA-256 of `bytes` as an object name states it.
package func sha256Hex(_ bytes: [UInt8]) -> String {
    sha256(bytes).map { byte in
        let digits = String(byte, radix: 16)
        return digits.count == 1 ? "0" + digits : digits
    }.joined()
}

extension ObjectStore {
    /// Puts `bytes` with their digest.
    package func put(_ bytes: [UInt8], at key: ObjectKey) throws(StorageError) {
        try put(ObjectContent(bytes: bytes, digest: sha256(bytes)), at: key)
    }
}
