import FileTree
import SnapshotModel
import SnapshotRepository
import Synchronization

/// Collects what a restore did and what went wrong, from all its threads.
final class RestoreOutcome: Sendable {
    let monitor: any Monitor
    let files = Atomic<Int>(0)
    let links = Atomic<Int>(0)
    let others = Atomic<Int>(0)
    let kept = Atomic<Int>(0)
    let verified = Atomic<Int>(0)
    let writtenBytes = Atomic<Int>(0)
    let fetchedBytes = Atomic<Int>(0)
    let reusedBytes = Atomic<Int>(0)
    private let stopped = Atomic<Bool>(false)

    private struct State {
        var report = RestoreReport()
        var fatal: ReplicationError?
    }
    private let state = Mutex(State())

    /// - Parameter spoolDirectory: Where the rest of long lists goes; nil drops it.
    init(_ monitor: any Monitor, spoolDirectory: String?) {
        self.monitor = monitor
        guard let spoolDirectory else { return }
        state.withLock { state in
            state.report.furtherProblems = RestoreSpool(in: spoolDirectory)
            state.report.furtherOwnersDenied = RestoreSpool(in: spoolDirectory)
        }
    }

    // MARK: Stopping

    /// Whether the run has failed as a whole: everybody comes home.
    var isStopped: Bool { stopped.load(ordering: .relaxed) }

    /// Ends the run; the first reason counts.
    func stop(_ error: ReplicationError) {
        state.withLock { if $0.fatal == nil { $0.fatal = error } }
        stopped.store(true, ordering: .relaxed)
    }

    func check() throws(ReplicationError) {
        guard isStopped, let fatal = state.withLock({ $0.fatal }) else { return }
        throw fatal
    }

    // MARK: Trouble

    func problem(_ path: [UInt8], kind: String = "restore", _ message: String) {
        monitor.counts.problems.wrappingAdd(1, ordering: .relaxed)
        monitor.problem(path, kind: kind, message: message)
        state.withLock { state in
            state.report.problemCount += 1
            let problem = RestoreReport.Problem(path: path, kind: kind, message: message)
            if state.report.problems.count < RestoreReport.listed {
                state.report.problems.append(problem)
            } else {
                state.report.furtherProblems?.append(problem.document)
            }
        }
    }

    /// No problem: what an ordinary user restores belongs to that user.
    private func ownerDenied(_ path: [UInt8], _ uid: UInt32, _ gid: UInt32) {
        state.withLock { state in
            state.report.ownersDeniedCount += 1
            let denied = RestoreReport.DeniedOwner(path: path, uid: uid, gid: gid)
            if state.report.ownersDenied.count < RestoreReport.listed {
                state.report.ownersDenied.append(denied)
            } else {
                state.report.furtherOwnersDenied?.append(denied.document)
            }
        }
    }

    func problems(_ found: [MetadataWriterProblem]) {
        for item in found {
            if case .ownerDenied(let uid, let gid) = item.aspect {
                ownerDenied(item.path, uid, gid)
            } else {
                problem(item.path, kind: "metadata", item.message)
            }
        }
    }

    /// A file that this user or this file system refuses; a full or read-only file system ends the
    /// run instead.
    func problem(_ path: [UInt8], _ error: FileTreeError) {
        if error.kind == .noSpace || error.kind == .readOnly {
            stop(
                ReplicationError(
                    .files, UTF8Text.display(error.path), error.description,
                    remedy: Self.remedy(error.kind)))
        } else {
            problem(path, error.message(after: path))
        }
    }

    private static func remedy(_ kind: FileTreeError.Kind) -> String {
        let first =
            kind == .noSpace
            ? "make room on the target's file system" : "mount the target's file system writable"
        return
            "what was restored stays: \(first), then run the same command with --if-exists replace, which goes on from there"
    }

    /// Damage that costs one file, or names of files; a wrong key or a store that is away ends the
    /// run instead.
    func damage(_ path: [UInt8], _ error: RepositoryError, object: String = "") {
        if Self.concernsAll(error) {
            stop(ReplicationError(error))
        } else {
            damage(path, object: object.isEmpty ? error.subject : object, error.message)
        }
    }

    static func concernsAll(_ error: RepositoryError) -> Bool {
        error.kind == .wrongKey || error.isTransient || error.kind == .local
    }

    func damage(_ path: [UInt8], object: String, _ message: String) {
        monitor.counts.problems.wrappingAdd(1, ordering: .relaxed)
        let said =
            object.isEmpty || message.contains(object) ? message : "\(object): \(message)"
        monitor.problem(path, kind: "damaged", message: said)
        state.withLock { state in
            state.report.damagedCount += 1
            guard state.report.damaged.count < RestoreReport.listed else { return }
            state.report.damaged.append(
                RestoreReport.Damage(object: object, path: path, message: message))
        }
    }

    /// Whether a file that damage has cost is the one that is asked for.
    func isDamaged(_ isWanted: ([UInt8]) -> Bool) -> Bool {
        state.withLock { state in state.report.damaged.contains { isWanted($0.path) } }
    }

    func note(_ text: String) {
        monitor.note(text)
        state.withLock { $0.report.notes.append(text) }
    }

    // MARK: Successes

    func directory(isNew: Bool) {
        monitor.counts.entries.wrappingAdd(1, ordering: .relaxed)
        if isNew { state.withLock { $0.report.directories += 1 } }
    }

    func removed(_ relative: [UInt8]) {
        if monitor.wantsPaths { monitor.path(relative, .deleted) }
        state.withLock { state in
            state.report.removed += 1
            if state.report.removedPaths.count < RestoreReport.listed {
                state.report.removedPaths.append(relative)
            }
        }
    }

    func kept(_ path: [UInt8]) {
        kept.wrappingAdd(1, ordering: .relaxed)
        finished(path, .kept)
    }

    func restored(_ path: [UInt8], _ kind: EntryKind) {
        switch kind {
        case .file: files.wrappingAdd(1, ordering: .relaxed)
        case .symlink: links.wrappingAdd(1, ordering: .relaxed)
        default: others.wrappingAdd(1, ordering: .relaxed)
        }
        finished(path, .restored)
    }

    func linked(_ path: [UInt8]) {
        links.wrappingAdd(1, ordering: .relaxed)
        finished(path, .restored)
    }

    /// A name that was kept became one of the file that the snapshot links it to.
    func joined() { links.wrappingAdd(1, ordering: .relaxed) }

    private func finished(_ path: [UInt8], _ event: PathEvent) {
        monitor.counts.entries.wrappingAdd(1, ordering: .relaxed)
        if monitor.wantsPaths { monitor.path(path, event) }
    }

    func wrote(_ bytes: Int) {
        writtenBytes.wrappingAdd(bytes, ordering: .relaxed)
        monitor.counts.bytes.wrappingAdd(bytes, ordering: .relaxed)
    }

    var report: RestoreReport {
        var report = state.withLock { $0.report }
        report.files = files.load(ordering: .relaxed)
        report.links = links.load(ordering: .relaxed)
        report.others = others.load(ordering: .relaxed)
        report.kept = kept.load(ordering: .relaxed)
        report.verified = verified.load(ordering: .relaxed)
        report.writtenBytes = writtenBytes.load(ordering: .relaxed)
        report.fetchedBytes = fetchedBytes.load(ordering: .relaxed)
        report.reusedBytes = reusedBytes.load(ordering: .relaxed)
        return report
    }
}
