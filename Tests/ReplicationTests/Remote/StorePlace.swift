import Glibc
import ObjectStorage
import Replication
import Synchronization
import TestSupport
import Testing
import Transfer

/// Every kind of place where a repository can lie.
enum StoreKind: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case memory, directory
    /// The S3 servers: our own, that of rclone over a directory, moto's, Ceph's gateway.
    case strictS3 = "strict S3"
    case rclone, moto
    case ceph = "Ceph"
    /// The SFTP servers: OpenSSH's, and asyncssh's, which has no extension whatever here.
    case openSSH = "OpenSSH"
    case bareSFTP = "SFTP without extensions"
    /// OpenSSH's, reached without an ssh command.
    case directSFTP = "SFTP without ssh"

    var testDescription: String { rawValue }

    /// Those on which the campaigns run: each protocol with the server that is strictest about it,
    /// and at full length on all that stand behind a line.
    static let campaigns: [StoreKind] =
        Campaign.isSoak
        ? [.strictS3, .rclone, .moto, .openSSH, .bareSFTP] : [.strictS3, .openSSH]

    fileprivate var server: (kind: TestServer.Kind, options: [String])? {
        switch self {
        case .memory, .directory: nil
        case .strictS3: (.strictS3, ["--bucket", "test"])
        case .rclone: (.rclone, [])
        case .moto: (.moto, [])
        case .ceph: (.ceph, [])
        case .openSSH, .directSFTP: (.openSSH, [])
        case .bareSFTP: (.asyncSSH, ["--drop-extensions", "all"])
        }
    }

    var isS3: Bool { [.strictS3, .rclone, .moto, .ceph].contains(self) }
}

/// A place for one repository, empty at first, on a server that all tests share unless one wants it
/// for itself.
final class StorePlace: Sendable {
    let kind: StoreKind
    /// What stands between the clients and the server, where anything does.
    let proxy: FaultProxy?
    /// As a user writes it.
    let location: String
    let server: TestServer?
    private let directory: TemporaryDirectory?
    private let memory: MemoryStore?

    private let isMade = Mutex(false)

    private static let number = Mutex(0)

    /// - Parameter ownServer: For a test that reads the server's log, or stops it.
    /// - Parameter behindProxy: Puts a fault proxy before the server.
    /// - Throws: Cancels the test where this machine cannot have the server.
    init(_ kind: StoreKind, ownServer: Bool = false, behindProxy: Bool = false) throws {
        self.kind = kind
        let number = Self.number.withLock { number in
            number += 1
            return number
        }
        server = try Self.server(of: kind, own: ownServer)
        let endpoint = kind.isS3 ? server?["S3_ENDPOINT"] : server?["SFTP_PORT"]
        proxy =
            if behindProxy, let endpoint {
                try FaultProxy(
                    toward: kind.isS3 ? endpoint : "127.0.0.1:\(endpoint)",
                    kind.isS3 ? .http : .tcp)
            } else { nil }
        memory = kind == .memory ? MemoryStore() : nil
        directory = kind == .directory ? .inMemory() : nil
        switch kind {
        case .memory: location = "memory"
        case .directory: location = directory?.path("store") ?? ""
        case .openSSH, .bareSFTP, .directSFTP:
            let root = server?["SFTP_PATH"] ?? "/"
            // The name is one of a configuration for ssh.
            let host = kind == .directSFTP ? "127.0.0.1:\(endpoint ?? "")" : "store"
            location = "sftp://\(host)\(root == "/" ? "" : root)/place-\(number)"
        default: location = "s3://\(server?["S3_BUCKET"] ?? "")/place-\(number)"
        }
    }

    private static func server(of kind: StoreKind, own: Bool) throws -> TestServer? {
        let server = Result { try own ? start(kind) : SharedServer.of(kind) { try start(kind) } }
        if case .failure(let lack as TestServer.Unavailable) = server {
            try Test.cancel("\(lack)")
        }
        return try server.get()
    }

    private static func start(_ kind: StoreKind) throws -> TestServer? {
        try kind.server.map { try TestServer($0.kind, $0.options) }
    }

    // MARK: - The store

    /// The store itself; made with the first call.
    ///
    /// - Parameter stallSeconds: How long nothing may move while an answer is due.
    func bareStore(
        counter: TrafficCounter = TrafficCounter(), stallSeconds: Int = 60
    ) throws(StorageError) -> any ObjectStore {
        if let memory { return memory }
        // Two that come at once would both make it.
        let store: Result<any ObjectStore, StorageError> = isMade.withLock { isMade in
            do throws(StorageError) {
                let store = try connect(
                    creating: !isMade, counter: counter, stallSeconds: stallSeconds)
                isMade = true
                return .success(store)
            } catch {
                return .failure(error)
            }
        }
        return try store.get()
    }

