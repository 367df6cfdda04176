import Synchronization
import Transfer

/// Objects below a prefix, from the lines in which a server shows its directories.
///
/// libcurl gives the line that a server makes for people, as `ls -l` does, or the names alone. A
/// line of the usual nine columns tells kind, length and name; where one does not, the names are
/// asked for as well, and each that is no clear line's is looked at by itself. Times in such lines
/// are too coarse to be of use.
struct DirectSFTPListing {
    private let store: DirectSFTPStore
    private let subject: StorageSubject

    private struct Entry: Sendable {
        /// With a slash behind it for a directory, so that it sorts where the keys below it belong.
        let name: String
        let length: Int
        var isDirectory: Bool { name.utf8.last == UInt8(ascii: "/") }
    }

    init(_ store: DirectSFTPStore, _ subject: StorageSubject) {
        self.store = store
        self.subject = subject
    }

    /// How many directories are read side by side.
    private static let directoriesAtOnce = 8

    /// Hands what lies below `prefix` behind `start` to `body` until that gives false; gives whether
    /// it never did.
    func run(
        _ prefix: String, after start: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) -> Bool {
        guard let entries = try entries(prefix) else { return true }
        return try tell(entries, of: prefix, after: start, body)
    }

    private func tell(
        _ entries: [Entry], of prefix: String, after start: ObjectKey?,
        _ body: (StoredObject) -> Bool
    ) throws(StorageError) -> Bool {
        let last = start?.text ?? ""
        let wanted = entries.filter { entry in
            let name = prefix + entry.name
            return name > last || (entry.isDirectory && last.hasPrefix(name))
        }
        let directories = wanted.filter(\.isDirectory)
        var read: [String: [Entry]] = [:]
        var next = 0
        for entry in wanted {
            guard entry.isDirectory else {
                let key = ObjectKey(joining: prefix, entry.name)
                guard body(StoredObject(key: key, length: entry.length)) else { return false }
                continue
            }
            if read[entry.name] == nil {
                let part = directories[next...].prefix(Self.directoriesAtOnce)
                next += part.count
                read = try self.entries(of: part.map(\.name), in: prefix)
            }
            let below = read.removeValue(forKey: entry.name) ?? []
            guard try tell(below, of: prefix + entry.name, after: start, body) else {
                return false
            }
        }
        return true
    }

    /// The directories below `prefix`, itself included, the deepest last.
    func directories(_ prefix: String) throws(StorageError) -> [String] {
        var found = [prefix]
        var next = 0
        while next < found.count {
            let directory = found[next]
            next += 1
            found += (try entries(directory) ?? []).filter(\.isDirectory).map {
                directory + $0.name
            }
        }
        return found
    }

    private func entries(
        of names: [String], in prefix: String
    ) throws(StorageError) -> [String: [Entry]] {
        let results = Mutex<[String: [Entry]]>([:])
        let failure = Mutex<StorageError?>(nil)
        runOnThreads(names.count) { index in
            do throws(StorageError) {
                let entries = try entries(prefix + names[index]) ?? []
                results.withLock { $0[names[index]] = entries }
            } catch {
                failure.withLock { $0 = $0 ?? error }
            }
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
        return results.withLock { $0 }
    }

    /// What lies in one directory, in order; nil where there is no such directory.
    private func entries(_ prefix: String) throws(StorageError) -> [Entry]? {
        let path = prefix.isEmpty ? store.root : store.path(String(prefix.dropLast()))
        let lines: [[UInt8]]? = try store.perform(subject) { () throws(TransferError) in
            do throws(TransferError) {
                return try store.transfer.list(path, namesOnly: false)
            } catch {
                if error.kind == .missing { return nil }
                // What is no directory has nothing below it. Whether it is one shows by whether it
                // can be read like a file.
                if error.kind == .refused {
                    var byte: UInt8 = 0
                    let isFile = withUnsafeMutableBytes(of: &byte) { buffer in
                        (try? store.transfer.download(path, range: 0..<1, into: buffer)) != nil
                    }
                    if isFile { return nil }
                }
                throw error
            }
        }
        guard let lines else { return nil }
        var entries: [Entry] = []
        var unclear = false
        var clear: Set<[UInt8]> = []
        for line in lines {
            guard let (kind, length, name) = DirectSFTPListing.columns(of: line) else {
                unclear = true
                continue
            }
            clear.insert(name)
            if let entry = try entry(name, kind, length, prefix) { entries.append(entry) }
        }
        if unclear { entries += try unclearEntries(prefix, path, besides: clear) }
        return entries.sorted { $0.name < $1.name }
    }

    /// Kind, length and name of a line such as `-rw-r--r-- 1 root root 6 Nov 26 21:07 name`; nil
    /// where it has other columns, as a name with a blank makes it have.
    static func columns(of line: [UInt8]) -> (kind: UInt8, length: Int, name: [UInt8])? {
        let columns = line.split(separator: UInt8(ascii: " "))
        guard columns.count == 9, (10...11).contains(columns[0].count),
            let kind = columns[0].first, [UInt8(ascii: "-"), UInt8(ascii: "d")].contains(kind),
            let length = Int(String(decoding: columns[4], as: UTF8.self)), length >= 0,
            columns[5].count == 3
        else { return nil }
        return (kind, length, Array(columns[8]))
    }

    private func entry(
        _ bytes: [UInt8], _ kind: UInt8, _ length: Int, _ prefix: String
    ) throws(StorageError) -> Entry? {
        guard let name = String(validating: bytes, as: UTF8.self),
            ObjectKey.isLegalComponent(name),
            prefix.utf8.count + name.utf8.count <= ObjectKey.maximumBytes
        else { return nil }
        return Entry(
            name: kind == UInt8(ascii: "d") ? name + "/" : name, length: length)
    }

    /// Those of the directory's names that no clear line had.
    private func unclearEntries(
        _ prefix: String, _ path: String, besides clear: Set<[UInt8]>
    ) throws(StorageError) -> [Entry] {
        let names = try store.perform(subject) { () throws(TransferError) in
            try store.transfer.list(path, namesOnly: true)
        }
        var entries: [Entry] = []
        for bytes in names where !clear.contains(bytes) {
            guard let entry = try entry(bytes, UInt8(ascii: "-"), 0, prefix) else { continue }
            let path = "\(path)/\(entry.name)"
            let status = try store.perform(subject) { () throws(TransferError) in
                try store.transfer.status(of: path)
            }
            guard let status else { continue }
            if try store.isDirectory(path, subject) {
                entries.append(Entry(name: entry.name + "/", length: 0))
            } else {
                entries.append(Entry(name: entry.name, length: status.length))
            }
        }
        return entries
    }
}

extension DirectSFTPStore {
    package func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        try list(prefix: prefix, after: nil, body)
    }

    package func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        options.traffic.count(.list)
        _ = try DirectSFTPListing(self, subject(.list)).run(prefix, after: last, body)
    }
}
