import CSystem
import Glibc
import Synchronization
import TestSupport
import Testing
import Transfer

@testable import ObjectStorage

@Suite("Credentials for S3")
struct S3CredentialTests {
    // MARK: - The files that AWS tools share

    @Test("Profiles are read from both files, the second before the first")
    func profiles() throws {
        let environment = environment(
            config: """
                # a comment
                [default]
                region = eu-west-1
                aws_access_key_id = FROMCONFIG
                aws_secret_access_key = configsecret

                [profile "work"]
                region=us-west-2 ; a comment
                credential_process = /bin/keys --for "work # place"
                s3 =
                    addressing_style = path
                    max_concurrent_requests = 5
                services = minio
                ca_bundle = ~/ca.pem
                [work]
                region = not-this-one
                [services minio]
                s3 =
                  endpoint_url = http://minio:9000
                dynamodb =
                  endpoint_url = http://elsewhere
                """,
            credentials: """
                [default]
                aws_access_key_id=FROMCREDENTIALS
                aws_secret_access_key=a/b+c=
                aws_session_token = t
                """)
        let standard = try AWSProfile.read(nil, environment)
        #expect(standard["region"] == "eu-west-1")
        #expect(standard["aws_access_key_id"] == "FROMCREDENTIALS")
        #expect(standard["aws_secret_access_key"] == "a/b+c=")
        #expect(standard.credentialsPath.hasSuffix("credentials"))
        let work = try AWSProfile.read("work", environment)
        #expect(work["region"] == "us-west-2")
        #expect(work.addressingStyle == "path")
        #expect(work.endpoint == "http://minio:9000")
        #expect(try AWSProfile.read("other", environment).exists == false)
    }

