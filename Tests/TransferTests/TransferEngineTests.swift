import CSystem
import Glibc
import Synchronization
import TestSupport
import Testing
import Transfer

@Suite("Requests over the engine")
struct TransferEngineTests {
    private let engine = TransferEngine()

    // MARK: - What goes out

    @Test("A request arrives as it was made, its address untouched")
    func verbatim() throws {
        let server = ScriptedServer { request in
            let said = request.headers.map { "\($0.name)=\($0.value)" }.joined(separator: "\n")
            return [.send(ScriptedServer.answer(200, [], "\(request.target)\n\(said)"))]
        }
        let target = "/a/../b//c/./%C3%A9%2B+?z=1&a=%20&empty"
        let response = try engine.perform(
            TransferRequest(
                "GET", server.url + target,
                headers: [("X-One", "1"), ("X-Empty", ""), ("x-one", "2")]))
        let said = String(decoding: response.body, as: UTF8.self).split(separator: "\n")
        #expect(said.first == Substring(target))
        #expect(said.contains("X-One=1"))
        #expect(said.contains("x-one=2"))
        #expect(said.contains("X-Empty="))
        #expect(!said.contains { $0.lowercased().hasPrefix("expect") })
        #expect(response.status == 200)
    }

    @Test(
        "A body goes out whole, with its length",
        arguments: [0, 1, 65_536, 3_000_001], ["PUT", "POST"])
    func bodies(size: Int, method: String) throws {
        let server = ScriptedServer { request in
            let length = request["Content-Length"] ?? "none"
            return [
                .send(
                    ScriptedServer.answer(
                        201, ["X-Method: \(request.method)", "X-Length: \(length)"], request.body))
            ]
        }
        let bytes = pattern(size)
        let directory = TemporaryDirectory.inMemory()
        directory.write([1, 2, 3] + bytes + [4], to: "file")
        let file = csys_open(directory.path("file"), O_RDONLY, 0)
        defer { _ = csys_close(file) }
        for body in [
            TransferRequest.Body.bytes(bytes), .file(descriptor: file, offset: 3, length: size),
        ] {
            let response = try engine.perform(
                TransferRequest(
                    method, server.url, body: body, sink: .collect(maximumBytes: size)))
            #expect(response.status == 201)
            #expect(response.headers["x-method"] == method)
            #expect(response.headers["x-length"] == "\(size)")
            #expect(response.body == bytes)
            #expect(response.traffic.bytesSent == size)
            #expect(response.traffic.bytesReceived == size)
        }
    }

    @Test("A request without a body says nothing of one", arguments: ["GET", "HEAD", "DELETE"])
    func noBody(method: String) throws {
        let server = ScriptedServer { request in
            let said = "\(request.method) \(request["Content-Length"] ?? "none")"
            return [.send(ScriptedServer.answer(204, ["X-Said: \(said)"]))]
        }
        let response = try engine.perform(TransferRequest(method, server.url))
        #expect(response.headers["x-said"] == "\(method) none")
        #expect(response.traffic.requests == 1)
    }

