import BundleFormat
import CSystem
import Glibc
import SnapshotModel

/// Where one chunk lies: which bundle and frame of a table, and where in the opened frame.
package struct ChunkPosition: Sendable {
    package var bundle: UInt32
    package var frame: UInt32
    package var offset: UInt32
    package var length: UInt32
}

/// Index records as one sorted table in a file of the host's cache, mapped into memory: looking a
/// chunk up touches a page or two, and ten million chunks cost this process no memory of its own.
///
/// The file is this host's own and made anew from the repository whenever it does not fit. Layout,
/// little endian: a header of 64-bit words (magic, then the counts), then the sections in the order
/// of `Layout`, each a multiple of 8 bytes. The last word is XXH3-64-sized: the high half of the
/// XXH3-128 of everything before it.
final class IndexTable: @unchecked Sendable {
    // Sendable: the mapping is read-only and lives as long as this object.
    static let magic: UInt64 = 0x3130_5844_4953_4254  // "TBSIDX01"
    private static let bundleBytes = 80
    private static let frameBytes = 32
    private static let chunkBytes = 48
    private static let segmentBytes = 48

    struct Counts {
        var sources = 0
        var bundles = 0
        var frames = 0
        var chunks = 0
        var segments = 0
        var references = 0
        var fanoutBits = 0
    }

    private struct Layout {
        var sources, bundles, frames, chunks, fanout, segments, references, end: Int
        init(_ counts: Counts) {
            sources = 8 * 8
            bundles = sources + counts.sources * 32
            frames = bundles + counts.bundles * IndexTable.bundleBytes
            chunks = frames + counts.frames * IndexTable.frameBytes
            fanout = chunks + counts.chunks * IndexTable.chunkBytes
            segments = fanout + ((1 << counts.fanoutBits) + 1) * 8
            references = segments + counts.segments * IndexTable.segmentBytes
            end = references + (counts.references * 4 + 7) / 8 * 8
        }
    }

    private let map: UnsafeRawPointer
    private let mapBytes: Int
    let counts: Counts
    private let layout: Layout

    deinit { munmap(UnsafeMutableRawPointer(mutating: map), mapBytes) }

    /// Nil where the file is missing or is not a whole table.
    init?(path: String, verifying: Bool = true) {
        let fd = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        guard fd >= 0 else { return nil }
        defer { _ = csys_close(fd) }
        var status = csys_stat()
        guard csys_fstat(fd, &status) == 0, status.size >= 72, status.size < 1 << 44 else {
            return nil
        }
        let bytes = Int(status.size)
        guard let map = mmap(nil, bytes, PROT_READ, MAP_SHARED, fd, 0), map != MAP_FAILED else {
            return nil
        }
        let words = UnsafeRawPointer(map)
        func word(_ index: Int) -> Int? {
            let value = words.load(fromByteOffset: index * 8, as: UInt64.self)
            return value < 1 << 40 ? Int(value) : nil
        }
        var counts = Counts()
        var isGood = words.load(as: UInt64.self) == Self.magic
        if isGood, let sources = word(1), let bundles = word(2), let frames = word(3),
            let chunks = word(4),
            let segments = word(5), let references = word(6), let fanout = word(7), fanout <= 24
        {
            counts = Counts(
                sources: sources, bundles: bundles, frames: frames, chunks: chunks,
                segments: segments,
                references: references, fanoutBits: fanout)
        } else {
            isGood = false
        }
        let layout = Layout(counts)
        if isGood, layout.end + 8 == bytes {
            if verifying {
                let sum = ContentHash.fingerprint(
                    UnsafeRawBufferPointer(start: map, count: layout.end))
                isGood = sum.high == words.load(fromByteOffset: layout.end, as: UInt64.self)
            }
        } else {
            isGood = false
        }
        guard isGood else {
            munmap(map, bytes)
            return nil
        }
        self.map = words
        mapBytes = bytes
        self.counts = counts
        self.layout = layout
    }

    // MARK: Reading

    func source(_ index: Int) -> RecordID { RecordID(reading: map + layout.sources + index * 32) }

