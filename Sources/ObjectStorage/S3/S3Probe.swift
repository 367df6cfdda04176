import Crypto
import SnapshotModel
import Transfer

extension S3Store {
    /// Finds out what the service does beyond what every service does, by doing it below `prefix`,
    /// and removes what it put there.
    ///
    /// Six requests, where all of it works. What the service refuses is not there; a failure that can
    /// pass is thrown, since nothing would have been learned.
    ///
    /// - Parameter prefix: Ends with `/`; nobody else uses it.
    /// - Returns: What was found, which this store does not go by: open another one with it.
    package func probe(below prefix: String) throws(StorageError) -> S3Traits {
        var found = client.traits
        let first = ObjectKey(validated: prefix + "first")
        let second = ObjectKey(validated: prefix + "second")
        let bytes = Array("what a service does with this is remembered\n".utf8)
        let other = Array("and this must not take its place\n".utf8)
        try attempt(first, bytes, checksum: bytes, onlyIfAbsent: false)
        // A service that stores what does not have the checksum sent with it does not check any.
        let isChecked = try attempt(second, bytes, checksum: other, onlyIfAbsent: false) == false
        let told = isChecked ? try tellsSHA256(of: first) : nil
        found.keepsSHA256 = told == Self.sha256(bytes)
        let isReplaced = try attempt(first, other, checksum: other, onlyIfAbsent: true)
        let listed = try objects(below: prefix)
        // The service refused it, and kept the first one.
        found.conditionalPut = !isReplaced && listed[first]?.length == bytes.count
        let sum = Array(Insecure.MD5.hash(data: isReplaced ? other : bytes))
        found.listingShowsMD5 = S3Store.md5(eTag: listed[first]?.eTag) == sum
        var failure: StorageError?
        delete(Array(listed.keys)) { _, error in if failure == nil { failure = error } }
        // Who may not delete has an append-only store, which is a good thing to have: what lies
        // there is a few bytes, and the next probe is years away.
        if let failure, failure.kind != .denied { throw failure }
        client.learn { $0 = found }
        return found
    }

    private func tellsSHA256(of key: ObjectKey) throws(StorageError) -> [UInt8]? {
        var request = S3Client.Request(
            operation: .head, key: key, method: "HEAD", permission: "s3:GetObject")
        request.headers = [("x-amz-checksum-mode", "ENABLED")]
        let text = try client.send(request).headers["x-amz-checksum-sha256"]
        return text.flatMap { text in Array(text.utf8).withUnsafeBytes { Base64.decode($0) } }
    }

    private func objects(
        below prefix: String
    ) throws(StorageError) -> [ObjectKey: S3Messages.ListPage.Object] {
        let root = client.location.prefix
        var request = S3Client.Request(
            operation: .list, key: nil, method: "GET", permission: "s3:ListBucket")
        request.query = [
            ("list-type", "2"), ("prefix", root + prefix), ("encoding-type", "url"),
        ]
        let response = try client.send(request)
        guard let page = try? S3Messages.listPage(response.body) else {
            throw StorageError(
                .io, .list, location: client.location.text,
                cause: "the service's listing makes no sense")
        }
        var found: [ObjectKey: S3Messages.ListPage.Object] = [:]
        for object in page.objects where object.key.hasPrefix(root) {
            if let key = ObjectKey(String(object.key.dropFirst(root.count))) { found[key] = object }
        }
        return found
    }

    private static func sha256(_ bytes: [UInt8]) -> [UInt8] { Array(SHA256.hash(data: bytes)) }

    /// - Returns: Whether it was stored. What is neither stored nor refused is thrown.
    @discardableResult
    private func attempt(
        _ key: ObjectKey, _ bytes: [UInt8], checksum: [UInt8], onlyIfAbsent: Bool
    ) throws(StorageError) -> Bool {
        var request = S3Client.Request(
            operation: .put, key: key, method: "PUT", permission: "s3:PutObject")
        request.headers = [
            ("Content-Type", "application/octet-stream"),
            ("Content-MD5", Base64.encode(Array(Insecure.MD5.hash(data: bytes)))),
            ("x-amz-checksum-sha256", Base64.encode(Self.sha256(checksum))),
        ]
        if onlyIfAbsent { request.headers.append(("If-None-Match", "*")) }
        request.body = .bytes(bytes)
        request.payloadDigest = Self.sha256(bytes)
        // Refused as it should be, or with words of the service's own for what it does not know.
        request.accepted = checksum != bytes || onlyIfAbsent ? [400, 409, 412, 501] : []
        return try client.send(request).isSuccess
    }

    /// Makes the bucket where there is none.
    ///
    /// - Throws: `.denied` where these credentials may not make one.
    package func createBucketIfMissing() throws(StorageError) {
        let location = client.location
        var look = S3Client.Request(
            operation: .open, key: nil, method: "HEAD", permission: "s3:ListBucket")
        look.accepted = [404, 403]
        // Who may not look may still be allowed to use it.
        guard try client.send(look).status == 404 else { return }
        var request = S3Client.Request(
            operation: .create, key: nil, method: "PUT", permission: "s3:CreateBucket")
        // Some services want to be told even that nothing is coming.
        request.body = .bytes([])
        // Amazon's first region is the one that must not be named.
        if location.region != S3Location.defaultRegion {
            let body = S3Messages.bucketConfiguration(region: location.region)
            request.body = .bytes(body)
            request.payloadDigest = Self.sha256(body)
        }
        // Somebody else was quicker.
        request.accepted = [409]
        _ = try client.send(request)
    }
}
