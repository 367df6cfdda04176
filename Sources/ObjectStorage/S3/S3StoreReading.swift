import SnapshotModel
import Transfer

/// Getting, looking up and listing.
extension S3Store {
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
        request.headers = [("x-amz-checksum-mode", "ENABLED")]
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
    func isPlainETag(_ headers: TransferHeaders) -> Bool {
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
        try list(prefix: prefix, after: nil, body)
    }

    package func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        let root = client.location.prefix
        var last = last
        var place = last.map { ("start-after", root + $0.text) }
        while true {
            let page = try listPage(prefix: root + prefix, from: place)
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
                    md5: S3Store.md5(eTag: object.eTag))
                guard body(stored) else { return }
            }
            guard page.isTruncated else { return }
            guard let next = page.continuation, !next.isEmpty, next != place?.1 else {
                throw listFailure("the listing goes on, but the service does not say where")
            }
            place = ("continuation-token", next)
        }
    }

    private func listPage(
        prefix: String, from place: (name: String, value: String)?
    ) throws(StorageError) -> S3Messages.ListPage {
        var request = S3Client.Request(
            operation: .list, key: nil, method: "GET", permission: "s3:ListBucket")
        request.query = [("list-type", "2"), ("prefix", prefix), ("encoding-type", "url")]
        if let place { request.query.append(place) }
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
    func read<Value>(
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
}
