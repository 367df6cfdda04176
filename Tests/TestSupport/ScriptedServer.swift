import Glibc
import Synchronization

/// An HTTP server on this host's loopback that answers as a test tells it, rules or no rules.
///
/// Each connection has a thread. All of them are closed when the server goes.
package final class ScriptedServer: Sendable {
    /// A request as it arrived.
    package struct Request: Sendable {
        package let method: String
        /// As it was sent.
        package let target: String
        package let headers: [(name: String, value: String)]
        package let body: [UInt8]
        /// Counts connections from 1.
        package let connection: Int
        /// Counts the requests of all connections from 1.
        package let number: Int

        /// The value of the first header of this name, in whatever case it was sent.
        package subscript(name: String) -> String? {
            headers.first { $0.name.lowercased() == name.lowercased() }?.value
        }
    }

    /// What is done with a connection: one step after another, then the next request is read.
    package enum Step: Sendable {
        case send([UInt8])
        /// Ends the connection in an orderly way.
        case close
        /// Ends it by a reset.
        case reset
        /// Says nothing more until the other side closes the connection.
        case hang
    }

    package typealias Script = @Sendable (Request) -> [Step]

    private let door: Door
    private let thread: pthread_t

    /// - Parameter readsBodies: False where the script answers to the head of a request alone.
    package init(readsBodies: Bool = true, _ script: @escaping Script) {
        let door = Door(readsBodies: readsBodies, script)
        self.door = door
        thread = startThread { door.accept() }
    }

    deinit {
        door.close()
        pthread_join(thread, nil)
    }

    package var url: String { "http://127.0.0.1:\(door.port)" }
    package var port: Int { door.port }
    /// Requests whose head has arrived.
    package var requests: Int { door.requestCount.load(ordering: .acquiring) }
    package var connections: Int { door.connectionCount.load(ordering: .acquiring) }

    /// An answer with a body, its length and further headers.
    package static func answer(
        _ status: Int, _ headers: [String] = [], _ body: [UInt8] = []
    ) -> [UInt8] {
        let head = ["HTTP/1.1 \(status) Said", "Content-Length: \(body.count)"] + headers
        return Array((head.joined(separator: "\r\n") + "\r\n\r\n").utf8) + body
    }

    package static func answer(_ status: Int, _ headers: [String] = [], _ body: String) -> [UInt8] {
        answer(status, headers, Array(body.utf8))
    }
}

/// What the threads of a scripted server share.
private final class Door: Sendable {
    let port: Int
    let requestCount = Atomic<Int>(0)
    let connectionCount = Atomic<Int>(0)
    private let listener: Int32
    private let readsBodies: Bool
    private let script: ScriptedServer.Script
    private let sockets = Mutex<Set<Int32>>([])

    init(readsBodies: Bool, _ script: @escaping ScriptedServer.Script) {
        self.readsBodies = readsBodies
        self.script = script
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = listener
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                precondition(bind(listener, address, length) == 0, "no port can be had")
                precondition(getsockname(listener, address, &length) == 0)
            }
        }
        precondition(listen(listener, 256) == 0)
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    func close() {
        shutdown(listener, Int32(SHUT_RDWR))
        sockets.withLock { sockets in
            for socket in sockets { shutdown(socket, Int32(SHUT_RDWR)) }
        }
    }

    func accept() {
        defer { _ = Glibc.close(listener) }
        while true {
            let socket = Glibc.accept(listener, nil, nil)
            guard socket >= 0 else {
                if errno == EINTR || errno == ECONNABORTED { continue }
                return
            }
            let number = connectionCount.add(1, ordering: .acquiringAndReleasing).newValue
            sockets.withLock { _ = $0.insert(socket) }
            pthread_detach(startThread { self.serve(socket, number) })
        }
    }

    private func serve(_ socket: Int32, _ connection: Int) {
        defer {
            // Under the lock, so that `close` never touches a descriptor that is used anew.
            sockets.withLock { sockets in
                sockets.remove(socket)
                _ = Glibc.close(socket)
            }
        }
        var received: [UInt8] = []
        while let request = read(socket, connection, &received) {
            for step in script(request) {
                switch step {
                case .send(let bytes):
                    guard send(bytes, socket) else { return }
                case .close:
                    return
                case .reset:
                    var linger = linger(l_onoff: 1, l_linger: 0)
                    setsockopt(
                        socket, SOL_SOCKET, SO_LINGER, &linger,
                        socklen_t(MemoryLayout<linger>.size))
                    return
                case .hang:
                    while receive(socket, &received) {}
                    return
                }
            }
        }
    }

    /// Nil where the connection ends before a request does.
    private func read(
        _ socket: Int32, _ connection: Int, _ received: inout [UInt8]
    ) -> ScriptedServer.Request? {
        let separator = Array("\r\n\r\n".utf8)
        var end = received.firstRange(of: separator)
        while end == nil {
            guard receive(socket, &received) else { return nil }
            end = received.firstRange(of: separator)
        }
        guard let end else { return nil }
        let number = requestCount.add(1, ordering: .acquiringAndReleasing).newValue
        let lines = String(decoding: received[..<end.lowerBound], as: UTF8.self)
            .split(separator: "\r\n")
        received.removeSubrange(..<end.upperBound)
        let words = lines[0].split(separator: " ")
        let headers = lines.dropFirst().map { line in
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let value = parts.count > 1 ? parts[1].drop { $0 == " " } : ""
            return (name: String(parts[0]), value: String(value))
        }
        let announced = headers.first { $0.name.lowercased() == "content-length" }?.value
        let length = readsBodies ? announced.flatMap { Int($0) } ?? 0 : 0
        while received.count < length {
            guard receive(socket, &received) else { return nil }
        }
        let body = Array(received[..<length])
        received.removeSubrange(..<length)
        return ScriptedServer.Request(
            method: String(words[0]), target: String(words[1]), headers: headers, body: body,
            connection: connection, number: number)
    }

    private func receive(_ socket: Int32, _ received: inout [UInt8]) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(socket, &buffer, buffer.count, 0)
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { return false }
            received.append(contentsOf: buffer[..<count])
            return true
        }
    }

    private func send(_ bytes: [UInt8], _ socket: Int32) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(
                    socket, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { return false }
            sent += count
        }
        return true
    }
}

private final class ThreadBody {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

private func startThread(_ run: @escaping @Sendable () -> Void) -> pthread_t {
    let body = Unmanaged.passRetained(ThreadBody(run))
    var thread = pthread_t()
    let created = pthread_create(
        &thread, nil,
        { body in
            if let body { Unmanaged<ThreadBody>.fromOpaque(body).takeRetainedValue().run() }
            return nil
        }, body.toOpaque())
    precondition(created == 0, "the system has no thread to give")
    return thread
}
