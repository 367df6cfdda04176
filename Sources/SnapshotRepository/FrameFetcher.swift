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
        var hasFailed = false
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
                if hasFailed { repository.noteAlteredTransfer() }
                return access
            } catch {
                if error.kind == .needsMoreBytes, length < BundleAccess.maximumPrefixBytes,
                    length < size
                {
                    length = BundleAccess.maximumPrefixBytes
                    continue
                }
                // A seal that no key opens may have been altered on its way.
                if !hasFailed, !repository.isLocalStore {
                    hasFailed = true
                    continue
                }
                if error.kind == .noIdentity { throw notForThisOwner(id, error) }
                throw RepositoryError(.damaged, repository.bundleKey(id), error.description)
            }
        }
    }

    /// Fetches what is sealed of `length` bytes of a bundle's plain text from `offset` on into
    /// `buffer`, whole, and has `open` make something of it. What `open` cannot make sense of is
    /// fetched once more where it may have been altered on its way, and so is the seal.
    ///
    /// - Parameter size: Stored bytes of the bundle, as the index has them.
    /// - Returns: How many bytes have come.
    /// - Throws: What the store says; `.damaged` with the reason that `open` gave, also where the
    ///   bundle is too short.
    package func read(
        _ id: BundleID, size: Int, offset: Int, length: Int, into buffer: ByteBuffer,
        open: (BundleAccess, UnsafeRawBufferPointer) throws(BundleError) -> Void
    ) throws(RepositoryError) -> Int {
        var fetched = 0
        func attempt() throws(RepositoryError) {
            let access = try access(id, size: size)
            let name = repository.bundleKey(id)
            let range: Range<Int>
            do throws(BundleError) {
                range = try access.sealedRange(offset: offset, length: length, storedSize: size)
            } catch {
                throw RepositoryError(.damaged, name, error.description)
            }
            buffer.removeAll()
            buffer.reserve(range.count)
            buffer.count = try repository.readBundle(
                id, range: range,
                into: UnsafeMutableRawBufferPointer(start: buffer.base, count: range.count))
            fetched += buffer.count
            guard buffer.count == range.count else {
                throw RepositoryError(
                    .damaged, name,
                    "is shorter than the index says: \(range.upperBound) bytes wanted, \(range.lowerBound + buffer.count) there"
                )
            }
            do throws(BundleError) {
                try open(access, buffer.bytes)
            } catch {
                throw RepositoryError(.damaged, name, error.description)
            }
        }
        do throws(RepositoryError) {
            try attempt()
        } catch {
            guard error.kind == .damaged, !repository.isLocalStore else { throw error }
            // Nothing but what it opens proves the end of a seal.
            accesses.withLock { $0[id] = nil }
            try attempt()
            repository.noteAlteredTransfer()
        }
        return fetched
    }
}

extension BundleAccessCache {
    /// Why an owner cannot open a bundle: mostly since it is older than the owner's place among the
    /// owners.
    package func notForThisOwner(_ id: BundleID, _ error: BundleError) -> RepositoryError {
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
        let frame = location.frame
        let record = FrameRecord(
            offset: frame.offset, length: frame.length, raw: frame.raw,
            fingerprint: frame.fingerprint, chunks: [])
        let opener = opener
        fetchedBytes += try accesses.read(
            location.bundle, size: location.bundleSize, offset: frame.offset, length: frame.length,
            into: sealed
        ) { (access, bytes) throws(BundleError) in
            try opener.openFrame(
                bytes, record, access: access, storedSize: location.bundleSize, into: raw)
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
