import CSystem
import Crypto
import SnapshotModel
import Synchronization
package import Transfer

/// Objects in a bucket of Amazon S3, or of any service that speaks it.
///
/// An object is one PUT of a plain body whose length, SHA-256 and MD5 are sent along, since one of
/// the two is checked by every service. Where the service was found to honour it, `If-None-Match`
/// keeps an object from being replaced; elsewhere that names are digests of what they name has to
/// do.
package final class S3Store: ObjectStore {
    let client: S3Client
    private let spoolDirectory: String
    /// Whether DeleteObjects may be tried: until the service says that it has no such thing.
    private let hasBulkDelete = Atomic<Bool>(true)

    /// Makes a store of the bucket, without asking it anything yet.
    ///
    /// - Parameter traits: What is remembered of the service; with none it is taken to be simple.
    /// - Parameter counter: Counts every request that goes out.
    /// - Parameter spoolDirectory: Where spool files are made; on a disk with room for a few
    ///   bundles.
    /// - Parameter now: The time of this host in seconds since 1970.
    package static func open(
        _ location: S3Location, options: S3Options = S3Options(),
        credentials: any S3CredentialSource, engine: TransferEngine, traits: S3Traits = S3Traits(),
        counter: TrafficCounter, spoolDirectory: String,
        now: @escaping @Sendable () -> Int64 = { csys_realtime_ns() / 1_000_000_000 }
    ) -> S3Store {
        S3Store(
            client: S3Client(
                location, options: options, traits: traits, credentials: credentials,
                engine: engine, counter: counter, now: now), spoolDirectory: spoolDirectory)
    }

    private init(client: S3Client, spoolDirectory: String) {
        self.client = client
        self.spoolDirectory = spoolDirectory
        let traits = client.traits
        var capabilities = StoreCapabilities(
            conditionalPut: traits.conditionalPut, rangedReads: true,
            listingShowsMD5: traits.listingShowsMD5, listingShowsTime: true, isLocal: false)
        capabilities.headShowsSHA256 = traits.keepsSHA256
        capabilities.refusesReplacement = traits.conditionalPut
        self.capabilities = capabilities
    }

    package let capabilities: StoreCapabilities

    /// What is known of the service, with what this store has learned since it was opened.
    package var traits: S3Traits { client.traits }

    // MARK: - Writing

    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        var request = S3Client.Request(
            operation: .put, key: key, method: "PUT", permission: putPermission)
        let md5 = if let known = content.md5 { known } else { try S3Store.md5(of: content) }
        request.headers = try putHeaders(content, md5: md5, key)
        switch content.body {
        case .bytes(let bytes):
            request.body = .bytes(bytes)
        case .file(let file):
            precondition(
                file.length == content.length, "a spool file was appended to after its digest")
            try file.checkSound()
            request.body = .file(
                descriptor: file.fileDescriptor, offset: 0, length: content.length)
        }
        request.payloadDigest = content.digest
        request.uploadPacer = content.pacer
        request.accepted = [412]
        // The file stays open until the answer is there.
        let response = try withExtendedLifetime(content) { () throws(StorageError) in
            try client.send(request)
        }
        if response.status == 412 {
            try settleExisting(key, length: content.length, md5: md5)
        } else if isPlainETag(response.headers),
            let kept = S3Store.md5(eTag: response.headers["etag"]), kept != md5
        {
            throw removeMangled(key)
        }
    }

    /// A service that does not look at the checksums it is sent keeps what a bad line made of an
    /// object. It has to go: the next attempt would find the key taken.
    private func removeMangled(_ key: ObjectKey) -> StorageError {
        do throws(StorageError) {
            try delete(key)
            return StorageError(
                .io, .put, key: key, location: client.location.text,
                cause: "the service kept something else than it was sent, which was removed",
                isTransient: true)
        } catch {
            return StorageError(
                .io, .put, key: key, location: client.location.text,
                cause:
                    "the service kept something else than it was sent, and it cannot be removed: \(error.cause)",
                hint: "remove the object, and run `batchsync verify`")
        }
    }

    /// The key is taken: by the same object, perhaps put by ourselves in a request whose answer was
    /// lost, or by another.
    private func settleExisting(
        _ key: ObjectKey, length: Int, md5: [UInt8]
    ) throws(StorageError) {
        let location = client.location.text
        guard let existing = try head(key) else {
            throw StorageError(
                .lost, .put, key: key, location: location,
                cause: "the key was taken a moment ago and now nothing is there",
                isTransient: true)
        }
        guard existing.length == length else {
            throw StorageError(
                .exists, .put, key: key, location: location,
                cause: "it is there with \(existing.length) bytes")
        }
        guard existing.md5 == nil || existing.md5 == md5 else {
            throw StorageError(
                .exists, .put, key: key, location: location,
                cause: "it is there with other bytes: its ETag is not their MD5")
        }
    }

    private func putHeaders(
        _ content: ObjectContent, md5: [UInt8], _ key: ObjectKey
    ) throws(StorageError) -> [(name: String, value: String)] {
        let traits = client.traits
        var headers: [(name: String, value: String)] = [
            ("Content-Type", "application/octet-stream"), ("Content-MD5", Base64.encode(md5)),
        ]
        if traits.keepsSHA256 {
            headers.append(("x-amz-checksum-sha256", Base64.encode(content.digest)))
        }
        if traits.conditionalPut { headers.append(("If-None-Match", "*")) }
        if let storageClass = client.options.storageClass(of: key) {
            headers.append(("x-amz-storage-class", storageClass))
        }
        switch client.options.encryption {
        case .bucketDefault: break
        case .serviceKeys: headers.append(("x-amz-server-side-encryption", "AES256"))
        case .managedKey(let name):
            headers.append(("x-amz-server-side-encryption", "aws:kms"))
            if let name {
                headers.append(("x-amz-server-side-encryption-aws-kms-key-id", name))
            }
        }
        if let retention = client.options.retention {
            try requireObjectLock()
            let until =
                (client.clock.seconds ?? client.hostTime())
                + Int64(retention.days) * 86_400
            headers.append(("x-amz-object-lock-mode", retention.mode.rawValue))
            headers.append(("x-amz-object-lock-retain-until-date", StoreTime.iso8601(until)))
        }
        return headers
    }

    private var putPermission: String {
        var names = ["s3:PutObject"]
        if client.options.retention != nil { names.append("s3:PutObjectRetention") }
        if case .managedKey = client.options.encryption {
            names.append("kms:GenerateDataKey, for the key")
        }
        return names.joined(separator: " and ")
    }

    private static func md5(of content: ObjectContent) throws(StorageError) -> [UInt8] {
        switch content.body {
        case .bytes(let bytes):
            return Array(Insecure.MD5.hash(data: bytes))
        case .file(let file):
            var hash = Insecure.MD5()
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
            defer { buffer.deallocate() }
            var offset = 0
            while offset < content.length {
                let count = try file.read(at: offset, into: buffer)
                if count == 0 { break }
                hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                offset += count
            }
            return Array(hash.finalize())
        }
    }

    /// Asks once whether the bucket keeps what a retention protects: services that cannot answer
    /// even tell the retention that they were given, and delete all the same.
    private func requireObjectLock() throws(StorageError) {
        if let isEnabled = client.traits.objectLock {
            if isEnabled { return }
        } else if try askForObjectLock() {
            return
        }
        let location = client.location
        throw StorageError(
            .unsupported, .put, location: location.text,
            cause: "the bucket \(location.bucket) has no Object Lock, so nothing would be retained",
            hint: "create a bucket with Object Lock, or ask for no retention")
    }

    /// Reads the bucket's configuration and remembers what it says.
    func askForObjectLock() throws(StorageError) -> Bool {
        var request = S3Client.Request(
            operation: .open, key: nil, method: "GET",
            permission: "s3:GetBucketObjectLockConfiguration")
        request.query = [("object-lock", "")]
        // "No configuration", "no such thing here".
        request.accepted = [404, 400, 405, 501]
        let response = try client.send(request)
        let isEnabled =
            response.isSuccess
            && (try? S3Messages.isObjectLockEnabled(response.body)) == true
        client.learn { $0.objectLock = isEnabled }
        return isEnabled
    }

    package func delete(_ key: ObjectKey) throws(StorageError) {
        var request = S3Client.Request(
            operation: .delete, key: key, method: "DELETE", permission: "s3:DeleteObject")
        request.accepted = [404]
        let response = try client.send(request)
        if response.status == 404, S3Messages.failure(response.body)?.code == "NoSuchBucket" {
            request.accepted = []
            _ = try client.send(request)
        }
    }

    package func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        var rest = keys[...]
        while !rest.isEmpty {
            let part = rest.prefix(S3Store.keysPerRequest)
            rest = rest.dropFirst(part.count)
            if part.count > 1, hasBulkDelete.load(ordering: .relaxed) {
                do throws(StorageError) {
                    for (key, error) in try deleteAtOnce(part) { failed(key, error) }
                    continue
                } catch {
                    guard error.kind == .unsupported else {
                        for key in part { failed(key, error) }
                        continue
                    }
                    hasBulkDelete.store(false, ordering: .relaxed)
                }
            }
            for key in part {
                do throws(StorageError) {
                    try delete(key)
                } catch {
                    failed(key, error)
                }
            }
        }
    }

    private func deleteAtOnce(
        _ keys: ArraySlice<ObjectKey>
    ) throws(StorageError) -> [(ObjectKey, StorageError)] {
        let prefix = client.location.prefix
        let body = S3Messages.deletion(of: keys.lazy.map { prefix + $0.text })
        var request = S3Client.Request(
            operation: .delete, key: nil, method: "POST", permission: "s3:DeleteObject")
        request.query = [("delete", "")]
        request.headers = [
            ("Content-Type", "application/xml"),
            ("Content-MD5", Base64.encode(Array(Insecure.MD5.hash(data: body)))),
        ]
        request.body = .bytes(body)
        request.payloadDigest = Array(SHA256.hash(data: body))
        request.sink = .collect(maximumBytes: S3Store.maximumMessageBytes)
        let response = try client.send(request)
        let failures = try read(response, .delete) { (bytes) throws(XMLReader.Malformed) in
            try S3Messages.deleteFailures(bytes)
        }
        let asked = Set(keys)
        return failures.compactMap { failure in
            guard failure.key.hasPrefix(prefix),
                let key = ObjectKey(String(failure.key.dropFirst(prefix.count))),
                asked.contains(key), failure.code != "NoSuchKey"
            else { return nil }
            return (
                key,
                S3Failure.error(failure, key: key, request: request, location: client.location)
            )
        }
    }

    // MARK: - Reading

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        var request = S3Client.Request(
            operation: .get, key: key, method: "GET", permission: "s3:GetObject")
        request.sink = .collect(maximumBytes: maximumBytes)
        return try client.send(request).body
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        precondition(range.lowerBound >= 0 && range.count <= buffer.count)
        if range.isEmpty {
            // There is no way to ask for no bytes; all that is left to tell is whether it exists.
            guard try head(key) != nil else {
                throw StorageError(
                    .notFound, .get, key: key, location: client.location.text,
                    cause: "there is no such object")
            }
            return 0
        }
        var request = S3Client.Request(
            operation: .get, key: key, method: "GET", permission: "s3:GetObject")
        request.sink = .range(range, into: buffer)
        // The range lies behind the end.
        request.accepted = [416]
        let response = try client.send(request)
        if response.status == 416 { return 0 }
        let count = response.bytesInBuffer
        if count < range.count, let total = S3Store.length(of: response),
            range.lowerBound + count < total
        {
            throw StorageError(
                .unavailable, .get, key: key, location: client.location.text,
                cause: "\(count) bytes came of \(range.count) that were asked for",
                isTransient: true)
        }
        return count
    }

    /// Length of the whole object of which `response` is a part.
    private static func length(of response: TransferResponse) -> Int? {
        response.headers["content-range"].flatMap { ContentRange($0) }?.total
    }

    package func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        var request = S3Client.Request(
            operation: .head, key: key, method: "HEAD",
            permission: "s3:GetObject, and s3:ListBucket to be told that an object is missing,")
        if client.traits.keepsSHA256 { request.headers = [("x-amz-checksum-mode", "ENABLED")] }
        request.accepted = [404]
        let response = try client.send(request)
        if response.status == 404 { return nil }
        let headers = response.headers
        guard let length = headers["content-length"].flatMap({ Int($0) }), length >= 0 else {
            throw StorageError(
                .io, .head, key: key, location: client.location.text,
                cause: "the service does not tell the object's length")
        }
        return StoredObject(
            key: key, length: length,
            modified: headers["last-modified"].flatMap { StoreTime.seconds(httpDate: $0) },
            md5: isPlainETag(headers) ? S3Store.md5(eTag: headers["etag"]) : nil,
            sha256: S3Store.sha256(headers))
    }

    /// With a key of the key management service the ETag is something else of the same form.
    private func isPlainETag(_ headers: TransferHeaders) -> Bool {
        let encryption = headers["x-amz-server-side-encryption"] ?? ""
        return client.traits.listingShowsMD5 && !encryption.hasPrefix("aws:kms")
    }

    /// Of an object put in parts it is a sum over the sums of the parts.
    private static func sha256(_ headers: TransferHeaders) -> [UInt8]? {
        guard let text = headers["x-amz-checksum-sha256"],
            headers["x-amz-checksum-type"]?.uppercased() != "COMPOSITE"
        else { return nil }
        let sum = Array(text.utf8).withUnsafeBytes { Base64.decode($0) }
        return sum?.count == 32 ? sum : nil
    }

    /// An ETag of 32 hex digits, quoted or not; that of an object put in parts has a number behind.
    static func md5(eTag: String?) -> [UInt8]? {
        guard var text = eTag?[...] else { return nil }
        if text.hasPrefix("\"") && text.hasSuffix("\"") && text.count >= 2 {
            text = text.dropFirst().dropLast()
        }
        guard text.utf8.count == 32 else { return nil }
        return Hex.bytes(text.lowercased())
    }

    package func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        let root = client.location.prefix
        let showsMD5 = client.traits.listingShowsMD5
        var continuation: String?
        var last: ObjectKey?
        while true {
            let page = try listPage(prefix: root + prefix, continuation: continuation)
            for object in page.objects {
                // What is not named like an object of ours is none.
                guard object.key.hasPrefix(root),
                    let key = ObjectKey(String(object.key.dropFirst(root.count)))
                else { continue }
                guard let length = object.length, length >= 0 else {
                    throw listFailure("\(key) is listed without its length")
                }
                if let last, key <= last {
                    throw listFailure("\(key) is listed behind \(last), out of order")
                }
                last = key
                let stored = StoredObject(
                    key: key, length: length, modified: object.modified,
                    md5: showsMD5 ? S3Store.md5(eTag: object.eTag) : nil)
                guard body(stored) else { return }
            }
            guard page.isTruncated else { return }
            guard let next = page.continuation, !next.isEmpty, next != continuation else {
                throw listFailure("the listing goes on, but the service does not say where")
            }
            continuation = next
        }
    }

    private func listPage(
        prefix: String, continuation: String?
    ) throws(StorageError) -> S3Messages.ListPage {
        var request = S3Client.Request(
            operation: .list, key: nil, method: "GET", permission: "s3:ListBucket")
        request.query = [("list-type", "2"), ("prefix", prefix), ("encoding-type", "url")]
        if let continuation { request.query.append(("continuation-token", continuation)) }
        request.sink = .collect(maximumBytes: S3Store.maximumMessageBytes)
        let response = try client.send(request)
        return try read(response, .list) { (bytes) throws(XMLReader.Malformed) in
            try S3Messages.listPage(bytes)
        }
    }

    private func listFailure(_ cause: String) -> StorageError {
        StorageError(
            .io, .list, location: client.location.text, cause: cause,
            hint: "`batchsync store check` shows whether the service keeps what a store promises")
    }

    /// Reads the document of an answer that was a success by its status. Services that began to
    /// answer before they were done put an error into it.
    private func read<Value>(
        _ response: TransferResponse, _ operation: StorageError.Operation,
        _ body: ([UInt8]) throws(XMLReader.Malformed) -> Value
    ) throws(StorageError) -> Value {
        do throws(XMLReader.Malformed) {
            return try body(response.body)
        } catch {
            let failure = S3Messages.failure(response.body)
            throw StorageError(
                .unavailable, operation, location: client.location.text,
                cause: failure.map { "\($0.code): \($0.message)" }
                    ?? "the answer makes no sense: \(error)", isTransient: true)
        }
    }

    // MARK: - The rest

    package func makeSpool() throws(StorageError) -> SpoolFile {
        try SpoolFile.temporary(in: spoolDirectory)
    }

    package func currentTime() throws(StorageError) -> Int64 {
        if let seconds = client.clock.seconds { return seconds }
        var request = S3Client.Request(
            operation: .clock, key: nil, method: "HEAD", permission: "s3:ListBucket")
        // Whatever it says, it says when.
        request.accepted = [400, 403, 404]
        _ = try client.send(request)
        guard let seconds = client.clock.seconds else {
            throw StorageError(
                .unsupported, .clock, location: client.location.text,
                cause: "the service's answers have no date")
        }
        return seconds
    }

    /// What DeleteObjects takes at once.
    private static let keysPerRequest = 1_000
    /// A thousand keys of a thousand bytes, each byte encoded in three, with room.
    private static let maximumMessageBytes = 16 << 20
}
