import ArgumentParser
import Glibc
import Profiles
import SnapshotModel

struct ScheduleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "schedule",
        abstract: "Have a profile run by itself, at the times that it names.",
        discussion: """
            The times are the key calendar below [schedule] in the profile: a calendar expression of systemd such as 'Mon..Fri 22:00', \
            or the five fields of a crontab. With systemd a service and a timer are written and enabled: for root those of the \
            system, which may read everything and write only where the job writes; for others units of the user. Where there is no systemd, a line of \
            the user's crontab does it. In a container batchsync daemon runs the same schedules.

            The installation also brings units for any profile in /etc/batchsync, without times and limits of its own: \
            'systemctl start batchsync@home' runs one now, and 'systemctl enable --now batchsync@home.timer' every night.

                batchsync schedule install home
                batchsync schedule show home
                batchsync schedule remove home

            A profile whose secrets come from the environment is refused: a schedule keeps no secret, and a variable is \
            not there at night.
            """,
        subcommands: [
            ScheduleInstallCommand.self, ScheduleShowCommand.self, ScheduleRemoveCommand.self,
        ])
}

/// What the three verbs are told.
struct ScheduleOptions: ParsableArguments {
    @Argument(
        help: ArgumentHelp("The profile's name, or the path of its file.", valueName: "profile"),
        transform: plainText)
    var name: String

    @Flag(help: "Use the crontab even where there is systemd.")
    var cron = false

    @Option(
        help: ArgumentHelp(
            "Keep the units in this directory and leave systemd alone, as for an image.",
            valueName: "directory"))
    var unitDirectory: PathArgument?

    func validate() throws {
        if cron && unitDirectory != nil {
            throw ValidationError("--cron and --unit-directory contradict each other")
        }
    }

    var isRoot: Bool { geteuid() == 0 }

    /// Nil where a crontab does it.
    func systemd() throws -> SystemdManager? {
        let directory = try unitDirectory.map {
            try Assembly.text($0.bytes, of: "a directory of units")
        }
        guard !cron, directory != nil || SystemdManager.isRunning else { return nil }
        return SystemdManager(
            isRoot: isRoot, directory: directory, environment: Assembly.environment)
    }

    /// Whether units are put where systemd finds them, and it is to be told.
    var isLive: Bool { unitDirectory == nil }

    func job(_ profile: Profile) throws -> ScheduledJob {
        guard let program = HostFile.realPath(Array("/proc/self/exe".utf8)) else {
            throw CommandError(.failed, "cannot tell where this program lies")
        }
        return try ScheduledJob(
            profile, program: try Assembly.text(program, of: "this program"), isRoot: isRoot,
            environment: Assembly.environment, directories: try Assembly(profile).directories())
    }

    func units(_ job: ScheduledJob) -> SystemdUnits {
        SystemdUnits(
            job, encryptedCredentials: SystemdManager.encrypted(job.credentials))
    }
}

struct ScheduleInstallCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "install", abstract: "Write and enable the schedule of a profile.",
        discussion: """
            Installing again brings the schedule up to date with the profile. Units that somebody else wrote are left as they are. Variables of this environment, such as AWS_ACCESS_KEY_ID, are not there at night: where a store is reached by them, that is said.

                batchsync schedule install home
                batchsync schedule install ./shop.toml --unit-directory image/etc/systemd/system
            """)

    @OptionGroup var options: ScheduleOptions

    func perform() throws -> ExitStatus {
        let profile = try Assembly.load(options.name)
        let job = try options.job(profile)
        let console = Console.shared
        for note in ProfileInspection.missingWhenScheduled(profile) {
            console.say("batchsync: \(profile.name): \(note.message)")
            console.say("  \(note.remedy)")
        }
        if let systemd = try options.systemd() {
            let units = options.units(job)
            try systemd.write(units)
            console.out("wrote \(systemd.path(units.serviceName))")
            console.out("wrote \(systemd.path(units.timerName))")
            if options.isLive {
                try systemd.control("daemon-reload")
                try systemd.control("enable", "--now", units.timerName)
                console.out("enabled \(units.timerName)")
                tellOfLinger()
            }
        } else {
            let delay =
                job.randomDelaySeconds > 0 ? Int.random(in: 0...job.randomDelaySeconds) : 0
            let lines = try CrontabText(job, delaySeconds: delay).lines()
            try Crontab.write(
                CrontabText.replacing(job.name, in: try Crontab.read(), with: lines))
            for line in lines { console.out("crontab: \(line)") }
        }
        ScheduleShowCommand.tellNext(job)
        return .done
    }

    private func tellOfLinger() {
        guard !options.isRoot, let entry = getpwuid(geteuid()) else { return }
        let user = String(cString: entry.pointee.pw_name)
        guard !SystemdManager.lingers(user) else { return }
        Console.shared.out(
            "It runs while \(user) is logged in; 'loginctl enable-linger' lets it run at any time.")
    }
}

