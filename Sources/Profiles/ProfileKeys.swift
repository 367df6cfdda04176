import SnapshotModel

/// Every key there is, in the order in which they are shown. What each means is told in
/// profiles/reference.toml.
enum ProfileKeys {
    /// Names the profile that this one takes the rest from.
    static let inherit = "inherit"
    /// The table that may come several times.
    static let replica = "replica"

    /// Keys outside of every table.
    static let top: [ProfileKey<Profile>] = [
        ProfileKey("description", \.description, .line)
    ]

    static let store: [ProfileKey<Profile.Store>] = [
        ProfileKey("location", \.location, .location),
        ProfileKey("endpoint", \.endpoint, .address("https", "http")),
        ProfileKey("region", \.region, .word),
        ProfileKey("style", \.style, .choice()),
        ProfileKey("ca-file", \.caFile, .path),
        ProfileKey("aws-profile", \.awsProfile, .word),
        ProfileKey("aws-access-key-id", \.accessKeyID, .secret),
        ProfileKey("aws-secret-access-key", \.secretAccessKey, .secret),
        ProfileKey("aws-session-token", \.sessionToken, .secret),
        ProfileKey("storage-class", \.storageClass, .word),
        ProfileKey("storage-class-records", \.recordStorageClass, .word),
        ProfileKey("sse", \.serverEncryption, .choice()),
        ProfileKey("sse-key-id", \.serverEncryptionKey, .word),
        ProfileKey("object-lock", \.objectLock, .choice()),
        // Object Lock counts in days.
        ProfileKey("object-lock-period", \.objectLockSeconds, .duration(from: 86_400)),
        ProfileKey("ssh-command", \.sshCommand, .line),
        ProfileKey("password-file", \.passwordFile, .path),
    ]

    static let sections: [ProfileSection] = [
        ProfileSection("repository", \.repository, store),
        ProfileSection("credentials", \.credentials, credentials),
        ProfileSection("source", \.source, source),
        ProfileSection("backup", \.backup, backup),
        ProfileSection("limits", \.limits, limits),
        ProfileSection("retention", \.retention, retention),
        ProfileSection("prune", \.prune, prune),
        ProfileSection("verify", \.verify, verify),
        ProfileSection("hooks", \.hooks, hooks),
        ProfileSection("notify", \.notify, notify),
        ProfileSection("metrics", \.metrics, [ProfileKey("textfile", \.textfile, .path)]),
        ProfileSection("schedule", \.schedule, schedule),
        ProfileSection("log", \.log, log),
    ]

    static func section(_ name: String) -> ProfileSection? { sections.first { $0.name == name } }

    /// What may stand at the beginning of a line outside of every table, or in brackets.
    static var topNames: [String] {
        [inherit] + top.map(\.name) + sections.map(\.name) + [replica]
    }

    // MARK: Section by section

    private static let credentials: [ProfileKey<Profile.Credentials>] = [
        ProfileKey("passphrase", \.passphrase, .secret),
        ProfileKey("identity", \.identity, .secret),
    ]

    private static let source: [ProfileKey<Profile.Source>] = [
        ProfileKey("paths", \.paths, .list(.path)),
        ProfileKey("files-from", \.filesFrom, .list(.path)),
        ProfileKey("stdin-from-command", \.command, .streamCommand),
        ProfileKey("exclude", \.exclude, .list(.line)),
        ProfileKey("exclude-from", \.excludeFrom, .list(.path)),
        ProfileKey("exclude-if-present", \.excludeIfPresent, .list(.line)),
        ProfileKey("exclude-caches", \.excludeCaches, .flag),
        ProfileKey("exclude-larger-than", \.excludeLargerThan, .size()),
        ProfileKey("exclude-nodump", \.excludeNodump, .flag),
        ProfileKey("one-file-system", \.oneFileSystem, .flag),
        ProfileKey("ignore-files", \.ignoreFiles, .flag),
        ProfileKey("host", \.host, .word),
        ProfileKey("tags", \.tags, .list(.tag)),
    ]

