import CLibCurl
import CSystem
import Glibc

/// One SFTP transfer under way: what libcurl's callbacks work on. Used by one thread.
final class RunningSFTPTransfer {
    private let easy: EasyHandle
    private let options: SFTPTransfer.Options
    /// What a callback found wrong; libcurl itself then only knows that it was stopped.
    private(set) var failure: TransferError?

    // What is sent.
    var body = TransferRequest.Body.none
    var pacer: (any Pacer)?
    var isCancelled: (@Sendable () -> Bool)?
    private var bodyPosition = 0

    // What arrives: into the target where there is one, else collected.
    var target: UnsafeMutableRawBufferPointer?
    private(set) var targetBytes = 0
    var maximumBytes = Int.max
    private(set) var collected: [UInt8] = []
    private(set) var headerText: [UInt8] = []

    // Stall: what had moved when it was last seen moving.
    private var movedBytes = -1
    private var movedAt = csys_boottime_ns()

    init(_ easy: EasyHandle, _ options: SFTPTransfer.Options) {
        self.easy = easy
        self.options = options
    }

    func setCallbacks() {
        let context = Unmanaged.passUnretained(self).toOpaque()
        easy.set(CURLOPT_WRITEDATA, pointer: context)
        easy.set(CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            RunningSFTPTransfer.from(context).receive(bytes, size * count)
        }
        easy.set(CURLOPT_HEADERDATA, pointer: context)
        easy.set(CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            RunningSFTPTransfer.from(context).receiveHeader(bytes, size * count)
        }
        easy.set(CURLOPT_READDATA, pointer: context)
        easy.set(CURLOPT_READFUNCTION) { bytes, size, count, context in
            RunningSFTPTransfer.from(context).send(bytes, size * count)
        }
        easy.set(CURLOPT_NOPROGRESS, 0)
        easy.set(CURLOPT_XFERINFODATA, pointer: context)
        easy.set(progressFunction: { context, _, received, _, sent in
            RunningSFTPTransfer.from(context).mustStop(Int(received + sent)) ? 1 : 0
        })
        easy.set(CURLOPT_SSH_HOSTKEYDATA, pointer: context)
        easy.set(hostKeyFunction: { context, _, key, length in
            let isTrusted = RunningSFTPTransfer.from(context).isTrusted(key, length)
            return Int32(isTrusted ? CURLKHMATCH_OK.rawValue : CURLKHMATCH_MISMATCH.rawValue)
        })
    }

    private static func from(_ context: UnsafeMutableRawPointer?) -> RunningSFTPTransfer {
        guard let context else { preconditionFailure("a callback without its context") }
        return Unmanaged<RunningSFTPTransfer>.fromOpaque(context).takeUnretainedValue()
    }

    private func isTrusted(_ key: UnsafePointer<CChar>?, _ length: Int) -> Bool {
        let bytes = [UInt8](UnsafeRawBufferPointer(start: key, count: key == nil ? 0 : length))
        if !bytes.isEmpty && options.trusts(bytes) { return true }
        failure = TransferError(
            .untrusted, "the host's key is not one that is trusted", isTransient: false)
        return false
    }

    /// Whether it has to be given up; `failure` says why.
    private func mustStop(_ moved: Int) -> Bool { isUnwanted() || isStalled(moved) }

    private func isUnwanted() -> Bool {
        guard let isCancelled, isCancelled() else { return false }
        failure = TransferError(.cancelled, "interrupted", isTransient: false)
        return true
    }

    private func isStalled(_ moved: Int) -> Bool {
        let now = csys_boottime_ns()
        if moved != movedBytes {
            movedBytes = moved
            movedAt = now
        } else if now - movedAt > Int64(options.stallSeconds) * 1_000_000_000 {
            failure = TransferError(
                .stall, "nothing moved for \(options.stallSeconds) s", isTransient: true)
            return true
        }
        return false
    }

