import BundleFormat
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// What index lines say, collected.
private struct Collector: IndexCodec.Receiver {
    struct Bundle: Equatable {
        var id: BundleID
        var kind: BundleKind
        var size, plain: Int
        var md5: [UInt8]?
        var frames: [FrameRecord] = []
    }
    struct Segment: Equatable {
        var id: ChunkID
        var bundles: [BundleID]
    }
    var bundles: [Bundle] = []
    var segments: [Segment] = []

    mutating func bundle(_ bundle: IndexedBundle) {
        bundles.append(
            Bundle(
                id: bundle.id, kind: bundle.kind, size: bundle.size, plain: bundle.plain,
                md5: bundle.md5))
    }
    mutating func frame(_ frame: IndexedFrame) {
        bundles[bundles.count - 1].frames.append(
            FrameRecord(
                offset: frame.offset, length: frame.length, raw: frame.raw,
                fingerprint: frame.fingerprint, chunks: []))
    }
    mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
        let last = bundles.count - 1
        let frame = bundles[last].frames.count - 1
        bundles[last].frames[frame].chunks.append(
            ChunkPlace(id: id, offset: offset, length: length))
    }
    mutating func segment(_ id: ChunkID, bundles: [BundleID]) {
        segments.append(Segment(id: id, bundles: bundles))
    }

    static func read(_ bytes: [UInt8]) -> (Collector, Int?) {
        var collector = Collector()
        let bad = bytes.withUnsafeBytes { IndexCodec.read($0, into: &collector) }
        return (collector, bad)
    }
    static func read(_ text: String) -> (Collector, Int?) { read(Array(text.utf8)) }
}

private func randomID<Kind>(_ generator: inout SeededGenerator) -> Identifier<Kind> {
    Identifier(generator.next(), generator.next(), generator.next(), generator.next())
}

/// A bundle that never was, with chunks partly out of `pool`.
private func madeUpBundle(_ generator: inout SeededGenerator, pool: [ChunkID], md5: Bool = false)
    -> SealedBundle
{
    var offset = 24
    var frames: [FrameRecord] = []
    for _ in 0..<Int.random(in: 1...4, using: &generator) {
        var chunks: [ChunkPlace] = []
        var at: UInt32 = 512
        for _ in 0..<Int.random(in: 0...30, using: &generator) {
            let length = UInt32.random(in: 0...5000, using: &generator)
            let id =
                Bool.random(using: &generator) && !pool.isEmpty
                ? pool.randomElement(using: &generator)! : randomID(&generator)
            chunks.append(ChunkPlace(id: id, offset: at, length: length))
            at += length + 512
        }
        let length = Int.random(in: 1...70_000, using: &generator)
        frames.append(
            FrameRecord(
                offset: offset, length: length, raw: Int(at),
                fingerprint: Fingerprint(high: generator.next(), low: generator.next()),
                chunks: chunks))
        offset += length
    }
    return SealedBundle(
        id: randomID(&generator), kind: Bool.random(using: &generator) ? .content : .manifest,
        size: offset + 300, plain: offset,
        md5: md5 ? generator.bytes(16) : nil, frames: frames)
}

