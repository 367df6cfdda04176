import ArgumentParser
import Glibc
import Profiles
import RunReports
import SnapshotModel
import SnapshotRepository

struct DaemonCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "daemon",
        abstract: "Run profiles at their times, in one process that stays, for containers.",
        discussion: """
            Runs each profile at the times of its key calendar, as batchsync schedule has systemd do it, in a process \
            of its own, one after another. Without names all profiles that are found and have times, but for those that only others inherit from. A time that passes while another job runs is made \
            up for, once; what passed while the daemon was not there is not. A local time that the clocks skip runs at the change, one that they show twice runs the first time. Profiles are read again before each run.

                batchsync daemon
                batchsync daemon home /srv/jobs/shop.toml

            SIGTERM or SIGINT asks the job that runs to stop, waits for it, and ends the daemon: with exit code 0, since \
            that is how it ends. A second signal ends it at once. What a run says goes where the daemon's own words go.
            """)

    @Argument(
        help: ArgumentHelp("Names or paths; none means all that have times.", valueName: "profile"),
        transform: plainText)
    var names: [String] = []

    func perform() throws -> ExitStatus {
        var names = names
        if names.isEmpty {
            let search = ProfileSearchPath(
                environment: Assembly.wholeEnvironment, isRoot: geteuid() == 0)
            names = try jobs(search)
            guard !names.isEmpty else {
                throw CommandError.usage(
                    "no profile in \(search.directories.joined(separator: " or ")) says when it runs",
                    remedy: "write calendar = \"02:30\" below [schedule] of one, or name a file")
            }
        }
        guard let program = HostFile.realPath(Array("/proc/self/exe".utf8)) else {
            throw CommandError(.failed, "cannot tell where this program lies")
        }
        var daemon = JobDaemon(
            program: try Assembly.text(program, of: "this program"), now: Assembly.now)
        for (index, name) in names.enumerated() where !names[..<index].contains(name) {
            try daemon.add(name)
        }
        Signals.stopCleanly()
        try daemon.run()
        return .done
    }

    /// What has times and is a job.
    private func jobs(_ search: ProfileSearchPath) throws -> [String] {
        let known = StatusBook(state: Assembly.standardDirectories.state).all()
        let profiles = FoundProfiles(search.names, search: search, known: known)
        return try search.names.filter { name in
            guard let heir = profiles.heirOfBase(name) else {
                return !(try Assembly.load(name).schedule.calendar.isEmpty)
            }
            if let profile = try? Assembly.load(name), !profile.schedule.calendar.isEmpty {
                Console.shared.out(
                    "\(name): left out, since \(heir) inherits from it; name it to run it as well")
            }
            return false
        }
    }
}
