package import AgeEncryption
import BundleFormat
import ObjectStorage
package import SnapshotModel

/// Records: small sealed objects, each authenticated before it is parsed.
extension Repository {
    private var recordRecipients: [AgeRecipient] {
        guard let host = access.host else { return [] }
        return access.recipients.map { .x25519($0) } + [.x25519(host.identity.recipient)]
    }

    /// Whom bundles are sealed to; empty without encryption.
    package var contentRecipients: [AgeRecipient] { access.recipients.map { .x25519($0) } }

    package var contentIdentities: [AgeIdentity] { access.owners.map { .x25519($0) } }

    private func macMessageHead(_ type: RecordType) -> [UInt8] {
        Array("batchsync 1\n\(type.rawValue)\n\(config.repository)\n".utf8)
    }

    /// Seals a payload as a record of this kind: its name and its bytes.
    func sealRecord(
        _ type: RecordType, time: Timestamp?, payload: UnsafeRawBufferPointer
    ) throws(RepositoryError) -> (name: RecordName, bytes: [UInt8]) {
        var header =
            "{\"batchsync\":1,\"kind\":\"\(type.rawValue)\",\"repository\":\"\(config.repository)\""
        if let host = access.host {
            let mac = macMessageHead(type).withUnsafeBytes {
                Authentication.mac(host.macKey(type.rawValue), [$0, payload])
            }
            header += ",\"mac\":\"\(Hex.text(mac))\""
        } else if type.isLines {
            // Sealing makes each name new. Without it equal lines would bring back the name of an
            // index object that prune has condemned.
            header += ",\"salt\":\"\(Hex.text(Authentication.randomBytes(16)))\""
        }
        header += "}\n"
        let plain = ByteBuffer(capacity: header.utf8.count + payload.count)
        plain.append(header)
        plain.append(payload)
        let bytes: [UInt8]
        do {
            bytes = try SealedRecord.seal(
                plain.bytes, level: BundleLimits.defaultLevel, recipients: recordRecipients)
        } catch {
            throw .bundle(error, type.prefix)
        }
        let name = RecordName(
            type: type, utc: time?.compactUTC ?? "", id: Authentication.digest(bytes))
        return (name, bytes)
    }

    /// Seals and stores a record; it is durable when this returns.
    @discardableResult
    package func putRecord(
        _ type: RecordType, time: Timestamp?, payload: UnsafeRawBufferPointer
    ) throws(RepositoryError) -> RecordName {
        let (name, bytes) = try sealRecord(type, time: time, payload: payload)
        try Self.put(bytes, at: layout.record(name), in: store)
        return name
    }

    @discardableResult
    package func putRecord(_ type: RecordType, time: Timestamp, _ value: JSONValue)
        throws(RepositoryError) -> RecordName
    {
        let payload = value.bytes + [0x0A]
        return try payload.withRawBytes { (bytes) throws(RepositoryError) -> RecordName in
            try putRecord(type, time: time, payload: bytes)
        }
    }

    /// Stores a snapshot's record: the commit.
    ///
    /// - Parameter deadline: On the clock that runs through suspend, in nanoseconds: no attempt
    ///   begins later, however patient the store is otherwise. What the commit relies on is known to
    ///   be there until then.
    /// - Throws: Where the store does not tell any more whether the record is there, the message
    ///   says so.
    package func commit(
        time: Timestamp, _ value: JSONValue, by deadline: Int64
    ) throws(RepositoryError) -> RecordName {
        let payload = value.bytes + [0x0A]
        let record = try payload.withRawBytes { (bytes) throws(RepositoryError) in
            try seal(.snapshot, time: time, payload: bytes)
        }
        let key = layout.record(record.name)
        do throws(RepositoryError) {
            try Self.put(record.bytes, at: key, in: store.withDeadline(deadline))
        } catch {
            guard error.isTransient else { throw error }
            // The answer may have been lost after its effect: the store is asked once more.
            let store = store.withDeadline(deadline)
            let there: StoredObject?
            do {
                there = try store.head(key)
            } catch _ {
                throw RepositoryError(
                    .storage, "",
                    "\(error.message); whether snapshot \(record.name.id.short) was committed is not known",
                    remedy: "'batchsync snapshots' tells once the store answers again")
            }
            guard there?.length == record.bytes.count else { throw error }
        }
        return record.name
    }

    private static let headerMaximumBytes = 4096

    /// Refuses what declares a field critical that this release does not know.
    private static func checkCritical(
        _ value: JSONValue, known: Set<String>, _ key: String
    ) throws(RepositoryError) {
        let unknown = value.unknownCritical(known: known)
        guard unknown.isEmpty else {
            throw RepositoryError(
                .newerFormat, key,
                "uses \(unknown.joined(separator: ", ")), which this release does not know",
                remedy: "use a newer release of batchsync")
        }
    }

