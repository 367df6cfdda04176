import AgeEncryption
import BundleFormat
import CSystem
import FileTree
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// A repository made by hand, entry by entry and frame by frame, and a place to restore to: what no
/// backup would write can be put into it, and it is known which frame holds what.
final class RestoreScratch {
    let directory: TemporaryDirectory
    let store = MemoryStore()
    let repository: Repository
    private(set) var entries: [Entry] = []
    private var frames: [[(id: ChunkID, data: [UInt8])]] = [[]]
    private var placed: Set<ChunkID> = []
    private var nodes: [[UInt8]] = []
    /// Lines that go into the manifest as they are, behind all entries.
    var rawLines: [String] = []
    /// Entries in each segment.
    var segmentEntries = 1000
    /// Chunks that are left out of the index.
    var unindexed: Set<ChunkID> = []
    private(set) var bundle: BundleID?
    private(set) var manifestBundle: BundleID?
    private(set) var index: ChunkIndex?
    private(set) var snapshot: Snapshot?

    /// - Parameter local: Whether it lies in a directory, and not in memory.
    init(
        in directory: TemporaryDirectory = TemporaryDirectory(),
        protection: Repository.Protection = .none, local: Bool = false
    ) throws {
        self.directory = directory
        let directories = HostDirectories(
            configuration: directory.path("etc"), cache: directory.path("cache"),
            state: directory.path("state"))
        repository = try Repository.create(
            store: local ? try LocalStore.create(at: directory.path("repository")) : store,
            location: directory.path("repository"), protection: protection,
            now: Timestamp(seconds: 1_700_000_000), directories: directories
        ).repository
    }

    var target: String { directory.path("target") }

    // MARK: Filling it

    /// Chunks stored from now on lie in another frame.
    func beginFrame() { if !(frames.last?.isEmpty ?? true) { frames.append([]) } }

    func storeChunk(_ data: [UInt8], again: Bool = false) -> ChunkID {
        let id: ChunkID = data.withUnsafeBytes { ContentHash.sha256($0) }
        if again || placed.insert(id).inserted { frames[frames.count - 1].append((id, data)) }
        return id
    }

    func storeNode(_ data: [UInt8]) -> ChunkID {
        nodes.append(data)
        return data.withUnsafeBytes { ContentHash.sha256($0) }
    }

    static func entry(_ kind: EntryKind, _ path: String) -> Entry {
        var entry = Entry(path: Array(path.utf8), kind: kind)
        entry.mode = kind == .directory ? 0o755 : 0o644
        entry.uid = geteuid()
        entry.gid = getegid()
        entry.mtime = Timestamp(seconds: 1_600_000_000, nanoseconds: 123_456_789)
        entry.ctime = entry.mtime
        entry.inode =
            UInt64(path.utf8.count) << 32
            | UInt64(path.utf8.reduce(0) { ($0 &* 31 &+ UInt32($1)) & 0xFFFF_FFFF })
        return entry
    }

    @discardableResult
    func add(_ kind: EntryKind, _ path: String, change: (inout Entry) -> Void = { _ in }) -> Entry {
        var entry = Self.entry(kind, path)
        change(&entry)
        entries.append(entry)
        return entry
    }

    /// Adds a file whose content outside of holes is cut into the given chunks.
    @discardableResult
    func file(
        _ path: String, _ chunks: [[UInt8]], holes: [Hole] = [], frameForEach: Bool = false,
        change: (inout Entry) -> Void = { _ in }
    ) -> Entry {
        add(.file, path) { entry in
            entry.chunks = chunks.map { chunk in
                if frameForEach { beginFrame() }
                return storeChunk(chunk)
            }
            entry.holes = holes
            entry.size =
                UInt64(chunks.reduce(0) { $0 + $1.count }) + holes.reduce(0) { $0 + $1.length }
            entry.fingerprint = Array(chunks.joined()).withUnsafeBytes {
                ContentHash.fingerprint($0)
            }
            change(&entry)
        }
    }

    // MARK: Storing it

    private func put(_ kind: BundleKind, _ frames: [[(MemberName, ChunkID, [UInt8])]]) throws
        -> SealedBundle
    {
        let spool = try repository.makeBundleSpool()
        let writer = try BundleWriter(
            kind: kind, recipients: repository.contentRecipients, wantsMD5: false
        ) { try spool.append($0) }
        let compressor = try FrameCompressor(level: 1)
        for frame in frames where !frame.isEmpty {
            let builder = FrameBuilder()
            for (name, id, data) in frame {
                try data.withUnsafeBytes { try builder.add(name, id: id, data: $0) }
            }
            try writer.append(try compressor.compress(builder, into: ByteBuffer()))
        }
        let sealed = try writer.finish()
        try repository.putBundle(sealed, spool: spool)
        return sealed
    }