    @Test("What could smuggle a second header is refused before anything is sent")
    func headerInjection() {
        let server = ScriptedServer { _ in [.send(ScriptedServer.answer(200))] }
        for value in ["a\r\nX-Evil: 1", "a\nb", "a\u{0}b"] {
            #expect(
                fails(.invalidRequest) {
                    try engine.perform(
                        TransferRequest("GET", server.url, headers: [("X-Value", value)]))
                })
        }
        #expect(
            fails(.invalidRequest) {
                try engine.perform(TransferRequest("GET", server.url + "/a b"))
            })
        #expect(
            fails(.invalidRequest) {
                try engine.perform(TransferRequest("GET", "file:///etc/passwd"))
            })
        #expect(server.requests == 0)
    }

    @Test("A file that is shorter than was said is an error, not a short object")
    func shortFile() throws {
        let server = ScriptedServer { _ in [.send(ScriptedServer.answer(200))] }
        let directory = TemporaryDirectory.inMemory()
        directory.write(pattern(1_000), to: "file")
        let file = csys_open(directory.path("file"), O_RDONLY, 0)
        defer { _ = csys_close(file) }
        #expect(
            fails(.file) {
                try engine.perform(
                    TransferRequest(
                        "PUT", server.url, body: .file(descriptor: file, offset: 0, length: 1_001)))
            })
    }

    // MARK: - What comes back

    @Test("An answer's status is for the caller to judge", arguments: [200, 204, 301, 404, 503])
    func statuses(status: Int) throws {
        let server = ScriptedServer { _ in
            [.send(ScriptedServer.answer(status, ["Location: http://127.0.0.1:1/"]))]
        }
        let response = try engine.perform(TransferRequest("GET", server.url))
        #expect(response.status == status)
        #expect(response.isSuccess == (status < 300))
        #expect(server.requests == 1)
    }

    @Test("Of several answers the last one counts")
    func interimAnswers() throws {
        let server = ScriptedServer { _ in
            let interim = Array("HTTP/1.1 103 Early Hints\r\nX-Early: yes\r\n\r\n".utf8)
            return [.send(interim + ScriptedServer.answer(200, ["X-Late: yes"], "done"))]
        }
        let response = try engine.perform(TransferRequest("GET", server.url))
        #expect(response.status == 200)
        #expect(response.headers["x-early"] == nil)
        #expect(response.headers["x-late"] == "yes")
        #expect(response.body == Array("done".utf8))
    }

    @Test("An answer longer than accepted is refused, whether it says its length or not")
    func bounded() throws {
        let server = ScriptedServer { request in
            if request.target == "/counted" {
                return [.send(ScriptedServer.answer(200, [], pattern(5_001)))]
            }
            let chunk = Array("1389\r\n".utf8) + pattern(5_001) + Array("\r\n0\r\n\r\n".utf8)
            return [
                .send(Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".utf8) + chunk)
            ]
        }
        for path in ["/counted", "/chunked"] {
            var request = TransferRequest("GET", server.url + path)
            request.sink = .collect(maximumBytes: 5_001)
            #expect(try engine.perform(request).body == pattern(5_001))
            request.sink = .collect(maximumBytes: 5_000)
            #expect(fails(.tooLarge) { try engine.perform(request) })
        }
    }

    @Test("Of a long explanation only the beginning is kept")
    func explanations() throws {
        let server = ScriptedServer { _ in
            [.send(ScriptedServer.answer(500, [], pattern(200_000)))]
        }
        let response = try engine.perform(
            TransferRequest("GET", server.url, sink: .collect(maximumBytes: 10)))
        #expect(response.status == 500)
        #expect(response.body == Array(pattern(200_000).prefix(64 << 10)))
    }

    @Test("A range is taken from whatever part of the resource the answer is")
    func ranges() throws {
        let whole = pattern(10_000)
        let server = ScriptedServer { request in
            let range = request["Range"]
            guard range == "bytes=100-299" else {
                return [.send(ScriptedServer.answer(400, [], "\(range ?? "no range")"))]
            }
            let (status, part): (Int, Range<Int>?) =
                switch request.target {
                case "/exact": (206, 100..<300)
                case "/ok": (200, 100..<300)
                case "/more": (206, 50..<400)
                case "/short": (206, 100..<150)
                case "/behind": (206, 101..<300)
                case "/unnamed": (206, nil)
                default: (200, nil)
                }
            let header = part.map {
                "Content-Range: bytes \($0.lowerBound)-\($0.upperBound - 1)/10000"
            }
            return [
                .send(
                    ScriptedServer.answer(
                        status, header.map { [$0] } ?? [], Array(whole[part ?? 0..<10_000])))
            ]
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 200, alignment: 8)
        defer { buffer.deallocate() }
        func read(_ path: String) throws -> ArraySlice<UInt8> {
            buffer.initializeMemory(as: UInt8.self, repeating: 0xee)
            let response = try engine.perform(
                TransferRequest("GET", server.url + path, sink: .range(100..<300, into: buffer)))
            #expect(response.isSuccess)
            return Array(buffer)[..<response.bytesInBuffer]
        }
        for path in ["/exact", "/ok", "/more", "/ignored"] {
            #expect(try read(path) == whole[100..<300].prefix(200), "\(path)")
        }
        #expect(try read("/short").elementsEqual(whole[100..<150]))
        for path in ["/behind", "/unnamed"] {
            #expect(fails(.protocolViolation) { try read(path) })
        }
    }

    // MARK: - Connections

    @Test("Connections are kept and used again")
    func reuse() throws {
        let server = ScriptedServer { _ in [.send(ScriptedServer.answer(200, [], "x"))] }
        for _ in 0..<20 { _ = try engine.perform(TransferRequest("GET", server.url)) }
        #expect(server.requests == 20)
        #expect(server.connections == 1)
    }

    @Test("Many threads are served at once, and each gets its own answer")
    func threads() {
        let server = ScriptedServer { request in
            [.send(ScriptedServer.answer(200, [], request.body))]
        }
        let engine = engine
        let wrong = Atomic<Int>(0)
        runThreads(16) { worker in
            for index in 0..<50 {
                let bytes = Array("\(worker) \(index) ".utf8) + pattern(index * 997)
                let response = try? engine.perform(
                    TransferRequest("PUT", server.url, body: .bytes(bytes)))
                if response?.body != bytes { wrong.add(1, ordering: .relaxed) }
            }
        }
        #expect(wrong.load(ordering: .relaxed) == 0)
        #expect(server.requests == 800)
        #expect(server.connections <= 16)
    }

    @Test("No more requests are under way at a host than allowed")
    func connectionLimit() {
        var options = TransferEngine.Options()
        options.connectionsPerHost = 3
        let engine = TransferEngine(options)
        let atOnce = Mutex((now: 0, most: 0))
        let server = ScriptedServer { _ in
            atOnce.withLock { counts in
                counts.now += 1
                counts.most = max(counts.most, counts.now)
            }
            // Long enough for another request to arrive, if one could.
            usleep(2_000)
            atOnce.withLock { $0.now -= 1 }
            return [.send(ScriptedServer.answer(200))]
        }
        runThreads(12) { _ in
            for _ in 0..<5 { _ = try? engine.perform(TransferRequest("GET", server.url)) }
        }
        #expect(server.requests == 60)
        #expect(atOnce.withLock { $0.most } <= 3)
        #expect(server.connections <= 3)
    }

    @Test("A kept connection that has died is replaced, body and all")
    func deadConnection() throws {
        let server = ScriptedServer { request in
            let answer = ScriptedServer.Step.send(ScriptedServer.answer(200, [], request.body))
            return request.target == "/last" ? [answer, .close] : [answer]
        }
        let bytes = pattern(300_000)
        for path in ["/last", "/", "/last", "/last", "/"] {
            let response = try engine.perform(
                TransferRequest("PUT", server.url + path, body: .bytes(bytes)))
            #expect(response.body == bytes)
        }
    }

    @Test("A request that a dying connection swallowed is sent again, and counted again")
    func swallowed() throws {
        let server = ScriptedServer { request in
            request.number == 2 ? [.close] : [.send(ScriptedServer.answer(200, [], request.body))]
        }
        let bytes = pattern(300_000)
        let request = TransferRequest("PUT", server.url, body: .bytes(bytes))
        #expect(try engine.perform(request).traffic.requests == 1)
        let response = try engine.perform(request)
        #expect(response.body == bytes)
        #expect(response.traffic.requests == 2)
        #expect(response.traffic.bytesSent == 600_000)
        #expect(server.requests == 3)
    }

    // MARK: - What goes wrong

    @Test("Nobody at the address, or no such address, is told apart and may pass")
    func unreachable() throws {
        let unused = ScriptedServer { _ in [] }.port
        let connect = try #require(
            error {
                try engine.perform(TransferRequest("GET", "http://127.0.0.1:\(unused)/"))
            })
        #expect(connect.kind == .connect && connect.isTransient)
        #expect(connect.traffic.requests == 0)
        let resolve = try #require(
            error {
                try engine.perform(TransferRequest("GET", "http://nobody.invalid/"))
            })
        #expect(resolve.kind == .resolve && resolve.isTransient)
        #expect(resolve.text.contains("nobody.invalid"))
        // libcurl answers otherwise where it is asked for the same name again.
        for _ in 0..<3 {
            let again = try #require(
                error {
                    try engine.perform(TransferRequest("GET", "http://nobody.invalid/"))
                })
            #expect(again.kind == .resolve && again.isTransient)
            #expect(again.text.contains("resolve"), "\(again.text)")
        }
    }

    @Test(
        "A connection that ends before its answer is an error that may pass",
        arguments: Cut.allCases)
    func cut(cut: Cut) throws {
        let server = ScriptedServer(readsBodies: cut != .resetWhileSending) { _ in cut.steps }
        var request = TransferRequest("GET", server.url)
        if cut == .resetWhileSending { request.body = .bytes(pattern(8_000_000)) }
        let error = try #require(error { try engine.perform(request) })
        #expect(error.isTransient, "\(error.kind) \(error)")
        #expect(error.kind == .reset, "\(error)")
        #expect(error.traffic.requests == 1)
    }

    enum Cut: String, CaseIterable, Sendable {
        case closeAtOnce, resetAtOnce, closeInHead, closeInBody, resetInBody, closeInChunk
        case resetWhileSending

        var steps: [ScriptedServer.Step] {
            let half = Array(ScriptedServer.answer(200, [], pattern(1_000)).dropLast(500))
            let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n12345"
            return switch self {
            case .closeAtOnce: [.close]
            case .resetAtOnce, .resetWhileSending: [.reset]
            case .closeInHead: [.send(Array("HTTP/1.1 200 OK\r\nConte".utf8)), .close]
            case .closeInBody: [.send(half), .close]
            case .resetInBody: [.send(half), .reset]
            case .closeInChunk: [.send(Array(chunked.utf8)), .close]
            }
        }
    }

    @Test("What is no HTTP is a violation of the protocol")
    func nonsense() throws {
        let answers = [
            Array("SSH-2.0-OpenSSH_9.2\r\n".utf8),
            Array("HTTP/1.1 200 OK\r\n".utf8)
                + Array(
                    String(
                        repeating: "X-Filler: \(String(repeating: "x", count: 1_000))\r\n",
                        count: 400
                    ).utf8),
        ]
        for answer in answers {
            let server = ScriptedServer { _ in [.send(answer), .close] }
            let error = try #require(
                error {
                    try engine.perform(TransferRequest("GET", server.url))
                })
            #expect(error.kind == .protocolViolation, "\(error.kind) \(error)")
        }
    }

    @Test("A server that falls silent is given up", arguments: [false, true])
    func stall(inBody: Bool) throws {
        let server = ScriptedServer { _ in
            let half = Array(ScriptedServer.answer(200, [], pattern(1_000)).dropLast(500))
            return inBody ? [.send(half), .hang] : [.hang]
        }
        var request = TransferRequest("GET", server.url)
        request.stallSeconds = 0.3
        let error = try #require(error { try engine.perform(request) })
        #expect(error.kind == .stall && error.isTransient)
        #expect(error.text.contains("0.3 s"))
        #expect(error.traffic.bytesReceived == (inBody ? 500 : 0))
    }

    @Test("A request ends at its deadline however lively it is")
    func deadline() throws {
        let server = ScriptedServer { _ in
            let head = Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".utf8)
            let drop = ScriptedServer.Step.send(Array("1\r\nx\r\n".utf8))
            return [.send(head)] + Array(repeating: drop, count: 100) + [.hang]
        }
        var request = TransferRequest("GET", server.url)
        request.deadlineSeconds = 0.3
        let error = try #require(error { try engine.perform(request) })
        #expect(error.kind == .timeout && error.isTransient)
    }

    @Test("A request waits for its turn no longer than its deadline")
    func deadlineWhileWaiting() throws {
        var options = TransferEngine.Options()
        options.connectionsPerHost = 1
        let engine = TransferEngine(options)
        let isStopped = Atomic<Bool>(false)
        let hasArrived = Atomic<Bool>(false)
        let server = ScriptedServer { _ in
            hasArrived.store(true, ordering: .releasing)
            return [.hang]
        }
        runThreads(2) { worker in
            var request = TransferRequest("GET", server.url)
            if worker == 0 {
                request.isCancelled = { isStopped.load(ordering: .acquiring) }
                #expect(fails(.cancelled) { try engine.perform(request) })
            } else {
                while !hasArrived.load(ordering: .acquiring) { usleep(1_000) }
                request.deadlineSeconds = 0.2
                #expect(fails(.timeout) { try engine.perform(request) })
                isStopped.store(true, ordering: .releasing)
            }
        }
        #expect(server.requests == 1)
    }

    @Test("A running request can be called off, and the engine goes on")
    func cancellation() throws {
        let isStopped = Atomic<Bool>(false)
        let server = ScriptedServer { request in
            if request.target == "/next" { return [.send(ScriptedServer.answer(200))] }
            isStopped.store(true, ordering: .releasing)
            return [.hang]
        }
        var request = TransferRequest("GET", server.url)
        request.isCancelled = { isStopped.load(ordering: .acquiring) }
        #expect(fails(.cancelled) { try engine.perform(request) })
        #expect(try engine.perform(TransferRequest("GET", server.url + "/next")).status == 200)
    }

    // MARK: - Pacing

    @Test("A pacer decides how much flows, and waiting for it is no stall")
    func pacing() throws {
        let bytes = pattern(200_000)
        let server = ScriptedServer { request in
            [.send(ScriptedServer.answer(200, [], request.body))]
        }
        let up = MeteredPacer(bytesPerGrant: 30_000, waitNanoseconds: 40_000_000)
        let down = MeteredPacer(bytesPerGrant: 30_000, waitNanoseconds: 40_000_000)
        var request = TransferRequest("PUT", server.url, body: .bytes(bytes))
        request.uploadPacer = up
        request.downloadPacer = down
        // Shorter than the pacers hold it back in all.
        request.stallSeconds = 0.15
        let response = try engine.perform(request)
        #expect(response.body == bytes)
        #expect(up.granted == bytes.count)
        #expect(down.granted == bytes.count)
        #expect(up.refusals > 0 && down.refusals > 0)
        #expect(response.traffic.secondsPaced > 0.3)
    }

    @Test("A paced request does not hold back the others")
    func pacingIsolated() throws {
        let server = ScriptedServer { request in
            [.send(ScriptedServer.answer(200, [], request.body))]
        }
        let engine = engine
        let isStopped = Atomic<Bool>(false)
        let never = MeteredPacer(bytesPerGrant: 0, waitNanoseconds: 3_600_000_000_000)
        runThreads(2) { worker in
            var request = TransferRequest("PUT", server.url, body: .bytes(pattern(1_000)))
            if worker == 0 {
                request.uploadPacer = never
                request.isCancelled = { isStopped.load(ordering: .acquiring) }
                #expect(fails(.cancelled) { try engine.perform(request) })
            } else {
                while never.refusals == 0 { usleep(1_000) }
                for _ in 0..<20 { #expect((try? engine.perform(request))?.status == 200) }
                isStopped.store(true, ordering: .releasing)
            }
        }
    }

    // MARK: - Helpers

    private func fails<R>(_ kind: TransferError.Kind, _ body: () throws -> R) -> Bool {
        error(body)?.kind == kind
    }

    private func error<R>(_ body: () throws -> R) -> TransferError? {
        do {
            _ = try body()
            return nil
        } catch {
            return error as? TransferError
        }
    }
}

