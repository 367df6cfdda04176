import CSystem
import Glibc
import Replication
import RunReports
import SnapshotModel
import Synchronization

/// Shows what a verb does while it runs: problems and notes as lines, paths with `-v`, and on a terminal
/// a line with rate and time left, five times a second.
final class TerminalMonitor: Monitor {
    let counts = ProgressCounts()
    let wantsPaths: Bool
    private let showsPaths: Bool
    private let log: RunLog?
    private let console: Console
    private let isQuiet: Bool
    private let showsLine: Bool
    private let phaseName = Mutex("")
    private let isDone = Atomic<Bool>(false)
    private let shownProblems = Atomic<Int>(0)
    private let said = Mutex<[String]>([])
    /// What earlier runs have taught of this one, and when it began.
    private let expectation = Mutex<(began: Int64, milliseconds: Int)?>(nil)

    /// Lines about single files; what is beyond them is in the summary and with the snapshot.
    private static let problemLines = 1000

    /// - Parameter log: Where the same is written down.
    init(_ output: OutputOptions, log: RunLog? = nil) {
        console = .shared
        self.log = log
        showsPaths = output.verbose
        wantsPaths = output.verbose || log?.takes(.debug) == true
        isQuiet = output.quiet
        showsLine = console.errorIsTerminal && !output.quiet && !output.noProgress
    }

    /// For a verb that has other words for how much it says.
    init(verbose: Bool, quiet: Bool, showsLine: Bool) {
        console = .shared
        log = nil
        showsPaths = verbose
        wantsPaths = verbose
        isQuiet = quiet
        self.showsLine = showsLine && console.errorIsTerminal
    }

    func phase(_ name: String) { phaseName.withLock { $0 = name } }

    func path(_ path: [UInt8], _ event: PathEvent) {
        let word = event.rawValue
        log?.write(.debug, word, UTF8Text.display(path), [("path", JSONValue(path: path))])
        guard showsPaths else { return }
        let gap = String(repeating: " ", count: max(1, 10 - word.count))
        console.say(word + gap + UTF8Text.display(path))
    }

    func problem(_ path: [UInt8], kind: String, message: String) {
        let number = shownProblems.add(1, ordering: .relaxed).newValue
        guard number <= Self.problemLines else {
            if number == Self.problemLines + 1 {
                console.say("batchsync: further problems are not shown here")
            }
            return
        }
        // Damage that no file is known of has no path.
        let said = path.isEmpty ? message : "\(UTF8Text.display(path)): \(message)"
        console.say("batchsync: \(said)")
        log?.write(
            .warning, "problem", said,
            [("path", JSONValue(path: path)), ("kind", .string(kind))])
    }

    /// Of what a command of a hook prints the log has so much, the end of it.
    private static let hookBytesLogged = 8 << 10

    /// A command of a hook has ended.
    func hook(_ name: String, _ outcome: HookOutcome) {
        let line = UTF8Text.display(Array(outcome.line.utf8))
        let text = "hook \(name): '\(line)' \(outcome.isGood ? "went well" : outcome.failure)"
        var output = outcome.output.suffix(Self.hookBytesLogged)
        if output.count < outcome.output.count {
            // No character is cut in two.
            output = output.drop { $0 & 0xC0 == 0x80 }
        }
        log?.write(
            outcome.isGood ? .info : .warning, "hook", text,
            [
                ("hook", .string(name)), ("command", .string(outcome.line)),
                ("ok", .bool(outcome.isGood)), ("output", JSONValue(path: Array(output))),
                ("duration_ms", .count(outcome.milliseconds)),
            ])
        guard showsPaths else { return }
        console.say("batchsync: \(text)")
        for line in outcome.output.split(separator: 0x0A) {
            console.say("  \(UTF8Text.display(Array(line)))")
        }
    }

    /// Said once: a verb puts its notes into its report as well.
    func note(_ text: String) {
        if keep(text), !isQuiet { console.say("batchsync: \(text)") }
    }

    /// The same for what was said on the console already.
    ///
    /// - Returns: Whether it is new.
    @discardableResult
    func keep(_ text: String) -> Bool {
        let isNew = said.withLock { said in
            guard !said.contains(text) else { return false }
            said.append(text)
            return true
        }
        if isNew { log?.write(.info, "note", text) }
        return isNew
    }

    /// All that was noted, in the order in which it was.
    var notes: [String] { said.withLock { $0 } }

    // MARK: The line

    /// Whether anybody looks at the line.
    var isShown: Bool { showsLine }

    /// Whether the verb has ended.
    var isOver: Bool { isDone.load(ordering: .relaxed) }

    /// From now on the line counts from here, and says how long all of it takes as a rule.
    func expect(milliseconds: Int?) {
        guard let milliseconds else { return }
        expectation.withLock { $0 = (csys_boottime_ns(), milliseconds) }
    }

