import CSystem
import Glibc
import Synchronization

/// The two streams of the command: results on standard output, everything else on standard error.
/// Keeps a progress line out of the way of both.
final class Console: Sendable {
    static let shared = Console()

    let outputIsTerminal: Bool
    let errorIsTerminal: Bool
    /// Width of the terminal that standard output or error is; 0 where there is none.
    let columns: Int
    let usesColour: Bool

    private struct State {
        var output: [UInt8] = []
        var progress = ""
    }
    private let state = Mutex(State())

    private init() {
        var width: Int32 = 0
        var errorWidth: Int32 = 0
        outputIsTerminal = csys_terminal(1, &width) == 1
        errorIsTerminal = csys_terminal(2, &errorWidth) == 1
        columns = Int(width > 0 ? width : errorWidth)
        usesColour =
            outputIsTerminal && RawArguments.environment("NO_COLOR") == nil
            && RawArguments.environment("TERM") != Array("dumb".utf8)
    }

    enum Style: String {
        case bold = "1"
        case dim = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
        case blue = "34"
    }

    /// The text in a colour where standard output shows any.
    func styled(_ text: String, _ style: Style?) -> String {
        guard usesColour, let style, !text.isEmpty else { return text }
        return "\u{1B}[\(style.rawValue)m\(text)\u{1B}[0m"
    }

    // MARK: Results

    /// One line of the result.
    func out(_ line: String = "") { write(Array(line.utf8) + [0x0A]) }

    func write(_ bytes: [UInt8]) {
        state.withLock { state in
            state.output += bytes
            if outputIsTerminal || state.output.count >= 64 << 10 { flush(&state) }
        }
    }

    func flush() { state.withLock { flush(&$0) } }

    private func flush(_ state: inout State) {
        guard !state.output.isEmpty else { return }
        if outputIsTerminal { hide(state) }
        switch Self.put(state.output, to: 1) {
        case 0: break
        case EPIPE: Signals.endOfPipe()
        case let error:
            _ = Self.put(
                Array(
                    "batchsync: cannot write the result: \(String(cString: strerror(error)))\n".utf8
                ), to: 2)
            _exit(ExitStatus.failed.rawValue)
        }
        state.output.removeAll(keepingCapacity: true)
        if outputIsTerminal { show(state) }
    }

    // MARK: Everything else

    /// One line for the person or the log.
    func say(_ line: String) {
        state.withLock { state in
            flush(&state)
            hide(state)
            _ = Self.put(Array(line.utf8) + [0x0A], to: 2)
            show(state)
        }
    }

    /// Replaces the progress line; empty takes it away.
    func progress(_ text: String) {
        guard errorIsTerminal else { return }
        state.withLock { state in
            guard text != state.progress else { return }
            hide(state)
            state.progress = text
            show(state)
        }
    }

    private func hide(_ state: State) {
        guard !state.progress.isEmpty else { return }
        _ = Self.put(Array("\r\u{1B}[K".utf8), to: 2)
    }

    private func show(_ state: State) {
        guard !state.progress.isEmpty else { return }
        _ = Self.put(Array(state.progress.utf8), to: 2)
    }

    /// Writes everything; returns errno where it cannot.
    private static func put(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR || errno == EAGAIN { continue }
                return errno
            }
            rest = rest.dropFirst(count)
        }
        return 0
    }
}