struct ScheduleShowCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show what is installed for a profile, and when it runs.",
        discussion: """
            Says whether the schedule is there, whether it is what the profile asks for, and the next times. Exit code 1 means \
            that it is not installed or differs from the profile.

                batchsync schedule show home
            """)

    @OptionGroup var options: ScheduleOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let job = try options.job(try Assembly.load(options.name))
        var texts: [(place: String, text: String)] = []
        var isCurrent = true
        let scheduler: String
        if let systemd = try options.systemd() {
            scheduler = "systemd"
            for (name, text) in options.units(job).files {
                let installed = try systemd.installed(name)
                if let installed { texts.append((systemd.path(name), installed)) }
                isCurrent = isCurrent && installed == text
            }
        } else {
            scheduler = "cron"
            let lines = CrontabText.lines(of: job.name, in: try Crontab.read())
            if !lines.isEmpty { texts = [("crontab", lines.joined(separator: "\n") + "\n")] }
            // The delay was chosen when it was installed, and is what it is.
            isCurrent =
                lines.map(CrontabText.withoutDelay)
                == (try CrontabText(job, delaySeconds: 0).lines())
        }
        let isInstalled = !texts.isEmpty
        if output.json {
            JSONOutput.print(
                "schedule",
                [
                    ("profile", .string(job.profile)), ("scheduler", .string(scheduler)),
                    ("installed", .bool(isInstalled)), ("current", .bool(isCurrent)),
                    ("calendar", .array(job.calendar.map { .string($0.text) })),
                    ("random_delay_seconds", .count(job.randomDelaySeconds)),
                    ("next", .array(Self.next(job, 3).map { .string(TimeText.machine($0)) })),
                ])
        } else {
            let console = Console.shared
            for (place, text) in texts {
                console.out(console.styled("# \(place)", .dim))
                console.out(text)
            }
            if isInstalled, isCurrent {
                Self.tellNext(job)
            } else {
                console.say(
                    "batchsync: \(job.name): "
                        + (isInstalled
                            ? "the schedule differs from what the profile asks for"
                            : "no schedule is installed"))
                console.say("  'batchsync schedule install \(options.name)' writes it")
            }
        }
        return isInstalled && isCurrent ? .done : .failed
    }

    /// The next times, in order, each once.
    static func next(_ job: ScheduledJob, _ count: Int) -> [Timestamp] {
        var times: [Timestamp] = []
        var moment = Assembly.now
        while times.count < count,
            let next = job.calendar.compactMap({
                $0.next(after: moment, offset: TimeText.secondsAheadOfUTC)
            }).min()
        {
            times.append(next)
            moment = next
        }
        return times
    }

    static func tellNext(_ job: ScheduledJob) {
        guard let next = next(job, 1).first else {
            Console.shared.out("\(job.name): the times that the profile names are over")
            return
        }
        let delay =
            job.randomDelaySeconds > 0
            ? ", and up to \(DurationText.text(seconds: job.randomDelaySeconds)) later" : ""
        Console.shared.out("\(job.name): next at \(TimeText.person(next))\(delay)")
    }
}

struct ScheduleRemoveCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Take the schedule of a profile away.",
        discussion: """
            A run in progress goes on to its end. The profile itself need not be there any more.

                batchsync schedule remove home
            """)

    @OptionGroup var options: ScheduleOptions

    func perform() throws -> ExitStatus {
        let name = ProfileSearchPath.profileName(of: options.name)
        let console = Console.shared
        var found = false
        if let systemd = try options.systemd() {
            let base = SystemdUnits.baseName(name)
            let units = ["\(base).timer", "\(base).service"]
            for unit in units { try systemd.refuseForeign(unit, profile: nil) }
            if options.isLive, try systemd.installed(units[0]) != nil {
                try systemd.control("disable", "--now", units[0])
            }
            for unit in units where try systemd.remove(unit) {
                console.out("removed \(systemd.path(unit))")
                found = true
            }
            if options.isLive, found { try systemd.control("daemon-reload") }
        } else {
            let crontab = try Crontab.read()
            let lines = CrontabText.lines(of: name, in: crontab)
            found = !lines.isEmpty
            if found {
                try Crontab.write(CrontabText.replacing(name, in: crontab, with: []))
                for line in lines { console.out("removed from the crontab: \(line)") }
            }
        }
        if !found { console.out("\(name): no schedule is installed") }
        return .done
    }
}
