import CSystem
import Glibc

/// What the directory store does without changing anything.
extension LocalStore {
    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        let subject = subject(.get, key)
        let (file, length) = try openObject(key, subject)
        defer { _ = csys_close(file) }
        guard length <= maximumBytes else {
            throw subject.failure(
                .tooLarge, "it has \(length) bytes where at most \(maximumBytes) are expected")
        }
        let bytes = try [UInt8](unsafeUninitializedCapacity: length) {
            (buffer, count) throws(StorageError) in
            let target = UnsafeMutableRawBufferPointer(
                UnsafeMutableBufferPointer(rebasing: buffer[..<length]))
            count = try readFully(file, at: 0, into: target, subject: subject)
        }
        guard bytes.count == length else { throw subject.failure(.lost, "it became shorter") }
        return bytes
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        precondition(
            range.lowerBound >= 0 && range.count <= buffer.count, "the buffer is too small")
        let subject = subject(.get, key)
        let (file, _) = try openObject(key, subject)
        defer { _ = csys_close(file) }
        let target = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
        return try readFully(file, at: range.lowerBound, into: target, subject: subject)
    }

    package func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        switch root.status(of: key.text) {
        case .failure(let error):
            throw subject(.head, key).failure(error.code, "stat")
        case .success(let status):
            guard let status, status.isFile else { return nil }
            return StoredObject(key: key, length: status.length, modified: status.modified)
        }
    }

    package func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        let name = prefix.isEmpty ? "." : String(prefix.dropLast())
        switch root.open(name) {
        case .success(let directory): _ = try list(directory, as: prefix, body)
        case .failure(let error):
            if error.code == ENOENT { return }
            // A file of that name is an object, below which nothing can lie. Anything else, such as
            // a symbolic link to where the objects have been moved, must not look like an empty
            // prefix.
            if error.code == ENOTDIR, case .success(let status) = root.status(of: name),
                status?.isFile ?? true
            {
                return
            }
            throw subject(.list).failure(error.code, "open \(name)")
        }
    }

    /// Lists one directory and all below it; false where `body` wants no more.
    private func list(
        _ directory: Directory, as prefix: String, _ body: (StoredObject) -> Bool
    ) throws(StorageError) -> Bool {
        let subject = subject(.list)
        var names: [String] = []
        switch directory.entries() {
        case .failure(let error): throw subject.failure(error.code, "getdents \(prefix)")
        case .success(let entries):
            names.reserveCapacity(entries.count)
            for entry in entries where ObjectKey.isLegalComponent(entry.name) {
                switch try kind(of: entry, in: directory, subject) {
                case .file: names.append(entry.name)
                // With its slash a directory sorts where the keys below it belong.
                case .directory: names.append(entry.name + "/")
                // Objects that lie behind it would be missing from the listing, and whoever deletes
                // what no listed object needs would delete too much.
                case .symbolicLink:
                    throw subject.failure(
                        .unsupported,
                        "\(prefix)\(entry.name) is a symbolic link, which a store never follows")
                case .other, .unknown: continue
                }
            }
        }
        names.sort()
        for name in names {
            guard prefix.utf8.count + name.utf8.count <= ObjectKey.maximumBytes else { continue }
            if name.utf8.last == UInt8(ascii: "/") {
                switch directory.open(String(name.dropLast())) {
                case .success(let below):
                    guard try list(below, as: prefix + name, body) else { return false }
                case .failure(let error):
                    if error.code == ENOENT { continue }
                    throw subject.failure(error.code, "open \(prefix)\(name)")
                }
            } else {
                switch directory.status(of: name) {
                case .success(let status):
                    // Deleted since the directory was read, or replaced by something that is no
                    // object.
                    guard let status, status.isFile else { continue }
                    let key = ObjectKey(joining: prefix, name)
                    let object = StoredObject(
                        key: key, length: status.length, modified: status.modified)
                    guard body(object) else { return false }
                case .failure(let error):
                    throw subject.failure(error.code, "stat \(prefix)\(name)")
                }
            }
        }
        return true
    }

    private func linkFailure(_ path: String, _ subject: StorageSubject) -> StorageError {
        subject.failure(
            .unsupported, "\(path) is a symbolic link; a store holds files and directories only")
    }

    /// What the entry is, asked of the file itself where the listing does not tell; `.other` where
    /// it has gone meanwhile.
    private func kind(
        of entry: DirectoryEntry, in directory: Directory, _ subject: StorageSubject
    ) throws(StorageError) -> DirectoryEntry.Kind {
        guard entry.kind == .unknown else { return entry.kind }
        switch directory.status(of: entry.name) {
        case .success(let status): return status?.kind ?? .other
        case .failure(let error): throw subject.failure(error.code, "stat \(entry.name)")
        }
    }

    private func openObject(
        _ key: ObjectKey, _ subject: StorageSubject
    ) throws(StorageError) -> (file: Int32, length: Int) {
        let file = csys_openat(root.descriptor, key.text, LocalStore.readFlags, 0)
        if file == -ENOENT || file == -ENOTDIR {
            throw subject.failure(.notFound, "there is no such object")
        }
        guard file >= 0 else { throw subject.failure(file, "open") }
        do throws(StorageError) {
            let status = try FileStatus.of(file, subject: subject)
            guard status.isFile else {
                throw subject.failure(.notFound, "what has this name is no file")
            }
            return (file, status.length)
        } catch {
            _ = csys_close(file)
            throw error
        }
    }
}
