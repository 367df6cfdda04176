import Glibc
import SnapshotModel
import TestSupport
import Testing

/// What has a profile run by itself.
@Suite("Schedules")
struct ScheduleTests {
    private static let schedule = """
        [schedule]
        calendar = ["Mon..Fri 22:00", "15 3 13 * 5"]
        random-delay = "15m"

        """

    /// A fixture with a profile; its text below a repository and a source.
    private func fixture(_ text: String = schedule, name: String = "home") -> CommandFixture {
        let fixture = CommandFixture()
        fixture.succeed("mkdir data repository")
        let profile = """
            description = "Half of it: 50% \\"quoted\\""
            [repository]
            location = "repository"
            [source]
            paths = ["data"]
            \(text)
            """
        fixture.directory.write(Array(profile.utf8), to: "\(name).toml", mode: 0o644)
        return fixture
    }

    private func unit(_ fixture: CommandFixture, _ name: String) -> String {
        String(decoding: fixture.directory.read("units/\(name)") ?? [], as: UTF8.self)
    }

    private static let install = "batchsync schedule install ./home.toml --unit-directory units"

    @Test(
        "systemd has nothing to say against the units",
        arguments: [
            "", "[hooks]\nbefore = [\"true\"]\n",
            "[credentials]\npassphrase = { credential = \"batchsync-passphrase\" }\n",
        ])
    func verify(_ more: String) throws {
        let fixture = fixture(Self.schedule + more)
        if fixture.shell("command -v systemd-analyze").status != 0 {
            try Test.cancel(
                "skipped: this machine cannot; there is no systemd-analyze (package systemd)")
        }
        fixture.succeed(Self.install)
        // The manual pages that the units name need not be installed where tests run.
        let said = fixture.succeed(
            "SYSTEMD_LOG_LEVEL=info systemd-analyze verify --man=no units/*.service units/*.timer")
        #expect(said.isEmpty, "\(said)")
    }

    @Test("What reaches a bucket only by variables of the environment is named on installation")
    func variables() {
        let fixture = fixture()
        fixture.succeed("sed -i 's,\"repository\",\"s3://bucket/prefix\",' home.toml")
        #expect(!fixture.succeed(Self.install).contains("AWS_"))
        let variables = "AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=secret AWS_REGION=eu-central-1"
        fixture.expect(
            0, "\(variables) \(Self.install)", says: "the variable AWS_ACCESS_KEY_ID",
            "write aws-access-key-id", "the variable AWS_REGION", "write region")
        fixture.succeed(
            "sed -i 's,^location.*,&\\nregion = \"eu-central-1\"\\naws-profile = \"backup\",' home.toml"
        )
        #expect(!fixture.succeed("\(variables) \(Self.install)").contains("AWS_"))
    }

