import BundleFormat
package import SnapshotModel

/// All bundles that the index or the store knows, under numbers in the order of their ids, and what
/// the index says of needs in terms of these numbers: one bit a bundle instead of 32 bytes.
package final class IndexedNeeds: Sendable {
    package let index: ChunkIndex
    /// By number.
    package let bundles: [BundleID]
    /// Which of them the index describes, and at which stored size.
    package let described: [IndexedBundle?]
    /// For each table and bundle row, its number.
    private let numbers: [[UInt32]]
    /// By number: the row that describes the bundle in the first table that does, or the largest
    /// number there is.
    private let describedRows: [UInt32]

    /// - Parameter others: Bundles that get a number although the index may not know them.
    package init(_ index: ChunkIndex, and others: some Sequence<BundleID>) {
        self.index = index
        var ids: [BundleID] = Array(others)
        for table in index.tables {
            for row in 0..<table.counts.bundles { ids.append(table.bundleID(row)) }
        }
        ids.sort()
        var unique: [BundleID] = []
        unique.reserveCapacity(ids.count)
        for id in ids where unique.last != id { unique.append(id) }
        bundles = unique
        var described = [IndexedBundle?](repeating: nil, count: unique.count)
        var describedRows = [UInt32](repeating: .max, count: unique.count)
        var numbers: [[UInt32]] = []
        for table in index.tables {
            var rows: [UInt32] = []
            for row in 0..<table.counts.bundles {
                let (bundle, frames) = table.bundle(row)
                let number = Self.search(bundle.id, in: unique) ?? 0
                rows.append(UInt32(number))
                if !frames.isEmpty, described[number] == nil {
                    described[number] = bundle
                    describedRows[number] = UInt32(row)
                }
            }
            numbers.append(rows)
        }
        self.described = described
        self.describedRows = describedRows
        self.numbers = numbers
    }

    private static func search(_ id: BundleID, in sorted: [BundleID]) -> Int? {
        var low = 0
        var high = sorted.count
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle] < id { low = middle + 1 } else { high = middle }
        }
        return low < sorted.count && sorted[low] == id ? low : nil
    }

    package func number(_ id: BundleID) -> Int? { Self.search(id, in: bundles) }

    /// The number of a bundle row of the only table.
    func number(ofRow row: Int) -> Int { Int(numbers[0][row]) }

    /// The row of the only table that describes a bundle.
    func row(ofBundle number: Int) -> Int? {
        describedRows[number] == .max ? nil : Int(describedRows[number])
    }

    /// The bundles that hold a chunk, ascending.
    package func holders(_ id: ChunkID) -> [Int] {
        var found: Set<Int> = []
        for (tableIndex, table) in index.tables.enumerated() {
            guard var row = table.find(id) else { continue }
            while row < table.counts.chunks, table.chunkID(row) == id {
                found.insert(Int(numbers[tableIndex][Int(table.position(row).bundle)]))
                row += 1
            }
        }
        return found.sorted()
    }

    /// What each line for a segment or node says, each ascending, in order.
    package func lines(ofSegment id: ChunkID) -> [[Int]] {
        var lines: Set<[Int]> = []
        for (tableIndex, table) in index.tables.enumerated() {
            guard var row = table.findSegment(id) else { continue }
            while row < table.counts.segments, table.segmentID(row) == id {
                lines.insert(table.segment(row).map { Int(numbers[tableIndex][$0]) }.sorted())
                row += 1
            }
        }
        return lines.sorted { $0.lexicographicallyPrecedes($1) }
    }
}
