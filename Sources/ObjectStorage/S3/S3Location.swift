/// Where a store in S3 is: a bucket, a prefix in it, and the service that keeps it.
package struct S3Location: Sendable, Equatable {
    /// How an address names the bucket.
    package enum Style: String, Sendable, CaseIterable {
        /// `https://endpoint/bucket/key`
        case path
        /// `https://bucket.endpoint/key`
        case virtual
        /// `virtual` at Amazon where the bucket's name allows it, `path` everywhere else.
        case auto
    }

    package let bucket: String
    /// Empty, or ends with a slash.
    package let prefix: String
    /// Nil for Amazon's own in the region.
    package var endpoint: S3Endpoint?
    package var region: String
    package var style: Style

    /// - Parameter prefix: With or without slashes at either end.
    /// - Throws: `.unsupported` for a bucket or a prefix that no service can keep.
    package init(
        bucket: String, prefix: String = "", endpoint: S3Endpoint? = nil,
        region: String = S3Location.defaultRegion, style: Style = .auto
    ) throws(StorageError) {
        let shown = S3Location.text(bucket, prefix)
        guard S3Location.isLegal(bucket: bucket) else {
            throw S3Location.refusal(
                shown, "\"\(bucket)\" is no name of a bucket",
                hint: "write s3://BUCKET/PREFIX; a bucket is named by letters, digits, dots and"
                    + " hyphens")
        }
        var components = prefix.split(separator: "/", omittingEmptySubsequences: false)[...]
        while components.first?.isEmpty == true { components = components.dropFirst() }
        while components.last?.isEmpty == true { components = components.dropLast() }
        guard !components.contains("."), !components.contains(".."),
            !prefix.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f })
        else {
            throw S3Location.refusal(
                shown, "the prefix has a component . or .. or a control character in it",
                hint: "choose a prefix without them: services and tools disagree on what they mean")
        }
        guard S3Location.isLegal(region: region) else {
            throw S3Location.refusal(
                shown, "\"\(region)\" is no name of a region",
                hint: "a region is named like eu-central-1; any word will do for most other"
                    + " services")
        }
        self.bucket = bucket
        self.prefix = components.isEmpty ? "" : components.joined(separator: "/") + "/"
        self.endpoint = endpoint
        self.region = region
        self.style = style
    }

    /// Reads `s3://bucket/prefix`.
    package static func parse(
        _ text: String, endpoint: S3Endpoint? = nil, region: String = defaultRegion,
        style: Style = .auto
    ) throws(StorageError) -> S3Location {
        guard text.lowercased().hasPrefix("s3://") else {
            throw refusal(
                text, "that is no address in S3", hint: "write s3://BUCKET or s3://BUCKET/PREFIX")
        }
        let rest = text.dropFirst("s3://".count)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        return try S3Location(
            bucket: String(rest[..<slash]), prefix: String(rest[slash...]), endpoint: endpoint,
            region: region, style: style)
    }

    /// As its user would write it.
    package var text: String { S3Location.text(bucket, prefix) }

    /// The same bucket, asked for in another region. An endpoint of Amazon's belongs to one region
    /// and is left with it.
    func moved(to region: String) -> S3Location {
        var moved = self
        moved.region = region
        if endpoint?.isAmazon == true { moved.endpoint = nil }
        return moved
    }

    /// The endpoint in force.
    var service: S3Endpoint { endpoint ?? S3Endpoint.amazon(region: region) }

    /// Host and path of an address: of the object named by the whole `key`, or of the bucket.
    func address(of key: String?) -> (host: String, path: String) {
        let service = service
        let encodedKey = key.map { URLText.encoded($0, keepsSlash: true) } ?? ""
        if isVirtual(at: service) {
            return ("\(bucket).\(service.authority)", "\(service.path)/\(encodedKey)")
        }
        let separator = key == nil ? "" : "/"
        return (service.authority, "\(service.path)/\(bucket)\(separator)\(encodedKey)")
    }

    private func isVirtual(at service: S3Endpoint) -> Bool {
        switch style {
        case .path: false
        case .virtual: true
        // A dot in the name would need a certificate for two levels below the endpoint.
        case .auto:
            service.isAmazon && !bucket.utf8.contains(UInt8(ascii: "."))
                && bucket == bucket.lowercased() && !bucket.utf8.contains(UInt8(ascii: "_"))
        }
    }

    package static let defaultRegion = "us-east-1"

    private static func text(_ bucket: String, _ prefix: String) -> String {
        let trimmed = prefix.hasSuffix("/") ? String(prefix.dropLast()) : prefix
        let separator = trimmed.isEmpty || trimmed.hasPrefix("/") ? "" : "/"
        return "s3://\(bucket)\(separator)\(trimmed)"
    }

    /// What services accept, old buckets with capitals and underscores included.
    private static func isLegal(bucket: String) -> Bool {
        let characters = bucket.utf8
        let isMade = characters.allSatisfy { byte in
            isAlphanumeric(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "-")
                || byte == UInt8(ascii: "_")
        }
        return (1...255).contains(characters.count) && isMade && bucket != "." && bucket != ".."
    }

    static func isLegal(region: String) -> Bool {
        !region.isEmpty && region.utf8.count <= 64
            && region.utf8.allSatisfy { isAlphanumeric($0) || $0 == 0x2d || $0 == 0x5f }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }

    private static func refusal(_ location: String, _ cause: String, hint: String) -> StorageError {
        StorageError(.unsupported, .open, location: location, cause: cause, hint: hint)
    }
}

