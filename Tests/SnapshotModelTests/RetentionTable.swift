import SnapshotModel

/// A golden table of retention: what there is, by which rules it is judged, and what becomes of
/// each snapshot, with its reason.
///
/// Lines of settings come first, then a line for each snapshot. Behind the bar stands what the
/// policy decides; everything before it is input.
///
///     zone +01:00, from 2026-03-29T01:00:00Z +02:00
///     now 2026-04-02T10:00:00Z
///     group host,paths
///     policy last=1 daily=3 within-weekly=30d tag=x
///
///     a 2026-03-27T22:30:00Z host=mars paths=/srv,/etc tags=x pinned | keep: daily 1 of 3, pinned
struct RetentionTable {
    struct Malformed: Error { let line: String }

    private(set) var candidates: [RetentionCandidate] = []
    private(set) var policy = RetentionPolicy()
    private(set) var calendar = RetentionCalendar.utc
    private(set) var now = Timestamp(seconds: 0)
    private(set) var grouping = RetentionGrouping.standard
    /// The lines of the file without what was decided; nil in the place of a snapshot's line.
    private var lines: [String?] = []
    private var inputs: [(name: String, text: String)] = []

    init(parsing text: String) throws {
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
            if line.hasPrefix("refused: ") { continue }
            let input = line.split(separator: "|", maxSplits: 1, omittingEmptySubsequences: false)[
                0]
            let words = input.split(separator: " ").map(String.init)
            guard let first = words.first, !line.hasPrefix("#") else {
                lines.append(line)
                continue
            }
            let rest = Array(words.dropFirst())
            switch first {
            case "zone": calendar = try Self.zone(line)
            case "now": now = try Self.time(rest.first ?? "", in: line)
            case "group":
                guard let parsed = RetentionGrouping(parsing: rest.first ?? "") else {
                    throw Malformed(line: line)
                }
                grouping = parsed
            case "policy": policy = RetentionPolicy(try rest.map { try Self.rule($0, in: line) })
            default:
                candidates.append(try candidate(rest, in: line))
                inputs.append((first, words.joined(separator: " ")))
                lines.append(nil)
                continue
            }
            lines.append(line)
        }
    }

    /// The table with what `decide` says now.
    func decided() -> String {
        var outcome: [SnapshotID: RetentionVerdict] = [:]
        var refusal: String?
        do {
            let groups = try policy.decide(
                on: candidates, grouping: grouping, now: now, calendar: calendar)
            for verdict in groups.flatMap(\.verdicts) { outcome[verdict.candidate.id] = verdict }
        } catch {
            refusal =
                switch error {
                case .noRules: "refused: there are no rules"
                case .leavesNothing(let keys):
                    "refused: nothing would be left of "
                        + keys.map(\.description).joined(separator: "; ")
                }
        }
        let width = inputs.map(\.text.count).max() ?? 0
        var position = 0
        var text = lines.map { line in
            if let line { return line }
            let (_, input) = inputs[position]
            let verdict = outcome[candidates[position].id].map { " | \(describe($0))" } ?? ""
            position += 1
            if verdict.isEmpty { return input }
            return input + String(repeating: " ", count: width - input.count) + verdict
        }
        if let refusal { text.insert(refusal, at: text.count - 1) }
        return text.joined(separator: "\n")
    }

    private func describe(_ verdict: RetentionVerdict) -> String {
        if verdict.isKept {
            return "keep: " + verdict.reasons.map(\.text).joined(separator: ", ")
        }
        let names = zip(candidates, inputs).reduce(into: [SnapshotID: String]()) {
            $0[$1.0.id] = $1.1.name
        }
        return "forget: "
            + verdict.misses.map { $0.text { names[$0] ?? "?" } }.joined(separator: ", ")
    }

    private func candidate(_ words: [String], in line: String) throws -> RetentionCandidate {
        // Ids rise with the lines, so that of equal times the lower line is the newer.
        let id = SnapshotID(UInt64(candidates.count + 1), 0, 0, 0)
        var made = RetentionCandidate(
            id: id, time: try Self.time(words.first ?? "", in: line), host: "mars", roots: [])
        for word in words.dropFirst() {
            let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
            let list = (parts.last ?? "").split(separator: ",").map(String.init)
            switch parts[0] {
            case "host": made.host = parts.last ?? ""
            case "paths": made.roots = list.map { Array($0.utf8) }
            case "tags": made.tags = list
            case "pinned": made.isPinned = true
            case "incomplete": made.isIncomplete = true
            default: throw Malformed(line: line)
            }
        }
        return made
    }

    /// `last=1`, `daily=3`, `within=30d`, `within-daily=30d`, `tag=x`.
    static func rule(_ word: String, in line: String = "") throws -> RetentionRule {
        let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2 else { throw Malformed(line: line) }
        let (name, value) = (parts[0], parts[1])
        if name == "tag" { return .tag(value) }
        if name == "within", let duration = RetentionDuration(parsing: value) {
            return .within(duration)
        }
        if name == "last", let count = RetentionCount(parsing: value) { return .last(count) }
        if let period = RetentionPeriod(rawValue: name), let count = RetentionCount(parsing: value)
        {
            return .newest(count, period)
        }
        if name.hasPrefix("within-"), let duration = RetentionDuration(parsing: value),
            let period = RetentionPeriod(rawValue: String(name.dropFirst(7)))
        {
            return .newestWithin(duration, period)
        }
        throw Malformed(line: line)
    }

    /// `2026-03-27T22:30:00Z`, or with a decimal fraction of nine digits.
    static func time(_ text: String, in line: String = "") throws -> Timestamp {
        let numbers = text.split { !$0.isNumber }.compactMap { Int($0) }
        guard text.hasSuffix("Z"), numbers.count == 6 || numbers.count == 7 else {
            throw Malformed(line: line)
        }
        var time = Timestamp(
            year: numbers[0], month: numbers[1], day: numbers[2], hour: numbers[3],
            minute: numbers[4], second: numbers[5])
        if numbers.count == 7 { time.nanoseconds = UInt32(numbers[6]) }
        return time
    }

    /// `zone +01:00, from 2026-03-29T01:00:00Z +02:00, from …`.
    private static func zone(_ line: String) throws -> RetentionCalendar {
        func seconds(_ text: some StringProtocol) throws -> Int64 {
            let numbers = text.dropFirst().split(separator: ":").compactMap { Int64($0) }
            guard numbers.count == 2, "+-".contains(text.prefix(1)) else {
                throw Malformed(line: line)
            }
            return (text.hasPrefix("-") ? -1 : 1) * (numbers[0] * 3600 + numbers[1] * 60)
        }
        var changes: [(from: Int64, offset: Int64)] = []
        for part in line.dropFirst(5).split(separator: ",") {
            let words = part.split(separator: " ")
            switch words.count {
            case 1: changes.append((.min, try seconds(words[0])))
            case 3: changes.append((try time(String(words[1])).seconds, try seconds(words[2])))
            default: throw Malformed(line: line)
            }
        }
        return RetentionCalendar(changes: changes)
    }
}

extension RetentionCalendar {
    /// - Parameter changes: From which moment on which offset holds, in order.
    init(changes: [(from: Int64, offset: Int64)]) {
        self.init { moment in changes.last { $0.from <= moment }?.offset ?? 0 }
    }
}
