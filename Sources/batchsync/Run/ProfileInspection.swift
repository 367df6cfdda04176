import FileTree
import Glibc
import ObjectStorage
import Profiles
import SnapshotModel

/// Looks at a profile that was read for what only this host, or another room, can know: whether the
/// files that it names are there, and whether stores and rules understand its words.
struct ProfileInspection {
    private let profile: Profile
    /// What makes the profile unusable.
    private(set) var problems: [ProfileProblem] = []
    /// What will probably not do what was meant.
    private(set) var warnings: [ProfileProblem] = []

    /// - Parameter others: The other jobs of this host.
    init(_ profile: Profile, beside others: [Profile] = []) {
        self.profile = profile
        inspectStore(profile.repository, "repository")
        for (index, replica) in profile.replicas.enumerated() {
            inspectStore(replica, "replica[\(index)]")
        }
        inspectSecret(profile.credentials.passphrase, "credentials.passphrase")
        inspectSecret(profile.credentials.identity, "credentials.identity")
        inspectSource()
        inspectLimit(profile.limits.upload, "limits.upload")
        inspectLimit(profile.limits.download, "limits.download")
        inspectHooks(profile.hooks.before, "hooks.before")
        inspectHooks(profile.hooks.after, "hooks.after")
        inspectHooks(profile.hooks.onFailure, "hooks.on-failure")
        inspectNotifications()
        if let file = profile.metrics.textfile {
            inspectDirectory(ofFile: file, "metrics.textfile")
            if let other = others.first(where: { $0.metrics.textfile == file }) {
                warn(
                    "metrics.textfile",
                    "\(other.name) writes \(file) as well, which then tells only of the last run",
                    remedy: "give each profile a file of its own")
            }
        }
        problems.sort { ($0.file, $0.line) < ($1.file, $1.line) }
        warnings.sort { ($0.file, $0.line) < ($1.file, $1.line) }
    }

    private func placed(_ key: String, _ message: String, _ remedy: String) -> ProfileProblem {
        let origin = profile.origins[key]
        return ProfileProblem(
            message, file: origin?.file ?? profile.files.first ?? "", line: origin?.line ?? 0,
            remedy: remedy)
    }

    private mutating func refuse(_ key: String, _ message: String, remedy: String) {
        problems.append(placed(key, message, remedy))
    }

    private mutating func warn(_ key: String, _ message: String, remedy: String = "") {
        warnings.append(placed(key, message, remedy))
    }

    // MARK: Stores and secrets

    private mutating func inspectStore(_ store: Profile.Store, _ name: String) {
        do {
            _ = try StoreLocation(store.location)
        } catch {
            let report = ErrorReport(error)
            refuse("\(name).location", report.message, remedy: report.remedy)
        }
        inspectFile(store.caFile, "\(name).ca-file", "the certificates")
        inspectSecretFile(store.passwordFile, "\(name).password-file", "the password")
        inspectSecret(store.accessKeyID, "\(name).aws-access-key-id")
        inspectSecret(store.secretAccessKey, "\(name).aws-secret-access-key")
        inspectSecret(store.sessionToken, "\(name).aws-session-token")
    }

    private mutating func inspectSecret(_ reference: SecretReference?, _ key: String) {
        switch reference {
        case .file(let path): inspectSecretFile(path, key, "the secret")
        case .environment(let name):
            if RawArguments.environment(name) == nil {
                warn(
                    key, "the variable \(name) is not set here",
                    remedy: "it has to be set where the profile runs, at night too")
            }
        case .command(let line): inspectHooks([line], key)
        case .credential, nil: break
        }
    }

    /// A file that others can read keeps no secret.
    private mutating func inspectSecretFile(_ path: String?, _ key: String, _ what: String) {
        guard let path, inspectFile(path, key, what), Self.isExposed(path) else { return }
        warn(key, Self.exposure(path), remedy: "chmod 600 \(path)")
    }

