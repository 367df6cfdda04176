/// What the SFTP store does without changing anything.
extension SFTPStore {
    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        let subject = subject(.get, key)
        options.traffic.count(.get)
        // What is read whole is small, whatever the caller would bear.
        return try perform(subject) { (exchange) throws(SFTPFailure) in
            try open(key, exchange, subject) { (handle) throws(SFTPFailure) in
                try readAll(handle, exchange, maximumBytes: maximumBytes, subject)
            }
        }
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        precondition(
            range.lowerBound >= 0 && range.count <= buffer.count, "the buffer is too small")
        let subject = subject(.get, key)
        options.traffic.count(.get)
        let target = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
        return try perform(subject, isTransfer: range.count >= SFTPStore.transferBytes) {
            (exchange) throws(SFTPFailure) in
            try open(key, exchange, subject) { (handle) throws(SFTPFailure) in
                try read(handle, exchange, at: range.lowerBound, into: target)
            }
        }
    }

    package func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        let subject = subject(.head, key)
        options.traffic.count(.head)
        return try perform(subject) { (exchange) throws(SFTPFailure) in
            let found: SFTPAttributes?
            do throws(SFTPFailure) {
                found = try exchange.attributes(.lstat(path(key.text)))
            } catch {
                // Some servers have no word of their own for a name below what is no directory.
                if case .refused = error, try isBelowFile(key.text, exchange) { return nil }
                throw error
            }
            guard let found, isObject(found), let size = found.size else { return nil }
            return StoredObject(
                key: key, length: Int(clamping: size), modified: found.modified.map(Int64.init))
        }
    }

    // MARK: - What reading is made of

    /// Moves of at least so many bytes are worth a connection of their own.
    static let transferBytes = 1 << 20
    /// More than this is never read whole, whatever length a server tells.
    static let wholeBytes = 4 << 30
    /// Bytes that may be on their way at once over one connection: what ssh lets pass before the
    /// other side has taken any of it is 2 MiB, so twice that keeps it busy.
    static let windowBytes = 4 << 20

    /// A server that tells no kind tells at least a size, and of nothing else would it.
    func isObject(_ attributes: SFTPAttributes) -> Bool {
        attributes.kind == .file || (attributes.kind == nil && attributes.size != nil)
    }

    /// Whether something that is no directory stands where one would have to be for `name`.
    func isBelowFile(_ name: String, _ exchange: SFTPExchange) throws(SFTPFailure) -> Bool {
        var rest = name[...]
        while let slash = rest.lastIndex(of: "/") {
            rest = rest[..<slash]
            switch try exchange.ask(.lstat(path(rest))) {
            case .attributes(let attributes): return attributes.kind == .file
            // Further up, then: this one is itself below it, or is not there.
            case .status: continue
            case let reply: throw exchange.unexpected(reply)
            }
        }
        return false
    }

    /// Opens the object for `body`, and says what it means where that fails.
    private func open<Result>(
        _ key: ObjectKey, _ exchange: SFTPExchange, _ subject: StorageSubject,
        _ body: ([UInt8]) throws(SFTPFailure) -> Result
    ) throws(SFTPFailure) -> Result {
        do throws(SFTPFailure) {
            guard let handle = try exchange.handle(.openForReading(path(key.text))) else {
                throw .other(subject.failure(.notFound, "there is no such object"))
            }
            defer { exchange.sendAndForget(.close(handle)) }
            return try body(handle)
        } catch {
            guard case .refused(let status) = error, status.meaning == nil else { throw error }
            // Whether it is an object at all: some servers open a directory and fail to read it.
            if case .attributes(let found) = try exchange.ask(.lstat(path(key.text))) {
                guard isObject(found) else {
                    throw .other(subject.failure(.notFound, "what has this name is no file"))
                }
            } else if try isBelowFile(key.text, exchange) {
                throw .other(subject.failure(.notFound, "there is no such object"))
            }
            throw error
        }
    }

    /// Reads an open file whole. Length and first bytes are asked for together, since most objects
    /// are read whole because they are small.
    private func readAll(
        _ handle: [UInt8], _ exchange: SFTPExchange, maximumBytes: Int, _ subject: StorageSubject
    ) throws(SFTPFailure) -> [UInt8] {
        let first = UnsafeMutableRawBufferPointer.allocate(
            byteCount: exchange.connection.limits.readBytes, alignment: 16)
        defer {
            exchange.finish()
            first.deallocate()
        }
        try exchange.send(.fstat(handle), tag: 0)
        try exchange.send(.read(handle, offset: 0, count: first.count), tag: 1, into: first)
        var attributes: SFTPAttributes?
        var firstCount = 0
        for _ in 0..<2 {
            let (tag, reply) = try exchange.next()
            if tag == 0 {
                attributes = try exchange.attributes(of: reply)
            } else if case .data(let count) = reply {
                firstCount = count
            } else {
                let status = try exchange.status(of: reply)
                guard status.isEndOfFile else { throw .refused(status) }
            }
        }
        guard let attributes, let size = attributes.size, isObject(attributes) else {
            throw .other(subject.failure(.notFound, "what has this name is no file"))
        }
        let bound = min(maximumBytes, SFTPStore.wholeBytes)
        guard size <= UInt64(bound) else {
            throw .other(
                subject.failure(
                    .tooLarge, "it has \(size) bytes where at most \(bound) are expected"))
        }
        let length = Int(size)
        let known = UnsafeRawBufferPointer(rebasing: first[..<min(firstCount, length)])
        options.traffic.count(received: known.count)
        let bytes = try [UInt8](unsafeUninitializedCapacity: length) {
            (buffer, count) throws(SFTPFailure) in
            let target = UnsafeMutableRawBufferPointer(
                UnsafeMutableBufferPointer(rebasing: buffer[..<length]))
            target.copyMemory(from: known)
            let rest = UnsafeMutableRawBufferPointer(rebasing: target[known.count...])
            count = known.count
            if !rest.isEmpty { count += try read(handle, exchange, at: count, into: rest) }
        }
        guard bytes.count == length else {
            throw .other(subject.failure(.lost, "it became shorter while it was read"))
        }
        return bytes
    }

    /// Reads from an open file until `target` is full or the file ends, with many requests on their
    /// way at once. Answers may come in any order and may be shorter than asked for.
    private func read(
        _ handle: [UInt8], _ exchange: SFTPExchange, at offset: Int,
        into target: UnsafeMutableRawBufferPointer
    ) throws(SFTPFailure) -> Int {
        // Nothing may be written into the target once this has returned.
        defer { exchange.finish() }
        let pieceBytes = exchange.connection.limits.readBytes
        let window = max(2, SFTPStore.windowBytes / pieceBytes)
        /// What each request asks for, by its tag.
        var pieces: [Range<Int>] = []
        /// What short answers left out.
        var missing: [Range<Int>] = []
        var next = 0
        var end = target.count
        var due = 0
        while true {
            while due < window {
                let piece: Range<Int>
                if let left = missing.popLast() {
                    piece = left
                } else if next < end {
                    piece = next..<min(end, next + pieceBytes)
                    next = piece.upperBound
                } else {
                    break
                }
                guard piece.lowerBound < end else { continue }
                try exchange.send(
                    .read(handle, offset: offset + piece.lowerBound, count: piece.count),
                    tag: pieces.count,
                    into: UnsafeMutableRawBufferPointer(rebasing: target[piece]))
                pieces.append(piece)
                due += 1
            }
            guard due > 0 else { break }
            let (tag, reply) = try exchange.next()
            due -= 1
            let piece = pieces[tag]
            if case .data(let count) = reply {
                options.traffic.count(received: count)
                if count < piece.count {
                    missing.append(piece.lowerBound + count..<piece.upperBound)
                }
            } else {
                let status = try exchange.status(of: reply)
                guard status.isEndOfFile else { throw .refused(status) }
                end = min(end, piece.lowerBound)
            }
        }
        return end
    }
}
