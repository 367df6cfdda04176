import CSystem
import Glibc
import SnapshotModel
import SnapshotRepository

/// What this host keeps of its prunes of one store: which snapshots it has seen there, and which
/// delete phases it has begun.
struct PruneMemory {
    private let folder: String
    private var snapshotsPath: String { folder + "/snapshots" }

    init(_ repository: Repository) { folder = repository.statePath + "/prune" }

    // MARK: Snapshots

    /// Where the list lies, for whoever has to set it right.
    var path: String { snapshotsPath }

    func knownSnapshots() throws(RepositoryError) -> [SnapshotID] {
        guard let bytes = try LocalFile.read(snapshotsPath) else { return [] }
        return bytes.split(separator: 0x0A).compactMap {
            SnapshotID(String(decoding: $0, as: UTF8.self))
        }
    }

    func note(_ snapshots: some Sequence<SnapshotID>) throws(RepositoryError) {
        var text = ""
        for id in snapshots { text += "\(id)\n" }
        try LocalFile.write(Array(text.utf8), to: snapshotsPath)
    }

    func forgetSnapshots() { LocalFile.remove(snapshotsPath) }

    // MARK: Delete phases

    /// A delete phase of this process: a locked file as long as the process lives, so that the
    /// next one on this host can tell that the phase is over.
    final class Phase {
        private let path: String
        private let fd: Int32

        fileprivate init(path: String) throws(RepositoryError) {
            self.path = path
            fd = csys_open(path, O_RDWR | O_CREAT | CSYS_O_CLOEXEC, 0o600)
            guard fd >= 0 else {
                throw RepositoryError(
                    .local, path, String(cString: strerror(-fd)),
                    remedy: "check the state directory")
            }
            _ = csys_try_lock(fd)
        }

        deinit { _ = csys_close(fd) }

        /// Its record has gone.
        func forget() { LocalFile.remove(path) }
    }

    func begin(_ record: RecordName) throws(RepositoryError) -> Phase {
        try LocalFile.makeDirectory(folder)
        return try Phase(path: "\(folder)/\(record.text).phase")
    }

    /// Whether this host began the phase and the process that did has died.
    func isOver(_ record: RecordName) -> Bool {
        let fd = csys_open("\(folder)/\(record.text).phase", O_RDWR | CSYS_O_CLOEXEC, 0)
        guard fd >= 0 else { return false }
        defer { _ = csys_close(fd) }
        return csys_try_lock(fd) == 0
    }

    /// Removes the files of phases whose records have gone.
    func keep(_ records: some Sequence<RecordName>) {
        let names = Set(records.map { "\($0.text).phase" })
        for file in LocalFile.names(in: folder)
        where file.hasSuffix(".phase") && !names.contains(file) {
            let path = "\(folder)/\(file)"
            let fd = csys_open(path, O_RDWR | CSYS_O_CLOEXEC, 0)
            guard fd >= 0 else { continue }
            if csys_try_lock(fd) == 0 { LocalFile.remove(path) }
            _ = csys_close(fd)
        }
    }
}
