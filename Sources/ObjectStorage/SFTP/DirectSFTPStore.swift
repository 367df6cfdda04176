import CSystem
import Glibc
import Synchronization
import Transfer

/// Objects as files of an SFTP server that is reached without an ssh command, by libssh2: where
/// there is none, or a password has to be used.
///
/// It keeps the same contract as `SFTPStore`, by the same names and in the same way, as far as
/// libssh2 can: nothing asks the server to move an object to its disk, a listing takes several
/// round trips for each directory and tells no times, and the user's ssh configuration counts for
/// nothing.
package final class DirectSFTPStore: ObjectStore {
    package struct Options: Sendable {
        /// Used where the address names nobody.
        package var user: String
        package var password: String?
        /// Tried, after those of the agent, where there is no password.
        package var privateKeyFile: String?
        /// The first is added to by `acceptsNewHostKey`.
        package var knownHostsFiles: [String]
        /// Whether a host that is not known yet is trusted and its key remembered.
        package var acceptsNewHostKey = false
        package var connections = 4
        package var spoolDirectory = "/var/tmp"
        package var stallSeconds = 120
        /// Asked while a spool file is on its way; once it gives true that put is given up.
        package var isCancelled: (@Sendable () -> Bool)?
        package var traffic = TrafficCounter()

        package init(user: String, knownHostsFiles: [String]) {
            self.user = user
            self.knownHostsFiles = knownHostsFiles
        }
    }

    let location: SFTPLocation
    let options: Options
    let transfer: SFTPTransfer
    let root: String
    let address: String
    private let hostKey: HostKeyJudgement
    private let clock = Mutex<SFTPClock?>(nil)
    private let isCleaned = Mutex(false)
    /// Directories that `create` has made for this store, the outermost first.
    private let made = Mutex<[String]>([])

    private init(_ location: SFTPLocation, _ options: Options) throws(StorageError) {
        self.location = location
        self.options = options
        address = location.description
        let subject = StorageSubject(operation: .open, key: nil, location: address)
        guard let root = String(validating: location.path, as: UTF8.self),
            !root.hasPrefix("/~/") && root != "/~"
        else {
            throw subject.failure(
                .unsupported, "only ssh can reach a path that is not UTF-8 or begins with /~")
        }
        self.root = root
        let known = KnownHosts(files: options.knownHostsFiles)
        let hostKey = HostKeyJudgement(
            known, location,
            rememberingIn: options.acceptsNewHostKey
                ? options.knownHostsFiles.first : nil)
        self.hostKey = hostKey
        var settings = SFTPTransfer.Options(
            host: location.host, user: location.user ?? options.user,
            trusts: { hostKey.trusts($0) })
        settings.port = location.port
        settings.password = options.password
        settings.privateKeyFile = options.privateKeyFile
        settings.connections = min(max(options.connections, 1), SFTPStore.Options.mostConnections)
        settings.stallSeconds = options.stallSeconds
        settings.expectedKeyLine = known.expectedLine(of: location.host, port: location.port)
        do throws(TransferError) {
            transfer = try SFTPTransfer(settings)
        } catch {
            throw subject.failure(.unsupported, error.text)
        }
    }

    /// Connects, and opens the store in a directory that is there.
    ///
    /// - Throws: `.notFound`, `.notADirectory`; `.untrusted` where the host is not known or has
    ///   another key, `.denied` where the login is refused, `.unavailable`.
    package static func open(
        at location: SFTPLocation, options: Options
    ) throws(StorageError) -> DirectSFTPStore {
        let store = try DirectSFTPStore(location, options)
        let subject = store.subject(.open)
        let isThere = try store.hasRoot(subject)
        guard isThere else {
            throw subject.failure(.notFound, "there is no such directory on the server")
        }
        guard try store.isDirectory(store.rootPath, subject) else {
            throw subject.failure(.notADirectory, "what has this path is no directory")
        }
        return store
    }

    /// Makes a store in a directory that is new or empty, and opens it. Missing parents are made.
    ///
    /// - Throws: `.exists` where something lies in the directory already.
    package static func create(
        at location: SFTPLocation, options: Options
    ) throws(StorageError) -> DirectSFTPStore {
        let store = try DirectSFTPStore(location, options)
        let subject = store.subject(.create)
        let isThere = try store.hasRoot(subject)
        if !isThere { try store.makeRoot(subject) }
        guard try store.isDirectory(store.rootPath, subject) else {
            throw subject.failure(.notADirectory, "what has this path is no directory")
        }
        let names = try store.perform(subject) { () throws(TransferError) in
            try store.transfer.list(store.root, namesOnly: true)
        }
        let harmless = [".", "..", "lost+found", SFTPTemporaries.directoryName]
        if let stranger = names.map({ printable($0) }).filter({ !harmless.contains($0) }).min() {
            throw subject.failure(.exists, "the directory is not empty: \(stranger) lies in it")
        }
        return store
    }

    /// Whether something has the store's path. libcurl asks by opening it for reading, which some
    /// servers refuse where it is a directory: whether it is one is asked next.
    private func hasRoot(_ subject: StorageSubject) throws(StorageError) -> Bool {
        try perform(subject) { () throws(TransferError) in
            do throws(TransferError) {
                return try transfer.status(of: rootPath) != nil
            } catch {
                if error.kind == .refused { return true }
                throw error
            }
        }
    }

    /// Makes the store's directory and whatever is missing above it, and notes what it made.
    private func makeRoot(_ subject: StorageSubject) throws(StorageError) {
        var reached = ""
        for component in root.split(separator: "/") {
            reached += "/" + component
            let directory = reached
            let isMade = try perform(subject) { () throws(TransferError) -> Bool in
                do throws(TransferError) {
                    try transfer.perform([.makeDirectory(directory)])
                    return true
                } catch {
                    // What is there already is refused, in various words.
                    if [.refused, .denied, .missing].contains(error.kind) { return false }
                    throw error
                }
            }
            if isMade { made.withLock { $0.append(directory) } }
        }
    }

    /// Removes the directories that `create` made, as far as nothing lies in them: for a store that
    /// was only to be looked at.
    package func removeMade() {
        let made = made.withLock { $0 }
        guard !made.isEmpty else { return }
        let directories = [path(SFTPTemporaries.directoryName)] + made.reversed()
        try? transfer.perform(
            directories.map { SFTPTransfer.Command.removeDirectory($0) }, toleratingRefusals: true)
    }

    package var capabilities: StoreCapabilities {
        StoreCapabilities(
            conditionalPut: false, rangedReads: true, listingShowsMD5: false,
            listingShowsTime: false, isLocal: false)
    }

    package func makeSpool() throws(StorageError) -> SpoolFile {
        try SpoolFile.temporary(in: options.spoolDirectory)
    }

    // MARK: - Reading

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        let subject = subject(.get, key)
        options.traffic.count(.get)
        let path = path(key.text)
        let bytes = try perform(subject, checking: path) { () throws(TransferError) in
            try transfer.download(path, maximumBytes: maximumBytes)
        }
        options.traffic.count(received: bytes.count)
        return bytes
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        precondition(
            range.lowerBound >= 0 && range.count <= buffer.count, "the buffer is too small")
        let subject = subject(.get, key)
        options.traffic.count(.get)
        guard !range.isEmpty else {
            guard try look(at: key, subject) != nil else {
                throw subject.failure(.notFound, "there is no such object")
            }
            return 0
        }
        let path = path(key.text)
        let count = try perform(subject, checking: path) { () throws(TransferError) in
            try transfer.download(path, range: range, into: buffer)
        }
        options.traffic.count(received: count)
        return count
    }

    package func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        options.traffic.count(.head)
        let subject = subject(.head, key)
        guard let status = try look(at: key, subject),
            try !isDirectory(path(key.text), subject)
        else { return nil }
        return StoredObject(key: key, length: status.length, modified: status.modified)
    }

    /// What stands at the key, be it an object or not.
    private func look(
        at key: ObjectKey, _ subject: StorageSubject
    ) throws(StorageError) -> SFTPTransfer.Status? {
        let path = path(key.text)
        return try perform(subject) { () throws(TransferError) in
            do throws(TransferError) {
                return try transfer.status(of: path)
            } catch {
                // What lies below a file is refused without a word of its own by some servers.
                if error.kind == .refused { return nil }
                throw error
            }
        }
    }

    /// libcurl does not say what a file is; what can be listed is a directory.
    func isDirectory(_ path: String, _ subject: StorageSubject) throws(StorageError) -> Bool {
        try perform(subject) { () throws(TransferError) in
            do throws(TransferError) {
                _ = try transfer.list(path == "/" ? "" : path, namesOnly: true)
                return true
            } catch {
                if error.kind == .refused || error.kind == .missing { return false }
                throw error
            }
        }
    }

    // MARK: - Writing

    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        let subject = subject(.put, key)
        options.traffic.count(.put)
        if try isThere(content, at: key, subject) { return }
        let temporary = SFTPTemporaries.newName()
        do throws(StorageError) {
            try upload(content, to: temporary, subject)
            try publish(temporary, content, at: key, subject)
        } catch {
            try? transfer.perform([.remove(path(temporary))], toleratingRefusals: true)
            throw error
        }
        if content.length >= SFTPStore.transferBytes { removeAbandoned() }
    }

    /// Whether the object is there already.
    ///
    /// - Throws: `.exists` where something else is.
    private func isThere(
        _ content: ObjectContent, at key: ObjectKey, _ subject: StorageSubject
    ) throws(StorageError) -> Bool {
        guard let found = try look(at: key, subject) else { return false }
        guard try !isDirectory(path(key.text), subject) else {
            throw subject.failure(.exists, "something else has this name")
        }
        guard found.length == content.length else {
            throw subject.failure(
                .exists, "it is there with \(found.length) bytes instead of \(content.length)")
        }
        return true
    }

    private func upload(
        _ content: ObjectContent, to name: String, _ subject: StorageSubject
    ) throws(StorageError) {
        let body: TransferRequest.Body
        var isCancelled: (@Sendable () -> Bool)?
        switch content.body {
        case .bytes(let bytes): body = .bytes(bytes)
        case .file(let file):
            precondition(
                file.length == content.length, "a spool file was appended to after its digest")
            body = .file(descriptor: file.fileDescriptor, offset: 0, length: content.length)
            isCancelled = options.isCancelled
        }
        let path = path(name)
        let traffic = try perform(subject, neededBytes: content.length) {
            () throws(TransferError) in
            do throws(TransferError) {
                return try transfer.upload(
                    body, to: path, permissions: 0o600, pacer: content.pacer,
                    isCancelled: isCancelled)
            } catch {
                guard error.kind == .missing else { throw error }
                try transfer.perform(
                    [.makeDirectory(self.path(SFTPTemporaries.directoryName))],
                    toleratingRefusals: true)
                return try transfer.upload(
                    body, to: path, permissions: 0o600, pacer: content.pacer,
                    isCancelled: isCancelled)
            }
        }
        options.traffic.count(sent: traffic.bytesSent)
    }

    /// Gives the complete temporary file its name.
    private func publish(
        _ temporary: String, _ content: ObjectContent, at key: ObjectKey,
        _ subject: StorageSubject
    ) throws(StorageError) {
        // Where rename may replace what is there, a look right before it is all that can be done.
        let rename = SFTPTransfer.Command.rename(path(temporary), to: path(key.text))
        var hasDirectories = false
        while true {
            if try isThere(content, at: key, subject) {
                try? transfer.perform([.remove(path(temporary))], toleratingRefusals: true)
                return
            }
            do throws(TransferError) {
                return try transfer.perform([rename])
            } catch {
                // It may have been carried out, and only the answer have been lost.
                if try isThere(content, at: key, subject) { return }
                guard error.kind == .missing || error.kind == .refused, !hasDirectories,
                    !key.directory.isEmpty
                else { throw explained(error, subject) }
            }
            try makeDirectories(String(key.directory), below: root + "/", subject)
            hasDirectories = true
        }
    }

    private func makeDirectories(
        _ name: String, below parent: String, _ subject: StorageSubject
    ) throws(StorageError) {
        var commands: [SFTPTransfer.Command] = []
        var reached = parent
        for component in name.split(separator: "/") {
            reached += (reached.isEmpty || reached.last != "/" ? "/" : "") + component
            commands.append(.makeDirectory(reached))
        }
        // Those that are there already are refused.
        try perform(subject) { () throws(TransferError) in
            try transfer.perform(commands, toleratingRefusals: true)
        }
    }

    package func delete(_ key: ObjectKey) throws(StorageError) {
        let subject = subject(.delete, key)
        options.traffic.count(.delete)
        let path = path(key.text)
        do throws(TransferError) {
            try transfer.perform([.remove(path)])
        } catch {
            if error.kind == .missing { return }
            guard error.kind == .refused || error.isTransient else {
                throw explained(error, subject)
            }
            // A directory is no object, and an answer may have been lost.
            if try look(at: key, subject) == nil { return }
            if try isDirectory(path, subject) { return }
            guard error.isTransient else { throw explained(error, subject) }
            try perform(subject) { () throws(TransferError) in
                try transfer.perform([.remove(path)])
            }
        }
    }

    package func currentTime() throws(StorageError) -> Int64 {
        if let known = clock.withLock({ $0 }),
            SFTPClock.now - known.measured <= SFTPClock.validSeconds
        {
            return SFTPClock.now + known.offset
        }
        let subject = subject(.clock)
        options.traffic.count(.other)
        let name = SFTPTemporaries.newName()
        try upload(
            ObjectContent(bytes: [0], digest: [UInt8](repeating: 0, count: 32)), to: name, subject)
        let status = try perform(subject) { () throws(TransferError) in
            try transfer.status(of: path(name))
        }
        try? transfer.perform([.remove(path(name))], toleratingRefusals: true)
        guard let time = status?.modified else {
            throw subject.failure(.unsupported, "the server tells no times of files")
        }
        let now = SFTPClock.now
        clock.withLock { $0 = SFTPClock(offset: time - now, measured: now) }
        return time
    }

    package func removeEmptyDirectories(below prefix: String) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        guard let directories = try? DirectSFTPListing(self, subject(.delete)).directories(prefix)
        else { return }
        // The server refuses those in which something lies; the store's own stays anyway.
        let removals = directories.reversed().filter { !$0.isEmpty }
            .map { SFTPTransfer.Command.removeDirectory(path(String($0.dropLast()))) }
        if !removals.isEmpty { try? transfer.perform(removals, toleratingRefusals: true) }
    }

    /// Removes what dead processes of this machine have left, once in the life of a store. Never
    /// fails.
    private func removeAbandoned() {
        let isDue = isCleaned.withLock { isCleaned in
            defer { isCleaned = true }
            return !isCleaned
        }
        guard isDue, let now = try? currentTime(),
            let names = try? transfer.list(
                path(SFTPTemporaries.directoryName), namesOnly: true)
        else { return }
        for bytes in names {
            let name = String(decoding: bytes, as: UTF8.self)
            let path = path("\(SFTPTemporaries.directoryName)/\(name)")
            guard name.hasPrefix("sftp-"), let status = try? transfer.status(of: path),
                SFTPTemporaries.isAbandoned(name, modified: status.modified ?? now, now: now)
            else { continue }
            try? transfer.perform([.remove(path)], toleratingRefusals: true)
        }
    }

    // MARK: - What every operation is made of

    func subject(
        _ operation: StorageError.Operation, _ key: ObjectKey? = nil
    ) -> StorageSubject {
        StorageSubject(operation: operation, key: key, location: address)
    }

    var rootPath: String { root.isEmpty ? "/" : root }

    func path(_ name: String) -> String { "\(root)/\(name)" }

    /// Runs `body`, and once more where the connection was lost: one that was kept may have ended
    /// unnoticed.
    ///
    /// - Parameter path: Where that stands for an object and cannot be read, it is asked whether it
    ///   is one.
    func perform<Result>(
        _ subject: StorageSubject, checking path: String? = nil, neededBytes: Int = 0,
        _ body: () throws(TransferError) -> Result
    ) throws(StorageError) -> Result {
        var isRepeated = false
        while true {
            do throws(TransferError) {
                return try body()
            } catch {
                if error.kind == .reset && !isRepeated {
                    isRepeated = true
                    options.traffic.countRetry()
                    continue
                }
                guard error.kind == .refused || error.kind == .reset else {
                    throw subject.failure(error, hostKey)
                }
                if let path, try isDirectory(path, subject) {
                    throw subject.failure(.notFound, "what has this name is no file")
                }
                throw explained(error, subject, neededBytes: neededBytes)
            }
        }
    }

    /// What a failure means for the store, asked for where nothing but the failure was told.
    private func explained(
        _ error: TransferError, _ subject: StorageSubject, neededBytes: Int = 0
    ) -> StorageError {
        guard error.kind == .refused || error.kind == .reset else {
            return subject.failure(error, hostKey)
        }
        if let available = try? transfer.availableBytes(at: rootPath),
            available < UInt64(max(neededBytes, 64 << 10))
        {
            return subject.failure(
                .noSpace, "\(available) bytes are left on the server's file system")
        }
        return subject.failure(error, hostKey)
    }
}

