internal import SnapshotModel

/// A member of a bundle's archive, as somebody finds it who knows nothing but the bundle.
package struct ScannedMember: Hashable, Sendable {
    package enum Kind: Sendable, Hashable {
        case wholeFile, chunk, segment, node

        package var bundleKind: BundleKind {
            switch self {
            case .wholeFile, .chunk: .content
            case .segment, .node: .manifest
            }
        }
    }

    package let kind: Kind
    /// The id is the SHA-256 of what is there, whatever the name says.
    package let place: ChunkPlace
    /// The absolute path of the file, where the member tells.
    package let path: [UInt8]?
}

/// Reads one raw frame, a run of whole tar members. Every byte must belong to a member or to the
/// end of the archive.
///
/// A parser of its own rather than libarchive's, because it takes only what bundles hold: regular
/// files with ustar headers, pax headers before them. What it reads may come from anybody, so it is
/// bounds-checked Swift; and it needs each member's offset and `comment`, which libarchive does not
/// tell.
struct TarReader {
    private let bytes: UnsafeRawBufferPointer
    private let frameOffset: Int
    private var position = 0
    /// Whether the frame ends with the end-of-archive mark.
    private(set) var endsArchive = false

    init(_ bytes: UnsafeRawBufferPointer, frameOffset: Int) {
        self.bytes = bytes
        self.frameOffset = frameOffset
    }

    /// What pax headers said of the member that follows them.
    private struct Extended {
        var path: Range<Int>?
        var comment: Range<Int>?
        var size: Int?
    }

    /// The next member, hashed; nil at the end of the frame.
    mutating func next() throws(BundleError) -> ScannedMember? {
        var extended = Extended()
        var isExtended = false
        while true {
            if position == bytes.count {
                if isExtended { throw malformed("it ends behind a pax header") }
                return nil
            }
            guard bytes.count - position >= Tar.blockBytes else {
                throw malformed("it ends within a tar header")
            }
            let header = position..<position + Tar.blockBytes
            if isZero(header) {
                guard !isExtended, isZero(position..<bytes.count),
                    bytes.count - position == Tar.endOfArchiveBytes
                else { throw malformed("zeros stand where a tar header should") }
                endsArchive = true
                position = bytes.count
                return nil
            }
            try check(header)
            let size = try number(header.lowerBound + 124, 12)
            position = header.upperBound
            switch bytes[header.lowerBound + 156] {
            case UInt8(ascii: "x"):
                let body = try take(size)
                try read(records: body, into: &extended)
                isExtended = true
            case UInt8(ascii: "g"):
                _ = try take(size)
            case UInt8(ascii: "0"), 0:
                let data = try take(extended.size ?? size)
                return try member(header, data, extended)
            default:
                throw malformed("it has a tar member that is no regular file")
            }
        }
    }

    /// The range of `size` bytes here; moves behind their padding.
    private mutating func take(_ size: Int) throws(BundleError) -> Range<Int> {
        guard size <= bytes.count - position, Tar.padded(size) <= bytes.count - position else {
            throw malformed("a tar member reaches beyond it")
        }
        defer { position += Tar.padded(size) }
        return position..<position + size
    }

    private func check(_ header: Range<Int>) throws(BundleError) {
        let base = header.lowerBound
        guard Memory.equal(slice(base + 257..<base + 262), ("ustar" as StaticString).rawBytes),
            bytes[base + 262] == 0
        else { throw malformed("it has a tar header that is not ustar") }
        let stated = try number(base + 148, 8)
        guard UInt64(stated) == Tar.checksum(bytes.baseAddress! + base) else {
            throw malformed("a tar header's checksum does not match")
        }
    }

    /// Octal digits, perhaps after spaces; then a space, a zero byte or the field's end.
    private func number(_ offset: Int, _ width: Int) throws(BundleError) -> Int {
        var value = 0
        var index = offset
        let end = offset + width
        while index < end, bytes[index] == 0x20 { index += 1 }
        let start = index
        while index < end, bytes[index] >= 0x30, bytes[index] <= 0x37 {
            value = value << 3 | Int(bytes[index] - 0x30)
            index += 1
        }
        guard index > start, index == end || bytes[index] == 0 || bytes[index] == 0x20 else {
            throw malformed("a number in a tar header cannot be read")
        }
        return value
    }

