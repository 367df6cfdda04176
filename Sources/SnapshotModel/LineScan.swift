#if canImport(Glibc)
    import Glibc
#endif

extension JSONLines {
    /// Offset of the next LF at or after `start`.
    @inline(__always)
    package static func lineEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int? {
        guard start < bytes.count, let base = bytes.baseAddress,
            let found = memchr(base + start, 0x0A, bytes.count - start)
        else { return nil }
        return UnsafeRawPointer(found) - base
    }
}
