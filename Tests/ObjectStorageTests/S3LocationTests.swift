import Testing

@testable import ObjectStorage

@Suite("Where a bucket is")
struct S3LocationTests {
    @Test(
        "An address has a bucket, and perhaps a prefix",
        arguments: [
            ("s3://bucket", "bucket", ""), ("s3://bucket/", "bucket", ""),
            ("S3://bucket/a", "bucket", "a/"), ("s3://bucket/a/b//", "bucket", "a/b/"),
            ("s3://bucket//a//b", "bucket", "a//b/"),
            ("s3://my.bucket_1/\u{e9} +", "my.bucket_1", "\u{e9} +/"),
        ])
    func parsing(text: String, bucket: String, prefix: String) throws {
        let location = try S3Location.parse(text)
        #expect(location.bucket == bucket)
        #expect(location.prefix == prefix)
    }

    @Test(
        "What can be no bucket or prefix is refused in words",
        arguments: [
            "s3://", "s3:///a", "s3://a b", "s3://a%20", "s3://..", "s3://user@host/x", "bucket",
            "https://bucket", "s3://b/a/../c", "s3://b/./a", "s3://b/a\nb",
        ])
    func refusals(text: String) {
        #expect(throws: StorageError.self) { try S3Location.parse(text) }
    }

    @Test(
        "An endpoint is a scheme, a host, and perhaps a port and a path",
        arguments: [
            ("https://s3.example.org", "https://s3.example.org"),
            ("s3.example.org", "https://s3.example.org"),
            ("HTTP://LocalHost:9000/", "http://localhost:9000"),
            ("https://h:443/a/b//", "https://h/a/b"), ("http://h:80", "http://h"),
            ("https://h:80", "https://h:80"), ("http://[::1]:9000", "http://[::1]:9000"),
        ])
    func endpoints(text: String, expected: String) throws {
        #expect(try S3Endpoint(text).description == expected)
    }

    @Test(
        "What is no endpoint is refused",
        arguments: [
            "", "ftp://h", "https://", "https://user:pass@h", "https://h?x", "https://h/a b", "h h",
        ])
    func badEndpoints(text: String) {
        #expect(throws: StorageError.self) { try S3Endpoint(text) }
    }

    @Test("A bucket is named in the path or before the host, as the service wants it")
    func styles() throws {
        func address(
            _ bucket: String, _ style: S3Location.Style, _ endpoint: String?, _ region: String
        ) throws -> String {
            let location = try S3Location(
                bucket: bucket, prefix: "p", endpoint: endpoint.map { try S3Endpoint($0) },
                region: region, style: style)
            let (host, path) = location.address(of: "p/a b")
            let (bucketHost, bucketPath) = location.address(of: nil)
            return "\(host)\(path) \(bucketHost)\(bucketPath)"
        }
        #expect(
            try address("b", .auto, nil, "eu-central-1")
                == "b.s3.eu-central-1.amazonaws.com/p/a%20b b.s3.eu-central-1.amazonaws.com/")
        #expect(
            try address("b.c", .auto, nil, "eu-central-1")
                == "s3.eu-central-1.amazonaws.com/b.c/p/a%20b s3.eu-central-1.amazonaws.com/b.c")
        #expect(
            try address("b", .auto, nil, "cn-north-1")
                == "b.s3.cn-north-1.amazonaws.com.cn/p/a%20b b.s3.cn-north-1.amazonaws.com.cn/")
        #expect(
            try address("b", .auto, "http://h:1/x", "r") == "h:1/x/b/p/a%20b h:1/x/b")
        #expect(
            try address("b", .virtual, "http://h:1", "r") == "b.h:1/p/a%20b b.h:1/")
        #expect(
            try address("b", .path, nil, "us-east-1")
                == "s3.us-east-1.amazonaws.com/b/p/a%20b s3.us-east-1.amazonaws.com/b")
    }

    @Test("A bucket that is elsewhere is asked for there, at the endpoint that was given")
    func moving() throws {
        let amazon = try S3Location(
            bucket: "b", endpoint: S3Endpoint("https://s3.us-east-1.amazonaws.com"))
        #expect(
            amazon.moved(to: "eu-west-1").address(of: nil).host == "b.s3.eu-west-1.amazonaws.com")
        let other = try S3Location(bucket: "b", endpoint: S3Endpoint("http://h:1"))
        #expect(other.moved(to: "eu-west-1").address(of: nil).host == "h:1")
        #expect(other.moved(to: "eu-west-1").region == "eu-west-1")
    }

    @Test("What was found out is written and read again")
    func traits() {
        var traits = S3Traits()
        #expect(traits.text == "")
        #expect(S3Traits(text: "") == traits)
        traits.conditionalPut = true
        traits.keepsSHA256 = true
        traits.listingShowsMD5 = true
        traits.versioning = true
        traits.objectLock = false
        traits.region = "eu-west-1"
        #expect(S3Traits(text: traits.text) == traits)
        #expect(S3Traits(text: traits.text + " something-new=5") == traits)
        traits.objectLock = true
        #expect(S3Traits(text: traits.text).objectLock == true)
    }

    @Test("The class of storage is that of the longest beginning that fits")
    func storageClasses() {
        var options = S3Options()
        #expect(options.storageClass(of: ObjectKey(validated: "bundles/a")) == nil)
        options.storageClasses = ["bundles/": "GLACIER_IR", "": "STANDARD", "bundles/00/": "X"]
        #expect(options.storageClass(of: ObjectKey(validated: "bundles/ab/c")) == "GLACIER_IR")
        #expect(options.storageClass(of: ObjectKey(validated: "bundles/00/c")) == "X")
        #expect(options.storageClass(of: ObjectKey(validated: "index/a")) == "STANDARD")
    }
}
