/// The sizes that all hosts of a repository cut by.
package struct ChunkerParameters: Sendable, Equatable {
    package let minimum: Int
    /// A power of two.
    package let average: Int
    package let maximum: Int

    package static let standard = ChunkerParameters(
        minimum: 64 << 10, average: 256 << 10, maximum: 1 << 20)!

    package init?(minimum: Int, average: Int, maximum: Int) {
        guard minimum >= 64, average > minimum, maximum > average, maximum <= 16 << 20,
            average & (average - 1) == 0, average >= 256
        else { return nil }
        self.minimum = minimum
        self.average = average
        self.maximum = maximum
    }
}

/// Finds where chunks end: FastCDC with normalisation level 2 (Xia et al., USENIX ATC 2016;
/// format.md appendix A).
///
/// A cut depends on the bytes since the last one only, so the same content is cut alike wherever it
/// stands.
package struct Chunker: Sendable {
    package let parameters: ChunkerParameters
    private let strictMask: UInt64
    private let looseMask: UInt64

    package init(_ parameters: ChunkerParameters) {
        self.parameters = parameters
        let bits = parameters.average.trailingZeroBitCount
        strictMask = ~(UInt64.max >> UInt64(bits + 2))
        looseMask = ~(UInt64.max >> UInt64(bits - 2))
    }

    /// Length of the chunk that begins at `bytes`. Where no cut is found before the end and fewer
    /// than `maximum` bytes are there, the answer is all of them: ask with at least `maximum` bytes
    /// unless the input ends there.
    package func cut(_ bytes: UnsafeRawPointer, count: Int) -> Int {
        let minimum = parameters.minimum
        guard count > minimum else { return count }
        let end = min(count, parameters.maximum)
        let middle = min(parameters.average, end)
        return Self.gear.withUnsafeBufferPointer { gear in
            let table = gear.baseAddress!
            if let found = Self.scan(bytes, from: minimum, to: middle, strictMask, table, minimum) {
                return found
            }
            return Self.scan(bytes, from: middle, to: end, looseMask, table, minimum) ?? end
        }
    }

    /// Bytes that one lane of a block looks at.
    private static let laneBytes = 2048
    /// The hash forgets a byte with its 64th successor.
    private static let memory = 64

    /// Length of the chunk that ends with the first byte from `start` on at which the hash has all
    /// bits of `mask` clear; nil where there is none before `end`.
    ///
    /// One step of the hash waits for the one before it. So four lanes go side by side over a block,
    /// each over a quarter, which it can enter anywhere since the hash forgets. A block in which a
    /// lane finds something is gone over once more, from its beginning.
    @inline(__always)
    private static func scan(
        _ bytes: UnsafeRawPointer, from start: Int, to end: Int, _ mask: UInt64,
        _ table: UnsafePointer<UInt64>, _ minimum: Int
    ) -> Int? {
        @inline(__always)
        func step(_ hash: UInt64, _ place: UnsafeRawPointer) -> UInt64 {
            (hash &<< 1) &+ table[Int(place.load(as: UInt8.self))]
        }
        /// The hash before the byte at `index`.
        @inline(__always)
        func entering(_ index: Int) -> UInt64 {
            var hash: UInt64 = 0
            for before in max(minimum, index &- memory)..<index {
                hash = step(hash, bytes + before)
            }
            return hash
        }
        var index = start
        blocks: while index &+ 4 &* laneBytes <= end {
            var hash1 = entering(index)
            var hash2 = entering(index &+ laneBytes)
            var hash3 = entering(index &+ 2 &* laneBytes)
            var hash4 = entering(index &+ 3 &* laneBytes)
            var place = bytes + index
            let last = place + laneBytes
            while place < last {
                hash1 = step(hash1, place)
                if hash1 & mask == 0 { return place - bytes &+ 1 }
                hash2 = step(hash2, place + laneBytes)
                if hash2 & mask == 0 { break blocks }
                hash3 = step(hash3, place + 2 &* laneBytes)
                if hash3 & mask == 0 { break blocks }
                hash4 = step(hash4, place + 3 &* laneBytes)
                if hash4 & mask == 0 { break blocks }
                place += 1
            }
            index &+= 4 &* laneBytes
        }
        var hash = entering(index)
        while index < end {
            hash = step(hash, bytes + index)
            index &+= 1
            if hash & mask == 0 { return index }
        }
        return nil
    }

    /// 256 outputs of SplitMix64 from a fixed seed: a table that fits on one line of the format
    /// page.
    static let gear: [UInt64] = {
        var state: UInt64 = 0x6261_7463_6873_796e
        return (0..<256).map { _ in
            state &+= 0x9e37_79b9_7f4a_7c15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
            return mixed ^ (mixed >> 31)
        }
    }()
}
