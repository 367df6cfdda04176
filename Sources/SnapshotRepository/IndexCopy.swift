import BundleFormat
package import SnapshotModel

/// Carries lines of index records over into new ones, byte for byte, so that fields of later
/// releases come along, and leaves out what is not to be told any more.
///
/// Lines that were carried over once are not written again, however many records tell them. One
/// thread.
package struct IndexCopy {
    /// Bundles of which nothing is told any more.
    private let dropped: Set<BundleID>
    /// Segments whose lines stay even where they name what is dropped.
    private let kept: Set<ChunkID>
    package let lines = ByteBuffer(capacity: 1 << 20)
    private var written: Set<Fingerprint> = []

    package init(dropping dropped: Set<BundleID> = [], keepingLinesOf kept: Set<ChunkID> = []) {
        self.dropped = dropped
        self.kept = kept
    }

    /// What one line is.
    private struct Line: IndexCodec.Receiver {
        enum Kind {
            case other
            case bundle(BundleID)
            case frame
            case segment(ChunkID, [BundleID])
        }
        var kind = Kind.other

        mutating func bundle(_ bundle: IndexedBundle) { kind = .bundle(bundle.id) }
        mutating func frame(_ frame: IndexedFrame) { kind = .frame }
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {}
        mutating func segment(_ id: ChunkID, bundles: [BundleID]) { kind = .segment(id, bundles) }
    }

    /// Adds the lines of one record's payload to `lines`.
    ///
    /// - Parameter keepsSegments: Whether all segment lines are carried over, whatever they name.
    /// - Throws: `.damaged` where a line is none of format 1; `lines` holds a part of it then.
    package mutating func add(
        _ payload: [UInt8], of key: String, keepsSegments: Bool = false
    ) throws(RepositoryError) {
        let bad = payload.withUnsafeBytes { add($0, keepsSegments) }
        if let bad { throw .damaged(key, "line \(bad) is not a line of an index") }
    }

    private mutating func add(_ bytes: UnsafeRawBufferPointer, _ keepsSegments: Bool) -> Int? {
        var current: IndexedBundle?
        var frameEnd = 0
        var start = 0
        var number = 0
        var isDropping = false
        // Where the lines of the bundle begin that is being copied.
        var block: Int?
        while start < bytes.count {
            number += 1
            guard let end = JSONLines.lineEnd(bytes, from: start) else { return number }
            let text = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            var line = Line()
            guard IndexCodec.read(line: text, current: &current, frameEnd: &frameEnd, into: &line)
            else { return number }
            switch line.kind {
            case .bundle(let id):
                close(&block)
                isDropping = dropped.contains(id)
                if !isDropping { block = lines.count }
            case .frame: break
            case .segment, .other: close(&block)
            }
            switch line.kind {
            case .segment(let id, let bundles)
            where !keepsSegments && !kept.contains(id)
                && bundles.contains(where: { dropped.contains($0) }):
                break
            case .bundle, .frame:
                if !isDropping { append(text) }
            case .segment, .other:
                if written.insert(ContentHash.fingerprint(text)).inserted { append(text) }
            }
            start = end + 1
        }
        close(&block)
        return nil
    }

    private func append(_ text: UnsafeRawBufferPointer) {
        lines.append(text)
        lines.append(0x0A)
    }

    /// Ends the lines of a bundle; takes them back where the same have been written before.
    private mutating func close(_ block: inout Int?) {
        guard let start = block else { return }
        block = nil
        let text = UnsafeRawBufferPointer(rebasing: lines.bytes[start...])
        if !written.insert(ContentHash.fingerprint(text)).inserted { lines.count = start }
    }
}

/// Which bundles a record tells of, in lines that make them usable.
package struct IndexedBundleNames: IndexCodec.Receiver {
    package private(set) var bundles: Set<BundleID> = []
    package init() {}
    package mutating func bundle(_ bundle: IndexedBundle) { bundles.insert(bundle.id) }
    package mutating func frame(_ frame: IndexedFrame) {}
    package mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {}
    package mutating func segment(_ id: ChunkID, bundles: [BundleID]) {}
}
