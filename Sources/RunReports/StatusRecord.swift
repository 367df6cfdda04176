package import SnapshotModel

/// What this host knows of one store, as a profile uses it or as words have named it: enough to say
/// how it stands without asking the store.
///
/// What is true of the store whoever uses it, how full and how well verified it is, stands in the
/// record without a profile. Written at the end of every run; a value, which `StatusBook` keeps.
package struct StatusRecord: Sendable, Equatable {
    /// The newest snapshot of some sources that the store has. One with problems counts: it is there.
    package struct Source: Sendable, Equatable {
        package var host: String
        /// In the order in which the snapshot has them.
        package var roots: [[UInt8]]
        package var snapshot: SnapshotID
        package var time: Timestamp
        package var problemCount: Int
        package var files: Int
        package var bytes: Int

        package init(
            host: String, roots: [[UInt8]], snapshot: SnapshotID, time: Timestamp,
            problemCount: Int, files: Int, bytes: Int
        ) {
            self.host = host
            self.roots = roots
            self.snapshot = snapshot
            self.time = time
            self.problemCount = problemCount
            self.files = files
            self.bytes = bytes
        }
    }

    /// The last run of a verb.
    package struct LastRun: Sendable, Equatable {
        package var began: Timestamp
        package var milliseconds: Int
        package var outcome: RunSummary.Outcome
        package var exitCode: Int
        package var text: String
    }

    /// When the stored bytes were last read back, by days since 1970.
    package struct Coverage: Sendable, Equatable {
        /// Stored bytes of all bundles, and of those that were never read.
        package var totalBytes: Int
        package var neverReadBytes: Int
        package var bytesByDay: [Int: Int]

        package init(totalBytes: Int, neverReadBytes: Int, bytesByDay: [Int: Int]) {
            self.totalBytes = totalBytes
            self.neverReadBytes = neverReadBytes
            self.bytesByDay = bytesByDay
        }
    }

    /// Nil where no profile was named.
    package let profile: String?
    package let location: String
    /// The profile's file, so that one that was removed need not be told of for ever.
    package var profileFile: String?
    package var sources: [Source] = []
    /// By verb; `run` stands for all that a profile says.
    package var lastRuns: [RunSummary.Verb: LastRun] = [:]
    package var coverage: Coverage?
    /// Stored bytes by day since 1970, as the day's last run left them.
    package private(set) var space: [Int: Int] = [:]

    /// Somebody who backs up this and that by words leaves the old ones behind.
    private static let sourcesKept = 32
    private static let daysKept = 400

    package init(profile: String?, location: String) {
        self.profile = profile
        self.location = location
    }

    // MARK: What runs tell

    /// A snapshot that the store has now. A profile has the sources that its last run had, and no
    /// others, whatever the host was called: containers have another name each time.
    package mutating func note(_ source: Source) {
        sources.removeAll { known in
            profile != nil
                || known.host == source.host && Set(known.roots) == Set(source.roots)
        }
        sources.append(source)
        sources = Array(sources.sorted { $0.time < $1.time }.suffix(Self.sourcesKept))
    }

    package mutating func note(_ run: RunSummary) {
        lastRuns[run.verb] = LastRun(
            began: run.began, milliseconds: run.milliseconds, outcome: run.outcome,
            exitCode: run.exitCode, text: RunSummary.cut(run.text))
    }

    /// All that the store holds, as somebody has just counted it.
    package mutating func note(storedBytes: Int, at time: Timestamp) {
        space[Self.day(time)] = storedBytes
        take(space: space)
    }

    /// All that is known of days, as far as it is kept.
    mutating func take(space days: [Int: Int]) {
        space = days
        guard days.count > Self.daysKept else { return }
        for day in days.keys.sorted().dropLast(Self.daysKept) { space[day] = nil }
    }

    /// What a run has added, or taken away, since the bytes were last known.
    package mutating func note(addedBytes: Int, at time: Timestamp) {
        let known = space.max { $0.key < $1.key }?.value ?? 0
        note(storedBytes: max(0, known + addedBytes), at: time)
    }

    /// The same with what another record knows of the store itself.
    package func takingStoreFacts(from store: StatusRecord) -> StatusRecord {
        var record = self
        record.coverage = store.coverage
        record.space = store.space
        return record
    }

    // MARK: What is asked

    package var storedBytes: Int? { space.max { $0.key < $1.key }?.value }

    /// By how many bytes a day the store has grown in the last thirty days; nil where nothing is
    /// known of at least a week.
    package func growthPerDay(at now: Timestamp) -> Int? {
        let today = Self.day(now)
        let recent = space.filter { $0.key <= today && $0.key >= today - 30 }
        guard let first = recent.min(by: { $0.key < $1.key }),
            let last = recent.max(by: { $0.key < $1.key }), last.key - first.key >= 7
        else { return nil }
        return (last.value - first.value) / (last.key - first.key)
    }

    static func day(_ time: Timestamp) -> Int {
        let (days, rest) = time.seconds.quotientAndRemainder(dividingBy: 86_400)
        return Int(rest < 0 ? days - 1 : days)
    }
}

extension StatusRecord.Coverage {
    /// Which share of the stored bytes was read back within so many days, 0 to 1. Nothing stored is
    /// nothing left to read.
    package func share(within days: Int, at now: Timestamp) -> Double {
        guard totalBytes > 0 else { return 1 }
        let first = StatusRecord.day(now) - days
        let read = bytesByDay.reduce(0) { $1.key > first ? $0 + $1.value : $0 }
        return min(1, Double(read) / Double(totalBytes))
    }

    /// The day since 1970 on which those bytes were read that were read longest ago; nil where
    /// nothing was.
    package var oldestDay: Int? { bytesByDay.filter { $0.value > 0 }.keys.min() }
}
