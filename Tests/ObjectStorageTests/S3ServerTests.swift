import CSystem
import Synchronization
import TestSupport
import Testing
import Transfer

@testable import ObjectStorage

/// The store against real servers, each of which does something its own way.
@Suite("A store in S3 on real servers")
struct S3ServerTests {
    // MARK: - The contract

    struct Service: Sendable, CustomStringConvertible {
        let kind: TestServer.Kind
        var options: [String] = []
        /// What a probe must find.
        let traits: String
        /// Promises that this service gives no way to keep.
        var skipped: Set<StoreConformance.Promise> = []
        var description: String { ([kind.rawValue] + options).joined(separator: " ") }

        static let strict = Service(
            kind: .strictS3, traits: "conditional-put keeps-sha256 listing-shows-md5")
        /// With its cache of writes an object is listed a moment before it can be read.
        static let rclone = Service(
            kind: .rclone, options: ["--", "--vfs-cache-mode", "off"], traits: "listing-shows-md5",
            skipped: [.writtenOnce, .conditionalPut])
        static let moto = Service(
            kind: .moto, traits: "conditional-put listing-shows-md5")
        static let ceph = Service(kind: .ceph, traits: "conditional-put listing-shows-md5")
    }

    @Test(
        "The contract is kept, whatever is known of the service",
        arguments: [
            Service.strict, .rclone, .moto, .ceph,
            Service(
                kind: .strictS3, options: ["--tls", "--page", "100"], traits: Service.strict.traits),
            Service(
                kind: .rclone, options: ["--tls"] + Service.rclone.options,
                traits: Service.rclone.traits,
                skipped: Service.rclone.skipped),
        ])
    func contract(service: Service) throws {
        let place = try Place(service)
        #expect(try place.store().createBucketIfMissing())
        #expect(try !place.store().createBucketIfMissing())
        let traits = try place.store().probe(below: "scratch/")
        #expect(traits.text == service.traits)
        // rclone answers 500 to writers that make one directory at the same moment.
        let store = RetryingStore(place.store(traits: traits))
        #expect(try store.list(prefix: "").isEmpty)
        var skipped: Set<StoreConformance.Promise> = []
        var figures: [StoreConformance.Figure] = []
        let conformance = StoreConformance(of: store, prefix: "contract/", digest: { sha256($0) })
        _ = conformance.run { outcome in
            switch outcome.verdict {
            case .kept: break
            case .skipped: skipped.insert(outcome.promise)
            case .broken(let how): Issue.record("\(outcome.promise.claim): \(how)")
            }
            figures += outcome.figures
        }
        #expect(skipped == service.skipped)
        #expect(figures.count == 7)
        // Knowing nothing, a store promises less and keeps that.
        let simple = RetryingStore(place.store(prefix: "other"))
        #expect(StoreContract.run(simple, listedObjects: 30) == [])
    }

    // MARK: - What it costs

