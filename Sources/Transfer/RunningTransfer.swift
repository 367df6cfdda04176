import CLibCurl
import CSystem
import Glibc

/// One request under way: what libcurl's callbacks work on, and how it ends.
///
/// Made by the thread that asked, which then waits; from `begin` to `end` the engine's thread alone
/// touches it.
final class RunningTransfer: @unchecked Sendable {
    // Sendable: see above; the hand-over in either direction goes through a mutex.
    let request: TransferRequest
    /// Scheme, name and port: those with the same may share a connection.
    let host: Substring
    private let outcome = Latch<Result<TransferResponse, TransferError>>()
    /// When it must have ended, in nanoseconds of the clock that runs through suspend.
    private let deadline: Int64?
    private var easy: EasyHandle?
    private var headerList: HeaderList?

    private var answer: IncomingAnswer
    /// What a callback found wrong; libcurl itself then only knows that it was stopped.
    private var failure: TransferError?

    // The request as far as it has gone.
    private var bodyPosition = 0
    /// How often libcurl began again, and what it had sent of the body by then.
    private var repetitions = 0
    private var bytesSentBefore = 0

    // Pacing: what a pacer has granted and nobody has used, and until when each direction waits.
    private var downloadCredit = 0
    private var uploadResumption: Int64?
    private var downloadResumption: Int64?
    private var pausedSince: Int64?
    private var pausedNanoseconds: Int64 = 0

    // Stall: what had moved when it was last seen moving.
    private var movedBytes = -1
    private var movedAt: Int64 = 0

    init(_ request: TransferRequest) {
        self.request = request
        answer = IncomingAnswer(request.sink)
        host = RunningTransfer.host(of: request.url)
        deadline = request.deadlineSeconds.map {
            csys_boottime_ns() + Int64(min(max($0, 0), 1e9) * 1e9)
        }
    }

    func wait() throws(TransferError) -> TransferResponse { try outcome.wait().get() }

    private static func host(of url: String) -> Substring {
        let afterScheme = url.firstRange(of: "://")?.upperBound ?? url.startIndex
        return url[..<(url[afterScheme...].firstIndex { "/?#".contains($0) } ?? url.endIndex)]
    }

    // MARK: - From beginning to end

    /// Tells `easy` everything about the request.
    func begin(_ easy: EasyHandle, _ options: TransferEngine.Options) throws(TransferError) {
        easy.reset()
        try setRequest(easy, options)
        try setHeaders(easy, options)
        setSecurity(easy, options)
        setCallbacks(easy)
        if let refusal = easy.refusal { throw TransferError.curl(refusal, detail: easy.detail) }
        movedAt = csys_boottime_ns()
        self.easy = easy
    }

    /// Hands what came of it to whoever waits, and gives the handle back.
    func end(_ code: CURLcode) -> EasyHandle? {
        endPause()
        guard let easy else { return nil }
        defer { self.easy = nil }
        let traffic = traffic(easy)
        let failure = failure ?? answer.failure
        if failure == nil && (answer.isCut || (code == CURLE_OK && answer.isHeadComplete)) {
            outcome.give(.success(answer.response(traffic)))
            return easy
        }
        var error = failure ?? reason(code, easy, isRequestSent: traffic.requests > 0)
        error.traffic = traffic
        outcome.give(.failure(error))
        return easy
    }

    /// Why libcurl ended a transfer in which nobody here found anything wrong.
    private func reason(_ code: CURLcode, _ easy: EasyHandle, isRequestSent: Bool) -> TransferError
    {
        if code == CURLE_OK {
            return TransferError(
                .reset, "the connection ended within the head of the answer", isTransient: true)
        }
        // Said of an answer, it is the server's protocol that is unknown.
        if code == CURLE_UNSUPPORTED_PROTOCOL && isRequestSent {
            return TransferError(
                .protocolViolation, "what answers does not speak HTTP", isTransient: false)
        }
        return .curl(code, detail: easy.detail, systemError: easy.long(CURLINFO_OS_ERRNO))
    }

    /// Ends what could not even be begun.
    func fail(_ error: TransferError) { outcome.give(.failure(error)) }

    private func traffic(_ easy: EasyHandle) -> TransferTraffic {
        var traffic = TransferTraffic()
        traffic.bytesSent = bytesSentBefore + easy.offset(CURLINFO_SIZE_UPLOAD_T)
        traffic.bytesReceived = easy.offset(CURLINFO_SIZE_DOWNLOAD_T)
        traffic.requests = easy.long(CURLINFO_REQUEST_SIZE) > 0 ? 1 + repetitions : 0
        traffic.newConnections = easy.long(CURLINFO_NUM_CONNECTS)
        traffic.seconds = Double(easy.offset(CURLINFO_TOTAL_TIME_T)) / 1e6
        traffic.secondsToFirstByte = Double(easy.offset(CURLINFO_STARTTRANSFER_TIME_T)) / 1e6
        traffic.secondsPaced = Double(pausedNanoseconds) / 1e9
        return traffic
    }

    // MARK: - What libcurl is told

