import CSystem
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// The built command, run as its users run it.
enum BuiltCommand {
    /// Where `make test` says it is, else where the build that holds these tests has put it; nil where there is none that works.
    static let path: String? = {
        var candidates = [Campaign.variable("BATCHSYNC_BINARY")].compactMap { $0 }
        var own = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &own, own.count)
        if count > 0 {
            let text = String(decoding: own[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
            candidates.append(
                text.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 } + "/batchsync")
        }
        return candidates.first {
            access($0, X_OK) == 0 && run([$0, "backup", "--help"], [:]).code == 0
        }
    }()

    static let strace: String? = ["/usr/bin/strace", "/bin/strace"].first { access($0, X_OK) == 0 }

    /// - Parameter output: A file for what it says on standard output.
    /// - Parameter complaints: A file for what it says on standard error.
    static func start(
        _ words: [String], _ environment: [String: String], output: String = "/dev/null",
        complaints: String = "/dev/null"
    ) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
        posix_spawn_file_actions_addopen(
            &actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        posix_spawn_file_actions_addopen(
            &actions, 2, complaints, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        var variables: [String] = []
        var next = environ
        while let entry = next.pointee {
            let text = String(cString: entry)
            if !text.hasPrefix("BATCHSYNC_") { variables.append(text) }
            next += 1
        }
        variables += environment.map { "\($0.key)=\($0.value)" }
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
        defer { for pointer in arguments + environment { free(pointer) } }
        var pid: pid_t = 0
        let result = withUsualSignals {
            posix_spawn(&pid, words[0], &actions, $0, &arguments, &environment)
        }
        precondition(result == 0, "\(words[0]) cannot be started: \(result)")
        return pid
    }

    /// Its exit code, or the signal that ended it.
    static func wait(_ pid: pid_t) -> (code: Int32, signal: Int32) {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return (status >> 8 & 0xFF, status & 0x7F)
    }

    static func run(_ words: [String], _ environment: [String: String]) -> (
        code: Int32, signal: Int32
    ) {
        wait(start(words, environment))
    }

    /// Its exit code, and all that it said.
    static func output(
        _ words: [String], _ environment: [String: String]
    ) -> (code: Int32, said: String) {
        let directory = TemporaryDirectory.inMemory()
        let (output, complaints) = (directory.path("output"), directory.path("complaints"))
        let end = wait(start(words, environment, output: output, complaints: complaints))
        let said = (readFile(output) ?? []) + (readFile(complaints) ?? [])
        return (
            end.signal == 0 ? end.code : 128 + end.signal, String(decoding: said, as: UTF8.self)
        )
    }
}

@Suite("The built command, killed")
struct KillTests {
    @Test(
        "Killed at a random moment, it loses no generation, and the next run takes up what was stored",
        .timeLimit(.minutes(60)), arguments: Campaign.seeds(share: 2, soakDividedBy: 20))
    func randomMoments(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var scene = try KillScene(in: try StorePlace(.directory), largeBytes: 1 << 20)
        var killed = 0
        for round in 0..<4 {
            // Incompressible, so that there is something to store: more than one bundle's worth every other time.
            let size = round % 2 == 0 ? 90 << 20 : 3 << 20
            scene.world.source.put(
                generator.bytes(size), "dir-\(round % 3)/new", time: 1_710_000_000 + Int64(round))
            let pid = BuiltCommand.start(scene.words, scene.environment)
            // A run takes some tenths of a second. The moment is what is random here, so nothing is waited for.
            let microseconds = Int.random(
                in: 0..<(round % 2 == 0 ? 500_000 : 60_000), using: &generator)
            var time = timespec(tv_sec: 0, tv_nsec: microseconds * 1000)
            nanosleep(&time, nil)
            kill(pid, SIGKILL)
            if BuiltCommand.wait(pid).signal == SIGKILL { killed += 1 }
            try scene.checkAndGoOn("seed \(seed), round \(round), after \(microseconds) µs")
        }
        #expect(killed > 0, "seed \(seed): every run was over before it was killed")
    }

    @Test(
        "Killed exactly before a chosen system call, it loses no generation",
        .timeLimit(.minutes(60)), arguments: Campaign.seeds(share: 2, soakDividedBy: 20))
    func chosenCalls(seed: UInt64) throws {
        guard let strace = BuiltCommand.strace else {
            try Test.cancel("strace is not installed: apt-get install strace")
        }
        var generator = SeededGenerator(seed: seed)
        var scene = try KillScene(in: try StorePlace(.directory), largeBytes: 200_000)
        var killed = 0
        for round in 0..<8 {
            scene.world.source.put(
                generator.bytes(300_000), "dir-\(round % 3)/new", time: 1_710_000_000 + Int64(round)
            )
            let calls = [
                ("fsync", 14), ("fdatasync", 3), ("renameat2,linkat", 5), ("pwrite64", 14),
                ("unlinkat,unlink", 4), ("mkdirat", 4),
            ]
            let (call, most) = calls[Int(generator.next() % UInt64(calls.count))]
            let number = Int.random(in: 1...most, using: &generator)
            let trace = [
                strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=\(call)", "-e",
                "inject=\(call):signal=SIGKILL:when=\(number)",
            ]
            let end = BuiltCommand.run(trace + scene.words, scene.environment)
            if end.signal == SIGKILL {
                killed += 1
            } else {
                #expect(end.code == 0, "seed \(seed): \(call) \(number)")
            }
            try scene.checkAndGoOn("seed \(seed), round \(round), at \(call) \(number)")
        }
        #expect(killed > 0, "seed \(seed): no run was killed")
    }
}
