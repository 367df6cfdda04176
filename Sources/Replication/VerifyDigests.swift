import SnapshotModel
import SnapshotRepository
import Synchronization

/// Proves bundles without reading them: what the store itself says of their bytes, against what the
/// index noted when they were stored.
///
/// A listing that shows MD5 sums is there already and costs nothing more. A sum in it that is the
/// one noted proves the bytes; another proves nothing yet, since of an object under a customer's
/// key a listing shows something else of the same form: the store is asked for that bundle. Where a
/// listing shows none, a store that keeps SHA-256 sums is asked for each bundle, and on demand one
/// that can compute does so where the bytes lie. All of this is the store's word: it finds what was
/// damaged or exchanged at rest, not a store that lies. Reading back finds both.
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
        // Listed with something else than their MD5.
        var doubtful: [BundleID] = []
        let known = Dictionary(
            structure.index.bundles.compactMap { bundle in bundle.md5.map { (bundle.id, $0) } },
            uniquingKeysWith: { first, _ in first })
        for (id, _) in structure.readable {
            guard let expected = known[id], let listed = structure.md5s[id] else {
                rest.append(id)
                continue
            }
            if listed == expected { counts.byMD5 += 1 } else { doubtful.append(id) }
        }
        if remotely {
            // A shell may see other files than the listing does.
            let answered = try compute(structure.readable.map(\.id), &counts, &damaged)
            rest = (rest + doubtful).filter { !answered.contains($0) }
        } else {
            if repository.storeKeepsSHA256 {
                doubtful += rest
                rest = []
            }
            rest += ask(doubtful, known, &counts, &damaged)
        }
        try cancellation.check()
        counts.uncompared = rest.count
        return (counts, damaged)
    }

    private static func mismatch(_ digest: [UInt8]) -> String {
        "the store says that its bytes hash to \(Hex.text(digest).prefix(16))…"
    }

    /// Asks for what the store tells of each when asked for it alone; gives those of which it tells
    /// nothing that could be compared.
    private func ask(
        _ ids: [BundleID], _ known: [BundleID: [UInt8]], _ counts: inout Counts,
        _ damaged: inout [BundleID: String]
    ) -> [BundleID] {
        if ids.isEmpty { return [] }
        monitor.phase("asking for checksums")
        let found = Mutex<[(id: BundleID, md5: [UInt8]?, sha256: [UInt8]?)]>([])
        let failures = Mutex<[RepositoryError]>([])
        let repository = repository
        VerifyCrew.run(
            threads: Self.requestsAtOnce, jobs: ids.count, cancellation: cancellation
        ) { next in
            while let job = next() {
                var sums: (md5: [UInt8]?, sha256: [UInt8]?)?
                do throws(RepositoryError) {
                    sums = try repository.storedSums(ids[job])
                } catch {
                    failures.withLock { $0.append(error) }
                }
                let told = (id: ids[job], md5: sums?.md5, sha256: sums?.sha256)
                found.withLock { $0.append(told) }
            }
        }
        let failed = failures.withLock { $0 }
        if let first = failed.first {
            monitor.note(
                "no checksum could be had of \(failed.count) bundles: \(first.description)")
        }
        var rest: [BundleID] = []
        for told in found.withLock({ $0 }) {
            if let md5 = told.md5, let expected = known[told.id] {
                counts.byMD5 += 1
                if md5 != expected {
                    damaged[told.id] =
                        "the store lists it with MD5 \(Hex.text(md5)), it was stored with \(Hex.text(expected))"
                }
            } else if let digest = told.sha256 {
                counts.bySHA256 += 1
                if digest != told.id.bytes { damaged[told.id] = Self.mismatch(digest) }
            } else {
                rest.append(told.id)
            }
        }
        return rest
    }

    /// Lets the store compute; gives those of which it told a sum.
    private func compute(
        _ ids: [BundleID], _ counts: inout Counts, _ damaged: inout [BundleID: String]
    ) throws(ReplicationError) -> Set<BundleID> {
        monitor.phase("letting the store compute checksums")
        let repository = repository
        var answered: Set<BundleID> = []
        var wrong: [BundleID: String] = [:]
        for start in stride(from: 0, to: ids.count, by: Self.digestsAtOnce) {
            try cancellation.check()
            let part = Array(ids[start..<min(start + Self.digestsAtOnce, ids.count)])
            try lifted {
                try repository.computeDigests(part) { id, digest in
                    answered.insert(id)
                    if digest != id.bytes { wrong[id] = Self.mismatch(digest) }
                }
            }
        }
        counts.computedRemotely += answered.count
        damaged.merge(wrong) { _, new in new }
        return answered
    }
}
