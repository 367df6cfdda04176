import CLibCurl
import CSystem
import Glibc
import Synchronization

/// SFTP through libcurl: for hosts without an ssh command, and for logging in with a password.
///
/// Every call blocks its thread; any number of threads may call. Each takes one of a few
/// connections, which are kept for the next, and waits where all are busy. Paths are absolute and
/// UTF-8. libssh2, which does the work, knows no fsync, and its rename never replaces.
package final class SFTPTransfer: Sendable {
    package struct Options: Sendable {
        package var host: String
        package var port: Int?
        package var user: String
        /// nil to log in with a key of the agent or of `privateKeyFile`.
        package var password: String?
        package var privateKeyFile: String?
        /// A line in the form of known_hosts that says which kind of key to ask the host for. What
        /// is presented is judged by `trusts` alone.
        package var expectedKeyLine: String?
        /// Judges the key that the host presents, in the encoding of RFC 4253. Called during the
        /// handshake of each connection, on the thread that wants it.
        package var trusts: @Sendable (_ hostKey: [UInt8]) -> Bool
        package var connections = 4
        package var connectSeconds = 30
        /// How long nothing may come or go.
        package var stallSeconds = 60

        package init(host: String, user: String, trusts: @escaping @Sendable ([UInt8]) -> Bool) {
            self.host = host
            self.user = user
            self.trusts = trusts
        }
    }

    /// What can be done without moving content.
    package enum Command: Sendable {
        case makeDirectory(String)
        case removeDirectory(String)
        case remove(String)
        case rename(String, to: String)
    }

    /// What the server tells of a file, which may be a directory: libcurl does not say.
    package struct Status: Sendable {
        package let length: Int
        /// Seconds since 1970.
        package let modified: Int64?
    }

    private let options: Options
    private let handles: HandlePool
    /// Holds `expectedKeyLine` while there are connections to be made.
    private let keyFile: Int32

    /// - Throws: `.invalidRequest` where this libcurl speaks no SFTP.
    package init(_ options: Options) throws(TransferError) {
        Curl.initialize()
        guard SFTPTransfer.isSupported else {
            throw TransferError(
                .invalidRequest, "the libcurl of this host speaks no SFTP", isTransient: false)
        }
        self.options = options
        handles = HandlePool(limit: options.connections)
        keyFile = try SFTPTransfer.write(options.expectedKeyLine)
    }

    deinit { if keyFile >= 0 { _ = csys_close(keyFile) } }

    private static var isSupported: Bool {
        guard let information = curl_version_info(CURLVERSION_FIRST),
            var protocols = information.pointee.protocols
        else { return false }
        while let name = protocols.pointee {
            if String(cString: name) == "sftp" { return true }
            protocols += 1
        }
        return false
    }

    /// libssh2 asks a host for the kind of key that a file names first.
    private static func write(_ line: String?) throws(TransferError) -> Int32 {
        guard let line else { return -1 }
        let file = csys_memory_file("known_hosts")
        let text = Array((line + "\n").utf8)
        guard file >= 0, csys_pwrite(file, text, text.count, 0) == text.count else {
            throw TransferError(.shortage, "no file can be made in memory", isTransient: true)
        }
        return file
    }

    // MARK: - Doing

    /// Carries out `commands` in their order until one fails.
    ///
    /// - Parameter toleratesFailure: Whether a command that the server refuses is passed over.
    /// - Throws: `.refused` and `.missing` with the server's word.
    package func perform(
        _ commands: [Command], toleratingRefusals toleratesFailure: Bool = false
    ) throws(TransferError) {
        let list = HeaderList()
        for command in commands { try list.append((toleratesFailure ? "*" : "") + command.text) }
        _ = try run("/") { easy, _ in
            // A directory of which nothing is wanted: only the commands go out.
            easy.set(CURLOPT_NOBODY, 1)
            easy.set(CURLOPT_QUOTE, list)
        }
    }

    /// Says what stands at `path`; nil where nothing does.
    package func status(of path: String) throws(TransferError) -> Status? {
        let (length, modified): (Int, Int)
        do throws(TransferError) {
            (length, modified) = try run(path) { easy, _ in
                easy.set(CURLOPT_NOBODY, 1)
                easy.set(CURLOPT_FILETIME, 1)
            } then: { easy, _ in
                (
                    easy.offset(CURLINFO_CONTENT_LENGTH_DOWNLOAD_T),
                    easy.offset(CURLINFO_FILETIME_T)
                )
            }
        } catch {
            if error.kind == .missing { return nil }
            throw error
        }
        // libcurl says the same of an empty file and of one whose length is not told.
        guard length >= 0 || !hasContent(path) else {
            throw TransferError(
                .protocolViolation, "the server tells no lengths of files", isTransient: false)
        }
        return Status(
            length: max(length, 0), modified: modified >= 0 ? Int64(modified) : nil)
    }

    private func hasContent(_ path: String) -> Bool {
        var byte: UInt8 = 0
        return withUnsafeMutableBytes(of: &byte) { buffer in
            (try? download(path, range: 0..<1, into: buffer)) == 1
        }
    }

    /// The lines by which the server shows what lies in the directory `path`, as `ls -l` would, or
    /// the names alone.
    package func list(_ path: String, namesOnly: Bool) throws(TransferError) -> [[UInt8]] {
        let text = try run(path + "/") { easy, _ in
            if namesOnly { easy.set(CURLOPT_DIRLISTONLY, 1) }
        } then: { _, running in
            running.collected
        }
        return text.split(separator: UInt8(ascii: "\n")).map { Array($0) }
    }

    /// Writes a new file, or what stands there anew.
    ///
    /// - Parameter isCancelled: Asked about once a second; once it gives true it is given up.
    package func upload(
        _ body: TransferRequest.Body, to path: String, permissions: Int,
        pacer: (any Pacer)?, isCancelled: (@Sendable () -> Bool)? = nil
    ) throws(TransferError) -> TransferTraffic {
        try run(path) { easy, running in
            running.body = body
            running.pacer = pacer
            running.isCancelled = isCancelled
            easy.set(CURLOPT_UPLOAD, 1)
            easy.set(CURLOPT_INFILESIZE_LARGE, offset: body.length ?? 0)
            easy.set(CURLOPT_UPLOAD_BUFFERSIZE, SFTPTransfer.uploadBufferBytes)
            easy.set(CURLOPT_NEW_FILE_PERMS, permissions)
        } then: { easy, _ in
            var traffic = TransferTraffic()
            traffic.bytesSent = easy.offset(CURLINFO_SIZE_UPLOAD_T)
            return traffic
        }
    }

    /// Reads the bytes of `range` into the beginning of `buffer` and gives their count, less than
    /// asked for where the file ends.
    package func download(
        _ path: String, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(TransferError) -> Int {
        try run(path) { easy, running in
            running.target = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
            easy.set(CURLOPT_RANGE, "\(range.lowerBound)-\(range.upperBound - 1)")
            easy.set(CURLOPT_BUFFERSIZE, SFTPTransfer.downloadBufferBytes)
        } then: { _, running in
            running.targetBytes
        }
    }

    /// Reads a file whole.
    ///
    /// - Throws: `.tooLarge`, before anything is kept.
    package func download(
        _ path: String, maximumBytes: Int
    ) throws(TransferError) -> [UInt8] {
        try run(path) { easy, running in
            running.maximumBytes = maximumBytes
            easy.set(CURLOPT_BUFFERSIZE, SFTPTransfer.downloadBufferBytes)
        } then: { _, running in
            running.collected
        }
    }

    /// Bytes that the account may still write on the file system of `path`; nil where the server
    /// does not tell.
    package func availableBytes(at path: String) throws(TransferError) -> UInt64? {
        let list = HeaderList()
        try list.append("statvfs \(Command.quoted(path))")
        let text: String
        do throws(TransferError) {
            text = try run("/") { easy, _ in
                easy.set(CURLOPT_NOBODY, 1)
                easy.set(CURLOPT_QUOTE, list)
            } then: { _, running in
                String(decoding: running.headerText, as: UTF8.self)
            }
        } catch {
            if error.kind == .refused || error.kind == .missing { return nil }
            throw error
        }
        func number(_ name: String) -> UInt64? {
            for line in text.split(whereSeparator: \.isNewline) {
                let parts = line.split(separator: ":", maxSplits: 1)
                if parts.count == 2, parts[0] == name {
                    return UInt64(parts[1].filter { !$0.isWhitespace })
                }
            }
            return nil
        }
        guard let size = number("f_frsize"), let free = number("f_bavail") else { return nil }
        let (bytes, isHuge) = size.multipliedReportingOverflow(by: free)
        return isHuge ? .max : bytes
    }

    private static let uploadBufferBytes = 2 << 20
    private static let downloadBufferBytes = 512 << 10

    // MARK: - One transfer

    private func run(
        _ path: String, _ prepare: (EasyHandle, RunningSFTPTransfer) -> Void
    ) throws(TransferError) {
        try run(path, prepare) { _, _ in () }
    }

    private func run<Result>(
        _ path: String, _ prepare: (EasyHandle, RunningSFTPTransfer) -> Void,
        then finish: (EasyHandle, RunningSFTPTransfer) -> Result
    ) throws(TransferError) -> Result {
        let easy = try handles.take()
        let running = RunningSFTPTransfer(easy, options)
        easy.reset()
        set(easy, path)
        running.setCallbacks()
        prepare(easy, running)
        if let refusal = easy.refusal {
            handles.giveBack(easy)
            throw TransferError.curl(refusal, detail: easy.detail)
        }
        let code = curl_easy_perform(easy.pointer)
        // A range that begins behind the end of a file has no bytes, which is no failure.
        if code == CURLE_OK || code == CURLE_BAD_DOWNLOAD_RESUME {
            let result = finish(easy, running)
            handles.giveBack(easy)
            return result
        }
        let error = running.failure ?? .sftp(code, detail: easy.detail)
        // After anything but a plain no the connection is not used again.
        let isUsable = [.missing, .refused, .denied, .tooLarge].contains(error.kind)
        handles.giveBack(isUsable ? easy : nil)
        throw error
    }

    private func set(_ easy: EasyHandle, _ path: String) {
        let host = options.host.contains(":") ? "[\(options.host)]" : options.host
        let port = options.port.map { ":\($0)" } ?? ""
        easy.set(CURLOPT_URL, "sftp://\(host)\(port)\(SFTPTransfer.encoded(path))")
        easy.set(CURLOPT_PROTOCOLS_STR, "sftp")
        easy.set(CURLOPT_PATH_AS_IS, 1)
        easy.set(CURLOPT_CONNECTTIMEOUT, options.connectSeconds)
        easy.set(CURLOPT_USERNAME, options.user)
        if let password = options.password {
            easy.set(CURLOPT_PASSWORD, password)
            easy.set(
                CURLOPT_SSH_AUTH_TYPES, Int(CURLSSH_AUTH_PASSWORD | CURLSSH_AUTH_KEYBOARD))
        } else {
            easy.set(CURLOPT_SSH_AUTH_TYPES, Int(CURLSSH_AUTH_PUBLICKEY | CURLSSH_AUTH_AGENT))
            if let file = options.privateKeyFile { easy.set(CURLOPT_SSH_PRIVATE_KEYFILE, file) }
        }
        if keyFile >= 0 { easy.set(CURLOPT_SSH_KNOWNHOSTS, "/proc/self/fd/\(keyFile)") }
    }

    /// `path` for an address: libcurl decodes it before it asks the server.
    private static func encoded(_ path: String) -> String {
        let plain = Array("/._-".utf8)
        let digits = Array("0123456789ABCDEF".utf8)
        var text: [UInt8] = []
        for byte in path.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"):
                text.append(byte)
            case _ where plain.contains(byte): text.append(byte)
            default: text += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}

extension SFTPTransfer.Command {
    /// As libcurl reads it.
    fileprivate var text: String {
        switch self {
        case .makeDirectory(let path): "mkdir \(Self.quoted(path))"
        case .removeDirectory(let path): "rmdir \(Self.quoted(path))"
        case .remove(let path): "rm \(Self.quoted(path))"
        case .rename(let path, let newPath):
            "rename \(Self.quoted(path)) \(Self.quoted(newPath))"
        }
    }

    fileprivate static func quoted(_ path: String) -> String {
        var text = "\""
        for character in path.unicodeScalars {
            if character == "\"" || character == "\\" { text += "\\" }
            text.unicodeScalars.append(character)
        }
        return text + "\""
    }
}

/// The handles of a few connections, each used by one thread at a time.
private final class HandlePool: @unchecked Sendable {
    // Sendable: what changes is touched only while the mutex is held.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var idle: [EasyHandle] = []
    private var free: Int

    init(limit: Int) {
        free = limit
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func take() throws(TransferError) -> EasyHandle {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while free == 0 { pthread_cond_wait(condition, mutex) }
        // The one used last has a connection that is least likely to have been closed.
        let handle = if let kept = idle.popLast() { kept } else { try EasyHandle() }
        free -= 1
        return handle
    }

    /// - Parameter handle: nil where it is not to be used again.
    func giveBack(_ handle: EasyHandle?) {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        if let handle { idle.append(handle) }
        free += 1
        pthread_cond_signal(condition)
    }
}
