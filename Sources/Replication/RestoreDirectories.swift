import FileTree
import Glibc
import SnapshotModel
import SnapshotRepository

/// A directory that the place in the manifest lies below.
struct RestoreAncestor {
    enum State {
        /// Made when something in it is wanted.
        case notMade
        case made
        /// It could not be made: what is in it cannot be restored either.
        case blocked
    }

    let path: [UInt8]
    let relative: [UInt8]
    /// Its manifest line; empty where the snapshot does not have the directory itself.
    let line: [UInt8]
    let hasFlags: Bool
    /// Whether a pattern asked for it, so that everything below is wanted.
    let isIncluded: Bool
    var state = State.notMade
    /// What lay in it before and has not been met in the manifest, the next one first.
    var others: ArraySlice<TargetChild> = []
}

/// A directory whose metadata is set when nothing more happens in it.
struct RestorePendingDirectory {
    let path: [UInt8]
    let relative: [UInt8]
    let line: [UInt8]
}

/// The directories of a restore: made in the order of the manifest, given their metadata when
/// everything in them is done.
extension RestoreRun {
    /// Goes through a segment that has been appended to the round's lines.
    func scan(segment id: ChunkID, from start: Int) {
        var at = start
        var number = 0
        while at < round.lines.count {
            number += 1
            guard let end = JSONLines.lineEnd(round.lines.bytes, from: at) else {
                manifest.noteDamage()
                outcome.damage(
                    lastPath.array, object: "manifest segment \(id)", "its last line is cut short")
                return
            }
            let bytes = UnsafeRawBufferPointer(rebasing: round.lines.bytes[at..<end])
            let place = at
            at = end + 1
            guard line.read(bytes) else {
                manifest.noteDamage()
                outcome.damage(
                    lastPath.array, object: "manifest segment \(id)",
                    "line \(number) is not an entry of format 1")
                continue
            }
            let path = line.path(in: bytes)
            guard EntryPath.isCanonical(path), path.count <= 1 << 20 else {
                outcome.damage(
                    Array(path), object: "manifest segment \(id)",
                    "this path could lead out of the target and is refused")
                continue
            }
            guard lastPath.count == 0 || EntryPath.compare(lastPath.bytes, path) < 0 else {
                outcome.damage(
                    Array(path), object: "manifest segment \(id)",
                    "stands out of order and is refused")
                continue
            }
            lastPath.removeAll()
            lastPath.append(path)
            enter(path, bytes, place)
            if outcome.isStopped { return }
        }
    }

    /// Deals with one entry.
    private func enter(
        _ path: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer, _ place: Int
    ) {
        if let selected {
            let isBelow = selected.withUnsafeBytes { EntryPath.contains($0, path) }
            guard isBelow else { return }
        }
        let isDirectory = line.kind == .directory
        if found == 0 { begin(path, isDirectory: isDirectory) }
        found += 1
        leave(path)
        meet(path)
        guard !selection.excludes(path, isDirectory: isDirectory) else {
            return exclude(path, isDirectory)
        }
        guard ancestors.last.map({ !excluded($0, path) }) ?? true else { return }
        let isIncluded =
            !selection.hasIncludes || ancestors.last?.isIncluded == true
            || selection.includes(path, isDirectory: isDirectory)
        if isIncluded { hasIncluded = true }
        if isDirectory {
            let copy = Array(path)
            if copy == ancestors.first?.path {
                // The target itself.
                let base = ancestors[0]
                ancestors[0] = RestoreAncestor(
                    path: base.path, relative: [], line: Array(bytes), hasFlags: line.hasFlags,
                    isIncluded: isIncluded, state: base.state)
                if isTargetNew { pend(ancestors[0]) }
                list(0, existed: !isTargetNew)
                if isTargetNew || options.ifExists != nil {
                    countDirectory(copy, isNew: isTargetNew)
                }
                return
            }
            guard fillGaps(below: path) else { return }
            ancestors.append(
                RestoreAncestor(
                    path: copy, relative: context.relative(copy), line: Array(bytes),
                    hasFlags: line.hasFlags, isIncluded: isIncluded))
            if isIncluded { _ = make(through: ancestors.count - 1) }
            return
        }
        guard isIncluded, fillGaps(below: path), make(through: ancestors.count - 1) else { return }
        round.records.append(
            RestoreRecord(
                line: UInt32(place), lineLength: UInt32(bytes.count), chunks: UInt32(line.chunks),
                kind: line.kind, depth: UInt8(line.depth), hasHoles: line.hasHoles,
                isLinked: line.links > 1, size: line.size, inode: line.inode,
                fileSystem: UInt32(truncatingIfNeeded: line.fileSystem)))
    }

