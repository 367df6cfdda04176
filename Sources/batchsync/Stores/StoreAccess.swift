import ObjectStorage

/// How a store is reached and used, beyond its address: what the options of a verb say, or a
/// profile.
struct StoreAccess: Sendable {
    /// Where spool files of stores that are no directories lie; nil for TMPDIR, or /var/tmp.
    var spoolDirectory: String?
    /// Bytes of finished bundles that may wait there.
    var spoolBytes: Int?
    var uploadLimit: RateTimetable?
    var downloadLimit: RateTimetable?
    /// How long to wait for a store that does not answer, before the work and within it.
    var waitOnlineSeconds: Double?
    /// Calls at once; nil for what the store is found to bear.
    var connections: Int?
    /// Certificates to trust instead of the system's.
    var caFile: String?

    // MARK: S3

    /// Whether the verb writes anyway, so that what the service does may be tried by writing.
    var mayWrite = false
    /// Whether to try that also where it is remembered.
    var triesAnew = false
    var endpoint: String?
    var region: String?
    /// `auto`, `path`, `virtual` or `virtual-host`.
    var addressing: String?
    /// Class by kind of object: `bundles`, `records`.
    var storageClasses: [String: String] = [:]
    /// `AES256`, `aws:kms` or `aws:kms:KEY`.
    var serverSideEncryption: String?
    /// `GOVERNANCE:30d` or `COMPLIANCE:30d`.
    var objectLock: String?

    /// A profile of the AWS files, and keys that go before everything else.
    var awsProfile: String?
    var accessKeyID: String?
    var secretAccessKey: String?
    var sessionToken: String?

    // MARK: SFTP

    var sshCommand: String?
    var passwordFile: String?
    var acceptsNewHostKey = false
    var hashesRemotely = false
}
