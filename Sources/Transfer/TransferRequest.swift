/// One HTTP request: what is asked of whom, what is sent with it, where its answer goes, and how
/// long it may take.
///
/// Not `Sendable`, since its sink may name a buffer of the caller's. `TransferEngine.perform` has
/// done with it when it returns.
package struct TransferRequest {
    /// What is sent. Its length is known, so it goes out with `Content-Length` and never in chunks.
    package enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// `length` bytes from `offset` on, read as they are sent. The descriptor stays the
        /// caller's.
        case file(descriptor: Int32, offset: Int, length: Int)

        /// In bytes; nil where nothing is sent, not even a length.
        var length: Int? {
            switch self {
            case .none: nil
            case .bytes(let bytes): bytes.count
            case .file(_, _, let length): length
            }
        }
    }

    /// Where the body of a successful answer (status 200 to 299) goes. That of any other is an
    /// explanation, of which the beginning is collected.
    package enum Sink {
        /// Into `TransferResponse.body`; an answer longer than this is an error.
        case collect(maximumBytes: Int)
        /// The bytes of this range of the resource, into the beginning of the buffer. Asks for the
        /// range and believes what the answer's `Content-Range` says it is, since servers differ in
        /// the status they give it; where there is none the answer is the whole resource, from which
        /// the range is taken.
        case range(Range<Int>, into: UnsafeMutableRawBufferPointer)
    }

    package var method: String
    /// Sent as it is, so it must be encoded already. `http` or `https`.
    package var url: String
    /// Beside those that belong to HTTP itself: `Host`, `Content-Length`, `Range`, `User-Agent`.
    package var headers: [(name: String, value: String)]
    package var body: Body
    package var sink: Sink
    /// How long all of it may take, in seconds, on a clock that runs through suspend.
    package var deadlineSeconds: Double?
    /// How long nothing may move in either direction before the request is given up, in seconds.
    /// What a pacer holds back does not count.
    package var stallSeconds: Double = 60
    /// How long it may take until the connection stands, in seconds.
    package var connectSeconds: Double = 30
    /// How fast the body may leave; nil for as fast as it can.
    package var uploadPacer: (any Pacer)?
    /// How fast the answer may arrive; nil for as fast as it can.
    package var downloadPacer: (any Pacer)?
    /// Whether a proxy that the environment names may be used. An address that exists on this host
    /// only has to be asked directly.
    package var usesProxy = true
    /// Asked several times a second; once it gives true the request is given up. Must not block.
    package var isCancelled: (@Sendable () -> Bool)?

    package init(
        _ method: String, _ url: String, headers: [(name: String, value: String)] = [],
        body: Body = .none, sink: Sink = .collect(maximumBytes: 1 << 20)
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.sink = sink
    }

    /// How much is kept of the body of an answer that is no success.
    static let explanationBytes = 64 << 10
}
