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
            var hash: UInt64 = 0
            var index = minimum
            // Two bytes a step: half the loop overhead.
            while index + 1 < middle {
                hash = (hash << 1) &+ table[Int(bytes.load(fromByteOffset: index, as: UInt8.self))]
                if hash & strictMask == 0 { return index + 1 }
                hash =
                    (hash << 1) &+ table[Int(bytes.load(fromByteOffset: index + 1, as: UInt8.self))]
                if hash & strictMask == 0 { return index + 2 }
                index += 2
            }
            while index < middle {
                hash = (hash << 1) &+ table[Int(bytes.load(fromByteOffset: index, as: UInt8.self))]
                if hash & strictMask == 0 { return index + 1 }
                index += 1
            }
            while index + 1 < end {
                hash = (hash << 1) &+ table[Int(bytes.load(fromByteOffset: index, as: UInt8.self))]
                if hash & looseMask == 0 { return index + 1 }
                hash =
                    (hash << 1) &+ table[Int(bytes.load(fromByteOffset: index + 1, as: UInt8.self))]
                if hash & looseMask == 0 { return index + 2 }
                index += 2
            }
            while index < end {
                hash = (hash << 1) &+ table[Int(bytes.load(fromByteOffset: index, as: UInt8.self))]
                if hash & looseMask == 0 { return index + 1 }
                index += 1
            }
            return end
        }
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