    @Test("Each operation is one request", arguments: [Service.strict, .rclone, .moto])
    func requestCounts(service: Service) throws {
        let place = try Place(service)
        _ = try place.store().createBucketIfMissing()
        let counter = TrafficCounter()
        let store = place.store(traits: S3Traits(text: service.traits), counter: counter)
        func cost(_ body: () throws -> Void) rethrows -> [TrafficCounter.Request: Int] {
            let before = counter.now.requests
            try body()
            return counter.now.requests.merging(before) { $0 - $1 }.filter { $0.value != 0 }
        }
        let key = ObjectKey(validated: "a/b")
        let bytes = [UInt8](repeating: 7, count: 100_000)
        let put = try cost { try store.put(bytes, at: key) }
        #expect(put == [.put: 1])
        var read: [UInt8] = []
        let get = try cost { read = try store.get(key) }
        #expect(get == [.get: 1])
        #expect(read == bytes)
        var count = 0
        let range = try cost {
            try withBuffer(1_000) { buffer in
                count = try store.get(key, range: 99_500..<100_500, into: buffer)
            }
        }
        #expect(range == [.get: 1])
        #expect(count == 500)
        let head = try cost { count = try store.head(key)?.length ?? 0 }
        #expect(head == [.head: 1])
        #expect(count == bytes.count)
        let list = try cost { count = try store.list(prefix: "a/").count }
        #expect(list == [.list: 1])
        #expect(count == 1)
        let clock = try cost { _ = try store.currentTime() }
        #expect(clock.isEmpty)
        let delete = try cost { try store.delete(key) }
        #expect(delete == [.delete: 1])
        let manyDeletes = cost {
            store.delete((0..<2_000).map { ObjectKey(validated: "a/\($0)") }) {
                Issue.record("\($0): \($1)")
            }
        }
        // What the bucket keeps is asked once, before the first of many is deleted.
        #expect(manyDeletes == [.delete: 2, .other: 2])
        let moreDeletes = cost {
            store.delete((0..<2_000).map { ObjectKey(validated: "a/\($0)") }) { _, _ in }
        }
        #expect(moreDeletes == [.delete: 2])
        let before = counter.now.total
        _ = try store.probe(below: "scratch/")
        #expect(counter.now.total - before <= 4)
    }

    // MARK: - A service that checks everything

