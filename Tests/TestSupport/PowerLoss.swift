/// What a disk may hold after the power went out: a model of a file system that keeps exactly what
/// it was made to keep, and of everything else any part.
///
/// The model promises no more than POSIX does. The bytes of a file survive if it was synchronised
/// after they were written; a name in a directory survives if the directory was synchronised after
/// the name was made, moved or removed. A rename is a new name and a removed one, in two
/// directories, each of which survives for itself. File systems with a journal lose less; a program
/// that is right here is right there.
///
/// Apply the operations of a `RecordingFileOperations` one by one, and after each ask for the
/// images.
package struct PowerLoss {
    private struct Inode {
        let isDirectory: Bool
        /// A file's bytes now, and as last synchronised.
        var bytes: [UInt8] = []
        var durableBytes: [UInt8] = []
        /// Ranges written since then.
        var pending: [Range<Int>] = []
        /// A directory's names now, and as last synchronised.
        var entries: [String: Int] = [:]
        var durableEntries: [String: Int] = [:]
    }

    /// A name made or (nil) removed in a directory that was not synchronised since.
    private struct NameChange {
        let directory: Int
        let name: String
        let inode: Int?
    }

    private var inodes = [Inode(isDirectory: true)]
    private var changes: [NameChange] = []

    /// Begins with an empty directory.
    package init() {}

    /// Begins with what lies in a directory, all of it safely on the disk.
    package init(startingWith directory: String) {
        for path in treeContents(directory) {
            if path.hasSuffix("/") {
                apply(.makeDirectory(String(path.dropLast())))
            } else {
                apply(.createFile(path))
                apply(.write(path, offset: 0, bytes: readFile("\(directory)/\(path)") ?? []))
                apply(.synchronizeFile(path))
            }
        }
        for path in treeContents(directory) where path.hasSuffix("/") {
            apply(.synchronizeDirectory(String(path.dropLast())))
        }
        apply(.synchronizeDirectory(""))
    }

    /// Makes one more operation happen.
    package mutating func apply(_ operation: FileOperation) {
        switch operation {
        case .makeDirectory(let path):
            inodes.append(Inode(isDirectory: true))
            setName(path, inodes.count - 1)
        case .createFile(let path):
            inodes.append(Inode(isDirectory: false))
            setName(path, inodes.count - 1)
        case .write(let path, let offset, let bytes):
            let inode = inode(at: path)
            let end = offset + bytes.count
            if inodes[inode].bytes.count < end {
                let missing = end - inodes[inode].bytes.count
                inodes[inode].bytes.append(contentsOf: repeatElement(0, count: missing))
            }
            inodes[inode].bytes.replaceSubrange(offset..<end, with: bytes)
            inodes[inode].pending.append(offset..<end)
        case .synchronizeFile(let path):
            let inode = inode(at: path)
            inodes[inode].durableBytes = inodes[inode].bytes
            inodes[inode].pending = []
        case .synchronizeDirectory(let path):
            let directory = inode(at: path)
            inodes[directory].durableEntries = inodes[directory].entries
            changes.removeAll { $0.directory == directory }
        case .rename(let from, let to):
            let inode = inode(at: from)
            setName(to, inode)
            setName(from, nil)
        case .link(let from, let to):
            setName(to, inode(at: from))
        case .unlink(let path), .removeDirectory(let path):
            setName(path, nil)
        }
    }

    /// Every legal state of the disk at this moment, each once.
    ///
    /// Of up to six names in doubt every combination is there; of more, every beginning of their
    /// sequence, and each one alone kept and alone lost. Bytes in doubt are lost, kept, cut in the
    /// middle, or there as zeros, in all files alike.
    package func images() -> [DiskImage] {
        var seen: Set<[String: DiskImage.Node]> = []
        var images: [DiskImage] = []
        for kept in keptChanges() {
            let entries = names(keeping: kept)
            for fate in DiskImage.Fate.allCases {
                var nodes: [String: DiskImage.Node] = [:]
                collect(directory: 0, prefix: "", entries, fate, into: &nodes)
                guard seen.insert(nodes).inserted else { continue }
                images.append(DiskImage(nodes: nodes, contents: contents(of: nodes)))
            }
        }
        return images
    }

    private func keptChanges() -> [[Bool]] {
        let count = changes.count
        if count <= 6 {
            return (0..<(1 << count)).map { mask in (0..<count).map { mask >> $0 & 1 == 1 } }
        }
        var choices = (0...count).map { length in (0..<count).map { $0 < length } }
        for one in 0..<count {
            choices.append((0..<count).map { $0 == one })
            choices.append((0..<count).map { $0 != one })
        }
        return choices
    }

    private func names(keeping kept: [Bool]) -> [[String: Int]] {
        var entries = inodes.map(\.durableEntries)
        for (change, isKept) in zip(changes, kept) where isKept {
            entries[change.directory][change.name] = change.inode
        }
        return entries
    }

    private func collect(
        directory: Int, prefix: String, _ entries: [[String: Int]], _ fate: DiskImage.Fate,
        into nodes: inout [String: DiskImage.Node]
    ) {
        for (name, inode) in entries[directory] {
            if inodes[inode].isDirectory {
                nodes[prefix + name] = .directory
                collect(directory: inode, prefix: prefix + name + "/", entries, fate, into: &nodes)
            } else {
                // Where nothing is in doubt all fates are one.
                let isSettled = inodes[inode].pending.isEmpty
                nodes[prefix + name] = .file(inode: inode, isSettled ? .kept : fate)
            }
        }
    }

    private func contents(
        of nodes: [String: DiskImage.Node]
    ) -> [DiskImage.Node: [UInt8]] {
        var contents: [DiskImage.Node: [UInt8]] = [:]
        for case (_, .file(let inode, let fate)) in nodes {
            contents[.file(inode: inode, fate)] = bytes(of: inodes[inode], fate)
        }
        return contents
    }

    private func bytes(of inode: Inode, _ fate: DiskImage.Fate) -> [UInt8] {
        switch fate {
        case .kept: return inode.bytes
        case .lost: return inode.durableBytes
        case .cut:
            // Half of what was added has arrived, or half of what was overwritten.
            let length = (inode.durableBytes.count + inode.bytes.count) / 2
            return Array(inode.bytes.prefix(length))
        case .zeroed:
            var bytes = inode.bytes
            for range in inode.pending {
                for index in range { bytes[index] = 0 }
            }
            return bytes
        }
    }

    private mutating func setName(_ path: String, _ inode: Int?) {
        let (parent, name) = split(path)
        let directory = self.inode(at: parent)
        inodes[directory].entries[name] = inode
        changes.append(NameChange(directory: directory, name: name, inode: inode))
    }

    private func inode(at path: String) -> Int {
        path.split(separator: "/").reduce(0) { directory, name in
            guard let inode = inodes[directory].entries[String(name)] else {
                preconditionFailure("the log speaks of \(path), which it never made")
            }
            return inode
        }
    }

    private func split(_ path: String) -> (parent: String, name: String) {
        guard let slash = path.lastIndex(of: "/") else { return ("", path) }
        return (String(path[..<slash]), String(path[path.index(after: slash)...]))
    }
}

