/// The crontab of this user.
enum Crontab {
    static func read() throws(CommandError) -> String {
        let outcome = SystemProgram.run(["crontab", "-l"])
        switch outcome.status {
        case 0: return outcome.output
        // Nobody has one at first, which is said with a code of its own kind by each cron.
        case let status? where status != 0 && outcome.complaint.contains("no crontab for"):
            return ""
        default:
            throw CommandError(
                .failed, "cannot read the crontab: \(firstLine(outcome.complaint))",
                remedy: "there is neither systemd nor a cron that lets this user use it")
        }
    }

    static func write(_ text: String) throws(CommandError) {
        let outcome = SystemProgram.run(["crontab", "-"], input: text)
        guard outcome.isGood else {
            throw CommandError(
                .failed, "cannot write the crontab: \(firstLine(outcome.complaint))")
        }
    }

    private static func firstLine(_ text: String) -> String {
        text.split(separator: "\n").first.map(String.init) ?? "it says nothing"
    }
}
