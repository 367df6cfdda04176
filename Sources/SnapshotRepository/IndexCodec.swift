package import BundleFormat
package import SnapshotModel

/// One bundle as the index tells of it.
package struct IndexedBundle: Sendable {
    package var id: BundleID
    package var kind: BundleKind
    /// Stored bytes.
    package var size: Int
    /// Bytes of the frame sequence before it is sealed.
    package var plain: Int
    package var md5: [UInt8]?

    package init(id: BundleID, kind: BundleKind, size: Int, plain: Int, md5: [UInt8]?) {
        self.id = id
        self.kind = kind
        self.size = size
        self.plain = plain
        self.md5 = md5
    }
}

/// One frame as the index tells of it: where it lies in its bundle, and how long it is opened.
package struct IndexedFrame: Sendable, Equatable {
    package var offset: Int
    package var length: Int
    package var raw: Int
    package var fingerprint: Fingerprint

    package init(offset: Int, length: Int, raw: Int, fingerprint: Fingerprint) {
        self.offset = offset
        self.length = length
        self.raw = raw
        self.fingerprint = fingerprint
    }
}

/// The lines of an index record (format.md section 8).
package enum IndexCodec {
    package static func write(_ bundle: SealedBundle, to out: ByteBuffer) {
        out.append("{\"bundle\":\"")
        out.append(hex: bundle.id)
        out.append("\",\"kind\":\"")
        out.append(bundle.kind.name)
        out.append("\",\"size\":")
        out.append(decimal: UInt64(bundle.size))
        out.append(",\"plain\":")
        out.append(decimal: UInt64(bundle.plain))
        if let md5 = bundle.md5 {
            out.append(",\"md5\":\"")
            out.append(Hex.text(md5))
            out.append(0x22)
        }
        out.append("}\n")
        for frame in bundle.frames {
            out.append("{\"frame\":[")
            out.append(decimal: UInt64(frame.offset))
            out.append(0x2C)
            out.append(decimal: UInt64(frame.length))
            out.append(0x2C)
            out.append(decimal: UInt64(frame.raw))
            out.append("],\"xxh3\":\"")
            out.append(hex: frame.fingerprint)
            out.append("\",\"chunks\":[")
            for (index, chunk) in frame.chunks.enumerated() {
                out.append(index > 0 ? ",[\"" : "[\"")
                out.append(hex: chunk.id)
                out.append("\",")
                out.append(decimal: UInt64(chunk.offset))
                out.append(0x2C)
                out.append(decimal: UInt64(chunk.length))
                out.append(0x5D)
            }
            out.append("]}\n")
        }
    }

    package static func write(segment id: ChunkID, bundles: [BundleID], to out: ByteBuffer) {
        out.append("{\"segment\":\"")
        out.append(hex: id)
        out.append("\",\"bundles\":[")
        for (index, bundle) in bundles.enumerated() {
            out.append(index > 0 ? ",\"" : "\"")
            out.append(hex: bundle)
            out.append(0x22)
        }
        out.append("]}\n")
    }

    /// What a reader of index lines is told, in the order of the lines.
    package protocol Receiver {
        mutating func bundle(_ bundle: IndexedBundle)
        mutating func frame(_ frame: IndexedFrame)
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32)
        mutating func segment(_ id: ChunkID, bundles: [BundleID])
    }

    /// Reads index lines. Bounds are checked here, so that a receiver may rely on them: frames lie
    /// within their bundle and in order, chunks within their frame.
    /// - Returns: the number of the line that is not one of format 1, counted from 1, or nil.
    package static func read(_ bytes: UnsafeRawBufferPointer, into receiver: inout some Receiver)
        -> Int?
    {
        var start = 0
        var number = 0
        var current: IndexedBundle?
        var frameEnd = 0
        while start < bytes.count {
            number += 1
            guard let end = JSONLines.lineEnd(bytes, from: start) else { return number }
            let line = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            guard read(line: line, current: &current, frameEnd: &frameEnd, into: &receiver) else {
                return number
            }
            start = end + 1
        }
        return nil
    }

    static func read(
        line: UnsafeRawBufferPointer, current: inout IndexedBundle?, frameEnd: inout Int,
        into receiver: inout some Receiver
    ) -> Bool {
        guard line.count > 4 else { return false }
        // The first key tells the long lines apart without reading them twice.
        var scanner = JSONScanner(line)
        guard scanner.enter(0x7B), let (key, _) = scanner.nextField(isFirst: true) else {
            return false
        }
        if isNamed(scanner.slice(key), "frame") {
            return readFrame(line, bundle: current, frameEnd: &frameEnd, into: &receiver)
        }
        guard let document = JSONValue(parsing: line) else { return false }
        guard
            document.unknownCritical(known: [
                "bundle", "kind", "size", "plain", "md5", "segment", "bundles", "frame", "xxh3",
                "chunks",
            ]).isEmpty
        else { return false }
        if document["frame"] != nil {
            return readFrame(line, bundle: current, frameEnd: &frameEnd, into: &receiver)
        }
        if document["bundle"] != nil {
            guard let id = document["bundle"]?.string.flatMap({ BundleID($0) }),
                let kind = document["kind"]?.string.flatMap({ BundleKind(name: $0) }),
                let size = document["size"]?.count, let plain = document["plain"]?.count,
                plain <= size
            else { return false }
            let bundle = IndexedBundle(
                id: id, kind: kind, size: size, plain: plain,
                md5: document["md5"]?.string.flatMap { Hex.bytes($0) })
            receiver.bundle(bundle)
            current = bundle
            frameEnd = 0
            return true
        }
        if document["segment"] != nil {
            guard let id = document["segment"]?.string.flatMap({ ChunkID($0) }),
                let list = document["bundles"]?.array
            else { return false }
            var bundles: [BundleID] = []
            for item in list {
                guard let bundle = item.string.flatMap({ BundleID($0) }) else { return false }
                bundles.append(bundle)
            }
            receiver.segment(id, bundles: bundles)
            return true
        }
        // A kind of line that this release does not know: ignored unless it says that it must not
        // be.
        return document["critical"] == nil
    }

    private static func isNamed(_ name: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        Memory.equal(
            name, UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// What a frame of format 1 can take compressed: the largest raw frame, were it stored as it
    /// is, and some.
    private static let frameLengthMaximum: UInt64 = 17 << 20

    private static func readFrame(
        _ line: UnsafeRawBufferPointer, bundle: IndexedBundle?, frameEnd: inout Int,
        into receiver: inout some Receiver
    ) -> Bool {
        var scanner = JSONScanner(line)
        var place: JSONScanner.Value?
        var fingerprint: Fingerprint?
        var chunks: JSONScanner.Value?
        var isFirst = true
        guard scanner.enter(0x7B) else { return false }
        while let (key, value) = scanner.nextField(isFirst: isFirst) {
            isFirst = false
            let name = scanner.slice(key)
            if isNamed(name, "frame") {
                place = value
            } else if isNamed(name, "xxh3"), value.kind == .text {
                fingerprint = Fingerprint(hex: scanner.slice(value))
            } else if isNamed(name, "chunks"), value.kind == .array {
                chunks = value
            } else if isNamed(name, "critical") {
                let names = JSONValue(parsing: scanner.slice(value))?.array?.compactMap(\.string)
                guard let names, names.allSatisfy(["frame", "xxh3", "chunks"].contains) else {
                    return false
                }
            }
        }
        guard !scanner.isBroken, scanner.isAtEnd(), let place, place.kind == .array,
            let fingerprint, let chunks, let bundle
        else { return false }
        var inner = JSONScanner(scanner.bytes, at: place.start)
        guard inner.enter(0x5B),
            let first = inner.nextElement(isFirst: true).flatMap({ inner.integer($0) }),
            let second = inner.nextElement(isFirst: false).flatMap({ inner.integer($0) }),
            let third = inner.nextElement(isFirst: false).flatMap({ inner.integer($0) }),
            inner.nextElement(isFirst: false) == nil, !inner.isBroken,
            first <= bundle.plain, second > 0, second <= frameLengthMaximum, third <= 16 << 20
        else { return false }
        let numbers = (Int(first), Int(second), Int(third))
        guard numbers.0 >= frameEnd, numbers.1 <= bundle.plain - numbers.0 else { return false }
        frameEnd = numbers.0 + numbers.1
        receiver.frame(
            IndexedFrame(
                offset: numbers.0, length: numbers.1, raw: numbers.2, fingerprint: fingerprint))
        var list = JSONScanner(scanner.bytes, at: chunks.start)
        guard list.enter(0x5B) else { return false }
        var isFirstChunk = true
        while let element = list.nextElement(isFirst: isFirstChunk) {
            isFirstChunk = false
            guard element.kind == .array else { return false }
            var triple = JSONScanner(scanner.bytes, at: element.start)
            guard triple.enter(0x5B), let idValue = triple.nextElement(isFirst: true),
                idValue.kind == .text,
                let id = ChunkID(hex: triple.slice(idValue)),
                let offset = triple.nextElement(isFirst: false).flatMap({ triple.integer($0) }),
                let length = triple.nextElement(isFirst: false).flatMap({ triple.integer($0) }),
                offset <= UInt64(numbers.2), length <= UInt64(numbers.2),
                offset + length <= UInt64(numbers.2)
            else { return false }
            receiver.chunk(id, offset: UInt32(offset), length: UInt32(length))
        }
        return !list.isBroken
    }
}
