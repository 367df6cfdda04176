import BundleFormat
import CSystem
import Glibc
import SnapshotModel
import SnapshotRepository
import Synchronization

/// What a run has stored, or was about to, in a file of this host that survives its death: the next
/// run need not store it again.
///
/// The file holds index lines (format.md section 8), each bundle's fsynced before its put begins.
/// It is locked as long as its run lives.
final class RunJournal: @unchecked Sendable {
    // Sendable: written only by storing threads, under `end`.
    private let path: String
    private let fd: Int32
    private let end = Mutex<Int64>(0)

    private static func folder(_ repository: Repository) -> String {
        repository.statePath + "/runs"
    }

    init(_ repository: Repository, run: String) throws(RepositoryError) {
        let folder = Self.folder(repository)
        try LocalFile.makeDirectory(folder)
        path = "\(folder)/\(run).journal"
        fd = csys_open(path, O_RDWR | O_CREAT | O_EXCL | CSYS_O_CLOEXEC, 0o600)
        guard fd >= 0 else {
            throw RepositoryError(
                .local, path, String(cString: strerror(-fd)), remedy: "check the state directory")
        }
        _ = csys_try_lock(fd)
        try LocalFile.syncDirectory(folder)
    }

    deinit { _ = csys_close(fd) }

    func append(_ bundle: SealedBundle) throws(RepositoryError) {
        let lines = ByteBuffer(capacity: 64 << 10)
        IndexCodec.write(bundle, to: lines)
        let failed: Int32 = end.withLock { end in
            var done = 0
            while done < lines.count {
                let count = csys_pwrite(
                    fd, lines.base + done, lines.count - done, end + Int64(done))
                if count <= 0 { return count == 0 ? -EIO : Int32(count) }
                done += count
            }
            end += Int64(lines.count)
            return csys_fdatasync(fd)
        }
        guard failed == 0 else {
            throw RepositoryError(
                .local, path, String(cString: strerror(-failed)),
                remedy: "check the state directory")
        }
    }

    /// The run has committed: nothing is left to remember.
    func remove() { LocalFile.remove(path) }

    // MARK: After a crash

    private struct Collector: IndexCodec.Receiver {
        var bundles: [SealedBundle] = []
        private var current: IndexedBundle?
        private var frames: [FrameRecord] = []

        mutating func bundle(_ bundle: IndexedBundle) {
            close()
            current = bundle
        }
        mutating func frame(_ frame: IndexedFrame) {
            frames.append(
                FrameRecord(
                    offset: frame.offset, length: frame.length, raw: frame.raw,
                    fingerprint: frame.fingerprint, chunks: []))
        }
        mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
            frames[frames.count - 1].chunks.append(
                ChunkPlace(id: id, offset: offset, length: length))
        }
        mutating func segment(_ id: ChunkID, bundles: [BundleID]) {}

        mutating func close() {
            if let current {
                bundles.append(
                    SealedBundle(
                        id: current.id, kind: current.kind, size: current.size,
                        plain: current.plain, md5: current.md5,
                        frames: frames))
            }
            current = nil
            frames = []
        }
    }

    /// Bundles that dead runs of this host name, and the files to remove once they are indexed. A
    /// journal cut short counts as far as it goes.
    static func leftBehind(_ repository: Repository) -> (bundles: [SealedBundle], paths: [String]) {
        var bundles: [SealedBundle] = []
        var paths: [String] = []
        let folder = folder(repository)
        for name in LocalFile.names(in: folder) where name.hasSuffix(".journal") {
            let path = folder + "/" + name
            let fd = csys_open(path, O_RDWR | CSYS_O_CLOEXEC, 0)
            guard fd >= 0 else { continue }
            defer { _ = csys_close(fd) }
            // A living run holds the lock.
            guard csys_try_lock(fd) == 0 else { continue }
            paths.append(path)
            guard let bytes = try? LocalFile.read(path, maximumBytes: 1 << 30) else { continue }
            var whole = bytes
            while let last = whole.last, last != 0x0A { whole.removeLast() }
            var collector = Collector()
            _ = whole.withUnsafeBytes { IndexCodec.read($0, into: &collector) }
            collector.close()
            bundles += collector.bundles
        }
        return (bundles, paths)
    }
}
