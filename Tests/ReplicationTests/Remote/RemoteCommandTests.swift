import ObjectStorage
import Replication
import SnapshotRepository
import TestSupport
import Testing

/// What a user tells the built command of the way to a service, and of what the service shall do.
@Suite("The built command and an S3 service")
struct RemoteCommandTests {
    /// A strict server of its own, and a repository on it that the command has made.
    private struct Scene {
        let server: StrictS3
        let host = TestHost("user")
        let source = TemporaryDirectory.inMemory()
        private let binary: String

        init(_ options: [String] = [], bucket: String? = "test") throws {
            guard let binary = BuiltCommand.path else {
                try Test.cancel("the command is not built: make test builds it")
            }
            self.binary = binary
            server = try StrictS3(options, bucket: bucket)
            plantTree(source, files: 20, largeBytes: 3 << 20)
        }

        /// - Parameter more: Of the environment, over what the place itself needs.
        func run(
            _ verb: String, _ words: [String], bucket: String = "test",
            _ more: [String: String] = [:]
        ) -> (code: Int32, said: String) {
            var environment = [
                "AWS_ENDPOINT_URL": server["S3_ENDPOINT"],
                "AWS_ACCESS_KEY_ID": server["S3_ACCESS_KEY"],
                "AWS_SECRET_ACCESS_KEY": server["S3_SECRET_KEY"],
                "AWS_REGION": server["S3_REGION"],
                "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
                "TMPDIR": "/dev/shm", "http_proxy": "", "https_proxy": "", "all_proxy": "",
                "no_proxy": "",
            ]
            environment.merge(host.environment) { $1 }
            environment.merge(more) { $1 }
            // Of whoever runs the tests; it would count more than what a test names.
            let without = ["/usr/bin/env", "-u", "AWS_CA_BUNDLE"]
            return BuiltCommand.output(
                without + [binary] + verb.split(separator: " ").map(String.init)
                    + ["-r", "s3://\(bucket)/place"] + words, environment)
        }

        func makeRepository(_ words: [String] = [], _ more: [String: String] = [:]) {
            let outcome = run("init", ["--no-encryption"] + words, more)
            #expect(outcome.code == 0, "\(outcome.said)")
        }
    }

    // MARK: - The way there

    @Test("A proxy of the environment is used, and not for hosts that are excepted")
    func proxy() throws {
        let scene = try Scene()
        let proxy = try FaultProxy(toward: scene.server["S3_ENDPOINT"])
        // A name that nobody can resolve: only the proxy knows the way.
        let away = ["AWS_ENDPOINT_URL": "http://storage.invalid", "http_proxy": proxy.url]
        scene.makeRepository([], away)
        let stored = scene.run("backup", [scene.source.path], away)
        #expect(stored.code == 0, "\(stored.said)")
        let asked = proxy.server.tell("log")
        #expect(!asked.isEmpty)
        #expect(asked.allSatisfy { $0.contains("\thttp://storage.invalid/") }, "\(asked)")
        let excepted = scene.run(
            "snapshots", ["--wait-online", "0s"],
            away.merging(["no_proxy": "storage.invalid"]) { $1 })
        #expect(excepted.code == 1 && excepted.said.contains("storage.invalid"), "\(excepted.said)")
        #expect(proxy.server.tell("log").count == asked.count)
    }

    @Test("A service that is too busy for the very first question is asked again")
    func busyAtFirst() throws {
        let scene = try Scene()
        let proxy = try FaultProxy(
            toward: scene.server["S3_ENDPOINT"], rules: "first=1,status=503:SlowDown")
        scene.makeRepository([], ["AWS_ENDPOINT_URL": proxy.url])
        #expect(proxy.fired == [1])
    }

    @Test("Through a proxy the certificate is that of the service, and it is verified")
    func secureProxy() throws {
        let scene = try Scene(["--tls"])
        let port = scene.server["S3_ENDPOINT"].split(separator: ":").last ?? ""
        let proxy = try FaultProxy(toward: "http://127.0.0.1:\(port)")
        var away = ["AWS_ENDPOINT_URL": "https://localhost:1", "https_proxy": proxy.url]
        let distrusted = scene.run("init", ["--no-encryption", "--s3-style", "path"], away)
        #expect(distrusted.code == 1 && distrusted.said.contains("--ca-file"), "\(distrusted.said)")
        away["SSL_CERT_FILE"] = scene.server["S3_CA_FILE"]
        scene.makeRepository(["--s3-style", "path"], away)
        let asked = proxy.server.tell("log")
        #expect(asked.contains { $0.contains("\tCONNECT\tlocalhost:1\t") }, "\(asked)")
        #expect(scene.server.log().contains { $0.operation == "PutObject" && $0.status == 200 })
    }

