import CSystem
import Glibc
import Synchronization

/// Objects as files of an SFTP server, which is reached by the system's own `ssh`.
///
/// So the user's ssh configuration, agent, jump hosts, certificates and hardware keys serve as they
/// are. A put writes a file in `+tmp/`, has the server move it to its disk where the server can
/// (fsync@openssh.com), and renames it without replacing anything. The store needs SFTP version 3
/// and takes what OpenSSH's extensions offer beyond it.
package final class SFTPStore: ObjectStore {
    /// How a store is reached and used.
    package struct Options: Sendable {
        package var command = SSHCommand.standard
        /// The most connections at once. OpenSSH allows ten sessions over one, and lets ten connect
        /// at the same time; other users of the server want some of them.
        package var connections = 4
        /// Whether a person at a terminal can answer ssh's questions.
        package var mayAsk = false
        /// Whether ssh may trust a host that is not known yet, and remember its key.
        package var acceptsNewHostKey = false
        /// Whether `digests(of:)` may run `sha256sum` in the account's shell.
        package var hashesRemotely = false
        /// Where spool files are made.
        package var spoolDirectory = "/var/tmp"
        /// How long nothing may come or go while an answer is due.
        package var stallSeconds = 120
        /// Asked while a spool file is on its way; once it gives true that put is given up.
        package var isCancelled: (@Sendable () -> Bool)?
        package var traffic = TrafficCounter()

        package init() {}

        /// Beyond this a server's other users are shut out.
        package static let mostConnections = 8
    }

    let location: SFTPLocation
    let options: Options
    let connections: SFTPConnections
    /// The address, for messages.
    let address: String
    /// Rights of new files and directories: those of the store's own directory, less what the
    /// server's umask takes.
    let permissions: Permissions
    /// Directories of which this process knows that they survive a crash of the server.
    let durable = Mutex<Set<String>>([])
    let temporaries = Mutex(SFTPTemporaries())
    let clock = Mutex<SFTPClock?>(nil)
    /// Directories that `create` has made for this store, the outermost first.
    let made = Mutex<[[UInt8]]>([])

    struct Permissions {
        let file: UInt32
        let directory: UInt32

        init(ofRoot mode: UInt32?) {
            let group = (mode ?? 0) & 0o070
            file = 0o600 | (group & 0o060)
            directory = 0o700 | group
        }
    }

    init(
        _ location: SFTPLocation, _ options: Options, _ connections: SFTPConnections,
        permissions: Permissions
    ) {
        self.location = location
        self.options = options
        self.connections = connections
        self.address = location.description
        self.permissions = permissions
    }

    deinit { connections.close() }

    /// Connects, and opens the store in a directory that is there.
    ///
    /// Needs no right to write.
    ///
    /// - Throws: `.notFound`, `.notADirectory`; `.untrusted`, `.denied`, `.unavailable` where ssh
    ///   says so.
    package static func open(
        at location: SFTPLocation, options: Options = Options()
    ) throws(StorageError) -> SFTPStore {
        try open(at: location, options: options, connections: dialled(location, options))
    }

    /// Makes a store in a directory that is new or empty, and opens it. Missing parents are made.
    ///
    /// - Throws: `.exists` where something lies in the directory already.
    package static func create(
        at location: SFTPLocation, options: Options = Options()
    ) throws(StorageError) -> SFTPStore {
        try create(at: location, options: options, connections: dialled(location, options))
    }

    private static func dialled(_ location: SFTPLocation, _ options: Options) -> SFTPConnections {
        let limit = min(max(options.connections, 1), Options.mostConnections)
        let words = options.command.arguments(
            for: location, remote: .subsystem("sftp"), mayAsk: options.mayAsk,
            acceptsNewHostKey: options.acceptsNewHostKey)
        // A person may have to find a passphrase or a hardware key first.
        let connectSeconds = options.mayAsk ? 600 : 90
        return SFTPConnections(limit: limit) { () throws(SSHFailure) in
            try SFTPConnection.establish(
                over: try SSHProcess(words), connectSeconds: connectSeconds,
                stallSeconds: options.stallSeconds)
        }
    }

    static func open(
        at location: SFTPLocation, options: Options, connections: SFTPConnections
    ) throws(StorageError) -> SFTPStore {
        let subject = StorageSubject(
            operation: .open, key: nil, location: location.description)
        let attributes = try SFTPStore.perform(connections, subject, options) {
            (exchange) throws(SFTPFailure) in
            try exchange.attributes(.stat(location.rootPath))
        }
        guard let attributes else {
            throw subject.failure(.notFound, "there is no such directory on the server")
        }
        guard attributes.kind == .directory || attributes.kind == nil else {
            throw subject.failure(.notADirectory, "what has this path is no directory")
        }
        return SFTPStore(
            location, options, connections, permissions: Permissions(ofRoot: attributes.mode))
    }

    package var capabilities: StoreCapabilities {
        var capabilities = StoreCapabilities(
            conditionalPut: false, rangedReads: true, listingShowsMD5: false,
            listingShowsTime: true, isLocal: false)
        capabilities.remoteDigests = options.hashesRemotely
        return capabilities
    }

    package func makeSpool() throws(StorageError) -> SpoolFile {
        try SpoolFile.temporary(in: options.spoolDirectory)
    }

    // MARK: - What every operation is made of

    func subject(
        _ operation: StorageError.Operation, _ key: ObjectKey? = nil
    ) -> StorageSubject {
        StorageSubject(operation: operation, key: key, location: address)
    }

    /// The path of what has the name `name` below the store's root.
    func path(_ name: some StringProtocol) -> [UInt8] {
        location.path + [UInt8(ascii: "/")] + name.utf8
    }

    /// The path of a directory whose name may be empty, for the store's own.
    func path(ofDirectory name: some StringProtocol) -> [UInt8] {
        name.isEmpty ? location.rootPath : path(name)
    }

    /// Runs `body` over one of the store's connections.
    func perform<Result>(
        _ subject: StorageSubject, isTransfer: Bool = false,
        _ body: (SFTPExchange) throws(SFTPFailure) -> Result
    ) throws(StorageError) -> Result {
        try SFTPStore.perform(connections, subject, options, isTransfer: isTransfer, body)
    }

    /// Runs `body`, and once more where the connection was lost meanwhile: every operation may be
    /// repeated, and a connection that idled may have ended unnoticed.
    static func perform<Result>(
        _ connections: SFTPConnections, _ subject: StorageSubject, _ options: Options,
        isTransfer: Bool = false,
        _ body: (SFTPExchange) throws(SFTPFailure) -> Result
    ) throws(StorageError) -> Result {
        var isRepeated = false
        while true {
            do throws(SFTPFailure) {
                return try connections.use(isTransfer: isTransfer) {
                    (connection) throws(SFTPFailure) in
                    let exchange = SFTPExchange(over: connection)
                    defer { exchange.finish() }
                    return try body(exchange)
                }
            } catch {
                switch error {
                case .lost(let failure) where failure.isTransient && !isRepeated:
                    isRepeated = true
                    options.traffic.countRetry()
                case .lost(let failure), .unreachable(let failure):
                    throw subject.failure(failure)
                case .refused(let status):
                    throw subject.failure(status)
                case .other(let error):
                    throw error
                }
            }
        }
    }
}

