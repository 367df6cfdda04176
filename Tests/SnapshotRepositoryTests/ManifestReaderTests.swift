import BundleFormat
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Reading manifests")
struct ManifestReaderTests {
    /// Paths over an alphabet that tries the order: characters below and above `/`, deep and
    /// shallow, names that begin alike.
    static func paths(_ count: Int, _ generator: inout SeededGenerator) -> Set<String> {
        let alphabet = ["a", "b", "!", "-", ".x", "0", "aa", "a.b", "\u{e9}", "~"]
        var paths: Set<String> = []
        while paths.count < count {
            let depth = Int.random(in: 1...4, using: &generator)
            paths.insert(
                "/"
                    + (0..<depth).map { _ in alphabet.randomElement(using: &generator)! }.joined(
                        separator: "/"))
        }
        return paths
    }

    private static func read(_ reader: ManifestReader, below path: [UInt8]?) throws -> [[UInt8]] {
        var found: [[UInt8]] = []
        try reader.forEach(below: path) { entry, _ in
            found.append(entry.path)
            return true
        }
        return found
    }

    @Test(
        "What lies below a path is found in the segments that can hold it, and nowhere else",
        arguments: 0..<8)
    func narrowing(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        let fixture = try RepositoryFixture.plain()
        let repository = try fixture.open()
        let paths = Self.paths(60 + seed * 20, &generator)
        var backup = SmallBackup(repository: repository)
        backup.filesPerSegment = 1 + seed % 4
        let snapshot = try backup.store(paths.map { SmallFile(path: $0, content: Array($0.utf8)) })
        #expect(snapshot.manifestDepth >= 3)
        let fetcher = try FrameFetcher(
            repository, index: try ChunkIndex.load(repository),
            accesses: BundleAccessCache(repository))
        let reader = ManifestReader(snapshot, fetcher: fetcher)
        let all = try Self.read(reader, below: nil)
        #expect(Set(all) == Set(paths.map { Array($0.utf8) }))
        #expect(zip(all, all.dropFirst()).allSatisfy { EntryPath.precedes($0, $1) })
        let segments = try reader.segments()
        var holders: [[UInt8]: Int] = [:]
        for (number, child) in segments.enumerated() {
            try ManifestReader.forEach(Array(try reader.segment(child.id)), segment: child.id) {
                entry, _ in
                holders[entry.path] = number
                return true
            }
        }
        let questions = paths.union(Self.paths(150, &generator)).union([
            "/", "/zz", "/ ", "/a/a/a/a/a",
        ])
        for question in questions {
            let path = Array(question.utf8)
            let expected = all.filter { EntryPath.contains(path, $0) }
            #expect(try Self.read(reader, below: path) == expected, "\(question)")
            let narrowed = try reader.segments(below: path).map(\.id)
            let wanted = Set(expected.map { segments[holders[$0]!].id })
            #expect(wanted.isSubset(of: Set(narrowed)))
            // At most one segment too many, the one in whose range the path would begin.
            #expect(narrowed.count <= wanted.count + 1, "\(question)")
        }
    }

    @Test("Reading stops where it is told to")
    func stopping() throws {
        let fixture = try RepositoryFixture.plain()
        let repository = try fixture.open()
        let snapshot = try SmallBackup(repository: repository).store(
            (0..<20).map { SmallFile(path: "/f\($0)", content: [UInt8($0)]) })
        let reader = ManifestReader(
            snapshot,
            fetcher: try FrameFetcher(
                repository, index: try ChunkIndex.load(repository),
                accesses: BundleAccessCache(repository)))
        var count = 0
        try reader.forEach(below: nil) { _, _ in
            count += 1
            return count < 7
        }
        #expect(count == 7)
    }

    @Test("The problems of a run come back as they were, whatever bytes their paths have")
    func problems() throws {
        let fixture = try RepositoryFixture.withRecipient()
        var backup = SmallBackup(repository: try fixture.open())
        backup.problems =
            SnapshotProblem.Kind.allCases.enumerated().map {
                SnapshotProblem(
                    path: [0x2F, 0xFF, UInt8($0.offset)], kind: $0.element,
                    message: "a \"message\"\nof \($0.offset)")
            } + [SnapshotProblem(path: Array("/plain".utf8), kind: .lost, message: "")]
        let snapshot = try backup.store([SmallFile(path: "/a", content: [1])])
        let owned = try fixture.openAsOwner()
        let index = try ChunkIndex.load(owned)
        let reader = ManifestReader(
            snapshot,
            fetcher: try FrameFetcher(owned, index: index, accesses: BundleAccessCache(owned)))
        #expect(try reader.problems() == backup.problems)
        #expect(index.need(of: snapshot).missing.isEmpty)
        #expect(index.need(of: snapshot).bundles.count == 2)
    }