    private static let backup: [ProfileKey<Profile.Backup>] = [
        ProfileKey("compression", \.compression, .whole(1...19)),
        ProfileKey(
            "bundle-size", \.bundleBytes, .size(from: ByteCount(1 << 20), to: ByteCount(512 << 20))),
        ProfileKey("checkpoint-interval", \.checkpointSeconds, .duration(from: 1, to: 86_400)),
        ProfileKey("read-concurrency", \.readConcurrency, .whole(1...64)),
        ProfileKey("spool-directory", \.spoolDirectory, .path),
        ProfileKey("spool-limit", \.spoolBytes, .size(from: ByteCount(1 << 20))),
        ProfileKey("cache-directory", \.cacheDirectory, .path),
        ProfileKey("rehash", \.rehash, .flag),
        ProfileKey("ignore-inode", \.ignoresInode, .flag),
        ProfileKey("ignore-ctime", \.ignoresCtime, .flag),
        ProfileKey("ignore-mtime", \.ignoresMtime, .flag),
    ]

    private static let limits: [ProfileKey<Profile.Limits>] = [
        ProfileKey("upload", \.upload, .line),
        ProfileKey("download", \.download, .line),
    ]

    private static let retention: [ProfileKey<Profile.Retention>] = [
        ProfileKey("keep-last", \.last, .retentionCount),
        ProfileKey("keep-hourly", \.hourly, .retentionCount),
        ProfileKey("keep-daily", \.daily, .retentionCount),
        ProfileKey("keep-weekly", \.weekly, .retentionCount),
        ProfileKey("keep-monthly", \.monthly, .retentionCount),
        ProfileKey("keep-quarterly", \.quarterly, .retentionCount),
        ProfileKey("keep-yearly", \.yearly, .retentionCount),
        ProfileKey("keep-within", \.within, .retentionDuration),
        ProfileKey("keep-within-hourly", \.withinHourly, .retentionDuration),
        ProfileKey("keep-within-daily", \.withinDaily, .retentionDuration),
        ProfileKey("keep-within-weekly", \.withinWeekly, .retentionDuration),
        ProfileKey("keep-within-monthly", \.withinMonthly, .retentionDuration),
        ProfileKey("keep-within-quarterly", \.withinQuarterly, .retentionDuration),
        ProfileKey("keep-within-yearly", \.withinYearly, .retentionDuration),
        ProfileKey("keep-tags", \.tags, .list(.tag)),
        ProfileKey("group-by", \.groupBy, .choices(.choice())),
    ]

    private static let prune: [ProfileKey<Profile.Prune>] = [
        ProfileKey("enabled", \.isEnabled, .flag),
        ProfileKey("interval", \.intervalSeconds, .duration()),
        ProfileKey("max-rewrite", \.maximumRewrite, .share),
    ]

    private static let verify: [ProfileKey<Profile.Verification>] = [
        ProfileKey("read-data", \.readData, .share),
        ProfileKey("interval", \.intervalSeconds, .duration()),
    ]

    private static let hooks: [ProfileKey<Profile.Hooks>] = [
        ProfileKey("before", \.before, .list(.shell)),
        ProfileKey("after", \.after, .list(.shell)),
        ProfileKey("on-failure", \.onFailure, .list(.shell)),
        ProfileKey("time-limit", \.timeLimitSeconds, .duration(from: 1)),
    ]

    private static let notify: [ProfileKey<Profile.Notifications>] = [
        ProfileKey("when", \.occasion, .choice()),
        ProfileKey("webhook", \.webhook, .webAddress),
        ProfileKey("webhook-authorization", \.webhookAuthorization, .secret),
        ProfileKey("healthchecks", \.healthchecks, .webAddress),
        ProfileKey("ntfy", \.ntfy, .webAddress),
        ProfileKey("ntfy-token", \.ntfyToken, .secret),
        ProfileKey("mail-server", \.mailServer, .address("smtps", "smtp")),
        ProfileKey("mail-from", \.mailFrom, .word),
        ProfileKey("mail-to", \.mailTo, .list(.word)),
        ProfileKey("mail-user", \.mailUser, .line),
        ProfileKey("mail-password", \.mailPassword, .secret),
    ]

    private static let schedule: [ProfileKey<Profile.Schedule>] = [
        ProfileKey("calendar", \.calendar, .oneOrMore(.calendar)),
        ProfileKey("random-delay", \.randomDelaySeconds, .duration()),
        ProfileKey("wait-online", \.waitOnlineSeconds, .duration()),
        ProfileKey("if-older-than", \.ifOlderThanSeconds, .duration()),
        ProfileKey("max-age", \.maximumAgeSeconds, .duration(from: 60)),
    ]

    private static let log: [ProfileKey<Profile.Log>] = [
        ProfileKey("file", \.file, .path),
        ProfileKey("level", \.level, .choice()),
        ProfileKey("rotate-at", \.rotateAtBytes, .size(from: ByteCount(10_000))),
    ]
}
