import Glibc
import SnapshotModel
import TestSupport
import Testing

@testable import ObjectStorage

/// Keys and hashed names were made by ssh-keygen (OpenSSH 9.2): `ssh-keygen -t TYPE`, `-H`, `-lf`.
@Suite("Known hosts")
struct KnownHostsTests {
    static let ed25519 =
        "AAAAC3NzaC1lZDI1NTE5AAAAIAn2cqSm5cUu96zirSb9WZjlHJV1godm2pGYKgJky00e"
    static let other =
        "AAAAC3NzaC1lZDI1NTE5AAAAIACXoN7K+vQWDJcRhox7ApjVqWnZzMqV+a1nUVoczNRp"

    static func key(_ text: String) -> [UInt8] {
        Array(text.utf8).withUnsafeBytes { Base64.decode($0) } ?? []
    }

    @Test("A key's fingerprint is the one that ssh-keygen shows")
    func fingerprint() {
        let key = Self.key(Self.ed25519)
        #expect(
            KnownHosts.fingerprint(of: key) == "SHA256:I20hyrBxv99Bb2esyyFkzFsm+lQ2ZY9/OgG40/m4lfE")
        #expect(KnownHosts.kind(of: key) == "ssh-ed25519")
        #expect(KnownHosts.kind(of: [0, 0, 0, 200, 1]) == nil)
    }

    @Test("A key that stands beside the host's name is trusted, another is not")
    func plainNames() {
        let known = KnownHosts(
            text:
                "# comment\n\nnas,192.0.2.7 ssh-ed25519 \(Self.ed25519) me@nas\n[nas]:2222 ssh-ed25519 \(Self.other)\n"
        )
        let (key, other) = (Self.key(Self.ed25519), Self.key(Self.other))
        #expect(known.judge(key, of: "nas", port: nil) == .trusted)
        #expect(known.judge(key, of: "NAS", port: 22) == .trusted)
        #expect(known.judge(key, of: "192.0.2.7", port: nil) == .trusted)
        #expect(known.judge(other, of: "nas", port: nil) == .different(kinds: ["ssh-ed25519"]))
        #expect(known.judge(other, of: "nas", port: 2222) == .trusted)
        #expect(known.judge(key, of: "nas", port: 2223) == .unknown)
        #expect(known.judge(key, of: "nasty", port: nil) == .unknown)
    }

    @Test("Patterns cover names, and an exclamation mark takes some out")
    func patterns() {
        let known = KnownHosts(
            text: "*.example.org,!bad.example.org,host? ssh-ed25519 \(Self.ed25519)")
        let key = Self.key(Self.ed25519)
        #expect(known.judge(key, of: "a.b.example.org", port: nil) == .trusted)
        #expect(known.judge(key, of: "bad.example.org", port: nil) == .unknown)
        #expect(known.judge(key, of: "host1", port: nil) == .trusted)
        #expect(known.judge(key, of: "host", port: nil) == .unknown)
        #expect(known.judge(key, of: "host12", port: nil) == .unknown)
    }

    @Test("A revoked key is refused though another line trusts it")
    func revoked() {
        let known = KnownHosts(
            text: "nas ssh-ed25519 \(Self.ed25519)\n@revoked * ssh-ed25519 \(Self.ed25519)")
        #expect(known.judge(Self.key(Self.ed25519), of: "nas", port: nil) == .revoked)
    }

    @Test("A certificate authority's line vouches for no key by itself")
    func authority() {
        let known = KnownHosts(text: "@cert-authority * ssh-ed25519 \(Self.ed25519)")
        #expect(known.judge(Self.key(Self.ed25519), of: "nas", port: nil) == .unknown)
    }

    @Test("What ssh-keygen hashed is found, and only for its own name and port")
    func hashed() throws {
        let directory = TemporaryDirectory.inMemory()
        directory.write(
            Array(
                "nas ssh-ed25519 \(Self.ed25519)\n[nas]:2222 ssh-ed25519 \(Self.other)\n".utf8),
            to: "known_hosts")
        #expect(run("ssh-keygen", "-q", "-H", "-f", directory.path("known_hosts")) == 0)
        let text = String(decoding: directory.read("known_hosts") ?? [], as: UTF8.self)
        #expect(text.hasPrefix("|1|"))
        #expect(!text.contains("nas"))
        let known = KnownHosts(files: [directory.path("known_hosts")])
        #expect(known.judge(Self.key(Self.ed25519), of: "nas", port: nil) == .trusted)
        #expect(known.judge(Self.key(Self.other), of: "nas", port: 2222) == .trusted)
        #expect(known.judge(Self.key(Self.ed25519), of: "other", port: nil) == .unknown)
    }

    @Test("The host is asked for a kind of key that libssh2 can use, never for RSA")
    func expectedLine() {
        let rsa = "nas ssh-rsa AAAAB3NzaC1yc2E="
        #expect(KnownHosts(text: rsa).expectedLine(of: "nas", port: nil) == nil)
        #expect(
            KnownHosts(
                text:
                    "\(rsa)\n|1|bad|line ssh-ed25519 \(Self.other)\n[nas]:7 ssh-ed25519 \(Self.ed25519)"
            )
            .expectedLine(of: "nas", port: 7) == "[nas]:7 ssh-ed25519 \(Self.ed25519)")
    }

    @Test("Lines that make no sense are passed over", arguments: 0..<20)
    func garbage(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let line = "nas ssh-ed25519 \(Self.ed25519)"
        let bytes =
            generator.bytes(2_000) + Array("\n\(line)\n|1|\n|1||\n@\n@revoked\nnas x\n".utf8)
        let known = KnownHosts(text: String(decoding: bytes, as: UTF8.self))
        #expect(known.judge(Self.key(Self.ed25519), of: "nas", port: nil) == .trusted)
    }

    @Test("A pattern of many stars is judged soon")
    func manyStars() {
        let pattern = String(repeating: "*a", count: 2_000)
        let known = KnownHosts(text: "\(pattern) ssh-ed25519 \(Self.ed25519)")
        let name = String(repeating: "a", count: 250) + "b"
        #expect(known.judge(Self.key(Self.ed25519), of: name, port: nil) == .unknown)
    }

    @Test("A remembered key is one that ssh-keygen finds, on a line of its own")
    func remembered() throws {
        let directory = TemporaryDirectory.inMemory()
        let file = directory.path("ssh/known_hosts")
        let subject = StorageSubject(operation: .open, key: nil, location: "")
        try KnownHosts.remember(
            Self.key(Self.ed25519), of: "nas", port: 2222, in: file, subject)
        writeFile(Array("old ssh-ed25519 \(Self.other)".utf8), to: directory.path("open"))
        try KnownHosts.remember(
            Self.key(Self.ed25519), of: "nas", port: nil, in: directory.path("open"), subject)
        #expect(
            directory.read("open")
                == Array("old ssh-ed25519 \(Self.other)\nnas ssh-ed25519 \(Self.ed25519)\n".utf8))
        #expect(run("ssh-keygen", "-q", "-F", "[nas]:2222", "-f", file) == 0)
        #expect(
            KnownHosts(files: [file]).judge(Self.key(Self.ed25519), of: "nas", port: 2222)
                == .trusted)
        let nowhere = #expect(throws: StorageError.self) {
            try KnownHosts.remember(
                Self.key(Self.ed25519), of: "nas", port: nil, in: "/nowhere/at/all", subject)
        }
        #expect(nowhere?.kind == .notFound)
    }
}

/// Runs a program without input or output and gives its exit code.
private func run(_ words: String...) -> Int32 {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for descriptor: Int32 in 0...2 {
        posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
    }
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    var pid = pid_t()
    guard posix_spawnp(&pid, words[0], &actions, nil, &arguments, environ) == 0 else { return -1 }
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0, errno == EINTR {}
    return status & 0x7F == 0 ? status >> 8 & 0xFF : -1
}
