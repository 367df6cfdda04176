import Glibc
import SnapshotModel
import TestSupport
import Testing

@testable import Profiles

@Suite("Loading")
struct LoadingTests {
    static let repository = "[repository]\nlocation = \"/r\"\n"

    // MARK: Names

    @Test(
        "A name is looked for in the user's own configuration and in /etc, root's the other way round"
    )
    func searchPath() {
        let environment = ["HOME": "/home/anna"]
        func directories(_ more: [String: String], isRoot: Bool = false) -> [String] {
            ProfileSearchPath(
                environment: environment.merging(more) { $1 }, isRoot: isRoot
            ).directories
        }
        #expect(directories([:]) == ["/home/anna/.config/batchsync", "/etc/batchsync"])
        #expect(
            directories([:], isRoot: true) == ["/etc/batchsync", "/home/anna/.config/batchsync"])
        #expect(directories(["XDG_CONFIG_HOME": "/x"]) == ["/x/batchsync", "/etc/batchsync"])
        // The base directory specification says that a relative one is to be ignored.
        #expect(directories(["XDG_CONFIG_HOME": "x"])[0] == "/home/anna/.config/batchsync")
        #expect(directories(["BATCHSYNC_CONFIG_DIR": "/c"])[0] == "/c")
        #expect(directories(["BATCHSYNC_CONFIG_DIR": "/etc/batchsync"], isRoot: true).count == 2)
    }

    @Test("A word is a name, or a path if it has a slash or ends with .toml")
    func names() throws {
        let fixture = ProfileFixture()
        fixture.write(Self.repository, to: "config/batchsync/home.toml")
        fixture.write(Self.repository, to: "other.toml")
        #expect(
            try fixture.load("home").files == [fixture.directory.path("config/batchsync/home.toml")]
        )
        #expect(try fixture.load("home").name == "home")
        #expect(try fixture.load(fixture.directory.path("other.toml")).name == "other")
        let error = #expect(throws: ProfileError.self) { try fixture.load("hmoe") }
        #expect(error?.kind == .notFound && error?.remedy == "did you mean home?")
        let missing = #expect(throws: ProfileError.self) { try fixture.load("./nowhere/x.toml") }
        #expect(missing?.kind == .notFound)
        #expect(throws: ProfileError.self) { try fixture.load("") }
    }

    @Test("A profile that everybody may write to is refused, since its hooks would be anybody's")
    func writable() {
        let fixture = ProfileFixture()
        let path = fixture.write(Self.repository, to: "open.toml", mode: 0o666)
        let error = #expect(throws: ProfileError.self) { try fixture.load(path) }
        #expect(error?.kind == .unreadable && error?.remedy.contains("chmod o-w \(path)") == true)
    }

    @Test("What is no regular file is refused at once")
    func irregular() {
        let fixture = ProfileFixture()
        let fifo = fixture.directory.path("fifo.toml")
        mkfifo(fifo, 0o600)
        for path in [fifo, fixture.directory.path, "/dev/zero"] {
            let error = #expect(throws: ProfileError.self) { try fixture.load(path) }
            #expect(error?.kind == .unreadable, "\(path)")
        }
    }

    @Test("A file that is no profile by its size is refused")
    func large() {
        let fixture = ProfileFixture()
        let path = fixture.write(String(repeating: "#", count: 2 << 20), to: "large.toml")
        let error = #expect(throws: ProfileError.self) { try fixture.load(path) }
        #expect(error?.description.contains("larger than 1 MB") == true)
    }

    // MARK: Inheritance

    @Test("The nearest file wins, key by key; lists and replicas are replaced as a whole")
    func inheritance() throws {
        let fixture = ProfileFixture()
        fixture.write(
            """
            description = "far"
            [repository]
            location = "/far"
            region = "far"
            [[replica]]
            location = "/far-1"
            region = "r"
            [[replica]]
            location = "/far-2"
            [retention]
            keep-daily = 7
            keep-weekly = 4
            """, to: "far.toml")
        fixture.write(
            "inherit = \"far\"\n[source]\nexclude = [\"a\", \"b\"]\n[backup]\ncompression = 5\n",
            to: "middle.toml")
        let profile = try fixture.load(
            text: """
                inherit = "./middle.toml"
                [repository]
                location = "/near"
                [[replica]]
                location = "/near-1"
                [source]
                exclude = ["c"]
                [retention]
                keep-weekly = 0
                """)
        #expect(profile.repository.location == "/near" && profile.repository.region == "far")
        #expect(profile.replicas.map(\.location) == ["/near-1"])
        #expect(profile.replicas[0].region == nil)
        #expect(profile.source.exclude == ["c"])
        #expect(profile.backup.compression == 5)
        #expect(profile.retention.daily?.description == "7")
        #expect(profile.retention.weekly == nil, "0 switches an inherited rule off")
        #expect(profile.description == "far")
        #expect(profile.origins["backup.compression"]?.isInherited == true)
        #expect(profile.origins["backup.compression"]?.file.hasSuffix("/middle.toml") == true)
        #expect(profile.origins["source.exclude"]?.isInherited == false)
        #expect(profile.origins["replica[1].location"] == nil)
        #expect(profile.files.count == 3)
    }

    @Test("A profile that inherits from itself, by whatever way, is refused")
    func cycle() {
        let fixture = ProfileFixture()
        fixture.write("inherit = \"b\"", to: "a.toml")
        fixture.write("\ninherit = \"./sub/../c.toml\"", to: "b.toml")
        fixture.write("inherit = \"a.toml\"", to: "c.toml")
        mkdir(fixture.directory.path("sub"), 0o755)
        let error = #expect(throws: ProfileError.self) {
            try fixture.load(fixture.directory.path("a.toml"))
        }
        #expect(error?.description.contains("cannot inherit from itself: a → b → c → a") == true)
        #expect(error?.problems.first?.line == 1)
        fixture.write("inherit = \"self\"", to: "self.toml")
        #expect(throws: ProfileError.self) { try fixture.load(fixture.directory.path("self.toml")) }
    }

    @Test("A chain has an end")
    func chain() {
        let fixture = ProfileFixture()
        for index in 0..<40 { fixture.write("inherit = \"p\(index + 1)\"", to: "p\(index).toml") }
        fixture.write(Self.repository, to: "p40.toml")
        let error = #expect(throws: ProfileError.self) {
            try fixture.load(fixture.directory.path("p0.toml"))
        }
        #expect(error?.description.contains("more than 16 profiles") == true)
    }

    @Test("An error in a file that is inherited is told of that file")
    func inheritedError() {
        let fixture = ProfileFixture()
        fixture.write("\n[backup]\nrehash = 3\n", to: "base.toml")
        let error = #expect(throws: ProfileError.self) {
            try fixture.load(text: "inherit = \"base\"\n\(Self.repository)")
        }
        #expect(error?.problems.first?.file == fixture.directory.path("base.toml"))
        #expect(error?.problems.first?.line == 3)
        let missing = fixture.problems(text: "\ninherit = \"bsae\"\n")
        #expect(
            missing.count == 1 && missing[0].hasPrefix("2: inherit: there is no profile \"bsae\""))
    }

    // MARK: Variables and paths

    @Test(
        "Variables are replaced, and $${ stands for ${",
        arguments: [
            ("${A}", "one"), ("x${A}y${B}", "xoney"), ("$${A}", "${A}"), ("$A", "$A"), ("$", "$"),
            ("$$", "$$"), ("$$${A}", "$${A}"), ("${A}${A}", "oneone"), ("$${", "${"),
            ("a}b", "a}b"),
        ])
    func variables(_ text: String, _ expanded: String) throws {
        var fixture = ProfileFixture()
        fixture.environment["A"] = "one"
        fixture.environment["B"] = ""
        let profile = try fixture.load(text: "\(Self.repository)[source]\nexclude = ['p\(text)']\n")
        #expect(profile.source.exclude == ["p" + expanded])
    }

    @Test("A variable that is not set is an error, and one that was used is known")
    func unset() throws {
        var fixture = ProfileFixture()
        fixture.environment["A"] = "one"
        for (text, words) in [
            ("${NONE}", "uses ${NONE}"), ("${A", "without its }"), ("${}", "as a variable"),
            ("${A-B}", "as a variable"), ("${1A}", "as a variable"),
        ] {
            let problems = fixture.problems(
                text: "[source]\nexclude = [\n\"\(text)\"]\n\(Self.repository)")
            #expect(problems.count == 1 && problems[0].contains(words), "\(problems)")
        }
        let profile = try fixture.load(
            text: "\(Self.repository)[source]\npaths = [\"/${A}/${A}\"]\n")
        #expect(profile.source.paths == ["/one/one"])
        #expect(profile.origins["source.paths"]?.variables == ["A"])
        #expect(profile.origins["repository.location"]?.variables == [])
    }

    @Test("Lines for the shell are left to the shell")
    func shell() throws {
        let profile = try ProfileFixture().load(
            text: "\(Self.repository)[hooks]\nbefore = [\"echo ${NONE:-x} $HOME ~\"]\n")
        #expect(profile.hooks.before == ["echo ${NONE:-x} $HOME ~"])
    }

    @Test("A relative path begins where its file lies, and ~ is the user's own directory")
    func paths() throws {
        let fixture = ProfileFixture()
        mkdir(fixture.directory.path("base"), 0o755)
        fixture.write("[source]\nexclude-from = [\"list\"]\n", to: "base/base.toml")
        let profile = try fixture.load(
            text: """
                inherit = "base/base.toml"
                [repository]
                location = "./repository"
                [source]
                paths = ["~", "~/", "~/x", "data", ".", "/abs/", "./~x"]
                """)
        let here = fixture.directory.path
        #expect(profile.repository.location == "\(here)/repository")
        #expect(
            profile.source.paths == [
                "/home/anna", "/home/anna/", "/home/anna/x", "\(here)/data", here, "/abs/",
                "\(here)/~x",
            ])
        #expect(profile.source.excludeFrom == ["\(here)/base/list"])
        let other = fixture.problems(text: "[source]\npaths = [\"~bob/x\"]\n\(Self.repository)")
        #expect(other.count == 1 && other[0].contains("begins with ~ and a name"))
    }

    @Test("Without HOME there is no ~, except for root, whose directory is known")
    func home() throws {
        var fixture = ProfileFixture()
        fixture.environment["HOME"] = nil
        let path = fixture.write("[repository]\nlocation = \"~/r\"\n", to: "home.toml")
        #expect(throws: ProfileError.self) { try fixture.load(path) }
        #expect(try fixture.load(path, isRoot: true).repository.location == "/root/r")
    }

    @Test("Addresses are no paths")
    func addresses() throws {
        let profile = try ProfileFixture().load(
            text: "[repository]\nlocation = \"s3://bucket/~/x\"\n")
        #expect(profile.repository.location == "s3://bucket/~/x")
        #expect(profile.repository.isAddress(of: "s3"))
    }

    // MARK: What is shown

    @Test("What is shown of a profile can be read again, and says the same")
    func roundTrip() throws {
        for name in ExampleTests.names {
            let profile = try Profile.load(
                "\(examples)/\(name).toml", environment: ["HOME": "/home/anna"], isRoot: false)
            var text = ""
            var section = ""
            for setting in profile.settings where setting.value != nil {
                if setting.section != section {
                    section = setting.section
                    text += section.hasPrefix("replica") ? "[[replica]]\n" : "[\(section)]\n"
                }
                text += "\(setting.key) = \(setting.value ?? "")\n"
            }
            let again = try ProfileFixture().load(text: text)
            #expect(again.settings.map(\.value) == profile.settings.map(\.value), "\(name)")
        }
    }
}
