import Glibc
import Synchronization
import TestSupport

@testable import ObjectStorage

/// An SFTP server in this process: a tree in memory, served over socket pairs, that can be told to
/// do what no real server does on demand.
///
/// It carries requests out in the order in which they come, as the protocol demands, and may answer
/// in another.
final class SFTPServerDouble: Sendable {
    struct Behaviour: Sendable {
        var extensions = [
            "posix-rename@openssh.com", "fsync@openssh.com", "statvfs@openssh.com",
            "limits@openssh.com", "expand-path@openssh.com",
        ]
        /// Answers what has come together in an order drawn with this seed.
        var shufflesAnswers: UInt64?
        /// Gives at most so many bytes to a read.
        var readBytes = Int.max
        /// Tells no attributes in listings.
        var listsBareNames = false
        var renameReplaces = false
        var version: UInt32 = 3
        var limits: [UInt64] = [262_144, 261_120, 261_120, 100]
        /// What statvfs tells of room, in bytes.
        var availableBytes: UInt64 = 1 << 40
    }

    /// What is to happen to one request, when it comes.
    enum Fault: Sendable {
        /// It is not carried out, and the connection ends.
        case cutBefore
        /// It is carried out, and the connection ends before the answer.
        case cutAfter
        /// It is carried out, and never answered.
        case silence
        /// It is not carried out; the answer has this code and text.
        case refuse(UInt32, String)
        /// It is answered with these bytes, whatever they are; ID stands where the number belongs.
        case answer([UInt8])
    }

    private struct Plan {
        let kind: UInt8
        var skipping: Int
        let fault: Fault
    }

    private enum Node {
        case file([UInt8], mode: UInt32)
        case directory
        case link
    }

    private struct State {
        var nodes: [[UInt8]: Node] = [Array("/".utf8): .directory]
        var plans: [Plan] = []
        var fired = 0
        var connections = 0
        var requests: [UInt8: Int] = [:]
        var openHandles = 0
        var mostOpenHandles = 0
    }

    let behaviour: Behaviour
    private let state = Mutex(State())

    init(_ behaviour: Behaviour = Behaviour()) { self.behaviour = behaviour }

    /// Plans a fault for the request of this kind that comes after so many others of it.
    func plan(_ fault: Fault, for kind: UInt8, after skipping: Int = 0) {
        state.withLock { $0.plans.append(Plan(kind: kind, skipping: skipping, fault: fault)) }
    }

    /// How many planned faults have happened.
    var firedFaults: Int { state.withLock { $0.fired } }
    var dialledConnections: Int { state.withLock { $0.connections } }
    var openHandles: Int { state.withLock { $0.openHandles } }
    var mostOpenHandles: Int { state.withLock { $0.mostOpenHandles } }
    func requests(_ kind: UInt8) -> Int { state.withLock { $0.requests[kind, default: 0] } }

    /// Paths of all files and directories, in order.
    var paths: [String] {
        state.withLock { $0.nodes.keys.map { String(decoding: $0, as: UTF8.self) } }.sorted()
    }

    func plant(file path: String, _ bytes: [UInt8]) {
        state.withLock { $0.nodes[Array(path.utf8)] = .file(bytes, mode: 0o100600) }
    }
    func plant(directory path: String) {
        state.withLock { $0.nodes[Array(path.utf8)] = .directory }
    }
    func plant(link path: String) { state.withLock { $0.nodes[Array(path.utf8)] = .link } }

    // MARK: - Connecting

    /// Connections to this server, as a store takes them.
    func connections(limit: Int = 4, stallSeconds: Int = 30) -> SFTPConnections {
        SFTPConnections(limit: limit) { () throws(SSHFailure) in
            try self.dial(stallSeconds: stallSeconds)
        }
    }

    func dial(stallSeconds: Int = 30) throws(SSHFailure) -> SFTPConnection {
        try SFTPConnection.establish(
            over: SSHProcess(adopting: serve()), connectSeconds: stallSeconds,
            stallSeconds: stallSeconds)
    }

    /// A store in the directory `/store`, which is made.
    func store(
        limit: Int = 4, stallSeconds: Int = 30, traffic: TrafficCounter = TrafficCounter(),
        isCancelled: (@Sendable () -> Bool)? = nil
    ) throws -> SFTPStore {
        var options = SFTPStore.Options()
        options.isCancelled = isCancelled
        options.traffic = traffic
        options.spoolDirectory = "/tmp"
        plant(directory: "/store")
        return try SFTPStore.open(
            at: SFTPLocation("sftp://double/store"), options: options,
            connections: connections(limit: limit, stallSeconds: stallSeconds))
    }

