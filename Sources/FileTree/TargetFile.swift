import CSystem
import Glibc
package import SnapshotModel

/// A file that lies below a restore target already, open for reading: what of it can be kept need
/// not be fetched.
///
/// May be read by several threads at once. The descriptor is closed with the last reference.
package final class TargetFile: Sendable {
    let descriptor: Int32
    package let status: FileStatus
    private let target: TargetDirectory
    private let relative: [UInt8]

    fileprivate init(
        descriptor: Int32, status: FileStatus, target: TargetDirectory, relative: [UInt8]
    ) {
        self.descriptor = descriptor
        self.status = status
        self.target = target
        self.relative = relative
    }

    deinit { _ = csys_close(descriptor) }

    /// Fills `buffer` from an offset.
    ///
    /// - Returns: How many bytes there were; fewer than the buffer takes only at the file's end.
    package func read(
        into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(FileTreeError) -> Int {
        try Self.read(descriptor, buffer, offset) { result throws(FileTreeError) in
            throw target.failure(result, relative, "pread", "read")
        }
    }

    /// Where it has no data and reads as zeros: ascending, neither overlapping nor adjacent.
    package func holes() throws(FileTreeError) -> [Hole] {
        try FileHoles.find(in: descriptor, status) { result throws(FileTreeError) in
            throw target.failure(result, relative, "lseek", "find holes in")
        }
    }

    static func read(
        _ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer, _ offset: UInt64,
        fail: (Int) throws(FileTreeError) -> Never
    ) throws(FileTreeError) -> Int {
        guard let base = buffer.baseAddress, offset <= UInt64(Int64.max) - UInt64(buffer.count)
        else { return 0 }
        var done = 0
        while done < buffer.count {
            let count = csys_pread(
                descriptor, base + done, buffer.count - done, Int64(offset) + Int64(done))
            if count == 0 { break }
            if count < 0 { try fail(count) }
            done += count
        }
        return done
    }
}

/// How what stands at an entry's place compares with the entry.
package enum TargetComparison: Sendable, Hashable {
    /// Nothing stands there.
    case absent
    /// Kind, size and modification time are the entry's; for links, what they point to; for
    /// devices, the numbers. Content was not read, and other metadata not compared.
    case same
    /// Of the entry's kind, and modified before it.
    case older
    /// Of the entry's kind, and modified after it.
    case newer
    /// Of the entry's kind and time, but another size.
    case different
    /// A file where the entry is a directory, and the like.
    case otherKind(EntryKind?)
}

extension TargetDirectory {
    /// Opens a plain file for reading; nil where there is none, or this user may not read it.
    package func openFile(_ relative: [UInt8]) throws(FileTreeError) -> TargetFile? {
        // Looked at before it is opened: opening a device may do something already.
        guard let before = try status(relative), before.isFile else { return nil }
        let slot = try slot(relative)
        let descriptor = csys_openat(
            slot.parent.descriptor, slot.name,
            O_RDONLY | CSYS_O_NOFOLLOW | CSYS_O_NONBLOCK | CSYS_O_CLOEXEC, 0)
        guard descriptor >= 0 else { return nil }
        var raw = csys_stat()
        guard csys_fstat(descriptor, &raw) == 0, FileStatus(raw).isFile else {
            _ = csys_close(descriptor)
            return nil
        }
        return TargetFile(
            descriptor: descriptor, status: FileStatus(raw), target: self, relative: relative)
    }

    /// Compares what stands at an entry's place with the entry.
    package func compareExisting(
        _ relative: [UInt8], entry: Entry
    ) throws(FileTreeError) -> TargetComparison {
        guard let status = try status(relative) else { return .absent }
        guard status.kind == entry.kind else { return .otherKind(status.kind) }
        switch entry.kind {
        case .directory, .fifo, .socket:
            return .same
        case .symlink:
            if try readLink(relative) == entry.target { return .same }
        case .characterDevice, .blockDevice:
            let device = UInt64(entry.deviceMajor) << 32 | UInt64(entry.deviceMinor)
            if status.specialDevice == device { return .same }
        case .file:
            if status.size == entry.size, status.mtime == entry.mtime { return .same }
        }
        if status.mtime == entry.mtime { return .different }
        return status.mtime < entry.mtime ? .older : .newer
    }

    /// Whether two paths name the same file.
    package func areSameFile(_ one: [UInt8], _ other: [UInt8]) throws(FileTreeError) -> Bool {
        guard let first = try status(one), let second = try status(other) else { return false }
        return first.isSameFile(as: second)
    }

    private func readLink(_ relative: [UInt8]) throws(FileTreeError) -> [UInt8] {
        let slot = try slot(relative)
        // The longest a link can be is a page.
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = csys_readlinkat(slot.parent.descriptor, slot.name, &buffer, buffer.count)
        guard count >= 0 else { throw failure(count, relative, "readlinkat", "read the link") }
        return buffer[..<count].map { UInt8(bitPattern: $0) }
    }
}
