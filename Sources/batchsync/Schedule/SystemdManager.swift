import SnapshotRepository

/// systemd as it is on this host: the system's manager, or a user's.
struct SystemdManager {
    let isRoot: Bool
    /// Where units lie.
    let directory: String

    /// - Parameter directory: Nil for where the manager looks for units of the administrator's.
    init(isRoot: Bool, directory: String?, environment: [String: String]) {
        self.isRoot = isRoot
        if let directory {
            self.directory = directory
        } else if isRoot {
            self.directory = "/etc/systemd/system"
        } else {
            let base = environment["XDG_CONFIG_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil }
            self.directory = (base ?? "\(environment["HOME"] ?? "")/.config") + "/systemd/user"
        }
    }

    /// Whether the machine was started by systemd.
    static var isRunning: Bool { LocalFile.exists("/run/systemd/system") }

    func path(_ unit: String) -> String { "\(directory)/\(unit)" }

    /// What is installed under a unit's name; nil where nothing is.
    func installed(_ unit: String) throws(CommandError) -> String? {
        do {
            return try LocalFile.read(path(unit), maximumBytes: 1 << 20).map {
                String(decoding: $0, as: UTF8.self)
            }
        } catch {
            throw CommandError(.failed, error.description, remedy: error.remedy)
        }
    }

    /// Writes units. Those of somebody else stay as they are.
    func write(_ units: SystemdUnits) throws(CommandError) {
        for (name, text) in units.files {
            try refuseForeign(name, profile: units.job.profile)
            do {
                // Units hold no secret, and systemd warns of those that it alone can read.
                try LocalFile.write(Array(text.utf8), to: path(name), mode: 0o644)
            } catch {
                throw CommandError(.failed, error.description, remedy: error.remedy)
            }
        }
    }

    /// Refuses a unit that somebody else made, or that runs another profile of the same name.
    func refuseForeign(_ unit: String, profile: String?) throws(CommandError) {
        guard let there = try installed(unit) else { return }
        guard there.hasPrefix(SystemdUnits.mark) else {
            throw CommandError(
                .failed, "\(path(unit)) was not made by batchsync and is left as it is",
                remedy: "move it away, or give the profile another name")
        }
        if let profile, !there.hasPrefix("\(SystemdUnits.mark) of \(profile).\n") {
            throw CommandError(
                .failed, "\(path(unit)) runs another profile of the same name",
                remedy: "give one of the two another name, or remove that schedule first")
        }
    }

    /// - Returns: Whether there was one.
    func remove(_ unit: String) throws(CommandError) -> Bool {
        guard try installed(unit) != nil else { return false }
        LocalFile.remove(path(unit))
        return true
    }

    /// Tells the manager something; what it complains of is the error.
    func control(_ words: String...) throws(CommandError) {
        let all = ["systemctl"] + (isRoot ? [] : ["--user"]) + words
        let outcome = SystemProgram.run(all)
        guard !outcome.isGood else { return }
        let complaint = outcome.complaint.split(separator: "\n").first.map(String.init) ?? ""
        throw CommandError(
            .failed, "'\(all.joined(separator: " "))' failed: \(complaint)",
            remedy: isRoot
                ? "the units are in \(directory); enable the timer by hand when systemd is there"
                : "a user's manager runs while the user is logged in; the units are in \(directory)"
        )
    }

    /// Whether a user's jobs run while the user is not logged in.
    static func lingers(_ user: String) -> Bool {
        LocalFile.exists("/var/lib/systemd/linger/\(user)")
    }

    /// Of these credentials those that lie encrypted where the manager looks for them.
    static func encrypted(_ names: [String]) -> Set<String> {
        Set(names.filter { LocalFile.exists("/etc/credstore.encrypted/\($0)") })
    }
}
