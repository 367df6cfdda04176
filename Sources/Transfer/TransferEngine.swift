import CSystem
import Glibc
import Synchronization

/// Carries out HTTP requests, many at once, on a thread of its own.
///
/// Any number of threads may call `perform`, each of which blocks until its answer is there.
/// Connections are kept and used again, one pool for everybody who shares the engine. TLS is always
/// verified. Redirects are not followed and no answer is judged by its status: both are the
/// caller's. The thread begins with the first request and ends with the engine.
package final class TransferEngine: Sendable {
    package struct Options: Sendable {
        /// A PEM file of the certificates to trust, instead of those that the system trusts.
        package var caFile: String?
        /// What the program calls itself.
        package var userAgent = "batchsync"
        /// How many requests may be under way at one host, each on a connection of its own; further
        /// ones wait for their turn.
        package var connectionsPerHost = 64
        /// How much is handed to libcurl at once; each upload under way holds as much memory.
        package var uploadBufferBytes = 512 << 10
        package var downloadBufferBytes = 256 << 10

        package init() {}
    }

    private let inbox: TransferInbox

    package init(_ options: Options = Options()) {
        inbox = TransferInbox(options)
    }

    deinit { inbox.close() }

    /// Sends `request` and waits for its answer.
    ///
    /// - Returns: The answer, whatever its status.
    /// - Throws: Where none came, or not all of it.
    package func perform(_ request: TransferRequest) throws(TransferError) -> TransferResponse {
        let transfer = RunningTransfer(request)
        try inbox.submit(transfer)
        return try transfer.wait()
    }
}

/// What the engine's callers and its thread have in common.
final class TransferInbox: Sendable {
    private struct State: ~Copyable {
        var waiting: [RunningTransfer] = []
        var loop: Wakeup?
        var thread: pthread_t?
        var isClosed = false
    }

    /// The one thing of a loop that other threads may touch.
    struct Wakeup: @unchecked Sendable {
        // Sendable: libcurl allows this call from any thread while the handle lives, which the loop
        // sees to by ending only once the inbox is closed.
        let multi: UnsafeMutableRawPointer
    }

    let options: TransferEngine.Options
    private let state = Mutex(State())

    init(_ options: TransferEngine.Options) { self.options = options }

    /// Leaves `transfer` for the thread, which it starts where it does not run yet.
    func submit(_ transfer: RunningTransfer) throws(TransferError) {
        try state.withLock { (state) throws(TransferError) in
            precondition(!state.isClosed, "an engine was asked after its end")
            if state.thread == nil {
                let loop = try TransferLoop(inbox: self)
                state.thread = try start(loop)
                state.loop = Wakeup(multi: loop.multi)
            }
            state.waiting.append(transfer)
            if let loop = state.loop { TransferLoop.wake(loop.multi) }
        }
    }

    /// What has been left since the last time; nil once there will be nothing more.
    func take() -> [RunningTransfer]? {
        state.withLock { state in
            if state.isClosed && state.waiting.isEmpty { return nil }
            let taken = state.waiting
            state.waiting.removeAll(keepingCapacity: true)
            return taken
        }
    }

    /// Ends the thread and waits for it.
    func close() {
        let thread = state.withLock { state in
            state.isClosed = true
            if let loop = state.loop { TransferLoop.wake(loop.multi) }
            return state.thread
        }
        if let thread { pthread_join(thread, nil) }
    }

    private func start(_ loop: TransferLoop) throws(TransferError) -> pthread_t {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(loop)
        let result = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                TransferInbox.blockSignals()
                Unmanaged<TransferLoop>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, context.toOpaque())
        guard result == 0 else {
            context.release()
            throw TransferError(.shortage, "the system has no thread to give", isTransient: true)
        }
        return thread
    }

    /// Signals are for the program's other threads. A connection that breaks raises SIGPIPE in the
    /// thread that writes, and TLS cannot be told not to.
    private static func blockSignals() {
        var all = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, nil)
    }
}
