import SnapshotModel
import TestSupport
import Testing

@testable import Profiles

/// What is wrong with a profile is told with its line and what to do about it.
@Suite("Decoding")
struct DecodingTests {
    static let repository = "[repository]\nlocation = \"/r\"\n"

    @Test("A profile says what it says, and the rest is the default")
    func values() throws {
        let profile = try ProfileFixture().load(
            text: """
                description = "home"
                [repository]
                location = "/r"
                [[replica]]
                location = "sftp://b@vault/r"
                ssh-command = "ssh -F none"
                [source]
                paths = ["/home", "/etc"]
                exclude = ["*.iso"]
                exclude-larger-than = "1.5G"
                one-file-system = true
                [backup]
                compression = 9
                checkpoint-interval = "1m30s"
                [retention]
                keep-daily = 7
                keep-yearly = "unlimited"
                keep-within = "1y6m"
                group-by = []
                [verify]
                read-data = "1/30"
                [schedule]
                calendar = ["02:30", "Sun 12:00"]
                """)
        #expect(profile.description == "home")
        #expect(profile.replicas.map(\.location) == ["sftp://b@vault/r"])
        #expect(profile.replicas.map(\.sshCommand) == ["ssh -F none"])
        #expect(profile.repository.sshCommand == "ssh")
        #expect(profile.source.paths == ["/home", "/etc"])
        #expect(profile.source.excludeLargerThan?.bytes == 3 << 29)
        #expect(profile.source.oneFileSystem && profile.source.ignoreFiles)
        #expect(profile.backup.compression == 9 && profile.backup.checkpointSeconds == 90)
        #expect(profile.retention.daily?.description == "7")
        #expect(profile.retention.yearly == .unlimited && profile.retention.weekly == nil)
        #expect(profile.retention.within?.description == "1y6m")
        #expect(profile.retention.groupBy == [])
        #expect(profile.verify.readData.amount == .fraction(1, of: 30))
        #expect(profile.schedule.calendar.map(\.text) == ["02:30", "Sun 12:00"])
        #expect(profile.origins["backup.compression"]?.line == 13)
        #expect(profile.origins["replica[0].ssh-command"]?.line == 6)
    }

    @Test(
        "An unknown key is an error that names the nearest right one",
        arguments: [
            (
                "[source]\npath = [\"/home\"]",
                "2: there is no key path in [source] | did you mean paths?"
            ),
            (
                "[source]\nexclude_from = []",
                "2: there is no key exclude_from in [source] | did you mean exclude-from?"
            ),
            (
                "[source]\nexlcude = []",
                "2: there is no key exlcude in [source] | did you mean exclude?"
            ),
            (
                "[backup]\ncompresion = 3",
                "2: there is no key compresion in [backup] | did you mean compression?"
            ),
            (
                "[source]\n\n\ncompression = 3",
                "4: there is no key compression in [source] | compression belongs below [backup]"
            ),
            (
                "[sources]\npaths = []",
                "1: there is no key sources in a profile | did you mean [source]?"
            ),
            (
                "[[replicas]]\nlocation = \"/x\"",
                "1: there is no key replicas in a profile | did you mean [[replica]]?"
            ),
            (
                "[source]\ndescription = \"x\"",
                "2: there is no key description in [source] | description stands by itself, before or behind the other tables"
            ),
            (
                "[[replica]]\nlocation = \"/x\"\nregoin = \"x\"",
                "3: there is no key regoin in [replica] | did you mean region?"
            ),
            (
                "[hooks]\nxyzzy = 1",
                "2: there is no key xyzzy in [hooks] | take it out; batchsync-profile(5) lists the keys"
            ),
            (
                "retention.keep-dialy = 7",
                "1: there is no key keep-dialy in [retention] | did you mean keep-daily?"
            ),
            (
                "[source]\n\"quoted key\" = 1",
                "2: there is no key \"quoted key\" in [source] | take it out; batchsync-profile(5) lists the keys"
            ),
        ])
    func unknownKey(_ text: String, _ problem: String) {
        // The repository goes last, so that the lines are those of the text.
        #expect(ProfileFixture().problems(text: "\(text)\n\(Self.repository)") == [problem])
    }

