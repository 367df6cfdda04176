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
    private let said = Mutex<Set<String>>([])

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
        console.say("batchsync: \(UTF8Text.display(path)): \(message)")
        log?.write(
            .warning, "problem", "\(UTF8Text.display(path)): \(message)",
            [("path", JSONValue(path: path)), ("kind", .string(kind))])
    }

    /// Said once: a verb puts its notes into its report as well.
    func note(_ text: String) {
        guard said.withLock({ $0.insert(text).inserted }) else { return }
        log?.write(.info, "note", text)
        if !isQuiet { console.say("batchsync: \(text)") }
    }

    // MARK: The line

    /// Whether anybody looks at the line.
    var isShown: Bool { showsLine }

    /// Whether the verb has ended.
    var isOver: Bool { isDone.load(ordering: .relaxed) }

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
        var rate = ProgressRate(start: csys_boottime_ns())
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
    /// What was counted when, of the last seconds: a rate over the whole run would hide that it stands still.
    private var window: [(time: Int64, bytes: Int, entries: Int)] = []
    private static let windowNanoseconds: Int64 = 5_000_000_000

    init(start: Int64) { self.start = start }

    mutating func line(phase: String, counts: ProgressCounts, now: Int64) -> String {
        let entries = counts.entries.load(ordering: .relaxed)
        let bytes = counts.bytes.load(ordering: .relaxed)
        let bytesExpected = counts.bytesExpected.load(ordering: .relaxed)
        let entriesExpected = counts.entriesExpected.load(ordering: .relaxed)
        let problems = counts.problems.load(ordering: .relaxed)
        window.append((now, bytes, entries))
        window.removeAll { now - $0.time > Self.windowNanoseconds }
        var parts = [TimeText.clock(seconds: Int((now - start) / 1_000_000_000))]
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
        if let first = window.first, now > first.time {
            let seconds = Double(now - first.time) / 1e9
            let bytesRate = Double(bytes - first.bytes) / seconds
            let entriesRate = Double(entries - first.entries) / seconds
            if bytesRate >= 1 { parts.append("\(NumberText.bytes(Int(bytesRate)))/s") }
            var left: Double?
            if bytesExpected > bytes, bytesRate > 0 {
                left = Double(bytesExpected - bytes) / bytesRate
            } else if bytesExpected == 0, entriesExpected > entries, entriesRate > 0 {
                left = Double(entriesExpected - entries) / entriesRate
            }
            if let left, left < 1e7 {
                parts.append("\(TimeText.clock(seconds: Int(left) + 1)) left")
            }
        }
        if problems > 0 { parts.append(NumberText.counted(problems, "problem")) }
        return parts.joined(separator: "  ")
    }
}
