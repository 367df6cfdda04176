import ObjectStorage
import Synchronization

/// What the wrappers of a store have to tell, as a person reads it.
///
/// Many calls fail together when a line is cut. One line says so, then one each half minute.
enum StoreEventText {
    private struct State {
        var isWaiting = false
        var lastSaid = 0.0
        var waited = 0.0
    }

    private static let state = Mutex(State())
    private static let listener = Mutex<(@Sendable (String) -> Void)?>(nil)
    private static let seconds = 30.0

    /// What is said from now on is told to `body` as well.
    static func listen(_ body: @escaping @Sendable (String) -> Void) {
        listener.withLock { $0 = body }
    }

    static func tell(_ event: StoreEvent) {
        let line: String? = state.withLock { state in
            switch event {
            case .retrying(let error, _, let wait):
                // What succeeds at the second attempt is nobody's business.
                state.waited += wait
                guard wait >= 2 || state.waited >= 2 else { return nil }
                guard !state.isWaiting || state.waited - state.lastSaid >= seconds else {
                    return nil
                }
                state.isWaiting = true
                state.lastSaid = state.waited
                return "\(error.description); trying again"
            case .recovered(_, let failing):
                guard state.isWaiting else {
                    state.waited = 0
                    return nil
                }
                state = State()
                return "the store answers again, after \(TimeText.duration(failing))"
            case .unreachable(let error, let wait, let left):
                state.waited += wait
                guard !state.isWaiting || state.waited - state.lastSaid >= seconds else {
                    return nil
                }
                state.isWaiting = true
                state.lastSaid = state.waited
                return
                    "\(error.description); waiting for it, up to \(TimeText.duration(left)) more"
            case .reachable(let after):
                state = State()
                return "the store answers, after \(TimeText.duration(after))"
            }
        }
        guard let line else { return }
        Console.shared.say("batchsync: \(line)")
        listener.withLock { $0 }?(line)
    }
}

extension TimeText {
    /// A length of time given in seconds.
    static func duration(_ seconds: Double) -> String {
        duration(milliseconds: Int((max(0, seconds) * 1000).rounded()))
    }
}