@Suite("Lines of the index")
struct IndexCodecTests {
    @Test("What is written is what is read", arguments: 0..<20)
    func roundTrip(seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed))
        let out = ByteBuffer()
        var bundles: [Collector.Bundle] = []
        var segments: [Collector.Segment] = []
        for _ in 0..<10 {
            let bundle = madeUpBundle(&generator, pool: [], md5: Bool.random(using: &generator))
            IndexCodec.write(bundle, to: out)
            bundles.append(
                .init(
                    id: bundle.id, kind: bundle.kind, size: bundle.size, plain: bundle.plain,
                    md5: bundle.md5, frames: bundle.frames))
            let segment = Collector.Segment(
                id: randomID(&generator),
                bundles: (0..<Int.random(in: 0...4, using: &generator)).map { _ in
                    randomID(&generator)
                })
            IndexCodec.write(segment: segment.id, bundles: segment.bundles, to: out)
            segments.append(segment)
        }
        let (read, bad) = Collector.read(out.array)
        #expect(bad == nil)
        #expect(read.bundles == bundles)
        #expect(read.segments == segments)
    }

    private static let id = String(repeating: "ab", count: 32)
    private static let bundle =
        "{\"bundle\":\"\(id)\",\"kind\":\"content\",\"size\":2000,\"plain\":1000}\n"
    private static let xxh3 = String(repeating: "0", count: 32)

    @Test(
        "Fields may come in any order and with white space, and unknown ones and lines are passed over"
    )
    func order() {
        let text =
            " { \"plain\" : 1000 , \"kind\":\"manifest\",\"new\":[{}],\"size\":2000,\"bundle\":\"\(Self.id)\"}\n"
            + "{\"xxh3\":\"\(Self.xxh3)\", \"chunks\" : [ [ \"\(Self.id)\" , 0 , 7 ] ],\"later\":null,\"frame\":[24,76,512]}\n"
            + "{\"bundles\":[\"\(Self.id)\"],\"segment\":\"\(Self.id)\"}\n"
            + "{\"something\":\"else\"}\n"
        let (read, bad) = Collector.read(text)
        #expect(bad == nil)
        #expect(read.bundles.count == 1)
        #expect(read.bundles[0].kind == .manifest)
        #expect(read.bundles[0].frames.map(\.length) == [76])
        #expect(
            read.bundles[0].frames[0].chunks == [
                ChunkPlace(id: ChunkID(Self.id)!, offset: 0, length: 7)
            ])
        #expect(read.segments.count == 1)
    }

    @Test("A field marked critical is known, or the line is refused")
    func critical() {
        func bad(_ line: String) -> Int? { Collector.read(Self.bundle + line).1 }
        #expect(bad("{\"something\":1,\"critical\":[\"something\"]}\n") == 2)
        #expect(
            bad("{\"segment\":\"\(Self.id)\",\"bundles\":[],\"x\":1,\"critical\":[\"x\"]}\n") == 2)
        #expect(
            bad("{\"segment\":\"\(Self.id)\",\"bundles\":[],\"x\":1,\"critical\":[\"bundles\"]}\n")
                == nil)
        #expect(
            bad(
                "{\"frame\":[24,76,512],\"xxh3\":\"\(Self.xxh3)\",\"chunks\":[],\"critical\":[\"x\"]}\n"
            ) == 2)
        #expect(
            bad(
                "{\"frame\":[24,76,512],\"xxh3\":\"\(Self.xxh3)\",\"chunks\":[],\"critical\":[\"xxh3\"]}\n"
            ) == nil)
        #expect(
            bad("{\"frame\":[24,76,512],\"xxh3\":\"\(Self.xxh3)\",\"chunks\":[],\"critical\":1}\n")
                == 2)
    }

    @Test(
        "Numbers that do not fit into bundle, frame or memory are refused",
        arguments: [
            "{\"frame\":[24,977,512],\"xxh3\":\"X\",\"chunks\":[]}\n",
            "{\"frame\":[1001,1,512],\"xxh3\":\"X\",\"chunks\":[]}\n",
            "{\"frame\":[24,0,512],\"xxh3\":\"X\",\"chunks\":[]}\n",
            "{\"frame\":[24,76,16777217],\"xxh3\":\"X\",\"chunks\":[]}\n",
            "{\"frame\":[24,76],\"xxh3\":\"X\",\"chunks\":[]}\n",
            "{\"frame\":[24,76,1,1],\"xxh3\":\"X\",\"chunks\":[]}\n",
            "{\"frame\":[24,76,512],\"chunks\":[]}\n", "{\"frame\":[24,76,512],\"xxh3\":\"X\"}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"Xa\",\"chunks\":[]}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"X\",\"chunks\":[[\"I\",0,513]]}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"X\",\"chunks\":[[\"I\",512,1]]}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"X\",\"chunks\":[[\"I\",9223372036854775807,9223372036854775807]]}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"X\",\"chunks\":[[\"I\",0]]}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"X\",\"chunks\":[\"I\"]}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"X\",\"chunks\":[]}{}\n",
            "{\"frame\":[24,76,512],\"xxh3\":\"X\",\"chunks\":[]}\n{\"frame\":[99,10,512],\"xxh3\":\"X\",\"chunks\":[]}\n",
            "{\"bundle\":\"I\",\"kind\":\"content\",\"size\":1,\"plain\":2}\n",
            "{\"bundle\":\"I\",\"kind\":\"other\",\"size\":1,\"plain\":1}\n",
            "{\"bundle\":\"i\",\"kind\":\"content\",\"size\":1,\"plain\":1}\n",
            "{\"segment\":\"I\",\"bundles\":[1]}\n", "{\"segment\":\"I\"}\n", "[]\n", "{}", "\n",
            "{\"bundle\":\"I\",\"kind\":\"content\",\"size\":9223372036854775807,\"plain\":9223372036854775807}\n{\"frame\":[9223372036854775807,9223372036854775807,1],\"xxh3\":\"X\",\"chunks\":[]}\n",
        ])
    func hostile(text: String) {
        let line = text.replacing("\"X", with: "\"" + Self.xxh3).replacing(
            "\"I\"", with: "\"\(Self.id)\"")
        #expect(Collector.read(Self.bundle + line).1 != nil)
    }

    @Test("A frame without a bundle before it is refused")
    func frameFirst() {
        #expect(
            Collector.read("{\"frame\":[24,76,512],\"xxh3\":\"\(Self.xxh3)\",\"chunks\":[]}\n").1
                == 1)
    }

    @Test(
        "Mutated and truncated lines are refused or read, and what is read keeps its bounds",
        arguments: 0..<20)
    func mutated(seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed) &+ 1000)
        let out = ByteBuffer()
        IndexCodec.write(madeUpBundle(&generator, pool: [], md5: true), to: out)
        IndexCodec.write(segment: randomID(&generator), bundles: [randomID(&generator)], to: out)
        for _ in 0..<300 {
            let (read, _) = Collector.read(mutation(of: out.array, &generator))
            for bundle in read.bundles {
                #expect(bundle.plain <= bundle.size)
                var end = 0
                for frame in bundle.frames {
                    #expect(frame.offset >= end && frame.length > 0 && frame.raw <= 16 << 20)
                    end = frame.offset + frame.length
                    #expect(end <= bundle.plain)
                    for chunk in frame.chunks {
                        #expect(Int(chunk.offset) + Int(chunk.length) <= frame.raw)
                    }
                }
            }
        }
    }
}