    @Test(
        "A wrong type or a wrong value is an error that shows a right one",
        arguments: [
            (
                "[backup]\ncompression = \"3\"",
                "2: compression takes a whole number from 1 to 19, and this is text | write it so: compression = 1"
            ),
            (
                "[backup]\ncompression = 20",
                "2: compression takes a whole number from 1 to 19, and 20 is none | write it so: compression = 1"
            ),
            (
                "[backup]\ncompression = 3.5",
                "2: compression takes a whole number from 1 to 19, and this is a number | write it so: compression = 1"
            ),
            (
                "[backup]\nrehash = \"yes\"",
                "2: rehash takes true or false, and this is text | write it so: rehash = true"
            ),
            (
                "[backup]\nbundle-size = 67108864",
                "2: bundle-size takes a size with its unit, from 1MiB to 512MiB, and this is a number | write it so: bundle-size = \"64MiB\""
            ),
            (
                "[backup]\nbundle-size = \"64 apples\"",
                "2: bundle-size takes a size with its unit, from 1MiB to 512MiB, and \"64 apples\" is none | write it so: bundle-size = \"64MiB\""
            ),
            (
                "[backup]\nbundle-size = \"67108864\"",
                "2: bundle-size takes a size with its unit, from 1MiB to 512MiB, and \"67108864\" is none | write it so: bundle-size = \"64MiB\""
            ),
            (
                "[backup]\ncheckpoint-interval = 300",
                "2: checkpoint-interval takes a time with its unit (s, m, h, d, w), from 1s to 1d, and this is a number | write it so: checkpoint-interval = \"2h\""
            ),
            (
                "[hooks]\ntime-limit = \"5 minutes\"",
                "2: time-limit takes a time with its unit (s, m, h, d, w), from 1s, and \"5 minutes\" is none | write it so: time-limit = \"2h\""
            ),
            (
                "[verify]\nread-data = \"31/30\"",
                "2: read-data takes a share such as 5% or 1/30, or a size such as 2GiB, and \"31/30\" is none | write it so: read-data = \"5%\""
            ),
            (
                "[source]\npaths = \"/home\"",
                "2: paths takes a list: [\"/srv/data\"], and this is text | write it so: paths = [\"/srv/data\"]"
            ),
            (
                "[source]\npaths = [\n  \"/home\",\n  7,\n]",
                "4: paths takes a path, and this is a number | write it so: paths = [\"/srv/data\"]"
            ),
            (
                "[notify]\nwhen = \"failur\"",
                "2: when takes \"failure\" or \"change\" or \"always\" or \"never\", and \"failur\" is neither | did you mean \"failure\"?"
            ),
            (
                "[retention]\nkeep-within = \"3 days\"",
                "2: keep-within takes a time in years, months, weeks, days and hours (y m w d h), and \"3 days\" is none | write it so: keep-within = \"1y6m\""
            ),
            (
                "[retention]\nkeep-daily = -1",
                "2: keep-daily takes a number from 0 on, or \"unlimited\", and -1 is neither | write it so: keep-daily = 7"
            ),
            (
                "[schedule]\ncalendar = 02:30:00",
                "2: calendar takes a calendar expression, and this is a date or time | write it so: calendar = \"Mon..Sat 02:30\""
            ),
            ("backup = 3", "1: backup is a table, and this is a number | begin it with [backup]"),
            (
                "[replica]\nlocation = \"/x\"",
                "1: there may be several replicas, so that their tables have two brackets | begin each with [[replica]]"
            ),
            (
                "[[replica]]\nregion = \"x\"",
                "1: a replica has no location | write location = \"…\" below its [[replica]]"
            ),
            (
                "[notify]\nwebhook = \"hooks.example.org\"",
                "2: webhook takes an address, https://… or http://…, and \"hooks.example.org\" is none | write it so: webhook = \"https://host.example.org\""
            ),
        ])
    func wrongValue(_ text: String, _ problem: String) {
        #expect(ProfileFixture().problems(text: "\(text)\n\(Self.repository)") == [problem])
    }

