import FileTree
import SnapshotModel

/// The files with several names that this run has read, so that each is read once: what a further
/// name stands for is known already. Shared by all threads.
///
/// Bounded: where it is full, files that come anew are read at each of their names. Those that it
/// has stay, since trees of links, such as rotated copies, are walked in one order again and again.
final class LinkedFiles: Sendable {
    private struct Key: Hashable {
        let device: UInt64
        let inode: UInt64

        init(_ status: FileStatus) {
            device = status.device
            inode = status.inode
        }
    }

    private struct Content {
        let status: FileStatus
        let entry: Entry
        var namesLeft: UInt32
        let bytes: Int
    }

    private struct Table {
        /// Nil while the first of its names is being read.
        var contents: [Key: Content?] = [:]
        var bytes = 0
    }

    enum Claim {
        /// Nobody has read it: the caller does, and says so with `finish`.
        case first
        /// The entry of an earlier name, its path left empty.
        case known(Entry)
        /// The caller reads it for this name alone.
        case unknown
    }

    private let table = Monitored(Table())

    /// Asks for a file with several names; waits while another thread reads it.
    /// - Parameter status: What the walk saw. Where the file was read in another state, it is
    ///   unknown.
    func claim(_ status: FileStatus) -> Claim {
        let key = Key(status)
        return table.wait { table -> Claim? in
            switch table.contents[key] {
            case .none:
                guard table.bytes < Limits.linkedFileBytes else { return .unknown }
                table.contents[key] = .some(nil)
                return .first
            case .some(.none):
                return nil
            case .some(.some(var content)):
                guard status.isUnchanged(since: content.status) else { return .unknown }
                content.namesLeft -= 1
                if content.namesLeft == 0 {
                    table.contents[key] = .none
                    table.bytes -= content.bytes
                } else {
                    table.contents[key] = content
                }
                return .known(content.entry)
            }
        }
    }

    /// Ends what `claim` answered with `.first`.
    /// - Parameters:
    ///   - status: What the walk saw, as for `claim`.
    ///   - outcome: How the file was when it was opened, and its entry; nil where the next name has
    ///     to be read by itself, since this one could not be, or not as a whole.
    func finish(_ status: FileStatus, _ outcome: (opened: FileStatus, entry: Entry)?) {
        let key = Key(status)
        table.change { table in
            table.contents[key] = .none
            guard let (opened, entry) = outcome, Key(opened) == key, opened.links > 1 else {
                return
            }
            var nameless = entry
            nameless.path = []
            // The entry itself, its place in the table, and what its arrays hold.
            let attributes = entry.xattrs.reduce(0) { $0 + $1.name.count + $1.value.count + 64 }
            let bytes =
                1024 + entry.chunks.count * 32 + (entry.holes.count + entry.holesList.count) * 32
                + attributes
            table.contents[key] = Content(
                status: opened, entry: nameless, namesLeft: opened.links - 1, bytes: bytes)
            table.bytes += bytes
        }
    }
}
