import AgeEncryption
import BundleFormat
import FileTree
import ObjectStorage
import SnapshotModel
import SnapshotRepository
import TestSupport

/// A small repository in memory, written piece by piece from the format's page, so that a test
/// knows where every byte of it lies.
final class MadeRepository {
    struct File {
        var entry: Entry
        var content: [UInt8]
    }

    let store: MemoryStore
    let scratch = TemporaryDirectory()
    let owner = X25519Identity()
    let isEncrypted: Bool
    let directories: HostDirectories
    /// Opened with the owner's identity.
    private(set) var repository: Repository

    var filesPerFrame = 2
    var framesPerBundle = 3
    var linesPerSegment = 4
    var chunkBytes = 40_000
    /// Where each chunk was put.
    private(set) var bundleOf: [ChunkID: BundleID] = [:]
    private(set) var contentBundles: [BundleID] = []
    private(set) var manifestBundles: [BundleID] = []
    private(set) var indexRecords: [RecordName] = []
    private var needOf: [ChunkID: Set<BundleID>] = [:]

    init(encrypted: Bool = true) throws {
        isEncrypted = encrypted
        store = MemoryStore()
        directories = HostDirectories(
            configuration: scratch.path("config"), cache: scratch.path("cache"),
            state: scratch.path("state"))
        let created = try Repository.create(
            store: store, location: "memory",
            protection: encrypted ? .recipients([owner.recipient]) : .none,
            now: Timestamp(seconds: 1_700_000_000), directories: directories)
        repository = created.repository
        guard encrypted else { return }
        let opened = try Repository.open(
            store: store, location: "memory", credential: .identities([owner]), needsOwner: true,
            acceptUnproven: true,
            directories: directories)
        let keys = RepositoryKeys(of: opened)
        let sets = try keys.recipientSets(try keys.list()).sets
        try keys.confirm(sets[0], by: owner)
        repository = try open(asOwner: true)
    }

    func open(asOwner: Bool) throws -> Repository {
        try Repository.open(
            store: store, location: "memory", credential: asOwner ? .identities([owner]) : .none,
            needsOwner: false,
            directories: directories)
    }

    static func file(_ path: String, _ content: [UInt8], mtime: Int64 = 1_600_000_000) -> File {
        var entry = Entry(path: Array(path.utf8), kind: .file)
        entry.mode = 0o644
        entry.uid = 1000
        entry.gid = 1000
        entry.size = UInt64(content.count)
        entry.mtime = Timestamp(seconds: mtime, nanoseconds: 5)
        entry.ctime = entry.mtime
        entry.fingerprint = content.withUnsafeBytes { ContentHash.fingerprint($0) }
        return File(entry: entry, content: content)
    }

    static func directory(_ path: String) -> File {
        var entry = Entry(path: Array(path.utf8), kind: .directory)
        entry.mode = 0o755
        entry.mtime = Timestamp(seconds: 1_600_000_000)
        entry.ctime = entry.mtime
        return File(entry: entry, content: [])
    }

    /// `count` files below `/data`, of a few kilobytes each, from a seed.
    static func files(_ count: Int, seed: UInt64 = 1) -> [File] {
        var generator = SeededGenerator(seed: seed)
        return [directory("/data")]
            + (0..<count).map { number in
                let digits = String(number)
                let name = String(repeating: "0", count: 4 - digits.count) + digits
                return file("/data/f\(name)", generator.bytes(2000 + number * 7))
            }
    }

    // MARK: Writing