    /// Runs a verb with the line shown.
    func whileShowing<Value>(_ body: () throws -> Value) rethrows -> Value {
        isDone.store(false, ordering: .relaxed)
        let thread = showsLine ? SideThread { [self] in draw() } : nil
        defer {
            isDone.store(true, ordering: .relaxed)
            thread?.join()
            console.progress("")
        }
        return try body()
    }

    private func draw() {
        let expectation = expectation.withLock { $0 }
        var rate = ProgressRate(
            start: expectation?.began ?? csys_boottime_ns(),
            expectedMilliseconds: expectation?.milliseconds)
        var slept = 0
        while !isDone.load(ordering: .relaxed) {
            // Short naps: the end of the verb is not made to wait for the line.
            usleep(20_000)
            slept += 20
            guard slept >= 200 else { continue }
            slept = 0
            let text = rate.line(
                phase: phaseName.withLock { $0 }, counts: counts, now: csys_boottime_ns())
            console.progress(String(text.prefix(max(20, console.columns - 1))))
        }
    }
}

/// Rate and time left from counts that were looked at now and then.
struct ProgressRate {
    private let start: Int64
    /// How long all of it takes as a rule; nil where nobody knows.
    private let expectedMilliseconds: Int?
    /// What was counted when, of the last seconds: a rate over the whole run would hide that it stands still.
    private var window: [(time: Int64, bytes: Int, entries: Int)] = []
    private static let windowNanoseconds: Int64 = 5_000_000_000

    /// What is over before anybody has read the line.
    private static let leastExpectedMilliseconds = 10_000

    init(start: Int64, expectedMilliseconds: Int? = nil) {
        self.start = start
        self.expectedMilliseconds = expectedMilliseconds.flatMap {
            $0 >= Self.leastExpectedMilliseconds ? $0 : nil
        }
    }

    mutating func line(phase: String, counts: ProgressCounts, now: Int64) -> String {
        let entries = counts.entries.load(ordering: .relaxed)
        let bytes = counts.bytes.load(ordering: .relaxed)
        let bytesExpected = counts.bytesExpected.load(ordering: .relaxed)
        let entriesExpected = counts.entriesExpected.load(ordering: .relaxed)
        let problems = counts.problems.load(ordering: .relaxed)
        window.append((now, bytes, entries))
        window.removeAll { now - $0.time > Self.windowNanoseconds }
        let elapsed = Int((now - start) / 1_000_000)
        var clock = TimeText.clock(seconds: elapsed / 1000)
        // A run that takes longer than ever is no longer compared with others.
        let expected = expectedMilliseconds.flatMap { $0 > elapsed ? $0 : nil }
        if let expected { clock += " of about \(TimeText.clock(seconds: expected / 1000))" }
        var parts = [clock]
        if !phase.isEmpty { parts.append(phase) }
        if entries > 0 || entriesExpected > 0 {
            // What is expected is what there was last time: once there is more, nobody knows.
            let total =
                entriesExpected >= max(entries, 1)
                ? " of \(NumberText.grouped(entriesExpected))" : ""
            parts.append("\(NumberText.grouped(entries))\(total) entries")
        }
        if bytes > 0 || bytesExpected > 0 {
            let total =
                bytesExpected >= max(bytes, 1) ? " of \(NumberText.bytes(bytesExpected))" : ""
            parts.append("\(NumberText.bytes(bytes))\(total)")
        }
        var left: Double?
        if let first = window.first, now > first.time {
            let seconds = Double(now - first.time) / 1e9
            let bytesRate = Double(bytes - first.bytes) / seconds
            let entriesRate = Double(entries - first.entries) / seconds
            if bytesRate >= 1 { parts.append("\(NumberText.bytes(Int(bytesRate)))/s") }
            if bytesExpected > bytes, bytesRate > 0 {
                left = Double(bytesExpected - bytes) / bytesRate
            } else if bytesExpected == 0, entriesExpected > entries, entriesRate > 0 {
                left = Double(entriesExpected - entries) / entriesRate
            }
        }
        // What can be counted is not all there is to do: the rest, which earlier runs had as well, is
        // in how long they took.
        if let expected { left = max(left ?? 0, Double(expected - elapsed) / 1000) }
        if let left, left < 1e7 {
            parts.append("\(TimeText.clock(seconds: Int(left) + 1)) left")
        }
        if counts.waitingForStore.load(ordering: .relaxed) > 0 {
            let spooled = counts.spooledBytes.load(ordering: .relaxed)
            parts.append("waiting for the store, \(NumberText.bytes(spooled)) in the spool")
        }
        if problems > 0 { parts.append(NumberText.counted(problems, "problem")) }
        return parts.joined(separator: "  ")
    }
}
