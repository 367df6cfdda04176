import CSystem
import Crypto
import SnapshotModel
import Synchronization
import Transfer

/// Sends one request after another to a bucket: signs it, follows the bucket to its region, renews
/// credentials that have ended, counts what went out, and turns an answer that says no into an
/// error.
final class S3Client: Sendable {
    /// One request as the store thinks of it.
    struct Request {
        var operation: StorageError.Operation
        /// The object concerned.
        var key: ObjectKey?
        var method: String
        /// Which permission the service asks for.
        var permission: String
        var query: [(name: String, value: String)] = []
        var headers: [(name: String, value: String)] = []
        var body = TransferRequest.Body.none
        /// The SHA-256 of the body.
        var payloadDigest = emptyDigest
        var sink = TransferRequest.Sink.collect(maximumBytes: 1 << 20)
        var uploadPacer: (any Pacer)?
        /// Statuses beside 200 to 299 that are an answer and no error.
        var accepted: Set<Int> = []

        static let emptyDigest = Array(SHA256.hash(data: [UInt8]()))
    }

    /// What changes while the client is used.
    private struct State {
        var location: S3Location
        var traits: S3Traits
    }

    let options: S3Options
    let clock: S3Clock
    private let engine: TransferEngine
    private let counter: TrafficCounter
    private let keeper: S3CredentialKeeper
    private let signer = RequestSigner()
    private let now: @Sendable () -> Int64
    private let state: Mutex<State>

    init(
        _ location: S3Location, options: S3Options, traits: S3Traits,
        credentials: any S3CredentialSource, engine: TransferEngine, counter: TrafficCounter,
        now: @escaping @Sendable () -> Int64
    ) {
        self.options = options
        self.engine = engine
        self.counter = counter
        self.now = now
        keeper = S3CredentialKeeper(credentials, now: now)
        clock = S3Clock()
        var location = location
        if let region = traits.region { location = location.moved(to: region) }
        state = Mutex(State(location: location, traits: traits))
    }

    var location: S3Location { state.withLock { $0.location } }
    /// With what has been learned since the beginning.
    var traits: S3Traits { state.withLock { $0.traits } }

    func learn(_ change: (inout S3Traits) -> Void) { state.withLock { change(&$0.traits) } }

    /// The time of this host in seconds since 1970.
    func hostTime() -> Int64 { now() }

    // MARK: - One request

    /// Sends `request` and gives its answer, whose status is a success or an accepted one.
    func send(_ request: Request) throws(StorageError) -> TransferResponse {
        var hasMoved = false
        var hasRenewed = false
        while true {
            let location = location
            let credentials = try credentials(for: request, location)
            let response = try perform(request, at: location, credentials)
            if response.isSuccess { return response }
            var failure = S3Failure(
                response, request: request, location: location, credentials: credentials,
                hostTime: now())
            if !hasMoved, let region = failure.otherRegion {
                hasMoved = true
                move(to: region)
                continue
            }
            if failure.isUnexplained && !request.accepted.contains(response.status) {
                failure = explained(failure, request, at: location, credentials)
            }
            if !hasRenewed, failure.isExpired {
                hasRenewed = true
                try renew(credentials, for: request, location)
                continue
            }
            if request.accepted.contains(response.status) { return response }
            throw failure.error
        }
    }

    /// Asks the same by a GET of one byte, whose answer says why not.
    private func explained(
        _ failure: S3Failure, _ request: Request, at location: S3Location,
        _ credentials: S3Credentials
    ) -> S3Failure {
        var question = request
        question.method = "GET"
        if request.key == nil {
            question.query = [("list-type", "2"), ("max-keys", "1")]
        } else {
            question.headers.append(("Range", "bytes=0-0"))
        }
        guard let response = try? perform(question, at: location, credentials), !response.isSuccess
        else { return failure }
        return S3Failure(
            response, request: request, location: location, credentials: credentials,
            hostTime: now())
    }