    /// Commits a snapshot of `files`, which are in path order.
    @discardableResult
    func commit(
        _ files: [File], at seconds: Int64 = 1_700_000_100, host: String = "alpha",
        change: (inout Entry) -> Void = { _ in }, isIndexed: Bool = true, seen: [String] = []
    ) throws -> Snapshot {
        var sealed: [SealedBundle] = []
        let lines = ByteBuffer()
        var ends: [Int] = []
        var references: [[ChunkID]] = []
        let content = try Packer(self, .content)
        for file in files {
            var entry = file.entry
            entry.chunks = []
            for start in stride(from: 0, to: file.content.count, by: chunkBytes) {
                let piece = Array(file.content[start..<min(start + chunkBytes, file.content.count)])
                let id: ChunkID = piece.withUnsafeBytes { ContentHash.sha256($0) }
                entry.chunks.append(id)
                let isWhole = file.content.count <= chunkBytes
                try content.add(
                    id, piece,
                    isWhole ? .wholeFile(MemberMetadata(entry)) : .chunk(path: entry.path))
            }
            references.append(entry.chunks)
            change(&entry)
            EntryCodec.write(entry, to: lines)
            ends.append(lines.count)
        }
        sealed += try content.finish()
        contentBundles += sealed.map(\.id)
        for bundle in sealed { note(bundle) }

        let manifest = try Packer(self, .manifest)
        var children: [ManifestChild] = []
        for start in stride(from: 0, to: files.count, by: linesPerSegment) {
            let end = min(start + linesPerSegment, files.count)
            let bytes = Array(lines.bytes[(start == 0 ? 0 : ends[start - 1])..<ends[end - 1]])
            let id: ChunkID = bytes.withUnsafeBytes { ContentHash.sha256($0) }
            needOf[id] = Set(references[start..<end].joined().compactMap { bundleOf[$0] })
            children.append(ManifestChild(id: id, first: files[start].entry.path))
            try manifest.add(id, bytes, .segment)
        }
        let node = ByteBuffer()
        ManifestChild.write(children, to: node)
        let top: ChunkID = ContentHash.sha256(node.bytes)
        try manifest.add(top, node.array, .node)
        let manifests = try manifest.finish()
        manifestBundles += manifests.map(\.id)
        for bundle in manifests { note(bundle) }
        sealed += manifests
        needOf[top] = children.reduce(into: []) {
            $0.formUnion((needOf[$1.id] ?? []).union(bundleOf[$1.id].map { [$0] } ?? []))
        }

        if isIndexed { try index(sealed, segments: children.map(\.id) + [top]) }
        var snapshot = Snapshot(
            time: Timestamp(seconds: seconds), host: host, roots: [Array("/data".utf8)],
            program: "test")
        snapshot.manifestIDs = [top]
        snapshot.statistics.files = files.count { $0.entry.kind == .file }
        snapshot.statistics.bytes = files.reduce(0) { $0 + $1.content.count }
        snapshot.seen = seen
        snapshot.name = try repository.putRecord(.snapshot, time: snapshot.time, snapshot.json)
        return snapshot
    }

    /// Stores the chunks of `files` once more, in bundles of their own.
    func storeAgain(_ files: [File]) throws -> [BundleID] {
        let known = bundleOf
        bundleOf = [:]
        defer { bundleOf = known }
        let content = try Packer(self, .content)
        for file in files where !file.content.isEmpty {
            let id: ChunkID = file.content.withUnsafeBytes { ContentHash.sha256($0) }
            try content.add(id, file.content, .wholeFile(MemberMetadata(file.entry)))
        }
        let sealed = try content.finish()
        try index(sealed, segments: [])
        return sealed.map(\.id)
    }

    func index(_ bundles: [SealedBundle], segments: [ChunkID]) throws {
        let out = ByteBuffer()
        for bundle in bundles { IndexCodec.write(bundle, to: out) }
        for id in segments {
            IndexCodec.write(segment: id, bundles: (needOf[id] ?? []).sorted(), to: out)
        }
        indexRecords.append(try repository.putRecord(.index, time: nil, payload: out.bytes))
    }

    private func note(_ bundle: SealedBundle) {
        for frame in bundle.frames {
            for chunk in frame.chunks { bundleOf[chunk.id] = bundle.id }
        }
    }

    private final class Packer {
        let made: MadeRepository
        let kind: BundleKind
        let frame = FrameBuilder()
        let compressor: FrameCompressor
        var writer: BundleWriter?
        var spool: BundleSpool?
        var members = 0
        var sealed: [SealedBundle] = []

        init(_ made: MadeRepository, _ kind: BundleKind) throws {
            self.made = made
            self.kind = kind
            compressor = try FrameCompressor(level: 1)
        }

        func add(_ id: ChunkID, _ bytes: [UInt8], _ name: MemberName) throws {
            guard made.bundleOf[id] == nil, !pending.contains(id) else { return }
            pending.insert(id)
            try bytes.withUnsafeBytes { try frame.add(name, id: id, data: $0) }
            members += 1
            if members >= made.filesPerFrame { try flush() }
        }
        private var pending: Set<ChunkID> = []

        func flush() throws {
            guard !frame.isEmpty else { return }
            members = 0
            if writer == nil {
                let spool = try made.repository.makeBundleSpool()
                self.spool = spool
                writer = try BundleWriter(
                    kind: kind, recipients: made.repository.contentRecipients, wantsMD5: false,
                    emit: { try spool.append($0) })
            }
            try writer?.append(try compressor.compress(frame, into: ByteBuffer()))
            frame.reset()
            if let writer, writer.frameCount >= made.framesPerBundle { try close() }
        }

        private func close() throws {
            guard let writer, let spool else { return }
            let bundle = try writer.finish()
            try made.repository.putBundle(bundle, spool: spool)
            sealed.append(bundle)
            self.writer = nil
            self.spool = nil
        }

        func finish() throws -> [SealedBundle] {
            try flush()
            try close()
            return sealed
        }
    }

    // MARK: Harm

    func key(_ bundle: BundleID) -> ObjectKey { ObjectKey(validated: repository.bundleKey(bundle)) }
    func key(_ record: RecordName) -> ObjectKey {
        ObjectKey(validated: repository.recordKey(record))
    }

    /// Forgets what this host has cached, so that everything comes from the store.
    func dropCache() { removeTree(repository.cachePath) }
}
