import CLibCurl
import CSystem

/// The engine's thread: libcurl's multi interface, and what waits for its turn there.
///
/// Made by whoever asks first, then used by the thread that `run`s it alone.
final class TransferLoop {
    let multi: UnsafeMutableRawPointer
    /// TLS sessions, so that a further connection to a host costs one exchange less.
    private let share: UnsafeMutableRawPointer
    private unowned let inbox: TransferInbox
    private let options: TransferEngine.Options
    private var running: [UnsafeMutableRawPointer: RunningTransfer] = [:]
    /// In the order of their coming; those of a host that is busy are passed over.
    private var waiting: [RunningTransfer] = []
    private var runningAtHost: [Substring: Int] = [:]
    private var idle: [EasyHandle] = []
    private var nextInspection: Int64 = 0

    init(inbox: TransferInbox) throws(TransferError) {
        Curl.initialize()
        guard let multi = curl_multi_init() else {
            throw TransferError(.shortage, "libcurl gives no handle", isTransient: true)
        }
        guard let share = curl_share_init() else {
            curl_multi_cleanup(multi)
            throw TransferError(.shortage, "libcurl gives no handle", isTransient: true)
        }
        self.multi = multi
        self.share = share
        self.inbox = inbox
        options = inbox.options
        // Without a number libcurl keeps four for each request under way, which after a busy moment
        // closes what the next one needs.
        _ = ccurl_multi_set_long(
            multi, CURLMOPT_MAXCONNECTS, max(16, 2 * options.connectionsPerHost))
        _ = ccurl_share_set_data(share, CURL_LOCK_DATA_SSL_SESSION)
    }

    deinit {
        idle.removeAll()
        curl_multi_cleanup(multi)
        curl_share_cleanup(share)
    }

    /// Ends the current or the next wait of the loop to which `multi` belongs. From any thread.
    static func wake(_ multi: UnsafeMutableRawPointer) { curl_multi_wakeup(multi) }

    /// Works until the inbox is closed.
    func run() {
        while let arrived = inbox.take() {
            waiting.append(contentsOf: arrived)
            startWaiting()
            let now = csys_boottime_ns()
            for transfer in running.values { transfer.resume(at: now) }
            var count: Int32 = 0
            curl_multi_perform(multi, &count)
            let isAnyDone = finishDone()
            inspect()
            // Whoever waited for an answer has the next question ready: looking costs less than
            // sleeping.
            if isAnyDone { continue }
            var descriptors: Int32 = 0
            curl_multi_poll(multi, nil, 0, patience(), &descriptors)
        }
    }

    // MARK: - Beginning and ending

    private func startWaiting() {
        guard !waiting.isEmpty else { return }
        var left: [RunningTransfer] = []
        for transfer in waiting {
            if runningAtHost[transfer.host, default: 0] < options.connectionsPerHost {
                start(transfer)
            } else {
                left.append(transfer)
            }
        }
        waiting = left
    }

    private func start(_ transfer: RunningTransfer) {
        do throws(TransferError) {
            let easy = if let kept = idle.popLast() { kept } else { try EasyHandle() }
            try transfer.begin(easy, options)
            easy.set(CURLOPT_SHARE, pointer: share)
            let code = curl_multi_add_handle(multi, easy.pointer)
            guard code == CURLM_OK else {
                throw TransferError(
                    .shortage, String(cString: curl_multi_strerror(code)), isTransient: true)
            }
            running[easy.pointer] = transfer
            runningAtHost[transfer.host, default: 0] += 1
        } catch {
            transfer.fail(error)
        }
    }

    /// Ends what libcurl has done with. Gives whether there was any.
    private func finishDone() -> Bool {
        var isAny = false
        var left: Int32 = 0
        while let message = curl_multi_info_read(multi, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle
            else { continue }
            // The message is gone once the handle is removed.
            let result = ccurl_message_result(message)
            finish(easy, result)
            isAny = true
        }
        return isAny
    }

    private func finish(_ easy: UnsafeMutableRawPointer, _ result: CURLcode) {
        curl_multi_remove_handle(multi, easy)
        guard let transfer = running.removeValue(forKey: easy) else { return }
        let atHost = runningAtHost[transfer.host, default: 1] - 1
        runningAtHost[transfer.host] = atHost > 0 ? atHost : nil
        if let handle = transfer.end(result), idle.count < options.connectionsPerHost {
            idle.append(handle)
        }
    }

    // MARK: - Time

    /// Looks for requests that have to be given up, a few times a second.
    private func inspect() {
        let now = csys_boottime_ns()
        guard now >= nextInspection else { return }
        nextInspection = now + TransferLoop.inspectionNanoseconds
        for (easy, transfer) in running where transfer.mustStop(at: now) {
            finish(easy, CURLE_ABORTED_BY_CALLBACK)
        }
        waiting.removeAll { transfer in
            guard let reason = transfer.reasonToStop(at: now) else { return false }
            transfer.fail(reason)
            return true
        }
    }

    /// How long nothing needs attention that does not make itself felt, in milliseconds.
    private func patience() -> Int32 {
        guard !running.isEmpty || !waiting.isEmpty else { return TransferLoop.idleMilliseconds }
        var until = nextInspection
        for transfer in running.values {
            if let resumption = transfer.resumption { until = min(until, resumption) }
        }
        let left = until - csys_boottime_ns()
        // Rounded up: waking before the time would only mean waiting again.
        return Int32(max(0, (left + 999_999) / 1_000_000))
    }

    private static let inspectionNanoseconds: Int64 = 100_000_000
    private static let idleMilliseconds: Int32 = 60_000
}
