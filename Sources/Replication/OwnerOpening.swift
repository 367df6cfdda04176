package import SnapshotRepository

/// A repository that is being opened with its owner's passphrase on a thread of its own: that takes
/// half a second of one core, and a verb may have other things to do meanwhile.
package final class OwnerOpening: Sendable {
    private let outcome = Monitored<Result<Repository, any Error>?>(nil)
    private let thread: WorkThread

    package init(_ open: @escaping @Sendable () throws -> Repository) {
        let outcome = outcome
        thread = WorkThread {
            let result = Result { try open() }
            outcome.change { $0 = result }
        }
    }

    var isOver: Bool { outcome.read { $0 != nil } }

    /// Waits for the repository, or for why it could not be opened.
    func repository() throws -> Repository { try outcome.wait { $0 }.get() }
}
