import SnapshotModel
import SnapshotRepository
import Synchronization

/// Proves bundles without reading them: what the store itself says of their bytes, against what the
/// index noted when they were stored.
///
/// A listing that shows MD5 sums is there already and costs nothing more. Where it shows none, a
/// store that keeps SHA-256 sums is asked for each bundle, and on demand one that can compute does
/// so where the bytes lie. All of this is the store's word: it finds what was damaged or exchanged
/// at rest, not a store that lies. Reading back finds both.
struct VerifyDigests {
    /// How many bundles were compared, and how.
    struct Counts: Sendable, Equatable {
        var byMD5 = 0
        var bySHA256 = 0
        var computedRemotely = 0
        /// Bundles of which the store says nothing that could be compared.
        var uncompared = 0
    }

    private static let requestsAtOnce = 8
    private static let digestsAtOnce = 500

    let repository: Repository
    let structure: VerifyStructure
    let monitor: any Monitor
    let cancellation: Cancellation

    /// - Parameter remotely: Whether the store is to compute SHA-256 sums of all bundles.
    func run(remotely: Bool) throws(ReplicationError) -> (
        counts: Counts, damaged: [BundleID: String]
    ) {
        var counts = Counts()
        var damaged: [BundleID: String] = [:]
        var rest: [BundleID] = []
        let known = Dictionary(
            structure.index.bundles.compactMap { bundle in bundle.md5.map { (bundle.id, $0) } },
            uniquingKeysWith: { first, _ in first })
        for (id, _) in structure.readable {
            guard let expected = known[id], let listed = structure.md5s[id] else {
                rest.append(id)
                continue
            }
            counts.byMD5 += 1
            if listed != expected {
                damaged[id] =
                    "the store lists it with MD5 \(Hex.text(listed)), it was stored with \(Hex.text(expected))"
            }
        }
        if remotely {
            try compute(structure.readable.map(\.id), &counts, &damaged)
            rest = []
        } else if repository.storeKeepsSHA256 {
            rest = ask(rest, &counts, &damaged)
        }
        try cancellation.check()
        counts.uncompared = rest.count
        return (counts, damaged)
    }

    private static func mismatch(_ digest: [UInt8]) -> String {
        "the store says that its bytes hash to \(Hex.text(digest).prefix(16))…"
    }

    /// Asks for the SHA-256 that the store keeps with each; gives those for which there is none.
    private func ask(
        _ ids: [BundleID], _ counts: inout Counts, _ damaged: inout [BundleID: String]
    ) -> [BundleID] {
        monitor.phase("asking for checksums")
        let found = Mutex<[(id: BundleID, digest: [UInt8]?)]>([])
        let repository = repository
        VerifyCrew.run(
            threads: Self.requestsAtOnce, jobs: ids.count, cancellation: cancellation
        ) { next in
            while let job = next() {
                let digest = (try? repository.storedDigest(ids[job])) ?? nil
                found.withLock { $0.append((ids[job], digest)) }
            }
        }
        var rest: [BundleID] = []
        for (id, digest) in found.withLock({ $0 }) {
            guard let digest else {
                rest.append(id)
                continue
            }
            counts.bySHA256 += 1
            if digest != id.bytes { damaged[id] = Self.mismatch(digest) }
        }
        return rest
    }

    private func compute(
        _ ids: [BundleID], _ counts: inout Counts, _ damaged: inout [BundleID: String]
    ) throws(ReplicationError) {
        monitor.phase("letting the store compute checksums")
        let repository = repository
        var computed = 0
        var wrong: [BundleID: String] = [:]
        for start in stride(from: 0, to: ids.count, by: Self.digestsAtOnce) {
            try cancellation.check()
            let part = Array(ids[start..<min(start + Self.digestsAtOnce, ids.count)])
            try lifted {
                try repository.computeDigests(part) { id, digest in
                    computed += 1
                    if digest != id.bytes { wrong[id] = Self.mismatch(digest) }
                }
            }
        }
        counts.computedRemotely += computed
        damaged.merge(wrong) { _, new in new }
    }
}
