import Profiles

/// The lines of a crontab by which cron runs a job, among the lines of others. Pure text.
struct CrontabText {
    private let job: ScheduledJob
    /// Instead of a delay at random each time, which cron does not know: chosen once, so that hosts
    /// differ.
    private let delaySeconds: Int

    init(_ job: ScheduledJob, delaySeconds: Int) {
        self.job = job
        self.delaySeconds = delaySeconds
    }

    /// What stands at the end of each line of a job. To the shell it is a comment.
    static func mark(_ name: String) -> String { "# batchsync schedule \(name)" }

    /// - Throws: Where cron cannot do what the profile says.
    func lines() throws(CommandError) -> [String] {
        if let name = job.credentials.first {
            throw .usage(
                "\(job.name): the credential \(name) comes from systemd, and cron runs the job",
                remedy: "refer to a file with mode 600 instead")
        }
        var lines: [String] = []
        for expression in job.calendar {
            guard let times = expression.cron else {
                throw .usage(
                    "\(job.name): cron cannot say '\(expression.text)'",
                    remedy: "cron knows minutes, hours, days, months and weekdays; write it so")
            }
            lines.append("\(times) \(command) \(Self.mark(job.name))")
        }
        return lines
    }

    /// What systemd gives its services; cron's own is shorter than hooks expect.
    private static let programPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// A line as it would be without a delay.
    static func withoutDelay(_ line: String) -> String {
        line.replacing(#/ sleep [0-9]+; /#, with: " ", maxReplacements: 1)
    }

    private var command: String {
        var words: [String] = []
        if delaySeconds > 0 { words.append("sleep \(delaySeconds);") }
        words.append("PATH=\(Self.programPath)")
        words += job.environment.filter { $0.name != "HOME" }.map {
            "\($0.name)=\(Self.quoted($0.value))"
        }
        words += [
            Self.quoted(job.program), "run", "--quiet", "--no-progress", Self.quoted(job.profile),
        ]
        // To cron a percent sign ends the line.
        return words.joined(separator: " ").replacing("%", with: "\\%")
    }

    /// One word of the shell.
    private static func quoted(_ text: String) -> String {
        let isPlain =
            !text.isEmpty
            && text.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x61...0x7A).contains($0 | 0x20)
                    || "/._-+:@,=".utf8.contains($0)
            }
        return isPlain ? text : "'" + text.replacing("'", with: "'\\''") + "'"
    }

    /// A crontab without the lines of a job, and with other lines instead.
    static func replacing(_ name: String, in crontab: String, with lines: [String]) -> String {
        var kept = crontab.split(separator: "\n", omittingEmptySubsequences: false)
            .map(String.init).filter { !$0.hasSuffix(" " + mark(name)) }
        while kept.last?.isEmpty == true { kept.removeLast() }
        let all = kept + lines
        return all.isEmpty ? "" : all.joined(separator: "\n") + "\n"
    }

    /// The lines of a job in a crontab.
    static func lines(of name: String, in crontab: String) -> [String] {
        crontab.split(separator: "\n").map(String.init).filter { $0.hasSuffix(" " + mark(name)) }
    }
}
