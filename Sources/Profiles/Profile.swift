package import SnapshotModel

/// One backup job, as a TOML file describes it: what, where to, how, when, and who is told.
///
/// Plain values. A default stands beside its key, with its reason; what has none is optional or
/// empty. Paths are absolute, or begin at the working directory if the profile was named so; `~`
/// and `${VARIABLES}` are replaced. Secrets are references and never in here.
package struct Profile: Sendable, Equatable {
    /// What the user called it: the file's name without `.toml`.
    package internal(set) var name = ""
    /// The file itself and what it inherits from, the file itself first.
    package internal(set) var files: [String] = []
    /// Where each value that is no default came from, by the key's full name: `backup.compression`,
    /// `replica[0].location`.
    package internal(set) var origins: [String: ProfileOrigin] = [:]

    package var description: String?
    package var repository = Store()
    /// Further stores of the same repository.
    package var replicas: [Store] = []
    package var credentials = Credentials()
    package var source = Source()
    package var backup = Backup()
    package var limits = Limits()
    package var retention = Retention()
    package var prune = Prune()
    package var verify = Verification()
    package var hooks = Hooks()
    package var notify = Notifications()
    package var metrics = Metrics()
    package var schedule = Schedule()
    package var log = Log()

    package init() {}
}

// MARK: - Where to

extension Profile {
    /// A place for the repository's objects, and how to reach it.
    package struct Store: Sendable, Equatable {
        /// How a bucket is named in a request.
        package enum Style: String, Sendable, CaseIterable {
            case auto
            case path
            case virtualHost = "virtual-host"
        }

        package enum ServerEncryption: String, Sendable, CaseIterable {
            case s3 = "AES256"
            case kms = "aws:kms"
        }

        package enum ObjectLock: String, Sendable, CaseIterable {
            case governance
            case compliance
        }

        /// A path or an address. Never empty in a profile that was loaded.
        package var location = ""
        package var endpoint: String?
        package var region: String?
        // Amazon wants host names, everybody else serves paths for certain.
        package var style = Style.auto
        package var caFile: String?
        package var awsProfile: String?
        package var accessKeyID: SecretReference?
        package var secretAccessKey: SecretReference?
        package var sessionToken: SecretReference?
        package var storageClass: String?
        package var recordStorageClass: String?
        package var serverEncryption: ServerEncryption?
        package var serverEncryptionKey: String?
        package var objectLock: ObjectLock?
        package var objectLockSeconds: Int?
        // Whoever configured ssh for the host finds it used.
        package var sshCommand = "ssh"
        package var passwordFile: String?

        package init() {}

        /// Whether the location is an address of this scheme, such as `s3`.
        package func isAddress(of scheme: String) -> Bool { location.hasPrefix(scheme + "://") }
    }

    package struct Credentials: Sendable, Equatable {
        package var passphrase: SecretReference?
        package var identity: SecretReference?

        package init() {}
    }
}

// MARK: - What, and how

extension Profile {
    package struct Source: Sendable, Equatable {
        package var paths: [String] = []
        /// Files that list more paths.
        package var filesFrom: [String] = []
        package var command: StreamCommand?
        package var exclude: [String] = []
        package var excludeFrom: [String] = []
        package var excludeIfPresent: [String] = []
        // A backup that leaves out what nobody asked it to leave out is missed when it is too late.
        package var excludeCaches = false
        package var excludeLargerThan: ByteCount?
        package var excludeNodump = false
        package var oneFileSystem = false
        // Whoever writes the file .batchsyncignore means it.
        package var ignoreFiles = true
        package var host: String?
        package var tags: [String] = []

        package init() {}

        /// Whether there is nothing to back up.
        package var isEmpty: Bool { paths.isEmpty && filesFrom.isEmpty && command == nil }
    }

    package struct Backup: Sendable, Equatable {
        // 3.3:1 at 0.45 GB/s and core; more takes longer than any line would save.
        package var compression = 3
        // Few requests, and a retry that costs seconds.
        package var bundleBytes = ByteCount(64 << 20)
        // What an interruption costs at most, against one small object each time.
        package var checkpointSeconds = 300
        package var readConcurrency = 2
        package var spoolDirectory: String?
        // Sixteen bundles: minutes of a slow line, and nobody's disk is full of them.
        package var spoolBytes = ByteCount(1 << 30)
        package var cacheDirectory: String?
        package var rehash = false
        package var ignoresInode = false
        package var ignoresCtime = false
        package var ignoresMtime = false

        package init() {}
    }

