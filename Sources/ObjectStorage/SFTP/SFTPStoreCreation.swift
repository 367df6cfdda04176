import Synchronization

extension SFTPStore {
    /// Makes a store over connections of the caller's.
    static func create(
        at location: SFTPLocation, options: Options, connections: SFTPConnections
    ) throws(StorageError) -> SFTPStore {
        let subject = StorageSubject(
            operation: .create, key: nil, location: location.description)
        let made = try perform(connections, subject, options) {
            (exchange) throws(SFTPFailure) -> [[UInt8]] in
            let made = try makeDirectories(location, exchange)
            try checkEmpty(location, exchange, subject)
            return made
        }
        let store = try open(at: location, options: options, connections: connections)
        store.made.withLock { $0 = made }
        return store
    }

    /// Removes the directories that `create` made, as far as nothing lies in them: for a store that
    /// was only to be looked at.
    package func removeMade() {
        let made = made.withLock { $0 }
        guard !made.isEmpty else { return }
        try? perform(subject(.delete)) { (exchange) throws(SFTPFailure) in
            _ = try exchange.status(.rmdir(path(SFTPTemporaries.directoryName)))
            for directory in made.reversed() { _ = try exchange.status(.rmdir(directory)) }
        }
    }

    /// Makes the store's directory and whatever is missing above it, and gives what it made.
    private static func makeDirectories(
        _ location: SFTPLocation, _ exchange: SFTPExchange
    ) throws(SFTPFailure) -> [[UInt8]] {
        guard !location.path.isEmpty else { return [] }
        if try exchange.attributes(.stat(location.path)) != nil { return [] }
        var path: [UInt8] = []
        var made: [[UInt8]] = []
        var refused: SFTPStatus?
        for component in location.path.split(separator: UInt8(ascii: "/")) {
            path += [UInt8(ascii: "/")] + component
            let status = try exchange.status(.mkdir(path, permissions: 0o700))
            // What is there already is refused by most servers, in various words.
            if status.isOK { made.append(path) } else { refused = status }
        }
        if try exchange.attributes(.stat(location.path)) == nil, let refused {
            throw .refused(refused)
        }
        return made
    }

    private static func checkEmpty(
        _ location: SFTPLocation, _ exchange: SFTPExchange, _ subject: StorageSubject
    ) throws(SFTPFailure) {
        guard let handle = try exchange.handle(.opendir(location.rootPath)) else {
            throw .other(subject.failure(.notADirectory, "what has this path is no directory"))
        }
        defer { exchange.sendAndForget(.close(handle)) }
        var strangers: [String] = []
        while true {
            let reply = try exchange.ask(.readdir(handle))
            guard case .names(let names) = reply, !names.isEmpty else {
                let status = try exchange.status(of: reply)
                guard status.isEndOfFile else { throw .refused(status) }
                break
            }
            // A fresh ext4 file system has a directory lost+found; a creation that was cut short
            // may have left the directory for temporary files.
            let harmless = [".", "..", "lost+found", SFTPTemporaries.directoryName]
            strangers += names.map { printable($0.name) }.filter { !harmless.contains($0) }
            if strangers.count > 1_000 { break }
        }
        if let stranger = strangers.min() {
            throw .other(
                subject.failure(.exists, "the directory is not empty: \(stranger) lies in it"))
        }
    }
}