    @Test("A private authority is trusted when it is named, in either way, and not before")
    func privateAuthority() throws {
        let scene = try Scene(["--tls"])
        let file = scene.server["S3_CA_FILE"]
        let distrusted = scene.run("init", ["--no-encryption"])
        #expect(distrusted.code == 1 && distrusted.said.contains("--ca-file"), "\(distrusted.said)")
        #expect(scene.server.log().isEmpty)
        scene.makeRepository(["--ca-file", file])
        let stored = scene.run("backup", [scene.source.path], ["SSL_CERT_FILE": file])
        #expect(stored.code == 0, "\(stored.said)")
        let listed = scene.run("snapshots", ["--ca-file", "/dev/null"], ["SSL_CERT_FILE": file])
        #expect(listed.code == 1, "\(listed.said)")
    }

    @Test("Where a bucket is, is remembered also by who only reads")
    func region() throws {
        let scene = try Scene()
        scene.server.server.tell("bucket", "far", "region=eu-west-1")
        let writer = scene.run("init", ["--no-encryption"], bucket: "far")
        #expect(writer.code == 0, "\(writer.said)")
        let reader = TestHost("reader")
        scene.server.reset()
        #expect(scene.run("snapshots", [], bucket: "far", reader.environment).code == 0)
        #expect(scene.server.log().contains { $0.status == 400 })
        scene.server.reset()
        #expect(scene.run("snapshots", [], bucket: "far", reader.environment).code == 0)
        #expect(scene.server.log().allSatisfy { $0.status == 200 })
    }

    @Test("A bucket that is not there is called so, by verbs that write and by those that read")
    func missingBucket() throws {
        let scene = try Scene()
        for (verb, words) in [
            ("snapshots", []), ("backup", [scene.source.path]),
        ] as [(String, [String])] {
            let outcome = scene.run(verb, words, bucket: "nosuch")
            #expect(outcome.code == 10, "\(outcome.said)")
            #expect(outcome.said.contains("the bucket nosuch does not exist"), "\(outcome.said)")
        }
    }

    // MARK: - What the service shall do

