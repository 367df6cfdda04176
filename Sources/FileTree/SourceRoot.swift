import CSystem
import Glibc
import SnapshotModel

/// Where a walk begins: a path as a person wrote it, made absolute and canonical, of something that
/// exists.
///
/// `.` and empty components go. `..` goes with the component before it, and where that is a
/// symbolic link, with what the link leads to, as the kernel does it. Otherwise links on the way
/// stay in the path as they were written: a path that leads through a link `current` keeps its name
/// when the link is turned. The last component is kept if it is a link, unless a slash (or `/.`)
/// behind it says that its target is meant.
package struct SourceRoot: Sendable, Hashable {
    /// Absolute, canonical in the sense of `EntryPath`.
    package let path: [UInt8]
    /// A link that is followed, so that what it leads to is walked under the link's path.
    package let followsLink: Bool
    /// A link that is not followed: the walk delivers the link and nothing else, which its user may
    /// not have meant.
    package let isSymbolicLink: Bool

    private init(path: [UInt8], followsLink: Bool, isSymbolicLink: Bool) {
        self.path = path
        self.followsLink = followsLink
        self.isSymbolicLink = isSymbolicLink
    }

    /// - Parameters:
    ///   - words: The path as written.
    ///   - workingDirectory: What a relative path begins at, absolute; nil asks the kernel.
    /// - Throws: `notFound` where nothing is there, `notADirectory` where a slash ends the path of
    ///   something else, …
    package init(
        _ words: [UInt8], workingDirectory: [UInt8]? = nil
    ) throws(FileTreeError) {
        guard !words.isEmpty, !words.contains(0) else {
            throw FileTreeError(
                .malformed, "walk", path: words,
                cause: words.isEmpty ? "an empty path names nothing" : "a path holds no zero byte")
        }
        let isRelative = words[0] != 0x2F
        var written: [UInt8] = []
        if isRelative {
            if let workingDirectory {
                written = workingDirectory
            } else {
                written = try Self.currentDirectory()
            }
        }
        written += [0x2F] + words
        let path = try Self.canonical(written)
        let status = try Self.status(path, as: words)
        // `x/`, `x/.` and `x/y/..` all mean the directory that x is or leads to.
        let ending = EntryPath.components(of: words).last ?? []
        let meansDirectory = words.last == 0x2F || ending == [0x2E] || ending == [0x2E, 0x2E]
        if status.isSymlink, meansDirectory {
            // Throws where it leads nowhere, or to something else.
            _ = try DirectoryHandle(opening: path, reading: false)
            self.init(path: path, followsLink: true, isSymbolicLink: false)
            return
        }
        if meansDirectory, !status.isDirectory {
            throw .system(ENOTDIR, "lstat", "walk", path: words)
        }
        self.init(path: path, followsLink: false, isSymbolicLink: status.isSymlink)
    }

    private static func currentDirectory() throws(FileTreeError) -> [UInt8] {
        var size = 4096
        while true {
            var buffer = [CChar](repeating: 0, count: size)
            if getcwd(&buffer, size) != nil {
                return buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
            }
            guard errno == ERANGE, size < 1 << 24 else {
                throw .system(errno, "getcwd", "find the working directory", path: [])
            }
            size *= 2
        }
    }

    private static func canonical(_ written: [UInt8]) throws(FileTreeError) -> [UInt8] {
        var components: [[UInt8]] = []
        for component in EntryPath.components(of: written) {
            if component == [0x2E] { continue }
            guard component == [0x2E, 0x2E] else {
                components.append(component)
                continue
            }
            let prefix = join(components)
            if try status(prefix, as: written).isSymlink {
                components = EntryPath.components(of: try physical(prefix))
            }
            _ = components.popLast()
        }
        return join(components)
    }

    private static func join(_ components: [[UInt8]]) -> [UInt8] {
        components.isEmpty ? [0x2F] : components.reduce(into: []) { $0 += [0x2F] + $1 }
    }

    /// The path with all links resolved.
    private static func physical(_ path: [UInt8]) throws(FileTreeError) -> [UInt8] {
        let name = path.map { CChar(bitPattern: $0) } + [0]
        guard let resolved = realpath(name, nil) else {
            throw .system(errno, "realpath", "resolve", path: path)
        }
        defer { free(resolved) }
        return Array(UnsafeRawBufferPointer(start: resolved, count: strlen(resolved)))
    }

    private static func status(
        _ path: [UInt8], as written: [UInt8]
    ) throws(FileTreeError) -> FileStatus {
        let (parent, rest) = try DirectoryHandle.approach(path)
        var raw = csys_stat()
        let result = rest.withUnsafeBufferPointer { csys_lstatat(parent, $0.baseAddress!, &raw) }
        if parent != AT_FDCWD { _ = csys_close(parent) }
        guard result == 0 else { throw .system(result, "lstat", "find", path: written) }
        return FileStatus(raw)
    }

    // MARK: Several roots

    /// Sorts roots and drops those that lie in others, so that no entry comes twice.
    ///
    /// A root that lies in another by its path but is reached through a symbolic link there would
    /// be missed by the walk of the other, which delivers the link. It is then walked under its
    /// real path.
    package static func merged(_ roots: [SourceRoot]) throws(FileTreeError) -> [SourceRoot] {
        var pending = roots
        while true {
            // Of two equal ones the one that is followed says more.
            pending.sort {
                let order = EntryPath.compare($0.path, $1.path)
                return order != 0 ? order < 0 : $0.followsLink && !$1.followsLink
            }
            var merged: [SourceRoot] = []
            var isSettled = true
            for root in pending {
                // In this order a root that holds others stands before them with nothing foreign in
                // between.
                guard let outer = merged.last, EntryPath.contains(outer.path, root.path) else {
                    merged.append(root)
                    continue
                }
                if outer.path == root.path { continue }
                if let real = try root.detour(from: outer) {
                    merged.append(real)
                    isSettled = false
                }
            }
            if isSettled { return merged }
            pending = merged
        }
    }

    /// The root under its real path where the walk of `outer`, which contains it by its path, would
    /// not come to it.
    private func detour(from outer: SourceRoot) throws(FileTreeError) -> SourceRoot? {
        var length = outer.path.count
        var crossesLink = outer.isSymbolicLink
        while !crossesLink, length < path.count {
            length += 1
            while length < path.count, path[length] != 0x2F { length += 1 }
            if length == path.count, !followsLink { break }
            crossesLink = try Self.status(Array(path[..<length]), as: path).isSymlink
        }
        guard crossesLink else { return nil }
        if followsLink {
            return SourceRoot(
                path: try Self.physical(path), followsLink: false, isSymbolicLink: false)
        }
        let parent = try Self.physical(EntryPath.parent(of: path))
        let real = (parent == [0x2F] ? [] : parent) + [0x2F] + EntryPath.lastComponent(of: path)
        return SourceRoot(path: real, followsLink: false, isSymbolicLink: isSymbolicLink)
    }
}
