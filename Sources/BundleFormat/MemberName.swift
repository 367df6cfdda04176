package import SnapshotModel

/// What a person with `tar` in hand gets to see of a whole file. No reader of ours takes anything
/// from it.
package struct MemberMetadata: Sendable, Hashable {
    /// Absolute; stored without the leading slash.
    package var path: [UInt8]
    /// Permission bits with setuid, setgid and sticky.
    package var mode: UInt32
    package var uid: UInt32
    package var gid: UInt32
    package var user: [UInt8]?
    package var group: [UInt8]?
    /// Stored cut to the second.
    package var mtime: Timestamp

    package init(
        path: [UInt8], mode: UInt32, uid: UInt32, gid: UInt32, user: [UInt8]? = nil,
        group: [UInt8]? = nil, mtime: Timestamp
    ) {
        self.path = path
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.user = user
        self.group = group
        self.mtime = mtime
    }

    package init(_ entry: Entry) {
        self.init(
            path: entry.path, mode: entry.mode, uid: entry.uid, gid: entry.gid, user: entry.user,
            group: entry.group, mtime: entry.mtime)
    }
}

/// What a chunk is called in the tar archive (the table in format.md section 7).
package enum MemberName: Sendable {
    /// The chunk is the whole content of this file. Stored as a `chunk` where the path lies in
    /// `/.batchsync/`.
    case wholeFile(MemberMetadata)
    /// A part of the file at `path`, or nothing of a file's own where `path` is empty (lists of
    /// holes and such).
    case chunk(path: [UInt8])
    case segment
    case node

    /// The kind of bundle in which such members lie.
    package var bundleKind: BundleKind {
        switch self {
        case .wholeFile, .chunk: .content
        case .segment, .node: .manifest
        }
    }

    static let reserved: StaticString = ".batchsync/"
    static let chunkPrefix: StaticString = ".batchsync/chunk/"
    static let segmentPrefix: StaticString = ".batchsync/segment/"
    static let nodePrefix: StaticString = ".batchsync/node/"
}

extension StaticString {
    var rawBytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: utf8Start, count: utf8CodeUnitCount)
    }

    func begins(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.count >= utf8CodeUnitCount
            && Memory.equal(UnsafeRawBufferPointer(rebasing: bytes[..<utf8CodeUnitCount]), rawBytes)
    }
}

extension Array where Element == UInt8 {
    /// `withUnsafeBytes` with a typed error, which the standard library's has not.
    func withRawBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeBufferPointer { bytes throws(Failure) in
            try body(UnsafeRawBufferPointer(bytes))
        }
    }
}
