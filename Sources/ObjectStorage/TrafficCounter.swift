import Synchronization

/// What a run has asked of its stores: requests that really went out, and bytes that really flowed,
/// repeated ones included. Summaries and `--json` show it.
package final class TrafficCounter: Sendable {
    /// What a request was for.
    package enum Request: String, CaseIterable, Sendable {
        case put, get, head, list, delete, other
    }

    private let counts = Mutex(Counts())

    /// What has been counted so far.
    package struct Counts: Sendable, Equatable {
        package var requests: [Request: Int] = [:]
        /// Bytes of bodies sent.
        package var bytesSent = 0
        /// Bytes of bodies received.
        package var bytesReceived = 0
        /// Calls that were made again after a failure that could pass.
        package var retries = 0
        /// Objects, or parts of them, that arrived altered and were right when fetched once more.
        package var altered = 0
        /// How long calls took, the attempts one by one.
        package var latencies: [Request: Latency] = [:]

        package init() {}

        package var total: Int { requests.values.reduce(0, +) }
    }

    package struct Latency: Sendable, Equatable {
        package var count: Int
        package var totalNanoseconds: Int64
        package var longestNanoseconds: Int64

        package init(
            count: Int = 0, totalNanoseconds: Int64 = 0, longestNanoseconds: Int64 = 0
        ) {
            self.count = count
            self.totalNanoseconds = totalNanoseconds
            self.longestNanoseconds = longestNanoseconds
        }
    }

    package init() {}

    package func count(_ request: Request) {
        counts.withLock { $0.requests[request, default: 0] += 1 }
    }
    package func count(sent bytes: Int) { counts.withLock { $0.bytesSent += bytes } }
    package func count(received bytes: Int) { counts.withLock { $0.bytesReceived += bytes } }
    package func count(_ request: Request, nanoseconds: Int64) {
        counts.withLock { counts in
            var latency = counts.latencies[request] ?? Latency()
            latency.count += 1
            latency.totalNanoseconds += nanoseconds
            latency.longestNanoseconds = max(latency.longestNanoseconds, nanoseconds)
            counts.latencies[request] = latency
        }
    }
    package func countRetry() { counts.withLock { $0.retries += 1 } }
    package func countAltered() { counts.withLock { $0.altered += 1 } }

    package var now: Counts { counts.withLock { $0 } }
}
