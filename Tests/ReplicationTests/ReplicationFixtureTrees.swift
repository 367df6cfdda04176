import CSystem
import Glibc
import TestSupport

/// All that a test compares of a tree: content, and what Linux keeps beside it.
struct TreeImage: Equatable {
    struct Node: Equatable, CustomStringConvertible {
        var mode: UInt32
        var uid: UInt32
        var gid: UInt32
        var seconds: Int64
        var nanoseconds: UInt32
        var size: UInt64
        var digest: [UInt8]
        var target: [UInt8]
        /// The first path by which the same file stands in the tree.
        var firstName: [UInt8]
        var holes: [ClosedRange<Int64>]

        var description: String {
            "mode \(String(mode, radix: 8)) owner \(uid):\(gid) time \(seconds).\(nanoseconds) size \(size) digest \(digest.prefix(4)) target \(target) holes \(holes)"
        }
    }

    private(set) var nodes: [[UInt8]: Node] = [:]

    init(of path: String, withHoles: Bool = false) {
        var names: [UInt64: [UInt8]] = [:]
        func visit(_ relative: [UInt8]) {
            for name in Self.names(Array(path.utf8) + [0x2F] + relative) {
                let inner = relative.isEmpty ? name : relative + [0x2F] + name
                let full = Array(path.utf8) + [0x2F] + inner
                var status = csys_stat()
                guard Self.withPath(full, { csys_lstatat(AT_FDCWD, $0, &status) }) == 0 else {
                    continue
                }
                var node = Node(
                    mode: status.mode, uid: status.uid, gid: status.gid, seconds: status.mtime_sec,
                    nanoseconds: status.mtime_nsec, size: 0, digest: [], target: [],
                    firstName: inner, holes: [])
                switch csys_kind(status.mode) {
                case CSYS_FILE:
                    node.size = status.size
                    (node.digest, node.holes) = Self.content(full, withHoles: withHoles)
                case CSYS_SYMLINK: node.target = Self.link(full)
                default: break
                }
                if status.links > 1, csys_kind(status.mode) != CSYS_DIRECTORY {
                    node.firstName = names[status.inode] ?? inner
                    names[status.inode] = node.firstName
                }
                nodes[inner] = node
                if csys_kind(status.mode) == CSYS_DIRECTORY { visit(inner) }
            }
        }
        visit([])
    }

    /// How `other` is not this tree, as text; empty where it is.
    func differences(_ other: TreeImage) -> [String] {
        var found: [String] = []
        for path in Set(nodes.keys).union(other.nodes.keys) {
            let (one, two) = (nodes[path], other.nodes[path])
            guard one != two else { continue }
            found.append(
                "\(String(decoding: path, as: UTF8.self)): \(one?.description ?? "missing") / \(two?.description ?? "missing")"
            )
        }
        return found.sorted()
    }

    subscript(path: String) -> Node? { nodes[Array(path.utf8)] }
    var count: Int { nodes.count }
    /// Bytes of all files, each name counted.
    var bytes: Int { nodes.values.reduce(0) { $0 + Int($1.size) } }

    private static func withPath<Value>(_ path: [UInt8], _ body: (UnsafePointer<CChar>) -> Value)
        -> Value
    {
        (path + [0]).withUnsafeBytes { body($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
    }

    private static func names(_ path: [UInt8]) -> [[UInt8]] {
        guard let directory = withPath(path, { opendir($0) }) else { return [] }
        defer { closedir(directory) }
        var names: [[UInt8]] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if name != [0x2E] && name != [0x2E, 0x2E] { names.append(name) }
        }
        return names.sorted { $0.lexicographicallyPrecedes($1) }
    }

    private static func link(_ path: [UInt8]) -> [UInt8] {
        var bytes = [CChar](repeating: 0, count: 4096)
        let count = withPath(path) { csys_readlinkat(AT_FDCWD, $0, &bytes, bytes.count) }
        return bytes.prefix(max(0, Int(count))).map { UInt8(bitPattern: $0) }
    }

    private static func content(_ path: [UInt8], withHoles: Bool) -> ([UInt8], [ClosedRange<Int64>])
    {
        let file = withPath(path) { csys_open($0, O_RDONLY | CSYS_O_CLOEXEC, 0) }
        guard file >= 0 else { return ([], []) }
        defer { _ = csys_close(file) }
        var status = csys_stat()
        _ = csys_fstat(file, &status)
        var bytes = [UInt8](repeating: 0, count: Int(status.size))
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                csys_pread(file, $0.baseAddress! + filled, $0.count - filled, Int64(filled))
            }
            if count <= 0 { break }
            filled += count
        }
        var holes: [ClosedRange<Int64>] = []
        var offset: Int64 = 0
        while withHoles, offset < Int64(status.size) {
            let hole = csys_seek_hole(file, offset)
            if hole < 0 || hole >= Int64(status.size) { break }
            let data = csys_seek_data(file, hole)
            let end = data < 0 ? Int64(status.size) : data
            holes.append(hole...end)
            offset = end
        }
        return (sha256(bytes), holes)
    }
}

/// Sets the modification time of a file, a directory or a link itself.
func setTime(_ path: String, _ seconds: Int64, _ nanoseconds: UInt32 = 0) {
    let result = csys_lutimensat(AT_FDCWD, path, seconds, nanoseconds)
    precondition(result == 0, "cannot set the time of \(path): \(result)")
}

extension TemporaryDirectory {
    /// Writes a file, whose directories are made, with a modification time of its own.
    func put(_ bytes: [UInt8], _ name: String, time: Int64 = 1_700_000_000) {
        var prefix = ""
        for part in name.split(separator: "/").dropLast() {
            prefix += "/\(part)"
            makeDirectory(path + prefix)
        }
        writeFile(bytes, to: path(name))
        setTime(path(name), time)
    }
}

/// A tree of some two hundred entries of every common shape: small files, one of several chunks, links, an empty directory.
func plantTree(
    _ directory: TemporaryDirectory, seed: UInt64 = 1, files: Int = 60, largeBytes: Int = 3 << 20
) {
    var generator = SeededGenerator(seed: seed)
    for number in 0..<files {
        let size = Int.random(in: 0...6000, using: &generator)
        directory.put(
            number % 3 == 0 ? generator.bytes(size) : generator.text(size),
            "dir-\(number % 7)/sub-\(number % 3)/file-\(number)",
            time: 1_600_000_000 + Int64(number))
    }
    directory.put([], "empty")
    if largeBytes > 0 { directory.put(generator.bytes(largeBytes), "large") }
    makeDirectory(directory.path("empty-directory"))
    _ = csys_symlinkat("dir-1/nothing", AT_FDCWD, directory.path("link"))
    _ = csys_linkat(AT_FDCWD, directory.path("empty"), AT_FDCWD, directory.path("empty-too"))
}
