/// Where segments and nodes end, and how nodes are written (format.md section 9).
package enum ManifestLimits {
    package static let segmentMinimumBytes = 32 << 10
    package static let segmentMaximumBytes = 512 << 10
    package static let segmentCutMask: UInt64 = 0x1FF
    package static let nodeMinimumChildren = 64
    package static let nodeMaximumChildren = 1000
    package static let levelsMaximum = 8

    /// Whether a segment of `bytes` bytes ends after the line of `path`.
    @inline(__always)
    package static func segmentEnds(bytes: Int, path: UnsafeRawBufferPointer) -> Bool {
        if bytes < segmentMinimumBytes { return false }
        return bytes >= segmentMaximumBytes || EntryPath.cutHash(path) & segmentCutMask == 0
    }

    /// Whether a node of `children` children ends after child `id`.
    package static func nodeEnds(children: Int, id: ChunkID) -> Bool {
        if children < nodeMinimumChildren { return false }
        return children >= nodeMaximumChildren || id.word3 & 0xFF == 0
    }
}

/// A child of a manifest node: a segment or a node of the level below, and the path of the first
/// entry in it.
package struct ManifestChild: Sendable, Equatable {
    package var id: ChunkID
    package var first: [UInt8]

    package init(id: ChunkID, first: [UInt8]) {
        self.id = id
        self.first = first
    }

    package static func write(_ children: [ManifestChild], to out: ByteBuffer) {
        for child in children {
            out.append("{\"id\":\"")
            out.append(hex: child.id)
            out.append("\",")
            child.first.withUnsafeBytes { out.append(field: "first", text: $0) }
            out.append("}\n")
        }
    }

    /// Nil where the bytes are not a node.
    package static func read(_ bytes: UnsafeRawBufferPointer) -> [ManifestChild]? {
        var children: [ManifestChild] = []
        guard
            JSONLines.forEach(
                bytes,
                { line in
                    guard let value = JSONValue(parsing: line),
                        let id = value["id"]?.string.flatMap({ ChunkID($0) })
                    else { return false }
                    let first: [UInt8]
                    if let text = value["first"]?.string {
                        first = Array(text.utf8)
                    } else if let text = value["first_b64"]?.string,
                        let decoded = Array(text.utf8).withUnsafeBytes({ Base64.decode($0) })
                    {
                        first = decoded
                    } else {
                        return false
                    }
                    children.append(ManifestChild(id: id, first: first))
                    return true
                })
        else { return nil }
        return children
    }
}

/// A node of a long list: one id a line.
package enum ListNode {
    package static func write(_ ids: some Sequence<ChunkID>, to out: ByteBuffer) {
        for id in ids {
            out.append(0x22)
            out.append(hex: id)
            out.append("\"\n")
        }
    }

    package static func read(_ bytes: UnsafeRawBufferPointer) -> [ChunkID]? {
        var ids: [ChunkID] = []
        ids.reserveCapacity(bytes.count / 67)
        guard
            JSONLines.forEach(
                bytes,
                { line in
                    var scanner = JSONScanner(line)
                    guard let value = scanner.value(), value.kind == .text, scanner.isAtEnd(),
                        let id = ChunkID(hex: scanner.slice(value))
                    else { return false }
                    ids.append(id)
                    return true
                })
        else { return nil }
        return ids
    }

    /// Cuts a list that is too long to stand in a line into nodes, level by level, until at most
    /// `Entry.inlineListLimit` ids remain. `store` keeps a node's bytes, is told its children and
    /// its level (1 where they are chunks), and gives its id back.
    package static func build<Failure: Error>(
        _ ids: [ChunkID], store: (UnsafeRawBufferPointer, [ChunkID], Int) throws(Failure) -> ChunkID
    ) throws(Failure) -> (ids: [ChunkID], depth: Int) {
        var level = ids
        var depth = 0
        let out = ByteBuffer(capacity: 67 * 1024)
        while level.count > Entry.inlineListLimit {
            var next: [ChunkID] = []
            var start = 0
            for index in level.indices
            where ManifestLimits.nodeEnds(children: index - start + 1, id: level[index])
                || index == level.count - 1
            {
                out.removeAll()
                write(level[start...index], to: out)
                next.append(try store(out.bytes, Array(level[start...index]), depth + 1))
                start = index + 1
            }
            level = next
            depth += 1
        }
        return (level, depth)
    }
}

package enum JSONLines {
    /// Calls `body` with each line without its LF until one says no. False then, or where the last
    /// line lacks its LF.
    @discardableResult
    package static func forEach(
        _ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Bool
    ) -> Bool {
        var start = 0
        while start < bytes.count {
            guard let end = lineEnd(bytes, from: start) else { return false }
            guard body(UnsafeRawBufferPointer(rebasing: bytes[start..<end])) else { return false }
            start = end + 1
        }
        return true
    }
}
