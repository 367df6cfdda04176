/// An answer as far as it has come: its head line by line, its body piece by piece, each in its place.
struct IncomingAnswer {
    private let sink: TransferRequest.Sink
    private var status = 0
    private var headers = TransferHeaders()
    private var body: [UInt8] = []
    private var bytesInBuffer = 0
    /// Offset in the resource of the next byte that arrives; known once the body begins.
    private var arrivingOffset: Int?

    private(set) var headerBytes = 0
    /// The empty line behind the header fields has come: libcurl takes an answer that breaks off
    /// before it for a whole one.
    private(set) var isHeadComplete = false
    /// Everything wanted has arrived, though the server would send more.
    private(set) var isCut = false
    /// What is wrong with it.
    private(set) var failure: TransferError?

    init(_ sink: TransferRequest.Sink) { self.sink = sink }

    func response(_ traffic: TransferTraffic) -> TransferResponse {
        TransferResponse(
            status: status, headers: headers, body: body, bytesInBuffer: bytesInBuffer,
            traffic: traffic)
    }

    // MARK: - The head

    /// Takes one line, the one that says the status included; false where it must not go on.
    mutating func takeHeader(_ bytes: UnsafeRawBufferPointer) -> Bool {
        headerBytes += bytes.count
        guard headerBytes <= IncomingAnswer.maximumHeaderBytes else {
            failure = TransferError(
                .protocolViolation, "the head of the answer has no end", isTransient: false)
            return false
        }
        let line = String(decoding: bytes, as: UTF8.self)
        if line.hasPrefix("HTTP/") {
            // Of several, such as "100 Continue" before the answer proper, the last one counts.
            let parts = line.split(separator: " ", maxSplits: 2)
            status = parts.count > 1 ? Int(parts[1].prefix { $0.isNumber }) ?? 0 : 0
            headers.removeAll()
            isHeadComplete = false
            return true
        }
        if line == "\r\n" || line == "\n" { isHeadComplete = true }
        guard let colon = line.utf8.firstIndex(of: UInt8(ascii: ":")) else { return true }
        let value = line[line.utf8.index(after: colon)...]
        headers.append(String(line[..<colon]), String(value.trimmed))
        return true
    }

    private static let maximumHeaderBytes = 256 << 10

    // MARK: - The body

    /// Takes a piece of the body; false where no more is wanted, or something is wrong.
    mutating func take(_ piece: UnsafeRawBufferPointer) -> Bool {
        guard (200..<300).contains(status) else {
            let room = TransferRequest.explanationBytes - body.count
            body.append(contentsOf: piece.prefix(max(0, room)))
            return true
        }
        switch sink {
        case .collect(let maximumBytes):
            return collect(piece, maximumBytes: maximumBytes)
        case .range(let range, let buffer):
            return place(piece, of: range, into: buffer)
        }
    }

    private mutating func collect(_ piece: UnsafeRawBufferPointer, maximumBytes: Int) -> Bool {
        if body.isEmpty, let announced = headers["content-length"].flatMap({ Int($0) }) {
            guard announced <= maximumBytes else {
                failure = TransferError(
                    .tooLarge, "the answer has \(announced) bytes", isTransient: false)
                return false
            }
            // What is announced need not come: memory is given as it does.
            body.reserveCapacity(min(announced, IncomingAnswer.reservedBytes))
        }
        guard piece.count <= maximumBytes - body.count else {
            failure = TransferError(
                .tooLarge, "the answer has more than \(maximumBytes) bytes", isTransient: false)
            return false
        }
        body.append(contentsOf: piece)
        return true
    }

    private static let reservedBytes = 64 << 20

    /// Copies what of `piece` lies in the range, and wants no more once the range is full.
    private mutating func place(
        _ piece: UnsafeRawBufferPointer, of range: Range<Int>,
        into buffer: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard let start = arrivingOffset ?? firstOffset(of: range) else { return false }
        let end = start + piece.count
        arrivingOffset = end
        let wanted = range.clamped(to: start..<end)
        if !wanted.isEmpty {
            let source = UnsafeRawBufferPointer(
                rebasing: piece[wanted.lowerBound - start..<wanted.upperBound - start])
            UnsafeMutableRawBufferPointer(
                rebasing: buffer[(wanted.lowerBound - range.lowerBound)...]
            ).copyMemory(from: source)
            bytesInBuffer += wanted.count
        }
        isCut = end > range.upperBound
        return !isCut
    }

    /// Where in the resource the body of this answer begins; nil where that lies behind the
    /// beginning of what was asked for.
    private mutating func firstOffset(of range: Range<Int>) -> Int? {
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