/// Grants so many bytes each time that it is asked after the waiting time is over.
final class MeteredPacer: Pacer {
    private struct State {
        var granted = 0
        var refusals = 0
        var nextGrant: Int64 = 0
    }

    private let bytesPerGrant: Int
    private let waitNanoseconds: Int64
    private let state = Mutex(State())

    init(bytesPerGrant: Int, waitNanoseconds: Int64) {
        self.bytesPerGrant = bytesPerGrant
        self.waitNanoseconds = waitNanoseconds
    }

    var granted: Int { state.withLock { $0.granted } }
    var refusals: Int { state.withLock { $0.refusals } }

    func grant(_ wanted: Int) -> (bytes: Int, waitNanoseconds: Int64) {
        let now = csys_boottime_ns()
        return state.withLock { state in
            guard bytesPerGrant > 0, now >= state.nextGrant else {
                state.refusals += 1
                return (0, bytesPerGrant > 0 ? state.nextGrant - now : waitNanoseconds)
            }
            let bytes = min(wanted, bytesPerGrant)
            state.granted += bytes
            state.nextGrant = now + waitNanoseconds
            return (bytes, 0)
        }
    }
}

/// Bytes that look alike nowhere.
func pattern(_ count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
        for index in 0..<count {
            buffer[index] = UInt8(truncatingIfNeeded: (index &* 2_654_435_761) >> 13)
        }
        filled = count
    }
}

/// Runs `body` on so many threads and waits for all of them.
func runThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    final class Work {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }
    let threads = (0..<count).map { index in
        var thread = pthread_t()
        let work = Unmanaged.passRetained(Work { body(index) })
        let created = pthread_create(
            &thread, nil,
            { work in
                if let work { Unmanaged<Work>.fromOpaque(work).takeRetainedValue().run() }
                return nil
            }, work.toOpaque())
        precondition(created == 0)
        return thread
    }
    for thread in threads { pthread_join(thread, nil) }
}