    private func setRequest(
        _ easy: EasyHandle, _ options: TransferEngine.Options
    ) throws(TransferError) {
        guard !request.url.utf8.contains(where: { $0 <= 0x20 || $0 >= 0x7f }) else {
            throw TransferError(.invalidRequest, "an address is not encoded", isTransient: false)
        }
        easy.set(CURLOPT_URL, request.url)
        easy.set(CURLOPT_PATH_AS_IS, 1)
        easy.set(CURLOPT_PROTOCOLS_STR, "http,https")
        easy.set(CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
        easy.set(CURLOPT_FOLLOWLOCATION, 0)
        easy.set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1)
        if !request.usesProxy { easy.set(CURLOPT_NOPROXY, "*") }
        if let length = request.body.length {
            easy.set(CURLOPT_UPLOAD, 1)
            easy.set(CURLOPT_INFILESIZE_LARGE, offset: length)
            let bufferBytes = min(
                max(length, RunningTransfer.smallestUploadBuffer), options.uploadBufferBytes)
            easy.set(CURLOPT_UPLOAD_BUFFERSIZE, bufferBytes)
            easy.set(CURLOPT_CUSTOMREQUEST, request.method)
        } else if request.method == "HEAD" {
            easy.set(CURLOPT_NOBODY, 1)
        } else {
            easy.set(CURLOPT_HTTPGET, 1)
            if request.method != "GET" { easy.set(CURLOPT_CUSTOMREQUEST, request.method) }
        }
        easy.set(CURLOPT_BUFFERSIZE, options.downloadBufferBytes)
        let milliseconds = max(1, Int(request.connectSeconds * 1000))
        easy.set(CURLOPT_CONNECTTIMEOUT_MS, milliseconds)
    }

    private func setHeaders(
        _ easy: EasyHandle, _ options: TransferEngine.Options
    ) throws(TransferError) {
        let list = HeaderList()
        // libcurl would otherwise ask before it sends a large body, and wait a second for servers
        // that do not answer.
        try list.append("Expect:")
        for (name, value) in request.headers {
            guard RunningTransfer.isHeaderText(name), RunningTransfer.isHeaderText(value) else {
                throw TransferError(
                    .invalidRequest, "the header \(name) holds a control character",
                    isTransient: false)
            }
            // A name and a colon alone would tell libcurl to leave the header out.
            try list.append(value.isEmpty ? "\(name);" : "\(name): \(value)")
        }
        if case .range(let range, let buffer) = request.sink {
            precondition(range.lowerBound >= 0 && !range.isEmpty && range.count <= buffer.count)
            try list.append("Range: bytes=\(range.lowerBound)-\(range.upperBound - 1)")
        }
        headerList = list
        easy.set(CURLOPT_HTTPHEADER, list)
        easy.set(CURLOPT_USERAGENT, options.userAgent)
    }

    private func setSecurity(_ easy: EasyHandle, _ options: TransferEngine.Options) {
        // As libcurl does by itself; said here so that nothing can have changed it.
        easy.set(CURLOPT_SSL_VERIFYPEER, 1)
        easy.set(CURLOPT_SSL_VERIFYHOST, 2)
        easy.set(CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2)
        if let caFile = options.caFile {
            easy.set(CURLOPT_CAINFO, caFile)
            // Only what stands in that file is trusted, not what the system trusts beside it.
            easy.set(CURLOPT_CAPATH, pointer: nil)
        }
    }

    private func setCallbacks(_ easy: EasyHandle) {
        let context = Unmanaged.passUnretained(self).toOpaque()
        easy.set(CURLOPT_WRITEDATA, pointer: context)
        easy.set(CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            RunningTransfer.from(context).receive(bytes, size * count)
        }
        easy.set(CURLOPT_HEADERDATA, pointer: context)
        easy.set(CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            RunningTransfer.from(context).receiveHeader(bytes, size * count)
        }
        easy.set(CURLOPT_READDATA, pointer: context)
        easy.set(CURLOPT_READFUNCTION) { bytes, size, count, context in
            RunningTransfer.from(context).send(bytes, size * count)
        }
        easy.set(CURLOPT_SEEKDATA, pointer: context)
        easy.set(seekFunction: { context, offset, origin in
            RunningTransfer.from(context).seek(Int(offset), origin)
        })
    }

    private static func from(_ context: UnsafeMutableRawPointer?) -> RunningTransfer {
        guard let context else { preconditionFailure("a callback without its context") }
        return Unmanaged<RunningTransfer>.fromOpaque(context).takeUnretainedValue()
    }

    private static func isHeaderText(_ text: String) -> Bool {
        !text.utf8.contains { ($0 < 0x20 && $0 != 0x09) || $0 == 0x7f }
    }

    private static let smallestUploadBuffer = 16 << 10

    // MARK: - Sending