    /// The first entry says what the target stands for: the selected directory, or the one that the
    /// selected file lies in.
    private func begin(_ path: UnsafeRawBufferPointer, isDirectory: Bool) {
        var base: [UInt8] = [0x2F]
        if let selected {
            let isItself = selected.withUnsafeBytes { Memory.equal($0, path) }
            base = isItself && !isDirectory ? EntryPath.parent(of: selected) : selected
        }
        context.strip = base.count == 1 ? 1 : base.count + 1
        ancestors = [
            RestoreAncestor(
                path: base, relative: [], line: [], hasFlags: false, isIncluded: false, state: .made
            )
        ]
    }

    // MARK: Where the manifest stands

    /// Leaves the directories that an entry does not lie in.
    private func leave(_ path: UnsafeRawBufferPointer) {
        while ancestors.count > 1, let last = ancestors.last {
            let isInside = last.path.withUnsafeBytes { EntryPath.contains($0, path) }
            if isInside { return }
            removeExtras(ancestors.count - 1, before: nil)
            ancestors.removeLast()
        }
    }

    func leaveAll() {
        while !ancestors.isEmpty {
            removeExtras(ancestors.count - 1, before: nil)
            ancestors.removeLast()
        }
    }

    /// The part of a path that names what lies directly in a directory above.
    private func component(_ path: UnsafeRawBufferPointer, below directory: [UInt8])
        -> UnsafeRawBufferPointer
    {
        let start = directory.count == 1 ? 1 : directory.count + 1
        guard start < path.count else {
            return UnsafeRawBufferPointer(rebasing: path[path.count...])
        }
        var end = start
        while end < path.count, path[end] != 0x2F { end += 1 }
        return UnsafeRawBufferPointer(rebasing: path[start..<end])
    }

    /// What the target has and the manifest passes over is extra.
    private func meet(_ path: UnsafeRawBufferPointer) {
        guard let last = ancestors.last, !last.others.isEmpty else { return }
        let name = component(path, below: last.path)
        if name.count > 0 { removeExtras(ancestors.count - 1, before: name) }
    }

    /// Patterns leave this out; in the target it stays as it is.
    private func exclude(_ path: UnsafeRawBufferPointer, _ isDirectory: Bool) {
        guard isDirectory else { return }
        excludedDirectory = Array(path)
    }

    private func excluded(_ ancestor: RestoreAncestor, _ path: UnsafeRawBufferPointer) -> Bool {
        guard !excludedDirectory.isEmpty else { return false }
        return excludedDirectory.withUnsafeBytes { EntryPath.contains($0, path) }
    }

    /// Adds directories that the snapshot does not have between the last one and an entry.
    private func fillGaps(below path: UnsafeRawBufferPointer) -> Bool {
        while let last = ancestors.last {
            let name = component(path, below: last.path)
            let end = (last.path.count == 1 ? 1 : last.path.count + 1) + name.count
            if end >= path.count { return true }
            let between = Array(UnsafeRawBufferPointer(rebasing: path[..<end]))
            ancestors.append(
                RestoreAncestor(
                    path: between, relative: context.relative(between), line: [], hasFlags: false,
                    isIncluded: last.isIncluded))
        }
        return false
    }

    // MARK: Making

    /// Makes the directories that are still missing. False where something in the target stands in
    /// the way.
    private func make(through last: Int) -> Bool {
        var first = last
        while first > 0, ancestors[first].state == .notMade { first -= 1 }
        if ancestors[first].state == .blocked {
            if first == last { return false }
            for index in (first + 1)...last { ancestors[index].state = .blocked }
            return false
        }
        guard first < last else { return true }
        for index in (first + 1)...last {
            guard make(index) else {
                for rest in index...last { ancestors[rest].state = .blocked }
                return false
            }
        }
        return true
    }

    private func make(_ index: Int) -> Bool {
        let directory = ancestors[index]
        let isImplicit = directory.line.isEmpty
        do throws(FileTreeError) {
            var isNew = true
            if let tree = context.tree {
                var flags: UInt32 = 0
                if directory.hasFlags {
                    flags = directory.line.withUnsafeBytes { EntryCodec.read($0) }?.flags ?? 0
                }
                isNew = try tree.makeDirectory(
                    directory.relative, flags: flags, replacing: context.mayReplace && !isImplicit)
            } else if let target = context.target {
                isNew = try target.status(directory.relative).map { !$0.isDirectory } ?? true
            }
            ancestors[index].state = .made
            if !isNew { list(index, existed: true) }
            if isNew || (context.mayReplace && !isImplicit) { pend(directory) }
            if !isImplicit { countDirectory(directory.path, isNew: isNew) }
            return true
        } catch {
            outcome.problem(
                directory.path,
                error.kind == .exists
                    ? FileTreeError(
                        .exists, "make the directory", path: error.path,
                        cause: "something else stands there; what lies in it is not restored")
                    : error)
            return false
        }
    }

