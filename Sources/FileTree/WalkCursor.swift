import Glibc
import SnapshotModel

/// What changes with each entry. It lies outside of the object, since each access to a property
/// of a class is checked at run time, and following references for each entry would cost more
/// than the rest of `next`.
struct WalkCursor {
    /// Of the current listing: its entries, and where its delivery goes on.
    var entries: UnsafeMutablePointer<ListedEntry>
    var names: UnsafeMutablePointer<CChar>
    var index = 0
    var count = 0
    /// Bytes of the path before the names in the current listing; 0 for the list that holds a
    /// root.
    var prefix = 0
    /// What was delivered last.
    var current: UnsafeMutablePointer<ListedEntry>
    var kind = EntryKind.file
    /// The path of what was delivered last.
    var path: UnsafeMutableRawPointer
    var pathCount = 0
    var pathCapacity: Int
    /// Something is to be done before the next entry of the listing.
    var needsCare = false

    mutating func setPath(_ bytes: UnsafeRawBufferPointer) {
        pathCount = 0
        append(bytes.baseAddress, bytes.count)
    }

    @inline(__always)
    mutating func append(_ bytes: UnsafeRawPointer?, _ count: Int) {
        if pathCount + count >= pathCapacity { growPath(count) }
        if let bytes { memcpy(path + pathCount, bytes, count) }
        pathCount += count
    }

    @inline(never)
    private mutating func growPath(_ count: Int) {
        pathCapacity = max(2 * pathCapacity, pathCount + count + 1)
        let larger = UnsafeMutableRawPointer.allocate(byteCount: pathCapacity, alignment: 16)
        memcpy(larger, path, pathCount)
        path.deallocate()
        path = larger
    }
}
