/// The 32 bytes of a SHA-256, as a name. One type for each kind of name, so that a bundle's name
/// can never be taken for a chunk's.
///
/// Held as four big-endian words: comparing words in order is comparing bytes in order.
package struct Identifier<Kind>: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let word0, word1, word2, word3: UInt64

    package init(_ word0: UInt64, _ word1: UInt64, _ word2: UInt64, _ word3: UInt64) {
        self.word0 = word0
        self.word1 = word1
        self.word2 = word2
        self.word3 = word3
    }

    /// Takes 32 bytes at `bytes`.
    @inline(__always)
    package init(reading bytes: UnsafeRawPointer) {
        self.init(
            UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)),
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self)))
    }

    /// Takes the 32 bytes of a digest; nil for any other count.
    package init?(bytes: [UInt8]) {
        guard bytes.count == 32 else { return nil }
        self = bytes.withUnsafeBytes { Identifier(reading: $0.baseAddress!) }
    }

    /// Takes 64 lower-case hex digits; nil for anything else.
    package init?(hex: UnsafeRawBufferPointer) {
        guard hex.count == 64, let base = hex.baseAddress else { return nil }
        var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        guard Hex.word(base, &words.0), Hex.word(base + 16, &words.1),
            Hex.word(base + 32, &words.2), Hex.word(base + 48, &words.3)
        else { return nil }
        self.init(words.0, words.1, words.2, words.3)
    }

    package init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        guard let value = bytes.withUnsafeBytes({ Identifier(hex: $0) }) else { return nil }
        self = value
    }

    /// Writes the 32 bytes to `target`.
    @inline(__always)
    package func write(to target: UnsafeMutableRawPointer) {
        target.storeBytes(of: word0.bigEndian, as: UInt64.self)
        target.storeBytes(of: word1.bigEndian, toByteOffset: 8, as: UInt64.self)
        target.storeBytes(of: word2.bigEndian, toByteOffset: 16, as: UInt64.self)
        target.storeBytes(of: word3.bigEndian, toByteOffset: 24, as: UInt64.self)
    }

    package var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 32) { buffer, count in
            write(to: UnsafeMutableRawPointer(buffer.baseAddress!))
            count = 32
        }
    }

    /// 64 hex digits.
    package var description: String { Hex.text(bytes) }

    /// The first ten digits, enough for a person.
    package var short: String { String(description.prefix(10)) }

    package static func < (left: Self, right: Self) -> Bool {
        if left.word0 != right.word0 { return left.word0 < right.word0 }
        if left.word1 != right.word1 { return left.word1 < right.word1 }
        if left.word2 != right.word2 { return left.word2 < right.word2 }
        return left.word3 < right.word3
    }

    /// Ids are SHA-256 outputs: their first word alone is as good a hash as there is.
    package func hash(into hasher: inout Hasher) { hasher.combine(word0) }
}

package enum ChunkKind: Sendable {}
package enum BundleKindName: Sendable {}
package enum SnapshotKind: Sendable {}
package enum RepositoryKind: Sendable {}
package enum RecordKind: Sendable {}

/// A chunk: a run of file bytes, a manifest segment or a node.
package typealias ChunkID = Identifier<ChunkKind>
package typealias BundleID = Identifier<BundleKindName>
package typealias SnapshotID = Identifier<SnapshotKind>
package typealias RepositoryID = Identifier<RepositoryKind>
/// The digest in the name of any other object: index, run, condemned, …
package typealias RecordID = Identifier<RecordKind>

/// XXH3-128 of content: answers "the same bytes as last time?", and nothing that needs to be safe
/// from an adversary.
package struct Fingerprint: Hashable, Sendable {
    package let high, low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Of no bytes at all.
    package static let empty = Fingerprint(high: 0x99aa_06d3_0147_98d8, low: 0x6001_c324_468d_497f)

    package init?(hex: UnsafeRawBufferPointer) {
        guard hex.count == 32, let base = hex.baseAddress else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        guard Hex.word(base, &high), Hex.word(base + 16, &low) else { return nil }
        self.init(high: high, low: low)
    }
}