    @Test(
        "A forged tree whose nodes name each other again and again is refused before it fills the memory"
    )
    func selfSimilar() throws {
        let fixture = try RepositoryFixture.plain()
        let repository = try fixture.open()
        let index = RunIndex(try ChunkIndex.load(repository))
        let bundle = try BundleBuilder(repository, index, .manifest)
        func add(_ bytes: [UInt8]) throws -> ChunkID {
            let id = chunkID(bytes)
            index.describe(id, chunks: [], nodes: [])
            if index.claim(id) == .claimed { try bundle.add(.node, id, bytes) }
            return id
        }
        // Eight levels of a thousand children each would be 10^24 segments.
        var id = try add([])
        for _ in 0..<8 {
            let out = ByteBuffer()
            ManifestChild.write(
                Array(repeating: ManifestChild(id: id, first: [0x2F, 0x61]), count: 1000), to: out)
            id = try add(out.array)
        }
        var chunk = try add([7])
        var listDepth = 0
        for _ in 0..<4 {
            let out = ByteBuffer()
            ListNode.write(Array(repeating: chunk, count: 1000), to: out)
            chunk = try add(out.array)
            listDepth += 1
        }
        try bundle.finish()
        let lines = try #require(index.takeLines())
        try repository.putRecord(.index, time: nil, payload: lines.lines.bytes)
        var snapshot = Snapshot(time: RepositoryFixture.time, host: "h", roots: [], program: "p")
        snapshot.manifestDepth = 8
        snapshot.manifestIDs = [id]
        let fetcher = try FrameFetcher(
            repository, index: try ChunkIndex.load(repository),
            accesses: BundleAccessCache(repository))
        let reader = ManifestReader(snapshot, fetcher: fetcher)
        #expect(failure { _ = try reader.segments() }?.kind == .damaged)
        var entry = Entry(path: [0x2F, 0x61], kind: .file)
        entry.size = 100_000
        entry.chunks = [chunk]
        entry.listDepth = listDepth
        #expect(failure { _ = try reader.chunks(of: entry) }?.kind == .damaged)
    }

    @Test("A node, list or segment that is none is named as damage")
    func noNodes() throws {
        let fixture = try RepositoryFixture.plain()
        let repository = try fixture.open()
        let snapshot = try SmallBackup(repository: repository).store([
            SmallFile(path: "/a", content: Array("no node".utf8))
        ])
        let fetcher = try FrameFetcher(
            repository, index: try ChunkIndex.load(repository),
            accesses: BundleAccessCache(repository))
        var wrong = snapshot
        wrong.manifestIDs = [chunkID(Array("no node".utf8))]
        #expect(
            failure { _ = try ManifestReader(wrong, fetcher: fetcher).segments() }?.kind == .damaged
        )
        wrong.manifestIDs = [ChunkID(1, 1, 1, 1)]
        #expect(
            failure { _ = try ManifestReader(wrong, fetcher: fetcher).segments() }?.message
                .contains("no bundle") == true)
        let reader = ManifestReader(snapshot, fetcher: fetcher)
        var entry = Entry(path: Array("/a".utf8), kind: .file)
        entry.chunks = [chunkID(Array("no node".utf8))]
        entry.listDepth = 1
        #expect(failure { _ = try reader.chunks(of: entry) }?.kind == .damaged)
        entry.holesList = entry.chunks
        #expect(failure { _ = try reader.holes(of: entry) }?.kind == .damaged)
        for bytes in [Array("{}\n".utf8), Array("x".utf8), [0x0A]] {
            #expect(
                failure {
                    try ManifestReader.forEach(bytes, segment: ChunkID(0, 0, 0, 0)) { _, _ in true }
                }?.kind == .damaged)
        }
    }
}
