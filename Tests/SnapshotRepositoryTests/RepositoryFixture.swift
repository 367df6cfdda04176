import AgeEncryption
import BundleFormat
import ObjectStorage
import SnapshotModel
import SnapshotRepository
import TestSupport

/// A repository in memory with one host that made it, and further hosts as a test wants them.
struct RepositoryFixture {
    let store: MemoryStore
    let host: HostPlaces
    /// The one owner; nil without encryption.
    let owner: X25519Identity?

    static let time = Timestamp(seconds: 1_700_000_000, nanoseconds: 123_456_789)
    static let location = "the store"

    /// A repository whose owner's identity never touched the host. `isConfirmed` says whether the
    /// owner has proven it since.
    static func withRecipient(isConfirmed: Bool = true) throws -> RepositoryFixture {
        let owner = X25519Identity()
        let fixture = RepositoryFixture(store: MemoryStore(), host: HostPlaces(), owner: owner)
        _ = try Repository.create(
            store: fixture.store, location: location, protection: .recipients([owner.recipient]),
            now: time,
            directories: fixture.host.directories)
        if isConfirmed { try fixture.confirm() }
        return fixture
    }

    static func plain() throws -> RepositoryFixture {
        let fixture = RepositoryFixture(store: MemoryStore(), host: HostPlaces(), owner: nil)
        _ = try Repository.create(
            store: fixture.store, location: location, protection: .none, now: time,
            directories: fixture.host.directories)
        return fixture
    }

    func confirm() throws {
        let opened = try open(.identities([owner!]), on: HostPlaces(), acceptUnproven: true)
        let keys = RepositoryKeys(of: opened)
        try keys.confirm(try keys.recipientSets(try keys.list()).sets[0], by: owner!)
    }

    /// Opens it on the host that made it, with the host key alone where no credential is given.
    func open(
        _ credential: OwnerCredential = .none, on place: HostPlaces? = nil,
        acceptUnproven: Bool = false
    ) throws -> Repository {
        try Repository.open(
            store: store, location: Self.location, credential: credential, needsOwner: false,
            acceptUnproven: acceptUnproven, directories: (place ?? host).directories)
    }

    func openAsOwner(on place: HostPlaces? = nil) throws -> Repository {
        try open(owner.map { .identities([$0]) } ?? .none, on: place)
    }

    /// The same objects in a store of their own, for a test that alters them; same host, same
    /// owner.
    func copied() -> RepositoryFixture {
        RepositoryFixture(store: store.copy(), host: host, owner: owner)
    }

    func keys(_ prefix: String) -> [ObjectKey] { store.keys.filter { $0.text.hasPrefix(prefix) } }
}

/// The directories of one host, gone with it.
final class HostPlaces: Sendable {
    let home = TemporaryDirectory.inMemory()

    var directories: HostDirectories {
        HostDirectories(
            configuration: home.path("config"), cache: home.path("cache"), state: home.path("state")
        )
    }
}

/// A file for `Backup`.
struct SmallFile {
    var path: String
    var content: [UInt8]
}

/// Stores files as a run does, on one thread: bundles, then the index, then the snapshot.
struct SmallBackup {
    let repository: Repository
    var time = RepositoryFixture.time
    var host = "here"
    var tags: [String] = []
    var seen: [String] = []
    var problems: [SnapshotProblem] = []
    /// Files per segment of the manifest.
    var filesPerSegment = 3
    /// Most chunks a node of the manifest names: small, so that a small tree has two levels.
    var segmentsPerNode = 2

    func store(_ files: [SmallFile]) throws -> Snapshot {
        let index = RunIndex(try ChunkIndex.load(repository))
        var entries: [Entry] = []
        let content = try BundleBuilder(repository, index, .content)
        for file in files.sorted(by: {
            EntryPath.precedes(Array($0.path.utf8), Array($1.path.utf8))
        }) {
            let id = chunkID(file.content)
            var entry = Entry(path: Array(file.path.utf8), kind: .file)
            entry.mode = 0o644
            entry.size = UInt64(file.content.count)
            entry.fingerprint = file.content.withUnsafeBytes { ContentHash.fingerprint($0) }
            entry.chunks = file.content.isEmpty ? [] : [id]
            entries.append(entry)
            if !file.content.isEmpty, index.claim(id) == .claimed {
                try content.add(.wholeFile(MemberMetadata(entry)), id, file.content)
            }
        }
        try content.finish()

        let manifest = try BundleBuilder(repository, index, .manifest)
        func store(_ bytes: [UInt8], _ name: MemberName, chunks: [ChunkID], nodes: [ChunkID]) throws
            -> ChunkID
        {
            let id = chunkID(bytes)
            index.describe(id, chunks: chunks, nodes: nodes)
            if index.claim(id) == .claimed { try manifest.add(name, id, bytes) }
            return id
        }
        var level: [ManifestChild] = []
        for start in stride(from: 0, to: entries.count, by: filesPerSegment) {
            let piece = entries[start..<min(start + filesPerSegment, entries.count)]
            let lines = ByteBuffer()
            for entry in piece { EntryCodec.write(entry, to: lines) }
            level.append(
                ManifestChild(
                    id: try store(
                        lines.array, .segment, chunks: piece.flatMap(\.chunks), nodes: []),
                    first: piece.first!.path))
        }
        var depth = 0
        repeat {
            var next: [ManifestChild] = []
            for start in stride(from: 0, to: level.count, by: segmentsPerNode) {
                let piece = Array(level[start..<min(start + segmentsPerNode, level.count)])
                let lines = ByteBuffer()
                ManifestChild.write(piece, to: lines)
                next.append(
                    ManifestChild(
                        id: try store(lines.array, .node, chunks: [], nodes: piece.map(\.id)),
                        first: piece[0].first))
            }
            level = next
            depth += 1
        } while level.count > 2
        var snapshot = Snapshot(
            time: time, host: host, roots: [Array("/srv".utf8)], program: "batchsync test")
        snapshot.tags = tags
        snapshot.seen = seen
        snapshot.manifestDepth = depth
        snapshot.manifestIDs = level.map(\.id)
        snapshot.fileSystems = [FileSystemName(type: "ext4", source: "/dev/vda1", uuid: "01")]
        snapshot.statistics.files = files.count
        if !problems.isEmpty {
            let lines = ByteBuffer()
            for problem in problems { problem.write(to: lines) }
            snapshot.problemCount = problems.count
            snapshot.problemIDs = [try store(lines.array, .node, chunks: [], nodes: [])]
        }
        try manifest.finish()
        if let lines = index.takeLines() {
            try repository.putRecord(.index, time: nil, payload: lines.lines.bytes)
        }
        snapshot.name = try repository.putRecord(.snapshot, time: time, snapshot.json)
        return snapshot
    }
}

