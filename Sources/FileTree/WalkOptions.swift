/// What a walk does beside what its exclusion rules say.
package struct WalkOptions: Sendable {
    /// Patterns, markers, size, "no dump" and file system limits.
    package var rules: ExclusionRules
    /// Whether a `.batchsyncignore` adds patterns for what lies below its directory.
    package var readsIgnoreFiles = true
    /// Whether `TreeWalker.next` reports what was left out, which costs time and memory for each.
    package var reportsExclusions = false
    /// Threads that list directories ahead of the consumer, who lists as well while it would wait.
    /// Zero is allowed: the consumer then does everything.
    package var threads = 2
    /// Work ahead stops where this many entries wait to be consumed. One directory is never split,
    /// so a very large one goes beyond it. An entry takes about 140 bytes.
    package var entriesAhead = 100_000
    /// Work ahead stops where this many directories wait, each of which holds a descriptor; nil
    /// chooses by the limit of open files.
    package var directoriesAhead: Int?
    /// How many directories above the current one stay open; nil chooses by the limit of open
    /// files. Those farther up are closed and opened again on the way back, so depth is not bounded
    /// by descriptors.
    package var openAncestors: Int?

    package init(rules: ExclusionRules = ExclusionRules()) { self.rules = rules }
}

/// Something that a walk found and cannot deliver, or cannot enter.
package struct WalkProblem: Sendable, Hashable, CustomStringConvertible {
    /// As the list of problems in a snapshot spells it (format.md section 10).
    package enum Kind: String, Sendable {
        /// It is there and cannot be read.
        case unreadable
        /// It was in its directory's list a moment ago.
        case vanished
        /// Something else took its place while the walk was under way.
        case changed
        /// It is of a kind that no manifest knows.
        case unsupported
    }

    package let kind: Kind
    package let errno: Int32
    /// What happened, without the path: `Permission denied (openat)`.
    package let message: String

    init(_ kind: Kind, _ message: String, errno: Int32 = 0) {
        self.kind = kind
        self.errno = errno
        self.message = message
    }

    init(errno: Int32, call: String) {
        switch FileTreeError.kind(of: errno) {
        case .notFound: kind = .vanished
        // A directory that became a link or a file: openat says so without following it.
        case .changed, .notADirectory: kind = .changed
        default: kind = .unreadable
        }
        self.errno = errno
        message = "\(FileTreeError.text(of: errno)) (\(call))"
    }

    package var description: String { message }
}