    private func read(
        records: Range<Int>, into extended: inout Extended
    ) throws(BundleError) {
        var at = records.lowerBound
        while at < records.upperBound {
            var length = 0
            var index = at
            while index < records.upperBound, index - at < 9, bytes[index] >= 0x30,
                bytes[index] <= 0x39
            {
                length = length * 10 + Int(bytes[index] - 0x30)
                index += 1
            }
            let end = at + length
            guard index > at, index < end, bytes[index] == 0x20, end <= records.upperBound,
                bytes[end - 1] == 0x0A
            else { throw malformed("a pax record cannot be read") }
            let key = index + 1
            var equals = key
            while equals < end - 1, bytes[equals] != 0x3D { equals += 1 }
            guard equals < end - 1, equals > key else {
                throw malformed("a pax record has no key")
            }
            let value = equals + 1..<end - 1
            try take(slice(key..<equals), value, into: &extended)
            at = end
        }
    }

    private func take(
        _ key: UnsafeRawBufferPointer, _ value: Range<Int>, into extended: inout Extended
    ) throws(BundleError) {
        func isKey(_ name: StaticString) -> Bool { Memory.equal(key, name.rawBytes) }
        if isKey("path") || isKey("comment") {
            guard value.count <= BundleLimits.pathBytes else {
                throw BundleError.frame(.limit, at: frameOffset, "it names a path that is too long")
            }
            if isKey("path") { extended.path = value } else { extended.comment = value }
        } else if isKey("size") {
            var size = 0
            guard value.count > 0, value.count <= 10 else {
                throw malformed("a pax size cannot be read")
            }
            for index in value {
                guard bytes[index] >= 0x30, bytes[index] <= 0x39 else {
                    throw malformed("a pax size cannot be read")
                }
                size = size * 10 + Int(bytes[index] - 0x30)
            }
            extended.size = size
        } else if ("GNU.sparse" as StaticString).begins(key) {
            throw malformed("it has a sparse tar member")
        }
    }

    private func member(
        _ header: Range<Int>, _ data: Range<Int>, _ extended: Extended
    ) throws(BundleError) -> ScannedMember {
        guard data.count <= BundleLimits.chunkBytes else {
            throw BundleError.frame(.limit, at: frameOffset, "it holds a chunk that is too large")
        }
        let name: [UInt8]
        if let path = extended.path {
            name = Array(slice(path))
        } else {
            let base = header.lowerBound
            let prefix = field(base + 345, 155)
            name = (prefix.isEmpty ? [] : Array(prefix) + [0x2F]) + Array(field(base, 100))
        }
        let comment = extended.comment.map { Array(slice($0)) }
        let (kind, path) = try name.withRawBytes { name throws(BundleError) in
            try classify(name, comment)
        }
        let place = ChunkPlace(
            id: ContentHash.sha256(slice(data)), offset: UInt32(data.lowerBound),
            length: UInt32(data.count))
        return ScannedMember(kind: kind, place: place, path: path)
    }

    private func classify(
        _ name: UnsafeRawBufferPointer, _ comment: [UInt8]?
    ) throws(BundleError) -> (ScannedMember.Kind, [UInt8]?) {
        if MemberName.reserved.begins(name) {
            if MemberName.chunkPrefix.begins(name) { return (.chunk, comment) }
            if MemberName.segmentPrefix.begins(name) { return (.segment, nil) }
            if MemberName.nodePrefix.begins(name) { return (.node, nil) }
            throw malformed("a member has a reserved name that means nothing")
        }
        guard !name.isEmpty else { throw malformed("a member has no name") }
        return (.wholeFile, [0x2F] + Array(name))
    }

    private func slice(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[range])
    }

    /// A text field: up to its first zero byte.
    private func field(_ offset: Int, _ width: Int) -> UnsafeRawBufferPointer {
        var end = offset
        while end < offset + width, bytes[end] != 0 { end += 1 }
        return slice(offset..<end)
    }

    private func isZero(_ range: Range<Int>) -> Bool {
        for index in range where bytes[index] != 0 { return false }
        return true
    }

    private func malformed(_ cause: String) -> BundleError {
        .frame(.malformed, at: frameOffset, cause)
    }
}
