import FileTree
import SnapshotModel

/// Which entries of a snapshot are wanted.
struct RestoreSelection: Sendable {
    private let exclude: ExclusionRules?
    private let include: ExclusionRules?
    private let roots: [[UInt8]]

    init(_ options: RestoreOptions, roots: [[UInt8]]) {
        func rules(_ patterns: [[UInt8]]) -> ExclusionRules? {
            guard !patterns.isEmpty else { return nil }
            var rules = ExclusionRules()
            for pattern in patterns { rules.add(option: pattern) }
            return rules
        }
        exclude = rules(options.exclude)
        include = rules(options.include)
        self.roots = roots
    }

    var hasIncludes: Bool { include != nil }
    var isEverything: Bool { exclude == nil && include == nil }

    /// The source root that holds a path decides what a leading slash in a pattern means.
    private func rootLength(_ path: UnsafeRawBufferPointer) -> Int {
        var length = 0
        for root in roots where root.count > max(length, 1) {
            let holds = root.withUnsafeBytes { EntryPath.contains($0, path) }
            if holds { length = root.count }
        }
        return length
    }

    /// Whether a pattern leaves the entry out. Asked for a directory before anything in it.
    func excludes(_ path: UnsafeRawBufferPointer, isDirectory: Bool) -> Bool {
        guard let exclude else { return false }
        return exclude.decide(
            path: path, rootLength: rootLength(path), isDirectory: isDirectory, directoryRules: nil
        ).isExcluded
    }

    /// Whether a pattern asks for the entry itself; what lies below it is then wanted, too.
    func includes(_ path: UnsafeRawBufferPointer, isDirectory: Bool) -> Bool {
        guard let include else { return true }
        return include.decide(
            path: path, rootLength: rootLength(path), isDirectory: isDirectory, directoryRules: nil
        ).isExcluded
    }
}