    /// Stores everything; what was added before belongs to the snapshot.
    @discardableResult
    func commit(sorted: Bool = true) throws -> Snapshot {
        if sorted { entries.sort { EntryPath.precedes($0.path, $1.path) } }
        let lines = ByteBuffer()
        var manifest: [(MemberName, ChunkID, [UInt8])] = []
        var children: [ManifestChild] = []
        var first: [UInt8]?
        func cut() {
            guard lines.count > 0, let start = first else { return }
            let data = lines.array
            let id: ChunkID = data.withUnsafeBytes { ContentHash.sha256($0) }
            manifest.append((.segment, id, data))
            children.append(ManifestChild(id: id, first: start))
            lines.removeAll()
            first = nil
        }
        for (number, entry) in entries.enumerated() {
            if number > 0, number % segmentEntries == 0 { cut() }
            if first == nil { first = entry.path }
            EntryCodec.write(entry, to: lines)
        }
        for line in rawLines {
            if first == nil { first = [0x2F] }
            lines.append(line + "\n")
        }
        cut()
        let top = ByteBuffer()
        ManifestChild.write(children, to: top)
        let topID: ChunkID = ContentHash.sha256(top.bytes)
        if !children.isEmpty { manifest.append((.node, topID, top.array)) }
        for node in nodes {
            manifest.append((.node, node.withUnsafeBytes { ContentHash.sha256($0) }, node))
        }

        let index = ByteBuffer()
        let content = try put(
            .content, frames.map { $0.map { (.chunk(path: []), $0.id, $0.data) } })
        bundle = content.id
        IndexCodec.write(filtered(content), to: index)
        if !manifest.isEmpty {
            // Each segment in a frame of its own, so that one can be damaged alone.
            let sealed = try put(.manifest, manifest.map { [$0] })
            manifestBundle = sealed.id
            manifestFrames = sealed.frames
            IndexCodec.write(sealed, to: index)
        }
        contentFrames = content.frames
        try repository.putRecord(.index, time: nil, payload: index.bytes)
        var snapshot = Snapshot(
            time: Timestamp(seconds: 1_700_000_100), host: "test", roots: [[0x2F]], program: "test")
        snapshot.manifestIDs = children.isEmpty ? [] : [topID]
        snapshot.statistics.files = entries.count
        snapshot.name = try repository.putRecord(.snapshot, time: snapshot.time, snapshot.json)
        self.snapshot = snapshot
        self.index = try ChunkIndex.load(repository)
        return snapshot
    }

    private(set) var contentFrames: [FrameRecord] = []
    private(set) var manifestFrames: [FrameRecord] = []

    private func filtered(_ bundle: SealedBundle) -> SealedBundle {
        guard !unindexed.isEmpty else { return bundle }
        return SealedBundle(
            id: bundle.id, kind: bundle.kind, size: bundle.size, plain: bundle.plain,
            md5: bundle.md5,
            frames: bundle.frames.map { frame in
                var frame = frame
                frame.chunks.removeAll { unindexed.contains($0.id) }
                return frame
            })
    }

    /// Flips a bit in the middle of a frame of the content or manifest bundle, as stored without
    /// encryption.
    func damage(_ kind: BundleKind, frame: Int) throws {
        let id = try #require(kind == .content ? bundle : manifestBundle)
        let record = (kind == .content ? contentFrames : manifestFrames)[frame]
        let key = try #require(ObjectKey(repository.bundleKey(id)))
        let place = record.offset + record.length / 2
        #expect(store.alter(key) { $0[place] ^= 0x10 })
    }

    // MARK: Restoring it

    func makeRestore(
        monitor: any Monitor = SilentMonitor(), cancellation: Cancellation = Cancellation(),
        _ change: (inout RestoreOptions) -> Void = { _ in }
    ) throws -> Restore {
        if snapshot == nil { try commit() }
        var options = RestoreOptions()
        change(&options)
        return Restore(
            repository: repository, index: try #require(index), snapshot: try #require(snapshot),
            options: options, monitor: monitor, cancellation: cancellation)
    }

    @discardableResult
    func restore(
        _ path: String? = nil, to target: String? = nil,
        _ change: (inout RestoreOptions) -> Void = { _ in }
    ) throws -> RestoreReport {
        try makeRestore(change).run(
            path: path.map { Array($0.utf8) }, target: target ?? self.target)
    }

    // MARK: Looking at what came out

    func content(_ name: String) -> [UInt8]? { readFile(target + "/" + name) }

    func status(_ name: String) -> csys_stat? {
        var status = csys_stat()
        return csys_lstatat(AT_FDCWD, target + "/" + name, &status) == 0 ? status : nil
    }

    func mtime(_ name: String) -> Timestamp? {
        status(name).map { Timestamp(seconds: $0.mtime_sec, nanoseconds: $0.mtime_nsec) }
    }

    func link(_ name: String) -> String? {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = csys_readlinkat(AT_FDCWD, target + "/" + name, &buffer, buffer.count)
        guard count >= 0 else { return nil }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func setTime(_ name: String, _ time: Timestamp) {
        #expect(csys_lutimensat(AT_FDCWD, target + "/" + name, time.seconds, time.nanoseconds) == 0)
    }

    var names: [String] { treeContents(target) }
}

/// The error that stops a restore.
func restoreFailure(_ body: () throws -> Void) -> ReplicationError? {
    do {
        try body()
        return nil
    } catch {
        return error as? ReplicationError
    }
}