    private static func isExposed(_ path: String) -> Bool {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return false }
        return status.st_mode & (S_IRGRP | S_IROTH | S_IWGRP | S_IWOTH) != 0
    }

    private static func exposure(_ path: String) -> String {
        "others than its owner can read or write \(path), which holds a secret"
    }

    /// What is to be said of files that keep secrets of a profile and keep them badly, in a run that
    /// uses them all the same.
    static func exposedSecrets(of profile: Profile) -> [String] {
        var paths = profile.secrets.compactMap {
            if case .file(let path) = $0.reference { path } else { nil }
        }
        paths += ([profile.repository] + profile.replicas).compactMap(\.passwordFile)
        return Set(paths).sorted().filter(isExposed).map { "\(exposure($0)): chmod 600 \($0)" }
    }

    /// What reaches stores from here by variables that neither systemd nor cron hands to a run, as
    /// sentences with what to do.
    static func missingWhenScheduled(_ profile: Profile) -> [(message: String, remedy: String)] {
        var found: [(message: String, remedy: String)] = []
        for store in [profile.repository] + profile.replicas where store.isAddress(of: "s3") {
            func look(_ what: String, _ isWritten: Bool, _ variables: [String], _ keys: String) {
                guard !isWritten,
                    let variable = variables.first(where: { RawArguments.environment($0) != nil })
                else { return }
                found.append(
                    (
                        "\(what) of \(store.location) comes from the variable \(variable), which is not there at night",
                        "write \(keys) below the store's location"
                    ))
            }
            look(
                "the key", store.accessKeyID != nil || store.awsProfile != nil,
                ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"],
                "aws-access-key-id and aws-secret-access-key, by reference, or aws-profile")
            look(
                "the server", store.endpoint != nil, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
                "endpoint")
            look(
                "the region", store.region != nil, ["AWS_REGION", "AWS_DEFAULT_REGION"], "region")
        }
        return found
    }

    // MARK: Sources

    private mutating func inspectSource() {
        let source = profile.source
        if source.isEmpty {
            warn("source.paths", "the profile has no source, so that a run has nothing to back up")
        }
        for path in source.paths {
            var status = stat()
            if lstat(path, &status) != 0 {
                warn(
                    "source.paths", "\(path): \(String(cString: strerror(errno)))",
                    remedy: "every source has to be there when a run begins")
            }
        }
        for path in source.filesFrom {
            inspectFile(path, "source.files-from", "the list of sources")
        }
        for path in source.excludeFrom {
            inspectFile(path, "source.exclude-from", "the list of patterns")
        }
        for text in source.excludeIfPresent where ExclusionMarker(option: Array(text.utf8)) == nil {
            refuse(
                "source.exclude-if-present", "'\(text)' is not the name of a file",
                remedy: "write NAME or NAME:HEADER")
        }
        if let name = source.command?.name {
            do {
                _ = try BackupCommand.streamName(Array(name.utf8))
            } catch {
                refuse(
                    "source.stdin-from-command", "'\(name)' is no name for a file",
                    remedy: "write a name such as \"shop.sql\"")
            }
        }
        var rules = ExclusionRules()
        for pattern in source.exclude { rules.add(option: Array(pattern.utf8)) }
        for (rule, defect) in rules.neverMatching {
            warn("source.exclude", "\(rule) never matches: \(defect)")
        }
        for rule in rules.probablyAbsolute(roots: source.paths.map { Array($0.utf8) }) {
            warn(
                "source.exclude", "\(rule) begins at the source",
                remedy: "a path from the root of the file system begins with //")
        }
    }

    // MARK: The rest

    private mutating func inspectLimit(_ text: String, _ key: String) {
        do throws(RateSyntaxError) {
            _ = try RateTimetable(parsing: text) { ByteCount(parsing: $0)?.bytes }
        } catch {
            refuse(key, "'\(text)': \(error)", remedy: error.remedy)
        }
    }

    /// Asks the shell whether it understands the lines; it runs none of them.
    private mutating func inspectHooks(_ lines: [String], _ key: String) {
        for line in lines where !ShellOutput.isUnderstood(Array(line.utf8)) {
            warn(
                key, "the shell does not understand '\(UTF8Text.display(Array(line.utf8)))'",
                remedy: "sh -n -c shows why")
        }
    }

    private mutating func inspectNotifications() {
        let notify = profile.notify
        for (value, key) in [
            (notify.webhook, "webhook"), (notify.healthchecks, "healthchecks"),
            (notify.ntfy, "ntfy"),
        ] {
            if case .reference(let reference) = value { inspectSecret(reference, "notify.\(key)") }
        }
        inspectSecret(notify.webhookAuthorization, "notify.webhook-authorization")
        inspectSecret(notify.ntfyToken, "notify.ntfy-token")
        inspectSecret(notify.mailPassword, "notify.mail-password")
    }

    @discardableResult
    private mutating func inspectFile(_ path: String?, _ key: String, _ what: String) -> Bool {
        guard let path, access(path, R_OK) != 0 else { return true }
        warn(
            key, "cannot read \(what) in \(path): \(String(cString: strerror(errno)))",
            remedy: "it has to be there, and readable, where the profile runs")
        return false
    }

    private mutating func inspectDirectory(ofFile path: String, _ key: String) {
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        guard access(directory.isEmpty ? "/" : directory, W_OK) != 0 else { return }
        warn(
            key, "cannot write into \(directory): \(String(cString: strerror(errno)))",
            remedy: "make the directory, or choose another")
    }
}
