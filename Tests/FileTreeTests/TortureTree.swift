import CSystem
import Glibc

@testable import FileTree

/// A directory of a test's own, removed with all that is in it.
final class WalkScratch {
    let path: [UInt8]
    let handle: DirectoryHandle
    var text: String { String(decoding: path, as: UTF8.self) }

    init(below parent: String = "/tmp") throws {
        var template = Array("\(parent)/batchsync-walk-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil, let real = realpath(template, nil) else {
            throw FileTreeError.system(errno, "mkdtemp", "make", path: Array(parent.utf8))
        }
        path = Array(UnsafeRawBufferPointer(start: real, count: strlen(real)))
        free(real)
        handle = try DirectoryHandle(opening: path)
    }

    deinit { run(["/bin/rm", "-rf", text]) }

    func path(_ name: String) -> [UInt8] { path + [0x2F] + Array(name.utf8) }

    func root(_ name: String? = nil) throws -> SourceRoot {
        try SourceRoot(name.map { path($0) } ?? path)
    }

    /// Makes a directory, and those above it.
    func directory(_ name: String) {
        var at = ""
        for part in name.split(separator: "/") {
            at += (at.isEmpty ? "" : "/") + part
            let result = csys_mkdirat(handle.descriptor, at, 0o755)
            precondition(result == 0 || result == -EEXIST, "mkdir \(at): \(result)")
        }
    }

    func file(_ name: String, _ content: [UInt8] = []) {
        if let slash = name.lastIndex(of: "/") { directory(String(name[..<slash])) }
        write(Array(name.utf8), content)
    }

    func file(_ name: String, _ content: String) { file(name, Array(content.utf8)) }

    func write(_ name: [UInt8], _ content: [UInt8]) {
        withDescriptor(name, O_WRONLY | O_CREAT | O_TRUNC) { descriptor in
            let written = content.withUnsafeBytes {
                $0.isEmpty ? 0 : csys_pwrite(descriptor, $0.baseAddress!, $0.count, 0)
            }
            precondition(written == content.count)
        }
    }

    func withDescriptor<Result>(
        _ name: [UInt8], _ flags: Int32 = O_RDONLY, _ body: (Int32) -> Result
    ) -> Result {
        let descriptor = withName(name) {
            csys_openat(handle.descriptor, $0, flags | CSYS_O_CLOEXEC, 0o644)
        }
        precondition(descriptor >= 0, "open \(name): \(descriptor)")
        defer { _ = csys_close(descriptor) }
        return body(descriptor)
    }

    func symlink(_ target: String, _ name: String) {
        let result = csys_symlinkat(target, handle.descriptor, name)
        precondition(result == 0, "symlink \(name): \(result)")
    }

    func flags(_ name: String) -> UInt32? {
        withDescriptor(Array(name.utf8)) { descriptor in
            var bits: UInt32 = 0
            return csys_getflags(descriptor, &bits) == 0 ? bits : nil
        }
    }

    /// False where the file system or this user cannot do it.
    func add(flags: UInt32, to name: String) -> Bool {
        guard let before = self.flags(name) else { return false }
        return withDescriptor(Array(name.utf8)) { csys_setflags($0, before | flags) == 0 }
    }

    func remove(flags: UInt32, from name: String) {
        guard let before = self.flags(name) else { return }
        _ = withDescriptor(Array(name.utf8)) { csys_setflags($0, before & ~flags) }
    }

    func attribute(_ attribute: String, _ value: [UInt8], of name: String) -> Int32 {
        value.withUnsafeBytes {
            csys_setxattr_at(handle.descriptor, name, attribute, $0.baseAddress, $0.count)
        }
    }
}

func withName<Result>(
    _ name: [UInt8], _ body: (UnsafePointer<CChar>) throws -> Result
) rethrows -> Result {
    try (name.map { CChar(bitPattern: $0) } + [0]).withUnsafeBufferPointer {
        try body($0.baseAddress!)
    }
}

/// Runs a program and waits for it.
@discardableResult
func run(_ words: [String]) -> Int32 {
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
    arguments.append(nil)
    defer { for argument in arguments { free(argument) } }
    var process = pid_t()
    guard posix_spawn(&process, words[0], nil, nil, arguments, environ) == 0 else { return -1 }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    return status
}

/// The same numbers on every machine.
struct WalkDice {
    var state: UInt64

    mutating func roll(_ limit: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Int((z ^ (z >> 31)) % UInt64(limit))
    }
}

/// A file system in memory, where there is one: making and removing many files elsewhere takes many
/// times as long.
let quickPlace = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"

let isRoot = geteuid() == 0

/// Says on the console which part of a test did not take place.
func skipped(_ what: String, because reason: String) { print("skipped: \(what): \(reason)") }

/// What a walk delivered, as one comparable line an event.
struct WalkRecord: Equatable, CustomStringConvertible {
    var event: String
    var path: [UInt8]
    var status: FileStatus?
    var detail = ""
    var description: String { "\(event) \(FileTreeError.printable(path)) \(detail)" }
}

/// Walks to the end, and looks each entry up again through the handle it came with.
func walk(_ roots: [SourceRoot], _ options: WalkOptions = WalkOptions()) throws -> [WalkRecord] {
    let walker = try TreeWalker(roots: roots, options: options)
    var records: [WalkRecord] = []
    while let event = walker.next() {
        let path = Array(walker.path)
        switch event {
        case .entry:
            let again = try walker.parent.status(of: walker.name)
            precondition(again.inode == walker.status.inode, "the handle is not the entry's parent")
            if let directory = walker.directory {
                let itself = try directory.status()
                precondition(itself.inode == walker.status.inode)
                precondition(directory.path == path)
            }
            records.append(
                WalkRecord(
                    event: "entry", path: path, status: walker.status,
                    detail: walker.isMountPoint ? "mount point" : ""))
        case .excluded:
            records.append(
                WalkRecord(
                    event: "excluded", path: path,
                    detail: walker.exclusion.map { "\($0)" } ?? "no reason"))
        case .problem:
            records.append(
                WalkRecord(
                    event: "problem", path: path,
                    detail: walker.problem.map { "\($0.kind) \($0)" } ?? "no problem"))
        }
    }
    precondition(walker.next() == nil)
    return records
}

/// The names of entries below a root, for comparisons that a person reads.
func names(_ records: [WalkRecord], below root: [UInt8], event: String = "entry") -> [String] {
    records.filter { $0.event == event }.map {
        $0.path.count == root.count
            ? "." : String(decoding: $0.path[(root.count + 1)...], as: UTF8.self)
    }
}