    func bundle(_ index: Int) -> (bundle: IndexedBundle, frames: Range<Int>) {
        let at = map + layout.bundles + index * Self.bundleBytes
        let first = Int(at.load(fromByteOffset: 48, as: UInt32.self))
        let count = Int(at.load(fromByteOffset: 52, as: UInt32.self))
        let flags = at.load(fromByteOffset: 56, as: UInt32.self)
        let md5 =
            flags & 2 != 0 ? (0..<16).map { at.load(fromByteOffset: 60 + $0, as: UInt8.self) } : nil
        return (
            IndexedBundle(
                id: BundleID(reading: at), kind: flags & 1 == 0 ? .content : .manifest,
                size: Int(at.load(fromByteOffset: 32, as: UInt64.self)),
                plain: Int(at.load(fromByteOffset: 40, as: UInt64.self)), md5: md5),
            first..<(first + count)
        )
    }

    func bundleID(_ index: Int) -> BundleID {
        BundleID(reading: map + layout.bundles + index * Self.bundleBytes)
    }

    func frame(_ index: Int) -> IndexedFrame {
        let at = map + layout.frames + index * Self.frameBytes
        return IndexedFrame(
            offset: Int(at.load(as: UInt64.self)),
            length: Int(at.load(fromByteOffset: 8, as: UInt32.self)),
            raw: Int(at.load(fromByteOffset: 12, as: UInt32.self)),
            fingerprint: Fingerprint(
                high: at.load(fromByteOffset: 16, as: UInt64.self),
                low: at.load(fromByteOffset: 24, as: UInt64.self)))
    }

    func chunkID(_ index: Int) -> ChunkID {
        ChunkID(reading: map + layout.chunks + index * Self.chunkBytes)
    }

    func position(_ index: Int) -> ChunkPosition {
        let at = map + layout.chunks + index * Self.chunkBytes + 32
        return ChunkPosition(
            bundle: at.load(as: UInt32.self), frame: at.load(fromByteOffset: 4, as: UInt32.self),
            offset: at.load(fromByteOffset: 8, as: UInt32.self),
            length: at.load(fromByteOffset: 12, as: UInt32.self))
    }

    /// Index of the first entry of `id`, if there is one; entries of one id stand side by side.
    func find(_ id: ChunkID) -> Int? {
        let slot = Int(id.word0 >> (64 - UInt64(counts.fanoutBits)))
        let fanout = map + layout.fanout
        var low =
            counts.fanoutBits == 0 ? 0 : Int(fanout.load(fromByteOffset: slot * 8, as: UInt64.self))
        var high =
            counts.fanoutBits == 0
            ? counts.chunks : Int(fanout.load(fromByteOffset: (slot + 1) * 8, as: UInt64.self))
        guard high <= counts.chunks else { return nil }
        let end = high
        while low < high {
            let middle = (low + high) / 2
            if chunkID(middle) < id { low = middle + 1 } else { high = middle }
        }
        return low < end && chunkID(low) == id ? low : nil
    }

    func segmentID(_ index: Int) -> ChunkID {
        ChunkID(reading: map + layout.segments + index * Self.segmentBytes)
    }

    /// The bundles of a segment line, as indexes into this table's bundles.
    func segment(_ index: Int) -> [Int] {
        let at = map + layout.segments + index * Self.segmentBytes + 32
        let first = Int(at.load(as: UInt64.self))
        let count = Int(at.load(fromByteOffset: 8, as: UInt32.self))
        guard first + count <= counts.references else { return [] }
        return (first..<(first + count)).map {
            Int((map + layout.references).load(fromByteOffset: $0 * 4, as: UInt32.self))
        }
    }

    func findSegment(_ id: ChunkID) -> Int? {
        var low = 0
        var high = counts.segments
        while low < high {
            let middle = (low + high) / 2
            if segmentID(middle) < id { low = middle + 1 } else { high = middle }
        }
        return low < counts.segments && segmentID(low) == id ? low : nil
    }

    // MARK: Writing

    /// Collects the lines of one record and writes them as a table.
    struct Builder: IndexCodec.Receiver {
        private(set) var bundles: [IndexedBundle] = []
        private var bundleFrames: [(first: UInt32, count: UInt32)] = []
        private var frames: [IndexedFrame] = []
        private var ids: [ChunkID] = []
        private var positions: [ChunkPosition] = []
        private var segments: [(id: ChunkID, bundles: [BundleID])] = []

