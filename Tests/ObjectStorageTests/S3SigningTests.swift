import Crypto
import Glibc
import SnapshotModel
import TestSupport
import Testing

@testable import ObjectStorage

@Suite("Signing of requests")
struct S3SigningTests {
    // MARK: - Published examples

    /// The cases of the signing test suite that Amazon publishes with its SDKs (aws-c-auth,
    /// tests/aws-signing-test-suite/v4, Apache-2.0) in which the path is signed as it is sent.
    struct SuiteCase: Sendable, CustomStringConvertible {
        let name: String
        var path = "/"
        var query: [(name: String, value: String)] = []
        var headers: [(name: String, value: String)] = []
        let signature: String
        var description: String { name }
    }

    static let suite: [SuiteCase] = [
        SuiteCase(
            name: "get-header-key-duplicate",
            headers: [
                ("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1"),
            ], signature: "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"),
        SuiteCase(
            name: "get-header-value-trim",
            headers: [("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
            signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"),
        SuiteCase(
            name: "get-vanilla-with-session-token",
            headers: [
                (
                    "X-Amz-Security-Token",
                    "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
                )
            ], signature: "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"),
        SuiteCase(
            name: "get-vanilla-utf8-query", query: [("\u{1234}", "bar")],
            signature: "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        SuiteCase(
            name: "get-vanilla-query-order-key-case",
            query: [("Param2", "value2"), ("Param1", "value1")],
            signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        SuiteCase(
            name: "get-vanilla-query-unreserved", query: [(unreserved, unreserved)],
            signature: "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"),
        SuiteCase(
            name: "get-slashes-unnormalized", path: "//example//",
            signature: "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5"),
        SuiteCase(
            name: "get-relative-unnormalized", path: "/example/..",
            signature: "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282"),
        SuiteCase(
            name: "get-utf8", path: "/\u{1234}",
            signature: "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    ]

    private static let unreserved =
        "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

    @Test("The signing test suite that Amazon publishes", arguments: suite)
    func publishedSuite(example: SuiteCase) {
        let signer = RequestSigner(service: "service")
        let time = "20150830T123600Z"
        let authorization = signer.authorization(
            for: RequestSigner.Request(
                method: "GET", path: URLText.encoded(example.path, keepsSlash: true),
                query: example.query,
                headers: example.headers + [
                    ("Host", "example.amazonaws.com"), ("X-Amz-Date", time),
                ], payloadHash: sha256Hex([])),
            keyID: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1", time: time)
        #expect(authorization.hasSuffix("Signature=\(example.signature)"))
        #expect(
            authorization.hasPrefix(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            ))
    }

    /// "Examples: Signature calculations in AWS Signature Version 4" of the Amazon S3 API reference.
    struct ServiceCase: Sendable, CustomStringConvertible {
        let name: String
        let method: String
        let path: String
        var query: [(name: String, value: String)] = []
        var headers: [(name: String, value: String)] = []
        var body = ""
        let signedHeaders: String
        let signature: String
        var description: String { name }
    }

    @Test(
        "The examples of the service's own reference",
        arguments: [
            ServiceCase(
                name: "GET object", method: "GET", path: "/test.txt",
                headers: [("Range", "bytes=0-9")],
                signedHeaders: "host;range;x-amz-content-sha256;x-amz-date",
                signature: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            ServiceCase(
                name: "PUT object", method: "PUT", path: "/test$file.text",
                headers: [
                    ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ], body: "Welcome to Amazon S3.",
                signedHeaders: "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
            ServiceCase(
                name: "GET bucket lifecycle", method: "GET", path: "/", query: [("lifecycle", "")],
                signedHeaders: "host;x-amz-content-sha256;x-amz-date",
                signature: "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ServiceCase(
                name: "GET bucket", method: "GET", path: "/",
                query: [("max-keys", "2"), ("prefix", "J")],
                signedHeaders: "host;x-amz-content-sha256;x-amz-date",
                signature: "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ])
    func publishedExamples(example: ServiceCase) {
        let time = "20130524T000000Z"
        let payloadHash = sha256Hex(Array(example.body.utf8))
        let authorization = RequestSigner().authorization(
            for: RequestSigner.Request(
                method: example.method, path: URLText.encoded(example.path, keepsSlash: true),
                query: example.query,
                headers: example.headers + [
                    ("Host", "examplebucket.s3.amazonaws.com"), ("x-amz-date", time),
                    ("x-amz-content-sha256", payloadHash),
                ], payloadHash: payloadHash),
            keyID: "AKIAIOSFODNN7EXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region: "us-east-1", time: time)
        #expect(authorization.hasSuffix("Signature=\(example.signature)"))
        #expect(authorization.contains("SignedHeaders=\(example.signedHeaders),"))
    }

    // MARK: - Another signer

    @Test("Whatever the request, botocore signs it alike", arguments: 0..<4)
    func botocore(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let requests = (0..<100).map { _ in OddRequest(&generator) }
        let lines = try Botocore.sign(requests.map(\.document))
        #expect(lines.count == requests.count)
        let signer = RequestSigner()
        for (request, line) in zip(requests, lines) {
            #expect(line["url"]?.string == request.url, "seed \(seed)")
            #expect(
                line["authorization"]?.string == request.authorization(signer),
                "seed \(seed): \(request.document.text)")
        }
    }

    @Test("The key of the day is made anew when anything of it changes")
    func dayKey() {
        let signer = RequestSigner()
        let request = RequestSigner.Request(method: "GET", path: "/", payloadHash: sha256Hex([]))
        func sign(
            secret: String = "s", region: String = "r", time: String = "20260101T000000Z",
            with signer: RequestSigner = RequestSigner()
        ) -> String {
            signer.authorization(
                for: request, keyID: "k", secret: secret, region: region, time: time)
        }
        let variants: [(String, String, String)] = [
            ("s", "r", "20260101T000000Z"), ("s", "r", "20260102T000000Z"),
            ("t", "r", "20260102T000000Z"), ("t", "q", "20260102T000000Z"),
            ("s", "r", "20260101T000000Z"),
        ]
        for (secret, region, time) in variants {
            #expect(
                sign(secret: secret, region: region, time: time, with: signer)
                    == sign(secret: secret, region: region, time: time))
        }
    }
}

/// A request such as nobody sends, and every service must understand.
private struct OddRequest {
    let method: String
    let bucket = "bucket"
    let key: String?
    let query: [(name: String, value: String)]
    let headers: [(name: String, value: String)]
    let body: [UInt8]
    let region: String
    let keyID = "AKIDEXAMPLE"
    let secret: String
    let token: String?
    let time: String

    private static let endpoint = "http://127.0.0.1:9000"
    private static let pieces = [
        "a", "Z", "0", "/", "//", ".", "..", " ", "  ", "+", "%", "%2F", "&", "=", "?", "#", "~",
        "-",
        "_", "'", "\"", "*", "(", ")", "!", "@", ":", ";", ",", "$", "|", "\\", "^", "`", "{", "}",
        "<",
        ">", "é", "ß", "日本", "😀", "\u{301}", "\t", "\n", "\u{7f}",
    ]

    init(_ generator: inout SeededGenerator) {
        func text(_ count: Int, from pieces: [String] = OddRequest.pieces) -> String {
            (0..<count).map { _ in pieces.randomElement(using: &generator) ?? "" }.joined()
        }
        method = ["GET", "PUT", "HEAD", "DELETE", "POST"].randomElement(using: &generator) ?? "GET"
        let isOfBucket = Int.random(in: 0..<5, using: &generator) == 0
        key = isOfBucket ? nil : text(Int.random(in: 1..<12, using: &generator))
        query = (0..<Int.random(in: 0..<4, using: &generator)).map { index in
            // A name twice would leave botocore no order of its own.
            ("\(text(Int.random(in: 0..<3, using: &generator)))\(index)", text(index * 2))
        }
        let blanks = ["a", "B", " ", "  ", "\"", "=", ";", ","]
        headers = (0..<Int.random(in: 0..<4, using: &generator)).map { index in
            ("X-Amz-Meta-\(index)", "x" + text(index * 3, from: blanks) + "x")
        }
        body = (0..<Int.random(in: 0..<50, using: &generator)).map { _ in
            UInt8.random(in: 0...255, using: &generator)
        }
        region =
            ["us-east-1", "eu-central-1", "auto", "garage"].randomElement(using: &generator) ?? ""
        secret = text(10, from: ["a", "/", "+", "=", "é"])
        token = Bool.random(using: &generator) ? text(20, from: ["a", "/", "+", "="]) : nil
        let seconds = Int64.random(in: 0..<4_000_000_000, using: &generator)
        time = Timestamp(seconds: seconds).compactUTC
    }

    private var path: String {
        "/\(bucket)" + (key.map { "/" + URLText.encoded($0, keepsSlash: true) } ?? "")
    }

    var url: String {
        let encoded = query.map { "\(URLText.encoded($0.name))=\(URLText.encoded($0.value))" }
        return OddRequest.endpoint + path
            + (encoded.isEmpty ? "" : "?" + encoded.joined(separator: "&"))
    }

    func authorization(_ signer: RequestSigner) -> String {
        let payloadHash = sha256Hex(body)
        var headers =
            headers + [
                ("host", "127.0.0.1:9000"), ("x-amz-date", time),
                ("x-amz-content-sha256", payloadHash),
            ]
        if let token { headers.append(("x-amz-security-token", token)) }
        return signer.authorization(
            for: RequestSigner.Request(
                method: method, path: path, query: query, headers: headers,
                payloadHash: payloadHash), keyID: keyID, secret: secret, region: region, time: time)
    }

    var document: JSONValue {
        func pairs(_ pairs: [(name: String, value: String)]) -> JSONValue {
            .array(pairs.map { .array([.string($0.name), .string($0.value)]) })
        }
        return .object([
            ("method", .string(method)), ("endpoint", .string(OddRequest.endpoint)),
            ("bucket", .string(bucket)), ("key", key.map { .string($0) } ?? .null),
            ("query", pairs(query)), ("headers", pairs(headers)),
            ("body", .string(Hex.text(body))), ("region", .string(region)),
            ("key_id", .string(keyID)), ("secret", .string(secret)),
            ("token", token.map { .string($0) } ?? .null), ("time", .string(time)),
        ])
    }
}

/// The signer of the Python SDK, in a process of its own.
private enum Botocore {
    /// The tree that this file belongs to, wherever a link to it lies.
    private static let root: String = {
        guard let resolved = realpath(#filePath, nil) else { return "." }
        defer { free(resolved) }
        return String(cString: resolved).split(separator: "/").dropLast(3).reduce("") {
            $0 + "/" + $1
        }
    }()

    static func sign(_ requests: [JSONValue]) throws -> [JSONValue] {
        let python = "\(root)/.build/venv-test/bin/python"
        guard access(python, X_OK) == 0 else {
            try Test.cancel("botocore is not installed: scripts/install-dependencies.sh test")
        }
        let directory = TemporaryDirectory.inMemory()
        directory.write(Array(requests.map { $0.text + "\n" }.joined().utf8), to: "in")
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, directory.path("in"), O_RDONLY, 0)
        posix_spawn_file_actions_addopen(
            &actions, 1, directory.path("out"), O_CREAT | O_WRONLY, 0o600)
        let script = "\(root)/Tests/ObjectStorageTests/Fixtures/sign_with_botocore.py"
        var words: [UnsafeMutablePointer<CChar>?] =
            [python, "-B", script].map { (word: String) in strdup(word) } + [nil]
        defer { for word in words { free(word) } }
        var process = pid_t()
        #expect(posix_spawn(&process, python, &actions, nil, &words, environ) == 0)
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        #expect(status == 0)
        return (directory.read("out") ?? []).split(separator: UInt8(ascii: "\n"))
            .compactMap { JSONValue(parsing: Array($0)) }
    }
}
