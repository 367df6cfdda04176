/// What may be a path below a restore target: components joined by single slashes, and nothing
/// else.
///
/// Entry paths come from a repository that anybody may have written, so every path passes here
/// before it reaches the kernel. The kernel is asked to refuse the same things once more.
enum TargetPath {
    /// Whether `path` is empty (the target itself) or consists of components that are neither empty
    /// nor `.` nor `..` and hold no zero byte.
    static func isSafe(_ path: UnsafeRawBufferPointer) -> Bool {
        if path.count == 0 { return true }
        var start = 0
        for index in 0...path.count {
            if index < path.count, path[index] != 0x2F {
                if path[index] == 0 { return false }
                continue
            }
            let length = index - start
            if length == 0 { return false }
            if path[start] == 0x2E, length == 1 || (length == 2 && path[start + 1] == 0x2E) {
                return false
            }
            start = index + 1
        }
        return true
    }

    /// How many bytes of `path` name its parent: everything before the last slash.
    @inline(__always)
    static func parentCount(of path: [UInt8]) -> Int { path.lastIndex(of: 0x2F) ?? 0 }

    /// The last component, with the zero byte that C wants behind it.
    static func lastName(of path: [UInt8]) -> [CChar] {
        let start = path.lastIndex(of: 0x2F).map { $0 + 1 } ?? 0
        return cString(path[start...])
    }

    static func cString(_ bytes: ArraySlice<UInt8>) -> [CChar] {
        [CChar](unsafeUninitializedCapacity: bytes.count + 1) { buffer, count in
            for (index, byte) in bytes.enumerated() { buffer[index] = CChar(bitPattern: byte) }
            buffer[bytes.count] = 0
            count = bytes.count + 1
        }
    }

    static func join(_ directory: [UInt8], _ name: [UInt8]) -> [UInt8] {
        directory.isEmpty ? name : directory + [0x2F] + name
    }
}
