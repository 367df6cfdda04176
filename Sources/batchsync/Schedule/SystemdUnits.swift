import Profiles

/// The units by which systemd runs a job: a service and its timer. Pure text.
struct SystemdUnits {
    /// The first line of a unit that this made. Others are never written over nor removed.
    static let mark = "# Made by 'batchsync schedule install'"

    let job: ScheduledJob
    /// Credentials of which there is an encrypted form on this host.
    let encryptedCredentials: Set<String>

    init(_ job: ScheduledJob, encryptedCredentials: Set<String> = []) {
        self.job = job
        self.encryptedCredentials = encryptedCredentials
    }

    /// What cannot stand in the name of a unit is written as systemd-escape(1) does.
    static func baseName(_ name: String) -> String {
        var text = "batchsync-"
        for byte in name.utf8 {
            let isPlain =
                (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte | 0x20)
                || "._-:".utf8.contains(byte)
            if isPlain && byte < 0x80 {
                text.unicodeScalars.append(UnicodeScalar(byte))
            } else {
                text += "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
            }
        }
        return text
    }

    var serviceName: String { Self.baseName(job.name) + ".service" }
    var timerName: String { Self.baseName(job.name) + ".timer" }

    /// Names and texts.
    var files: [(name: String, text: String)] { [(serviceName, service), (timerName, timer)] }

    private var head: [String] {
        [
            "\(Self.mark) of \(job.profile).",
            "# Change the profile and install again; what is to differ from it goes into a drop-in.",
            "",
        ]
    }

    // MARK: - Service

    private var service: String {
        var lines = head
        lines += ["[Unit]", "Description=Backup by batchsync: \(Self.specifierFree(job.title))"]
        lines.append("Documentation=man:batchsync-run(1) man:batchsync-profile(5)")
        // Users' managers have no such target.
        if job.isRoot { lines += ["Wants=network-online.target", "After=network-online.target"] }
        lines += ["", "[Service]", "Type=oneshot"]
        lines.append(
            "ExecStart=\(Self.word(job.program)) run --no-progress \(Self.word(job.profile))")
        lines += job.environment.map { "Environment=\(Self.quoted("\($0.name)=\($0.value)"))" }
        lines += job.credentials.map(credential)
        lines += [
            "# The run ends cleanly when it is asked to; what was stored is used by the next one.",
            "TimeoutStopSec=5min",
            "# Whoever works on this machine goes first.",
            "Nice=10", "IOSchedulingClass=best-effort", "IOSchedulingPriority=7",
            "CPUSchedulingPolicy=batch", "UMask=0077", "",
        ]
        lines += hardening
        return lines.joined(separator: "\n") + "\n"
    }

    private func credential(_ name: String) -> String {
        let id = Self.specifierFree(name)
        if encryptedCredentials.contains(name) { return "LoadCredentialEncrypted=\(id)" }
        // The manager of the system looks into /etc/credstore by itself.
        return job.isRoot
            ? "LoadCredential=\(id)" : "LoadCredential=\(id):%h/.config/credstore/\(id)"
    }

    /// What the run does not need is taken from it, so that whoever gets hold of it through what it
    /// reads gets little.
    private var hardening: [String] {
        var lines = ["LockPersonality=yes", "RestrictRealtime=yes"]
        if job.runsCommands {
            // They stop services, become other users, mount snapshots: nothing that would be known
            // here.
            return ["# The profile runs commands of its own, which may need anything."] + lines
        }
        lines += [
            "MemoryDenyWriteExecute=yes", "NoNewPrivileges=yes", "RestrictNamespaces=yes",
            "RestrictSUIDSGID=yes", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "SystemCallArchitectures=native", "SystemCallFilter=@system-service",
            "SystemCallErrorNumber=EPERM",
        ]
        guard job.isRoot else { return lines }
        var capabilities = "CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_ADMIN"
        if job.writesForOthers { capabilities += " CAP_DAC_OVERRIDE" }
        lines += [
            "# Root reads every file and leaves no trace in it. Attributes of the name space 'trusted' are",
            "# seen only with CAP_SYS_ADMIN; the filter of system calls takes away what else it allows.",
            "CapabilityBoundingSet=\(capabilities)",
            "# Everything can be read, and only this be written. Nothing that may be a source is hidden:",
            "# no PrivateTmp, PrivateDevices, ProtectHome=yes, ProtectKernelModules or -Logs.",
            "ProtectSystem=strict", "ProtectHome=read-only", "ProtectClock=yes",
            "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectKernelTunables=yes",
            "DevicePolicy=closed", "CacheDirectory=batchsync", "CacheDirectoryMode=0700",
            "StateDirectory=batchsync", "StateDirectoryMode=0700",
        ]
        // The dash: a disk that is not there yet is no reason not to start and say so.
        lines += job.writablePaths.map {
            "ReadWritePaths=\(Self.quoted("-" + $0))"
        }
        return lines
    }

    // MARK: - Timer

    private var timer: String {
        var lines = head
        lines += ["[Unit]", "Description=Times of \(serviceName)", "", "[Timer]"]
        lines += job.calendar.flatMap(\.systemd).map { "OnCalendar=\($0)" }
        if job.randomDelaySeconds > 0 {
            lines.append("RandomizedDelaySec=\(job.randomDelaySeconds)s")
        }
        lines += [
            "# What was missed while the machine was off is made up for.", "Persistent=true", "",
            "[Install]", "WantedBy=timers.target",
        ]
        return lines.joined(separator: "\n") + "\n"
    }

    // MARK: - systemd's spelling

    /// Text in which a percent sign means itself.
    static func specifierFree(_ text: String) -> String {
        text.replacing("%", with: "%%").replacing("\n", with: " ")
    }

    /// One word, whatever stands in it, where nothing is expanded.
    static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in specifierFree(text).unicodeScalars {
            if scalar == "\"" || scalar == "\\" { out += "\\" }
            out.unicodeScalars.append(scalar)
        }
        return out + "\""
    }

    /// One word of a command line, where dollars mean variables.
    static func word(_ text: String) -> String {
        let isPlain = text.utf8.allSatisfy {
            (0x30...0x39).contains($0) || (0x61...0x7A).contains($0 | 0x20)
                || "/._-+:@,=".utf8.contains($0)
        }
        return isPlain ? text : quoted(text).replacing("$", with: "$$")
    }
}
