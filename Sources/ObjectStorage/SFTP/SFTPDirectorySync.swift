import Synchronization

/// Has the server move the names in a directory to its disk, and the names of the directories above
/// it where this process has not seen to that yet.
///
/// SFTP has no word for it, but OpenSSH opens a directory like a file and synchronises what is open.
/// A server that refuses the one or lacks the other keeps names as durably as its file system does
/// by itself.
struct SFTPDirectorySync {
    private let store: SFTPStore
    /// Relative to the store's root; empty for the root itself.
    private let name: String
    private let exchange: SFTPExchange

    init(_ store: SFTPStore, _ name: String, over exchange: SFTPExchange) {
        self.store = store
        self.name = name
        self.exchange = exchange
    }

    /// The directory's own path.
    var path: [UInt8] { store.path(ofDirectory: name) }

    /// Whether the directory itself is known to survive a crash, so that only names in it matter.
    var isDurable: Bool { store.durable.withLock { $0.contains(name) } }

    /// Synchronises the directory and, where it is new to this process, those above it.
    func run() throws(SFTPFailure) {
        guard exchange.connection.abilities.canSynchronize else { return }
        var names = [name]
        if !isDurable {
            var rest = name[...]
            while !rest.isEmpty {
                rest = rest.lastIndex(of: "/").map { rest[..<$0] } ?? ""
                names.append(String(rest))
            }
        }
        let opened = try exchange.ask(
            all: names.map { .openForReading(store.path(ofDirectory: $0)) })
        var handles: [[UInt8]] = []
        for reply in opened { if case .handle(let handle) = reply { handles.append(handle) } }
        let synchronized = try exchange.ask(all: handles.map { .fsync($0) })
        for handle in handles { exchange.sendAndForget(.close(handle)) }
        for reply in synchronized {
            let status = try exchange.status(of: reply)
            // Where directories cannot be synchronised there is nothing to be had.
            if status.isOK || status.isUnsupported || status.code == SFTPStatus.badMessage {
                continue
            }
            throw .refused(status)
        }
        store.durable.withLock { _ = $0.insert(name) }
    }
}
