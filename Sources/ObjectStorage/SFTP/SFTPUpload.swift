import Glibc
import Synchronization
import Transfer

/// One put over one connection: a temporary file, its bytes, and its new name.
///
/// Three round trips for a small object on OpenSSH, which carries requests out in their order: what
/// stands at the name together with the new file; bytes, synchronisation and close together; the
/// rename, which comes only when all of that has been confirmed, with the synchronisation of its
/// directory. Of another server each step is awaited.
struct SFTPUpload {
    private let store: SFTPStore
    private let exchange: SFTPExchange
    private let content: ObjectContent
    private let key: ObjectKey
    private let subject: StorageSubject
    private let temporary = SFTPTemporaries.newName()
    /// Asked until all bytes of a bundle have arrived. What is put from memory is small, and what an
    /// interrupted run leaves relies on it.
    private let isCancelled: (@Sendable () -> Bool)?

    init(
        _ store: SFTPStore, over exchange: SFTPExchange, _ content: ObjectContent,
        at key: ObjectKey, _ subject: StorageSubject
    ) {
        self.store = store
        self.exchange = exchange
        self.content = content
        self.key = key
        self.subject = subject
        if case .file = content.body {
            isCancelled = store.options.isCancelled
        } else {
            isCancelled = nil
        }
    }

    private var finalPath: [UInt8] { store.path(key.text) }
    private var temporaryPath: [UInt8] { store.path(temporary) }

    func run() throws(SFTPFailure) {
        do throws(SFTPFailure) {
            try upload()
        } catch {
            discard(after: error)
            throw error
        }
    }

    private func upload() throws(SFTPFailure) {
        try checkWanted()
        var requests: [SFTPRequest] = [
            .lstat(finalPath),
            .createNew(temporaryPath, permissions: store.permissions.file),
        ]
        if exchange.connection.abilities.canSynchronize {
            requests.append(.openForReading(directorySync.path))
        }
        let first = try exchange.ask(all: requests)
        var directory: [UInt8]?
        if requests.count > 2, case .handle(let handle) = first[2] { directory = handle }
        defer { if let directory { exchange.sendAndForget(.close(directory)) } }
        if try isThere(first[0], creation: first[1]) {
            // Another process may be about to synchronise it, and may die before it does.
            return try synchronizeExisting()
        }
        let handle = try store.openedTemporary(first[1], temporary, exchange, subject)
        try write(to: handle)
        try publish(in: directory)
    }

    private var directorySync: SFTPDirectorySync {
        SFTPDirectorySync(store, String(key.directory), over: exchange)
    }

    /// Sees to it that the temporary file goes, now or over the next connection.
    private func discard(after failure: SFTPFailure) {
        exchange.finish()
        if exchange.connection.isAlive {
            exchange.sendAndForget(.remove(temporaryPath))
        } else {
            store.temporaries.withLock { $0.left.append(temporary) }
        }
    }

    // MARK: - What stands at the name

    /// Whether the object is there already; where it is, or something else, the temporary file that
    /// has been made beside the look is given up.
    private func isThere(
        _ reply: SFTPReply, creation: SFTPReply
    ) throws(SFTPFailure) -> Bool {
        func giveUp() {
            guard case .handle(let handle) = creation else { return }
            exchange.sendAndForget(.close(handle))
            exchange.sendAndForget(.remove(temporaryPath))
        }
        do throws(SFTPFailure) {
            let isThere = try isThere(reply)
            if isThere { giveUp() }
            return isThere
        } catch {
            giveUp()
            throw error
        }
    }

    /// Whether the object is there already, by the answer to a look at its name.
    ///
    /// - Throws: `.exists` where something else is.
    private func isThere(_ reply: SFTPReply) throws(SFTPFailure) -> Bool {
        guard case .attributes(let found) = reply else {
            // Whatever keeps the server from telling will keep it from renaming, and is said then.
            _ = try exchange.status(of: reply)
            return false
        }
        guard store.isObject(found), let size = found.size else {
            throw .other(subject.failure(.exists, "something else has this name"))
        }
        guard size == UInt64(content.length) else {
            throw .other(
                subject.failure(
                    .exists, "it is there with \(size) bytes instead of \(content.length)"))
        }
        return true
    }

    private func synchronizeExisting() throws(SFTPFailure) {
        guard exchange.connection.abilities.canSynchronize else { return }
        if let handle = try exchange.handle(.openForReading(finalPath)) {
            defer { exchange.sendAndForget(.close(handle)) }
            try exchange.checkOK(try exchange.ask(.fsync(handle)))
        }
        try directorySync.run()
    }

    // MARK: - Bytes

    private func write(to handle: [UInt8]) throws(SFTPFailure) {
        do throws(SFTPFailure) {
            try sendAll(to: handle)
            let abilities = exchange.connection.abilities
            if !abilities.isOpenSSH { try checkAll() }
            if abilities.canSynchronize { try exchange.send(.fsync(handle)) }
            if !abilities.isOpenSSH { try checkAll() }
            try exchange.send(.close(handle))
            try checkAll()
        } catch {
            // What is on a slow line may stay there for minutes, and nobody wants it any more.
            if isCancelled?() == true, !exchange.waitForAll(milliseconds: 2_000) {
                exchange.connection.close()
            }
            exchange.finish()
            exchange.sendAndForget(.close(handle))
            guard case .refused(let status) = error else { throw error }
            throw try store.explained(
                status, exchange, subject, neededBytes: content.length)
        }
    }

    /// Waits for every answer that is due; each must be that all went well.
    private func checkAll() throws(SFTPFailure) {
        while exchange.outstanding > 0 { try checkNext() }
    }