    package struct Limits: Sendable, Equatable {
        package var upload = "unlimited"
        package var download = "unlimited"

        package init() {}
    }

    package struct Verification: Sendable, Equatable {
        // Reading back costs money at some stores, so it is asked for.
        package var readData = ByteShare.nothing
        // Structure costs a listing; every run can afford it.
        package var intervalSeconds = 0

        package init() {}
    }
}

// MARK: - What stays

extension Profile {
    package struct Retention: Sendable, Equatable {
        package enum Property: String, Sendable, CaseIterable {
            case host
            case paths
            case tags
        }

        package var last: RetentionCount?
        package var hourly: RetentionCount?
        package var daily: RetentionCount?
        package var weekly: RetentionCount?
        package var monthly: RetentionCount?
        package var quarterly: RetentionCount?
        package var yearly: RetentionCount?
        package var within: RetentionDuration?
        package var withinHourly: RetentionDuration?
        package var withinDaily: RetentionDuration?
        package var withinWeekly: RetentionDuration?
        package var withinMonthly: RetentionDuration?
        package var withinQuarterly: RetentionDuration?
        package var withinYearly: RetentionDuration?
        package var tags: [String] = []
        // As the verb forget groups them. A run judges only snapshots of its own host and sources, so
        // that two jobs cannot push out each other's.
        package var groupBy: [Property] = [.host, .paths]

        package init() {}
    }

    package struct Prune: Sendable, Equatable {
        package var isEnabled = true
        // What died in a week is worth the requests; what died in a night is not.
        package var intervalSeconds = 7 * 86_400
        // Bounds what a night may upload again; what is left over is freed by the next one.
        package var maximumRewrite = ByteShare(percent: 5)

        package init() {}
    }
}

// MARK: - When, and who is told

extension Profile {
    package struct Hooks: Sendable, Equatable {
        /// Lines for the shell.
        package var before: [String] = []
        package var after: [String] = []
        package var onFailure: [String] = []
        // A dump of a large database takes its time; a hook that hangs must not take the night.
        package var timeLimitSeconds = 3_600

        package init() {}
    }

    package struct Notifications: Sendable, Equatable {
        package enum Occasion: String, Sendable, CaseIterable {
            case failure
            case change
            case always
            case never
        }

        // What arrives every morning is not read any more when it matters.
        package var occasion = Occasion.failure
        package var webhook: ReferenceOrText?
        package var webhookAuthorization: SecretReference?
        package var healthchecks: ReferenceOrText?
        package var ntfy: ReferenceOrText?
        package var ntfyToken: SecretReference?
        package var mailServer: String?
        package var mailFrom: String?
        package var mailTo: [String] = []
        package var mailUser: String?
        package var mailPassword: SecretReference?

        package init() {}
    }

    package struct Metrics: Sendable, Equatable {
        package var textfile: String?

        package init() {}
    }

    package struct Schedule: Sendable, Equatable {
        package var calendar: [CalendarExpression] = []
        package var randomDelaySeconds = 0
        package var waitOnlineSeconds = 0
        package var ifOlderThanSeconds = 0
        // A nightly run that is half a day late.
        package var maximumAgeSeconds = 36 * 3_600

        package init() {}
    }

    package struct Log: Sendable, Equatable {
        package enum Level: String, Sendable, CaseIterable {
            case error
            case warning
            case info
            case debug
        }

        package var file: String?
        package var level = Level.info
        // A year of quiet nights.
        package var rotateAtBytes = ByteCount(10_000_000)

        package init() {}
    }
}

/// A program whose output is backed up as a file.
package struct StreamCommand: Sendable, Equatable {
    /// The file's name in the snapshot.
    package var name: String
    /// The program and its arguments.
    package var words: [String]

    package init(name: String, words: [String]) {
        self.name = name
        self.words = words
    }
}

/// Where the value of a key came from.
package struct ProfileOrigin: Sendable, Equatable {
    package var file: String
    package var line: Int
    /// Whether the file is one that the profile inherits from.
    package var isInherited: Bool
    /// Variables of the environment that the value was made with, in order and each once.
    package var variables: [String]
}
