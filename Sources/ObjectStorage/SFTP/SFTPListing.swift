/// Objects below a prefix, read from many directories at once and told in byte order.
///
/// Each directory takes two round trips, so they are read side by side: up to `openLimit` at a
/// time over one connection, in the order in which their objects will be wanted.
final class SFTPListing {
    /// A directory that is to be read, is being read, or has been.
    private final class Node {
        let prefix: String
        var handle: [UInt8]?
        var entries: [Entry] = []
        /// Entries that came without their kind or length.
        var unclear: [[UInt8]] = []
        var due = 0
        /// What the server said instead of names.
        var failure: SFTPFailure?
        var isRead = false

        init(_ prefix: String) { self.prefix = prefix }
    }

    private struct Entry {
        /// With a slash behind it for a directory, so that it sorts where the keys below it belong.
        let name: String
        let length: Int
        let modified: Int64?
        let below: Node?
    }

    private enum Question {
        case open(Node)
        /// Whether what could not be opened is a directory at all.
        case examine(Node, SFTPFailure)
        case read(Node)
        case status(Node, name: [UInt8])
    }

    private let store: SFTPStore
    private let exchange: SFTPExchange
    private let subject: StorageSubject
    private var questions: [Question?] = []
    private var waiting: [Node] = []
    private var nextWaiting = 0
    private var due = 0
    /// What is being read now.
    private var active: [ObjectIdentifier: Node] = [:]
    private var found = 0
    /// Only what comes behind this key is wanted.
    private let last: String

    init(
        _ store: SFTPStore, over exchange: SFTPExchange, _ subject: StorageSubject,
        after last: ObjectKey? = nil
    ) {
        self.store = store
        self.last = last?.text ?? ""
        self.exchange = exchange
        self.subject = subject
    }

    /// Half of what the least server keeps open, so that others find room.
    private static let openLimit = 64
    /// How many readdir requests are on their way for one directory: the second is under way while
    /// the answer to the first comes, and tells the end of most directories.
    private static let readsAtOnce = 2
    /// More names than a repository ever has are a server's mistake, and must not fill memory.
    private static let foundLimit = 5_000_000

    /// Hands what lies below `prefix` to `body` until that gives false.
    func run(prefix: String, _ body: (StoredObject) -> Bool) throws(SFTPFailure) {
        defer { abandon() }
        let root = Node(prefix)
        waiting.append(root)
        _ = try tell(root, body)
    }

    /// The directories below `prefix`, itself included, the deepest last.
    func directories(prefix: String) throws(SFTPFailure) -> [String] {
        defer { abandon() }
        let root = Node(prefix)
        waiting.append(root)
        var nodes = [root]
        var next = 0
        while next < nodes.count {
            try finish(nodes[next])
            nodes += nodes[next].entries.compactMap(\.below)
            next += 1
        }
        return nodes.map(\.prefix)
    }

    private func tell(
        _ node: Node, _ body: (StoredObject) -> Bool
    ) throws(SFTPFailure) -> Bool {
        try finish(node)
        let entries = node.entries
        node.entries = []
        for entry in entries {
            if let below = entry.below {
                guard try tell(below, body) else { return false }
            } else {
                let object = StoredObject(
                    key: ObjectKey(joining: node.prefix, entry.name), length: entry.length,
                    modified: entry.modified)
                guard object.key.text <= last || body(object) else { return false }
            }
        }
        return true
    }

    /// Goes on with everything until `node` has been read.
    private func finish(_ node: Node) throws(SFTPFailure) {
        while !node.isRead {
            try openMore()
            let (tag, reply) = try exchange.next()
            due -= 1
            guard let question = questions[tag] else { continue }
            questions[tag] = nil
            switch question {
            case .open(let node): try opened(node, reply)
            case .examine(let node, let failure): try examined(node, failure, reply)
            case .read(let node): try read(node, reply)
            case .status(let node, let name): try clarified(node, name, reply)
            }
        }
    }

    private func openMore() throws(SFTPFailure) {
        while active.count < SFTPListing.openLimit, nextWaiting < waiting.count {
            let node = waiting[nextWaiting]
            nextWaiting += 1
            active[ObjectIdentifier(node)] = node
            try ask(.opendir(path(node)), .open(node))
        }
    }

    private func ask(_ request: SFTPRequest, _ question: Question) throws(SFTPFailure) {
        questions.append(question)
        try exchange.send(request, tag: questions.count - 1)
        due += 1
    }

    /// Leaves no directory open on the server, however the listing ended.
    private func abandon() {
        while due > 0, let (_, reply) = try? exchange.next() {
            due -= 1
            if case .handle(let handle) = reply { exchange.sendAndForget(.close(handle)) }
        }
        for node in active.values { close(node) }
    }

    private func close(_ node: Node) {
        guard let handle = node.handle else { return }
        exchange.sendAndForget(.close(handle))
        node.handle = nil
    }

    private func isDone(_ node: Node) {
        active[ObjectIdentifier(node)] = nil
        node.isRead = true
    }

    private func path(_ node: Node) -> [UInt8] {
        store.path(ofDirectory: node.prefix.dropLast())
    }

    // MARK: - Answers

