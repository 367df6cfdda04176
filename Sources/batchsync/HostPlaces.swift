import FileTree
import Glibc
import Replication
import SnapshotRepository
import Synchronization

/// Directories for this host's own files that can really be used. A full or read-only disk must
/// keep nobody from getting files back, nor from backing up what is left: such a directory is
/// replaced by a temporary one for this run, and the user is told.
enum HostPlaces {
    /// What took the place of a directory, by its path; the directory itself where it is good.
    private static let chosen = Mutex<[String: String]>([:])
    private static let temporary = Mutex<[String]>([])
    private static let said = Mutex<[String]>([])
    /// With less room than this a directory counts as full.
    private static let leastBytes: UInt64 = 8 << 20

    /// - Parameter what: What lies there, for the note.
    static func usable(_ path: String, _ what: String) -> String {
        if let known = chosen.withLock({ $0[path] }) { return known }
        var place = path
        if let reason = whyNot(path), let other = makeTemporary() {
            place = other
            let note =
                "the \(what) \(path) cannot be used (\(reason)): this run keeps its files in \(other) and removes them at its end"
            Console.shared.say("batchsync: \(note)")
            said.withLock { $0.append(note) }
        }
        chosen.withLock { $0[path] = place }
        return place
    }

    /// What the user was told of directories that were replaced.
    static var notes: [String] { said.withLock { $0 } }

    /// Removes what was made for this run.
    static func end() {
        for path in temporary.withLock({ $0 }) {
            let parent = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
            guard
                let directory = try? TargetDirectory.open(path: Array(parent.utf8), create: false)
            else { continue }
            _ = try? directory.remove(Array(path.utf8.dropFirst(parent.utf8.count + 1)))
        }
    }

    /// Why nothing can be kept below `path`; nil where it can.
    private static func whyNot(_ path: String) -> String? {
        do {
            try LocalFile.makeDirectory(path)
        } catch {
            return error.message
        }
        guard access(path, W_OK | X_OK) == 0 else { return String(cString: strerror(errno)) }
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { return nil }
        let free = UInt64(status.f_bavail) * UInt64(status.f_frsize)
        return free < leastBytes ? "its file system is full" : nil
    }

    private static func makeTemporary() -> String? {
        let places = [Assembly.variable("TMPDIR"), "/tmp", "/dev/shm"].compactMap { $0 }
        for place in places where whyNot(place) == nil {
            var template = Array((place + "/batchsync-XXXXXX").utf8CString)
            guard mkdtemp(&template) != nil else { continue }
            let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            temporary.withLock { $0.append(path) }
            return path
        }
        return nil
    }
}