        mutating func bundle(_ bundle: IndexedBundle) {
            bundles.append(bundle)
            bundleFrames.append((UInt32(frames.count), 0))
        }

        mutating func frame(_ frame: IndexedFrame) {
            frames.append(frame)
            bundleFrames[bundleFrames.count - 1].count += 1
        }

        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
            ids.append(id)
            positions.append(
                ChunkPosition(
                    bundle: UInt32(bundles.count - 1), frame: UInt32(frames.count - 1),
                    offset: offset, length: length))
        }

        mutating func segment(_ id: ChunkID, bundles: [BundleID]) { segments.append((id, bundles)) }

        /// Writes the table. Bundles that only segment lines name get a row without frames, so that
        /// the line keeps its meaning.
        mutating func write(to path: String, sources: [RecordID]) throws(RepositoryError) {
            var numbers: [BundleID: UInt32] = [:]
            for (index, bundle) in bundles.enumerated() where numbers[bundle.id] == nil {
                numbers[bundle.id] = UInt32(index)
            }
            var references: [UInt32] = []
            var spans: [(first: Int, count: Int)] = []
            for segment in segments {
                let first = references.count
                for id in segment.bundles {
                    if let number = numbers[id] {
                        references.append(number)
                    } else {
                        let number = UInt32(bundles.count)
                        numbers[id] = number
                        bundle(IndexedBundle(id: id, kind: .content, size: 0, plain: 0, md5: nil))
                        references.append(number)
                    }
                }
                spans.append((first, references.count - first))
            }
            let chunkOrder = ids.indices.sorted { ids[$0] < ids[$1] }
            let segmentOrder = segments.indices.sorted { segments[$0].id < segments[$1].id }
            let counts = Counts(
                sources: sources.count, bundles: bundles.count, frames: frames.count,
                chunks: ids.count,
                segments: segments.count, references: references.count,
                fanoutBits: IndexTable.fanoutBits(ids.count))
            let file = try TableFile(path: path, counts: counts)
            for source in sources { file.append(source) }
            for (index, bundle) in bundles.enumerated() {
                file.append(
                    bundle, firstFrame: bundleFrames[index].first, frames: bundleFrames[index].count
                )
            }
            for frame in frames { file.append(frame) }
            for index in chunkOrder { file.append(ids[index], positions[index]) }
            file.appendFanout()
            for index in segmentOrder {
                file.append(
                    segments[index].id, first: spans[index].first, count: spans[index].count)
            }
            for reference in references { file.append(reference) }
            try file.finish()
        }
    }

    static func fanoutBits(_ chunks: Int) -> Int {
        var bits = 0
        while bits < 20, chunks >> bits > 64 { bits += 1 }
        return bits
    }

    /// Writes one table out of several, streaming: memory stays what the bundles and segments need.
    static func merge(_ tables: [IndexTable], to path: String) throws(RepositoryError) {
        var numbers: [BundleID: UInt32] = [:]
        var rows: [(table: Int, bundle: Int)] = []
        // translation[t][b] is the number of table t's bundle b in the outcome.
        var translation: [[UInt32]] = []
        for (tableIndex, table) in tables.enumerated() {
            var map: [UInt32] = []
            map.reserveCapacity(table.counts.bundles)
            for index in 0..<table.counts.bundles {
                let id = table.bundleID(index)
                let frames = table.bundle(index).frames
                if let known = numbers[id] {
                    // A row without frames only stands for a bundle that another table knows.
                    if !frames.isEmpty,
                        tables[rows[Int(known)].table].bundle(rows[Int(known)].bundle).frames
                            .isEmpty
                    {
                        rows[Int(known)] = (tableIndex, index)
                    }
                    map.append(known)
                } else {
                    let number = UInt32(rows.count)
                    numbers[id] = number
                    rows.append((tableIndex, index))
                    map.append(number)
                }
            }
            translation.append(map)
        }
        var firstFrames: [UInt32] = []
        var frameCount = 0
        for row in rows {
            firstFrames.append(UInt32(frameCount))
            frameCount += tables[row.table].bundle(row.bundle).frames.count
        }
        let segmentCount = tables.reduce(0) { $0 + $1.counts.segments }
        let referenceCount = tables.reduce(0) { $0 + $1.counts.references }
        let sourceIDs = tables.flatMap { table in
            (0..<table.counts.sources).map { table.source($0) }
        }

        func merged(
            _ count: (IndexTable) -> Int, _ id: (IndexTable, Int) -> ChunkID,
            _ body: (Int, Int) -> Void
        ) {
            var cursors = [Int](repeating: 0, count: tables.count)
            while true {
                var best: (table: Int, id: ChunkID)?
                for (index, table) in tables.enumerated() where cursors[index] < count(table) {
                    let candidate = id(table, cursors[index])
                    if best.map({ candidate < $0.id }) ?? true { best = (index, candidate) }
                }
                guard let best else { return }
                body(best.table, cursors[best.table])
                cursors[best.table] += 1
            }
        }

        /// Whether this entry's bundle row is the one kept: a bundle listed twice brings its chunks
        /// once.
        func isKept(_ tableIndex: Int, _ position: ChunkPosition) -> Bool {
            let row = rows[Int(translation[tableIndex][Int(position.bundle)])]
            return row.table == tableIndex && row.bundle == Int(position.bundle)
        }
        var chunkCount = 0
        for (tableIndex, table) in tables.enumerated() {
            for index in 0..<table.counts.chunks where isKept(tableIndex, table.position(index)) {
                chunkCount += 1
            }
        }
        let file = try TableFile(
            path: path,
            counts: Counts(
                sources: sourceIDs.count, bundles: rows.count, frames: frameCount,
                chunks: chunkCount,
                segments: segmentCount, references: referenceCount,
                fanoutBits: fanoutBits(chunkCount)))
        for source in sourceIDs { file.append(source) }
        for (index, row) in rows.enumerated() {
            let (bundle, frames) = tables[row.table].bundle(row.bundle)
            file.append(bundle, firstFrame: firstFrames[index], frames: UInt32(frames.count))
        }
        for row in rows {
            for frame in tables[row.table].bundle(row.bundle).frames {
                file.append(tables[row.table].frame(frame))
            }
        }
        let takeChunk = { (tableIndex: Int, index: Int) in
            var position = tables[tableIndex].position(index)
            guard isKept(tableIndex, position) else { return }
            let number = translation[tableIndex][Int(position.bundle)]
            let oldFirst = UInt32(tables[tableIndex].bundle(Int(position.bundle)).frames.lowerBound)
            position.frame = firstFrames[Int(number)] + position.frame - oldFirst
            position.bundle = number
            file.append(tables[tableIndex].chunkID(index), position)
        }
        merged({ $0.counts.chunks }, { $0.chunkID($1) }, takeChunk)
        file.appendFanout()
        var spans: [(table: Int, index: Int)] = []
        var first = 0
        let takeSegment = { (tableIndex: Int, index: Int) in
            let count = tables[tableIndex].segment(index).count
            file.append(tables[tableIndex].segmentID(index), first: first, count: count)
            spans.append((tableIndex, index))
            first += count
        }
        merged({ $0.counts.segments }, { $0.segmentID($1) }, takeSegment)
        for span in spans {
            for reference in tables[span.table].segment(span.index) {
                file.append(translation[span.table][reference])
            }
        }
        try file.finish()
    }

    /// A table being written, section by section in order, to a temporary name.
    private final class TableFile {
        private let path: String
        private let temporary: String
        private let fd: Int32
        private let buffer = ByteBuffer(capacity: 1 << 20)
        private let sum = FingerprintStream()
        private var offset = 0
        private var failure: Int32 = 0
        private let counts: Counts
        private var fanout: [UInt64]
        private var chunksWritten = 0
        private var lastSlot = -1

        init(path: String, counts: Counts) throws(RepositoryError) {
            self.path = path
            self.counts = counts
            temporary = path + ".tmp-\(getpid())"
            try LocalFile.makeDirectory(LocalFile.parent(path))
            fd = csys_open(temporary, O_RDWR | O_CREAT | O_TRUNC | CSYS_O_CLOEXEC, 0o600)
            fanout = [UInt64](repeating: 0, count: (1 << counts.fanoutBits) + 1)
            guard fd >= 0 else { throw LocalFile.failure(temporary, "create", fd) }
            for word in [
                Int(truncatingIfNeeded: IndexTable.magic), counts.sources, counts.bundles,
                counts.frames, counts.chunks,
                counts.segments, counts.references, counts.fanoutBits,
            ] { append(UInt64(bitPattern: Int64(word))) }
        }

        deinit { if fd >= 0 { _ = csys_close(fd) } }

        private func append(_ word: UInt64) {
            buffer.reserve(8)
            buffer.base.storeBytes(of: word, toByteOffset: buffer.count, as: UInt64.self)
            buffer.count += 8
            if buffer.count >= 1 << 20 { flush() }
        }

        private func flush() {
            sum.update(buffer.bytes)
            var written = 0
            while written < buffer.count, failure == 0 {
                let count = csys_pwrite(
                    fd, buffer.base + written, buffer.count - written, Int64(offset + written))
                if count <= 0 {
                    failure = count == 0 ? -EIO : Int32(count)
                } else {
                    written += count
                }
            }
            offset += buffer.count
            buffer.removeAll()
        }

        func append<Kind>(_ id: Identifier<Kind>) {
            buffer.reserve(32)
            id.write(to: buffer.base + buffer.count)
            buffer.count += 32
            if buffer.count >= 1 << 20 { flush() }
        }

        func append(_ bundle: IndexedBundle, firstFrame: UInt32, frames: UInt32) {
            append(bundle.id)
            append(UInt64(bundle.size))
            append(UInt64(bundle.plain))
            append(UInt64(firstFrame) | UInt64(frames) << 32)
            var md5 = bundle.md5 ?? []
            let hasMD5 = md5.count == 16
            if !hasMD5 { md5 = [UInt8](repeating: 0, count: 16) }
            let flags: UInt32 = (bundle.kind == .manifest ? 1 : 0) | (hasMD5 ? 2 : 0)
            var tail = ByteBuffer(capacity: 64)
            withUnsafeBytes(of: flags.littleEndian) { tail.append($0) }
            tail.append(md5)
            while tail.count < 24 { tail.append(0) }
            buffer.append(tail.bytes)
            tail = ByteBuffer()
        }

        func append(_ frame: IndexedFrame) {
            append(UInt64(frame.offset))
            append(UInt64(frame.length) | UInt64(frame.raw) << 32)
            append(frame.fingerprint.high)
            append(frame.fingerprint.low)
        }

        func append(_ id: ChunkID, _ position: ChunkPosition) {
            let slot = Int(
                counts.fanoutBits == 0 ? 0 : id.word0 >> (64 - UInt64(counts.fanoutBits)))
            while lastSlot < slot {
                lastSlot += 1
                fanout[lastSlot] = UInt64(chunksWritten)
            }
            append(id)
            append(UInt64(position.bundle) | UInt64(position.frame) << 32)
            append(UInt64(position.offset) | UInt64(position.length) << 32)
            chunksWritten += 1
        }

        func appendFanout() {
            while lastSlot < fanout.count - 1 {
                lastSlot += 1
                fanout[lastSlot] = UInt64(chunksWritten)
            }
            for word in fanout { append(word) }
        }

        func append(_ id: ChunkID, first: Int, count: Int) {
            append(id)
            append(UInt64(first))
            append(UInt64(count))
        }

        func append(_ reference: UInt32) {
            buffer.reserve(4)
            buffer.base.storeBytes(of: reference, toByteOffset: buffer.count, as: UInt32.self)
            buffer.count += 4
            if buffer.count >= 1 << 20 { flush() }
        }

        func finish() throws(RepositoryError) {
            while (offset + buffer.count) % 8 != 0 { buffer.append(0) }
            flush()
            let check = sum.finish().high
            append(check)
            // The sum itself is not summed.
            var written = 0
            while written < buffer.count, failure == 0 {
                let count = csys_pwrite(
                    fd, buffer.base + written, buffer.count - written, Int64(offset + written))
                if count <= 0 {
                    failure = count == 0 ? -EIO : Int32(count)
                } else {
                    written += count
                }
            }
            precondition(
                chunksWritten == counts.chunks, "a table's header tells how many chunks follow")
            if failure == 0 { failure = csys_renameat(AT_FDCWD, temporary, AT_FDCWD, path) }
            guard failure == 0 else {
                _ = csys_unlinkat(AT_FDCWD, temporary, 0)
                throw LocalFile.failure(path, "write", failure)
            }
        }
    }
}
