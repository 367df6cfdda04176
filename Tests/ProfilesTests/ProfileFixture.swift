import Glibc
import TestSupport
import Testing

@testable import Profiles

/// Profiles of a test's own, and an environment that knows nothing else.
struct ProfileFixture {
    let directory = TemporaryDirectory()
    var environment: [String: String]

    init() {
        environment = ["HOME": "/home/anna", "XDG_CONFIG_HOME": directory.path("config")]
        mkdir(directory.path("config"), 0o755)
        mkdir(directory.path("config/batchsync"), 0o755)
    }

    /// Writes a file and gives its path.
    @discardableResult
    func write(_ text: String, to name: String, mode: UInt32 = 0o644) -> String {
        directory.write(Array(text.utf8), to: name, mode: mode)
        // Whatever the umask takes away from it.
        chmod(directory.path(name), mode)
        return directory.path(name)
    }

    func load(_ nameOrPath: String, isRoot: Bool = false) throws(ProfileError) -> Profile {
        try Profile.load(nameOrPath, environment: environment, isRoot: isRoot)
    }

    func load(text: String) throws(ProfileError) -> Profile {
        try load(write(text, to: "test.toml"))
    }

    /// What is wrong with a profile of this text: line, sentence, and what to do about it.
    func problems(text: String) -> [String] {
        do throws(ProfileError) {
            _ = try load(text: text)
            return []
        } catch {
            return error.problems.map {
                ($0.line > 0 ? "\($0.line): " : "") + "\($0.message) | \($0.remedy)"
            }
        }
    }
}

/// The directory of the example profiles.
let examples =
    String(#filePath.dropLast("/Tests/ProfilesTests/ProfileFixture.swift".count)) + "/profiles"
