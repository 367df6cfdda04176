package import BundleFormat
import ObjectStorage
package import SnapshotModel

/// Bundles, as named bytes; and what else concerns objects as such.
extension Repository {
    package func makeBundleSpool() throws(RepositoryError) -> BundleSpool {
        BundleSpool(try stored { () throws(StorageError) in try store.makeSpool() })
    }

    /// Whether the store's listing shows MD5 sums, so that it is worth computing them.
    package var wantsMD5: Bool { store.capabilities.listingShowsMD5 }

    /// Stores a finished bundle; it is durable when this returns.
    package func putBundle(_ bundle: SealedBundle, spool: BundleSpool) throws(RepositoryError) {
        let content = ObjectContent(file: spool.file, digest: bundle.id.bytes, md5: bundle.md5)
        let key = layout.bundle(bundle.id)
        try stored { () throws(StorageError) in try store.put(content, at: key) }
    }

    package func bundleKey(_ id: BundleID) -> String { layout.bundle(id).text }

    /// Ids and stored sizes of all bundles.
    package func listBundles() throws(RepositoryError) -> [BundleID: Int] {
        var bundles: [BundleID: Int] = [:]
        try listBundles { id, size, _ in bundles[id] = size }
        return bundles
    }

    /// Hands each bundle's id, stored size and, where the listing shows it, MD5 to `body`.
    package func listBundles(
        _ body: (BundleID, Int, [UInt8]?) -> Void
    ) throws(RepositoryError) {
        try stored { () throws(StorageError) in
            try store.list(prefix: RepositoryLayout.bundles) { object in
                if let id = layout.bundleID(object.key) { body(id, object.length, object.md5) }
                return true
            }
        }
    }

    /// Whether the store keeps a SHA-256 with each object and tells it.
    package var storeKeepsSHA256: Bool { store.capabilities.headShowsSHA256 }

    /// Whether the store can compute SHA-256 sums where the objects lie.
    package var storeComputesDigests: Bool { store.capabilities.remoteDigests }

    /// What the store tells of a bundle when asked for it alone: its MD5, where that is known to be
    /// one, and the SHA-256 that the store keeps, which it computed when the bundle came. Nil where
    /// there is no such bundle.
    package func storedSums(
        _ id: BundleID
    ) throws(RepositoryError) -> (md5: [UInt8]?, sha256: [UInt8]?)? {
        let key = layout.bundle(id)
        let object = try stored { () throws(StorageError) in try store.head(key) }
        guard let object else { return nil }
        return (md5: object.md5, sha256: object.sha256)
    }

    /// Hands the SHA-256 that the store computes now of each of these bundles to `body`, in any
    /// order; one that is missing is left out.
    package func computeDigests(
        _ ids: [BundleID], _ body: (BundleID, [UInt8]) -> Void
    ) throws(RepositoryError) {
        let keys = ids.map { layout.bundle($0) }
        try stored { () throws(StorageError) in
            try store.digests(of: keys) { key, digest in
                if let id = layout.bundleID(key) { body(id, digest) }
                return true
            }
        }
    }

    /// Reads a range of a bundle's stored bytes into `buffer`; the count may be short only at its
    /// end.
    package func readBundle(
        _ id: BundleID, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(RepositoryError) -> Int {
        let key = layout.bundle(id)
        return try stored { () throws(StorageError) in
            try store.get(key, range: range, into: buffer)
        }
    }

    package func bundleSize(_ id: BundleID) throws(RepositoryError) -> Int? {
        let key = layout.bundle(id)
        return try stored { () throws(StorageError) in try store.head(key) }?.length
    }

    /// All objects with their lengths, for statistics and audits.
    package func listAll() throws(RepositoryError) -> [(name: String, length: Int)] {
        try stored { () throws(StorageError) in try store.list(prefix: "") }.map {
            ($0.key.text, $0.length)
        }
    }

    /// The stored bytes of a small object by its name, for audits.
    ///
    /// - Parameter isSound: Where it says no, they are fetched once more from a store behind a line,
    ///   and given as they came then.
    package func readObject(
        _ name: String, maximumBytes: Int, isSound: ([UInt8]) -> Bool
    ) throws(RepositoryError) -> [UInt8] {
        guard let key = ObjectKey(name) else {
            throw RepositoryError(.notFound, name, "is not the name of an object")
        }
        return try Self.fetch(key, maximumBytes: maximumBytes, from: store, isSound: isSound)
    }

    /// Difference of the store's clock to this host's, in seconds.
    package func storeTime() throws(RepositoryError) -> Int64 {
        try stored { () throws(StorageError) in try store.currentTime() }
    }
}
