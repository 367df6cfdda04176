import SnapshotModel

/// Walks over the data of a file between its holes.
struct DataStream {
    private(set) var offset: UInt64
    private let size: UInt64
    private let holes: [Hole]
    private var nextHole = 0

    init(size: UInt64, holes: [Hole]) {
        self.size = size
        self.holes = holes
        offset = 0
        skipHole()
    }

    private mutating func skipHole() {
        while nextHole < holes.count, holes[nextHole].offset <= offset {
            offset = max(offset, holes[nextHole].offset + holes[nextHole].length)
            nextHole += 1
        }
    }

    /// Bytes of data from `offset` up to the next hole or the end.
    var run: UInt64 {
        let end = nextHole < holes.count ? holes[nextHole].offset : size
        return end > offset ? end - offset : 0
    }

    mutating func advance(_ count: UInt64) {
        offset += count
        skipHole()
    }
}
