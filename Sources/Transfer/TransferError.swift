import CLibCurl

/// Why no answer came, from whom, and whether asking again may help.
///
/// An answer with an error status is no error of this room: see `TransferResponse`.
package struct TransferError: Error, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable, CaseIterable {
        /// The request itself cannot be sent: a bad address, a line break in a header.
        case invalidRequest
        /// The name of the host, or of the proxy, has no address.
        case resolve
        /// Nobody accepts the connection.
        case connect
        /// Whoever answers cannot prove to be the host: `text` says why.
        case untrusted
        /// The file of trusted certificates cannot be read.
        case certificateFile
        /// The two sides find no common way to encrypt.
        case tls
        /// It took longer than it may.
        case timeout
        /// Nothing moved for longer than it may.
        case stall
        /// The connection ended before the answer did.
        case reset
        /// What came back is no answer by the rules of the protocol.
        case protocolViolation
        /// The answer is longer than the caller accepts.
        case tooLarge
        /// The caller wanted no more of it.
        case cancelled
        /// The file that is being sent cannot be read, or is shorter than was said.
        case file
        /// This host has not enough memory or threads.
        case shortage
        /// The server does not accept who we say we are.
        case login
        /// The server has no such file.
        case missing
        /// The server does not let this user do it.
        case denied
        /// The server, or a quota on it, is full.
        case full
        /// The server refuses and does not say why.
        case refused
    }

    package let kind: Kind
    /// One sentence without a full stop, in libcurl's words where it has some.
    package let text: String
    /// Whether the same request may succeed when it is made again later.
    package let isTransient: Bool
    /// What went over the line all the same.
    package var traffic = TransferTraffic()

    package init(_ kind: Kind, _ text: String, isTransient: Bool) {
        self.kind = kind
        self.text = text
        self.isTransient = isTransient
    }

    package var description: String { text }

    /// Says what libcurl's result means.
    ///
    /// - Parameter detail: What it wrote into its error buffer; may be empty.
    /// - Parameter systemError: The last errno of the transfer, 0 where there was none.
    static func curl(_ code: CURLcode, detail: String, systemError: Int = 0) -> TransferError {
        let (kind, isTransient) = meaning(of: code, detail: detail, systemError: systemError)
        var text = detail.isEmpty ? String(cString: curl_easy_strerror(code)) : detail
        // Its own words are about a bad argument, which nobody could make sense of.
        if code == CURLE_BAD_FUNCTION_ARGUMENT { text = "the host's name could not be resolved" }
        return TransferError(kind, text, isTransient: isTransient)
    }

    private static func meaning(
        of code: CURLcode, detail: String, systemError: Int
    ) -> (Kind, isTransient: Bool) {
        switch code {
        case CURLE_UNSUPPORTED_PROTOCOL, CURLE_URL_MALFORMAT, CURLE_NOT_BUILT_IN,
            CURLE_UNKNOWN_OPTION:
            (.invalidRequest, false)
        // A name that is not found and a line that is down look the same from here. A bad argument
        // is what libcurl 7.88 has been seen to complain of when a name that was not found is asked
        // for again; what it refuses of our own making it refuses under the codes above.
        case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY, CURLE_BAD_FUNCTION_ARGUMENT:
            (.resolve, true)
        case CURLE_COULDNT_CONNECT, CURLE_PROXY, CURLE_INTERFACE_FAILED: (.connect, true)
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_CRL_BADFILE,
            CURLE_SSL_INVALIDCERTSTATUS, CURLE_SSL_PINNEDPUBKEYNOTMATCH:
            (.untrusted, false)
        case CURLE_SSL_CACERT_BADFILE: (.certificateFile, false)
        // Also what a connection that breaks off during the handshake ends with.
        case CURLE_SSL_CONNECT_ERROR:
            systemError != 0 || isBreak(detail) ? (.reset, true) : (.tls, false)
        case CURLE_SSL_CIPHER, CURLE_SSL_ENGINE_INITFAILED, CURLE_USE_SSL_FAILED,
            CURLE_SSL_CERTPROBLEM:
            (.tls, false)
        case CURLE_OPERATION_TIMEDOUT: (.timeout, true)
        case CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE,
            CURLE_SEND_FAIL_REWIND, CURLE_SSL_SHUTDOWN_FAILED, CURLE_AGAIN:
            (.reset, true)
        case CURLE_WEIRD_SERVER_REPLY, CURLE_HTTP2, CURLE_HTTP2_STREAM, CURLE_BAD_CONTENT_ENCODING,
            CURLE_CHUNK_FAILED, CURLE_RANGE_ERROR:
            (.protocolViolation, true)
        case CURLE_FILESIZE_EXCEEDED: (.tooLarge, false)
        case CURLE_ABORTED_BY_CALLBACK, CURLE_WRITE_ERROR: (.cancelled, false)
        case CURLE_READ_ERROR, CURLE_FILE_COULDNT_READ_FILE: (.file, false)
        case CURLE_OUT_OF_MEMORY, CURLE_FAILED_INIT, CURLE_NO_CONNECTION_AVAILABLE:
            (.shortage, true)
        case CURLE_LOGIN_DENIED, CURLE_AUTH_ERROR, CURLE_REMOTE_ACCESS_DENIED: (.login, false)
        case CURLE_REMOTE_FILE_NOT_FOUND: (.missing, false)
        default: (.protocolViolation, false)
        }
    }

    /// OpenSSL's ways of saying that the other side went away.
    private static func isBreak(_ detail: String) -> Bool {
        ["SSL_ERROR_SYSCALL", "unexpected eof", "reset by peer", "Broken pipe"].contains {
            detail.contains($0)
        }
    }
}
