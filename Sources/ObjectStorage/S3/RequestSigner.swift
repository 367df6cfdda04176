import Crypto
import SnapshotModel
import Synchronization

/// Signs requests by AWS Signature Version 4, as S3 wants it: the path is encoded once and never
/// normalised.
///
/// Source: "Create a signed AWS API request" in the AWS IAM user guide. Depends on nothing but what
/// it is given; keeps the key of the day, which four HMACs make.
final class RequestSigner: Sendable {
    /// What is signed of a request.
    struct Request {
        var method: String
        /// As it is sent: encoded, beginning with a slash.
        var path: String
        /// Not encoded, in any order.
        var query: [(name: String, value: String)] = []
        /// All that are to be signed, `host` and `x-amz-date` among them.
        var headers: [(name: String, value: String)] = []
        /// The SHA-256 of the body in hex.
        var payloadHash: String
    }

    private struct DayKey {
        let secret: String
        let scope: String
        let key: SymmetricKey
    }

    let service: String
    private let lastKey = Mutex<DayKey?>(nil)

    init(service: String = "s3") { self.service = service }

    /// The value of the header `Authorization`.
    ///
    /// - Parameter time: `YYYYMMDDThhmmssZ`, the same as in the header `x-amz-date`.
    func authorization(
        for request: Request, keyID: String, secret: String, region: String, time: String
    ) -> String {
        let scope = "\(time.prefix(8))/\(region)/\(service)/aws4_request"
        let (canonical, signedHeaders) = RequestSigner.canonical(request)
        let toSign = RequestSigner.stringToSign(canonical, scope: scope, time: time)
        let signature = HMAC<SHA256>.authenticationCode(
            for: Array(toSign.utf8),
            using: key(secret: secret, scope: scope, day: time.prefix(8), region: region))
        return "AWS4-HMAC-SHA256 Credential=\(keyID)/\(scope), SignedHeaders=\(signedHeaders), "
            + "Signature=\(Hex.text(Array(signature)))"
    }

    /// The canonical request, and the names of its headers as they are listed.
    static func canonical(_ request: Request) -> (text: String, signedHeaders: String) {
        // Sorted as they are encoded, by name and then by value.
        let query = request.query
            .map { (URLText.encoded($0.name), URLText.encoded($0.value)) }
            .sorted { $0 < $1 }
            .map { "\($0)=\($1)" }
            .joined(separator: "&")
        var values: [String: [String]] = [:]
        for (name, value) in request.headers {
            values[name.lowercased(), default: []].append(RequestSigner.plain(value))
        }
        let names = values.keys.sorted()
        let lines = names.map { "\($0):\(values[$0, default: []].joined(separator: ","))\n" }
        let signedHeaders = names.joined(separator: ";")
        let text =
            "\(request.method)\n\(request.path)\n\(query)\n\(lines.joined())\n\(signedHeaders)\n"
            + request.payloadHash
        return (text, signedHeaders)
    }

    static func stringToSign(_ canonical: String, scope: String, time: String) -> String {
        let digest = Array(SHA256.hash(data: Array(canonical.utf8)))
        return "AWS4-HMAC-SHA256\n\(time)\n\(scope)\n\(Hex.text(digest))"
    }

    private func key(
        secret: String, scope: String, day: Substring, region: String
    ) -> SymmetricKey {
        lastKey.withLock { last in
            if let last, last.scope == scope, last.secret == secret { return last.key }
            var key = SymmetricKey(data: Array("AWS4\(secret)".utf8))
            for part in [String(day), region, service, "aws4_request"] {
                let code = HMAC<SHA256>.authenticationCode(for: Array(part.utf8), using: key)
                key = SymmetricKey(data: Array(code))
            }
            last = DayKey(secret: secret, scope: scope, key: key)
            return key
        }
    }

    /// Without blanks at either end, and with one blank where several stood.
    private static func plain(_ value: String) -> String {
        value.split(whereSeparator: { $0 == " " || $0 == "\t" }).joined(separator: " ")
    }
}

/// Text in addresses (RFC 3986).
enum URLText {
    /// Everything but letters, digits and `-._~` as `%XX`; a slash too unless it is kept.
    static func encoded(_ text: some StringProtocol, keepsSlash: Bool = false) -> String {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        for byte in text.utf8 {
            if isUnreserved(byte) || (keepsSlash && byte == UInt8(ascii: "/")) {
                bytes.append(byte)
            } else {
                bytes.append(UInt8(ascii: "%"))
                bytes.append(upperDigit(byte >> 4))
                bytes.append(upperDigit(byte & 15))
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Undoes `%XX`, and `+` for a blank, which some servers write; nil where that gives no text.
    static func decoded(_ text: String) -> String? {
        guard text.utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") })
        else { return text }
        let source = Array(text.utf8)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(source.count)
        var index = 0
        while index < source.count {
            switch source[index] {
            case UInt8(ascii: "+"):
                bytes.append(UInt8(ascii: " "))
            case UInt8(ascii: "%"):
                guard index + 2 < source.count, let high = value(source[index + 1]),
                    let low = value(source[index + 2])
                else { return nil }
                bytes.append(high << 4 | low)
                index += 2
            default:
                bytes.append(source[index])
            }
            index += 1
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func isUnreserved(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
            UInt8(ascii: "_"), UInt8(ascii: "~"):
            true
        default:
            false
        }
    }

    private static func upperDigit(_ value: UInt8) -> UInt8 {
        value < 10 ? value + UInt8(ascii: "0") : value - 10 + UInt8(ascii: "A")
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