/// One to four random edits: a byte set, inserted or removed, a piece doubled, the end cut off.
func mutation(of bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
    var bytes = bytes
    for _ in 0...Int.random(in: 0...3, using: &generator) where !bytes.isEmpty {
        let at = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<6, using: &generator) {
        case 0: bytes[at] = UInt8(truncatingIfNeeded: generator.next())
        case 1:
            bytes[at] = Array("0123456789\"\\[]{}:,-.eEn \n".utf8).randomElement(using: &generator)!
        case 2: bytes.insert(UInt8(truncatingIfNeeded: generator.next()), at: at)
        case 3: bytes.remove(at: at)
        case 4:
            let end = min(bytes.count, at + Int.random(in: 1...40, using: &generator))
            bytes.insert(contentsOf: bytes[at..<end], at: at)
        default: bytes.removeLast(bytes.count - at)
        }
    }
    return bytes
}

@Suite("The index")
struct ChunkIndexTests {
    /// Index records of a repository beside the plain dictionaries that say what must be found.
    private struct World {
        let fixture: RepositoryFixture
        let repository: Repository
        var records:
            [(name: RecordName, bundles: [SealedBundle], segments: [(ChunkID, [BundleID])])] = []
        var pool: [ChunkID]
        var segmentPool: [ChunkID]

        init(seed: UInt64, records count: Int) throws {
            fixture = try RepositoryFixture.plain()
            repository = try fixture.open()
            var generator = SeededGenerator(seed: seed)
            pool = (0..<100).map { _ in randomID(&generator) }
            segmentPool = (0..<20).map { _ in randomID(&generator) }
            var known: [SealedBundle] = []
            for _ in 0..<count {
                var bundles: [SealedBundle] = []
                for _ in 0..<Int.random(in: 0...4, using: &generator) {
                    // Now and then a bundle that another record tells of already.
                    if let old = known.randomElement(using: &generator),
                        Int.random(in: 0..<4, using: &generator) == 0
                    {
                        if !bundles.contains(where: { $0.id == old.id }) { bundles.append(old) }
                    } else {
                        bundles.append(
                            madeUpBundle(
                                &generator, pool: pool, md5: Bool.random(using: &generator)))
                    }
                }
                known += bundles
                let segments = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
                    let named = (0..<Int.random(in: 0...3, using: &generator)).map {
                        _ -> BundleID in
                        // Some that no record describes.
                        Int.random(in: 0..<5, using: &generator) == 0
                            ? randomID(&generator)
                            : known.randomElement(using: &generator)?.id ?? randomID(&generator)
                    }
                    return (segmentPool.randomElement(using: &generator)!, Array(Set(named)))
                }
                try add(bundles, segments)
            }
        }