    private func send(_ buffer: UnsafeMutablePointer<CChar>?, _ capacity: Int) -> Int {
        guard let buffer, let length = request.body.length else { return 0 }
        var wanted = min(capacity, length - bodyPosition)
        if wanted == 0 { return 0 }
        if let pacer = request.uploadPacer {
            let (granted, wait) = pacer.grant(wanted)
            if granted <= 0 {
                uploadResumption = csys_boottime_ns() + max(wait, 0)
                beginPause()
                return Int(CURL_READFUNC_PAUSE)
            }
            wanted = min(wanted, granted)
        }
        switch request.body {
        case .none:
            return 0
        case .bytes(let bytes):
            bytes.withUnsafeBytes { bytes in
                UnsafeMutableRawPointer(buffer).copyMemory(
                    from: bytes.baseAddress! + bodyPosition, byteCount: wanted)
            }
            bodyPosition += wanted
            return wanted
        case .file(let descriptor, let offset, _):
            let count = csys_pread(descriptor, buffer, wanted, Int64(offset + bodyPosition))
            if count > 0 {
                bodyPosition += count
                return count
            }
            let reason =
                count == 0 ? "it is shorter than it was" : String(cString: strerror(Int32(-count)))
            failure = TransferError(
                .file, "cannot read what is to be sent: \(reason)", isTransient: false)
            return Int(CURL_READFUNC_ABORT)
        }
    }

    /// A kept connection may turn out to be dead; then libcurl begins again on another.
    private func seek(_ offset: Int, _ origin: Int32) -> Int32 {
        guard origin == SEEK_SET, let length = request.body.length, (0...length).contains(offset)
        else { return Int32(CURL_SEEKFUNC_FAIL) }
        repetitions += 1
        bytesSentBefore += bodyPosition
        bodyPosition = offset
        return Int32(CURL_SEEKFUNC_OK)
    }

    // MARK: - Receiving

    private func receiveHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes else { return 0 }
        return answer.takeHeader(UnsafeRawBufferPointer(start: bytes, count: count)) ? count : 0
    }

    /// Takes all of a piece of the body, or pauses, or stops the transfer by taking less.
    private func receive(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes, count > 0 else { return count }
        if let pacer = request.downloadPacer, downloadCredit < count {
            let (granted, wait) = pacer.grant(count - downloadCredit)
            downloadCredit += max(granted, 0)
            if downloadCredit < count {
                downloadResumption = csys_boottime_ns() + max(wait, 0)
                beginPause()
                return Int(CURL_WRITEFUNC_PAUSE)
            }
        }
        downloadCredit = max(0, downloadCredit - count)
        return answer.take(UnsafeRawBufferPointer(start: bytes, count: count)) ? count : 0
    }

    // MARK: - Time

    /// When it wants to be looked at again because a pacer may grant something by then.
    var resumption: Int64? {
        switch (uploadResumption, downloadResumption) {
        case (let up?, let down?): min(up, down)
        case (let up?, nil): up
        case (nil, let down): down
        }
    }

    /// Lets it go on where a pacer's waiting time is over.
    func resume(at now: Int64) {
        guard let resumption, resumption <= now, let easy else { return }
        if let time = uploadResumption, time <= now { uploadResumption = nil }
        if let time = downloadResumption, time <= now { downloadResumption = nil }
        endPause()
        if uploadResumption != nil || downloadResumption != nil { beginPause() }
        // May deliver what was held back at once, and so be paused again from within.
        let held =
            (uploadResumption == nil ? 0 : CURLPAUSE_SEND)
            | (downloadResumption == nil ? 0 : CURLPAUSE_RECV)
        curl_easy_pause(easy.pointer, held)
    }

    private func beginPause() {
        if pausedSince == nil { pausedSince = csys_boottime_ns() }
    }

    private func endPause() {
        guard let since = pausedSince else { return }
        pausedNanoseconds += csys_boottime_ns() - since
        pausedSince = nil
    }

    /// Why it has to be given up now, whether it has begun or not; nil where it may go on.
    func reasonToStop(at now: Int64) -> TransferError? {
        if let isCancelled = request.isCancelled, isCancelled() {
            return TransferError(.cancelled, "interrupted", isTransient: false)
        }
        if let deadline, now >= deadline {
            let seconds = request.deadlineSeconds ?? 0
            return TransferError(
                .timeout, "not done within \(seconds.formattedSeconds)", isTransient: true)
        }
        return nil
    }

    /// Whether it has to be given up now that it runs; `failure` says why.
    func mustStop(at now: Int64) -> Bool {
        if let reason = reasonToStop(at: now) {
            failure = reason
            return true
        }
        guard let easy else { return false }
        let moved =
            easy.offset(CURLINFO_SIZE_UPLOAD_T) + easy.offset(CURLINFO_SIZE_DOWNLOAD_T)
            + answer.headerBytes
        if moved != movedBytes || pausedSince != nil {
            movedBytes = moved
            movedAt = now
        } else if Double(now - movedAt) / 1e9 >= request.stallSeconds {
            failure = TransferError(
                .stall, "nothing moved for \(request.stallSeconds.formattedSeconds)",
                isTransient: true)
            return true
        }
        return false
    }
}

extension Double {
    /// `90 s`, `1.5 s`.
    var formattedSeconds: String {
        self == rounded() && abs(self) < 1e9 ? "\(Int(self)) s" : "\(self) s"
    }
}
