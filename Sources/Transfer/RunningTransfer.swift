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

    // The answer as far as it has come.
    private var status = 0
    private var headers = TransferHeaders()
    private var headerBytes = 0
    /// The empty line behind the header fields has come: libcurl takes an answer that breaks off
    /// before it for a whole one.
    private var isHeadComplete = false
    private var body: [UInt8] = []
    private var bytesInBuffer = 0
    /// Offset in the resource of the next byte that arrives; known once the body begins.
    private var arrivingOffset: Int?
    /// Everything wanted has arrived, though the server would send more.
    private var isCut = false
    /// What a callback found wrong; libcurl itself then only knows that it was stopped.
    private var failure: TransferError?

    // The request as far as it has gone.
    private var bodyPosition = 0

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
        if code == CURLE_OK && !isHeadComplete {
            failure = TransferError(
                .reset, "the connection ended within the head of the answer", isTransient: true)
        }
        if failure == nil && (code == CURLE_OK || isCut) {
            outcome.give(
                .success(
                    TransferResponse(
                        status: status, headers: headers, body: body, bytesInBuffer: bytesInBuffer,
                        traffic: traffic)))
            return easy
        }
        var error = failure ?? reason(code, easy, isRequestSent: traffic.isRequestSent)
        error.traffic = traffic
        outcome.give(.failure(error))
        return easy
    }

    private func reason(_ code: CURLcode, _ easy: EasyHandle, isRequestSent: Bool) -> TransferError
    {
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
        traffic.bytesSent = easy.offset(CURLINFO_SIZE_UPLOAD_T)
        traffic.bytesReceived = easy.offset(CURLINFO_SIZE_DOWNLOAD_T)
        traffic.isRequestSent = easy.long(CURLINFO_REQUEST_SIZE) > 0
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
    private static let maximumHeaderBytes = 256 << 10

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
        bodyPosition = offset
        return Int32(CURL_SEEKFUNC_OK)
    }

    // MARK: - Receiving

    private func receiveHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes else { return 0 }
        headerBytes += count
        guard headerBytes <= RunningTransfer.maximumHeaderBytes else {
            failure = TransferError(
                .protocolViolation, "the head of the answer has no end", isTransient: false)
            return 0
        }
        let line = String(
            decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
        if line.hasPrefix("HTTP/") {
            // Of several, such as "100 Continue" before the answer proper, the last one counts.
            let parts = line.split(separator: " ", maxSplits: 2)
            status = parts.count > 1 ? Int(parts[1].prefix { $0.isNumber }) ?? 0 : 0
            headers.removeAll()
            isHeadComplete = false
            return count
        }
        if line == "\r\n" || line == "\n" { isHeadComplete = true }
        guard let colon = line.utf8.firstIndex(of: UInt8(ascii: ":")) else { return count }
        let value = line[line.utf8.index(after: colon)...]
        headers.append(String(line[..<colon]), String(value.trimmed))
        return count
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
        let piece = UnsafeRawBufferPointer(start: bytes, count: count)
        guard (200..<300).contains(status) else {
            let room = TransferRequest.explanationBytes - body.count
            body.append(contentsOf: piece.prefix(max(0, room)))
            return count
        }
        switch request.sink {
        case .collect(let maximumBytes):
            return collect(piece, maximumBytes: maximumBytes) ? count : 0
        case .range(let range, let buffer):
            return place(piece, of: range, into: buffer) ? count : 0
        }
    }

    private func collect(_ piece: UnsafeRawBufferPointer, maximumBytes: Int) -> Bool {
        if body.isEmpty, let announced = headers["content-length"].flatMap({ Int($0) }) {
            guard announced <= maximumBytes else {
                failure = TransferError(
                    .tooLarge, "the answer has \(announced) bytes", isTransient: false)
                return false
            }
            body.reserveCapacity(announced)
        }
        guard piece.count <= maximumBytes - body.count else {
            failure = TransferError(
                .tooLarge, "the answer has more than \(maximumBytes) bytes", isTransient: false)
            return false
        }
        body.append(contentsOf: piece)
        return true
    }

    /// Copies what of `piece` lies in the range, and stops the transfer once the range is full.
    private func place(
        _ piece: UnsafeRawBufferPointer, of range: Range<Int>,
        into buffer: UnsafeMutableRawBufferPointer
    ) -> Bool {
        let pieceStart: Int
        if let arrivingOffset {
            pieceStart = arrivingOffset
        } else {
            guard let start = firstOffset(of: range) else { return false }
            pieceStart = start
        }
        arrivingOffset = pieceStart + piece.count
        let wanted = range.clamped(to: pieceStart..<pieceStart + piece.count)
        if !wanted.isEmpty {
            let source = UnsafeRawBufferPointer(
                rebasing: piece[wanted.lowerBound - pieceStart..<wanted.upperBound - pieceStart])
            UnsafeMutableRawBufferPointer(
                rebasing: buffer[(wanted.lowerBound - range.lowerBound)...]
            ).copyMemory(from: source)
            bytesInBuffer += wanted.count
        }
        let isMore = pieceStart + piece.count > range.upperBound
        if isMore { isCut = true }
        return !isMore
    }

    /// Where in the resource the body of this answer begins; nil where that lies behind the
    /// beginning of what was asked for.
    private func firstOffset(of range: Range<Int>) -> Int? {
        guard let text = headers["content-range"] else {
            // A part that does not say which.
            guard status != 206 else {
                failure = TransferError(
                    .protocolViolation, "a part of an object came without Content-Range",
                    isTransient: false)
                return nil
            }
            return 0
        }
        guard let content = ContentRange(text), content.bytes.lowerBound <= range.lowerBound else {
            failure = TransferError(
                .protocolViolation,
                "asked for bytes \(range.lowerBound) to \(range.upperBound - 1), got \(text)",
                isTransient: false)
            return nil
        }
        return content.bytes.lowerBound
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
            + headerBytes
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

extension Substring {
    /// Without spaces, tabs and line ends on either side.
    var trimmed: Substring {
        let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0.isNewline }
        let front = drop(while: isBlank)
        guard let last = front.lastIndex(where: { !isBlank($0) }) else { return front.prefix(0) }
        return front[...last]
    }
}

extension Double {
    /// `90 s`, `1.5 s`.
    var formattedSeconds: String {
        self == rounded() && abs(self) < 1e9 ? "\(Int(self)) s" : "\(self) s"
    }
}