    /// Serves one connection on a thread of its own and gives the client's end of it.
    private func serve() -> Int32 {
        var ends: [Int32] = [0, 0]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        precondition(socketpair(AF_UNIX, kind, 0, &ends) == 0)
        state.withLock { $0.connections += 1 }
        let session = Session(server: self, socket: ends[1])
        var thread = pthread_t()
        let created = pthread_create(
            &thread, nil,
            { work in
                Unmanaged<Session>.fromOpaque(work!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(session).toOpaque())
        precondition(created == 0)
        pthread_detach(thread)
        return ends[0]
    }

    // MARK: - Serving

    private enum OpenFile {
        case file([UInt8])
        case directory([SFTPListedName])
    }

    private struct SFTPListedName {
        let name: [UInt8]
        let node: Node
    }

    private final class Session {
        private let server: SFTPServerDouble
        private let socket: Int32
        private var handles: [UInt32: OpenFile] = [:]
        private var nextHandle: UInt32 = 0
        private var received: [UInt8] = []
        private var answers: [[UInt8]] = []
        private var generator: SeededGenerator?
        private var isCut = false

        init(server: SFTPServerDouble, socket: Int32) {
            self.server = server
            self.socket = socket
            generator = server.behaviour.shufflesAnswers.map(SeededGenerator.init(seed:))
        }

        deinit {
            server.state.withLock { $0.openHandles -= handles.count }
            close(socket)
        }

        func run() {
            var buffer = [UInt8](repeating: 0, count: 1 << 20)
            while !isCut {
                let count = recv(socket, &buffer, buffer.count, 0)
                guard count > 0 else { return }
                received += buffer[..<count]
                var position = 0
                while !isCut, let packet = nextPacket(&position) { serve(packet) }
                received.removeFirst(position)
                sendAnswers()
            }
        }

        private func nextPacket(_ position: inout Int) -> [UInt8]? {
            guard received.count - position >= 4 else { return nil }
            let length = received[position..<position + 4].reduce(0) { $0 << 8 | Int($1) }
            guard received.count - position >= 4 + length else { return nil }
            defer { position += 4 + length }
            return Array(received[position + 4..<position + 4 + length])
        }

        private func sendAnswers() {
            if var generator {
                answers.shuffle(using: &generator)
                self.generator = generator
            }
            for answer in answers {
                var sent = 0
                while sent < answer.count {
                    let count = answer[sent...].withUnsafeBytes {
                        send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                    }
                    guard count > 0 else { return }
                    sent += count
                }
            }
            answers = []
        }

        private func serve(_ packet: [UInt8]) {
            let kind = packet[0]
            if kind == SFTPKind.initialize {
                var version = Answer(kind: SFTPKind.version)
                version.append(server.behaviour.version)
                for name in server.behaviour.extensions {
                    version.append(Array(name.utf8))
                    version.append(Array("1".utf8))
                }
                answers.append(version.sealed)
                return
            }
            let id = packet[1..<5].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            let fault = server.faultFor(kind)
            switch fault {
            case .cutBefore:
                sendAnswers()
                isCut = true
            case .cutAfter:
                _ = answer(kind, Array(packet[5...]))
                sendAnswers()
                isCut = true
            case .silence:
                _ = answer(kind, Array(packet[5...]))
            case .refuse(let code, let text):
                answers.append(Answer.status(code, text).with(id: id))
            case .answer(let bytes):
                sendAnswers()
                answers.append(
                    bytes.split(separator: Array("ID".utf8), omittingEmptySubsequences: false)
                        .joined(separator: packet[1..<5]).map { $0 })
            case nil:
                answers.append(answer(kind, Array(packet[5...])).with(id: id))
            }
        }

        private func answer(_ kind: UInt8, _ packet: [UInt8]) -> Answer {
            do throws(SFTPMalformed) {
                return try SFTPFields.of(packet) { (fields) throws(SFTPMalformed) in
                    try answer(kind, &fields)
                }
            } catch {
                return .status(SFTPStatus.badMessage, error.what)
            }
        }

        private func answer(
            _ kind: UInt8, _ fields: inout SFTPFields
        ) throws(SFTPMalformed) -> Answer {
            switch kind {
            case SFTPKind.lstat, SFTPKind.stat:
                return attributes(server.node(try fields.string()))
            case SFTPKind.open:
                let path = try fields.string()
                let flags = try fields.number()
                if flags & 0x08 != 0 {
                    guard server.node(path) == nil else { return .failure }
                    guard server.isDirectory(parent(path)) else { return .missing }
                    server.set(path, .file([], mode: 0o100600))
                } else if server.node(path) == nil {
                    return .missing
                }
                return open(.file(path))
            case SFTPKind.opendir:
                let path = try fields.string()
                switch server.node(path) {
                case .directory: return open(.directory(server.children(of: path)))
                case nil: return .missing
                default: return .failure
                }
            case SFTPKind.readdir: return readdir(try handle(&fields))
            case SFTPKind.close:
                if handles.removeValue(forKey: try handle(&fields)) != nil {
                    server.state.withLock { $0.openHandles -= 1 }
                }
                return .ok
            case SFTPKind.fstat:
                guard case .file(let path) = handles[try handle(&fields)] else { return .failure }
                return attributes(server.node(path))
            case SFTPKind.read: return try read(&fields)
            case SFTPKind.write: return try write(&fields)
            case SFTPKind.remove:
                let path = try fields.string()
                switch server.node(path) {
                case nil: return .missing
                case .directory: return .failure
                default:
                    server.set(path, nil)
                    return .ok
                }
            case SFTPKind.mkdir:
                let path = try fields.string()
                guard server.node(path) == nil else { return .failure }
                guard server.isDirectory(parent(path)) else { return .missing }
                server.set(path, .directory)
                return .ok
            case SFTPKind.rmdir:
                let path = try fields.string()
                guard server.isDirectory(path) else { return .missing }
                guard server.children(of: path).isEmpty else { return .failure }
                server.set(path, nil)
                return .ok
            case SFTPKind.rename:
                return rename(
                    try fields.string(), to: try fields.string(),
                    replacing: server.behaviour.renameReplaces)
            case SFTPKind.extended: return try extended(&fields)
            default: return .status(SFTPStatus.unsupported, "")
            }
        }

        private func extended(_ fields: inout SFTPFields) throws(SFTPMalformed) -> Answer {
            let name = String(decoding: try fields.string(), as: UTF8.self)
            guard server.behaviour.extensions.contains(name) else {
                return .status(SFTPStatus.unsupported, "")
            }
            switch name {
            case "fsync@openssh.com": return handles[try handle(&fields)] == nil ? .failure : .ok
            case "posix-rename@openssh.com":
                return rename(try fields.string(), to: try fields.string(), replacing: true)
            case "limits@openssh.com":
                var answer = Answer(kind: SFTPKind.extendedReply)
                for limit in server.behaviour.limits { answer.append(limit) }
                return answer
            case "statvfs@openssh.com":
                var answer = Answer(kind: SFTPKind.extendedReply)
                let room = server.behaviour.availableBytes / 512
                for number in [512, 512, 1 << 32, room, room, 1000, 900, 900, 7, 0, 255] {
                    answer.append(UInt64(number))
                }
                return answer
            default: return .status(SFTPStatus.unsupported, "")
            }
        }

        private func rename(_ path: [UInt8], to newPath: [UInt8], replacing: Bool) -> Answer {
            guard let node = server.node(path), server.isDirectory(parent(newPath)) else {
                return .missing
            }
            guard replacing || server.node(newPath) == nil else { return .failure }
            server.set(path, nil)
            server.set(newPath, node)
            for (id, open) in handles {
                if case .file(path) = open { handles[id] = .file(newPath) }
            }
            return .ok
        }

        private func handle(_ fields: inout SFTPFields) throws(SFTPMalformed) -> UInt32 {
            try fields.string().reduce(0) { $0 << 8 | UInt32($1) }
        }

        private func open(_ file: OpenFile) -> Answer {
            handles[nextHandle] = file
            server.state.withLock { state in
                state.openHandles += 1
                state.mostOpenHandles = max(state.mostOpenHandles, state.openHandles)
            }
            var answer = Answer(kind: SFTPKind.handle)
            answer.append(withUnsafeBytes(of: nextHandle.bigEndian) { [UInt8]($0) })
            nextHandle += 1
            return answer
        }

        private func readdir(_ id: UInt32) -> Answer {
            guard case .directory(let names) = handles[id] else { return .failure }
            guard !names.isEmpty else { return .status(SFTPStatus.endOfFile, "") }
            handles[id] = .directory(Array(names.dropFirst(7)))
            var answer = Answer(kind: SFTPKind.name)
            let part = names.prefix(7)
            answer.append(UInt32(part.count))
            for entry in part {
                answer.append(entry.name)
                answer.append(Array(server.behaviour.listsBareNames ? "?".utf8 : "-rw".utf8))
                if server.behaviour.listsBareNames {
                    answer.append(UInt32(0))
                } else {
                    answer.append(attributesOf: entry.node)
                }
            }
            return answer
        }

        private func read(_ fields: inout SFTPFields) throws(SFTPMalformed) -> Answer {
            guard case .file(let path) = handles[try handle(&fields)],
                case .file(let bytes, _) = server.node(path)
            else { return .failure }
            let offset = Int(try fields.longNumber())
            let count = min(Int(try fields.number()), server.behaviour.readBytes)
            guard offset < bytes.count else { return .status(SFTPStatus.endOfFile, "") }
            var answer = Answer(kind: SFTPKind.data)
            answer.append(Array(bytes[offset..<min(bytes.count, offset + count)]))
            return answer
        }

        private func write(_ fields: inout SFTPFields) throws(SFTPMalformed) -> Answer {
            guard case .file(let path) = handles[try handle(&fields)],
                case .file(var bytes, let mode) = server.node(path)
            else { return .failure }
            let offset = Int(try fields.longNumber())
            let data = try fields.string()
            if bytes.count < offset + data.count {
                bytes += [UInt8](repeating: 0, count: offset + data.count - bytes.count)
            }
            bytes.replaceSubrange(offset..<offset + data.count, with: data)
            server.set(path, .file(bytes, mode: mode))
            return .ok
        }

        private func attributes(_ node: Node?) -> Answer {
            guard let node else { return .missing }
            var answer = Answer(kind: SFTPKind.attributes)
            answer.append(attributesOf: node)
            return answer
        }

        private func parent(_ path: [UInt8]) -> [UInt8] {
            let slash = path.lastIndex(of: UInt8(ascii: "/")) ?? 0
            return slash == 0 ? Array("/".utf8) : Array(path[..<slash])
        }
    }

    private func faultFor(_ kind: UInt8) -> Fault? {
        state.withLock { state in
            state.requests[kind, default: 0] += 1
            for index in state.plans.indices where state.plans[index].kind == kind {
                guard state.plans[index].skipping == 0 else {
                    state.plans[index].skipping -= 1
                    continue
                }
                state.fired += 1
                return state.plans.remove(at: index).fault
            }
            return nil
        }
    }

    private func node(_ path: [UInt8]) -> Node? { state.withLock { $0.nodes[path] } }

    private func isDirectory(_ path: [UInt8]) -> Bool {
        if case .directory = node(path) { return true }
        return false
    }

    private func set(_ path: [UInt8], _ node: Node?) { state.withLock { $0.nodes[path] = node } }

    private func children(of path: [UInt8]) -> [SFTPListedName] {
        let prefix = path + [UInt8(ascii: "/")]
        return state.withLock { state in
            state.nodes.compactMap { (path, node) in
                guard path.starts(with: prefix), path.count > prefix.count,
                    !path[prefix.count...].contains(UInt8(ascii: "/"))
                else { return nil }
                return SFTPListedName(name: Array(path[prefix.count...]), node: node)
            }
        }
    }

    /// An answer under construction.
    private struct Answer {
        private var bytes: [UInt8]

        init(kind: UInt8) { bytes = [kind, 0, 0, 0, 0] }

        static var ok: Answer { .status(SFTPStatus.ok, "") }
        static var failure: Answer { .status(SFTPStatus.failure, "") }
        static var missing: Answer { .status(SFTPStatus.noSuchFile, "") }

        static func status(_ code: UInt32, _ text: String) -> Answer {
            var answer = Answer(kind: SFTPKind.status)
            answer.append(code)
            answer.append(Array(text.utf8))
            answer.append([UInt8]())
            return answer
        }

        mutating func append(_ number: UInt32) {
            withUnsafeBytes(of: number.bigEndian) { bytes += $0 }
        }
        mutating func append(_ number: UInt64) {
            withUnsafeBytes(of: number.bigEndian) { bytes += $0 }
        }
        mutating func append(_ string: [UInt8]) {
            append(UInt32(string.count))
            bytes += string
        }
        mutating func append(attributesOf node: Node) {
            append(UInt32(0x0D))
            let (size, mode): (Int, UInt32) =
                switch node {
                case .file(let bytes, let mode): (bytes.count, mode)
                case .directory: (4096, 0o040700)
                case .link: (7, 0o120777)
                }
            append(UInt64(size))
            append(mode)
            append(UInt32(0))
            append(UInt32(time(nil)))
        }

        /// With its length before it; the version packet has no number.
        var sealed: [UInt8] { packet([bytes[0]] + bytes[5...]) }

        func with(id: UInt32) -> [UInt8] {
            packet([bytes[0]] + withUnsafeBytes(of: id.bigEndian) { [UInt8]($0) } + bytes[5...])
        }

        private func packet(_ body: [UInt8]) -> [UInt8] {
            withUnsafeBytes(of: UInt32(body.count).bigEndian) { [UInt8]($0) } + body
        }
    }
}
