package import SnapshotModel

/// Which of the chunks in the index something still names: one bit for each place of a chunk, so
/// that ten million take a little more than a megabyte.
///
/// A chunk that lies in several bundles is live in all of them: each of their lines may be the one
/// that somebody goes by. Needs an index in one table (`ChunkIndex.load(asOneTable:)`).
package struct LiveChunks: Sendable {
    package enum Insertion { case new, known, unknown }

    /// Where a chunk lies: the number of the bundle, as `IndexedNeeds` counts them, and the frame of
    /// the table.
    package struct Place: Sendable {
        package let bundle: Int
        package let frame: Int
        package let length: Int
    }

    private let needs: IndexedNeeds
    private let table: IndexTable?
    private var words: [UInt64]

    package init(_ needs: IndexedNeeds) {
        precondition(needs.index.tables.count <= 1, "an index in one table")
        self.needs = needs
        table = needs.index.tables.first
        words = [UInt64](repeating: 0, count: ((table?.counts.chunks ?? 0) + 63) / 64)
    }

    /// Frames that the index tells of.
    package var frameCount: Int { table?.counts.frames ?? 0 }

    /// Compressed bytes of each frame of a bundle with the numbers that places name it by.
    package func frames(ofBundle number: Int) -> [(frame: Int, length: Int)] {
        guard let table, let row = needs.row(ofBundle: number) else { return [] }
        return table.bundle(row).frames.map { ($0, table.frame($0).length) }
    }

    private func contains(row: Int) -> Bool { words[row / 64] >> (row % 64) & 1 == 1 }

    /// Marks a chunk at all its places.
    package mutating func insert(_ id: ChunkID) -> Insertion {
        guard let table, var row = table.find(id) else { return .unknown }
        // Places of one chunk are marked together.
        if contains(row: row) { return .known }
        while row < table.counts.chunks, table.chunkID(row) == id {
            words[row / 64] |= 1 << (row % 64)
            row += 1
        }
        return .new
    }

    package func contains(_ id: ChunkID) -> Bool {
        guard let row = table?.find(id) else { return false }
        return contains(row: row)
    }

    /// What another thread has marked on the same index.
    package mutating func formUnion(_ other: LiveChunks) {
        for index in words.indices { words[index] |= other.words[index] }
    }

    /// The places of one chunk.
    package func places(of id: ChunkID) -> [Place] {
        guard let table, var row = table.find(id) else { return [] }
        var places: [Place] = []
        while row < table.counts.chunks, table.chunkID(row) == id {
            places.append(place(table, row))
            row += 1
        }
        return places
    }

    private func place(_ table: IndexTable, _ row: Int) -> Place {
        let position = table.position(row)
        return Place(
            bundle: needs.number(ofRow: Int(position.bundle)), frame: Int(position.frame),
            length: Int(position.length))
    }

    /// Hands every chunk to `body`, in order of id: whether it is live, and where it lies.
    package func forEach(_ body: (_ isLive: Bool, _ places: [Place]) -> Void) {
        guard let table else { return }
        var places: [Place] = []
        var row = 0
        while row < table.counts.chunks {
            let id = table.chunkID(row)
            let isLive = contains(row: row)
            places.removeAll(keepingCapacity: true)
            repeat {
                places.append(place(table, row))
                row += 1
            } while row < table.counts.chunks && table.chunkID(row) == id
            body(isLive, places)
        }
    }

    /// Hands each live segment or node that has a line to `body`, with what its lines say: numbers
    /// of bundles, each line ascending, the lines in order.
    package func forEachLiveSegment<Failure>(
        _ body: (ChunkID, [[Int]]) throws(Failure) -> Void
    ) throws(Failure) {
        guard let table else { return }
        var row = 0
        while row < table.counts.segments {
            let id = table.segmentID(row)
            while row < table.counts.segments, table.segmentID(row) == id { row += 1 }
            if contains(id) { try body(id, needs.lines(ofSegment: id)) }
        }
    }
}
