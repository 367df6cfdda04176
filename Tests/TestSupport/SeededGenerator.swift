/// SplitMix64: the same seed gives the same numbers on every machine and in every release of Swift.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// That many random bytes: incompressible, and never the same twice.
    package mutating func bytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            var index = 0
            while index < count {
                var word = next()
                for _ in 0..<min(8, count - index) {
                    buffer[index] = UInt8(truncatingIfNeeded: word)
                    word >>= 8
                    index += 1
                }
            }
            initialized = count
        }
    }

    /// That many bytes of words and lines, which compress about as text does.
    package mutating func text(_ count: Int) -> [UInt8] {
        let words = [
            "the", "store", "holds", "every", "object", "under", "one", "name", "and", "a", "name",
            "never", "changes", "once", "written",
        ]
        var text: [UInt8] = []
        text.reserveCapacity(count + 16)
        while text.count < count {
            let draw = next()
            text.append(contentsOf: words[Int(draw % UInt64(words.count))].utf8)
            text.append(draw >> 60 == 0 ? UInt8(ascii: "\n") : UInt8(ascii: " "))
        }
        text.removeLast(text.count - count)
        return text
    }
}
