import AgeEncryption
package import BundleFormat
package import SnapshotModel
import Synchronization

/// How the bundles of a repository are opened, kept for all threads: the seal of each bundle is
/// opened once.
package final class BundleAccessCache: Sendable {
    fileprivate let repository: Repository
    private let accesses = Mutex<[BundleID: BundleAccess]>([:])

    package init(_ repository: Repository) { self.repository = repository }

    package func access(_ id: BundleID, size: Int) throws(RepositoryError) -> BundleAccess {
        guard repository.config.isEncrypted else { return .plain }
        if let known = accesses.withLock({ $0[id] }) { return known }
        guard repository.access.canReadContent else {
            throw RepositoryError(
                .wrongKey, repository.bundleKey(id),
                "the owner's identity is needed to read content",
                remedy:
                    "set BATCHSYNC_PASSPHRASE, or give --passphrase-file FILE or --identity FILE")
        }
        var length = BundleAccess.usualPrefixBytes
        while true {
            let prefix = ByteBuffer(capacity: length)
            let wanted = min(length, size)
            prefix.count = try repository.readBundle(
                id, range: 0..<wanted,
                into: UnsafeMutableRawBufferPointer(start: prefix.base, count: wanted))
            do {
                let access = try BundleAccess.open(
                    prefix: prefix.bytes, identities: repository.contentIdentities)
                accesses.withLock { cache in
                    // A bundle is a few hundred bytes here; a bound all the same.
                    if cache.count > 100_000 { cache.removeAll() }
                    cache[id] = access
                }
                return access
            } catch {
                if error.kind == .needsMoreBytes, length < BundleAccess.maximumPrefixBytes,
                    length < size
                {
                    length = BundleAccess.maximumPrefixBytes
                    continue
                }
                if error.kind == .noIdentity { throw notForThisOwner(id, error) }
                throw RepositoryError(.damaged, repository.bundleKey(id), error.description)
            }
        }
    }
}

extension BundleAccessCache {
    /// Why an owner cannot open a bundle: mostly since it is older than the owner's place among the
    /// owners.
    private func notForThisOwner(_ id: BundleID, _ error: BundleError) -> RepositoryError {
        let given = repository.access.owners.map(\.recipient)
        let keys = RepositoryKeys(of: repository)
        let sets = (try? keys.recipientSets(try keys.list()).sets) ?? []
        func names(_ set: RecipientSet) -> Bool { set.owners.contains { given.contains($0) } }
        let added = sets.filter(names).map(\.number).min() ?? 0
        let earlier = sets.filter { $0.number < added }
        guard !earlier.isEmpty else {
            return RepositoryError(
                .wrongKey, repository.bundleKey(id), error.description,
                remedy:
                    "give the passphrase, or with --identity the identity, of another owner: 'batchsync key list' names them"
            )
        }
        var owners: [String] = []
        for owner in earlier.flatMap(\.owners).map({ $0.encoded() }) where !owners.contains(owner) {
            owners.append(owner)
        }
        return RepositoryError(
            .wrongKey, repository.bundleKey(id),
            "was stored before this owner was added, and is sealed to the owners of that time only",
            remedy:
                "restore it with the passphrase or the identity of one of them: \(owners.joined(separator: ", ")); an owner who is added reads what is stored from then on"
        )
    }
}