    /// Waits for one answer that is due; it must be that all went well.
    private func checkNext() throws(SFTPFailure) {
        if isCancelled != nil {
            while !exchange.waitForNext(milliseconds: 200) { try checkWanted() }
        }
        try exchange.checkOK(try exchange.next().reply)
    }

    private func checkWanted() throws(SFTPFailure) {
        if isCancelled?() == true { throw .other(subject.failure(.unavailable, "interrupted")) }
    }

    private func sendAll(to handle: [UInt8]) throws(SFTPFailure) {
        let pieceBytes = exchange.connection.limits.writeBytes
        let window = max(2, SFTPStore.windowBytes / pieceBytes)
        let buffer: UnsafeMutableRawBufferPointer
        if case .file = content.body {
            buffer = .allocate(byteCount: pieceBytes, alignment: 16)
        } else {
            buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
        }
        defer { buffer.deallocate() }
        var offset = 0
        while offset < content.length {
            while exchange.outstanding >= window { try checkNext() }
            try checkWanted()
            let count = try granted(min(pieceBytes, content.length - offset))
            try send(offset..<offset + count, to: handle, buffer)
            store.options.traffic.count(sent: count)
            offset += count
        }
    }

    /// Waits until some of `wanted` bytes may leave.
    private func granted(_ wanted: Int) throws(SFTPFailure) -> Int {
        guard let pacer = content.pacer else { return wanted }
        while true {
            try checkWanted()
            let grant = pacer.grant(wanted)
            if grant.bytes > 0 { return min(grant.bytes, wanted) }
            usleep(UInt32(clamping: min(max(grant.waitNanoseconds / 1_000, 100), 500_000)))
        }
    }

    private func send(
        _ range: Range<Int>, to handle: [UInt8], _ buffer: UnsafeMutableRawBufferPointer
    ) throws(SFTPFailure) {
        let request = SFTPRequest.write(handle, offset: range.lowerBound, count: range.count)
        switch content.body {
        case .bytes(let bytes):
            try bytes.withUnsafeBufferPointer { (bytes) throws(SFTPFailure) in
                let piece = UnsafeBufferPointer(rebasing: bytes[range])
                try exchange.send(request, body: UnsafeRawBufferPointer(piece))
            }
        case .file(let file):
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
            let count: Int
            do throws(StorageError) {
                count = try file.read(at: range.lowerBound, into: piece)
            } catch {
                throw .other(error)
            }
            guard count == range.count else {
                throw .other(subject.failure(.lost, "the spool file became shorter"))
            }
            try exchange.send(request, body: UnsafeRawBufferPointer(piece))
        }
    }

    // MARK: - The name

    /// Gives the complete temporary file its name.
    ///
    /// - Parameter directory: An open handle of the directory that the name is in.
    private func publish(in directory: [UInt8]?) throws(SFTPFailure) {
        // Where rename may replace what is there, a look right before it is all that can be done.
        if !exchange.connection.abilities.isOpenSSH,
            try isThere(try exchange.ask(.lstat(finalPath)))
        {
            return exchange.sendAndForget(.remove(temporaryPath))
        }
        var status: SFTPStatus
        if let directory, exchange.connection.abilities.isOpenSSH, directorySync.isDurable {
            let isDone: Bool
            (status, isDone) = try renameAndSynchronize(directory)
            if isDone { return }
        } else {
            status = try exchange.status(.rename(temporaryPath, to: finalPath))
        }
        if !status.isOK {
            // The directory may be missing, the name may be taken, or the server means something
            // else: a look tells.
            if try isThere(try exchange.ask(.lstat(finalPath))) {
                exchange.sendAndForget(.remove(temporaryPath))
                return try synchronizeExisting()
            }
            try makeDirectories()
            status = try exchange.status(.rename(temporaryPath, to: finalPath))
        }
        // Some servers know only the rename that replaces. Nothing stands there, as was just seen.
        if !status.isOK && exchange.connection.abilities.canReplaceByRename {
            if try isThere(try exchange.ask(.lstat(finalPath))) {
                exchange.sendAndForget(.remove(temporaryPath))
                return try synchronizeExisting()
            }
            status = try exchange.status(.posixRename(temporaryPath, to: finalPath))
        }
        guard status.isOK else { throw try store.explained(status, exchange, subject) }
        try directorySync.run()
    }

    /// Renames, and has the directory synchronised in the same round trip.
    ///
    /// - Returns: How the rename went, and whether the name is on the disk: a synchronisation that
    ///   was answered first may have come before the rename.
    private func renameAndSynchronize(
        _ directory: [UInt8]
    ) throws(SFTPFailure) -> (SFTPStatus, isDone: Bool) {
        try exchange.send(.rename(temporaryPath, to: finalPath), tag: 0)
        try exchange.send(.fsync(directory), tag: 1)
        let first = try exchange.next()
        let second = try exchange.next()
        let renamed = try exchange.status(of: first.tag == 0 ? first.reply : second.reply)
        let synchronized = try exchange.status(of: first.tag == 0 ? second.reply : first.reply)
        return (renamed, first.tag == 0 && renamed.isOK && synchronized.isOK)
    }

    /// Makes every directory on the way to the object; those that are there already stay.
    private func makeDirectories() throws(SFTPFailure) {
        var reached = ""
        var requests: [SFTPRequest] = []
        for component in key.directory.split(separator: "/") {
            reached += reached.isEmpty ? String(component) : "/\(component)"
            requests.append(
                .mkdir(store.path(reached), permissions: store.permissions.directory))
            store.durable.withLock { _ = $0.remove(reached) }
        }
        _ = try exchange.ask(all: requests)
    }
}
