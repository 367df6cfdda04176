import Synchronization
import Transfer

/// What a bucket keeps although it is asked to delete it.
///
/// A bucket with versions hides what is deleted and keeps it. One with Object Lock has versions, and
/// lets nobody remove one that is under a retention; but it hides that one as well, if it is asked
/// to, and takes the space all the same. So an object is looked at before it is deleted among others,
/// and one that would be kept is not hidden: whoever wants it gone learns when it can be.
extension S3Store {
    /// Reads the bucket's configuration, once: whether it has Object Lock, and whether it keeps
    /// versions. Where these credentials may not ask, what the probe found stands.
    ///
    /// - Returns: Whether the bucket has Object Lock.
    func learnWhatIsKept() throws(StorageError) -> Bool {
        if let known = keepsLocked.withLock({ $0 }) { return known }
        let isLocked = try unlessRefused { () throws(StorageError) in try askForObjectLock() }
        // Object Lock cannot be had without versions.
        let keepsVersions: Bool? =
            if isLocked == true { true } else {
                try unlessRefused { () throws(StorageError) in try askForVersioning() }
            }
        if let keepsVersions { client.learn { $0.versioning = keepsVersions } }
        let answer = isLocked ?? client.traits.objectLock ?? false
        keepsLocked.withLock { $0 = answer }
        return answer
    }

    private func unlessRefused(
        _ ask: () throws(StorageError) -> Bool
    ) throws(StorageError) -> Bool? {
        do throws(StorageError) {
            return try ask()
        } catch {
            guard error.kind == .denied else { throw error }
            return nil
        }
    }

    private func askForVersioning() throws(StorageError) -> Bool {
        var request = S3Client.Request(
            operation: .open, key: nil, method: "GET", permission: "s3:GetBucketVersioning")
        request.query = [("versioning", "")]
        // "No such thing here".
        request.accepted = [400, 404, 405, 501]
        let response = try client.send(request)
        return response.isSuccess && (try? S3Messages.isVersioningEnabled(response.body)) == true
    }

    /// Why an object may not be deleted now; nil where nothing keeps it, or nothing tells.
    private func reasonToKeep(_ key: ObjectKey) throws(StorageError) -> StorageError? {
        var request = S3Client.Request(
            operation: .head, key: key, method: "HEAD",
            permission: "s3:GetObject and s3:GetObjectRetention")
        request.accepted = [403, 404, 405]
        let headers = try client.send(request).headers
        let location = client.location.text
        if headers["x-amz-object-lock-legal-hold"]?.uppercased() == "ON" {
            return StorageError(
                .denied, .delete, key: key, location: location, cause: "a legal hold keeps it",
                hint: "whoever placed the hold can lift it")
        }
        guard headers["x-amz-object-lock-mode"] != nil,
            let until = headers["x-amz-object-lock-retain-until-date"]
                .flatMap({ StoreTime.seconds(iso8601: $0) }),
            until > client.clock.seconds ?? client.hostTime()
        else { return nil }
        return StorageError(
            .denied, .delete, key: key, location: location,
            cause: "it is retained until \(StoreTime.iso8601(until))", retainedUntil: until,
            hint: "it can be deleted once its retention has ended")
    }

    /// Of `keys` those that may be deleted; the others are handed to `failed` with the reason.
    func deletable(
        _ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void
    ) -> [ObjectKey] {
        do throws(StorageError) {
            guard try learnWhatIsKept() else { return keys }
        } catch {
            for key in keys { failed(key, error) }
            return []
        }
        // One request for each object, so several at once.
        let next = Atomic<Int>(0)
        let reasons = Mutex<[Int: StorageError]>([:])
        runOnThreads(min(keys.count, Self.looksAtOnce)) { _ in
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < keys.count else { return }
                do throws(StorageError) {
                    guard let reason = try reasonToKeep(keys[index]) else { continue }
                    reasons.withLock { $0[index] = reason }
                } catch {
                    reasons.withLock { $0[index] = error }
                }
            }
        }
        let kept = reasons.withLock { $0 }
        for (index, reason) in kept.sorted(by: { $0.key < $1.key }) { failed(keys[index], reason) }
        return keys.indices.filter { kept[$0] == nil }.map { keys[$0] }
    }

    private static let looksAtOnce = 8
}
