import CLibCurl
import CSystem

/// Where mail is handed in, and as whom.
package struct MailServer: Sendable {
    /// `smtps://host[:port]`, or `smtp://host[:port]`, which begins in clear and goes over to TLS.
    package var address: String
    package var user: String?
    package var password: String?
    /// A PEM file of the certificates to trust, instead of those that the system trusts.
    package var caFile: String?

    package init(_ address: String, user: String? = nil, password: String? = nil) {
        self.address = address
        self.user = user
        self.password = password
    }

    /// How much has to be encrypted. A password never goes over a line that others can read; a
    /// server of this host is no line at all, and often has a certificate that nobody signed.
    var security: Int {
        if user != nil || password != nil { return Int(CURLUSESSL_ALL.rawValue) }
        return Int((isThisHost ? CURLUSESSL_NONE : CURLUSESSL_TRY).rawValue)
    }

    private var isThisHost: Bool {
        let rest = address.firstRange(of: "://").map { address[$0.upperBound...] } ?? address[...]
        let host = rest.prefix { $0 != "/" }
        return ["localhost", "127.0.0.1", "[::1]"].contains { name in
            host == name || host.hasPrefix("\(name):")
        }
    }
}

/// Hands in one mail by SMTP. Blocks the calling thread; needs no engine, since a run sends one mail
/// at most.
package enum MailTransfer {
    /// - Parameter message: The whole message with its headers, lines ended by CR and LF.
    /// - Parameter sender: The address alone, as for every receiver.
    /// - Parameter deadlineSeconds: How long all of it may take.
    /// - Parameter connectSeconds: How long it may take until the connection stands.
    /// - Throws: Where the server did not take it for all receivers. `isTransient` also where it
    ///   said that it may take it later.
    package static func send(
        _ message: [UInt8], from sender: String, to receivers: [String], by server: MailServer,
        deadlineSeconds: Double, connectSeconds: Double = 30
    ) throws(TransferError) {
        for address in [sender] + receivers {
            guard !address.isEmpty, address.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }),
                !address.contains(where: { "<>".contains($0) })
            else {
                throw TransferError(
                    .invalidRequest, "'\(address)' is no address for mail", isTransient: false)
            }
        }
        let easy = try EasyHandle()
        easy.reset()
        easy.set(CURLOPT_URL, server.address)
        easy.set(CURLOPT_PROTOCOLS_STR, "smtp,smtps")
        easy.set(CURLOPT_MAIL_FROM, "<\(sender)>")
        let list = HeaderList()
        for receiver in receivers { try list.append("<\(receiver)>") }
        easy.set(CURLOPT_MAIL_RCPT, list)
        if let user = server.user { easy.set(CURLOPT_USERNAME, user) }
        if let password = server.password { easy.set(CURLOPT_PASSWORD, password) }
        easy.set(CURLOPT_USE_SSL, server.security)
        easy.set(CURLOPT_SSL_VERIFYPEER, 1)
        easy.set(CURLOPT_SSL_VERIFYHOST, 2)
        easy.set(CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2)
        if let caFile = server.caFile {
            easy.set(CURLOPT_CAINFO, caFile)
            easy.set(CURLOPT_CAPATH, pointer: nil)
        }
        easy.set(CURLOPT_UPLOAD, 1)
        easy.set(CURLOPT_TIMEOUT_MS, max(1, Int(deadlineSeconds * 1000)))
        easy.set(
            CURLOPT_CONNECTTIMEOUT_MS, max(1, Int(min(deadlineSeconds, connectSeconds) * 1000)))
        let reader = MailReader(message)
        easy.set(CURLOPT_READDATA, pointer: Unmanaged.passUnretained(reader).toOpaque())
        easy.set(CURLOPT_READFUNCTION) { buffer, size, count, context in
            guard let buffer, let context else { return Int(CURL_READFUNC_ABORT) }
            let reader = Unmanaged<MailReader>.fromOpaque(context).takeUnretainedValue()
            return reader.read(into: UnsafeMutableRawPointer(buffer), capacity: size * count)
        }
        if let refusal = easy.refusal { throw .curl(refusal, detail: easy.detail) }
        let code = withExtendedLifetime((reader, list)) { curl_easy_perform(easy.pointer) }
        guard code != CURLE_OK else { return }
        let reply = easy.long(CURLINFO_RESPONSE_CODE)
        guard reply >= 400 else {
            throw .curl(
                code, detail: easy.detail, systemError: easy.long(CURLINFO_OS_ERRNO))
        }
        // 4xx is SMTP's word for "not now" (RFC 5321, section 4.2.1).
        throw TransferError(
            code == CURLE_LOGIN_DENIED ? .login : .protocolViolation,
            "the mail server answers with \(reply)"
                + (easy.detail.isEmpty ? "" : " (\(easy.detail))"),
            isTransient: reply < 500)
    }

    /// What is left to send. Only the thread that sends touches it.
    private final class MailReader {
        private let bytes: [UInt8]
        private var position = 0

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        func read(into buffer: UnsafeMutableRawPointer, capacity: Int) -> Int {
            let count = min(capacity, bytes.count - position)
            bytes.withUnsafeBytes { source in
                guard count > 0, let base = source.baseAddress else { return }
                buffer.copyMemory(from: base + position, byteCount: count)
            }
            position += count
            return count
        }
    }
}