    @Test("What a service can be told to be wrong about is told to the user")
    func words() throws {
        let place = try Place(.strict)
        _ = try place.store().createBucketIfMissing()
        let store = place.store(traits: S3Traits(text: Service.strict.traits))
        let key = ObjectKey(validated: "bundles/x")
        try store.put([1, 2, 3], at: key)
        place.server.tell("deny", "s3:PutObject:\(place.prefix)/bundles", "s3:ListBucket")
        let put = try #require(
            failure { try store.put([1], at: ObjectKey(validated: "bundles/y")) })
        #expect(put.kind == .denied && put.remedy.contains("s3:PutObject"))
        let list = try #require(failure { try store.list(prefix: "") })
        #expect(list.kind == .denied && list.remedy.contains("s3:ListBucket"))
        place.server.tell("deny")
        place.server.tell("clock", "3600")
        let skewed = try #require(failure { try store.get(key) })
        #expect(skewed.cause.contains("clock"))
        place.server.tell("clock", "0")
        let missing = place.store(bucket: "no-such-bucket")
        let noBucket = try #require(failure { try missing.get(key) })
        #expect(noBucket.kind == .notFound && noBucket.cause.contains("no-such-bucket"))
        let wrongKey = place.store(secret: "wrong")
        let refused = try #require(failure { try wrongKey.head(key) })
        #expect(refused.kind == .denied && refused.cause.contains("secret key"))
    }

    @Test("A bucket in another region is found there", arguments: ["malformed", "redirect"])
    func region(answer: String) throws {
        let place = try Place(.strict)
        place.server.tell("bucket", "far", "region=eu-west-1")
        place.server.tell("region-answer", answer)
        let store = place.store(bucket: "far", traits: S3Traits(text: Service.strict.traits))
        try store.put([1, 2, 3], at: ObjectKey(validated: "a"))
        #expect(try store.get(ObjectKey(validated: "a")) == [1, 2, 3])
        #expect(store.traits.region == "eu-west-1")
    }

    @Test("Credentials that end during a run are renewed")
    func renewal() throws {
        let place = try Place(.strict)
        _ = try place.store().createBucketIfMissing()
        place.server.tell("key", "AKFIRST", "first", "token1")
        place.server.tell("key", "AKSECOND", "second", "token2")
        let source = Turns([
            S3Credentials(
                keyID: "AKFIRST", secret: "first", sessionToken: "token1", origin: "the test"),
            S3Credentials(
                keyID: "AKSECOND", secret: "second", sessionToken: "token2", origin: "the test"),
        ])
        let store = place.store(source: source)
        try store.put([1], at: ObjectKey(validated: "a"))
        place.server.tell("key", "AKFIRST", "first", "token1", "0")
        try store.put([1], at: ObjectKey(validated: "b"))
        #expect(try store.list(prefix: "").count == 2)
    }

    @Test("A retention is kept by a bucket that has Object Lock, and asked of no other")
    func objectLock() throws {
        let place = try Place(.strict)
        place.server.tell("bucket", "locked", "lock")
        place.server.tell("bucket", "open")
        var options = S3Options()
        options.retention = S3Options.Retention(mode: .compliance, days: 1)
        let locked = place.store(
            bucket: "locked", traits: S3Traits(text: Service.strict.traits), options: options)
        let key = ObjectKey(validated: "a")
        try locked.put([1, 2, 3], at: key)
        let other = place.store(bucket: "open", options: options)
        let refused = try #require(failure { try other.put([1], at: key) })
        #expect(refused.kind == .unsupported)
        #expect(try other.list(prefix: "").isEmpty)
    }

    @Test(
        "What is under a retention is not deleted, and the error tells until when",
        arguments: [Service.strict, .moto])
    func retained(service: Service) throws {
        let place = try Place(service)
        try place.makeLockedBucket("locked")
        var options = S3Options()
        options.retention = S3Options.Retention(mode: .compliance, days: 2)
        let traits = S3Traits(text: service.traits)
        let locked = ObjectKey(validated: "bundles/locked")
        let free = ObjectKey(validated: "bundles/free")
        try place.store(bucket: "locked", traits: traits, options: options).put([1], at: locked)
        let counter = TrafficCounter()
        let store = place.store(bucket: "locked", traits: traits, counter: counter)
        try store.put([2], at: free)
        let now = try store.currentTime()
        #expect(!store.capabilities.keepsDeleted)

        var failures: [ObjectKey: StorageError] = [:]
        store.delete([locked, free, ObjectKey(validated: "bundles/missing")]) {
            failures[$0] = $1
        }
        #expect(Array(failures.keys) == [locked])
        let failure = try #require(failures[locked])
        #expect(failure.kind == .denied && !failure.isTransient)
        let until = try #require(failure.retainedUntil)
        #expect(abs(until - (now + 2 * 86_400)) < 60, "\(until - now)")
        #expect(failure.description.contains("retained until 20"), "\(failure)")
        #expect(try store.list(prefix: "").map(\.key) == [locked])
        // Its configuration says that it keeps versions as well.
        #expect(store.capabilities.keepsDeleted)
        #expect(counter.now.requests[.other] == 1 && counter.now.requests[.head] == 3)
        #expect(try store.get(locked) == [1])
    }

    @Test("When the retention has ended the object goes; who may not see a retention hides it")
    func retentionOver() throws {
        let place = try Place(.strict)
        place.server.tell("bucket", "locked", "lock")
        var options = S3Options()
        options.retention = S3Options.Retention(mode: .governance, days: 1)
        let traits = S3Traits(text: Service.strict.traits)
        let keys = [ObjectKey(validated: "a"), ObjectKey(validated: "b")]
        let early = place.store(bucket: "locked", traits: traits, options: options)
        for key in keys { try early.put([1, 2], at: key) }

        place.server.tell("clock", "\(25 * 3600)")
        let late = place.store(
            bucket: "locked", traits: traits,
            now: { csys_realtime_ns() / 1_000_000_000 + 25 * 3600 })
        late.delete([keys[0]]) { Issue.record("\($0): \($1)") }
        #expect(try late.list(prefix: "").map(\.key) == [keys[1]])

        place.server.tell("clock", "0")
        place.server.tell("deny", "s3:GetObjectRetention")
        let blind = place.store(bucket: "locked", traits: traits)
        blind.delete([keys[1]]) { Issue.record("\($0): \($1)") }
        #expect(try blind.list(prefix: "").isEmpty)
    }

    @Test("A bucket that keeps versions is known to, whatever was found when it was first used")
    func versions() throws {
        let place = try Place(.strict)
        place.server.tell("bucket", "plain")
        place.server.tell("bucket", "versioned", "versioned")
        for (bucket, keeps) in [("plain", false), ("versioned", true)] {
            let key = ObjectKey(validated: "a")
            let store = place.store(bucket: bucket, traits: S3Traits(text: Service.strict.traits))
            try store.put([1], at: key)
            store.delete([key]) { Issue.record("\($0): \($1)") }
            #expect(store.capabilities.keepsDeleted == keeps, "\(bucket)")
        }
        // Who may not ask goes by what the probe found.
        place.server.tell(
            "deny", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration")
        for versioning in ["", " versioning"] {
            let store = place.store(
                bucket: "versioned", traits: S3Traits(text: Service.strict.traits + versioning))
            store.delete([ObjectKey(validated: "a")]) { Issue.record("\($0): \($1)") }
            #expect(store.capabilities.keepsDeleted == (versioning != ""))
        }
        // A bucket of which nothing can be learned now is not deleted from.
        place.server.tell("deny")
        place.server.tell("rules", "op=GetObjectLockConfiguration,first=1,status=500")
        let store = place.store(bucket: "plain", traits: S3Traits(text: Service.strict.traits))
        try store.put([1], at: ObjectKey(validated: "b"))
        var failures: [StorageError] = []
        store.delete([ObjectKey(validated: "b")]) { failures.append($1) }
        #expect(failures.map(\.isTransient) == [true])
        #expect(
            place.server.tell("fired") == ["1\top=GetObjectLockConfiguration,first=1,status=500"])
        RetryingStore(store).delete([ObjectKey(validated: "b")]) { Issue.record("\($0): \($1)") }
        #expect(try store.list(prefix: "").isEmpty)
    }

    @Test(
        "A put whose answer is lost has happened once, and can be repeated",
        arguments: [true, false])
    func lostAnswer(isNewConnection: Bool) throws {
        let place = try Place(.strict)
        let first = place.store()
        _ = try first.createBucketIfMissing()
        let counter = TrafficCounter()
        let store = place.store(
            traits: S3Traits(text: Service.strict.traits),
            engine: isNewConnection ? TransferEngine() : nil, counter: counter)
        place.server.tell("rules", "op=PutObject,first=1,lost=1")
        let key = ObjectKey(validated: "a")
        if isNewConnection {
            let lost = try #require(failure { try store.put([1, 2, 3], at: key) })
            #expect(lost.isTransient)
            try store.put([1, 2, 3], at: key)
        } else {
            // A kept connection that breaks without an answer may have been dead before: then the
            // request goes out again by itself.
            try store.put([1, 2, 3], at: key)
        }
        #expect(counter.now.requests == [.put: 2, .head: 1])
        #expect(place.server.tell("fired") == ["1\top=PutObject,first=1,lost=1"])
        #expect(failure { try store.put([1], at: key) }?.kind == .exists)
        #expect(try store.get(key) == [1, 2, 3])
    }

    @Test("A bucket is named before the host where the service wants it so")
    func virtualHost() throws {
        let place = try Place(
            Service(kind: .strictS3, options: ["--style", "virtual"], traits: ""),
            host: "localhost", style: .virtual)
        #expect(try place.store().createBucketIfMissing())
        let store = place.store(traits: S3Traits(text: Service.strict.traits))
        #expect(StoreContract.run(store, listedObjects: 30) == [])
    }

    // MARK: - Trust

    @Test("Nobody is believed whose certificate is not of a trusted authority, or for another host")
    func certificates() throws {
        let place = try Place(Service(kind: .strictS3, options: ["--tls"], traits: ""))
        #expect(try place.store().createBucketIfMissing())
        let distrusting = place.store(engine: TransferEngine())
        let untrusted = try #require(failure { try distrusting.list(prefix: "") })
        #expect(untrusted.kind == .untrusted && !untrusted.isTransient)
        #expect(untrusted.remedy.contains("--ca-file"))
        // The certificate is for localhost and the names below it, but not those below them.
        let otherName = try Place(
            Service(kind: .strictS3, options: ["--tls"], traits: ""), host: "a.b.localhost")
        let wrongHost = try #require(failure { try otherName.store().list(prefix: "") })
        #expect(wrongHost.kind == .untrusted)
        var options = TransferEngine.Options()
        options.caFile = "/nonexistent/ca.pem"
        let noFile = try #require(
            failure { try place.store(engine: TransferEngine(options)).list(prefix: "") })
        #expect(noFile.kind == .untrusted)
        #expect(noFile.cause.contains("/nonexistent/ca.pem"))
    }

    // MARK: - Helpers

    private func withBuffer(
        _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> Void
    ) rethrows {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
        defer { buffer.deallocate() }
        try body(buffer)
    }

    private func failure<R>(_ body: () throws -> R) -> StorageError? {
        do {
            _ = try body()
            return nil
        } catch {
            return error as? StorageError
        }
    }
}