    private func connect(
        creating: Bool, counter: TrafficCounter, stallSeconds: Int
    ) throws(StorageError) -> any ObjectStore {
        switch kind {
        case .memory, .directory:
            return creating
                ? try LocalStore.create(at: location) : try LocalStore.open(at: location)
        case .openSSH, .bareSFTP:
            var options = SFTPStore.Options()
            options.command = try SSHCommand(sshCommand)
            options.stallSeconds = stallSeconds
            options.spoolDirectory = Self.spoolDirectory
            options.traffic = counter
            let place = try SFTPLocation(location)
            return creating
                ? try SFTPStore.create(at: place, options: options)
                : try SFTPStore.open(at: place, options: options)
        case .directSFTP:
            guard let server else { preconditionFailure("\(kind) has no server") }
            var options = DirectSFTPStore.Options(
                user: server["SFTP_USER"], knownHostsFiles: [server["SFTP_KNOWN_HOSTS"]])
            options.privateKeyFile = server["SFTP_KEY_FILE"]
            options.stallSeconds = stallSeconds
            options.spoolDirectory = Self.spoolDirectory
            options.traffic = counter
            let place = try SFTPLocation(location)
            return creating
                ? try DirectSFTPStore.create(at: place, options: options)
                : try DirectSFTPStore.open(at: place, options: options)
        case .strictS3, .rclone, .moto, .ceph:
            guard let server else { preconditionFailure("\(kind) has no server") }
            var options = S3Options()
            options.stallSeconds = Double(stallSeconds)
            return S3Store.open(
                try S3Location.parse(
                    location, endpoint: try S3Endpoint(endpoint), region: server["S3_REGION"]),
                options: options, credentials: Keys(server), engine: TransferEngine(),
                traits: traits, counter: counter, spoolDirectory: Self.spoolDirectory)
        }
    }

    /// The store with the wrappers that the command puts around it, as soon as it answers.
    ///
    /// - Parameter time: In which its waits pass; they are a tenth as long where nothing is said.
    func store(
        counter: TrafficCounter = TrafficCounter(), stallSeconds: Int = 60,
        patienceSeconds: Double? = nil, time: SkippedTime? = nil,
        report: @escaping @Sendable (StoreEvent) -> Void = { _ in }
    ) throws -> any ObjectStore {
        let surroundings = time?.surroundings(report: report) ?? StoreSurroundings(report: report)
        var settings = StoreSettings(
            counter: counter, surroundings: surroundings, secondOfWeek: { 0 })
        if time == nil {
            settings.retry.firstWaitSeconds /= 10
            settings.retry.longestWaitSeconds /= 10
        }
        if let patienceSeconds { settings.retry.patienceSeconds = patienceSeconds }
        if kind != .directory && kind != .memory {
            settings.concurrency = .init(start: nil, maximum: 8)
        }
        var bare: (any ObjectStore)?
        try waitUntilReachable(policy: settings.retry, surroundings: surroundings) {
            () throws(StorageError) in
            bare = try bareStore(counter: counter, stallSeconds: stallSeconds)
        }
        return StoreStack.wrap(try #require(bare), settings).store
    }

    /// How a run brings bundles to such a place.
    var uploads: UploadLimits {
        kind == .directory || kind == .memory ? .local : .remote(threads: 4)
    }

    /// What a probe finds of each service.
    private var traits: S3Traits {
        var traits = S3Traits()
        traits.conditionalPut = kind != .rclone
        traits.listingShowsMD5 = true
        traits.keepsSHA256 = kind == .strictS3
        return traits
    }

    private struct Keys: S3CredentialSource {
        let credentials: S3Credentials

        init(_ server: TestServer) {
            credentials = S3Credentials(
                keyID: server["S3_ACCESS_KEY"], secret: server["S3_SECRET_KEY"], origin: "a test")
        }

        func find() -> S3Credentials? { credentials }
    }

    private var endpoint: String { proxy?.url ?? server?["S3_ENDPOINT"] ?? "" }

    private static var spoolDirectory: String {
        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
    }

    private var sshCommand: String {
        let port = proxy.map { " -p \($0.port)" } ?? ""
        return "ssh -F \(server?["SFTP_SSH_CONFIG"] ?? "")\(port)"
    }

    // MARK: - The built command

    /// What the command is told of the place, behind its verb.
    var words: [String] {
        var words = ["-r", location]
        if kind == .openSSH || kind == .bareSFTP { words += ["--ssh-command", sshCommand] }
        return words
    }

    /// What the command finds of the place in its environment.
    var environment: [String: String] {
        guard kind.isS3, let server else { return [:] }
        return [
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": server["S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": server["S3_SECRET_KEY"], "AWS_REGION": server["S3_REGION"],
            // The configuration of whoever runs the tests is not for them.
            "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "TMPDIR": Self.spoolDirectory,
        ]
    }
}

/// A server that is started by whoever needs it first, and that all others share.
private final class SharedServer: Sendable {
    private let result = Mutex<Result<TestServer?, any Error>?>(nil)

    private static let all = Dictionary(
        uniqueKeysWithValues: StoreKind.allCases.map { ($0, SharedServer()) })

    static func of(
        _ kind: StoreKind, _ start: () throws -> TestServer?
    ) throws -> TestServer? {
        guard let server = all[kind] else { return nil }
        // Whoever comes while it starts wants the same, and waits.
        return try server.result.withLock { result in
            let found = result ?? Result { try start() }
            result = found
            return try found.get()
        }
    }
}
