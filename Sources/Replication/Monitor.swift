package import Synchronization

/// Counts that a verb keeps while it runs; whoever shows progress looks at them whenever it likes.
/// Never waited for.
package final class ProgressCounts: Sendable {
    package let entries = Atomic<Int>(0)
    package let bytes = Atomic<Int>(0)
    package let storedBytes = Atomic<Int>(0)
    package let problems = Atomic<Int>(0)
    /// Stored bytes of finished bundles that are on their way to a store, or wait for it.
    package let spooledBytes = Atomic<Int>(0)
    /// Threads that wait because the spool is full: reading goes on when the store has taken a bundle.
    package let waitingForStore = Atomic<Int>(0)
    /// Expected totals; 0 while unknown.
    package let entriesExpected = Atomic<Int>(0)
    package let bytesExpected = Atomic<Int>(0)
    package init() {}
}

/// What became of one path.
package enum PathEvent: String, Sendable {
    case new, changed, touched, metadata, unchanged, removed, excluded, moved
    case restored, kept, deleted, verified
}

/// Receives what happens while a verb runs: sideways, never back into the flow. Called from any
/// thread.
package protocol Monitor: Sendable {
    var counts: ProgressCounts { get }
    /// A new part of the work begins.
    func phase(_ name: String)
    /// One path has been dealt with; only where `wantsPaths`.
    func path(_ path: [UInt8], _ event: PathEvent)
    var wantsPaths: Bool { get }
    /// One file that is not whole; the verb goes on.
    func problem(_ path: [UInt8], kind: String, message: String)
    /// Something the user should know that is no problem.
    func note(_ text: String)
}

package final class SilentMonitor: Monitor {
    package let counts = ProgressCounts()
    package let wantsPaths = false
    package init() {}
    package func phase(_ name: String) {}
    package func path(_ path: [UInt8], _ event: PathEvent) {}
    package func problem(_ path: [UInt8], kind: String, message: String) {}
    package func note(_ text: String) {}
}

/// Asks long work to stop; looked at between files and frames.
package final class Cancellation: Sendable {
    private let flag = Atomic<Bool>(false)
    package init() {}
    package func cancel() { flag.store(true, ordering: .relaxed) }
    package var isCancelled: Bool { flag.load(ordering: .relaxed) }
    package func check() throws(ReplicationError) { if isCancelled { throw .interrupted } }
}