        mutating func add(_ bundles: [SealedBundle], _ segments: [(ChunkID, [BundleID])]) throws {
            let out = ByteBuffer()
            for bundle in bundles { IndexCodec.write(bundle, to: out) }
            for (id, named) in segments { IndexCodec.write(segment: id, bundles: named, to: out) }
            records.append(
                (try repository.putRecord(.index, time: nil, payload: out.bytes), bundles, segments)
            )
        }

        struct Place: Hashable {
            var bundle: BundleID
            var frame: Int
            var offset, length: UInt32
        }

        var places: [ChunkID: Set<Place>] {
            var places: [ChunkID: Set<Place>] = [:]
            for bundle in records.flatMap(\.bundles) {
                for frame in bundle.frames {
                    for chunk in frame.chunks {
                        places[chunk.id, default: []].insert(
                            Place(
                                bundle: bundle.id, frame: frame.offset, offset: chunk.offset,
                                length: chunk.length))
                    }
                }
            }
            return places
        }

        func check(_ index: ChunkIndex, unusable: Set<BundleID> = []) {
            let places = places
            let bundles = Dictionary(
                records.flatMap(\.bundles).map { ($0.id, $0) },
                uniquingKeysWith: { first, _ in first })
            #expect(Set(index.bundles.map(\.id)) == Set(bundles.keys))
            #expect(index.bundles.count == bundles.count)
            for found in index.bundles {
                let bundle = bundles[found.id]!
                #expect((found.size, found.plain) == (bundle.size, bundle.plain))
                #expect(found.kind == bundle.kind)
                #expect(found.md5 == bundle.md5)
                #expect(
                    index.frames(of: found.id)
                        == bundle.frames.map {
                            IndexedFrame(
                                offset: $0.offset, length: $0.length, raw: $0.raw,
                                fingerprint: $0.fingerprint)
                        })
                #expect(index.isUsable(bundle: found.id) == !unusable.contains(found.id))
            }
            for (id, expected) in places {
                let found = index.locations(id)
                #expect(
                    Set(
                        found.map {
                            Place(
                                bundle: $0.bundle, frame: $0.frame.offset,
                                offset: UInt32($0.offset), length: UInt32($0.length))
                        }) == expected)
                let isUsable = expected.contains { !unusable.contains($0.bundle) }
                #expect(index.isUsable(id) == isUsable)
                #expect(index.usableBundle(id).map { !unusable.contains($0) } ?? !isUsable)
                let first = index.location(id)
                #expect(
                    first.map { location in
                        expected.contains {
                            $0.bundle == location.bundle && $0.frame == location.frame.offset
                        }
                    } == true)
                #expect(!isUsable || !unusable.contains(first!.bundle))
                for location in found {
                    #expect(location.bundleSize == bundles[location.bundle]!.size)
                }
            }
            var generator = SeededGenerator(seed: 0xDEAD_BEEF)
            for _ in 0..<200 {
                let id: ChunkID = randomID(&generator)
                #expect(
                    index.location(id) == nil && index.locations(id).isEmpty && !index.isUsable(id))
            }
            for id in segmentPool {
                let lines = records.flatMap(\.segments).filter { $0.0 == id }.map { Set($0.1) }
                let found = index.bundles(ofSegment: id).map { Set($0) }
                guard let found else {
                    #expect(lines.isEmpty)
                    continue
                }
                #expect(lines.contains(found))
                let whole = lines.filter {
                    $0.allSatisfy { bundles[$0] != nil && !unusable.contains($0) }
                }
                if !whole.isEmpty { #expect(whole.contains(found)) }
            }
        }

        var tables: [String] {
            LocalFile.names(in: repository.cachePath + "/index").map {
                repository.cachePath + "/index/" + $0
            }
        }
    }

    @Test(
        "Whatever records there are, the index finds what a plain dictionary does",
        arguments: [(1, 1), (2, 3), (3, 8), (4, 9), (5, 25), (6, 40)])
    func againstDictionary(seed: Int, records: Int) throws {
        var world = try World(seed: UInt64(seed), records: records)
        let index = try ChunkIndex.load(world.repository)
        #expect(index.damaged.isEmpty)
        world.check(index)
        // From the cache, merged or not.
        world.check(try ChunkIndex.load(world.repository))
        #expect(world.tables.count <= 9)
        // One more record on top of a merged table, then so many that both are merged again.
        var generator = SeededGenerator(seed: UInt64(seed) &+ 77)
        for count in [1, 12] {
            for _ in 0..<count { try world.add([madeUpBundle(&generator, pool: world.pool)], []) }
            world.check(try ChunkIndex.load(world.repository))
            world.check(try ChunkIndex.load(world.repository))
        }
    }

    @Test("A table of the cache that is damaged in any way is made anew", arguments: 0..<12)
    func damagedTable(seed: Int) throws {
        let world = try World(seed: 40, records: seed % 2 == 0 ? 3 : 20)
        world.check(try ChunkIndex.load(world.repository))
        var generator = SeededGenerator(seed: UInt64(seed))
        for path in world.tables {
            var bytes = try #require(try LocalFile.read(path))
            switch seed {
            case 0, 1: bytes = []
            case 2, 3: bytes.removeLast(8)
            case 4, 5: bytes = generator.bytes(bytes.count)
            case 6, 7: bytes[Int.random(in: 8..<64, using: &generator)] ^= 0xFF
            default: bytes[Int.random(in: 0..<bytes.count, using: &generator)] ^= 1
            }
            try LocalFile.write(bytes, to: path)
        }
        world.check(try ChunkIndex.load(world.repository))
    }

    @Test("What a process that died left behind is cleared away; strange files do no harm")
    func leftovers() throws {
        let world = try World(seed: 41, records: 3)
        let folder = world.repository.cachePath + "/index"
        try LocalFile.write([1, 2, 3], to: folder + "/x.table.tmp-999999999")
        try LocalFile.write([1, 2, 3], to: folder + "/notes.txt")
        world.check(try ChunkIndex.load(world.repository))
        #expect(!LocalFile.exists(folder + "/x.table.tmp-999999999"))
        #expect(LocalFile.exists(folder + "/notes.txt"))
    }

    @Test("With a record that has left the repository goes what only it said", arguments: [5, 20])
    func deletedRecord(count: Int) throws {
        var world = try World(seed: 42, records: count)
        world.check(try ChunkIndex.load(world.repository))
        let gone = world.records.remove(at: 2)
        try world.repository.deleteRecord(gone.name)
        world.check(try ChunkIndex.load(world.repository))
    }

    @Test("A cache that another has deleted is no loss")
    func noCache() throws {
        let world = try World(seed: 43, records: 12)
        world.check(try ChunkIndex.load(world.repository))
        for path in world.tables { LocalFile.remove(path) }
        world.check(try ChunkIndex.load(world.repository))
    }

    @Test(
        "A bundle that is condemned, missing or of another length is not offered for reuse, but still read from",
        arguments: 0..<6)
    func unusable(seed: Int) throws {
        let world = try World(seed: UInt64(50 + seed), records: 10)
        var generator = SeededGenerator(seed: UInt64(seed))
        let all = Set(world.records.flatMap(\.bundles).map(\.id)).sorted()
        let sizes = Dictionary(
            world.records.flatMap(\.bundles).map { ($0.id, $0.size) },
            uniquingKeysWith: { first, _ in first })
        var listed = sizes
        var unusable: Set<BundleID> = []
        var condemned: [BundleID] = []
        for id in all {
            switch Int.random(in: 0..<6, using: &generator) {
            case 0: listed[id] = nil
            case 1: listed[id]! += 1
            case 2: condemned.append(id)
            default: continue
            }
            unusable.insert(id)
        }
        let time = RepositoryFixture.time
        try world.repository.putRecord(
            .condemned, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string("h")),
                ("state", .string("condemned")),
                ("bundles", JSONValue(ids: condemned)), ("index", .array([])),
            ]))
        var damaged: [RepositoryError] = []
        let view = try CondemnedView.load(world.repository, damaged: &damaged)
        #expect(damaged.isEmpty)
        #expect(view.bundles == Set(condemned))
        world.check(
            try ChunkIndex.load(world.repository, condemned: view, listed: listed),
            unusable: unusable)
        world.check(
            try ChunkIndex.load(world.repository, condemned: view), unusable: Set(condemned))
        world.check(try ChunkIndex.load(world.repository))
    }

    @Test("A record that is no index hides nothing else")
    func badRecord() throws {
        let world = try World(seed: 44, records: 4)
        let bad = Array("{\"segment\":7}\n".utf8)
        let name = try bad.withRawBytes { (bytes) throws(RepositoryError) in
            try world.repository.putRecord(.index, time: nil, payload: bytes)
        }
        let index = try ChunkIndex.load(world.repository)
        #expect(index.damaged.map(\.subject) == [world.repository.recordKey(name)])
        world.check(index)
    }
}

