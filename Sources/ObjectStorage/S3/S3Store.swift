import CSystem
import Crypto
import SnapshotModel
import Synchronization
package import Transfer

/// Objects in a bucket of Amazon S3, or of any service that speaks it.
///
/// An object is one PUT of a plain body whose length, SHA-256 and MD5 are sent along, since one of
/// the two is checked by every service. Where the service was found to honour it, `If-None-Match`
/// keeps an object from being replaced; elsewhere that names are digests of what they name has to
/// do.
package final class S3Store: ObjectStore {
    let client: S3Client
    private let spoolDirectory: String
    /// Whether DeleteObjects may be tried: until the service says that it has no such thing.
    let hasBulkDelete = Atomic<Bool>(true)
    /// Whether the bucket keeps what a retention protects; nil until its configuration was read for a
    /// deletion.
    let keepsLocked = Mutex<Bool?>(nil)
    private let ownCapabilities: StoreCapabilities

    /// Makes a store of the bucket, without asking it anything yet.
    ///
    /// - Parameter traits: What is remembered of the service; with none it is taken to be simple.
    /// - Parameter counter: Counts every request that goes out.
    /// - Parameter spoolDirectory: Where spool files are made; on a disk with room for a few
    ///   bundles.
    /// - Parameter now: The time of this host in seconds since 1970.
    package static func open(
        _ location: S3Location, options: S3Options = S3Options(),
        credentials: any S3CredentialSource, engine: TransferEngine, traits: S3Traits = S3Traits(),
        counter: TrafficCounter, spoolDirectory: String,
        now: @escaping @Sendable () -> Int64 = { csys_realtime_ns() / 1_000_000_000 }
    ) -> S3Store {
        S3Store(
            client: S3Client(
                location, options: options, traits: traits, credentials: credentials,
                engine: engine, counter: counter, now: now), spoolDirectory: spoolDirectory)
    }

    private init(client: S3Client, spoolDirectory: String) {
        self.client = client
        self.spoolDirectory = spoolDirectory
        let traits = client.traits
        var capabilities = StoreCapabilities(
            conditionalPut: traits.conditionalPut, rangedReads: true,
            listingShowsMD5: traits.listingShowsMD5, listingShowsTime: true, isLocal: false)
        capabilities.headShowsSHA256 = traits.keepsSHA256
        capabilities.sendsDigests = true
        capabilities.refusesReplacement = traits.conditionalPut
        ownCapabilities = capabilities
    }

    /// Whether deleted objects are kept is what the probe found, until the first deletion of many
    /// asks the bucket.
    package var capabilities: StoreCapabilities {
        var capabilities = ownCapabilities
        capabilities.keepsDeleted = client.traits.versioning
        return capabilities
    }

    /// What is known of the service, with what this store has learned since it was opened.
    package var traits: S3Traits { client.traits }

    // MARK: - The rest

    package func makeSpool() throws(StorageError) -> SpoolFile {
        try SpoolFile.temporary(in: spoolDirectory)
    }

    package func currentTime() throws(StorageError) -> Int64 {
        if let seconds = client.clock.seconds { return seconds }
        var request = S3Client.Request(
            operation: .clock, key: nil, method: "HEAD", permission: "s3:ListBucket")
        // Whatever it says, it says when.
        request.accepted = [400, 403, 404]
        _ = try client.send(request)
        guard let seconds = client.clock.seconds else {
            throw StorageError(
                .unsupported, .clock, location: client.location.text,
                cause: "the service's answers have no date")
        }
        return seconds
    }

    /// A thousand keys of a thousand bytes, each byte encoded in three, with room.
    static let maximumMessageBytes = 16 << 20
}
