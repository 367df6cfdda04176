package import SnapshotModel

/// The tar bytes of one frame, being filled. Used again for the next frame after `reset`, so that
/// the path of a chunk allocates nothing.
///
/// One thread at a time. Members stand in the order in which they were added.
package final class FrameBuilder: @unchecked Sendable {
    // Sendable: has one owner at a time, which hands it over whole.
    let buffer = ByteBuffer(capacity: BundleLimits.frameBytes + (1 << 20) + (64 << 10))
    private let tar: TarWriter
    private let name = ByteBuffer(capacity: 256)
    package private(set) var chunks: [ChunkPlace] = []
    /// Whether the end-of-archive mark has been written; nothing can be added any more.
    package private(set) var endsArchive = false

    package init() {
        tar = TarWriter(output: buffer)
        chunks.reserveCapacity(1024)
    }

    /// Bytes of tar so far.
    package var rawBytes: Int { buffer.count }
    package var isEmpty: Bool { buffer.count == 0 }
    /// A full frame takes more if it must, up to `BundleLimits.rawFrameBytes`.
    package var isFull: Bool { buffer.count >= BundleLimits.frameBytes }
    /// The tar bytes; valid until the next change.
    package var bytes: UnsafeRawBufferPointer { buffer.bytes }

    /// Adds the chunk `data`, whose SHA-256 is `id`.
    ///
    /// - Throws: `.limit` where chunk or frame would become too large, `.malformed` for a path that
    ///   no file has. The frame is as before then.
    package func add(
        _ member: MemberName, id: ChunkID, data: UnsafeRawBufferPointer
    ) throws(BundleError) {
        precondition(!endsArchive, "the archive has ended")
        guard data.count <= BundleLimits.chunkBytes else {
            throw BundleError(
                .limit, "write", "chunk \(id.short)…",
                "\(data.count) bytes are more than \(BundleLimits.chunkBytes)")
        }
        let offset: Int
        switch member {
        case .wholeFile(let file):
            try Self.check(file.path)
            let isReserved = file.path.withUnsafeBytes {
                MemberName.reserved.begins(Self.relative($0))
            }
            offset =
                isReserved
                ? try addNamed(MemberName.chunkPrefix, id, comment: file.path, data)
                : try addFile(file, data)
        case .chunk(let path):
            if !path.isEmpty { try Self.check(path) }
            offset = try addNamed(MemberName.chunkPrefix, id, comment: path, data)
        case .segment:
            offset = try addNamed(MemberName.segmentPrefix, id, comment: [], data)
        case .node:
            offset = try addNamed(MemberName.nodePrefix, id, comment: [], data)
        }
        chunks.append(
            ChunkPlace(id: id, offset: UInt32(offset), length: UInt32(data.count)))
    }

    /// Adds a member as it stands in the frame of another bundle, byte for byte, so that it keeps the
    /// name that a person with `tar` reads.
    ///
    /// - Throws: `.limit` where the frame would become too large.
    package func add(
        copyOf number: Int, in frame: ScannedFrame
    ) throws(BundleError) {
        precondition(!endsArchive, "the archive has ended")
        let range = frame.range(ofMember: number)
        let place = frame.members[number].place
        guard buffer.count + range.count <= BundleLimits.rawFrameBytes else {
            throw BundleError(
                .limit, "write", "chunk \(place.id.short)…",
                "its frame would hold more than \(BundleLimits.rawFrameBytes) bytes")
        }
        let offset = buffer.count + Int(place.offset) - range.lowerBound
        buffer.append(UnsafeRawBufferPointer(rebasing: frame.raw.bytes[range]))
        chunks.append(
            ChunkPlace(id: place.id, offset: UInt32(offset), length: place.length))
    }

    /// Ends the tar archive: for the last frame of a bundle, where it is known to be that. A bundle
    /// whose last frame does not end the archive is ended by `BundleWriter`, with a frame of its
    /// own.
    package func appendEndOfArchive() {
        precondition(!endsArchive, "the archive has ended")
        buffer.reserve(Tar.endOfArchiveBytes)
        (buffer.base + buffer.count).initializeMemory(
            as: UInt8.self, repeating: 0, count: Tar.endOfArchiveBytes)
        buffer.count += Tar.endOfArchiveBytes
        endsArchive = true
    }

    /// Empties the frame; memory that an unusually large one took is given back.
    package func reset() {
        buffer.removeAll()
        buffer.shrink(to: 2 * BundleLimits.frameBytes)
        chunks.removeAll(keepingCapacity: true)
        endsArchive = false
    }

    /// The chunks, for whoever keeps them; the frame has none any more.
    func takeChunks() -> [ChunkPlace] {
        defer {
            chunks = []
            chunks.reserveCapacity(1024)
        }
        return chunks
    }

    private func addFile(
        _ file: MemberMetadata, _ data: UnsafeRawBufferPointer
    ) throws(BundleError) -> Int {
        try file.path.withRawBytes { path throws(BundleError) in
            try tar.append(
                path: Self.relative(path), mode: file.mode, uid: file.uid, gid: file.gid,
                user: file.user, group: file.group, mtime: file.mtime.seconds, comment: [],
                data: data)
        }
    }

    private func addNamed(
        _ prefix: StaticString, _ id: ChunkID, comment: [UInt8], _ data: UnsafeRawBufferPointer
    ) throws(BundleError) -> Int {
        name.removeAll()
        name.append(prefix)
        name.append(hex: id)
        return try tar.append(
            path: name.bytes, mode: 0o600, uid: 0, gid: 0, user: nil, group: nil, mtime: 0,
            comment: comment, data: data)
    }

    private static func relative(_ path: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        path.first == 0x2F ? UnsafeRawBufferPointer(rebasing: path[1...]) : path
    }

    private static func check(_ path: [UInt8]) throws(BundleError) {
        let isSound = path.withUnsafeBytes { bytes in
            bytes.count > 1 && EntryPath.isCanonical(bytes)
        }
        guard isSound else {
            throw BundleError(
                .malformed, "write", "a chunk of \(UTF8Text.display(path))",
                "no file has such a path")
        }
        guard path.count <= BundleLimits.pathBytes else {
            throw BundleError(
                .limit, "write", "a chunk of a file",
                "its path has \(path.count) bytes, more than \(BundleLimits.pathBytes)")
        }
    }
}
