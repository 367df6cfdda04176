import BundleFormat
import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// What is in a file or comes out of a stream: cut into chunks, hashed, and packed where it is new.
extension ContentWorker {
    /// Reads and packs the content outside of holes. False where the file ended early: then
    /// `entry.size` is what was there.
    func readContent(
        _ reader: borrowing FileReader, size: UInt64, holes: [Hole], into entry: inout Entry
    ) throws -> Bool {
        let data = size - holes.reduce(0) { $0 + $1.length }
        around.monitor.counts.bytes.add(Int(clamping: size - data), ordering: .relaxed)
        entry.chunks = []
        entry.fingerprint = .empty
        if data == 0 { return true }
        var stream = DataStream(size: size, holes: holes)
        let minimum = around.chunker.parameters.minimum
        buffer.removeAll()
        if data <= UInt64(minimum) {
            buffer.reserve(Int(data))
            let whole = try fill(&stream, reader, upTo: Int(data))
            note(buffer.count)
            if !whole { entry.size = stream.offset }
            if buffer.count > 0 {
                entry.fingerprint = ContentHash.fingerprint(buffer.bytes)
                let id: ChunkID = ContentHash.sha256(buffer.bytes)
                entry.chunks = [id]
                if around.index.claim(id) == .claimed {
                    try pack(
                        holes.isEmpty
                            ? .wholeFile(MemberMetadata(entry)) : .chunk(path: entry.path), id,
                        buffer.bytes)
                }
            }
            return whole
        }
        reader.adviseSequential()
        let room = max(Limits.readBufferBytes, around.chunker.parameters.maximum * 2)
        buffer.reserve(min(room, Int(clamping: data)))
        defer { buffer.shrink(to: room) }
        fingerprint.reset()
        var ids: [ChunkID] = []
        var isWhole = true
        var left = data
        while left > 0 || buffer.count > 0 {
            let had = buffer.count
            if left > 0 {
                let wanted = Int(min(UInt64(room), UInt64(had) + left))
                buffer.reserve(wanted - had)
                if try !fill(&stream, reader, upTo: wanted) {
                    isWhole = false
                    entry.size = stream.offset
                    left = 0
                } else {
                    left -= UInt64(buffer.count - had)
                }
                fingerprint.update(UnsafeRawBufferPointer(rebasing: buffer.bytes[had...]))
                note(buffer.count - had)
            }
            var at = 0
            while at < buffer.count,
                left == 0 || buffer.count - at >= around.chunker.parameters.maximum
            {
                let length = around.chunker.cut(buffer.base + at, count: buffer.count - at)
                let bytes = UnsafeRawBufferPointer(start: buffer.base + at, count: length)
                let id: ChunkID = ContentHash.sha256(bytes)
                let isOnly = ids.isEmpty && left == 0 && length == buffer.count && holes.isEmpty
                ids.append(id)
                if around.index.claim(id) == .claimed {
                    try pack(
                        isOnly ? .wholeFile(MemberMetadata(entry)) : .chunk(path: entry.path), id,
                        bytes)
                }
                at += length
            }
            let rest = buffer.count - at
            if at > 0, rest > 0 { buffer.base.copyMemory(from: buffer.base + at, byteCount: rest) }
            buffer.count = rest
            try around.cancellation.check()
        }
        entry.fingerprint = fingerprint.finish()
        try keep(ids, in: &entry)
        return isWhole
    }

    /// Reads on until the buffer holds `count` bytes. False where the file ended before.
    private func fill(
        _ stream: inout DataStream, _ reader: borrowing FileReader, upTo count: Int
    ) throws -> Bool {
        while buffer.count < count {
            let run = stream.run
            if run == 0 { return false }
            let wanted = min(UInt64(count - buffer.count), run)
            let got = try reader.read(
                into: UnsafeMutableRawBufferPointer(
                    start: buffer.base + buffer.count, count: Int(wanted)), at: stream.offset)
            if got == 0 { return false }
            buffer.count += got
            stream.advance(UInt64(got))
        }
        return true
    }

