import Glibc
import Synchronization

/// One SFTP session: many requests on their way at once, from any number of threads.
///
/// A thread of its own receives the answers and hands each to the exchange that asked, by the
/// number of the request; data go straight into the buffer that the request named. When nothing
/// comes and nothing goes for too long while answers are due, or the server sends what is no SFTP,
/// the connection ends, and with it every request that is still open.
final class SFTPConnection: Sendable {
    /// What the server announced, fixed once the connection stands.
    let abilities: SFTPAbilities
    private let process: SSHProcess
    private let requests = Mutex(Requests())
    /// Held while one packet is sent, so that packets do not mix.
    private let sending = Mutex(())
    /// When bytes last went or came, in nanoseconds of the monotonic clock.
    private let lastProgress = Atomic<Int64>(0)
    private let stallSeconds: Int
    /// What every server takes until this one has told what it takes.
    private let knownLimits = Mutex(SFTPLimits())

    private struct Requests {
        var next: UInt32 = 0
        var open: [UInt32: OpenRequest] = [:]
        var failure: SSHFailure?
    }

    /// Who waits for an answer, and where data of it belong.
    private struct OpenRequest: @unchecked Sendable {
        // Sendable: the buffer stays in place until its exchange has been told of the answer or of
        // the end of the connection, and only the receiving thread writes to it until then.
        let asker: Asker
        let buffer: UnsafeMutableRawBufferPointer?
    }

    private enum Asker {
        case exchange(SFTPExchange, tag: Int)
        /// The connection itself, which wants to know the server's limits.
        case limits
        case nobody
    }

    /// Exchanges versions with the server behind `process` and begins to receive.
    ///
    /// - Parameter connectSeconds: How long that may take; a person may be typing a passphrase.
    static func establish(
        over process: SSHProcess, connectSeconds: Int, stallSeconds: Int
    ) throws(SSHFailure) -> SFTPConnection {
        let stream = SFTPStream(process)
        do throws(SFTPStream.End) {
            let abilities = try SFTPAbilities.exchangeVersions(
                over: process, stream, seconds: connectSeconds)
            let connection = SFTPConnection(process, abilities, stallSeconds: stallSeconds)
            connection.startReceiving(from: stream)
            // Nobody waits for the answer: over a long line it would cost the first request a
            // whole round trip.
            if abilities.canTellLimits { try? connection.send(.limits, asker: .limits) }
            return connection
        } catch {
            throw stream.explain(error, process, wasConnected: false, seconds: connectSeconds)
        }
    }

    private init(_ process: SSHProcess, _ abilities: SFTPAbilities, stallSeconds: Int) {
        self.process = process
        self.abilities = abilities
        self.stallSeconds = stallSeconds
    }

    /// Whether it can still be asked anything.
    var isAlive: Bool { requests.withLock { $0.failure == nil } }

    /// Ends it; whoever waits is told. The receiving thread sees to the rest.
    func close() { process.disconnect() }

    /// How many bytes go into one packet.
    var limits: SFTPLimits { knownLimits.withLock { $0 } }

    // MARK: - Asking

    /// Sends a request on behalf of `exchange`, which is told of the answer; of a request without
    /// one nobody wants to know.
    ///
    /// - Parameter body: Sent right behind the request, for writes.
    /// - Parameter buffer: Where data of the answer go; it must stay in place until the answer.
    func send(
        _ request: SFTPRequest, for exchange: SFTPExchange?, tag: Int = 0,
        body: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
        into buffer: UnsafeMutableRawBufferPointer? = nil
    ) throws(SFTPFailure) {
        let asker = exchange.map { Asker.exchange($0, tag: tag) } ?? .nobody
        try send(request, asker: asker, body: body, into: buffer)
    }

    private func send(
        _ request: SFTPRequest, asker: Asker,
        body: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
        into buffer: UnsafeMutableRawBufferPointer? = nil
    ) throws(SFTPFailure) {
        let open = OpenRequest(asker: asker, buffer: buffer)
        let (id, failure) = requests.withLock { requests in
            if let failure = requests.failure { return (UInt32(0), Optional(failure)) }
            // Numbers come round again after four thousand million requests; one that is still
            // open then is left alone.
            while requests.open[requests.next] != nil { requests.next &+= 1 }
            let id = requests.next
            requests.next &+= 1
            requests.open[id] = open
            if case .exchange(let exchange, _) = asker { exchange.willBeAnswered() }
            return (id, nil)
        }
        if let failure { throw .lost(failure) }
        let packet = request.sealed(id: id, bodyBytes: body.count)
        noteProgress()
        let isSent = sending.withLock { _ in
            packet.withUnsafeBytes { process.send($0, body) }
        }
        // The receiving thread finds the end of the connection and tells everybody.
        if isSent { noteProgress() } else { process.disconnect() }
    }

