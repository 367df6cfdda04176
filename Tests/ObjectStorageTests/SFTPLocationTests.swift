import Testing

@testable import ObjectStorage

@Suite("Addresses and commands for SFTP")
struct SFTPLocationTests {
    @Test("An address is taken apart and put together again")
    func addresses() throws {
        let full = try SFTPLocation("sftp://me@host.example:2222/srv/backup")
        #expect(full.user == "me")
        #expect(full.host == "host.example")
        #expect(full.port == 2222)
        #expect(full.path == Array("/srv/backup".utf8))
        #expect(full.description == "sftp://me@host.example:2222/srv/backup")

        let plain = try SFTPLocation("sftp://nas/backup/")
        #expect(plain.user == nil)
        #expect(plain.port == nil)
        #expect(plain.path == Array("/backup".utf8))

        let six = try SFTPLocation("sftp://[fe80::1%25eth0]:22/x")
        #expect(six.host == "fe80::1%25eth0")
        #expect(try SFTPLocation("sftp://[::1]/x").description == "sftp://[::1]/x")

        let odd = try SFTPLocation("sftp://a%40b@host/with%20blank/%FF/./x//y")
        #expect(odd.user == "a@b")
        #expect(odd.path == Array("/with blank/".utf8) + [0xFF] + Array("/x/y".utf8))
        #expect(odd.description == "sftp://a%40b@host/with%20blank/%FF/x/y")
        #expect(try SFTPLocation(odd.description) == odd)
        #expect(try SFTPLocation("sftp://host/").path == [])
    }

    @Test(
        "What cannot be an address is refused",
        arguments: [
            "s3://bucket/x", "sftp:/host/x", "sftp://host", "sftp:///x",
            "sftp://-oProxyCommand=x/y",
            "sftp://-x@host/y", "sftp://host:0/x", "sftp://host:65536/x", "sftp://host:/x",
            "sftp://host:22x/x", "sftp://host:+22/x", "sftp://::1/x", "sftp://[::1/x",
            "sftp://[host]/x", "sftp://[::1]x/y", "sftp://host/a%2", "sftp://host/a%zz",
            "sftp://host/a%00b", "sftp://host/a/../b", "sftp://a b@host/x", "sftp://h;id/x",
            "sftp://@host/x", "sftp://h$(id)/x",
            "sftp://host/" + String(repeating: "a", count: 4000),
        ])
    func refused(text: String) {
        let error = #expect(throws: StorageError.self) { try SFTPLocation(text) }
        #expect(error?.kind == .unsupported)
    }

    @Test("A password in an address is refused, and not shown")
    func password() {
        let error = #expect(throws: StorageError.self) {
            try SFTPLocation("sftp://me:geheim@host/x")
        }
        let shown = "\(error.map { "\($0) \($0.remedy)" } ?? "")"
        #expect(shown.contains("--password-file"))
        #expect(!shown.contains("geheim"))
    }

    @Test(
        "A command is split as a shell splits it, without running one",
        arguments: [
            ("ssh", ["ssh"]), ("  ssh  -v\t-4 ", ["ssh", "-v", "-4"]),
            ("ssh -i '/a b/key'", ["ssh", "-i", "/a b/key"]),
            (#"ssh -i "/a \"b\" $c/key""#, ["ssh", "-i", #"/a "b" $c/key"#]),
            (#"ssh -i /a\ b/key"#, ["ssh", "-i", "/a b/key"]),
            (#"ssh -o ProxyCommand="nc 'x' %h" ''"#, ["ssh", "-o", "ProxyCommand=nc 'x' %h", ""]),
            (#"ssh 'a\b' "c\d""#, ["ssh", #"a\b"#, #"c\d"#]),
            ("ssh $HOME ; id", ["ssh", "$HOME", ";", "id"]),
        ])
    func words(text: String, words: [String]) throws {
        #expect(try SSHCommand(text).words == words)
    }

    @Test(
        "A command that cannot be split is refused",
        arguments: ["", "  ", "ssh 'a", #"ssh "a"#, #"ssh \"#])
    func unbalanced(text: String) {
        #expect(throws: StorageError.self) { try SSHCommand(text) }
    }

    @Test("The user's own options stand before ours, so that they win")
    func arguments() throws {
        let location = try SFTPLocation("sftp://me@nas:2222/backup")
        let command = try SSHCommand("/usr/bin/ssh -o ConnectTimeout=5")
        let words = command.arguments(for: location, remote: .subsystem("sftp"), mayAsk: false)
        #expect(words.starts(with: ["/usr/bin/ssh", "-o", "ConnectTimeout=5", "-o"]))
        #expect(words.suffix(7) == ["-p", "2222", "-l", "me", "-s", "nas", "sftp"])
        #expect(words.contains("BatchMode=yes"))
        #expect(
            !command.arguments(for: location, remote: .subsystem("sftp"), mayAsk: true)
                .contains("BatchMode=yes"))
    }

    @Test("Another program than ssh gets no options that it may not know")
    func otherProgram() throws {
        let location = try SFTPLocation("sftp://nas/backup")
        #expect(
            try SSHCommand("dial --now").arguments(
                for: location, remote: .command("sha256sum"), mayAsk: false)
                == ["dial", "--now", "nas", "sha256sum"])
    }

    @Test("A line of sha256sum is taken apart strictly")
    func digestLines() {
        let digits = String(repeating: "0f", count: 32)
        func parse(_ line: String) -> (ObjectKey, [UInt8])? {
            SFTPStore.parseDigest(Array(line.utf8)[...])
        }
        #expect(parse("\(digits)  ./a/b")?.0.text == "a/b")
        #expect(parse("\(digits) *./a/b")?.1 == [UInt8](repeating: 0x0F, count: 32))
        for line in [
            "", digits, "\(digits)  a/b", "\(digits) ./a/b", "\\\(digits)  ./a", "\(digits)  ./",
            "\(digits)  ./a b", "\(digits.dropLast())g  ./a", "\(digits)  ./../a",
            "\(digits)0  ./a",
        ] {
            #expect(parse(line) == nil, "\(line)")
        }
    }
}
