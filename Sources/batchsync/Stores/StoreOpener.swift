import CSystem
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Transfer

/// A store as a verb uses it: with retries, limits and counting around it.
struct OpenedStore: Sendable {
    let store: any ObjectStore
    /// The same for the first question to it: what does not answer at the beginning is not waited
    /// for as long as what went away during the work.
    let firstContact: any ObjectStore
    /// As its user named it.
    let location: String
    let controls: StoreControls
    /// How bundles are brought to it.
    let uploads: UploadLimits
    /// What this host knows of it from earlier runs.
    let memory: StoreMemory
    /// Where the bucket is, if it turned out to be elsewhere than it was asked for.
    var region: @Sendable () -> String? = { nil }
    /// Takes away the directories that were made for it, as far as they are empty.
    var removeMade: @Sendable () -> Void = {}

    /// Keeps for the next run what this one has learned. A run that asked little has learned nothing.
    func remember() {
        var learned = memory
        if let settled = controls.settledConcurrency { learned.concurrency = settled }
        if let region = region() { learned.s3Region = region }
        guard
            learned.concurrency != memory.concurrency || learned.s3Region != memory.s3Region
        else { return }
        learned.save()
    }
}

/// Turns an address, and what the user says of it, into a store.
struct StoreOpener {
    let location: String
    let access: StoreAccess
    let directories: HostDirectories
    let counter: TrafficCounter

    /// Calls at once beyond which no store is tried: memory and descriptors are for more than this.
    static let mostCallsToS3 = 32
    static let mostCallsToSFTP = 8
    /// How long a store may fail to answer before the work, unless the user says to wait for it. One
    /// store that is down must not hold up the others; one that is overloaded gets some attempts.
    private static let firstContactSeconds = 10.0

    var spoolDirectory: String {
        access.spoolDirectory ?? Assembly.variable("TMPDIR") ?? "/var/tmp"
    }

    // MARK: Opening

    /// Makes the store for a new repository, or opens the one that is there.
    func create() throws -> OpenedStore {
        switch try StoreLocation(location) {
        case .directory(let path):
            // What is a repository already is better named so than as a directory that is not empty.
            let isThere = LocalFile.exists(path + "/config.json")
            return wrapLocal(
                isThere ? try LocalStore.open(at: path) : try LocalStore.create(at: path))
        case .sftp(let place):
            return try sftp(place, creating: true)
        case .s3(let address):
            return try s3(address, creating: true)
        }
    }

    func open() throws -> OpenedStore {
        switch try StoreLocation(location) {
        case .directory(let path): return wrapLocal(try LocalStore.open(at: path))
        case .sftp(let place): return try sftp(place, creating: false)
        case .s3(let address): return try s3(address, creating: false)
        }
    }

    // MARK: Wrapping

    private var surroundings: StoreSurroundings {
        StoreSurroundings(
            shouldStop: { Signals.haveArrived },
            report: { StoreEventText.tell($0) })
    }

    private func settings(memory: StoreMemory, maximum: Int?) -> StoreSettings {
        var settings = StoreSettings(
            counter: counter, surroundings: surroundings, secondOfWeek: TimeText.secondOfLocalWeek)
        settings.uploadLimit = access.uploadLimit
        settings.downloadLimit = access.downloadLimit
        if let waiting = access.waitOnlineSeconds {
            settings.retry.patienceSeconds = max(settings.retry.patienceSeconds, waiting)
        }
        if let maximum {
            settings.concurrency = .init(
                start: access.connections ?? memory.concurrency,
                maximum: access.connections ?? maximum)
        }
        return settings
    }

    private func wrapLocal(_ store: LocalStore) -> OpenedStore {
        let memory = StoreMemory(location, directories: directories)
        var settings = settings(memory: memory, maximum: nil)
        settings.countsCalls = true
        // A disk that fails will not be better in a quarter of an hour; a network file system may.
        settings.retry.patienceSeconds = access.waitOnlineSeconds ?? 60
        let (wrapped, controls) = StoreStack.wrap(store, settings)
        return OpenedStore(
            store: wrapped, firstContact: wrapped, location: location, controls: controls,
            uploads: .local,
            memory: memory)
    }

    func wrapRemote(
        _ store: any ObjectStore, memory: StoreMemory, maximum: Int
    ) -> OpenedStore {
        let (wrapped, controls) = StoreStack.wrap(
            store, settings(memory: memory, maximum: maximum))
        var brief = settings(memory: memory, maximum: nil)
        brief.retry.patienceSeconds = access.waitOnlineSeconds ?? Self.firstContactSeconds
        brief.retry.countsFirstAttempt = true
        let threads = access.connections ?? maximum
        return OpenedStore(
            store: wrapped, firstContact: StoreStack.wrap(store, brief).store, location: location,
            controls: controls,
            uploads: .remote(
                threads: min(threads, Self.mostCallsToSFTP),
                spoolBytes: access.spoolBytes ?? Limits.spoolBytes),
            memory: memory)
    }

    /// Runs the first call to a store, again and again for as long as the user said to wait for it,
    /// else for a moment.
    func whenOnline<Store>(
        _ connect: () throws(StorageError) -> Store
    ) throws(StorageError) -> Store {
        var policy = RetryPolicy()
        policy.patienceSeconds = access.waitOnlineSeconds ?? Self.firstContactSeconds
        policy.countsFirstAttempt = true
        var store: Store?
        try waitUntilReachable(policy: policy, surroundings: surroundings) {
            () throws(StorageError) in
            store = try connect()
        }
        guard let store else { preconditionFailure("reached, and no store") }
        return store
    }
}