    /// Opens the bytes of a record: name, seal, length, authenticity, in that order. What comes
    /// back is the payload.
    package func openRecord(_ name: RecordName, bytes: [UInt8]) throws(RepositoryError) -> [UInt8] {
        let key = layout.record(name).text
        let digest: RecordID = Authentication.digest(bytes)
        guard digest == name.id else { throw .damaged(key, "its bytes do not hash to its name") }
        var identities: [AgeIdentity] = []
        if let host = access.host { identities = [.x25519(host.identity)] + contentIdentities }
        let plain: [UInt8]
        do throws(BundleError) {
            plain = try bytes.withRawBytes { (bytes) throws(BundleError) -> [UInt8] in
                try SealedRecord.open(
                    bytes, identities: identities, maximumBytes: name.type.maximumBytes)
            }
        } catch {
            throw .damaged(key, error.description)
        }
        // Nothing has been authenticated yet: no more is parsed than a header can take.
        guard let end = plain.prefix(Self.headerMaximumBytes).firstIndex(of: 0x0A),
            let header = JSONValue(parsing: Array(plain[..<end]))
        else {
            throw .damaged(key, "has no header line")
        }
        guard let version = header["batchsync"]?.integer, version > 0 else {
            throw .damaged(key, "its header states no format")
        }
        guard version <= RepositoryConfig.formatVersion else {
            throw RepositoryError(
                .newerFormat, key,
                "was written in format \(version), this release reads up to \(RepositoryConfig.formatVersion)",
                remedy: "use a newer release of batchsync")
        }
        try Self.checkCritical(
            header, known: ["batchsync", "kind", "repository", "mac", "salt"], key)
        guard header["kind"]?.string == name.type.rawValue,
            header["repository"]?.string == config.repository.description
        else {
            throw .damaged(
                key,
                "belongs elsewhere: its header names another kind of record, or another repository")
        }
        let payload = Array(plain[(end + 1)...])
        if let host = access.host {
            guard let mac = header["mac"]?.string.flatMap({ Hex.bytes($0) }) else {
                throw .damaged(
                    key,
                    "is not authenticated: nobody with this repository's host key has written it")
            }
            let expected = macMessageHead(name.type).withUnsafeBytes { head in
                payload.withUnsafeBytes {
                    Authentication.mac(host.macKey(name.type.rawValue), [head, $0])
                }
            }
            guard Authentication.areEqual(mac, expected) else {
                throw .damaged(
                    key, "is forged: nobody with this repository's host key has written it")
            }
        }
        return payload
    }

    /// The payload of a record.
    package func readRecord(_ name: RecordName) throws(RepositoryError) -> [UInt8] {
        let cache = cachesRecords && RecordCache.holds(name.type) ? RecordCache(self) : nil
        if let bytes = cache?.read(name) { return try openRecord(name, bytes: bytes) }
        let key = layout.record(name)
        return try Self.fetch(
            key, maximumBytes: name.type.storedMaximumBytes, from: store, ahead: ahead.take(name)
        ) { (bytes) throws(RepositoryError) in
            let payload = try openRecord(name, bytes: bytes)
            cache?.write(bytes, as: name)
            return payload
        }
    }

    /// The object in a record: nothing in it is critical and unknown, and its time agrees with its
    /// name.
    package func readJSON(_ name: RecordName) throws(RepositoryError) -> JSONValue {
        let payload = try readRecord(name)
        let key = layout.record(name).text
        guard let value = JSONValue(parsing: payload), value.fields != nil else {
            throw .damaged(key, "is not a JSON object")
        }
        try Self.checkCritical(value, known: name.type.knownFields, key)
        guard let time = value["time"]?.timestamp else { throw .damaged(key, "states no time") }
        guard time.compactUTC == name.utc else {
            throw .damaged(
                key,
                "its name says \(name.utc), its content \(time.compactUTC): it has been renamed")
        }
        return value
    }

    /// Names and sizes of all records of a kind, in order of name. Names of other shapes are passed
    /// over.
    package func listRecords(
        _ type: RecordType
    ) throws(RepositoryError) -> [(name: RecordName, length: Int, modified: Int64?)] {
        let objects = try stored { () throws(StorageError) in try store.list(prefix: type.prefix) }
        return objects.compactMap { object in
            layout.recordName(object.key, type: type).map { ($0, object.length, object.modified) }
        }
    }

    package func deleteRecord(_ name: RecordName) throws(RepositoryError) {
        let key = layout.record(name)
        try stored { () throws(StorageError) in try store.delete(key) }
    }

    package func recordKey(_ name: RecordName) -> String { layout.record(name).text }
}
