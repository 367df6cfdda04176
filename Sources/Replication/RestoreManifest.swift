import SnapshotModel
import SnapshotRepository

/// The segments of a snapshot's manifest, one after the other. Damage costs what lies below the
/// damaged node, and is named.
///
/// One thread at a time.
final class RestoreManifest {
    private let fetcher: FrameFetcher
    private let selected: [UInt8]?
    private let outcome: RestoreOutcome
    /// What is left to read, the next one last; `level` 0 are segments.
    private var pending: [(level: Int, child: ManifestChild)]
    /// The path that the last segment or node began with: what does not come after it is refused.
    private var last: [UInt8] = []
    /// Whether something could not be read, so that names may be missing.
    private(set) var isDamaged = false

    init(_ snapshot: Snapshot, fetcher: FrameFetcher, selected: [UInt8]?, outcome: RestoreOutcome) {
        self.fetcher = fetcher
        self.selected = selected
        self.outcome = outcome
        pending = snapshot.manifestIDs.reversed().map {
            (snapshot.manifestDepth, ManifestChild(id: $0, first: []))
        }
    }

    func noteDamage() { isDamaged = true }

    /// The next segment's bytes and name; nil at the end. The bytes are valid until the fetcher is
    /// used again.
    func next() throws(ReplicationError) -> (id: ChunkID, bytes: UnsafeRawBufferPointer)? {
        while let (level, child) = pending.popLast() {
            let name = level == 0 ? "manifest segment \(child.id)" : "manifest node \(child.id)"
            if level == 0 || !child.first.isEmpty {
                // Equal nodes named a thousand times over would never end.
                guard last.isEmpty || EntryPath.compare(child.first, last) >= 0 else {
                    lose(child, name, "stands out of order")
                    continue
                }
            }
            do throws(RepositoryError) {
                let bytes = try fetcher.chunk(child.id)
                if level == 0 {
                    if child.first == last, !last.isEmpty {
                        lose(child, name, "stands there twice")
                        continue
                    }
                    last = child.first
                    return (child.id, bytes)
                }
                guard let children = ManifestChild.read(bytes), !children.isEmpty,
                    zip(children, children.dropFirst()).allSatisfy({
                        EntryPath.precedes($0.first, $1.first)
                    })
                else {
                    lose(child, name, "is not a node of format 1")
                    continue
                }
                for item in narrow(children).reversed() { pending.append((level - 1, item)) }
            } catch {
                if RestoreOutcome.concernsAll(error) { throw ReplicationError(error) }
                isDamaged = true
                outcome.damage(
                    child.first, object: error.subject.isEmpty ? name : error.subject,
                    "\(name) cannot be read, so that the files named in it are not restored: \(error.message)"
                )
            }
        }
        return nil
    }

    private func lose(_ child: ManifestChild, _ name: String, _ message: String) {
        isDamaged = true
        outcome.damage(child.first, object: name, message)
    }

    /// Of children in order, those that may hold the selected path or anything below it.
    private func narrow(_ children: [ManifestChild]) -> [ManifestChild] {
        guard let selected else { return children }
        var kept: [ManifestChild] = []
        for (index, child) in children.enumerated() {
            // A child's paths run from its first up to the next one's.
            if index + 1 < children.count,
                EntryPath.compare(children[index + 1].first, selected) <= 0
            {
                continue
            }
            if EntryPath.compare(child.first, selected) > 0,
                !EntryPath.contains(selected, child.first)
            {
                break
            }
            kept.append(child)
        }
        return kept
    }
}

/// The chunks of one file in order, list node by list node: a file of any length takes the memory
/// of a few nodes.
struct RestoreChunkList {
    private let fetcher: FrameFetcher
    /// Ids that are left at each level, the next one last; the level of the chunks themselves is 0.
    private var levels: [(level: Int, ids: ArraySlice<ChunkID>)]

    init(_ ids: [ChunkID], depth: Int, fetcher: FrameFetcher) {
        self.fetcher = fetcher
        levels = [(depth, ids[...])]
    }

    mutating func next() throws(RepositoryError) -> ChunkID? {
        while let top = levels.last {
            guard let id = top.ids.first else {
                levels.removeLast()
                continue
            }
            levels[levels.count - 1].ids = top.ids.dropFirst()
            if top.level == 0 { return id }
            guard let ids = ListNode.read(try fetcher.chunk(id)) else {
                throw RepositoryError(
                    .damaged, "list node \(id)", "is not a node of format 1",
                    remedy: "run 'batchsync verify' to see which snapshots this affects")
            }
            levels.append((top.level - 1, ids[...]))
        }
        return nil
    }
}
