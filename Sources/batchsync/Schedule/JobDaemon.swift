import CSystem
import Glibc
import Profiles
import SnapshotModel

/// Waits for the times of some profiles and runs each in a process of its own, one after another.
///
/// The plan is `JobQueue`'s; this is the clock and the processes.
struct JobDaemon {
    private let program: String
    private var queue = JobQueue()
    private let began: Timestamp

    /// How often the clock is looked at: a clock that was set, or a machine that slept, must not
    /// keep a job waiting.
    private static let longestSleepMilliseconds: Int32 = 30_000

    init(program: String, now: Timestamp) {
        self.program = program
        began = now
    }

    /// - Throws: Where the profile cannot be read or has no time.
    mutating func add(_ name: String) throws {
        let profile = try Assembly.load(name)
        guard !profile.schedule.calendar.isEmpty else {
            throw CommandError.usage(
                "\(profile.name): the profile does not say when it runs",
                remedy: "write calendar = \"02:30\" below [schedule]")
        }
        queue.add(Self.job(name, profile), after: began)
    }

    private static func job(_ name: String, _ profile: Profile) -> JobQueue.Job {
        JobQueue.Job(
            name: name, calendar: profile.schedule.calendar,
            randomDelaySeconds: profile.schedule.randomDelaySeconds)
    }

    /// Runs jobs until a signal asks to stop.
    mutating func run() throws(CommandError) {
        for (name, time) in queue.waiting { tell("\(name): next at \(TimeText.person(time))") }
        Console.shared.flush()
        while !Signals.haveArrived {
            guard let due = queue.nextTime else {
                tell("the times that the profiles name are over")
                return
            }
            let now = Assembly.now
            guard now >= due else {
                wait(milliseconds: (due.seconds - now.seconds) * 1000)
                continue
            }
            if let name = queue.take(now) { try perform(name) }
        }
        tell("asked to stop: done")
    }

    private mutating func perform(_ name: String) throws(CommandError) {
        tell("\(name): begins")
        Console.shared.flush()
        let code = try runToItsEnd(["run", "--no-progress", name])
        tell("\(name): ended with code \(code)")
        // What is wrong with a profile is said by its run; the times stay as they were.
        if let profile = try? Assembly.load(name), !profile.schedule.calendar.isEmpty {
            queue.update(Self.job(name, profile))
        }
        guard !Signals.haveArrived else { return }
        if let time = queue.reschedule(name, after: Assembly.now) {
            tell("\(name): next at \(TimeText.person(time))")
        } else {
            tell("\(name): the times that the profile names are over")
        }
        Console.shared.flush()
    }

    /// - Returns: The process's exit code, or 128 and the signal that ended it.
    private func runToItsEnd(_ words: [String]) throws(CommandError) -> Int32 {
        // A group of its own: a terminal's Ctrl-C arrives here alone, and is handed on once.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        posix_spawnattr_setpgroup(&attributes, 0)
        let arguments = ([program] + words).map { (word: String) in strdup(word) }
        defer { for argument in arguments { free(argument) } }
        var process = pid_t()
        let started = posix_spawn(&process, program, nil, &attributes, arguments + [nil], environ)
        guard started == 0 else {
            throw CommandError(
                .failed, "cannot start \(program): \(String(cString: strerror(started)))")
        }
        var status: Int32 = 0
        var wasAsked = false
        while true {
            let waited = waitpid(process, &status, WNOHANG)
            if waited == process || (waited < 0 && errno != EINTR) { break }
            if Signals.haveArrived, !wasAsked {
                kill(process, SIGTERM)
                wasAsked = true
            }
            _ = poll(nil, 0, 100)
        }
        return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
    }

    /// A signal that arrives meanwhile ends it early.
    private func wait(milliseconds: Int64) {
        var left = Int32(clamping: min(milliseconds, Int64(Self.longestSleepMilliseconds)))
        // A signal that arrives between the question and the sleep is seen half a second later.
        while left > 0, !Signals.haveArrived {
            _ = poll(nil, 0, min(left, 500))
            left -= 500
        }
    }

    private func tell(_ sentence: String) {
        Console.shared.out("\(TimeText.person(Assembly.now)) batchsync: \(sentence)")
    }
}
