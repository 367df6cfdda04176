import ObjectStorage
import SnapshotModel
import Synchronization

/// The stores of one verb. A command runs one verb, and there is one of these.
final class StoreSession: Sendable {
    static let shared = StoreSession()

    /// What the verb has asked of all its stores.
    let counter = TrafficCounter()
    private let opened = Mutex<[OpenedStore]>([])

    func note(_ store: OpenedStore) -> OpenedStore {
        opened.withLock { $0.append(store) }
        return store
    }

    /// Says what was asked of stores that are no directories, where there were any.
    func tellTraffic(indent: String = "") {
        guard opened.withLock({ $0.contains { !$0.store.capabilities.isLocal } }) else { return }
        let counts = counter.now
        var text =
            "\(NumberText.counted(counts.total, "request")), \(NumberText.bytes(counts.bytesSent)) sent, "
            + "\(NumberText.bytes(counts.bytesReceived)) received"
        if counts.retries > 0 { text += ", \(NumberText.grouped(counts.retries)) tried again" }
        Console.shared.out(indent + text)
    }

    /// The same for programs, of all stores.
    var trafficField: (key: String, value: JSONValue) { ("traffic", counter.now.document) }

    /// Keeps for the next run what this one has learned of its stores.
    func end() {
        for store in opened.withLock({ $0 }) { store.remember() }
    }
}

extension TrafficCounter.Counts {
    var document: JSONValue {
        .object([
            (
                "requests",
                .object(
                    TrafficCounter.Request.allCases.map { ($0.rawValue, .count(requests[$0] ?? 0)) }
                )
            ),
            ("bytes_sent", .count(bytesSent)), ("bytes_received", .count(bytesReceived)),
            ("retries", .count(retries)),
        ])
    }
}
