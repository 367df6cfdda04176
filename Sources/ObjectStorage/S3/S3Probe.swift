import CSystem
import Crypto
import SnapshotModel
import Transfer

/// Finds out how the service behaves, by trying it.
extension S3Store {
    /// Tries, with an object of its own below `prefix`, what else the service can do, and removes
    /// the object again. Four requests, or two more where the service understands less.
    ///
    /// - Parameter prefix: Empty, or ends with a slash.
    /// - Returns: What a store of this bucket should be opened with from now on.
    /// - Throws: Where nothing can be put here, or what was put cannot be looked up.
    package func probe(below prefix: String) throws(StorageError) -> S3Traits {
        precondition(ObjectKey.isDirectoryPrefix(prefix), "a prefix is empty or ends with /")
        var number: UInt64 = 0
        _ = csys_random(&number, MemoryLayout<UInt64>.size)
        let key = ObjectKey(validated: "\(prefix)probe-\(String(number, radix: 16))")
        let digest = Array(SHA256.hash(data: S3Store.probeBytes))
        let otherDigest = Array(SHA256.hash(data: [UInt8]()))
        var traits = S3Traits()
        traits.objectLock = client.traits.objectLock

        // A service that takes a wrong sum keeps whatever it is told, which proves nothing later.
        let damaged = try putProbe(at: key, sum: otherDigest, isConditional: false)
        let verifies = damaged.outcome == .refusedAsDamaged
        var headers = damaged.response.headers
        if damaged.outcome != .stored {
            let first = try putProbe(at: key, sum: verifies ? digest : nil, isConditional: true)
            headers = first.response.headers
            if first.outcome != .stored {
                // Not even the condition is understood.
                var plain = probeRequest(at: key)
                plain.accepted = []
                headers = try client.send(plain).headers
            } else {
                traits.conditionalPut = try isTaken(key)
            }
        } else {
            traits.conditionalPut = try isTaken(key)
        }
        let encodedDigest = Base64.encode(digest)
        if !(verifies && headers["x-amz-checksum-sha256"] == encodedDigest) {
            headers = try lookUpProbe(key)
        }
        traits.keepsSHA256 = verifies && headers["x-amz-checksum-sha256"] == encodedDigest
        traits.listingShowsMD5 =
            S3Store.md5(eTag: headers["etag"])
            == Array(Insecure.MD5.hash(data: S3Store.probeBytes))
        let version = headers["x-amz-version-id"].flatMap { $0 == "null" ? nil : $0 }
        traits.versioning = version != nil
        removeProbe(key, version: version)
        traits.region = client.traits.region
        client.learn { $0 = traits }
        return traits
    }

    private static let probeBytes = Array("batchsync asks what this service can do\n".utf8)

    private enum ProbeOutcome {
        case stored, taken, refusedAsDamaged, notUnderstood
    }

    private func probeRequest(at key: ObjectKey) -> S3Client.Request {
        var request = S3Client.Request(
            operation: .put, key: key, method: "PUT", permission: "s3:PutObject")
        request.headers = [
            ("Content-Type", "application/octet-stream"),
            ("Content-MD5", Base64.encode(Array(Insecure.MD5.hash(data: S3Store.probeBytes)))),
        ]
        request.body = .bytes(S3Store.probeBytes)
        request.payloadDigest = Array(SHA256.hash(data: S3Store.probeBytes))
        request.accepted = [400, 405, 412, 501]
        return request
    }

    private func putProbe(
        at key: ObjectKey, sum: [UInt8]?, isConditional: Bool
    ) throws(StorageError) -> (outcome: ProbeOutcome, response: TransferResponse) {
        var request = probeRequest(at: key)
        if let sum { request.headers.append(("x-amz-checksum-sha256", Base64.encode(sum))) }
        if isConditional { request.headers.append(("If-None-Match", "*")) }
        let response = try client.send(request)
        if response.isSuccess { return (.stored, response) }
        if response.status == 412 { return (.taken, response) }
        let isDamage = try client.failure(response, of: request).isDamage
        return (isDamage ? .refusedAsDamaged : .notUnderstood, response)
    }

    /// Whether a put to a key that holds an object is told so.
    private func isTaken(_ key: ObjectKey) throws(StorageError) -> Bool {
        try putProbe(at: key, sum: nil, isConditional: true).outcome == .taken
    }

    private func lookUpProbe(_ key: ObjectKey) throws(StorageError) -> TransferHeaders {
        var request = S3Client.Request(
            operation: .head, key: key, method: "HEAD", permission: "s3:GetObject")
        request.headers = [("x-amz-checksum-mode", "ENABLED")]
        return try client.send(request).headers
    }

    /// As well as it can: a user who may not delete has an object of forty bytes more, by her own
    /// wish.
    private func removeProbe(_ key: ObjectKey, version: String?) {
        var request = S3Client.Request(
            operation: .delete, key: key, method: "DELETE", permission: "s3:DeleteObject")
        if let version {
            // Deleted without its version, the object would stay behind a marker.
            request.query = [("versionId", version)]
            if (try? client.send(request)) != nil { return }
            request.query = []
        }
        _ = try? client.send(request)
    }

    // MARK: - The bucket

    /// Makes the bucket where it is not there yet.
    ///
    /// - Returns: Whether it was made now. Where these credentials may not even look, they may still
    ///   be allowed to use it.
    /// - Throws: `.denied` where it is not there and may not be made, and where the name belongs to
    ///   somebody else.
    @discardableResult
    package func createBucketIfMissing() throws(StorageError) -> Bool {
        var look = S3Client.Request(
            operation: .open, key: nil, method: "HEAD", permission: "s3:ListBucket")
        look.accepted = [403, 404]
        guard try client.send(look).status == 404 else { return false }

        let location = client.location
        var request = S3Client.Request(
            operation: .create, key: nil, method: "PUT", permission: "s3:CreateBucket")
        // Amazon's first region is the one that must not be named, and other services have none.
        if location.service.isAmazon && location.region != S3Location.defaultRegion {
            let body = S3Messages.bucketConfiguration(region: location.region)
            request.body = .bytes(body)
            request.payloadDigest = Array(SHA256.hash(data: body))
        } else {
            request.body = .bytes([])
        }
        request.accepted = [409]
        let response = try client.send(request)
        if response.isSuccess { return true }
        // Somebody else was quicker, perhaps another host of the same owner.
        if S3Messages.failure(response.body)?.code == "BucketAlreadyOwnedByYou" { return false }
        throw StorageError(
            .denied, .create, location: location.text,
            cause: "the name \(location.bucket) is taken by somebody else",
            hint: "choose another name for the bucket: all users of a service share them")
    }
}
