/// One thing that is wrong with a profile.
package struct ProfileProblem: Error, Sendable, Equatable, CustomStringConvertible {
    /// The file concerned; empty until it is known.
    package var file: String
    /// Counted from 1; 0 where the whole file is meant.
    package var line: Int
    /// What is wrong.
    package let message: String
    /// What to do about it, in one sentence.
    package let remedy: String

    package init(_ message: String, file: String = "", line: Int = 0, remedy: String = "") {
        self.file = file
        self.line = line
        self.message = message
        self.remedy = remedy
    }

    /// `FILE:LINE: what is wrong`, as compilers write it, so that editors find the place.
    package var description: String {
        var place = file
        if line > 0 { place += place.isEmpty ? "line \(line)" : ":\(line)" }
        return place.isEmpty ? message : "\(place): \(message)"
    }

    /// The problem with its place, where it has none yet.
    func placed(file: String = "", line: Int = 0) -> ProfileProblem {
        var problem = self
        if problem.file.isEmpty { problem.file = file }
        if problem.line == 0 { problem.line = line }
        return problem
    }
}

/// Why a profile cannot be used: all that is wrong with it, so that one look mends everything.
package struct ProfileError: Error, Sendable, CustomStringConvertible {
    package enum Kind: Sendable, CaseIterable {
        /// No file has that name.
        case notFound
        /// There is a file, and this user cannot or must not read it.
        case unreadable
        /// The file does not say what a profile has to say.
        case invalid
    }

    package let kind: Kind
    /// In order of the file; never empty.
    package let problems: [ProfileProblem]

    init(_ kind: Kind, _ problems: [ProfileProblem]) {
        precondition(!problems.isEmpty, "an error says what is wrong")
        self.kind = kind
        self.problems = problems
    }

    init(_ kind: Kind, _ message: String, file: String = "", line: Int = 0, remedy: String) {
        self.init(kind, [ProfileProblem(message, file: file, line: line, remedy: remedy)])
    }

    /// The first problem, and how many there are beside it.
    package var description: String {
        let others = problems.count - 1
        let rest =
            others == 0
            ? "" : others == 1 ? ", and one more problem" : ", and \(others) more problems"
        return problems[0].description + rest
    }

    /// What to do next about the first problem.
    package var remedy: String { problems[0].remedy }
}
