import CSystem
import Glibc
import SnapshotModel

/// The status records of this host, a small file for each profile and store.
///
/// They are a convenience: one that cannot be read is taken for none, and is written anew by the
/// next run.
package struct StatusBook: Sendable {
    private let directory: String
    private static let maximumBytes = 4 << 20

    /// - Parameter state: This host's directory for state.
    package init(state: String) { directory = state + "/status" }

    private func path(_ profile: String?, _ location: String) -> String {
        let subject =
            profile.map { RunHistory.Subject.profile($0).fileName + "," }
            ?? RunHistory.Subject.repository("").fileName
        return "\(directory)/\(subject)\(FileNameText.escaped(location)).json"
    }

    /// What is known of a store; a record without anything where nothing is.
    package func record(profile: String?, location: String) -> StatusRecord {
        read(path(profile, location)) ?? StatusRecord(profile: profile, location: location)
    }

    /// All records, in order of profile and place; those without a profile last.
    package func all() -> [StatusRecord] {
        ReportFile.names(in: directory).filter { $0.hasSuffix(".json") }
            .compactMap { read("\(directory)/\($0)") }
            .sorted { left, right in
                guard left.profile == right.profile else {
                    guard let one = left.profile, let other = right.profile else {
                        return left.profile != nil
                    }
                    return one < other
                }
                return left.location < right.location
            }
    }

    private func read(_ path: String) -> StatusRecord? {
        ReportFile.read(path, maximumBytes: Self.maximumBytes)
            .flatMap { JSONValue(parsing: $0) }.flatMap { StatusRecord($0) }
    }

    /// Changes a record, and gives what it is now. What several runs have to tell at once is all
    /// kept.
    @discardableResult
    package func update(
        profile: String?, location: String, _ change: (inout StatusRecord) -> Void
    ) throws(RunReportError) -> StatusRecord {
        try ReportFile.makeDirectory(directory)
        let lockPath = "\(directory)/lock"
        let lock = csys_open(lockPath, O_RDWR | O_CREAT | CSYS_O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw .file(lockPath, "open", lock) }
        defer { _ = csys_close(lock) }
        let locked = csys_lock(lock)
        guard locked == 0 else { throw .file(lockPath, "lock", locked) }
        var record = record(profile: profile, location: location)
        change(&record)
        try ReportFile.replace(
            path(profile, location), with: record.document.bytes + [0x0A], mode: 0o600)
        return record
    }
}
