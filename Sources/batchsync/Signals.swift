import CSystem
import Glibc
import Replication
import Synchronization

/// SIGINT, SIGTERM and SIGHUP: the first asks the verb to stop cleanly, the second ends the program at
/// once. So does the first where nothing is under way that has to be brought to an end.
enum Signals {
    /// Asks the running verb to stop. One for the process: a command runs one verb.
    static let cancellation = Cancellation()
    private static let received = Atomic<Int32>(0)
    private static let stopsCleanly = Atomic<Bool>(false)
    private static let echoIsOff = Atomic<Bool>(false)

    /// Installs the handlers. Before any thread is made.
    static func install() {
        // Each of them is made here and not in a handler, where making it could wait for itself.
        _ = received.load(ordering: .relaxed)
        _ = stopsCleanly.load(ordering: .relaxed)
        _ = echoIsOff.load(ordering: .relaxed)
        _ = cancellation.isCancelled
        handle(SIGINT) { Signals.arrived($0) }
        handle(SIGTERM) { Signals.arrived($0) }
        // A terminal or a connection that was closed.
        handle(SIGHUP) { Signals.arrived($0) }
        // A handler and not SIG_IGN, which programs that are started would inherit.
        handle(SIGPIPE) { _ in }
    }

    private static func handle(_ number: Int32, _ handler: @escaping @convention(c) (Int32) -> Void)
    {
        var action = sigaction()
        // Whoever started this program with the signal ignored (nohup, a shell's background job)
        // wants it so.
        if sigaction(number, nil, &action) == 0, number != SIGPIPE,
            unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
                == unsafeBitCast(SIG_IGN, to: Int.self)
        {
            return
        }
        action = sigaction()
        action.__sigaction_handler.sa_handler = handler
        action.sa_flags = SA_RESTART
        sigaction(number, &action, nil)
    }

    /// Runs in the handler: only what is safe there.
    private static func arrived(_ number: Int32) {
        let before = received.exchange(number, ordering: .sequentiallyConsistent)
        if before == 0, stopsCleanly.load(ordering: .relaxed) {
            cancellation.cancel()
            return
        }
        if echoIsOff.load(ordering: .relaxed) { _ = csys_terminal_echo(0, 1) }
        _exit(128 + number)
    }

    /// From now on the first signal only asks.
    static func stopCleanly() { stopsCleanly.store(true, ordering: .relaxed) }

    /// Whether the user or the system has asked the verb to stop.
    static var haveArrived: Bool { received.load(ordering: .relaxed) != 0 }

    /// The code for a verb that was asked to stop and did.
    static var statusOfInterruption: ExitStatus {
        received.load(ordering: .relaxed) == SIGINT ? .interrupted : .terminated
    }

    /// Runs `body` with the terminal's echo off, and on again however it ends.
    static func withoutEcho<Value>(_ body: () throws -> Value) rethrows -> Value {
        echoIsOff.store(true, ordering: .sequentiallyConsistent)
        let was = csys_terminal_echo(0, 0)
        defer {
            if was > 0 { _ = csys_terminal_echo(0, 1) }
            echoIsOff.store(false, ordering: .sequentiallyConsistent)
        }
        return try body()
    }

    /// Ends like a program that writes into a closed pipe and did not expect it: quietly.
    static func endOfPipe() -> Never {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = SIG_DFL
        sigaction(SIGPIPE, &action, nil)
        raise(SIGPIPE)
        _exit(128 + SIGPIPE)
    }
}
