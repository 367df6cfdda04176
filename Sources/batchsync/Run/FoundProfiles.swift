import Profiles
import RunReports

/// Profiles that stand beside each other, and which of them are there for the others only.
///
/// What several profiles have in common lies in one from which they inherit, often in the same
/// directory. Nobody runs that one, so nobody wants to hear that it never ran.
struct FoundProfiles {
    private let search: ProfileSearchPath
    /// By the real path of a file: the name of a profile that inherits from it.
    private let heirs: [String: String]
    /// Names of profiles that have run on this host.
    private let haveRun: Set<String>

    /// - Parameter words: Names or paths.
    /// - Parameter known: What this host remembers of its runs.
    init(_ words: [String], search: ProfileSearchPath, known: [StatusRecord]) {
        self.search = search
        haveRun = Set(known.compactMap(\.profile))
        var heirs: [String: String] = [:]
        for word in words {
            // One that cannot be read says so where it is used.
            guard let profile = try? Assembly.load(word) else { continue }
            for file in profile.files.dropFirst() {
                heirs[RunReporter.place(file)] = profile.name
            }
        }
        self.heirs = heirs
    }

    /// A profile that inherits from this one, which is no job itself: it is not complete, or it
    /// could run and never did.
    func heirOfBase(_ word: String) -> String? {
        guard let file = ProfileSearchPath.isPath(word) ? word : search.file(named: word),
            let heir = heirs[RunReporter.place(file)]
        else { return nil }
        // What a profile lacks to be read by itself its heirs have.
        let isComplete = (try? Assembly.load(word)).map { !$0.source.isEmpty } ?? false
        return isComplete && haveRun.contains(ProfileSearchPath.profileName(of: word)) ? nil : heir
    }
}
