package import SnapshotModel

/// How backups stand now, from what this host remembers: a line for each profile, source and store.
package struct StatusReport: Sendable {
    package struct Line: Sendable, Equatable {
        package var profile: String?
        package var location: String
        /// Nil where nothing was ever backed up.
        package var source: StatusRecord.Source?
        /// Seconds since the newest snapshot, negative where it is dated in the future; nil where
        /// there is none.
        package var ageSeconds: Int?
        /// How old it may be; nil where nobody has said.
        package var maximumAgeSeconds: Int?
        /// The last run that was to make a snapshot.
        package var lastRun: StatusRecord.LastRun?
        /// Share of the stored bytes that was read back in the last thirty days, 0 to 1; nil where
        /// the store was never verified from here.
        package var verifiedShare: Double?
        package var neverReadBytes: Int?
        /// When those bytes were read back that were read longest ago, to the day.
        package var oldestRead: Timestamp?
        package var storedBytes: Int?
        package var growthPerDay: Int?

        /// There is a limit, and the newest snapshot is older, or not there, or dated so far in the
        /// future that nobody knows how old it is.
        package var isLate: Bool {
            guard let maximumAgeSeconds else { return false }
            return ageSeconds.map { $0 > maximumAgeSeconds || $0 < -3600 } ?? true
        }
    }

    package static let verifiedDays = 30

    package var lines: [Line] = []

    package var isLate: Bool { lines.contains(where: \.isLate) }

    package init() {}

    /// Adds what a record says.
    ///
    /// - Parameter maximumAgeSeconds: How old the newest snapshot of its sources may be.
    package mutating func add(
        _ record: StatusRecord, maximumAgeSeconds: Int?, now: Timestamp
    ) {
        var line = Line(profile: record.profile, location: record.location)
        line.maximumAgeSeconds = maximumAgeSeconds
        line.lastRun = [record.lastRuns[.run], record.lastRuns[.backup]].compactMap(\.self)
            .max { $0.began < $1.began }
        line.storedBytes = record.storedBytes
        line.growthPerDay = record.growthPerDay(at: now)
        if let coverage = record.coverage {
            line.verifiedShare = coverage.share(within: Self.verifiedDays, at: now)
            line.neverReadBytes = coverage.neverReadBytes
            line.oldestRead = coverage.oldestDay.map { Timestamp(seconds: Int64($0) * 86_400) }
        }
        guard !record.sources.isEmpty else {
            lines.append(line)
            return
        }
        for source in record.sources {
            line.source = source
            line.ageSeconds = Int(now.seconds - source.time.seconds)
            lines.append(line)
        }
    }
}
