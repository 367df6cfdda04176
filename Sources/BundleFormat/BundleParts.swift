package import SnapshotModel

/// Files' chunks, or pieces of manifests; never both in one bundle (format.md section 7).
package enum BundleKind: UInt8, Sendable, Hashable, CaseIterable {
    case content, manifest

    /// As the index spells it.
    package var name: String {
        switch self {
        case .content: "content"
        case .manifest: "manifest"
        }
    }

    package init?(name: some StringProtocol) {
        switch name {
        case "content": self = .content
        case "manifest": self = .manifest
        default: return nil
        }
    }
}

/// Where a chunk lies in the raw bytes of its frame.
package struct ChunkPlace: Hashable, Sendable {
    package let id: ChunkID
    /// Of the chunk's first byte. Bytes.
    package let offset: UInt32
    package let length: UInt32

    package init(id: ChunkID, offset: UInt32, length: UInt32) {
        self.id = id
        self.offset = offset
        self.length = length
    }
}

/// One frame of a bundle, as a line of the index names it (format.md section 8).
package struct FrameRecord: Hashable, Sendable {
    /// In the bundle's plain text.
    package var offset: Int
    /// Compressed bytes.
    package var length: Int
    /// Bytes of tar.
    package var raw: Int
    /// Of the raw bytes.
    package var fingerprint: Fingerprint
    /// In order of offset.
    package var chunks: [ChunkPlace]

    package init(
        offset: Int, length: Int, raw: Int, fingerprint: Fingerprint, chunks: [ChunkPlace]
    ) {
        self.offset = offset
        self.length = length
        self.raw = raw
        self.fingerprint = fingerprint
        self.chunks = chunks
    }
}

/// A frame that is ready to be put into a bundle.
package struct CompressedFrame: Sendable {
    /// Exactly one zstd frame.
    package let bytes: ByteBuffer
    package let rawLength: Int
    package let fingerprint: Fingerprint
    package let chunks: [ChunkPlace]
    /// Whether the raw bytes end with the end-of-archive mark.
    package let endsArchive: Bool
}

/// What is to be known of a bundle that is complete.
package struct SealedBundle: Hashable, Sendable {
    /// SHA-256 of the stored bytes.
    package let id: BundleID
    package let kind: BundleKind
    /// Stored bytes.
    package let size: Int
    /// Bytes of the plain text (Z of format.md section 7).
    package let plain: Int
    /// Of the stored bytes, where it was asked for.
    package let md5: [UInt8]?
    package let frames: [FrameRecord]

    package init(
        id: BundleID, kind: BundleKind, size: Int, plain: Int, md5: [UInt8]?, frames: [FrameRecord]
    ) {
        self.id = id
        self.kind = kind
        self.size = size
        self.plain = plain
        self.md5 = md5
        self.frames = frames
    }
}
