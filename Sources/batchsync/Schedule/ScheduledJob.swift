import Glibc
import ObjectStorage
import Profiles
import SnapshotRepository

/// What a scheduler has to know of a profile to run it. A value; it touches nothing.
struct ScheduledJob {
    let name: String
    /// What a person calls the job.
    let title: String
    /// The absolute path of the profile's file.
    let profile: String
    /// The absolute path of this program.
    let program: String
    let isRoot: Bool
    let calendar: [CalendarExpression]
    let randomDelaySeconds: Int
    /// Variables that this program finds its own files by, as they are now.
    let environment: [(name: String, value: String)]
    /// Names of the systemd credentials that the profile refers to.
    let credentials: [String]
    /// Whether the profile names commands, of which nothing is known here.
    let runsCommands: Bool
    /// Whether a repository in a directory belongs to another user.
    let writesForOthers: Bool
    /// Directories that a run writes into.
    let writablePaths: [String]

    /// Variables that say where the files of this host are.
    private static let carried = [
        "BATCHSYNC_CONFIG_DIR", "BATCHSYNC_CACHE_DIR", "BATCHSYNC_STATE_DIR", "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME", "XDG_STATE_HOME",
    ]
    /// Variables that every scheduler sets.
    private static let givenEverywhere = ["HOME", "USER", "LOGNAME", "SHELL", "PATH"]

    /// - Throws: Where the profile has no time, or needs what no scheduler has.
    init(
        _ profile: Profile, program: String, isRoot: Bool, environment: [String: String],
        directories: HostDirectories
    ) throws(CommandError) {
        guard !profile.schedule.calendar.isEmpty else {
            throw .usage(
                "\(profile.name): the profile does not say when it runs",
                remedy: "write calendar = \"02:30\" below [schedule]")
        }
        for (key, reference) in profile.secrets {
            guard case .environment(let variable) = reference else { continue }
            throw .usage(
                "\(profile.name): \(key) comes from the variable \(variable), which is not there at night",
                remedy:
                    "refer to a file with mode 600 or to a systemd credential; a schedule keeps no secret"
            )
        }
        for (key, origin) in profile.origins.sorted(by: { $0.key < $1.key }) {
            guard
                let variable = origin.variables.first(where: {
                    !Self.givenEverywhere.contains($0) && !Self.carried.contains($0)
                })
            else { continue }
            throw .usage(
                "\(profile.name): \(key) is made with ${\(variable)}, which is not there at night",
                remedy: "write the value into the profile")
        }
        name = profile.name
        title = profile.description ?? profile.name
        self.profile = profile.files.first ?? profile.name
        self.program = program
        self.isRoot = isRoot
        calendar = profile.schedule.calendar
        randomDelaySeconds = profile.schedule.randomDelaySeconds
        var variables = Self.carried.compactMap { name in
            environment[name].flatMap { $0.isEmpty ? nil : (name: name, value: $0) }
        }
        if isRoot { variables.append((name: "HOME", value: environment["HOME"] ?? "/root")) }
        self.environment = variables
        credentials =
            profile.secrets.compactMap {
                if case .credential(let name) = $0.reference { name } else { nil }
            }.uniqued
        let hooks = profile.hooks
        runsCommands =
            !(hooks.before + hooks.after + hooks.onFailure).isEmpty || profile.source.command != nil
            || profile.secrets.contains { if case .command = $0.reference { true } else { false } }
        let stores = profile.locations.compactMap { location in
            if case .directory(let path)? = try? StoreLocation(location) { path } else { nil }
        }
        writesForOthers = stores.contains { path in
            var status = stat()
            return stat(path, &status) == 0 && status.st_uid != 0
        }
        // Keys are only read at night, and beside them lies what notes that a place is encrypted.
        var paths = [directories.state, profile.backup.cacheDirectory ?? directories.cache]
        paths += [directories.configuration + "/encrypted"] + stores
        paths += [profile.backup.spoolDirectory ?? "/var/tmp", "/tmp"]
        paths += [profile.metrics.textfile, profile.log.file].compactMap { file in
            file.flatMap { $0.lastIndex(of: "/") }.map { String(file![..<$0]) }
        }
        writablePaths = paths.filter { $0.hasPrefix("/") && $0 != "/" }.uniqued
    }
}

extension [String] {
    /// Each once, in order.
    fileprivate var uniqued: [String] {
        var seen: Set<String> = []
        return filter { seen.insert($0).inserted }
    }
}

extension Profile {
    /// Every secret that the profile refers to, by the name of its key.
    var secrets: [(key: String, reference: SecretReference)] {
        var found: [(String, SecretReference?)] = [
            ("credentials.passphrase", credentials.passphrase),
            ("credentials.identity", credentials.identity),
        ]
        for (index, store) in ([repository] + replicas).enumerated() {
            let table = index == 0 ? "repository" : "replica[\(index - 1)]"
            found += [
                ("\(table).aws-access-key-id", store.accessKeyID),
                ("\(table).aws-secret-access-key", store.secretAccessKey),
                ("\(table).aws-session-token", store.sessionToken),
            ]
        }
        for (name, value) in [
            ("webhook", notify.webhook), ("healthchecks", notify.healthchecks),
            ("ntfy", notify.ntfy),
        ] {
            if case .reference(let reference)? = value {
                found.append(("notify.\(name)", reference))
            }
        }
        found += [
            ("notify.webhook-authorization", notify.webhookAuthorization),
            ("notify.ntfy-token", notify.ntfyToken), ("notify.mail-password", notify.mailPassword),
        ]
        return found.compactMap { key, reference in reference.map { (key, $0) } }
    }
}