/// One state of a disk after a loss of power.
package struct DiskImage: Sendable {
    /// What became of bytes that were never synchronised.
    package enum Fate: Sendable, Hashable, CaseIterable {
        case lost, kept, cut, zeroed
    }

    enum Node: Sendable, Hashable {
        case directory
        case file(inode: Int, Fate)
    }

    let nodes: [String: Node]
    let contents: [Node: [UInt8]]

    /// Everything in it, directories with a trailing slash, in byte order.
    package var paths: [String] {
        nodes.map { $0.value == .directory ? $0.key + "/" : $0.key }.sorted()
    }

    /// The bytes of a file, or nil where there is none.
    package func bytes(at path: String) -> [UInt8]? { nodes[path].flatMap { contents[$0] } }

    /// Builds this state in a directory, which must be empty.
    package func materialise(in directory: String) {
        for path in paths {
            if path.hasSuffix("/") {
                makeDirectory("\(directory)/\(path.dropLast())")
            } else {
                writeFile(bytes(at: path) ?? [], to: "\(directory)/\(path)")
            }
        }
    }
}

/// Builds every state that a loss of power may leave at every moment of a log, and hands it to
/// `body` with the number of operations that had happened. `start` is the directory as it was
/// before.
///
/// States that neither differ in their names nor in their bytes from one at the moment before are
/// not built again.
package func forEachPowerLoss(
    in log: [FileOperation], startingWith start: PowerLoss = PowerLoss(),
    _ body: (_ operations: Int, _ directory: TemporaryDirectory) throws -> Void
) rethrows {
    var model = start
    var previous: Set<[String: [UInt8]?]> = []
    for count in 0...log.count {
        if count > 0 { model.apply(log[count - 1]) }
        var current: Set<[String: [UInt8]?]> = []
        for image in model.images() {
            let state = Dictionary(
                uniqueKeysWithValues: image.paths.map { ($0, image.bytes(at: $0)) })
            guard current.insert(state).inserted, !previous.contains(state) else { continue }
            let directory = TemporaryDirectory.inMemory()
            image.materialise(in: directory.path)
            try body(count, directory)
        }
        previous = current
    }
}
