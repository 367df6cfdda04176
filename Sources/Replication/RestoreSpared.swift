import SnapshotModel
import SnapshotRepository

/// What a backup could not store, so that the snapshot does not have it: missing there means
/// nothing, and `--delete` must not take it for an extra.
struct RestoreSpared: Sendable {
    /// The snapshot's problems that left something out, by path.
    private var messages: [[UInt8]: String] = [:]
    /// All directories above them.
    private var above: Set<[UInt8]> = []

    init() {}

    init(_ problems: [SnapshotProblem]) {
        for problem in problems where problem.kind != .changed && problem.kind != .metadata {
            messages[problem.path] = problem.message
            var parent = EntryPath.parent(of: problem.path)
            while parent.count > 1, above.insert(parent).inserted {
                parent = EntryPath.parent(of: parent)
            }
        }
    }

    /// Why `path` may be missing from the snapshot without being an extra; nil where it may not.
    func reason(for path: [UInt8]) -> String? {
        guard !messages.isEmpty else { return nil }
        var place = path
        while place.count > 1 {
            if let message = messages[place] {
                return place == path
                    ? "the backup could not store it (\(message))"
                    : "the backup could not store \(UTF8Text.display(place)) (\(message))"
            }
            place = EntryPath.parent(of: place)
        }
        return above.contains(path) ? "something in it could not be stored by the backup" : nil
    }
}
