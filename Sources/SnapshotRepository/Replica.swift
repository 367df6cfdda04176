import BundleFormat
package import ObjectStorage
package import SnapshotModel

/// What makes one repository on several stores: the same id and keys on each, and objects that are
/// equal byte for byte and therefore by name. Each store is complete in itself, with an index,
/// snapshots and condemned records of its own.
extension Repository {
    /// Makes an empty store into a second place of this repository: keys, the texts for recovery,
    /// and `config.json` last, so that until then nothing there is a repository.
    package func createReplica(
        in store: any ObjectStore, location: String
    ) throws(RepositoryError) -> Repository {
        let present = try stored { () throws(StorageError) in
            try store.head(RepositoryLayout.config)
        }
        guard present == nil else {
            throw RepositoryError(
                .exists, location, "is already a repository",
                remedy: "choose another place, or use this one as it is")
        }
        directories.noteReplica(id, at: location)
        let replica = Repository(self, on: store, location: location)
        for object in try keyObjects() { try replica.take(object, from: self) }
        for key in [RepositoryLayout.recoverPage, RepositoryLayout.recoverProgram] {
            try replica.take(key, maximumBytes: 16 << 20, from: self)
        }
        try replica.take(RepositoryLayout.config, maximumBytes: 1 << 20, from: self)
        directories.noteEncryption(at: location, isEncrypted: config.isEncrypted)
        return replica
    }

    /// Whether the repository lies on several stores, as far as this host knows.
    package var hasReplicas: Bool { directories.knowsReplica(id) }

    private func keyObjects() throws(RepositoryError) -> [ObjectKey] {
        try stored { () throws(StorageError) in try store.list(prefix: RepositoryLayout.keys) }
            .map(\.key)
    }

    /// Copies what does not belong to any snapshot and `other` has and this store lacks: keys that
    /// were added meanwhile, and the texts for recovery.
    package func takeFoundation(from other: Repository) throws(RepositoryError) {
        let own = Set(try keyObjects())
        for key in try other.keyObjects() where !own.contains(key) {
            try take(key, from: other)
        }
        for key in [RepositoryLayout.recoverPage, RepositoryLayout.recoverProgram] {
            let present = try stored { () throws(StorageError) in try store.head(key) }
            if present == nil { try take(key, maximumBytes: 16 << 20, from: other) }
        }
    }

    private func take(
        _ key: ObjectKey, maximumBytes: Int = 1 << 20, from other: Repository
    ) throws(RepositoryError) {
        let bytes = try stored { () throws(StorageError) in
            try other.store.get(key, maximumBytes: maximumBytes)
        }
        try Self.put(bytes, at: key, in: store)
    }

    /// Copies a record by name, after it has been opened and authenticated.
    ///
    /// - Parameter deadline: As for `commit`, where the record is a snapshot.
    package func takeRecord(
        _ name: RecordName, from other: Repository, by deadline: Int64? = nil
    ) throws(RepositoryError) {
        let key = layout.record(name)
        let bytes = try stored { () throws(StorageError) in
            try other.store.get(key, maximumBytes: name.type.storedMaximumBytes)
        }
        _ = try openRecord(name, bytes: bytes)
        try Self.put(bytes, at: key, in: deadline.map { store.withDeadline($0) } ?? store)
    }

    /// Copies a bundle by name, without opening it: what arrives is compared with its name before
    /// it is stored.
    package func takeBundle(
        _ id: BundleID, size: Int, from other: Repository
    ) throws(RepositoryError) {
        let spool = try makeBundleSpool()
        let step = 8 << 20
        let buffer = ByteBuffer(capacity: step)
        var digest = DigestStream()
        var offset = 0
        while offset < size {
            let wanted = min(step, size - offset)
            let count = try other.readBundle(
                id, range: offset..<(offset + wanted),
                into: UnsafeMutableRawBufferPointer(start: buffer.base, count: wanted))
            guard count > 0 else { break }
            let bytes = UnsafeRawBufferPointer(start: buffer.base, count: count)
            digest.update(bytes)
            try spool.append(bytes)
            offset += count
        }
        let found: BundleID = digest.finish()
        guard found == id else {
            throw .damaged(bundleKey(id), "its bytes in \(other.location) do not hash to its name")
        }
        let key = layout.bundle(id)
        let content = ObjectContent(file: spool.file, digest: id.bytes)
        try stored { () throws(StorageError) in try store.put(content, at: key) }
    }
}

/// A record sealed once, to be put on several stores.
package struct SealedRecordBytes: Sendable {
    package let name: RecordName
    let bytes: [UInt8]
}

extension Repository {
    /// Seals a payload as a record of this kind.
    package func seal(
        _ type: RecordType, time: Timestamp?, payload: UnsafeRawBufferPointer
    ) throws(RepositoryError) -> SealedRecordBytes {
        let (name, bytes) = try sealRecord(type, time: time, payload: payload)
        return SealedRecordBytes(name: name, bytes: bytes)
    }

    /// Stores a record that was sealed for this repository; it is durable when this returns.
    package func put(_ record: SealedRecordBytes) throws(RepositoryError) {
        try Self.put(record.bytes, at: layout.record(record.name), in: store)
    }
}