/// A server and how to make stores of it.
private final class Place {
    let server: TestServer
    let prefix = "host a"
    private let endpoint: S3Endpoint
    private let style: S3Location.Style
    private let engine: TransferEngine

    init(
        _ service: S3ServerTests.Service, host: String? = nil, style: S3Location.Style = .auto
    ) throws {
        do {
            server = try TestServer(service.kind, service.options)
        } catch let lack as TestServer.Unavailable {
            try Test.cancel("\(lack)")
        }
        let address = server["S3_ENDPOINT"]
        endpoint = try S3Endpoint(
            host.map { address.replacing("127.0.0.1", with: $0) } ?? address)
        self.style = style
        var options = TransferEngine.Options()
        options.caFile = server.environment["S3_CA_FILE"]
        engine = TransferEngine(options)
    }

    func store(
        bucket: String = "repository", prefix: String? = nil, secret: String? = nil,
        traits: S3Traits = S3Traits(), options: S3Options = S3Options(),
        source: (any S3CredentialSource)? = nil, engine: TransferEngine? = nil,
        counter: TrafficCounter = TrafficCounter(),
        now: @escaping @Sendable () -> Int64 = { csys_realtime_ns() / 1_000_000_000 }
    ) -> S3Store {
        guard
            let location = try? S3Location(
                bucket: bucket, prefix: prefix ?? self.prefix, endpoint: endpoint,
                region: server["S3_REGION"], style: style)
        else { preconditionFailure("no location") }
        let credentials = S3Credentials(
            keyID: server["S3_ACCESS_KEY"], secret: secret ?? server["S3_SECRET_KEY"],
            origin: "the test")
        return S3Store.open(
            location, options: options, credentials: source ?? S3FixedCredentials(credentials),
            engine: engine ?? self.engine, traits: traits, counter: counter,
            spoolDirectory: server.state.path, now: now)
    }

    /// A bucket with Object Lock, as its owner makes one.
    func makeLockedBucket(_ name: String) throws {
        guard server.kind == .moto else {
            server.tell("bucket", name, "lock")
            return
        }
        // moto looks at no signature.
        let answer = try engine.perform(
            TransferRequest(
                "PUT", "\(server["S3_ENDPOINT"])/\(name)",
                headers: [("x-amz-bucket-object-lock-enabled", "true")], body: .bytes([]),
                sink: .collect(maximumBytes: 1 << 20)))
        #expect(answer.isSuccess)
    }
}

/// Gives one set of credentials after another.
private final class Turns: S3CredentialSource {
    private let left: Mutex<[S3Credentials]>
    init(_ credentials: [S3Credentials]) { left = Mutex(credentials) }

    func find() throws(S3CredentialsError) -> S3Credentials? {
        left.withLock { $0.isEmpty ? nil : $0.removeFirst() }
    }
}
