import Crypto
import SnapshotModel
import Synchronization
import TestSupport
import Testing
import Transfer

@testable import ObjectStorage

/// What the store does with a service's answers, whatever they are.
@Suite("A store in S3 and what it is told")
struct S3StoreTests {
    private static let key = ObjectKey(validated: "bundles/ab/object")

    // MARK: - Requests

    @Test("A put carries length and sums; what else goes along depends on what is known")
    func putHeaders() throws {
        let seen = Seen()
        let recording = ScriptedServer { request in
            seen.note(request)
            return [.send(ScriptedServer.answer(200))]
        }
        let bytes = Array("content".utf8)
        try store(recording).put(bytes, at: S3StoreTests.key)
        let plain = try #require(seen.last)
        #expect(plain.method == "PUT")
        #expect(plain.target == "/bucket/p%20q/bundles/ab/object")
        #expect(plain.body == bytes)
        #expect(plain["Content-Length"] == "7")
        #expect(plain["Content-MD5"] == "mgNkuembtIDdJeHwKEyFVQ==")
        #expect(plain["x-amz-content-sha256"] == sha256Hex(bytes))
        for name in [
            "If-None-Match", "x-amz-checksum-sha256", "x-amz-storage-class",
            "x-amz-server-side-encryption", "x-amz-object-lock-mode", "Transfer-Encoding", "Expect",
        ] { #expect(plain[name] == nil, "\(name)") }

        var options = S3Options()
        options.storageClasses = ["bundles/": "GLACIER_IR"]
        options.encryption = .managedKey("key-1")
        options.retention = S3Options.Retention(mode: .compliance, days: 30)
        let traits = S3Traits(text: "conditional-put keeps-sha256 object-lock=yes")
        try store(recording, options: options, traits: traits, token: "tok")
            .put(bytes, at: S3StoreTests.key)
        let rich = try #require(seen.last)
        #expect(rich["If-None-Match"] == "*")
        #expect(rich["x-amz-checksum-sha256"] == "7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=")
        #expect(rich["x-amz-storage-class"] == "GLACIER_IR")
        #expect(rich["x-amz-server-side-encryption"] == "aws:kms")
        #expect(rich["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1")
        #expect(rich["x-amz-object-lock-mode"] == "COMPLIANCE")
        #expect(rich["x-amz-object-lock-retain-until-date"] == "2026-12-26T19:32:36Z")
        #expect(rich["x-amz-security-token"] == "tok")
        #expect(rich["Authorization"]?.contains("x-amz-security-token") == true)

        for (encryption, name) in [
            (S3Options.ServerSideEncryption.serviceKeys, "AES256"), (.managedKey(nil), "aws:kms"),
        ] {
            options = S3Options()
            options.encryption = encryption
            try store(recording, options: options).put(bytes, at: S3StoreTests.key)
            let encrypted = try #require(seen.last)
            #expect(encrypted["x-amz-server-side-encryption"] == name)
            #expect(encrypted["x-amz-server-side-encryption-aws-kms-key-id"] == nil)
        }
    }

    @Test("A retention is asked for only where the bucket keeps it")
    func objectLock() throws {
        let isEnabled = Atomic<Bool>(false)
        let server = ScriptedServer { request in
            guard request.target.hasSuffix("?object-lock=") else {
                return [.send(ScriptedServer.answer(200))]
            }
            guard isEnabled.load(ordering: .relaxed) else {
                return [.send(error(404, "ObjectLockConfigurationNotFoundError"))]
            }
            let said =
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>"
                + "</ObjectLockConfiguration>"
            return [.send(ScriptedServer.answer(200, [], said))]
        }
        var options = S3Options()
        options.retention = S3Options.Retention(mode: .governance, days: 1)
        let without = store(server, options: options)
        let failure = try #require(storageError { try without.put([1], at: S3StoreTests.key) })
        #expect(failure.kind == .unsupported)
        #expect(failure.cause.contains("Object Lock"))
        #expect(without.traits.objectLock == false)
        isEnabled.store(true, ordering: .relaxed)
        let with = store(server, options: options)
        try with.put([1], at: S3StoreTests.key)
        try with.put([2], at: S3StoreTests.key)
        #expect(with.traits.objectLock == true)
        #expect(server.requests == 4)
    }

    @Test("An object that is already there is told apart by its length")
    func conditional() throws {
        let server = ScriptedServer { request in
            if request.method == "HEAD" {
                return [.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n".utf8))]
            }
            return [.send(error(412, "PreconditionFailed"))]
        }
        let store = store(server, traits: S3Traits(text: "conditional-put"))
        try store.put([1, 2, 3], at: S3StoreTests.key)
        let failure = try #require(storageError { try store.put([1, 2], at: S3StoreTests.key) })
        #expect(failure.kind == .exists)
    }

    @Test("A wrong region is followed once and remembered", arguments: [0, 1, 2, 3])
    func region(kind: Int) throws {
        let server = ScriptedServer { request in
            let isRight = request["Authorization"]?.contains("/eu-west-1/s3/") == true
            if isRight {
                return [.send(ScriptedServer.answer(200, [], "content"))]
            }
            switch kind {
            case 0:
                return [
                    .send(
                        error(
                            400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"))
                ]
            case 1:
                return [
                    .send(
                        error(301, "PermanentRedirect", headers: ["x-amz-bucket-region: eu-west-1"])
                    )
                ]
            case 2:
                return [
                    .send(
                        error(400, "AuthorizationHeaderMalformed", "<Region>evil.example/</Region>")
                    )
                ]
            default:
                return [
                    .send(error(400, "AuthorizationHeaderMalformed", "<Region>ap-south-1</Region>"))
                ]
            }
        }
        let store = store(server)
        if kind < 2 {
            for _ in 0..<3 { #expect(try store.get(S3StoreTests.key) == Array("content".utf8)) }
            #expect(server.requests == 4)
            #expect(store.traits.region == "eu-west-1")
            #expect(S3Traits(text: store.traits.text).region == "eu-west-1")
        } else {
            let failure = try #require(storageError { try store.get(S3StoreTests.key) })
            #expect(failure.kind == .unsupported)
            #expect(server.requests == (kind == 2 ? 1 : 2))
        }
    }

    @Test("Credentials that have ended are renewed once")
    func expired() throws {
        let server = ScriptedServer { request in
            let isRenewed = request["x-amz-security-token"] == "new"
            return [
                .send(isRenewed ? ScriptedServer.answer(200, [], "x") : error(400, "ExpiredToken"))
            ]
        }
        let source = SequenceSource(["old", "new"])
        let store = store(server, source: source)
        #expect(try store.get(S3StoreTests.key) == Array("x".utf8))
        #expect(try store.get(S3StoreTests.key) == Array("x".utf8))
        #expect(server.requests == 3)
        let failing = self.store(server, source: SequenceSource(["old", "older", "oldest"]))
        let failure = try #require(storageError { try failing.get(S3StoreTests.key) })
        #expect(failure.kind == .denied)
        #expect(failure.remedy.contains("the test"))
        #expect(server.requests == 5)
    }

    // MARK: - Errors in words

    struct Refusal: Sendable, CustomStringConvertible {
        let status: Int
        let code: String
        var details = ""
        var headers: [String] = []
        let kind: StorageError.Kind
        var isTransient = false
        var isOverload = false
        var says: [String] = []
        var description: String { "\(status) \(code)" }
    }

    @Test(
        "What a service refuses reaches the user in words",
        arguments: [
            Refusal(status: 404, code: "NoSuchKey", kind: .notFound),
            Refusal(
                status: 404, code: "NoSuchBucket", kind: .notFound,
                says: ["bucket bucket does not exist"]),
            Refusal(
                status: 403, code: "AccessDenied", kind: .denied,
                says: ["KEYID", "s3:GetObject", "bucket/p q/*", "the test"]),
            Refusal(
                status: 403, code: "InvalidAccessKeyId", kind: .denied, says: ["KEYID", "the test"]),
            Refusal(
                status: 403, code: "SignatureDoesNotMatch", kind: .denied, says: ["secret key"]),
            Refusal(
                status: 403, code: "RequestTimeTooSkewed",
                details: "<ServerTime>2026-11-26T21:00:00Z</ServerTime>", kind: .denied,
                says: ["20261126T193236Z", "2026-11-26T21:00:00Z", "clock"]),
            Refusal(
                status: 403, code: "AccessDenied", headers: ["Date: Thu, 26 Nov 2026 18:00:00 GMT"],
                kind: .denied, says: ["clocks differ", "18:00:00"]),
            Refusal(status: 400, code: "EntityTooLarge", kind: .tooLarge),
            Refusal(status: 403, code: "QuotaExceeded", kind: .noSpace),
            Refusal(status: 507, code: "", kind: .noSpace),
            Refusal(status: 403, code: "InvalidObjectState", kind: .unsupported, says: ["archive"]),
            Refusal(status: 501, code: "NotImplemented", kind: .unsupported),
            Refusal(
                status: 503, code: "SlowDown", headers: ["Retry-After: 7"], kind: .unavailable,
                isTransient: true, isOverload: true),
            Refusal(status: 429, code: "", kind: .unavailable, isTransient: true, isOverload: true),
            Refusal(status: 503, code: "", kind: .unavailable, isTransient: true, isOverload: true),
            Refusal(status: 500, code: "InternalError", kind: .unavailable, isTransient: true),
            Refusal(status: 502, code: "", kind: .unavailable, isTransient: true),
            Refusal(status: 400, code: "RequestTimeout", kind: .unavailable, isTransient: true),
            Refusal(
                status: 409, code: "OperationAborted", kind: .unavailable, isTransient: true),
            Refusal(status: 302, code: "", kind: .unsupported, says: ["elsewhere"]),
            Refusal(status: 418, code: "", kind: .unsupported),
        ])
    func refusals(refusal: Refusal) throws {
        let server = ScriptedServer { _ in
            if refusal.code.isEmpty {
                return [
                    .send(ScriptedServer.answer(refusal.status, refusal.headers, "<html>no</html>"))
                ]
            }
            return [
                .send(
                    error(refusal.status, refusal.code, refusal.details, headers: refusal.headers))
            ]
        }
        let failure = try #require(
            storageError { try store(server).get(S3StoreTests.key) })
        #expect(failure.kind == refusal.kind, "\(failure)")
        #expect(failure.isTransient == refusal.isTransient)
        #expect(failure.isOverload == refusal.isOverload)
        #expect(failure.retryAfterSeconds == (refusal.headers.contains("Retry-After: 7") ? 7 : nil))
        let words = "\(failure)\n\(failure.remedy)"
        for part in refusal.says { #expect(words.contains(part), "\(words)") }
        #expect(!words.contains("SECRET"))
        #expect(server.requests == 1)
    }

    @Test("A refused HEAD, which has no explanation, is explained all the same")
    func headExplained() throws {
        let server = ScriptedServer { request in
            if request.method == "HEAD" {
                return [.send(Array("HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\n".utf8))]
            }
            return [.send(error(403, "InvalidAccessKeyId"))]
        }
        let failure = try #require(storageError { try store(server).head(S3StoreTests.key) })
        #expect(failure.cause.contains("KEYID"))
        #expect(failure.operation == .head)
        #expect(server.requests == 2)
    }

    @Test("Damage on the way may pass; damage done here does not")
    func damage() throws {
        let server = ScriptedServer { _ in [.send(error(400, "BadDigest"))] }
        let store = store(server)
        let bytes = Array("content".utf8)
        let onTheWay = try #require(storageError { try store.put(bytes, at: S3StoreTests.key) })
        #expect(onTheWay.kind == .io && onTheWay.isTransient)
        let here = ObjectContent(bytes: bytes, digest: sha256([1]))
        let failure = try #require(storageError { try store.put(here, at: S3StoreTests.key) })
        #expect(failure.kind == .io && !failure.isTransient)
    }

    @Test("An error within a success is an error")
    func errorInSuccess() throws {
        let server = ScriptedServer { _ in
            [.send(error(200, "InternalError"))]
        }
        let store = store(server)
        let list = try #require(storageError { try store.list(prefix: "") })
        #expect(list.isTransient && list.cause.contains("InternalError"))
        var failures: [StorageError] = []
        store.delete([S3StoreTests.key, ObjectKey(validated: "b")]) { failures.append($1) }
        #expect(failures.count == 2)
        #expect(failures.allSatisfy { $0.isTransient })
    }

    @Test("A service that cannot be reached, or trusted, is told apart")
    func transport() throws {
        let unused = ScriptedServer { _ in [] }.url
        let store = store(endpoint: unused)
        let failure = try #require(storageError { try store.get(S3StoreTests.key) })
        #expect(failure.kind == .unavailable && failure.isTransient)
        #expect(failure.remedy.contains(unused))
    }

    // MARK: - Listings

    @Test("A listing goes on page by page, and shows only objects of ours")
    func listing() throws {
        let pages = [
            page(["p q/a", "p q/b/+/x", "p q/b/c"], next: "t 1"), page([], next: "t2"),
            page(["p q/d", "p q/e/"], next: nil),
        ]
        let seen = Seen()
        let server = ScriptedServer { request in
            seen.note(request)
            return [.send(ScriptedServer.answer(200, [], pages[request.number - 1]))]
        }
        let keys = try store(server).list(prefix: "").map(\.key.text)
        #expect(keys == ["a", "b/c", "d"])
        let targets = seen.all.map(\.target)
        #expect(
            targets[0] == "/bucket?list-type=2&prefix=p%20q%2F&encoding-type=url")
        #expect(targets[1].hasSuffix("&continuation-token=t%201"))
        #expect(targets[2].hasSuffix("&continuation-token=t2"))
    }

    @Test("A listing that cannot be believed is an error", arguments: [0, 1, 2, 3])
    func badListings(kind: Int) throws {
        let server = ScriptedServer { request in
            let said =
                switch kind {
                case 0: page(["p q/b", "p q/a"], next: nil)
                case 1: page(["p q/a", "p q/a"], next: nil)
                case 2: page(["p q/a\(request.number)"], next: "same")
                default:
                    "<ListBucketResult><Contents><Key>p q/a</Key></Contents></ListBucketResult>"
                }
            return [.send(ScriptedServer.answer(200, [], said))]
        }
        let failure = try #require(storageError { try store(server).list(prefix: "") })
        #expect(failure.kind == .io)
        #expect(server.requests <= 2)
    }

    @Test(
        "A listing tells what may be an MD5, whatever is known of the service; a look-up does not")
    func listedMD5() throws {
        let server = ScriptedServer { request in
            if request.method == "HEAD" {
                return [
                    .send(
                        ScriptedServer.answer(
                            200, ["ETag: \"0123456789abcdef0123456789abcdef\""]))
                ]
            }
            return [.send(ScriptedServer.answer(200, [], page(["p q/a"], next: nil)))]
        }
        let knowing = store(server, traits: S3Traits(text: "listing-shows-md5"))
        #expect(try store(server).list(prefix: "").first?.md5?.count == 16)
        #expect(try knowing.list(prefix: "").first?.md5?.count == 16)
        #expect(try store(server).head(S3StoreTests.key)?.md5 == nil)
        #expect(try knowing.head(S3StoreTests.key)?.md5?.count == 16)
    }

    // MARK: - Deleting

    @Test("Many deletes are one request for each thousand; a service without it gets single ones")
    func bulkDelete() throws {
        let isSimple = Atomic<Bool>(false)
        let seen = Seen()
        let server = ScriptedServer { request in
            seen.note(request)
            if request.method == "POST" {
                if isSimple.load(ordering: .relaxed) {
                    return [.send(error(501, "NotImplemented"))]
                }
                return [
                    .send(
                        ScriptedServer.answer(
                            200, [],
                            "<DeleteResult><Error><Key>p q/k7</Key><Code>AccessDenied</Code>"
                                + "<Message>retained</Message></Error></DeleteResult>"))
                ]
            }
            return [.send(ScriptedServer.answer(204))]
        }
        let keys = (0..<1_001).map { ObjectKey(validated: "k\($0)") }
        let store = store(server)
        var failed: [ObjectKey: StorageError] = [:]
        store.delete(keys) { failed[$0] = $1 }
        #expect(Array(failed.keys) == [ObjectKey(validated: "k7")])
        #expect(failed.values.first?.kind == .denied)
        // Before the first one of many the bucket is asked what it keeps.
        #expect(seen.all.map(\.method) == ["GET", "GET", "POST", "DELETE"])
        let post = try #require(seen.all.first { $0.method == "POST" })
        #expect(
            post["Content-MD5"] == Base64.encode(Array(Insecure.MD5.hash(data: post.body))))
        isSimple.store(true, ordering: .relaxed)
        let simple = self.store(server)
        failed = [:]
        simple.delete(Array(keys.prefix(3))) { failed[$0] = $1 }
        simple.delete(Array(keys.prefix(3))) { failed[$0] = $1 }
        #expect(failed.isEmpty)
        #expect(
            seen.all.dropFirst(4).map(\.method)
                == ["GET", "GET", "POST"] + Array(repeating: "DELETE", count: 6))
    }

    // MARK: - Counting and time

    @Test("Every request that goes out is counted, and none that does not")
    func counting() throws {
        let counter = TrafficCounter()
        let server = ScriptedServer { request in
            request.number == 1
                ? [.send(error(503, "SlowDown"))] : [.send(ScriptedServer.answer(200, [], "12345"))]
        }
        let store = store(server, counter: counter)
        _ = storageError { try store.put([1, 2, 3], at: S3StoreTests.key) }
        try store.put([1, 2, 3], at: S3StoreTests.key)
        _ = try store.get(S3StoreTests.key)
        #expect(counter.now.requests == [.put: 2, .get: 1])
        #expect(counter.now.bytesSent == 6)
        let unreachable = self.store(
            endpoint: ScriptedServer { _ in [] }.url, counter: counter)
        _ = storageError { try unreachable.get(S3StoreTests.key) }
        #expect(counter.now.total == 3)
    }

    @Test("The service's clock is read from its answers, without asking again")
    func clock() throws {
        let server = ScriptedServer { _ in
            [.send(ScriptedServer.answer(404, ["Date: Thu, 26 Nov 2026 19:32:36 GMT"]))]
        }
        let store = store(server)
        let first = try store.currentTime()
        #expect((1_795_721_556...1_795_721_566).contains(first))
        #expect(try store.currentTime() >= first)
        #expect(server.requests == 1)
    }

    @Test("Of several dates the one that puts the clock furthest ahead is nearest the truth")
    func clockOffset() {
        let host = Mutex<Int64>(0)
        let clock = S3Clock { host.withLock { $0 } }
        #expect(clock.seconds == nil)
        // Made at the very end of its second, and slow to arrive.
        host.withLock { $0 = 1_900_000_000 }
        clock.note(date: "Thu, 26 Nov 2026 19:32:36 GMT")
        #expect(clock.seconds == 1_795_721_556)
        host.withLock { $0 = 2_000_000_000 }
        clock.note(date: "Thu, 26 Nov 2026 19:32:37 GMT")
        #expect(clock.seconds == 1_795_721_557)
        host.withLock { $0 = 2_900_000_000 }
        clock.note(date: "Thu, 26 Nov 2026 19:32:37 GMT")
        clock.note(date: "nonsense")
        #expect(clock.seconds == 1_795_721_557)
        // Somebody set it back.
        clock.note(date: "Thu, 26 Nov 2026 18:00:00 GMT")
        #expect(clock.seconds == 1_795_716_000)
    }

    // MARK: - Helpers

    private func store(
        _ server: ScriptedServer? = nil, endpoint: String? = nil, options: S3Options = S3Options(),
        traits: S3Traits = S3Traits(), token: String? = nil,
        source: (any S3CredentialSource)? = nil, counter: TrafficCounter = TrafficCounter()
    ) -> S3Store {
        let address = endpoint ?? server?.url ?? ""
        guard let place = try? S3Endpoint(address),
            let location = try? S3Location(bucket: "bucket", prefix: "p q", endpoint: place)
        else { preconditionFailure("no endpoint: \(address)") }
        let credentials = S3Credentials(
            keyID: "KEYID", secret: "SECRET", sessionToken: token, origin: "the test")
        return S3Store.open(
            location, options: options, credentials: source ?? S3FixedCredentials(credentials),
            engine: TransferEngine(), traits: traits, counter: counter, spoolDirectory: "/tmp",
            now: { 1_795_721_556 })
    }
}

/// The requests that a server has seen.
private final class Seen: Sendable {
    private let requests = Mutex<[ScriptedServer.Request]>([])
    func note(_ request: ScriptedServer.Request) { requests.withLock { $0.append(request) } }
    var all: [ScriptedServer.Request] { requests.withLock { $0 } }
    var last: ScriptedServer.Request? { all.last }
}

/// Gives one session token after another.
private final class SequenceSource: S3CredentialSource {
    private let tokens: Mutex<[String]>
    init(_ tokens: [String]) { self.tokens = Mutex(tokens) }

    func find() throws(S3CredentialsError) -> S3Credentials? {
        let token = tokens.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        return token.map {
            S3Credentials(keyID: "KEYID", secret: "SECRET", sessionToken: $0, origin: "the test")
        }
    }
}

/// An answer with an error document.
private func error(
    _ status: Int, _ code: String, _ details: String = "", headers: [String] = []
) -> [UInt8] {
    ScriptedServer.answer(
        status, headers,
        "<?xml version=\"1.0\"?><Error><Code>\(code)</Code><Message>It says so.</Message>\(details)"
            + "</Error>")
}

private func page(_ keys: [String], next: String?) -> String {
    let contents = keys.map {
        "<Contents><Key>\($0)</Key><Size>1</Size>"
            + "<ETag>\"0123456789abcdef0123456789abcdef\"</ETag></Contents>"
    }
    let rest =
        next.map {
            "<IsTruncated>true</IsTruncated><NextContinuationToken>\($0)</NextContinuationToken>"
        } ?? "<IsTruncated>false</IsTruncated>"
    return "<ListBucketResult>\(contents.joined())\(rest)</ListBucketResult>"
}

private func storageError<R>(_ body: () throws -> R) -> StorageError? {
    do {
        _ = try body()
        return nil
    } catch {
        return error as? StorageError
    }
}
