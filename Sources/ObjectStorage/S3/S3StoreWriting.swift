import Crypto
import SnapshotModel
import Synchronization
import Transfer

/// Putting and deleting.
extension S3Store {
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
        request.accepted = [400, 412]
        // The file stays open until the answer is there.
        let response = try withExtendedLifetime(content) { () throws(StorageError) in
            try client.send(request)
        }
        switch response.status {
        case 412: try settleExisting(key, length: content.length, md5: md5)
        case 400:
            let failure = try client.failure(response, of: request)
            if failure.isDamage { try requireSound(content, key) }
            throw failure.error
        default:
            if isPlainETag(response.headers),
                let kept = S3Store.md5(eTag: response.headers["etag"]), kept != md5
            {
                throw removeMangled(key)
            }
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
                cause: "the service kept something else than it was sent, and it cannot be removed:"
                    + " \(error.cause)",
                hint: "remove the object, and run `batchsync verify`")
        }
    }

    /// Tells damage done here, which sending again repeats, from damage done on the way.
    private func requireSound(_ content: ObjectContent, _ key: ObjectKey) throws(StorageError) {
        let sums = try S3Store.sums(of: content)
        guard sums.sha256 == content.digest, content.md5 == nil || sums.md5 == content.md5 else {
            throw StorageError(
                .io, .put, key: key, location: client.location.text,
                cause: "it is no longer what it was when its digest was taken",
                hint: "look at this host's memory and at the disk of its spool files; the service"
                    + " kept nothing of it")
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

    private static func sums(
        of content: ObjectContent
    ) throws(StorageError) -> (md5: [UInt8], sha256: [UInt8]) {
        var md5 = Insecure.MD5()
        var sha256 = SHA256()
        try forEachPiece(of: content) { piece in
            md5.update(bufferPointer: piece)
            sha256.update(bufferPointer: piece)
        }
        return (Array(md5.finalize()), Array(sha256.finalize()))
    }

    private static func md5(of content: ObjectContent) throws(StorageError) -> [UInt8] {
        var hash = Insecure.MD5()
        try forEachPiece(of: content) { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }

    private static func forEachPiece(
        of content: ObjectContent, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(StorageError) {
        switch content.body {
        case .bytes(let bytes):
            bytes.withUnsafeBytes(body)
        case .file(let file):
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
            defer { buffer.deallocate() }
            var offset = 0
            while offset < content.length {
                let count = try file.read(at: offset, into: buffer)
                if count == 0 { break }
                body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                offset += count
            }
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
        var rest = deletable(keys, failed)[...]
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

    /// What DeleteObjects takes at once.
    private static let keysPerRequest = 1_000
}