extension StorageSubject {
    func failure(_ error: TransferError, _ hostKey: HostKeyJudgement) -> StorageError {
        if error.kind == .untrusted, let failure = hostKey.failure(self) { return failure }
        let (kind, hint): (StorageError.Kind, String?) =
            switch error.kind {
            case .missing: (.notFound, nil)
            case .denied: (.denied, nil)
            case .full: (.noSpace, nil)
            case .refused: (.io, "look at the server's log and its disk; a quota may be reached")
            case .tooLarge: (.tooLarge, nil)
            case .login:
                (.denied, "check the user's name and the password, or the key, for this server")
            case .untrusted, .certificateFile: (.untrusted, nil)
            case .tls:
                (
                    .unsupported,
                    "this way of connecting is older than the server allows; install the OpenSSH"
                        + " client and leave --password-file out"
                )
            case .resolve: (.unavailable, "check the host's name and this host's network")
            case .connect, .timeout, .stall, .reset, .shortage: (.unavailable, nil)
            case .cancelled: (.unavailable, nil)
            case .file, .protocolViolation: (.io, nil)
            case .invalidRequest: (.unsupported, nil)
            }
        return StorageError(
            kind, operation, key: key, location: location, cause: error.text,
            isTransient: error.isTransient, hint: hint)
    }
}