/// Fetches, opens and checks frames and the chunks in them. One thread at a time; make one for
/// each.
package final class FrameFetcher {
    private struct Held {
        let number: UInt64
        let raw: ByteBuffer
        var lastUse: Int
    }

    private let repository: Repository
    private let index: ChunkIndex
    private let accesses: BundleAccessCache
    private let opener: FrameOpener
    private let sealed = ByteBuffer(capacity: 2 << 20)
    private var held: [Held] = []
    private var uses = 0
    private let frames: Int
    /// Stored bytes fetched so far.
    package private(set) var fetchedBytes = 0

    /// - Parameter frames: How many opened frames are kept, of about 5 MiB each.
    package init(
        _ repository: Repository, index: ChunkIndex, accesses: BundleAccessCache,
        keeping frames: Int = 2
    ) throws(RepositoryError) {
        self.repository = repository
        self.index = index
        self.accesses = accesses
        self.frames = max(frames, 1)
        do { opener = try FrameOpener() } catch { throw .bundle(error, "") }
    }

    /// The raw bytes of the frame at `location`, length and fingerprint checked. Valid until the
    /// next call.
    package func frame(at location: ChunkLocation) throws(RepositoryError) -> UnsafeRawBufferPointer
    {
        uses += 1
        if let position = held.firstIndex(where: { $0.number == location.frameNumber }) {
            held[position].lastUse = uses
            return held[position].raw.bytes
        }
        let raw: ByteBuffer
        if held.count >= frames,
            let oldest = held.indices.min(by: { held[$0].lastUse < held[$1].lastUse })
        {
            raw = held.remove(at: oldest).raw
        } else {
            raw = ByteBuffer(capacity: 5 << 20)
        }
        try open(location, into: raw)
        held.append(Held(number: location.frameNumber, raw: raw, lastUse: uses))
        return raw.bytes
    }

    private func open(_ location: ChunkLocation, into raw: ByteBuffer) throws(RepositoryError) {
        let access = try accesses.access(location.bundle, size: location.bundleSize)
        let frame = location.frame
        let name = repository.bundleKey(location.bundle)
        do {
            let range = try access.sealedRange(
                offset: frame.offset, length: frame.length, storedSize: location.bundleSize)
            sealed.removeAll()
            sealed.reserve(range.count)
            sealed.count = try repository.readBundle(
                location.bundle, range: range,
                into: UnsafeMutableRawBufferPointer(start: sealed.base, count: range.count))
            fetchedBytes += sealed.count
            guard sealed.count == range.count else {
                throw RepositoryError(
                    .damaged, name,
                    "is shorter than the index says: \(range.upperBound) bytes wanted, \(range.lowerBound + sealed.count) there"
                )
            }
            try opener.openFrame(
                sealed.bytes,
                FrameRecord(
                    offset: frame.offset, length: frame.length, raw: frame.raw,
                    fingerprint: frame.fingerprint, chunks: []),
                access: access, storedSize: location.bundleSize, into: raw)
        } catch let error as RepositoryError {
            throw error
        } catch let error as BundleError {
            throw RepositoryError(.damaged, name, error.description)
        } catch {
            throw RepositoryError(.damaged, name, "\(error)")
        }
    }

    /// The bytes of a chunk out of its opened frame, checked against its id.
    package static func chunk(
        _ id: ChunkID, offset: Int, length: Int, in raw: UnsafeRawBufferPointer
    ) throws(RepositoryError) -> UnsafeRawBufferPointer {
        guard offset + length <= raw.count else {
            throw .damaged("chunk \(id)", "does not lie within its frame")
        }
        let bytes = UnsafeRawBufferPointer(rebasing: raw[offset..<(offset + length)])
        let found: ChunkID = ContentHash.sha256(bytes)
        guard found == id else { throw .damaged("chunk \(id)", "its bytes do not hash to its id") }
        return bytes
    }

    /// A chunk's bytes, from the first of its places that is sound. Valid until the next call.
    package func chunk(_ id: ChunkID) throws(RepositoryError) -> UnsafeRawBufferPointer {
        if let location = index.location(id) {
            do {
                return try Self.chunk(
                    id, offset: location.offset, length: location.length,
                    in: try frame(at: location))
            } catch {
                let others = index.locations(id).filter { $0.frameNumber != location.frameNumber }
                for other in others {
                    if let raw = try? frame(at: other),
                        let bytes = try? Self.chunk(
                            id, offset: other.offset, length: other.length, in: raw)
                    {
                        return bytes
                    }
                }
                throw error
            }
        }
        throw .damaged("chunk \(id)", "is in no bundle that the index knows")
    }
}