/// The address of a service that speaks S3.
package struct S3Endpoint: Sendable, Equatable, CustomStringConvertible {
    package let isSecure: Bool
    /// Host and, where it is not the usual one, port.
    package let authority: String
    /// Empty, or begins with a slash and does not end with one.
    package let path: String

    /// Reads `https://host[:port][/path]`; without a scheme it is `https`.
    ///
    /// - Throws: `.unsupported` for anything else.
    package init(_ text: String) throws(StorageError) {
        var rest = text[...]
        var isSecure = true
        if let scheme = text.firstRange(of: "://") {
            switch text[..<scheme.lowerBound].lowercased() {
            case "https": isSecure = true
            case "http": isSecure = false
            default: throw S3Endpoint.refusal(text, "its scheme is neither https nor http")
            }
            rest = text[scheme.upperBound...]
        }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let authority = rest[..<slash].lowercased()
        let isPlain = authority.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ":"),
                UInt8(ascii: "["), UInt8(ascii: "]"):
                true
            default: false
            }
        }
        guard !authority.isEmpty, isPlain else {
            throw S3Endpoint.refusal(
                text, authority.contains("@") ? "it holds a user name" : "it names no host")
        }
        var path = rest[slash...]
        while path.hasSuffix("/") { path = path.dropLast() }
        guard path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }), !path.contains("?"),
            !path.contains("#")
        else { throw S3Endpoint.refusal(text, "there is a query or an odd character in it") }
        self.isSecure = isSecure
        // The port that the scheme implies is left out of `Host`, and so out of what is signed.
        let implied = isSecure ? ":443" : ":80"
        self.authority =
            authority.hasSuffix(implied) ? String(authority.dropLast(implied.count)) : authority
        self.path = String(path)
    }

    private init(amazonHost: String) {
        isSecure = true
        authority = amazonHost
        path = ""
    }

    /// Amazon's own service in a region.
    static func amazon(region: String) -> S3Endpoint {
        let domain = region.hasPrefix("cn-") ? "amazonaws.com.cn" : "amazonaws.com"
        return S3Endpoint(amazonHost: "s3.\(region).\(domain)")
    }

    var isAmazon: Bool {
        authority.hasSuffix(".amazonaws.com") || authority.hasSuffix(".amazonaws.com.cn")
    }

    package var description: String { "\(isSecure ? "https" : "http")://\(authority)\(path)" }

    private static func refusal(_ text: String, _ cause: String) -> StorageError {
        StorageError(
            .unsupported, .open, location: text, cause: cause,
            hint: "write the endpoint as https://HOST or http://HOST:PORT")
    }
}
