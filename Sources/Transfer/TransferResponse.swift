/// The answer to a request, whatever its status: that the server said no is for the caller to judge.
package struct TransferResponse: Sendable {
    package let status: Int
    package let headers: TransferHeaders
    /// The collected body; of an answer that is no success at most the first 64 KiB.
    package let body: [UInt8]
    /// How many bytes lie in the buffer of `TransferRequest.Sink.range`.
    package let bytesInBuffer: Int
    package let traffic: TransferTraffic

    package var isSuccess: Bool { (200..<300).contains(status) }
}

/// What really went over the line for one request.
package struct TransferTraffic: Sendable, Equatable {
    /// Bytes of the body sent, those repeated on a second connection included.
    package var bytesSent = 0
    /// Bytes of bodies received.
    package var bytesReceived = 0
    /// How often the request went out, so that the server may have acted on it. More than once
    /// where a kept connection broke without a byte of an answer: then it is sent again on another.
    package var requests = 0
    /// Connections that had to be made.
    package var newConnections = 0
    /// From the beginning to the end, in seconds; time spent waiting for a pacer included.
    package var seconds = 0.0
    /// From the beginning to the first byte of the answer, in seconds; 0 where there was none.
    package var secondsToFirstByte = 0.0
    /// How much of `seconds` the pacers held the transfer back.
    package var secondsPaced = 0.0
}

/// The header fields of an answer, in their order. Names compare without regard to case.
package struct TransferHeaders: Sendable {
    package private(set) var fields: [(name: String, value: String)] = []

    package init() {}

    /// The value of the first field of this name, which must be given in lower case.
    package subscript(name: String) -> String? {
        fields.first { $0.name == name }?.value
    }

    mutating func append(_ name: String, _ value: String) {
        fields.append((name.lowercased(), value))
    }

    mutating func removeAll() { fields.removeAll(keepingCapacity: true) }
}

/// Which part of a resource an answer carries (RFC 9110, section 14.4).
package struct ContentRange: Sendable, Equatable {
    /// Offsets of the bytes; empty where the server says that the range asked for does not exist.
    package let bytes: Range<Int>
    /// Length of the whole; nil where the server does not know it.
    package let total: Int?

    /// Reads `bytes 0-99/1234`, `bytes 0-99/*` or `bytes */1234`; gives nil for anything else.
    package init?(_ text: String) {
        let unitAndRest = text.split(separator: " ", maxSplits: 1)
        guard unitAndRest.count == 2, unitAndRest[0].lowercased() == "bytes" else { return nil }
        let rangeAndTotal = unitAndRest[1].split(
            separator: "/", omittingEmptySubsequences: false)
        guard rangeAndTotal.count == 2 else { return nil }
        if rangeAndTotal[1] == "*" {
            total = nil
        } else {
            guard let count = ContentRange.number(rangeAndTotal[1]) else { return nil }
            total = count
        }
        if rangeAndTotal[0] == "*" {
            bytes = 0..<0
            return
        }
        let ends = rangeAndTotal[0].split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, let first = ContentRange.number(ends[0]),
            let last = ContentRange.number(ends[1]), first <= last, last < Int.max
        else { return nil }
        bytes = first..<last + 1
    }

    private static func number(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Int(text)
    }
}