@Suite("The index of a run")
struct RunIndexTests {
    @Test("Of many threads that meet a chunk, one packs it")
    func claims() async throws {
        let index = RunIndex(try ChunkIndex.load(try RepositoryFixture.plain().open()))
        var generator = SeededGenerator(seed: 1)
        let ids: [ChunkID] = (0..<5000).map { _ in randomID(&generator) }
        let claimed = await withTaskGroup(of: [ChunkID].self) { group in
            for worker in 0..<4 {
                group.addTask {
                    let order = worker % 2 == 0 ? ids : ids.reversed()
                    return order.filter { index.claim($0) == .claimed }
                }
            }
            return await group.reduce(into: []) { $0 += $1 }
        }
        #expect(claimed.count == ids.count)
        #expect(Set(claimed) == Set(ids))
        #expect(ids.allSatisfy { index.contains($0) })
    }

    /// One manifest described in random order over bundles that are sealed at random times: lines
    /// come when they can and not before, and say what counting by hand says.
    @Test(
        "A line is written once everything below it is durable, and names exactly that",
        arguments: 0..<40)
    func lines(seed: Int) throws {
        let fixture = try RepositoryFixture.plain()
        let repository = try fixture.open()
        var generator = SeededGenerator(seed: UInt64(seed))
        // Some of the chunks are stored by an earlier run.
        let old = madeUpBundle(&generator, pool: [])
        let out = ByteBuffer()
        IndexCodec.write(old, to: out)
        try repository.putRecord(.index, time: nil, payload: out.bytes)
        let stored = old.frames.flatMap(\.chunks).map(\.id)
        let index = RunIndex(try ChunkIndex.load(repository))

        let chunks: [ChunkID] = (0..<60).map { _ in randomID(&generator) }
        let segments: [ChunkID] = (0..<12).map { _ in randomID(&generator) }
        let nodes: [ChunkID] = (0..<3).map { _ in randomID(&generator) }
        var below: [ChunkID: [ChunkID]] = [:]
        for segment in segments {
            below[segment] = (0..<Int.random(in: 0...8, using: &generator)).map { _ in
                (stored.isEmpty || Int.random(in: 0..<4, using: &generator) > 0 ? chunks : stored)
                    .randomElement(using: &generator)!
            }
        }
        for (number, node) in nodes.enumerated() {
            below[node] = Array(segments[(number * 4)..<(number * 4 + 4)])
        }

        // Everything that has to be packed, in a random order of bundles.
        for id in chunks + segments + nodes { #expect(index.claim(id) == .claimed) }
        for id in stored { #expect(index.claim(id) == .known) }
        var open: [(ordinal: UInt32, id: BundleID, chunks: [ChunkID])] = []
        var rest = chunks + segments + nodes
        rest.shuffle(using: &generator)
        var pendingDescriptions = segments + nodes
        var durable: Set<BundleID> = [old.id]
        var holder: [ChunkID: BundleID] = [:]
        for id in stored { holder[id] = old.id }
        var seen: [ChunkID: Set<BundleID>] = [:]
        var written: Set<BundleID> = []

        func take() throws {
            guard let (lines, bundles) = index.takeLines() else { return }
            let (read, bad) = Collector.read(lines.array)
            #expect(bad == nil)
            #expect(Set(read.bundles.map(\.id)) == bundles)
            written.formUnion(bundles)
            for segment in read.segments {
                #expect(seen[segment.id] == nil, "once is enough")
                #expect(Set(segment.bundles).isSubset(of: durable))
                seen[segment.id] = Set(segment.bundles)
            }
            if Bool.random(using: &generator) {
                let record = try repository.putRecord(.index, time: nil, payload: lines.bytes)
                try index.indexed(lines, bundles: bundles, as: record, in: repository)
            }
        }

        while !rest.isEmpty || !open.isEmpty || !pendingDescriptions.isEmpty {
            switch Int.random(in: 0..<5, using: &generator) {
            case 0 where !pendingDescriptions.isEmpty:
                // Nodes are described after what they name, which is all that is promised of the
                // order.
                let id = pendingDescriptions.removeFirst()
                if segments.contains(id) {
                    index.describe(id, chunks: below[id]!, nodes: [])
                } else {
                    index.describe(id, chunks: [], nodes: below[id]!)
                }
            case 1 where !rest.isEmpty:
                let ordinal = index.openBundle()
                let count = Int.random(in: 1...min(15, rest.count), using: &generator)
                let ids = Array(rest.prefix(count))
                rest.removeFirst(count)
                index.place(ids.map { ChunkPlace(id: $0, offset: 0, length: 1) }, in: ordinal)
                open.append((ordinal, randomID(&generator), ids))
            case 2 where !open.isEmpty:
                let bundle = open.remove(at: Int.random(in: 0..<open.count, using: &generator))
                durable.insert(bundle.id)
                for id in bundle.chunks { holder[id] = bundle.id }
                index.stored(
                    SealedBundle(
                        id: bundle.id, kind: .content, size: 1000, plain: 900, md5: nil,
                        frames: [
                            FrameRecord(
                                offset: 24, length: 876, raw: 100, fingerprint: .empty,
                                chunks: bundle.chunks.map {
                                    ChunkPlace(id: $0, offset: 0, length: 1)
                                })
                        ]), as: bundle.ordinal)
            case 3: try take()
            default: break
            }
        }
        try take()
        var expected: [ChunkID: Set<BundleID>] = [:]
        for segment in segments { expected[segment] = Set(below[segment]!.map { holder[$0]! }) }
        for node in nodes {
            expected[node] = below[node]!.reduce(into: []) {
                $0.formUnion(expected[$1]!.union([holder[$1]!]))
            }
        }
        #expect(seen == expected)
        #expect(written == durable.subtracting([old.id]))
        #expect(Set(index.madeBundles) == written)
        #expect(index.takeLines() == nil, "nothing is said twice")
        let need = nodes.reduce(into: Set<BundleID>()) {
            $0.formUnion(expected[$1]!.union([holder[$1]!]))
        }
        #expect(index.need(of: nodes) == need)
        #expect(index.need(of: nodes + [randomID(&generator)]) == nil)
        #expect(index.canRely(on: []))
        for id in chunks + segments + nodes { #expect(index.claim(id) == .known) }
    }

    @Test(
        "Nothing is needed that is not known to be stored: before the bundle is durable there is no answer"
    )
    func early() throws {
        let index = RunIndex(try ChunkIndex.load(try RepositoryFixture.plain().open()))
        let node = ChunkID(1, 2, 3, 4)
        #expect(index.need(of: [node]) == nil)
        #expect(index.claim(node) == .claimed)
        index.describe(node, chunks: [], nodes: [])
        #expect(index.need(of: [node]) == nil)
        let ordinal = index.openBundle()
        index.place([ChunkPlace(id: node, offset: 0, length: 1)], in: ordinal)
        #expect(index.need(of: [node]) == nil)
        let bundle = SealedBundle(
            id: BundleID(9, 9, 9, 9), kind: .manifest, size: 10, plain: 9, md5: nil, frames: [])
        index.stored(bundle, as: ordinal)
        #expect(index.need(of: [node]) == [bundle.id])
    }

    @Test("What an interrupted run has stored is taken over from its journal")
    func adoption() throws {
        var generator = SeededGenerator(seed: 8)
        let index = RunIndex(try ChunkIndex.load(try RepositoryFixture.plain().open()))
        let bundle = madeUpBundle(&generator, pool: [])
        index.adopt(bundle)
        for id in bundle.frames.flatMap(\.chunks).map(\.id) { #expect(index.claim(id) == .known) }
        #expect(index.madeBundles == [bundle.id])
        #expect(index.takeLines()?.bundles == [bundle.id])
    }
}
