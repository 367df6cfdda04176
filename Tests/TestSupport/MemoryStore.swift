import CSystem
import Glibc
package import ObjectStorage
import Synchronization

/// A store that keeps the contract in memory, with a clock that a test may turn.
///
/// A test may also reach behind the contract: replace, alter or remove what is stored.
package final class MemoryStore: ObjectStore {
    private struct Object {
        var bytes: [UInt8]
        var modified: Int64
    }

    private let objects = Mutex<[ObjectKey: Object]>([:])
    private let clock: @Sendable () -> Int64

    /// - Parameter clock: The store's time in seconds since 1970; the host's where nothing is said.
    package init(clock: @escaping @Sendable () -> Int64 = { csys_realtime_ns() / 1_000_000_000 }) {
        self.clock = clock
    }

    package var capabilities: StoreCapabilities {
        StoreCapabilities(
            conditionalPut: true, rangedReads: true, listingShowsMD5: false, listingShowsTime: true,
            isLocal: false)
    }

    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        let bytes: [UInt8]
        switch content.body {
        case .bytes(let inMemory): bytes = inMemory
        case .file(let file): bytes = try file.contents()
        }
        let modified = clock()
        try objects.withLock { (objects) throws(StorageError) in
            if let existing = objects[key] {
                guard existing.bytes.count != bytes.count else { return }
                throw error(.exists, .put, key, "it is there with \(existing.bytes.count) bytes")
            }
            objects[key] = Object(bytes: bytes, modified: modified)
        }
    }

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        guard let bytes = self.bytes(key) else {
            throw error(.notFound, .get, key, "there is no such object")
        }
        guard bytes.count <= maximumBytes else {
            throw error(.tooLarge, .get, key, "it has \(bytes.count) bytes")
        }
        return bytes
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        precondition(range.lowerBound >= 0 && range.count <= buffer.count)
        guard let bytes = self.bytes(key) else {
            throw error(.notFound, .get, key, "there is no such object")
        }
        let part = bytes[range.clamped(to: 0..<bytes.count)]
        part.withUnsafeBytes { buffer.copyMemory(from: $0) }
        return part.count
    }

    package func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        objects.withLock { $0[key] }.map {
            StoredObject(key: key, length: $0.bytes.count, modified: $0.modified)
        }
    }

    package func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        precondition(ObjectKey.isDirectoryPrefix(prefix))
        let found = objects.withLock { objects in
            objects.filter { $0.key.text.hasPrefix(prefix) }.map { key, object in
                StoredObject(key: key, length: object.bytes.count, modified: object.modified)
            }
        }
        for object in found.sorted(by: { $0.key < $1.key }) where !body(object) { return }
    }

    package func delete(_ key: ObjectKey) throws(StorageError) {
        objects.withLock { _ = $0.removeValue(forKey: key) }
    }

    package func makeSpool() throws(StorageError) -> SpoolFile {
        try SpoolFile.temporary(in: access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp")
    }

    package func currentTime() throws(StorageError) -> Int64 { clock() }

    // MARK: - Behind the contract

    /// All keys, sorted.
    package var keys: [ObjectKey] { objects.withLock { $0.keys.sorted() } }

    /// Everything that is stored.
    package var contents: [ObjectKey: [UInt8]] { objects.withLock { $0.mapValues(\.bytes) } }

    /// What is stored under `key`, or nil.
    package func bytes(_ key: ObjectKey) -> [UInt8]? { objects.withLock { $0[key]?.bytes } }

    /// Puts whatever a test wants under `key`, whether something was there or not.
    package func plant(_ bytes: [UInt8], at key: ObjectKey) {
        let modified = clock()
        objects.withLock { $0[key] = Object(bytes: bytes, modified: modified) }
    }

    /// Alters a stored object in place; gives false where there is none.
    @discardableResult
    package func alter(_ key: ObjectKey, _ change: (inout [UInt8]) -> Void) -> Bool {
        objects.withLock { objects in
            guard objects[key] != nil else { return false }
            change(&objects[key]!.bytes)
            return true
        }
    }

    /// A store with the same objects and times, for trying things that cannot be taken back.
    package func copy() -> MemoryStore {
        let copy = MemoryStore(clock: clock)
        let objects = objects.withLock { $0 }
        copy.objects.withLock { $0 = objects }
        return copy
    }

    private func error(
        _ kind: StorageError.Kind, _ operation: StorageError.Operation, _ key: ObjectKey,
        _ cause: String
    ) -> StorageError {
        StorageError(kind, operation, key: key, location: "memory", cause: cause)
    }
}

extension SpoolFile {
    /// Everything that was appended.
    package func contents() throws(StorageError) -> [UInt8] {
        let length = length
        return try [UInt8](unsafeUninitializedCapacity: length) {
            (buffer, count) throws(StorageError) in
            count = try read(
                at: 0,
                into: UnsafeMutableRawBufferPointer(
                    UnsafeMutableBufferPointer(rebasing: buffer[..<length])))
        }
    }
}
