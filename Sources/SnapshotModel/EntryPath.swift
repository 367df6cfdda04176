/// The one order of all entries, and what else there is to say of a path's bytes.
///
/// Paths compare as sequences of components, each a sequence of unsigned bytes; a directory stands
/// before what it contains. That is the order in which a walk meets entries that sorts each
/// directory by name, so walk, manifest and bundles share it and comparing two of them is one
/// merge. Comparing bytes with `/` below every other byte gives the same order, since no name holds
/// a zero byte.
package enum EntryPath {
    /// Less than, equal to or greater than zero.
    package static func compare(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer)
        -> Int
    {
        let shared = min(left.count, right.count)
        var index = 0
        if shared > 0 {
            let a = left.baseAddress!
            let b = right.baseAddress!
            while index + 8 <= shared {
                if a.loadUnaligned(fromByteOffset: index, as: UInt64.self)
                    != b.loadUnaligned(fromByteOffset: index, as: UInt64.self)
                {
                    break
                }
                index += 8
            }
            while index < shared {
                let x = a.load(fromByteOffset: index, as: UInt8.self)
                let y = b.load(fromByteOffset: index, as: UInt8.self)
                if x != y {
                    if x == 0x2F { return -1 }
                    if y == 0x2F { return 1 }
                    return x < y ? -1 : 1
                }
                index += 1
            }
        }
        return left.count - right.count
    }

    package static func compare(_ left: [UInt8], _ right: [UInt8]) -> Int {
        left.withUnsafeBytes { left in right.withUnsafeBytes { right in compare(left, right) } }
    }

    package static func precedes(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        compare(left, right) < 0
    }

    /// Whether `path` is `directory` or lies below it.
    package static func contains(
        _ directory: UnsafeRawBufferPointer, _ path: UnsafeRawBufferPointer
    ) -> Bool {
        if directory.count == 1, directory[0] == 0x2F { return path.count > 0 && path[0] == 0x2F }
        guard path.count >= directory.count,
            Memory.equal(directory, UnsafeRawBufferPointer(rebasing: path[..<directory.count]))
        else { return false }
        return path.count == directory.count || path[directory.count] == 0x2F
    }

    package static func contains(_ directory: [UInt8], _ path: [UInt8]) -> Bool {
        directory.withUnsafeBytes { directory in
            path.withUnsafeBytes { path in contains(directory, path) }
        }
    }

    /// An absolute path without empty, `.` or `..` components and without a slash at the end (but
    /// `/` itself).
    package static func isCanonical(_ path: UnsafeRawBufferPointer) -> Bool {
        guard path.count > 0, path[0] == 0x2F else { return false }
        if path.count == 1 { return true }
        if isPlainlyCanonical(path) { return true }
        var start = 1
        for index in 1...path.count where index == path.count || path[index] == 0x2F {
            let length = index - start
            if length == 0 { return false }
            if length == 1, path[start] == 0x2E { return false }
            if length == 2, path[start] == 0x2E, path[start + 1] == 0x2E { return false }
            start = index + 1
        }
        for byte in path where byte == 0 { return false }
        return true
    }

    /// Whether no slash stands before a slash, a dot or the end, and no byte is zero: true of most
    /// paths, and seen eight bytes at a time.
    @inline(__always)
    private static func isPlainlyCanonical(_ path: UnsafeRawBufferPointer) -> Bool {
        guard let base = path.baseAddress, path[path.count - 1] != 0x2F else { return false }
        let last = path.count - 1
        var at = 0
        while at + 9 <= path.count {
            let here = base.loadUnaligned(fromByteOffset: at, as: UInt64.self)
            let next = base.loadUnaligned(fromByteOffset: at + 1, as: UInt64.self)
            let slash = 0x2F2F_2F2F_2F2F_2F2F as UInt64
            // Slash and dot differ in the lowest bit alone.
            let pairs = zeros(here ^ slash) & zeros((next | 0x0101_0101_0101_0101) ^ slash)
            guard pairs | zeros(here) == 0 else { return false }
            at += 8
        }
        while at < last {
            let byte = path[at]
            if byte == 0 || byte == 0x2F && path[at + 1] | 1 == 0x2F { return false }
            at += 1
        }
        return path[last] != 0
    }

    /// The highest bit of each byte of `word` that is zero, and now and then of one above a zero
    /// byte.
    @inline(__always)
    private static func zeros(_ word: UInt64) -> UInt64 {
        (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
    }

    package static func isCanonical(_ path: [UInt8]) -> Bool {
        path.withUnsafeBytes { isCanonical($0) }
    }

    /// Everything before the last component, `/` for a path directly below the root.
    package static func parent(of path: [UInt8]) -> [UInt8] {
        guard let slash = path.lastIndex(of: 0x2F), slash > 0 else { return [0x2F] }
        return Array(path[..<slash])
    }

    package static func lastComponent(of path: [UInt8]) -> [UInt8] {
        guard let slash = path.lastIndex(of: 0x2F) else { return path }
        return Array(path[(slash + 1)...])
    }

    package static func components(of path: [UInt8]) -> [[UInt8]] {
        path.split(separator: 0x2F, omittingEmptySubsequences: true).map(Array.init)
    }

    /// FNV-1a-64, folded: decides where segments end (format.md section 9). Writers only.
    @inline(__always)
    package static func cutHash(_ path: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in path { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
        return hash ^ (hash >> 32)
    }
}