    /// What an answer means that `send` gave because its status was an accepted one.
    func failure(
        _ response: TransferResponse, of request: Request
    ) throws(StorageError) -> S3Failure {
        let location = location
        return S3Failure(
            response, request: request, location: location,
            credentials: try credentials(for: request, location), hostTime: now())
    }

    private func perform(
        _ request: Request, at location: S3Location, _ credentials: S3Credentials
    ) throws(StorageError) -> TransferResponse {
        var transfer = signed(request, at: location, credentials)
        transfer.stallSeconds = options.stallSeconds
        transfer.isCancelled = options.isCancelled
        transfer.uploadPacer = request.uploadPacer
        transfer.downloadPacer = options.downloadPacer
        // How long a pacer holds a body back is nobody's fault.
        if request.uploadPacer == nil && options.downloadPacer == nil {
            let bytes = Double(S3Client.expectedBytes(request))
            transfer.deadlineSeconds =
                options.requestSeconds + bytes / options.slowestBytesPerSecond
        }
        do throws(TransferError) {
            let response = try engine.perform(transfer)
            count(request, response.traffic)
            clock.note(date: response.headers["date"])
            return response
        } catch {
            count(request, error.traffic)
            throw S3Failure.error(error, request: request, location: location)
        }
    }

    private func signed(
        _ request: Request, at location: S3Location, _ credentials: S3Credentials
    ) -> TransferRequest {
        let key = request.key.map { location.prefix + $0.text }
        let address = location.address(of: key)
        let time = Timestamp(seconds: now()).compactUTC
        let payloadHash = Hex.text(request.payloadDigest)
        var headers = request.headers
        headers.append(("x-amz-content-sha256", payloadHash))
        headers.append(("x-amz-date", time))
        if let token = credentials.sessionToken { headers.append(("x-amz-security-token", token)) }
        let authorization = signer.authorization(
            for: RequestSigner.Request(
                method: request.method, path: address.path, query: request.query,
                headers: headers + [("host", address.host)], payloadHash: payloadHash),
            keyID: credentials.keyID, secret: credentials.secret, region: location.region,
            time: time)
        headers.append(("Authorization", authorization))
        let query = request.query
            .map { "\(URLText.encoded($0.name))=\(URLText.encoded($0.value))" }
            .joined(separator: "&")
        let scheme = location.service.isSecure ? "https" : "http"
        return TransferRequest(
            request.method,
            "\(scheme)://\(address.host)\(address.path)\(query.isEmpty ? "" : "?\(query)")",
            headers: headers, body: request.body, sink: request.sink)
    }

    private static func expectedBytes(_ request: Request) -> Int {
        let up =
            switch request.body {
            case .none: 0
            case .bytes(let bytes): bytes.count
            case .file(_, _, let length): length
            }
        return switch request.sink {
        case .collect(let maximumBytes): up + min(maximumBytes, 1 << 30)
        case .range(let range, _): up + range.count
        }
    }

    private func count(_ request: Request, _ traffic: TransferTraffic) {
        let kind: TrafficCounter.Request =
            switch request.operation {
            case .put: .put
            case .get: .get
            case .head: .head
            case .list: .list
            case .delete: .delete
            case .create, .open, .spool, .clock: .other
            }
        for _ in 0..<traffic.requests { counter.count(kind) }
        counter.count(sent: traffic.bytesSent)
        counter.count(received: traffic.bytesReceived)
    }

    // MARK: - What is learned

    private func move(to region: String) {
        state.withLock { state in
            state.location = state.location.moved(to: region)
            state.traits.region = region
        }
    }

    private func credentials(
        for request: Request, _ location: S3Location
    ) throws(StorageError) -> S3Credentials {
        do throws(S3CredentialsError) {
            return try keeper.credentials()
        } catch {
            throw S3Failure.error(error, request: request, location: location)
        }
    }

    private func renew(
        _ credentials: S3Credentials, for request: Request, _ location: S3Location
    ) throws(StorageError) {
        do throws(S3CredentialsError) {
            _ = try keeper.refresh(replacing: credentials)
        } catch {
            throw S3Failure.error(error, request: request, location: location)
        }
    }
}