    private func send(_ buffer: UnsafeMutablePointer<CChar>?, _ capacity: Int) -> Int {
        guard let buffer, let length = body.length else { return 0 }
        var wanted = min(capacity, length - bodyPosition)
        guard wanted > 0 else { return 0 }
        if let pacer {
            // This thread has nothing else to do meanwhile.
            var granted = pacer.grant(wanted)
            while granted.bytes <= 0 {
                if isUnwanted() { return Int(CURL_READFUNC_ABORT) }
                usleep(
                    UInt32(clamping: min(max(granted.waitNanoseconds / 1_000, 100), 500_000)))
                granted = pacer.grant(wanted)
            }
            wanted = min(wanted, granted.bytes)
            movedAt = csys_boottime_ns()
        }
        switch body {
        case .none:
            return 0
        case .bytes(let bytes):
            bytes.withUnsafeBytes { bytes in
                UnsafeMutableRawBufferPointer(start: buffer, count: wanted).copyMemory(
                    from: UnsafeRawBufferPointer(
                        rebasing: bytes[bodyPosition..<bodyPosition + wanted]))
            }
            bodyPosition += wanted
            return wanted
        case .file(let descriptor, let offset, _):
            let count = csys_pread(descriptor, buffer, wanted, Int64(offset + bodyPosition))
            if count > 0 {
                bodyPosition += count
                return count
            }
            failure = TransferError(
                .file, "cannot read what is to be sent: error \(-count)", isTransient: false)
            return Int(CURL_READFUNC_ABORT)
        }
    }

    private func receiveHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes, headerText.count < 1 << 20 else { return 0 }
        headerText += UnsafeRawBufferPointer(start: bytes, count: count)
        return count
    }

    private func receive(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes else { return count }
        let piece = UnsafeRawBufferPointer(start: bytes, count: count)
        if let target {
            guard count <= target.count - targetBytes else {
                failure = TransferError(
                    .protocolViolation, "more came than was asked for", isTransient: false)
                return 0
            }
            UnsafeMutableRawBufferPointer(rebasing: target[targetBytes...]).copyMemory(from: piece)
            targetBytes += count
            return count
        }
        let announced = max(easy.offset(CURLINFO_CONTENT_LENGTH_DOWNLOAD_T), 0)
        let length = max(announced, collected.count + count)
        guard length <= maximumBytes else {
            failure = TransferError(.tooLarge, "it has \(length) bytes", isTransient: false)
            return 0
        }
        if collected.isEmpty { collected.reserveCapacity(min(announced, 1 << 26)) }
        collected += piece
        return count
    }
}

extension TransferError {
    /// Says what libcurl's result of an SFTP transfer means.
    ///
    /// libcurl has one code for every command that a server refuses; libssh2's words behind it, which
    /// are the same in every locale, tell one reason from another.
    static func sftp(_ code: CURLcode, detail: String) -> TransferError {
        let text = detail.isEmpty ? String(cString: curl_easy_strerror(code)) : detail
        let words = text.lowercased()
        switch code {
        case CURLE_QUOTE_ERROR, CURLE_REMOTE_FILE_NOT_FOUND, CURLE_UPLOAD_FAILED, CURLE_SSH,
            CURLE_REMOTE_ACCESS_DENIED, CURLE_REMOTE_DISK_FULL, CURLE_REMOTE_FILE_EXISTS:
            if code == CURLE_REMOTE_DISK_FULL || words.contains("disk full")
                || words.contains("quota")
            {
                return TransferError(.full, text, isTransient: false)
            }
            if code == CURLE_REMOTE_ACCESS_DENIED || words.contains("permission denied") {
                return TransferError(.denied, text, isTransient: false)
            }
            if words.contains("no such") {
                return TransferError(.missing, text, isTransient: false)
            }
            // Without a word of libssh2's own it may be a refusal as well as a lost connection.
            if code == CURLE_SSH && words == "error in the ssh layer" {
                return TransferError(
                    .reset, "the server refused, or the connection was lost", isTransient: true)
            }
            return TransferError(.refused, text, isTransient: false)
        case CURLE_FAILED_INIT where words.contains("unable to exchange encryption keys"):
            return TransferError(.tls, text, isTransient: false)
        // Whatever else goes wrong while a session begins: a host that is up and takes no more.
        case CURLE_FAILED_INIT:
            return TransferError(.connect, text, isTransient: true)
        default:
            return .curl(code, detail: detail)
        }
    }
}
