import ArgumentParser
import ObjectStorage
import SnapshotModel

/// How a store that is no directory is reached and used.
struct StoreOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The address of an S3 service other than Amazon's.",
            discussion:
                "Without it AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL says which.",
            valueName: "url"),
        transform: plainText)
    var endpoint: String?

    @Option(
        help: ArgumentHelp(
            "The region of the bucket. Without it AWS_REGION or AWS_DEFAULT_REGION says which.",
            valueName: "name"),
        transform: plainText)
    var region: String?

    @Option(
        help: ArgumentHelp(
            "How a bucket is named in requests: path (host/bucket), virtual (bucket.host) or auto.",
            valueName: "style"),
        transform: plainText)
    var s3Style: String?

    @Option(
        help: ArgumentHelp(
            "Put new bundles into this storage class, such as STANDARD_IA; records stay in the bucket's own.",
            valueName: "class"),
        transform: plainText)
    var storageClass: String?

    @Option(
        help: ArgumentHelp(
            "Let the S3 service encrypt as well: AES256, aws:kms or aws:kms:KEY.",
            valueName: "how"),
        transform: plainText)
    var sse: String?

    @Option(
        help: ArgumentHelp(
            "Lock new objects for some days: GOVERNANCE:30d or COMPLIANCE:30d. The bucket must allow it.",
            valueName: "mode:days"),
        transform: plainText)
    var objectLock: String?

    @Option(
        help: ArgumentHelp(
            "Trust the certificates in this file, in PEM, instead of the system's.",
            valueName: "file"))
    var caFile: PathArgument?

    @Option(
        help: ArgumentHelp(
            "Reach an SFTP server by this command instead of 'ssh'.", valueName: "command"),
        transform: plainText)
    var sshCommand: String?

    @Option(
        help: ArgumentHelp(
            "Log in to an SFTP server with the password in this file, without ssh.",
            valueName: "file"))
    var passwordFile: PathArgument?

    @Flag(
        help:
            "Trust an SFTP server that is reached for the first time, and remember its key."
    )
    var acceptNewHostKey = false

    @Option(
        help: ArgumentHelp(
            "Send no faster than this: 20MB/s, or 'mon-fri 08:00-18:00 2MB/s, else unlimited'.",
            valueName: "rate"),
        transform: RateTimetable.init(argument:))
    var limitUpload: RateTimetable?

    @Option(
        help: ArgumentHelp("Fetch no faster than this, written the same way.", valueName: "rate"),
        transform: RateTimetable.init(argument:))
    var limitDownload: RateTimetable?

    @Option(
        help: ArgumentHelp(
            "Wait this long for a store that does not answer, such as 2h. Without it 15 minutes once the work has begun.",
            valueName: "time"))
    var waitOnline: DurationArgument?

    @Option(
        help: ArgumentHelp(
            "Use at most so many connections at once. Without it, as many as the store is found to bear.",
            valueName: "count"))
    var connections: Int?

    func validate() throws {
        if let s3Style, !["auto", "path", "virtual"].contains(s3Style) {
            throw ValidationError("--s3-style is path, virtual or auto")
        }
        if let connections, !(1...64).contains(connections) {
            throw ValidationError("--connections takes 1 to 64")
        }
        if passwordFile != nil && sshCommand != nil {
            throw ValidationError(
                "--password-file logs in without ssh; leave it or --ssh-command out")
        }
    }

    /// What they say.
    func access() throws(CommandError) -> StoreAccess {
        var access = StoreAccess()
        access.endpoint = endpoint
        access.region = region
        access.addressing = s3Style
        if let storageClass { access.storageClasses["bundles"] = storageClass }
        access.serverSideEncryption = sse
        access.objectLock = objectLock
        if let caFile { access.caFile = try Assembly.text(caFile.bytes, of: "a file") }
        access.sshCommand = sshCommand
        if let passwordFile {
            access.passwordFile = try Assembly.text(passwordFile.bytes, of: "a file")
        }
        access.acceptsNewHostKey = acceptNewHostKey
        access.uploadLimit = limitUpload
        access.downloadLimit = limitDownload
        access.waitOnlineSeconds = waitOnline?.seconds
        access.connections = connections
        return access
    }
}

extension RateTimetable {
    fileprivate init(argument: String) throws {
        let word = try plainText(argument)
        do throws(RateSyntaxError) {
            self = try RateTimetable(parsing: word) { ByteCount(parsing: $0)?.bytes }
        } catch {
            throw ValidationError("\(error): \(error.remedy)")
        }
    }
}

/// A length of time such as `90s`, `15m`, `2h`, `3d`; a bare number means seconds.
struct DurationArgument: ExpressibleByArgument, Sendable {
    let seconds: Double

    init?(argument: String) {
        guard let unit = argument.last else { return nil }
        let factors: [Character: Double] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800]
        let digits = factors[unit] == nil ? argument[...] : argument.dropLast()
        guard let number = Double(digits), number >= 0, number.isFinite else { return nil }
        seconds = number * (factors[unit] ?? 1)
    }
}