    @Test("systemd has nothing to say against the units of an ordinary user")
    func userUnits() throws {
        let fixture = fixture()
        if geteuid() != 0 || fixture.shell("command -v setpriv").status != 0
            || fixture.shell("command -v systemd-analyze").status != 0
        {
            try Test.cancel(
                "skipped: this machine cannot; it needs root, setpriv and systemd-analyze")
        }
        fixture.succeed("chmod 755 . data && mkdir -m 777 units && cp $(command -v batchsync) tool")
        let home = fixture.directory.path
        fixture.succeed(
            """
            env -u BATCHSYNC_CONFIG_DIR setpriv --reuid 65534 --regid 65534 --clear-groups \
            ./tool schedule install ./home.toml --unit-directory units
            """)
        let service = unit(fixture, "batchsync-home.service")
        #expect(
            !service.contains("network-online.target") && !service.contains("CapabilityBounding"))
        #expect(service.contains("ExecStart=\(home)/tool run --no-progress \(home)/home.toml\n"))
        let said = fixture.succeed("systemd-analyze verify --man=no units/*.service units/*.timer")
        #expect(said.isEmpty, "\(said)")
    }

    @Test("systemd has nothing to say against the units that are installed for any profile")
    func installedUnits() throws {
        let fixture = CommandFixture()
        if fixture.shell("command -v systemd-analyze").status != 0 {
            try Test.cancel(
                "skipped: this machine cannot; there is no systemd-analyze (package systemd)")
        }
        let root = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
        fixture.succeed(
            """
            mkdir units && for unit in \(root)/scripts/systemd/*.in; do
              name=${unit##*/}; sed "s,@BINDIR@,${PATH%%:*}," $unit > units/${name%.in}
            done
            """)
        let said = fixture.succeed(
            "SYSTEMD_LOG_LEVEL=info systemd-analyze verify --man=no units/batchsync@.service units/batchsync@.timer"
        )
        #expect(said.isEmpty, "\(said)")
        let service = unit(fixture, "batchsync@.service")
        #expect(service.contains("/batchsync run --no-progress %i\n") && !service.contains("@BIN"))
    }

    @Test("Units run the profile at its times, and write only where the job writes")
    func text() {
        let fixture = fixture()
        fixture.succeed(Self.install)
        let service = unit(fixture, "batchsync-home.service")
        #expect(service.contains(" run --no-progress \(fixture.directory.path("home.toml"))\n"))
        #expect(service.contains("Description=Backup by batchsync: Half of it: 50%% \"quoted\"\n"))
        #expect(service.contains("\nReadWritePaths=\"-\(fixture.directory.path("repository"))\"\n"))
        #expect(service.contains("\nEnvironment=\"BATCHSYNC_STATE_DIR="))
        // Each of these would hide a source.
        for setting in [
            "PrivateTmp=", "PrivateDevices=", "ProtectHome=yes", "ProtectKernelModules=",
            "InaccessiblePaths=", "TemporaryFileSystem=",
        ] {
            #expect(
                !service.split(separator: "\n").contains { $0.hasPrefix(setting) }, "\(setting)")
        }
        let timer = unit(fixture, "batchsync-home.timer")
        for line in [
            "OnCalendar=Mon..Fri 22:00", "OnCalendar=*-*-13 03:15:00",
            "OnCalendar=Fri *-*-* 03:15:00",
            "RandomizedDelaySec=900s", "Persistent=true",
        ] {
            #expect(timer.split(separator: "\n").contains { $0 == line }, "\(line)")
        }
    }

    @Test("A unit is not kept from what hooks need")
    func hooks() {
        let fixture = fixture(Self.schedule + "[hooks]\nbefore = [\"systemctl stop shop\"]\n")
        fixture.succeed(Self.install)
        let service = unit(fixture, "batchsync-home.service")
        for setting in ["NoNewPrivileges=", "SystemCallFilter=", "ProtectSystem=", "Capability"] {
            #expect(!service.contains("\n\(setting)"), "\(setting)")
        }
    }

    @Test("The system calls of a run are those that the unit lets through")
    func systemCalls() throws {
        let fixture = fixture()
        if fixture.shell("command -v systemd-analyze strace").status != 0
            || fixture.shell("systemd-analyze syscall-filter @system-service").status != 0
        {
            try Test.cancel("skipped: this machine cannot; it has no systemd-analyze or no strace")
        }
        fixture.succeed("rmdir repository && echo text > data/file")
        fixture.succeed("batchsync init -r repository --passphrase-file passphrase")
        fixture.succeed("strace -f -qq -o trace batchsync run ./home.toml")
        let trace = String(decoding: fixture.directory.read("trace") ?? [], as: UTF8.self)
        let used = Set(
            trace.matches(of: #/(?m)^\d+ +([a-z][a-z_0-9]+)\(/#).map { String($0.output.1) })
        #expect(used.contains("openat"))
        var allowed: Set<String> = []
        var groups = ["@system-service", "@default"]
        while let group = groups.popLast() {
            let text = fixture.succeed("systemd-analyze syscall-filter --no-pager \(group)")
            for line in text.split(separator: "\n") where line.hasPrefix("    ") {
                let word = String(line.drop { $0 == " " })
                if word.hasPrefix("@") { groups.append(word) } else { allowed.insert(word) }
            }
        }
        #expect(used.subtracting(allowed) == [])
    }

    @Test("What is installed is shown, and what differs from the profile is said")
    func show() throws {
        let fixture = fixture()
        let show = "batchsync schedule show ./home.toml --unit-directory units"
        fixture.expect(1, show, says: "no schedule is installed", "schedule install ./home.toml")
        fixture.succeed(Self.install)
        fixture.expect(
            0, show, says: "OnCalendar=Mon..Fri 22:00", "home: next at ", "up to 15m later")
        let document = fixture.json("\(show) --json")
        #expect(document["installed"] == .bool(true) && document["current"] == .bool(true))
        #expect(document["next"]?.array?.count == 3)
        fixture.succeed("sed -i 's/22:00/23:00/' home.toml")
        fixture.expect(1, show, says: "the schedule differs from what the profile asks for")
        fixture.succeed(Self.install)
        fixture.succeed(show)
        fixture.succeed("rm home.toml && batchsync schedule remove home --unit-directory units")
        #expect(fixture.directory.contents().filter { $0.hasPrefix("units/b") } == [])
        fixture.expect(
            0, "batchsync schedule remove home --unit-directory units",
            says: "home: no schedule is installed")
    }

    @Test("Units of somebody else, or of another profile, stay as they are")
    func foreign() {
        let fixture = fixture()
        fixture.succeed("mkdir units other && echo '# mine' > units/batchsync-home.service")
        for verb in ["install ./home.toml", "remove home"] {
            fixture.expect(
                1, "batchsync schedule \(verb) --unit-directory units",
                says: "was not made by batchsync and is left as it is")
        }
        #expect(unit(fixture, "batchsync-home.service") == "# mine\n")
        fixture.succeed("rm units/* && cp home.toml other/ && mkdir other/data")
        fixture.succeed(Self.install)
        fixture.expect(
            1, "batchsync schedule install other/home.toml --unit-directory units",
            says: "runs another profile of the same name")
    }

    @Test(
        "What no scheduler has is refused when the schedule is installed",
        arguments: [
            ("", "does not say when it runs"),
            (
                schedule + "[credentials]\npassphrase = { env = \"SECRET\" }",
                "comes from the variable SECRET, which is not there at night"
            ),
            (
                schedule + "[log]\nfile = \"${PLACE}/log\"",
                "log.file is made with ${PLACE}, which is not there at night"
            ),
            ("[schedule]\ncalendar = \"Sat..Mon 12:00\"", "which go over the end of a week"),
        ])
    func refused(_ text: String, _ words: String) {
        let fixture = fixture(text)
        fixture.expect(64, "PLACE=/var/log SECRET=hunter2 \(Self.install)", says: words)
        #expect(!fixture.directory.contents().contains { $0.hasPrefix("units/") })
    }

    /// A crontab command of the test's own, which keeps the lines in a file.
    private static let crontab = """
        #!/bin/sh
        case $1 in
        -l) [ -e '@/crontab' ] && exec cat '@/crontab'; echo 'no crontab for anna' >&2; exit 1 ;;
        -) exec cat > '@/crontab' ;;
        esac

        """

    @Test(
        "Where there is no systemd a line of the crontab runs the profile, among the lines of others"
    )
    func cron() {
        let fixture = fixture()
        fixture.succeed("mkdir bin")
        let script = Self.crontab.replacing("@", with: fixture.directory.path)
        fixture.directory.write(Array(script.utf8), to: "bin/crontab", mode: 0o755)
        fixture.succeed("chmod 755 bin/crontab")
        let schedule = { (words: String) in "PATH=$PWD/bin:$PATH batchsync schedule \(words) --cron"
        }
        fixture.expect(0, schedule("install ./home.toml"), says: "home: next at ")
        fixture.succeed("(echo '5 5 * * * true'; cat crontab) > new && mv new crontab")
        fixture.succeed(schedule("install ./home.toml"))
        fixture.succeed(schedule("show ./home.toml"))
        var lines = String(decoding: fixture.directory.read("crontab") ?? [], as: UTF8.self)
            .split(separator: "\n").map(String.init)
        #expect(lines.count == 3 && lines[0] == "5 5 * * * true")
        #expect(lines[1].hasPrefix("0 22 * * 1,2,3,4,5 "))
        #expect(lines[2].hasPrefix("15 3 13 * 5 "))
        let run = " run --quiet --no-progress \(fixture.directory.path("home.toml"))"
        #expect(lines[1].contains(run) && lines[2].contains(run))
        // What cron would hand to the shell, without the wait.
        let command = lines[2].replacing(#/^.*?PATH=/#, with: "PATH=")
        fixture.expect(10, command, says: "there is no repository here")
        fixture.succeed(schedule("remove home"))
        lines = String(decoding: fixture.directory.read("crontab") ?? [], as: UTF8.self)
            .split(separator: "\n").map(String.init)
        #expect(lines == ["5 5 * * * true"])
        fixture.expect(1, schedule("show ./home.toml"), says: "no schedule is installed")
    }

    @Test(
        "What cron cannot do is refused",
        arguments: [
            ("[schedule]\ncalendar = \"*-*~1\"", "cron cannot say '*-*~1'"),
            (
                schedule + "[credentials]\npassphrase = { credential = \"key\" }",
                "the credential key comes from systemd"
            ),
        ])
    func noCron(_ text: String, _ words: String) {
        let fixture = fixture(text)
        fixture.expect(64, "batchsync schedule install ./home.toml --cron", says: words)
    }
}