    private func opened(_ node: Node, _ reply: SFTPReply) throws(SFTPFailure) {
        do throws(SFTPFailure) {
            guard let handle = try exchange.handle(of: reply) else {
                // Removed since its name was read, or never there.
                return isDone(node)
            }
            node.handle = handle
            for _ in 0..<SFTPListing.readsAtOnce { try readMore(node, handle) }
        } catch {
            guard case .refused(let status) = error, status.meaning == nil else {
                throw named(error, node)
            }
            try ask(.lstat(path(node)), .examine(node, error))
        }
    }

    /// What is no directory has nothing below it, which is no failure.
    private func examined(
        _ node: Node, _ failure: SFTPFailure, _ reply: SFTPReply
    ) throws(SFTPFailure) {
        if case .attributes(let found) = reply, found.kind == .directory {
            throw named(failure, node)
        }
        isDone(node)
    }

    private func readMore(_ node: Node, _ handle: [UInt8]) throws(SFTPFailure) {
        node.due += 1
        try ask(.readdir(handle), .read(node))
    }

    private func read(_ node: Node, _ reply: SFTPReply) throws(SFTPFailure) {
        node.due -= 1
        switch reply {
        case .names(let names):
            for name in names { try take(name.name, name.attributes, in: node) }
            // An empty answer is no end by the protocol, but a server that gives nothing else would
            // be asked for ever.
            if let handle = node.handle, !names.isEmpty { try readMore(node, handle) }
        case .status(let status) where status.isEndOfFile || status.isMissing:
            close(node)
        default:
            let failure = exchange.unexpected(reply)
            guard case .refused(let status) = failure, status.meaning == nil,
                node.entries.isEmpty
            else { throw named(failure, node) }
            // Some servers open anything, and look at it only now.
            close(node)
            node.failure = failure
        }
        try settle(node)
    }

    /// Once nothing more is to come, asks for what was unclear, and then is done with the directory.
    private func settle(_ node: Node) throws(SFTPFailure) {
        guard node.due == 0 else { return }
        close(node)
        if let failure = node.failure {
            return try ask(.lstat(path(node)), .examine(node, failure))
        }
        if !node.unclear.isEmpty {
            let names = node.unclear
            node.unclear = []
            for name in names {
                node.due += 1
                let path = store.path(node.prefix) + name
                try ask(.lstat(path), .status(node, name: name))
            }
            return
        }
        node.entries.sort { $0.name < $1.name }
        waiting += node.entries.compactMap(\.below)
        isDone(node)
    }

    private func clarified(
        _ node: Node, _ name: [UInt8], _ reply: SFTPReply
    ) throws(SFTPFailure) {
        node.due -= 1
        if let attributes = try exchange.attributes(of: reply) {
            var attributes = attributes
            if attributes.kind == nil { attributes.mode = 0o100000 }
            if attributes.size != nil || attributes.kind != .file {
                try take(name, attributes, in: node)
            }
        }
        try settle(node)
    }

    private func take(
        _ bytes: [UInt8], _ attributes: SFTPAttributes, in node: Node
    ) throws(SFTPFailure) {
        found += 1
        guard found <= SFTPListing.foundLimit else {
            throw .other(subject.failure(.tooLarge, "the server lists names without end"))
        }
        guard let name = String(validating: bytes, as: UTF8.self),
            ObjectKey.isLegalComponent(name),
            node.prefix.utf8.count + name.utf8.count <= ObjectKey.maximumBytes
        else { return }
        switch attributes.kind {
        case nil:
            node.unclear.append(bytes)
        case .file:
            guard let size = attributes.size else {
                node.unclear.append(bytes)
                return
            }
            node.entries.append(
                Entry(
                    name: name, length: Int(clamping: size),
                    modified: attributes.modified.map(Int64.init), below: nil))
        case .directory:
            let below = Node(node.prefix + name + "/")
            // Every key in there comes before what is wanted.
            guard below.prefix > last || last.hasPrefix(below.prefix) else { return }
            node.entries.append(Entry(name: name + "/", length: 0, modified: nil, below: below))
        // Objects that lie behind it would be missing from the listing, and whoever deletes what no
        // listed object needs would delete too much.
        case .symbolicLink:
            throw .other(
                subject.failure(
                    .unsupported,
                    "\(node.prefix)\(name) is a symbolic link, which a store never follows"))
        case .other:
            break
        }
    }

    /// The failure with the directory it is about.
    private func named(_ failure: SFTPFailure, _ node: Node) -> SFTPFailure {
        guard case .refused(let status) = failure else { return failure }
        return .other(
            subject.failure(
                SFTPStatus(code: status.code, text: "\(status.description) (\(node.prefix))")))
    }
}

extension SFTPStore {
    package func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        try list(prefix: prefix, after: nil, body)
    }

    package func list(
        prefix: String, after start: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        let subject = subject(.list)
        options.traffic.count(.list)
        // What has been handed out stays handed out when the listing is begun again.
        var last = start
        try perform(subject) { (exchange) throws(SFTPFailure) in
            try SFTPListing(self, over: exchange, subject, after: last).run(prefix: prefix) {
                object in
                last = object.key
                return body(object)
            }
        }
    }
}
