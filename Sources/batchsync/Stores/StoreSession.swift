import ObjectStorage
import RunReports
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
        if counts.altered > 0 {
            Console.shared.out(
                indent
                    + "\(NumberText.counted(counts.altered, "transfer")) arrived altered and came right when fetched once more: look at the line, or use https"
            )
        }
    }

    /// The same for programs, of all stores.
    var trafficField: (key: String, value: JSONValue) {
        ("traffic", TrafficSummary(counter.now).document)
    }

    /// Calls at once at which the verb's stores have settled, by the places they were given.
    var settledConcurrency: [String: Int] {
        opened.withLock { opened in
            opened.reduce(into: [:]) { $0[$1.location] = $1.controls.settledConcurrency }
        }
    }

    /// Keeps for the next run what this one has learned of its stores.
    func end() {
        for store in opened.withLock({ $0 }) { store.remember() }
    }
}
