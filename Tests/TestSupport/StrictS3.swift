/// The S3 server of our own: stricter than Amazon's, and it fails when told to.
package final class StrictS3: Sendable {
    package let server: TestServer

    /// One request, as the server saw it.
    package struct Request: Sendable {
        /// S3's name of it, such as `PutObject`; `-` where it asked for nothing that there is.
        package let operation: String
        package let method: String
        package let bucket: String
        /// As it stood in the URL, percent-encoded; `-` where there was none.
        package let key: String
        /// As it stood in the URL; `-` where there was none.
        package let query: String
        /// 0 where it got no answer.
        package let status: Int
        /// S3's error code, or nil.
        package let code: String?
        package let bodyBytesReceived: Int
        package let bodyBytesSent: Int
        /// Connections are numbered from 1.
        package let connection: Int
        /// The rule that it met, or nil.
        package let rule: String?
        /// Names in lower case; only those that ask for something, not what signs it.
        package let headers: [String: String]

        init?(line: String) {
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
                .map(String.init)
            guard fields.count == 12, let status = Int(fields[5]), let received = Int(fields[7]),
                let sent = Int(fields[8]), let connection = Int(fields[9])
            else { return nil }
            operation = fields[0]
            method = fields[1]
            bucket = fields[2]
            key = fields[3]
            query = fields[4]
            self.status = status
            code = fields[6] == "-" ? nil : fields[6]
            bodyBytesReceived = received
            bodyBytesSent = sent
            self.connection = connection
            rule = fields[10] == "-" ? nil : fields[10]
            var headers: [String: String] = [:]
            for pair in fields[11].split(separator: "&") where pair != "-" {
                let parts = pair.split(
                    separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                headers[percentDecoded(parts[0])] = percentDecoded(parts[1])
            }
            self.headers = headers
        }
    }

    /// - Parameter options: Those of `s3-strict.py`, such as `--tls` or `--region eu-central-1`.
    /// - Parameter bucket: Is there from the beginning.
    package init(_ options: [String] = [], bucket: String? = "test") throws {
        server = try TestServer(.strictS3, options + (bucket.map { ["--bucket", $0] } ?? []))
    }

    /// One that was started as a server among others.
    package init(_ server: TestServer) {
        precondition(server.kind == .strictS3)
        self.server = server
    }

    package subscript(name: String) -> String { server[name] }

    /// The requests since the last `reset`, in the order in which they were answered.
    package func log() -> [Request] {
        server.tell("log").map { line in
            guard let request = Request(line: line) else { preconditionFailure("no log: \(line)") }
            return request
        }
    }

    /// Empties the log.
    package func reset() { server.tell("reset") }

    /// From now on these rules are in force, and no others; see `scripts/servers/faults.py`.
    package func fail(_ rules: String...) { server.tell(["rules"] + rules) }

    /// How often each rule in force has happened, in their order.
    package func fired() -> [Int] { counts(server.tell("fired")) }

    /// From now on these actions are denied, and no others: `s3:PutObject`, or
    /// `s3:PutObject:bundles/` for keys below a prefix.
    package func deny(_ actions: String...) { server.tell(["deny"] + actions) }

    /// Flips, truncates or removes what is stored, behind the server's back.
    package func alter(_ key: String, in bucket: String = "test", _ how: String, at offset: Int = 0)
    {
        server.tell("alter", bucket, key, how, String(offset))
    }
}

/// The numbers at the beginning of lines such as `3<tab>method=PUT,first=3,status=503`.
func counts(_ lines: [String]) -> [Int] {
    lines.map { Int($0.prefix { $0 != "\t" }) ?? 0 }
}

private func percentDecoded(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let byte = rest.popFirst() {
        if byte == UInt8(ascii: "%"), rest.count >= 2,
            let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
        {
            bytes.append(value)
            rest = rest.dropFirst(2)
        } else {
            bytes.append(byte)
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}
