import CSystem
import Glibc
import SnapshotModel

extension TargetDirectory {
    /// Removes what stands at a path below the target, with everything in it.
    ///
    /// No symlink is followed, only removed. A directory on which another file system is mounted is
    /// not entered: that is an error, and what was to be removed before it is gone.
    ///
    /// - Returns: How many names were removed; 0 where nothing stood there.
    @discardableResult
    package func remove(_ relative: [UInt8]) throws(FileTreeError) -> Int {
        guard let status = try status(relative) else { return 0 }
        let slot = try slot(relative)
        if !status.isDirectory {
            let result = unlink(slot, isDirectory: false)
            if result == -ENOENT { return 0 }
            guard result == 0 else { throw failure(result, relative, "unlinkat", "remove") }
            return 1
        }
        defer { forget(relative) }
        return try removeTree(relative, device: status.device)
    }

    /// A directory whose contents are being removed.
    private struct Level {
        /// What is left to remove in it.
        var children: [(name: [UInt8], type: UInt8)]
        /// How much of the path names this directory.
        let pathCount: Int
    }

    // Without recursion, and with descriptors from the bounded cache: a tree may be as deep as it
    // likes.
    private func removeTree(_ top: [UInt8], device: UInt64) throws(FileTreeError) -> Int {
        var removed = 0
        var path = top
        var levels = [try level(path, device: device)]
        while var level = levels.popLast() {
            guard let child = level.children.popLast() else {
                let result = try unlink(path, isDirectory: true)
                guard result == 0 || result == -ENOENT else {
                    throw failure(result, path, "unlinkat", "remove the directory")
                }
                removed += 1
                path.removeSubrange((levels.last?.pathCount ?? 0)...)
                continue
            }
            levels.append(level)
            path.append(0x2F)
            path += child.name
            var isDirectory = child.type == UInt8(DT_DIR)
            if !isDirectory {
                let result = try unlink(path, isDirectory: false)
                isDirectory = result == -EISDIR
                if !isDirectory {
                    guard result == 0 || result == -ENOENT else {
                        throw failure(result, path, "unlinkat", "remove")
                    }
                    removed += 1
                    path.removeSubrange(level.pathCount...)
                }
            }
            if isDirectory { levels.append(try self.level(path, device: device)) }
        }
        return removed
    }

    private func level(_ path: [UInt8], device: UInt64) throws(FileTreeError) -> Level {
        var handle = try directory(path)
        var raw = csys_stat()
        let result = csys_fstat(handle.descriptor, &raw)
        guard result == 0 else { throw failure(result, path, "fstat", "examine") }
        if raw.mode & 0o700 != 0o700, raw.uid == geteuid(), raw.uid != 0 {
            // An owner may empty a directory that is closed to the owner: it only has to be opened.
            let slot = try slot(path)
            _ = csys_chmod_nofollow(slot.parent.descriptor, slot.name, raw.mode & 0o7777 | 0o700)
            forget(path)
            handle = try directory(path)
        }
        guard FileStatus(raw).device == device else {
            throw FileTreeError(
                .unsupported, "remove", path: displayed(path),
                cause: "another file system is mounted there")
        }
        var children: [(name: [UInt8], type: UInt8)] = []
        try TargetListing.forEach(in: handle, of: self) { name, type in
            children.append((Array(name), type))
            return true
        }
        return Level(children: children, pathCount: path.count)
    }

    private func unlink(_ path: [UInt8], isDirectory: Bool) throws(FileTreeError) -> Int32 {
        unlink(try slot(path), isDirectory: isDirectory)
    }

    private func unlink(_ slot: TargetSlot, isDirectory: Bool) -> Int32 {
        let result = unlocking(slot) {
            csys_unlinkat(slot.parent.descriptor, slot.name, isDirectory ? 1 : 0)
        }
        if result == 0 { locks.forget(slot.relative) }
        return result
    }
}