    private func noteProgress() {
        lastProgress.store(monotonicNanoseconds(), ordering: .relaxed)
    }

    // MARK: - Receiving

    private func startReceiving(from stream: SFTPStream) {
        var thread = pthread_t()
        let work = Unmanaged.passRetained(ReceivingThread(connection: self, stream: stream))
        let created = pthread_create(&thread, nil, runReceivingThread, work.toOpaque())
        if created == 0 {
            pthread_detach(thread)
        } else {
            work.release()
            fail(SSHFailure.system(created, "pthread_create"))
        }
    }

    /// What the receiving thread does until the connection ends.
    fileprivate func receiveAll(from stream: SFTPStream) {
        do throws(SFTPStream.End) {
            while true { try receiveAnswer(from: stream) }
        } catch {
            fail(
                stream.explain(error, process, wasConnected: true, seconds: stallSeconds))
        }
    }

    private func receiveAnswer(from stream: SFTPStream) throws(SFTPStream.End) {
        let head = try stream.readHead { self.hasStalled }
        guard let open = requests.withLock({ $0.open[head.id] }) else {
            throw .malformed("an answer to a request that was not made")
        }
        noteProgress()
        let reply: SFTPReply
        if head.kind == SFTPKind.data {
            reply = .data(try receiveData(head, for: open, from: stream))
        } else {
            reply = try stream.readReply(head) { self.hasStalled }
        }
        noteProgress()
        _ = requests.withLock { $0.open.removeValue(forKey: head.id) }
        switch open.asker {
        case .exchange(let exchange, let tag): exchange.answered(tag, reply)
        case .limits:
            // Announced, and then not known or not understood: what every server takes has to do.
            if case .extended(let told) = reply, let limits = try? SFTPLimits(told) {
                knownLimits.withLock { $0 = limits }
            }
        case .nobody: break
        }
    }

    private func receiveData(
        _ head: SFTPStream.Head, for open: OpenRequest, from stream: SFTPStream
    ) throws(SFTPStream.End) -> Int {
        guard head.fieldBytes >= 4, let buffer = open.buffer else {
            throw .malformed("data that were not asked for")
        }
        let count = Int(try stream.readNumber { self.hasStalled })
        guard count > 0, count <= buffer.count, count == head.fieldBytes - 4 else {
            throw .malformed("\(count) bytes of data where \(buffer.count) were asked for")
        }
        let target = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
        try stream.read(into: target) {
            self.hasStalled
        }
        return count
    }

    /// Whether answers are due and nothing has come or gone for too long.
    private var hasStalled: Bool {
        let isWaiting = requests.withLock { !$0.open.isEmpty }
        guard isWaiting else { return false }
        let idle = monotonicNanoseconds() - lastProgress.load(ordering: .relaxed)
        return idle > Int64(stallSeconds) * 1_000_000_000
    }

    private func fail(_ failure: SSHFailure) {
        process.disconnect()
        let left = requests.withLock { requests in
            requests.failure = requests.failure ?? failure
            defer { requests.open = [:] }
            return Array(requests.open.values)
        }
        for open in left {
            if case .exchange(let exchange, _) = open.asker { exchange.broken(failure) }
        }
    }
}

/// Keeps the connection and its stream while its thread runs.
private final class ReceivingThread {
    let connection: SFTPConnection
    let stream: SFTPStream

    init(connection: SFTPConnection, stream: SFTPStream) {
        self.connection = connection
        self.stream = stream
    }
}

private func runReceivingThread(_ work: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let work else { return nil }
    let thread = Unmanaged<ReceivingThread>.fromOpaque(work).takeRetainedValue()
    thread.connection.receiveAll(from: thread.stream)
    return nil
}

/// Nanoseconds of a clock that only goes forward and stands still while the host sleeps.
func monotonicNanoseconds() -> Int64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
}
