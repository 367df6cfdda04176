import ArgumentParser
import Glibc
import Profiles
import RunReports
import SnapshotModel
import SnapshotRepository

struct ProfileCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "Check a profile, and show what it says in the end.",
        discussion: """
            A profile is a TOML file that describes one job: what is backed up, where to, how and when. \
            batchsync-profile(5) lists its keys. A profile's name is that of its file without .toml; it is looked for in \
            /etc/batchsync and in $XDG_CONFIG_HOME/batchsync. A word with a slash in it, or that ends with .toml, is a path.

                batchsync profile check
                batchsync profile check ./laptop.toml
                batchsync profile show laptop
            """,
        subcommands: [ProfileCheckCommand.self, ProfileShowCommand.self])
}

struct ProfileCheckCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Say what is wrong with profiles.",
        discussion: """
            Reads the profiles and everything they inherit from. What makes a profile unusable is told with file and line, and \
            the exit code is 64. What this host lacks, such as a source that is not there, is a warning.

                batchsync profile check
                batchsync profile check laptop ./server.toml
            """)

    @Argument(
        help: ArgumentHelp("Names or paths; none means all that are found.", valueName: "profile"),
        transform: plainText)
    var names: [String] = []

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    private struct Finding {
        let name: String
        var problems: [ProfileProblem] = []
        var warnings: [ProfileProblem] = []

        /// - Parameter jobs: The jobs of this host by the real paths of their files.
        init(_ name: String, among jobs: [String: Profile]) {
            self.name = name
            do throws(ProfileError) {
                let profile = try Self.load(name)
                let file = RunReporter.place(profile.files.first ?? "")
                var others: [Profile] = []
                if jobs[file] != nil {
                    others = jobs.filter { $0.key != file }.values.sorted { $0.name < $1.name }
                }
                let inspection = ProfileInspection(profile, beside: others)
                problems = inspection.problems
                warnings = inspection.warnings
            } catch {
                problems = error.problems
            }
        }

        private static func load(_ name: String) throws(ProfileError) -> Profile {
            try Profile.load(
                name, environment: Assembly.wholeEnvironment, isRoot: geteuid() == 0)
        }

        var document: JSONValue {
            .object([
                ("profile", .string(name)), ("is_good", .bool(problems.isEmpty)),
                ("problems", .array(problems.map(\.document))),
                ("warnings", .array(warnings.map(\.document))),
            ])
        }
    }

    func perform() throws -> ExitStatus {
        let search = ProfileSearchPath(
            environment: Assembly.wholeEnvironment, isRoot: geteuid() == 0)
        let wanted = names.isEmpty ? search.names : names
        guard !wanted.isEmpty else {
            throw CommandError.usage(
                "there is no profile in \(search.directories.joined(separator: " or "))",
                remedy: "write one there, or name a file by its path")
        }
        let jobs = jobs(search)
        let findings = wanted.map { Finding($0, among: jobs) }
        if output.json {
            JSONOutput.print("profile-check", [("profiles", .array(findings.map(\.document)))])
        } else {
            for finding in findings { tell(finding) }
        }
        return findings.allSatisfy { $0.problems.isEmpty } ? .done : .usage
    }

    /// What is found and what is named, as far as it can be read and is a job.
    private func jobs(_ search: ProfileSearchPath) -> [String: Profile] {
        let found = search.names
        let words = found + names.filter { !found.contains($0) }
        let known = StatusBook(state: Assembly.standardDirectories.state).all()
        let profiles = FoundProfiles(words, search: search, known: known)
        var jobs: [String: Profile] = [:]
        for word in words where profiles.heirOfBase(word) == nil {
            guard let profile = try? Assembly.load(word), let file = profile.files.first
            else { continue }
            jobs[RunReporter.place(file)] = profile
        }
        return jobs
    }

    private func tell(_ finding: Finding) {
        let console = Console.shared
        for problem in finding.problems { tell("\(problem)", problem.remedy) }
        for warning in finding.warnings {
            tell("\(warning.placeText)warning: \(warning.message)", warning.remedy)
        }
        if finding.problems.isEmpty { console.out("\(finding.name): good") }
    }

    private func tell(_ sentence: String, _ remedy: String) {
        Console.shared.out(sentence)
        if !remedy.isEmpty { Console.shared.out("  \(remedy)") }
    }
}

struct ProfileShowCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show the values of a profile and where each comes from.",
        discussion: """
            Every key has a value in the end: written in the file, in one that it inherits from, or by default. Secrets are \
            shown as the references that they are.

                batchsync profile show laptop
                batchsync profile show laptop --set
            """)

    @Argument(help: ArgumentHelp("Name or path.", valueName: "profile"), transform: plainText)
    var name: String

    @Flag(help: "Leave out what holds by default.")
    var set = false

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let profile = try Assembly.load(name)
        let settings = profile.settings.filter { $0.origin != nil || (!set && $0.value != nil) }
        if output.json {
            JSONOutput.print(
                "profile",
                [
                    ("name", .string(profile.name)),
                    ("files", .array(profile.files.map { .string($0) })),
                    ("settings", .array(settings.map(\.document))),
                ])
        } else {
            tell(profile, settings)
        }
        return .done
    }

    private func tell(_ profile: Profile, _ settings: [ProfileSetting]) {
        let console = Console.shared
        console.out("# \(profile.files.joined(separator: "\n# inherits from "))")
        var section = ""
        for setting in settings {
            if setting.section != section {
                section = setting.section
                // As a profile writes it, where the number of a replica is its place.
                let isReplica = section.hasSuffix("]")
                let name = isReplica ? section.prefix { $0 != "[" } : section[...]
                console.out()
                console.out(console.styled(isReplica ? "[[\(name)]]" : "[\(name)]", .bold))
            }
            let line = "\(setting.key) = \(setting.value ?? "[]")"
            let gap = String(repeating: " ", count: max(1, 40 - line.count))
            console.out(line + gap + console.styled("# \(source(setting))", .dim))
        }
    }

    private func source(_ setting: ProfileSetting) -> String {
        guard let origin = setting.origin else { return "default" }
        let variables = origin.variables.map { "${\($0)}" }.joined(separator: ", ")
        return (origin.isInherited ? "inherited from " : "") + "\(origin.file):\(origin.line)"
            + (variables.isEmpty ? "" : ", with \(variables)")
    }
}

extension ProfileProblem {
    /// `FILE:LINE: `, or nothing.
    fileprivate var placeText: String {
        file.isEmpty ? "" : line > 0 ? "\(file):\(line): " : "\(file): "
    }

    fileprivate var document: JSONValue {
        .object([
            ("file", .string(file)), ("line", line > 0 ? .count(line) : .null),
            ("message", .string(message)), ("remedy", .string(remedy)),
        ])
    }
}

extension ProfileSetting {
    fileprivate var document: JSONValue {
        let origin = origin.map { origin in
            JSONValue.object([
                ("file", .string(origin.file)), ("line", .count(origin.line)),
                ("inherited", .bool(origin.isInherited)),
                ("variables", .array(origin.variables.map { .string($0) })),
            ])
        }
        return .object([
            ("section", .string(section)), ("key", .string(key)), ("value", json),
            ("origin", origin ?? .null),
        ])
    }
}
