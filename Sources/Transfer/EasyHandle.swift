import CLibCurl
import Glibc

/// One of libcurl's handles for a single transfer, with the buffer into which it explains itself.
///
/// Belongs to one thread at a time. Keeping it for another transfer saves its buffers; `reset`
/// forgets every option.
final class EasyHandle {
    let pointer: UnsafeMutableRawPointer
    private let explanation: UnsafeMutablePointer<CChar>
    /// The first option that was not accepted; the transfer must not be begun then.
    private(set) var refusal: CURLcode?

    init() throws(TransferError) {
        Curl.initialize()
        guard let pointer = curl_easy_init() else {
            throw TransferError(.shortage, "libcurl gives no handle", isTransient: true)
        }
        self.pointer = pointer
        explanation = .allocate(capacity: Int(CURL_ERROR_SIZE))
        explanation.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    }

    deinit {
        curl_easy_cleanup(pointer)
        explanation.deallocate()
    }

    /// Forgets the options of the last transfer, and sets those that every transfer wants.
    func reset() {
        curl_easy_reset(pointer)
        refusal = nil
        explanation[0] = 0
        note(ccurl_set_pointer(pointer, CURLOPT_ERRORBUFFER, explanation))
        // A name server that does not answer holds up nobody beyond the deadline.
        set(CURLOPT_QUICK_EXIT, 1)
        // No alarm signals and no fiddling with SIGPIPE: many threads share this process.
        set(CURLOPT_NOSIGNAL, 1)
        // A program that is started must not keep a connection open by inheriting it.
        note(
            ccurl_set_socket_function(pointer) { _, socket, _ in
                let flags = fcntl(socket, F_GETFD)
                if flags >= 0 { _ = fcntl(socket, F_SETFD, flags | FD_CLOEXEC) }
                return Int32(CURL_SOCKOPT_OK)
            })
        set(CURLOPT_TCP_KEEPALIVE, 1)
    }

    /// What libcurl wrote about the failure of this transfer; empty where it wrote nothing.
    var detail: String { String(cString: explanation) }

    func set(_ option: CURLoption, _ value: Int) {
        note(ccurl_set_long(pointer, option, value))
    }

    func set(_ option: CURLoption, offset value: Int) {
        note(ccurl_set_offset(pointer, option, curl_off_t(value)))
    }

    func set(_ option: CURLoption, _ value: String) {
        note(ccurl_set_string(pointer, option, value))
    }

    func set(_ option: CURLoption, pointer value: UnsafeMutableRawPointer?) {
        note(ccurl_set_pointer(pointer, option, value))
    }

    func set(_ option: CURLoption, _ value: HeaderList) {
        note(ccurl_set_list(pointer, option, value.first))
    }

    func set(_ option: CURLoption, function: @escaping ccurl_data_function) {
        note(ccurl_set_data_function(pointer, option, function))
    }

    func set(seekFunction: @escaping ccurl_seek_function) {
        note(ccurl_set_seek_function(pointer, seekFunction))
    }

    func set(progressFunction: @escaping ccurl_progress_function) {
        note(ccurl_set_progress_function(pointer, progressFunction))
    }

    func set(hostKeyFunction: @escaping ccurl_host_key_function) {
        note(ccurl_set_host_key_function(pointer, hostKeyFunction))
    }

    func long(_ info: CURLINFO) -> Int {
        var value = 0
        _ = ccurl_get_long(pointer, info, &value)
        return value
    }

    func offset(_ info: CURLINFO) -> Int {
        var value: curl_off_t = 0
        _ = ccurl_get_offset(pointer, info, &value)
        return Int(value)
    }

    private func note(_ code: CURLcode) {
        if code != CURLE_OK && refusal == nil { refusal = code }
    }
}

/// A list of header lines in the form that libcurl takes. It must outlive the transfer.
final class HeaderList {
    private(set) var first: UnsafeMutablePointer<curl_slist>?

    func append(_ line: String) throws(TransferError) {
        guard let longer = curl_slist_append(first, line) else {
            throw TransferError(.shortage, "no memory for a header", isTransient: true)
        }
        first = longer
    }

    deinit { curl_slist_free_all(first) }
}

/// libcurl as a whole.
enum Curl {
    private static let isInitialized: Bool = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    /// Before anything else of it is used; any number of times, from any thread.
    static func initialize() {
        precondition(isInitialized, "libcurl cannot be initialised")
    }
}