    private func countDirectory(_ path: [UInt8], isNew: Bool) {
        if isNew { plan.directories += 1 }
        outcome.directory(isNew: isNew)
        if context.monitor.wantsPaths { context.monitor.path(path, isNew ? .restored : .kept) }
    }

    /// Remembers what lies in a directory that was there before, and clears away what an
    /// interrupted restore left.
    private func list(_ index: Int, existed: Bool) {
        guard existed, options.ifExists != nil, let target = context.target else { return }
        let directory = ancestors[index]
        do throws(FileTreeError) {
            var children = try target.children(of: directory.relative)
            if children.contains(where: { TreeWriter.isTemporaryName($0.name) }) {
                for child in children
                where TreeWriter.isTemporaryName(child.name) && !options.dryRun {
                    try target.remove(Self.join(directory.relative, child.name))
                }
                children.removeAll { TreeWriter.isTemporaryName($0.name) }
            }
            // Of a directory that the snapshot does not have, only the sources in it are known:
            // what else lies there is none of its business.
            if options.delete, !directory.line.isEmpty { ancestors[index].others = children[...] }
        } catch {
            outcome.problem(directory.path, error)
        }
    }

    static func join(_ directory: [UInt8], _ name: [UInt8]) -> [UInt8] {
        directory.isEmpty ? name : directory + [0x2F] + name
    }

    // MARK: Extras

    /// Removes what sorts before a name that the manifest has (or everything that is left, where
    /// there is none).
    private func removeExtras(_ index: Int, before name: UnsafeRawBufferPointer?) {
        while let child = ancestors[index].others.first {
            if let name {
                let order = child.name.withUnsafeBytes { EntryPath.compare($0, name) }
                if order > 0 { return }
                ancestors[index].others.removeFirst()
                if order == 0 { return }
            } else {
                ancestors[index].others.removeFirst()
            }
            removeExtra(child, in: ancestors[index])
        }
    }

    private func removeExtra(_ child: TargetChild, in directory: RestoreAncestor) {
        if manifest.isDamaged || outcome.isStopped {
            // What seems extra may stand in a part of the manifest that cannot be read.
            if !saidThatExtrasStay {
                saidThatExtrasStay = true
                outcome.note(
                    "extra files stay where they are, since part of the manifest cannot be read")
            }
            return
        }
        let path =
            directory.path.count == 1 ? [0x2F] + child.name : Self.join(directory.path, child.name)
        let isProtected = path.withUnsafeBytes {
            selection.excludes($0, isDirectory: child.kind == .directory)
        }
        if !isProtected {
            _ = context.removeExtra(Self.join(directory.relative, child.name), path: path)
        }
    }

    // MARK: Metadata

    private func pend(_ directory: RestoreAncestor) {
        guard !options.dryRun else { return }
        pendingDirectories.append(
            RestorePendingDirectory(
                path: directory.path, relative: directory.relative, line: directory.line))
    }

    /// Sets the metadata of directories in which nothing more will happen, the deepest first.
    func applyDirectories(isLast: Bool) {
        guard let tree = context.tree else { return }
        var kept: [RestorePendingDirectory] = []
        for directory in pendingDirectories.reversed() {
            if outcome.isStopped { return }
            let isOpen =
                !isLast
                && directory.path.withUnsafeBytes { EntryPath.contains($0, lastPath.bytes) }
            if isOpen {
                kept.append(directory)
                continue
            }
            var entry = directory.line.withUnsafeBytes { EntryCodec.read($0) }
            if entry == nil {
                guard directory.line.isEmpty else {
                    outcome.damage(
                        directory.path, object: "manifest",
                        "its line is not an entry of format 1; the directory has no metadata")
                    continue
                }
                // The snapshot does not have this directory: it becomes an ordinary one.
                var plain = Entry(path: directory.path, kind: .directory)
                plain.mode = 0o755
                plain.uid = geteuid()
                plain.gid = getegid()
                var now = timespec()
                clock_gettime(CLOCK_REALTIME, &now)
                plain.mtime = Timestamp(
                    seconds: Int64(now.tv_sec), nanoseconds: UInt32(now.tv_nsec))
                entry = plain
            }
            guard let entry else { continue }
            do throws(FileTreeError) {
                outcome.problems(
                    try tree.applyDirectoryMetadata(directory.relative, entry: entry))
            } catch {
                outcome.problem(directory.path, error)
            }
        }
        pendingDirectories = kept.reversed()
    }
}
