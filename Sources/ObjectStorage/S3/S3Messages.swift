import SnapshotModel

/// What S3 says in XML, and what is said to it.
///
/// Each reading tolerates elements that it does not know and refuses a document that is not well
/// formed or not the one expected.
enum S3Messages {
    /// One page of ListObjectsV2.
    struct ListPage {
        struct Object {
            var key = ""
            var length: Int?
            var modified: Int64?
            var eTag: String?
        }

        var objects: [Object] = []
        var isTruncated = false
        var continuation: String?
        var isEncoded = false
    }

    /// The body of an answer that says no.
    struct Failure: Equatable {
        var code = ""
        var message = ""
        /// Elements that only some codes have, such as `Region` or `ServerTime`.
        var details: [String: String] = [:]
    }

    /// What DeleteObjects could not delete.
    struct DeleteFailure {
        var key = ""
        var code = ""
        var message = ""
    }

    // MARK: - Reading

    static func listPage(_ bytes: [UInt8]) throws(XMLReader.Malformed) -> ListPage {
        var page = ListPage()
        var object = ListPage.Object()
        try read(bytes, root: "ListBucketResult") { path, text in
            guard path.first == "Contents" else {
                switch path {
                case ["IsTruncated"]: page.isTruncated = text == "true"
                case ["NextContinuationToken"]: page.continuation = text
                case ["EncodingType"]: page.isEncoded = text.lowercased() == "url"
                default: break
                }
                return
            }
            if path.count == 1 {
                page.objects.append(object)
                object = ListPage.Object()
                return
            }
            guard path.count == 2 else { return }
            switch path[1] {
            case "Key": object.key = text
            case "Size": object.length = Int(text)
            case "LastModified": object.modified = StoreTime.seconds(iso8601: text)
            case "ETag": object.eTag = text
            default: break
            }
        }
        if page.isEncoded {
            for index in page.objects.indices {
                guard let key = URLText.decoded(page.objects[index].key) else {
                    throw XMLReader.Malformed(what: "a key that is not encoded", offset: 0)
                }
                page.objects[index].key = key
            }
        }
        return page
    }

    /// Nil where the body is no error document, as from a proxy that answers with a page.
    static func failure(_ bytes: [UInt8]) -> Failure? {
        var failure = Failure()
        let isRead: Void? = try? read(bytes, root: "Error") { path, text in
            guard path.count == 1 else { return }
            switch path[0] {
            case "Code": failure.code = text
            case "Message": failure.message = text
            default: failure.details[path[0]] = text
            }
        }
        return isRead != nil && !failure.code.isEmpty ? failure : nil
    }

    static func deleteFailures(_ bytes: [UInt8]) throws(XMLReader.Malformed) -> [DeleteFailure] {
        var failures: [DeleteFailure] = []
        var failure = DeleteFailure()
        try read(bytes, root: "DeleteResult") { path, text in
            guard path.first == "Error" else { return }
            if path.count == 1 {
                failures.append(failure)
                failure = DeleteFailure()
                return
            }
            switch path[1] {
            case "Key": failure.key = text
            case "Code": failure.code = text
            case "Message": failure.message = text
            default: break
            }
        }
        return failures
    }

    /// Whether the bucket keeps what a retention protects.
    static func isObjectLockEnabled(_ bytes: [UInt8]) throws(XMLReader.Malformed) -> Bool {
        var isEnabled = false
        try read(bytes, root: "ObjectLockConfiguration") { path, text in
            if path == ["ObjectLockEnabled"] { isEnabled = text == "Enabled" }
        }
        return isEnabled
    }

    /// Whether the bucket keeps a version of each object that is deleted from now on.
    static func isVersioningEnabled(_ bytes: [UInt8]) throws(XMLReader.Malformed) -> Bool {
        var isEnabled = false
        try read(bytes, root: "VersioningConfiguration") { path, text in
            if path == ["Status"] { isEnabled = text == "Enabled" }
        }
        return isEnabled
    }

    /// Calls `body` at the end of each element below the root with its path below the root and the
    /// text that stands directly in it.
    private static func read(
        _ bytes: [UInt8], root: String, _ body: (_ path: [String], _ text: String) -> Void
    ) throws(XMLReader.Malformed) {
        var reader = XMLReader(bytes)
        var path: [String] = []
        var texts: [String] = []
        while true {
            switch try reader.next() {
            case .start(let name):
                if path.isEmpty && name != root {
                    throw XMLReader.Malformed(what: "\(name) where \(root) belongs", offset: 0)
                }
                path.append(name)
                texts.append("")
            case .text(let text):
                texts[texts.count - 1] += text
            case .end:
                let text = texts.removeLast()
                if path.count > 1 { body(Array(path.dropFirst()), text) }
                path.removeLast()
            case .finish:
                return
            }
        }
    }

    // MARK: - Writing

    /// The request of DeleteObjects; asks to be told of failures only.
    static func deletion(of keys: some Sequence<String>) -> [UInt8] {
        var text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
        text += "<Delete xmlns=\"\(namespace)\"><Quiet>true</Quiet>"
        for key in keys { text += "<Object><Key>\(escaped(key))</Key></Object>" }
        return Array((text + "</Delete>").utf8)
    }

    /// The request of CreateBucket where the region has to be named.
    static func bucketConfiguration(region: String) -> [UInt8] {
        Array(
            ("<CreateBucketConfiguration xmlns=\"\(namespace)\"><LocationConstraint>"
                + "\(escaped(region))</LocationConstraint></CreateBucketConfiguration>").utf8)
    }

    private static let namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

    private static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "\r", "\n", "\t": result += "&#\(scalar.value);"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