    @Test("What was said goes before the environment, and that before the profile")
    func precedence() throws {
        let config = """
            [profile p]
            region = profile-region
            endpoint_url = http://profile
            s3 =
              addressing_style = virtual
            ca_bundle = /profile.pem
            """
        func read(
            _ variables: [String: String], _ explicit: S3Configuration.Explicit = .init()
        ) throws -> S3Configuration {
            try S3Configuration.read(
                explicit,
                environment(
                    variables.merging(["AWS_PROFILE": "p"]) { $1 }, config: config))
        }
        let fromProfile = try read([:])
        #expect(fromProfile.region == "profile-region")
        #expect(fromProfile.endpoint?.description == "http://profile")
        #expect(fromProfile.style == .virtual)
        #expect(fromProfile.caFile == "/profile.pem")
        let fromEnvironment = try read([
            "AWS_REGION": "r1", "AWS_DEFAULT_REGION": "r2", "AWS_ENDPOINT_URL": "http://all",
            "AWS_ENDPOINT_URL_S3": "http://s3", "AWS_CA_BUNDLE": "/env.pem",
        ])
        #expect(fromEnvironment.region == "r1")
        #expect(fromEnvironment.endpoint?.description == "http://s3")
        #expect(fromEnvironment.caFile == "/env.pem")
        #expect(
            try read(["AWS_ENDPOINT_URL": "http://all"]).endpoint?.description == "http://all")
        #expect(try read(["AWS_DEFAULT_REGION": "r2"]).region == "r2")
        let ignoring = try read([
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL": "http://all",
        ])
        #expect(ignoring.endpoint == nil)
        var explicit = S3Configuration.Explicit()
        explicit.endpoint = "http://said"
        explicit.region = "said-region"
        explicit.style = .path
        let said = try read(["AWS_REGION": "r1", "AWS_ENDPOINT_URL_S3": "http://s3"], explicit)
        #expect(said.region == "said-region")
        #expect(said.endpoint?.description == "http://said")
        #expect(said.style == .path)
        let nothing = try S3Configuration.read(.init(), environment(["SSL_CERT_FILE": "/c.pem"]))
        #expect(nothing.region == "us-east-1")
        #expect(nothing.endpoint == nil)
        #expect(nothing.caFile == "/c.pem")
    }

    @Test("A file that is there and cannot be read is said to be so")
    func unreadable() {
        let environment = AWSEnvironment(variables: ["HOME": "/home/u"]) { path in
            path == "/home/u/.aws/config" ? .unreadable("Permission denied") : .missing
        }
        #expect(throws: StorageError.self) { try S3Configuration.read(.init(), environment) }
    }

    // MARK: - Where they come from

    @Test("Keys of the environment, of a profile and of a command are found")
    func sources() throws {
        let config = """
            [profile keys]
            aws_access_key_id = K
            aws_secret_access_key = S
            [profile command]
            credential_process = give-keys
            [profile empty]
            region = r
            """
        func find(
            _ variables: [String: String], profile: String? = nil
        ) throws -> S3Credentials? {
            var explicit = S3Configuration.Explicit()
            explicit.profile = profile
            var variables = variables
            variables["AWS_EC2_METADATA_DISABLED"] = "true"
            let environment = environment(variables, config: config)
            let surroundings = AWSSurroundings(
                environment: environment, engine: TransferEngine(),
                run: { line in
                    guard line == "give-keys" else { return .failure(AWSCommandFailure("what?")) }
                    return .success(
                        Array(
                            """
                            {"Version": 1, "AccessKeyId": "C", "SecretAccessKey": "CS",
                             "SessionToken": "CT", "Expiration": "2026-11-26T19:32:36Z"}
                            """.utf8))
                })
            return try S3Configuration.read(explicit, environment).credentials(surroundings).find()
        }
        let variables = [
            "AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "ES", "AWS_SESSION_TOKEN": "ET",
        ]
        let fromEnvironment = try find(variables.merging(["AWS_PROFILE": "keys"]) { $1 })
        #expect(fromEnvironment?.keyID == "E")
        #expect(fromEnvironment?.sessionToken == "ET")
        #expect(try find(variables, profile: "keys")?.keyID == "K")
        #expect(try find(["AWS_PROFILE": "keys"])?.secret == "S")
        let fromCommand = try find(["AWS_PROFILE": "command"])
        #expect(fromCommand?.keyID == "C")
        #expect(fromCommand?.sessionToken == "CT")
        #expect(fromCommand?.expiration == 1_795_721_556)
        #expect(try find([:]) == nil)
        #expect(try find(["AWS_PROFILE": "empty"]) == nil)
    }

    @Test(
        "What is half said is an error that names what is missing",
        arguments: [
            (["AWS_ACCESS_KEY_ID": "x"], "AWS_SECRET_ACCESS_KEY is not"),
            (["AWS_SECRET_ACCESS_KEY": "x"], "AWS_ACCESS_KEY_ID is not"),
            (["AWS_PROFILE": "none"], "no profile none"),
            (["AWS_PROFILE": "half"], "without its secret key"),
            (["AWS_PROFILE": "role"], "role_arn"),
            (["AWS_PROFILE": "failing"], "went wrong"),
            (["AWS_PROFILE": "prose"], "something else than JSON"),
            (["AWS_PROFILE": "old"], "another version"),
        ])
    func mistakes(variables: [String: String], cause: String) throws {
        let environment = environment(
            variables,
            config: """
                [profile half]
                aws_access_key_id = K
                [profile role]
                role_arn = arn:aws:iam::1:role/x
                source_profile = half
                [profile failing]
                credential_process = fail
                [profile prose]
                credential_process = talk
                [profile old]
                credential_process = old
                """)
        let surroundings = AWSSurroundings(environment: environment, engine: TransferEngine()) {
            line in
            switch line {
            case "talk": .success(Array("keys? which keys?".utf8))
            case "old": .success(Array(#"{"Version": 2}"#.utf8))
            default: .failure(AWSCommandFailure("it went wrong"))
            }
        }
        do throws(S3CredentialsError) {
            _ = try S3CredentialChain(sources: [
                S3EnvironmentCredentials(environment: environment),
                S3ProfileCredentials(name: nil, surroundings: surroundings),
            ]).find()
            Issue.record("they were found")
        } catch {
            #expect(error.cause.contains(cause))
            #expect(!error.hint.isEmpty)
        }
    }

    @Test("A container's credentials are asked for with its token")
    func container() throws {
        let server = ScriptedServer { request in
            guard request.target == "/creds", request["Authorization"] == "secret-token" else {
                return [.send(ScriptedServer.answer(403))]
            }
            return [.send(ScriptedServer.answer(200, [], S3CredentialTests.document))]
        }
        let directory = TemporaryDirectory.inMemory()
        directory.write(Array("secret-token\n".utf8), to: "token")
        let url = "\(server.url)/creds"
        for token in [
            ["AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret-token"],
            ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": directory.path("token")],
        ] {
            let found = try S3ContainerCredentials(
                surroundings: surroundings(
                    token.merging(["AWS_CONTAINER_CREDENTIALS_FULL_URI": url]) { $1 })
            ).find()
            #expect(found?.keyID == "D")
            #expect(found?.sessionToken == "DT")
        }
        #expect(throws: S3CredentialsError.self) {
            try S3ContainerCredentials(
                surroundings: surroundings(["AWS_CONTAINER_CREDENTIALS_FULL_URI": url])
            ).find()
        }
        // A token must not travel to a host elsewhere in the clear.
        for stranger in ["http://198.51.100.1/", "http://127.0.0.1.example.org/", "ftp://x/"] {
            #expect(throws: S3CredentialsError.self) {
                try S3ContainerCredentials(
                    surroundings: surroundings(["AWS_CONTAINER_CREDENTIALS_FULL_URI": stranger])
                ).find()
            }
        }
        #expect(try S3ContainerCredentials(surroundings: surroundings([:])).find() == nil)
    }

    @Test("A machine's credentials are asked for by a token of its metadata service")
    func instance() throws {
        let server = ScriptedServer { request in
            if request.method == "PUT" && request.target == "/latest/api/token" {
                let hasLifetime = request["x-aws-ec2-metadata-token-ttl-seconds"] != nil
                return [.send(ScriptedServer.answer(hasLifetime ? 200 : 400, [], "tok"))]
            }
            guard request["x-aws-ec2-metadata-token"] == "tok" else {
                return [.send(ScriptedServer.answer(401))]
            }
            switch request.target {
            case "/latest/meta-data/iam/security-credentials/":
                return [.send(ScriptedServer.answer(200, [], "backup-role\n"))]
            case "/latest/meta-data/iam/security-credentials/backup-role":
                return [.send(ScriptedServer.answer(200, [], S3CredentialTests.document))]
            default: return [.send(ScriptedServer.answer(404))]
            }
        }
        let service = ["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url + "/"]
        let found = try S3InstanceCredentials(surroundings: surroundings(service)).find()
        #expect(found?.keyID == "D")
        #expect(found?.origin.contains("backup-role") == true)
        let disabled = service.merging(["AWS_EC2_METADATA_DISABLED": "true"]) { $1 }
        #expect(try S3InstanceCredentials(surroundings: surroundings(disabled)).find() == nil)
        // Nobody there: this is no such machine.
        let gone = ["AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"]
        #expect(try S3InstanceCredentials(surroundings: surroundings(gone)).find() == nil)
    }

    // MARK: - Keeping them

    @Test("Credentials are fetched once, and anew before they end")
    func renewal() throws {
        let clock = Mutex<Int64>(1_000)
        let source = CountingSource { number in
            S3Credentials(
                keyID: "\(number)", secret: "s", expiration: clock.withLock { $0 } + 3_600,
                origin: "test")
        }
        let keeper = S3CredentialKeeper(source) { clock.withLock { $0 } }
        for _ in 0..<3 { #expect(try keeper.credentials().keyID == "1") }
        clock.withLock { $0 += 3_600 - S3CredentialKeeper.marginSeconds - 1 }
        #expect(try keeper.credentials().keyID == "1")
        clock.withLock { $0 += 1 }
        #expect(try keeper.credentials().keyID == "2")
        #expect(source.calls == 2)
    }

    @Test("Where no new ones can be had, the old ones serve until their end")
    func renewalFails() throws {
        let clock = Mutex<Int64>(1_000)
        let source = CountingSource { number in
            guard number == 1 else { return nil }
            return S3Credentials(keyID: "1", secret: "s", expiration: 2_000, origin: "test")
        }
        let keeper = S3CredentialKeeper(source) { clock.withLock { $0 } }
        #expect(try keeper.credentials().keyID == "1")
        clock.withLock { $0 = 1_990 }
        #expect(try keeper.credentials().keyID == "1")
        clock.withLock { $0 = 2_001 }
        #expect(throws: S3CredentialsError.self) { try keeper.credentials() }
    }

    @Test("Of many threads whose credentials were refused, one fetches new ones")
    func refresh() throws {
        let source = CountingSource { number in
            usleep(2_000)
            return S3Credentials(keyID: "\(number)", secret: "s", origin: "test")
        }
        let keeper = S3CredentialKeeper(source) { 0 }
        let old = try keeper.credentials()
        runOnThreads(8) { _ in
            #expect((try? keeper.refresh(replacing: old))?.keyID == "2")
        }
        #expect(source.calls == 2)
    }

    // MARK: - Helpers

    private static let document = """
        {"Code": "Success", "AccessKeyId": "D", "SecretAccessKey": "DS", "Token": "DT",
         "Expiration": "2026-11-26T19:32:36Z"}
        """

    private func environment(
        _ variables: [String: String] = [:], config: String = "", credentials: String = ""
    ) -> AWSEnvironment {
        AWSEnvironment(variables: variables.merging(["HOME": "/home/u"]) { $1 }) { path in
            switch path {
            case "/home/u/.aws/config": .bytes(Array(config.utf8))
            case "/home/u/.aws/credentials": .bytes(Array(credentials.utf8))
            default: .missing
            }
        }
    }

    private func surroundings(_ variables: [String: String]) -> AWSSurroundings {
        AWSSurroundings(
            environment: AWSEnvironment(variables: variables), engine: TransferEngine(),
            run: { _ in .failure(AWSCommandFailure("there are no commands here")) })
    }
}

/// Gives what a test wants, and counts how often it was asked.
private final class CountingSource: S3CredentialSource {
    private let count = Atomic<Int>(0)
    private let give: @Sendable (Int) -> S3Credentials?

    init(_ give: @escaping @Sendable (Int) -> S3Credentials?) { self.give = give }

    var calls: Int { count.load(ordering: .relaxed) }

    func find() throws(S3CredentialsError) -> S3Credentials? {
        give(count.add(1, ordering: .relaxed).newValue)
    }
}