    private func note(_ count: Int) {
        around.counts.readBytes.add(count, ordering: .relaxed)
        around.monitor.counts.bytes.add(count, ordering: .relaxed)
    }

    /// Puts the ids into the entry, as a tree of nodes where they are many.
    private func keep(_ ids: [ChunkID], in entry: inout Entry) throws(ReplicationError) {
        guard ids.count > Entry.inlineListLimit else {
            entry.chunks = ids
            entry.listDepth = 0
            return
        }
        let chunks = around.chunks
        let index = around.index
        let built = try ListNode.build(ids) {
            (bytes, children, level) throws(ReplicationError) -> ChunkID in
            let id: ChunkID = ContentHash.sha256(bytes)
            if !(index.contains(id) && index.isWhole(segment: id)) {
                if level == 1 {
                    index.describe(id, chunks: children, nodes: [])
                } else {
                    index.describe(id, chunks: [], nodes: children)
                }
                try chunks.store(id, bytes, as: .node)
            }
            return id
        }
        entry.chunks = built.ids
        entry.listDepth = built.depth
    }

    func keep(_ holes: [Hole], in entry: inout Entry) throws(ReplicationError) {
        guard holes.count > Entry.inlineListLimit else {
            entry.holes = holes
            return
        }
        entry.holes = []
        entry.holesList = []
        node.removeAll()
        for (index, hole) in holes.enumerated() {
            EntryCodec.appendHole(hole, to: node)
            node.append(0x0A)
            if node.count >= Limits.problemPieceBytes || index == holes.count - 1 {
                let id: ChunkID = ContentHash.sha256(node.bytes)
                try around.chunks.store(id, node.bytes, as: .node)
                entry.holesList.append(id)
                node.removeAll()
            }
        }
    }

    // MARK: Streams

    /// Reads a descriptor to its end and packs it as the content of `entry`, whose size is set.
    func readStream(_ descriptor: Int32, into entry: inout Entry) throws(ReplicationError) {
        var ids: [ChunkID] = []
        var total: UInt64 = 0
        var isAtEnd = false
        fingerprint.reset()
        buffer.removeAll()
        buffer.reserve(Limits.readBufferBytes)
        let maximum = around.chunker.parameters.maximum
        while !isAtEnd || buffer.count > 0 {
            while !isAtEnd, buffer.count < Limits.readBufferBytes {
                let room = UnsafeMutableRawBufferPointer(
                    start: buffer.base + buffer.count, count: Limits.readBufferBytes - buffer.count)
                let got = try StreamReading.read(
                    descriptor, into: room, cancellation: around.cancellation)
                guard got >= 0 else {
                    throw ReplicationError(
                        .files, "standard input", "cannot be read (error \(-got))")
                }
                if got == 0 { isAtEnd = true }
                fingerprint.update(UnsafeRawBufferPointer(start: room.baseAddress, count: got))
                buffer.count += got
                total += UInt64(got)
                note(got)
            }
            var at = 0
            while at < buffer.count, isAtEnd || buffer.count - at >= maximum {
                let length = around.chunker.cut(buffer.base + at, count: buffer.count - at)
                let bytes = UnsafeRawBufferPointer(start: buffer.base + at, count: length)
                let id: ChunkID = ContentHash.sha256(bytes)
                ids.append(id)
                if around.index.claim(id) == .claimed {
                    try pack(.chunk(path: entry.path), id, bytes)
                }
                at += length
            }
            let rest = buffer.count - at
            if at > 0, rest > 0 { buffer.base.copyMemory(from: buffer.base + at, byteCount: rest) }
            buffer.count = rest
        }
        entry.size = total
        entry.fingerprint = total == 0 ? .empty : fingerprint.finish()
        try keep(ids, in: &entry)
        try finish()
    }
}