/// One bundle of a run, frame by frame.
final class BundleBuilder {
    private let repository: Repository
    private let index: RunIndex
    private let kind: BundleKind
    private let frame = FrameBuilder()
    private let compressor: FrameCompressor
    private var spool: BundleSpool?
    private var writer: BundleWriter?
    private var ordinal: UInt32 = 0

    init(_ repository: Repository, _ index: RunIndex, _ kind: BundleKind) throws {
        self.repository = repository
        self.index = index
        self.kind = kind
        compressor = try FrameCompressor(level: 3)
    }

    func add(_ name: MemberName, _ id: ChunkID, _ bytes: [UInt8]) throws {
        if writer == nil {
            let spool = try repository.makeBundleSpool()
            self.spool = spool
            ordinal = index.openBundle()
            writer = try BundleWriter(
                kind: kind, recipients: repository.contentRecipients, wantsMD5: false
            ) {
                try spool.append($0)
            }
        }
        try bytes.withRawBytes { (data) throws(BundleError) in
            try frame.add(name, id: id, data: data)
        }
        if frame.rawBytes > 64 << 10 { try flush() }
    }

    private func flush() throws {
        guard let writer, !frame.isEmpty else { return }
        let compressed = try compressor.compress(frame, into: ByteBuffer())
        index.place(compressed.chunks, in: ordinal)
        try writer.append(compressed)
        frame.reset()
    }

    func finish() throws {
        try flush()
        guard let writer, let spool else { return }
        let sealed = try writer.finish()
        try repository.putBundle(sealed, spool: spool)
        index.stored(sealed, as: ordinal)
    }
}

func chunkID(_ bytes: [UInt8]) -> ChunkID { bytes.withUnsafeBytes { ContentHash.sha256($0) } }

/// A record's bytes as somebody makes them who has only the store and the public keys.
func sealedByOutsider(_ plain: [UInt8], to recipients: [AgeRecipient]) throws -> [UInt8] {
    try plain.withRawBytes { (bytes) throws(BundleError) in
        try SealedRecord.seal(bytes, level: 3, recipients: recipients)
    }
}

func openAge(_ bytes: [UInt8], _ identities: [X25519Identity]) throws -> [UInt8] {
    try bytes.withRawBytes { (bytes) throws(AgeError) in
        try AgePayload.openAll(bytes, identities: identities.map { .x25519($0) })
    }
}

/// The object's key with the digest of `bytes` in its name, as a store would have to carry it.
func recordKey(_ folder: String, utc: String, _ bytes: [UInt8], ending: String = ".json.zst.age")
    -> ObjectKey
{
    let id: RecordID = bytes.withUnsafeBytes { ContentHash.sha256($0) }
    return ObjectKey("\(folder)/\(utc)-\(id)\(ending)")!
}

func digest(_ bytes: [UInt8]) -> RecordID { bytes.withUnsafeBytes { ContentHash.sha256($0) } }

/// Everything that stands in a snapshot, read the way a restore reads it.
func contents(_ snapshot: Snapshot, of repository: Repository) throws -> [String: [UInt8]] {
    let fetcher = try FrameFetcher(
        repository, index: try ChunkIndex.load(repository), accesses: BundleAccessCache(repository))
    let reader = ManifestReader(snapshot, fetcher: fetcher)
    var found: [Entry] = []
    try reader.forEach(below: nil) { entry, _ in
        found.append(entry)
        return true
    }
    var files: [String: [UInt8]] = [:]
    for entry in found {
        var content: [UInt8] = []
        for id in try reader.chunks(of: entry) { content += Array(try fetcher.chunk(id)) }
        files[String(decoding: entry.path, as: UTF8.self)] = content
    }
    return files
}

/// The error that a call of this room throws; nil where it throws none.
func failure(_ body: () throws -> Void) -> RepositoryError? {
    do {
        try body()
        return nil
    } catch {
        return error as? RepositoryError
    }
}
