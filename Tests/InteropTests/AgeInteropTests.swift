import AgeEncryption
import Foundation
import Testing

/// The age command of other people, against this program's own files and the other way round.
@Suite(
    "The age command",
    .enabled(if: AgeCommand.isInstalled, "age or age-keygen is not installed"))
struct AgeInteropTests {
    static let sizes = [0, 1, 65_535, 65_536, 65_537, 131_072, 300_000]

    private func plaintext(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 7) }
    }

    private func openAll(_ object: [UInt8], _ identities: [AgeIdentity]) throws -> [UInt8] {
        try object.withUnsafeBytes { try AgePayload.openAll($0, identities: identities) }
    }

    @Test("A key pair made by age-keygen is read as the same pair")
    func keygen() throws {
        let file = try AgeCommand.run("age-keygen", []).output
        let identities = try AgeIdentityFile.parse(file)
        #expect(identities.count == 1)
        let text = String(decoding: file, as: UTF8.self)
        #expect(text.contains("# public key: \(identities[0].recipient.encoded())\n"))
        #expect(text.contains(identities[0].encoded()))
    }

    @Test("age-keygen derives the same recipient from an identity of this program's")
    func recipient() throws {
        let identity = X25519Identity()
        let answer = try AgeCommand.run(
            "age-keygen", ["-y"], input: Array(identity.encoded().utf8) + [10])
        let text = String(decoding: answer.output, as: UTF8.self)
        #expect(text == identity.recipient.encoded() + "\n")
    }

    @Test("age opens what this program seals", arguments: sizes)
    func opensOurs(size: Int) throws {
        let directory = try AgeScratchDirectory()
        let identity = X25519Identity()
        let plain = plaintext(size)
        let sealed = try AgeEncryptor.seal(
            plain, to: [.x25519(X25519Identity().recipient), .x25519(identity.recipient)])
        let key = try directory.write("key", Array(("# a key\n" + identity.encoded() + "\n").utf8))
        #expect(try AgeCommand.run("age", ["-d", "-i", key], input: sealed).output == plain)
        let armored = AgeArmor.encode(sealed)
        #expect(try AgeCommand.run("age", ["-d", "-i", key], input: armored).output == plain)
    }

    @Test("This program opens what age seals", arguments: sizes)
    func opensTheirs(size: Int) throws {
        let identity = X25519Identity()
        let plain = plaintext(size)
        let recipients = [
            "-r", X25519Identity().recipient.encoded(), "-r", identity.recipient.encoded(),
        ]
        let sealed = try AgeCommand.run("age", recipients, input: plain).output
        #expect(try openAll(sealed, [.x25519(identity)]) == plain)
        let armored = try AgeCommand.run("age", recipients + ["-a"], input: plain).output
        let binary = try AgeArmor.decode(armored)
        #expect(AgeArmor.encode(binary) == armored)
        #expect(try openAll(binary, [.x25519(identity)]) == plain)
    }

    @Test("age refuses what is cut off or damaged, as this program does")
    func refusals() throws {
        let directory = try AgeScratchDirectory()
        let identity = X25519Identity()
        let key = try directory.write("key", Array((identity.encoded() + "\n").utf8))
        let sealed = try AgeEncryptor.seal(plaintext(70_000), to: [.x25519(identity.recipient)])
        var flipped = sealed
        flipped[sealed.count - 1] ^= 1
        for object in [Array(sealed.dropLast()), flipped, sealed + [0], Array(sealed.prefix(100))] {
            #expect(try AgeCommand.run("age", ["-d", "-i", key], input: object).status != 0)
            #expect(throws: AgeError.self) { try openAll(object, [.x25519(identity)]) }
        }
    }

    @Test(
        "Passphrases work both ways",
        .enabled(if: AgeCommand.find("python3") != nil, "python3 is needed to type a passphrase"))
    func passphrases() throws {
        let directory = try AgeScratchDirectory()
        let passphrase = "correct horse battery"
        let plain = plaintext(70_000)
        let secret = Array(passphrase.utf8)

        let ours = try directory.write(
            "ours.age",
            try AgeEncryptor.seal(plain, to: [.scrypt(passphrase: secret, workFactor: 10)]))
        try AgeCommand.type(
            passphrase, into: ["age", "-d", "-o", directory.path("ours"), ours])
        #expect(try directory.read("ours") == plain)

        let source = try directory.write("theirs", plain)
        try AgeCommand.type(
            passphrase, into: ["age", "-p", "-o", directory.path("theirs.age"), source])
        let theirs = try directory.read("theirs.age")
        let identity = AgeIdentity.scrypt(passphrase: secret)
        #expect(try openAll(theirs, [identity]) == plain)
        #expect(throws: AgeError.self) {
            try openAll(theirs, [.scrypt(passphrase: secret, maximumWorkFactor: 9)])
        }
    }
}

/// Runs a command found on the search path.
enum AgeCommand {
    struct Result {
        let status: Int32
        let output: [UInt8]
    }

    struct Failure: Error {
        let reason: String
    }

    static let isInstalled = find("age") != nil && find("age-keygen") != nil

    static func find(_ name: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        return path.split(separator: ":").map { "\($0)/\(name)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Input and output go through files, so that neither side can wait for the other.
    static func run(_ name: String, _ arguments: [String], input: [UInt8] = []) throws -> Result {
        guard let executable = find(name) else { throw Failure(reason: "\(name) is missing") }
        let directory = try AgeScratchDirectory()
        let source = try directory.write("input", input)
        let target = try directory.write("output", [])
        let process = Process()
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        process.standardInput = try FileHandle(forReadingFrom: URL(fileURLWithPath: source))
        process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: target))
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return Result(status: process.terminationStatus, output: try directory.read("output"))
    }

    /// Runs `command` on a terminal of its own and answers each question with `passphrase`.
    static func type(_ passphrase: String, into command: [String]) throws {
        let program = """
            import os, pty, sys
            child, terminal = pty.fork()
            if child == 0:
                os.execvp(sys.argv[2], sys.argv[2:])
            seen, answered = b"", 0
            while True:
                try:
                    data = os.read(terminal, 4096)
                except OSError:
                    break
                if not data:
                    break
                seen += data
                while seen.count(b"passphrase") > answered and seen.rstrip().endswith(b":"):
                    answered = seen.count(b"passphrase")
                    os.write(terminal, sys.argv[1].encode() + b"\\n")
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            """
        let result = try run("python3", ["-c", program, passphrase] + command)
        guard result.status == 0 else {
            throw Failure(reason: "\(command) ended with \(result.status)")
        }
    }
}

/// A directory that goes away with its last owner.
final class AgeScratchDirectory {
    private let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory
            .appendingPathComponent("batchsync-age-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
    }

    deinit {
        try? FileManager.default.removeItem(at: url)
    }

    func path(_ name: String) -> String { url.appendingPathComponent(name).path }

    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        try Data(bytes).write(to: URL(fileURLWithPath: path(name)))
        return path(name)
    }

    func read(_ name: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path(name))))
    }
}