    @Test("Bundles go into their storage class, records stay, and all of it is encrypted as asked")
    func classAndEncryption() throws {
        let scene = try Scene()
        // Has never tried what the service can do.
        let reader = TestHost("reader")
        scene.makeRepository()
        for (words, wanted, key) in [
            ("AES256", "AES256", nil), ("aws:kms", "aws:kms", nil),
            ("aws:kms:key-1", "aws:kms", "key-1"),
        ] as [(String, String, String?)] {
            scene.source.put(SeededGenerator.numbers(UInt64(words.utf8.count), 5_000), words)
            scene.server.reset()
            let stored = scene.run(
                "backup", ["--storage-class", "STANDARD_IA", "--sse", words, scene.source.path])
            #expect(stored.code == 0, "\(stored.said)")
            let puts = scene.server.log().filter { $0.operation == "PutObject" }
            #expect(puts.contains { $0.key.contains("/bundles/") })
            #expect(puts.contains { $0.key.contains("/snapshots/") })
            for put in puts {
                let isBundle = put.key.contains("/bundles/")
                #expect(
                    put.headers["x-amz-storage-class"] == (isBundle ? "STANDARD_IA" : nil),
                    "\(put.key)")
                #expect(put.headers["x-amz-server-side-encryption"] == wanted, "\(put.key)")
                #expect(
                    put.headers["x-amz-server-side-encryption-aws-kms-key-id"] == key,
                    "\(put.key)")
            }
            // Under a key of the service's own the ETag is the MD5, under another it is not.
            for environment in [[:], reader.environment] {
                let verified = scene.run("verify", [], environment)
                #expect(verified.code == 0, "\(verified.said)")
                #expect(verified.said.contains("by the MD5 that the store lists"))
                let kept = verified.said.contains("by the SHA-256 that the store keeps")
                #expect(kept == (wanted == "aws:kms"), "\(verified.said)")
                #expect(!verified.said.contains("by length only"), "\(verified.said)")
            }
        }
    }

    @Test("An ETag that is no MD5 proves no damage where there is no other sum")
    func managedKeyWithoutSums() throws {
        let scene = try Scene()
        scene.makeRepository()
        let stored = scene.run("backup", ["--sse", "aws:kms", scene.source.path])
        #expect(stored.code == 0, "\(stored.said)")
        scene.server.fail("op=HeadObject,path=bundles,status=403:AccessDenied")
        let verified = scene.run("verify", [])
        #expect(verified.code == 0, "\(verified.said)")
        #expect(verified.said.contains("no checksum could be had"), "\(verified.said)")
        #expect(verified.said.contains("compared by length only"), "\(verified.said)")
    }

    @Test("A retention is asked for where the bucket keeps it, and refused in words where not")
    func retention() throws {
        let scene = try Scene()
        scene.server.server.tell("bucket", "locked", "lock")
        #expect(scene.run("init", ["--no-encryption"], bucket: "locked").code == 0)
        scene.server.reset()
        let stored = scene.run(
            "backup", ["--object-lock", "COMPLIANCE:30d", scene.source.path], bucket: "locked")
        #expect(stored.code == 0, "\(stored.said)")
        let log = scene.server.log()
        #expect(log.count { $0.operation == "GetObjectLockConfiguration" } == 1)
        let puts = log.filter { $0.operation == "PutObject" }
        #expect(
            !puts.isEmpty
                && puts.allSatisfy { $0.headers["x-amz-object-lock-mode"] == "COMPLIANCE" })

        scene.makeRepository()
        let refused = scene.run("backup", ["--object-lock", "COMPLIANCE:30d", scene.source.path])
        #expect(refused.code == 1 && refused.said.contains("no Object Lock"), "\(refused.said)")
    }

    @Test("What forgetting and pruning asked of the service is told")
    func traffic() throws {
        let scene = try Scene()
        scene.makeRepository()
        #expect(scene.run("backup", [scene.source.path]).code == 0)
        for (verb, words) in [
            ("forget", ["--keep-daily", "7"]), ("forget", ["--keep-daily", "7", "--prune"]),
            ("forget", ["latest"]), ("forget", ["--undo"]), ("prune", []),
        ] as [(String, [String])] {
            let told = scene.run(verb, words + ["--dry-run"])
            #expect(told.code == 0 && told.said.contains(" requests, "), "\(told.said)")
            let document = scene.run(verb, words + ["--json"])
            #expect(
                document.code == 0 && document.said.contains("\"traffic\""), "\(document.said)")
        }
    }

    // MARK: - Examining it

    @Test("A service is examined on a host that does not know it, and nothing stays there")
    func check() throws {
        let scene = try Scene()
        let outcome = scene.run("store check", [])
        #expect(outcome.code == 0, "\(outcome.said)")
        #expect(!outcome.said.contains("skipped"), "\(outcome.said)")
        #expect(scene.server.server.tell("objects", "test") == [])
    }

    @Test("An examination asks for no retention")
    func checkWithRetention() throws {
        let scene = try Scene()
        scene.server.server.tell("bucket", "locked", "lock")
        let outcome = scene.run(
            "store check", ["--object-lock", "COMPLIANCE:30d"], bucket: "locked")
        #expect(outcome.code == 0, "\(outcome.said)")
        let puts = scene.server.log().filter { $0.operation == "PutObject" }
        #expect(!puts.isEmpty)
        #expect(puts.allSatisfy { $0.headers["x-amz-object-lock-mode"] == nil })
    }

    @Test("Where what is put cannot be deleted, nothing is examined")
    func checkWithoutDeleting() throws {
        let scene = try Scene()
        scene.server.server.tell("bucket", "retaining", "lock", "retain=COMPLIANCE:30")
        let retaining = scene.run("store check", [], bucket: "retaining")
        #expect(retaining.code == 1, "\(retaining.said)")
        #expect(retaining.said.contains("it is retained until"), "\(retaining.said)")
        scene.server.deny("s3:DeleteObject")
        let refused = scene.run("store check", [])
        #expect(refused.code == 1, "\(refused.said)")
        #expect(refused.said.contains("cannot delete"), "\(refused.said)")
        for outcome in [retaining, refused] {
            #expect(outcome.said.contains("nothing was examined"), "\(outcome.said)")
            #expect(!outcome.said.contains("kept     "), "\(outcome.said)")
        }
        #expect(scene.server.server.tell("objects", "test").count <= 2)
    }

    @Test("Where nobody is let in, that is said once", arguments: [false, true])
    func checkNowhere(isKnown: Bool) throws {
        let scene = try Scene()
        if isKnown { scene.makeRepository() }
        let secret = scene.run("store check", [], ["AWS_SECRET_ACCESS_KEY": "wrong"])
        #expect(secret.said.contains("secret key"), "\(secret.said)")
        let bucket = scene.run("store check", [], bucket: "nosuch")
        #expect(bucket.said.contains("the bucket nosuch does not exist"), "\(bucket.said)")
        let host = scene.run("store check", [], ["AWS_ENDPOINT_URL": "http://127.0.0.1:1"])
        #expect(host.said.contains("127.0.0.1"), "\(host.said)")
        for outcome in [secret, bucket, host] {
            #expect(outcome.code == 1, "\(outcome.said)")
            #expect(!outcome.said.contains("broken"), "\(outcome.said)")
        }
        #expect(!scene.server.log().contains { $0.operation == "CreateBucket" })
    }
}