    @Test("All problems of a file are told at once, in order of its lines")
    func several() throws {
        let fixture = ProfileFixture()
        let text = "[repository]\nlocaton = \"/r\"\n[backup]\nrehash = 1\n[log]\nlevel = \"loud\"\n"
        #expect(fixture.problems(text: text).map { $0.prefix(2) } == ["2:", "4:", "6:"])
        let error = #expect(throws: ProfileError.self) { try fixture.load(text: text) }
        #expect(
            error?.description.hasSuffix(
                "test.toml:2: there is no key locaton in [repository], and 2 more problems") == true
        )
    }

    @Test(
        "What is no TOML is told with its line",
        arguments: [
            ("a = ", 1), ("x = 1\na = [1,,2]", 2), ("a = [\n,]", 2), ("a = { b = , }", 1),
            ("a = #", 1),
            ("a = True", 1), ("a = _1", 1), ("[repository]\nlocation = /r", 2), ("a = 1\na = 2", 2),
            ("x = \"open\nlocation", 1), ("\n\n[[x]\n", 3), ("x = 1\na = [1,\n2,\n", 2),
            ("x = 1\n\n[x]\n", 3), ("a = 2026-13-01", 1),
        ])
    func syntax(_ text: String, _ line: Int) throws {
        let error = #expect(throws: ProfileError.self) { try ProfileFixture().load(text: text) }
        let problem = try #require(error?.problems.first)
        #expect(problem.line == line, "\(problem)")
        #expect(!problem.message.isEmpty && !problem.message.contains("\n"))
    }

    @Test("Bytes that are no text, and NUL in any form, are refused with their line")
    func bytes() {
        let fixture = ProfileFixture()
        for (bytes, line) in [
            (Array("a = 1\nb = \"".utf8) + [0xFF] + Array("\"\n".utf8), 2),
            (Array("a = 1\n\n".utf8) + [0], 3),
            (Array("[source]\nhost = \"a\\u0000b\"\n".utf8), 2),
            (Array("[source]\n\"ho\\U00000000st\" = \"x\"\n".utf8), 2),
        ] {
            fixture.directory.write(bytes, to: "bytes.toml", mode: 0o644)
            let error = #expect(throws: ProfileError.self) {
                try fixture.load(fixture.directory.path("bytes.toml"))
            }
            #expect(error?.problems.first?.line == line, "\(error?.description ?? "")")
        }
    }

    @Test(
        "Values that contradict each other are refused",
        arguments: [
            (
                "[source]\npaths = [\"/x\"]\nstdin-from-command = { name = \"a\", command = [\"b\"] }",
                "only source"
            ),
            ("[repository]\nobject-lock = \"governance\"", "object-lock needs object-lock-period"),
            (
                "[repository]\nobject-lock = \"governance\"\nobject-lock-period = \"36h\"",
                "whole days"
            ),
            ("[repository]\nsse-key-id = \"k\"", "sse-key-id needs"),
            ("[repository]\naws-access-key-id = { env = \"A\" }", "needs aws-secret-access-key"),
            ("[repository]\naws-session-token = { env = \"A\" }", "goes with keys"),
            ("[notify]\nmail-server = \"smtp://m\"\nmail-from = \"a@b\"", "needs a receiver"),
            ("[notify]\nmail-to = [\"a@b\"]", "needs a server"),
            ("[notify]\nntfy-token = { env = \"A\" }", "needs a topic"),
            ("[[replica]]\nlocation = \"/r\"", "two stores have the same location"),
        ])
    func contradictions(_ text: String, _ words: String) {
        let whole =
            text.hasPrefix("[repository]")
            ? text.replacing("[repository]", with: "[repository]\nlocation = \"/r\"")
            : "\(Self.repository)\(text)"
        let problems = ProfileFixture().problems(text: whole)
        #expect(problems.count == 1 && problems[0].contains(words), "\(problems)")
        #expect(problems.first?.hasPrefix("1:") != true, "the place is that of the key")
    }

    @Test("A profile without a repository is none")
    func noRepository() {
        #expect(
            ProfileFixture().problems(text: "[source]\npaths = [\"/x\"]\n") == [
                "the profile names no repository | write location = \"…\" below [repository]"
            ])
    }
}

@Suite("Secrets")
struct SecretTests {
    @Test(
        "A secret is a reference, of four kinds",
        arguments: [
            ("{ file = \"/s\" }", SecretReference.file("/s")),
            ("{ file = \"~/s\" }", .file("/home/anna/s")),
            ("{ env = \"NAME\" }", .environment("NAME")),
            ("{ command = \"pass show ${X}\" }", .command("pass show ${X}")),
            ("{ credential = \"batchsync-passphrase\" }", .credential("batchsync-passphrase")),
        ])
    func kinds(_ text: String, _ reference: SecretReference) throws {
        let profile = try ProfileFixture().load(
            text: "\(DecodingTests.repository)[credentials]\npassphrase = \(text)\n")
        #expect(profile.credentials.passphrase == reference)
    }

    @Test(
        "A secret itself is refused, and never said again",
        arguments: [
            "[credentials]\npassphrase = \"hunter2\"",
            "[notify]\nwebhook-authorization = \"hunter2\"",
            "[repository]\nlocation = \"sftp://anna:hunter2@host/r\"",
            "[repository]\nlocation = \"sftp://anna:hunter2@ssw@host/r\"",
        ])
    func plain(_ text: String) {
        let whole = text.hasPrefix("[repository]") ? text : "\(text)\n\(DecodingTests.repository)"
        let problems = ProfileFixture().problems(text: whole)
        #expect(problems.count == 1 && problems[0].contains("everybody who sees the profile"))
        #expect(!problems.joined().contains("hunter2"))
    }

    @Test(
        "A reference that is none says how one is written",
        arguments: [
            ("{}", "takes one reference"),
            ("{ file = \"/a\", env = \"B\" }", "takes one reference"),
            ("{ flie = \"/a\" }", "did you mean file?"), ("{ env = \"A-B\" }", "is no name"),
            ("{ credential = \"../x\" }", "is no name"), ("{ file = \"\" }", "names nothing"),
            ("{ file = 3 }", "names nothing"), ("[\"/a\"]", "and this is a list"),
        ])
    func malformed(_ text: String, _ words: String) {
        let problems = ProfileFixture().problems(
            text: "\(DecodingTests.repository)[credentials]\nidentity = \(text)\n")
        #expect(problems.count == 1 && problems[0].contains(words), "\(problems)")
    }

    @Test("What is shown of a profile is the reference")
    func shown() throws {
        let profile = try ProfileFixture().load(
            text:
                "\(DecodingTests.repository)[credentials]\npassphrase = { file = \"/a \\\"b\\\"\" }\n"
        )
        let setting = profile.settings.first { $0.key == "passphrase" }
        #expect(setting?.value == "{ file = \"/a \\\"b\\\"\" }")
        #expect(setting?.json["file"]?.string == "/a \"b\"")
    }
}