extension StorageSubject {
    func failure(_ failure: SSHFailure) -> StorageError {
        StorageError(
            failure.kind, operation, key: key, location: location, cause: failure.cause,
            isTransient: failure.isTransient, isOverload: failure.isOverload, hint: failure.hint)
    }

    /// What a refusal means that nobody has looked into.
    func failure(_ status: SFTPStatus) -> StorageError {
        StorageError(
            status.meaning ?? .io, operation, key: key, location: location,
            cause: "the server says: \(status.description)",
            hint: status.meaning == nil
                ? "look at the server's log and its disk; a quota may be reached" : nil)
    }
}

extension SFTPExchange {
    /// A handle, or nil where there is nothing of that name.
    func handle(_ request: SFTPRequest) throws(SFTPFailure) -> [UInt8]? {
        try handle(of: try ask(request))
    }

    func handle(of reply: SFTPReply) throws(SFTPFailure) -> [UInt8]? {
        switch reply {
        case .handle(let handle): return handle
        case .status(let status) where status.isMissing: return nil
        default: throw unexpected(reply)
        }
    }

    /// Attributes, or nil where there is nothing of that name.
    func attributes(_ request: SFTPRequest) throws(SFTPFailure) -> SFTPAttributes? {
        try attributes(of: try ask(request))
    }

    func attributes(of reply: SFTPReply) throws(SFTPFailure) -> SFTPAttributes? {
        switch reply {
        case .attributes(let attributes): return attributes
        case .status(let status) where status.isMissing: return nil
        default: throw unexpected(reply)
        }
    }

    func status(_ request: SFTPRequest) throws(SFTPFailure) -> SFTPStatus {
        try status(of: try ask(request))
    }

    func status(of reply: SFTPReply) throws(SFTPFailure) -> SFTPStatus {
        guard case .status(let status) = reply else { throw unexpected(reply) }
        return status
    }

    func checkOK(_ reply: SFTPReply) throws(SFTPFailure) {
        let status = try status(of: reply)
        guard status.isOK else { throw .refused(status) }
    }

    /// What to throw for a reply that was not hoped for: a refusal, or an answer that does not
    /// belong to its request, after which nothing from this server can be believed.
    func unexpected(_ reply: SFTPReply) -> SFTPFailure {
        if case .status(let status) = reply, !status.isOK { return .refused(status) }
        connection.close()
        return .lost(.malformed("an answer that does not fit its request"))
    }
}
