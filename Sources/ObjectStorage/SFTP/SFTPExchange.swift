import Glibc

/// The requests that one thread has on their way over one connection, and their answers.
///
/// Answers are taken in the order in which they come, which need not be that of the requests; the
/// tag of a request says which it belongs to. Before an exchange ends it waits for every answer
/// that is still due (`finish`), since data may still be on their way into a buffer of its caller.
final class SFTPExchange: @unchecked Sendable {
    // Sendable: what changes is touched only while the mutex is held.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var answers: [(tag: Int, reply: SFTPReply)] = []
    private var taken = 0
    private var due = 0
    private var failure: SSHFailure?
    let connection: SFTPConnection

    init(over connection: SFTPConnection) {
        self.connection = connection
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    // MARK: - Asking

    /// Sends a request whose answer `next` will give.
    func send(
        _ request: SFTPRequest, tag: Int = 0,
        body: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
        into buffer: UnsafeMutableRawBufferPointer? = nil
    ) throws(SFTPFailure) {
        try connection.send(request, for: self, tag: tag, body: body, into: buffer)
    }

    /// Sends a request whose answer nobody needs. Never fails: what it would have done is done
    /// again, or not at all, by whoever comes next.
    func sendAndForget(_ request: SFTPRequest) {
        try? connection.send(request, for: nil)
    }

    /// Sends one request and waits for its answer. No other must be due.
    func ask(_ request: SFTPRequest) throws(SFTPFailure) -> SFTPReply {
        try send(request)
        return try next().reply
    }

    /// Sends all of `requests` and gives their answers in the same order. No other must be due.
    func ask(all requests: [SFTPRequest]) throws(SFTPFailure) -> [SFTPReply] {
        for (tag, request) in requests.enumerated() { try send(request, tag: tag) }
        var replies = [SFTPReply?](repeating: nil, count: requests.count)
        for _ in requests {
            let (tag, reply) = try next()
            replies[tag] = reply
        }
        return replies.compactMap { $0 }
    }

    /// Waits for the next answer.
    ///
    /// - Throws: `.lost` where the connection ended before it came.
    func next() throws(SFTPFailure) -> (tag: Int, reply: SFTPReply) {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while taken == answers.count {
            if let failure { throw .lost(failure) }
            precondition(due > 0, "nobody was asked anything")
            pthread_cond_wait(condition, mutex)
        }
        let answer = answers[taken]
        taken += 1
        if taken == answers.count {
            answers.removeAll(keepingCapacity: true)
            taken = 0
        }
        return answer
    }

    /// Waits until `next` can answer at once, for so long at most. False where it cannot yet.
    func waitForNext(milliseconds: Int64) -> Bool {
        wait(milliseconds) { taken < answers.count || failure != nil }
    }

    /// Waits until no answer is due any more, for so long at most. False where one still is.
    func waitForAll(milliseconds: Int64) -> Bool { wait(milliseconds) { due == 0 } }

    private func wait(_ milliseconds: Int64, until isReached: () -> Bool) -> Bool {
        let end = monotonicNanoseconds() + milliseconds * 1_000_000
        var time = timespec(
            tv_sec: Int(end / 1_000_000_000), tv_nsec: Int(end % 1_000_000_000))
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while !isReached() {
            if pthread_cond_timedwait(condition, mutex, &time) == ETIMEDOUT { return isReached() }
        }
        return true
    }

    /// Answers that have not been taken, those still on their way included.
    var outstanding: Int {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return due + answers.count - taken
    }

    /// Waits until no answer is due any more and throws away what came.
    func finish() {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while due > 0 { pthread_cond_wait(condition, mutex) }
        answers.removeAll()
        taken = 0
    }

    // MARK: - What the connection tells

    func willBeAnswered() {
        pthread_mutex_lock(mutex)
        due += 1
        pthread_mutex_unlock(mutex)
    }

    func answered(_ tag: Int, _ reply: SFTPReply) {
        pthread_mutex_lock(mutex)
        due -= 1
        answers.append((tag, reply))
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }

    func broken(_ failure: SSHFailure) {
        pthread_mutex_lock(mutex)
        due -= 1
        self.failure = failure
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }
}
