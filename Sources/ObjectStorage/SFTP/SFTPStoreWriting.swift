import Synchronization

/// What the SFTP store changes.
extension SFTPStore {
    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        let subject = subject(.put, key)
        if case .file(let file) = content.body {
            precondition(
                file.length == content.length, "a spool file was appended to after its digest")
        }
        options.traffic.count(.put)
        let isTransfer = content.length >= SFTPStore.transferBytes
        try perform(subject, isTransfer: isTransfer) { (exchange) throws(SFTPFailure) in
            try removeLeftovers(exchange)
            let upload = SFTPUpload(self, over: exchange, content, at: key, subject)
            try upload.run()
        }
        // Only a run that has much to store pays for tidying up.
        if isTransfer { removeAbandoned() }
    }

    package func delete(_ key: ObjectKey) throws(StorageError) {
        let subject = subject(.delete, key)
        options.traffic.count(.delete)
        try perform(subject) { (exchange) throws(SFTPFailure) in
            let directory = SFTPDirectorySync(self, String(key.directory), over: exchange)
            let status = try exchange.status(.remove(path(key.text)))
            if !status.isOK && !status.isMissing {
                // Neither a directory nor what lies below a file is an object.
                switch try exchange.ask(.lstat(path(key.text))) {
                case .attributes(let found) where isObject(found):
                    throw try explained(status, exchange, subject)
                case .attributes, .status: return
                case let reply: throw exchange.unexpected(reply)
                }
            }
            // Also where it was gone already: whoever removed it may not have got this far.
            try directory.run()
        }
    }

    package func currentTime() throws(StorageError) -> Int64 {
        if let known = clock.withLock({ $0 }),
            SFTPClock.now - known.measured <= SFTPClock.validSeconds
        {
            return SFTPClock.now + known.offset
        }
        // A new file has the time of whoever keeps the file system.
        let subject = subject(.clock)
        options.traffic.count(.other)
        let time = try perform(subject) { (exchange) throws(SFTPFailure) in
            let name = SFTPTemporaries.newName()
            let handle = try createTemporary(name, exchange, subject)
            let attributes = try exchange.attributes(.fstat(handle))
            exchange.sendAndForget(.close(handle))
            exchange.sendAndForget(.remove(path(name)))
            guard let modified = attributes?.modified else {
                throw .other(subject.failure(.unsupported, "the server tells no times of files"))
            }
            return Int64(modified)
        }
        let now = SFTPClock.now
        clock.withLock { $0 = SFTPClock(offset: time - now, measured: now) }
        return time
    }

    package func removeEmptyDirectories(below prefix: String) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        let subject = subject(.delete)
        try? perform(subject) { (exchange) throws(SFTPFailure) in
            let listing = SFTPListing(self, over: exchange, subject)
            let directories = try listing.directories(prefix: prefix)
            // The server refuses those in which something lies; the store's own stays anyway.
            let removals = directories.reversed().filter { !$0.isEmpty }
                .map { SFTPRequest.rmdir(path($0.dropLast())) }
            durable.withLock { $0.removeAll() }
            _ = try exchange.ask(all: removals)
        }
    }

    // MARK: - Temporary files

    /// Makes a temporary file and the directory for it where that is missing.
    func createTemporary(
        _ name: String, _ exchange: SFTPExchange, _ subject: StorageSubject
    ) throws(SFTPFailure) -> [UInt8] {
        let request = SFTPRequest.createNew(path(name), permissions: permissions.file)
        return try openedTemporary(try exchange.ask(request), name, exchange, subject)
    }

    /// The handle that `reply` to the creation of a temporary file gives, after a second attempt
    /// where the directory for it is missing. No other answer must be due.
    func openedTemporary(
        _ reply: SFTPReply, _ name: String, _ exchange: SFTPExchange, _ subject: StorageSubject
    ) throws(SFTPFailure) -> [UInt8] {
        do throws(SFTPFailure) {
            if let handle = try exchange.handle(of: reply) { return handle }
            try makeDirectory(SFTPTemporaries.directoryName, exchange)
            let request = SFTPRequest.createNew(path(name), permissions: permissions.file)
            if let handle = try exchange.handle(request) { return handle }
            throw .other(subject.failure(.notFound, "the store's directory has gone"))
        } catch {
            guard case .refused(let status) = error else { throw error }
            throw try explained(status, exchange, subject)
        }
    }

    /// Makes one directory; one that is there already is as good.
    func makeDirectory(_ name: String, _ exchange: SFTPExchange) throws(SFTPFailure) {
        _ = try exchange.status(.mkdir(path(name), permissions: permissions.directory))
    }

    /// Removes what lost connections of this process have left.
    private func removeLeftovers(_ exchange: SFTPExchange) throws(SFTPFailure) {
        let left = temporaries.withLock { temporaries in
            defer { temporaries.left = [] }
            return temporaries.left
        }
        for name in left { exchange.sendAndForget(.remove(path(name))) }
    }

    /// Removes what dead processes have left, once in the life of a store. Never fails: what cannot
    /// be removed now is met again.
    private func removeAbandoned() {
        let isDue = temporaries.withLock { temporaries in
            defer { temporaries.isCleaned = true }
            return !temporaries.isCleaned
        }
        guard isDue, let now = try? currentTime() else { return }
        try? perform(subject(.delete)) { (exchange) throws(SFTPFailure) in
            guard
                let handle = try exchange.handle(
                    .opendir(path(SFTPTemporaries.directoryName)))
            else { return }
            defer { exchange.sendAndForget(.close(handle)) }
            while case .names(let names) = try exchange.ask(.readdir(handle)), !names.isEmpty {
                for entry in names where entry.attributes.kind == .file {
                    guard let name = String(validating: entry.name, as: UTF8.self),
                        let modified = entry.attributes.modified,
                        SFTPTemporaries.isAbandoned(name, modified: Int64(modified), now: now)
                    else { continue }
                    exchange.sendAndForget(
                        .remove(path("\(SFTPTemporaries.directoryName)/\(name)")))
                }
            }
        }
    }

    // MARK: - What a failure means

    /// What it means that the server refused to change something, asked for where version 3 has no
    /// word for it.
    ///
    /// - Parameter neededBytes: What was to be stored.
    func explained(
        _ status: SFTPStatus, _ exchange: SFTPExchange, _ subject: StorageSubject,
        neededBytes: Int = 0
    ) throws(SFTPFailure) -> SFTPFailure {
        exchange.finish()
        let isUnclear = status.meaning == nil || status.meaning == .denied
        guard isUnclear, let fileSystem = try fileSystem(exchange) else {
            return .refused(status)
        }
        // A directory of its own for a new file takes a little room as well.
        let needed = UInt64(max(neededBytes, 64 << 10))
        if fileSystem.isReadOnly {
            return .other(subject.failure(.readOnly, "the server's file system is read-only"))
        }
        if status.meaning == nil && fileSystem.availableBytes < needed {
            return .other(
                subject.failure(
                    .noSpace,
                    "\(fileSystem.availableBytes) bytes are left on the server's file system"))
        }
        if status.meaning == nil && !fileSystem.hasFreeFiles {
            return .other(
                subject.failure(.noSpace, "the server's file system takes no further file"))
        }
        return .refused(status)
    }

    private func fileSystem(_ exchange: SFTPExchange) throws(SFTPFailure) -> SFTPFileSystem? {
        guard exchange.connection.abilities.canTellFileSystem,
            case .extended(let reply) = try exchange.ask(
                .statvfs(location.rootPath))
        else { return nil }
        return try? SFTPFileSystem(reply)
    }
}
