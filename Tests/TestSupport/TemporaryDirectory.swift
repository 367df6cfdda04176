import CSystem
import Glibc

/// A directory of a test's own, removed with everything in it when the last reference goes.
package final class TemporaryDirectory: Sendable {
    /// Its path, absolute and without symbolic links.
    package let path: String

    /// - Parameter parent: Where to make it; `TMPDIR` or `/tmp` where nothing is said.
    package init(in parent: String? = nil) {
        let parent = parent ?? getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(parent)/batchsync-test-XXXXXX".utf8CString)
        precondition(mkdtemp(&template) != nil, "no temporary directory can be made in \(parent)")
        let made = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        guard let resolved = realpath(made, nil) else { fatalError("\(made) has vanished") }
        path = String(cString: resolved)
        free(resolved)
    }

    deinit { removeTree(path) }

    /// A directory in memory where there is one, for tests whose matter is not the disk: there
    /// nothing waits for it. Keeps no inode flags and, on older kernels, no extended attributes.
    package static func inMemory() -> TemporaryDirectory {
        TemporaryDirectory(in: access("/dev/shm", W_OK) == 0 ? "/dev/shm" : nil)
    }

    /// The path of something in it.
    package func path(_ name: String) -> String { "\(path)/\(name)" }

    /// Everything below it as relative paths, directories with a trailing slash, in byte order.
    package func contents() -> [String] { treeContents(path) }

    /// Writes a file, replacing what it held; its directory must be there.
    package func write(_ bytes: [UInt8], to name: String, mode: UInt32 = 0o600) {
        writeFile(bytes, to: path(name), mode: mode)
    }

    /// Reads a file whole; nil where there is none.
    package func read(_ name: String) -> [UInt8]? { readFile(path(name)) }
}

/// Everything below `path` as relative paths, directories with a trailing slash, in byte order.
package func treeContents(_ path: String) -> [String] {
    var found: [String] = []
    func visit(_ prefix: String) {
        for name in directoryNames("\(path)/\(prefix)") {
            var status = csys_stat()
            guard csys_lstatat(AT_FDCWD, "\(path)/\(prefix)\(name)", &status) == 0 else { continue }
            if csys_kind(status.mode) == CSYS_DIRECTORY {
                found.append("\(prefix)\(name)/")
                visit("\(prefix)\(name)/")
            } else {
                found.append("\(prefix)\(name)")
            }
        }
    }
    visit("")
    return found.sorted()
}

/// Removes `path` and everything below it, whatever its permissions. Follows no symbolic link.
package func removeTree(_ path: String) {
    var status = csys_stat()
    guard csys_lstatat(AT_FDCWD, path, &status) == 0 else { return }
    guard csys_kind(status.mode) == CSYS_DIRECTORY else {
        _ = csys_unlinkat(AT_FDCWD, path, 0)
        return
    }
    _ = csys_fchmodat(AT_FDCWD, path, 0o700)
    for name in directoryNames(path) { removeTree("\(path)/\(name)") }
    _ = csys_unlinkat(AT_FDCWD, path, 1)
}

/// Makes a directory; one that is there already is left as it is.
package func makeDirectory(_ path: String, mode: UInt32 = 0o700) {
    let made = csys_mkdirat(AT_FDCWD, path, mode)
    precondition(made == 0 || made == -EEXIST, "cannot make \(path): \(made)")
}

package func writeFile(_ bytes: [UInt8], to path: String, mode: UInt32 = 0o600) {
    let file = csys_open(path, O_CREAT | O_TRUNC | O_WRONLY | CSYS_O_CLOEXEC, mode)
    precondition(file >= 0, "cannot create \(path): \(file)")
    defer { _ = csys_close(file) }
    var offset = 0
    while offset < bytes.count {
        let count = bytes.withUnsafeBytes {
            csys_pwrite(file, $0.baseAddress! + offset, $0.count - offset, Int64(offset))
        }
        precondition(count > 0, "cannot write \(path): \(count)")
        offset += count
    }
}

package func readFile(_ path: String) -> [UInt8]? {
    let file = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC | CSYS_O_NOFOLLOW, 0)
    guard file >= 0 else { return nil }
    defer { _ = csys_close(file) }
    var status = csys_stat()
    guard csys_fstat(file, &status) == 0, csys_kind(status.mode) == CSYS_FILE else { return nil }
    return [UInt8](unsafeUninitializedCapacity: Int(status.size)) { buffer, filled in
        while filled < status.size {
            let rest = UnsafeMutableRawBufferPointer(
                UnsafeMutableBufferPointer(rebasing: buffer[filled..<Int(status.size)]))
            let count = csys_pread(file, rest.baseAddress, rest.count, Int64(filled))
            if count <= 0 { break }
            filled += count
        }
    }
}

private func directoryNames(_ path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}
