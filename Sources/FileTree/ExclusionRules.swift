/// Which entries of the sources are left out, and why. Pure: the walk brings the facts.
///
/// Patterns have the meaning of gitignore(5); see `GlobPattern`. They come from three places. What
/// stands earlier in this list wins, so a pattern of a lower group is asked only where no pattern
/// of a higher one matches:
///
/// 1. options (`--exclude`),
/// 2. the `.batchsyncignore` files from the entry's own directory up to its source root,
/// 3. files (`--exclude-from`), all of them read as if they were one.
///
/// Within a group (for ignore files: within one file) the last pattern that matches decides, and
/// `!` makes it keep. That is git's order: whoever gives the command has the last word, then
/// whoever keeps the directory; a list for the whole host is the default. An entry below an
/// excluded directory cannot be kept, because the walk never goes there.
///
/// A leading `/` (and every pattern with a slash inside) means the source root in options and
/// files, and in `.batchsyncignore` the directory it lies in. A leading `//` means the file
/// system's root. A source root itself was asked for by name and is never excluded by a pattern.
package struct ExclusionRules: Sendable {
    /// The name of the files with rules for what lies below their directory.
    package static let ignoreFileName = Array(".batchsyncignore".utf8)

    /// The largest `.batchsyncignore` that is read: anybody may write one, and rules stay in memory
    /// while the walk is below them.
    package static let ignoreFileBytes = 256 << 10

    private var options = ExclusionRuleList.empty
    private var files = ExclusionRuleList.empty

    /// Markers that empty their directory; `ExclusionMarker.cacheDirectory` among them only where
    /// it is asked for.
    package var markers: [ExclusionMarker] = []

    /// Regular files of more bytes than this are left out. Apparent size; nil is no limit.
    package var largestFileBytes: UInt64?

    /// Leaves out entries with the inode flag "no dump", directories with all below them.
    package var excludesNoDump = false

    /// Leaves out what lies on another file system than its root. A directory on which another file
    /// system is mounted is kept, empty.
    package var staysOnFileSystem = false

    package init() {}

    // MARK: Patterns

    /// Whether no pattern from an option or a file exists.
    package private(set) var hasNoPatterns = true

    /// Adds the pattern of one `--exclude`. `#` and trailing spaces are part of it: quoting is the
    /// shell's business there.
    package mutating func add(option pattern: [UInt8]) {
        let line = options.writtenCount + 1
        options = ExclusionRuleList(
            extending: options, by: [.init(text: pattern, source: .option, line: line)])
        hasNoPatterns = options.isEmpty && files.isEmpty
    }

    /// Adds the patterns of a file given by `--exclude-from`.
    ///
    /// - Parameter path: As the user gave it, for the reasons.
    package mutating func add(file path: [UInt8], contents: [UInt8]) {
        files = ExclusionRuleList(
            extending: files, by: ExclusionRuleList.origins(in: contents, source: .file(path)))
        hasNoPatterns = options.isEmpty && files.isEmpty
    }

    /// The patterns from options and files, as they were written and in the order in which they
    /// apply.
    package var written: [ExclusionReason] {
        (options.origins + files.origins).map {
            .rule(text: $0.text, source: $0.source, line: $0.line)
        }
    }

    /// The patterns from options and files that can never match, and what is wrong with them. Git
    /// is silent about these; a backup that grows by what its owner meant to leave out is not.
    package var neverMatching: [(rule: ExclusionReason, defect: GlobPattern.Defect)] {
        (options.defects + files.defects).map { origin, defect in
            (.rule(text: origin.text, source: origin.source, line: origin.line), defect)
        }
    }

    /// Whether the patterns keep an entry out.
    ///
    /// Asks about the entry alone; the caller does not go below an excluded directory. Called for
    /// every entry of a walk: allocates nothing, and without rules answers at once.
    ///
    /// - Parameters:
    ///   - path: The entry's absolute path: no trailing slash, no `.`, `..` or empty component.
    ///   - rootLength: How many of its bytes are the source root's path; 0 or 1 where that is `/`.
    ///   - directoryRules: The rules of the nearest `.batchsyncignore` above the entry.
    package func decide(
        path: UnsafeRawBufferPointer, rootLength: Int, isDirectory: Bool,
        directoryRules: DirectoryRules?
    ) -> ExclusionDecision {
        if directoryRules == nil && hasNoPatterns { return .kept }
        guard path.count > rootLength, let bytes = path.baseAddress else { return .kept }
        return decide(
            path: bytes.assumingMemoryBound(to: UInt8.self), count: path.count,
            rootLength: rootLength, isDirectory: isDirectory, directoryRules: directoryRules)
    }

    /// As `decide`, but asks first about every directory between the source root and the entry,
    /// from the top: for paths that no walk has led to.
    ///
    /// - Returns: The decision, and how many bytes of `path` name the entry that it speaks of:
    ///   fewer than all where a directory above is excluded.
    package func decideFromRoot(
        path: UnsafeRawBufferPointer, rootLength: Int, isDirectory: Bool,
        directoryRules: DirectoryRules?
    ) -> (decision: ExclusionDecision, length: Int) {
        let slash = UInt8(ascii: "/")
        var length = rootLength
        if length < path.count, path[length] == slash { length += 1 }
        while length < path.count {
            while length < path.count, path[length] != slash { length += 1 }
            let decision = decide(
                path: UnsafeRawBufferPointer(rebasing: path[..<length]), rootLength: rootLength,
                isDirectory: isDirectory || length < path.count, directoryRules: directoryRules)
            if decision.isExcluded || length == path.count { return (decision, length) }
            length += 1
        }
        return (.kept, path.count)
    }

    private func decide(
        path: UnsafePointer<UInt8>, count: Int, rootLength: Int, isDirectory: Bool,
        directoryRules: DirectoryRules?
    ) -> ExclusionDecision {
        let slash = UInt8(ascii: "/")
        let base = path[rootLength] == slash ? rootLength + 1 : rootLength
        guard base < count else { return .kept }
        var name = count
        while name > base, path[name - 1] != slash { name -= 1 }

        if !options.isEmpty,
            let index = options.lastMatch(
                path: path, count: count, base: base, name: name, isDirectory: isDirectory)
        {
            return ExclusionDecision(list: options, index: index)
        }
        var next = directoryRules
        while let rules = next {
            // A directory's own rules speak of what lies below it, not of itself.
            if rules.base < count,
                let index = rules.list.lastMatch(
                    path: path, count: count, base: rules.base, name: name,
                    isDirectory: isDirectory)
            {
                return ExclusionDecision(list: rules.list, index: index)
            }
            next = rules.parent
        }
        if !files.isEmpty,
            let index = files.lastMatch(
                path: path, count: count, base: base, name: name, isDirectory: isDirectory)
        {
            return ExclusionDecision(list: files, index: index)
        }
        return .kept
    }

    // MARK: Facts

    /// Why an entry's status keeps it out, or nil. Costs three comparisons.
    ///
    /// - Parameter size: The apparent size in bytes of a regular file, nil for every other kind.
    package func reason(
        size: UInt64?, isNoDump: Bool = false, isOnOtherFileSystem: Bool = false
    ) -> ExclusionReason? {
        if staysOnFileSystem && isOnOtherFileSystem { return .otherFileSystem }
        if excludesNoDump && isNoDump { return .noDump }
        if let limit = largestFileBytes, let size, size > limit {
            return .tooLarge(size: size, limit: limit)
        }
        return nil
    }

    // MARK: Traps

    /// Patterns that begin with the path of a source root behind a single `/`, where `//` was
    /// probably meant: with the root `/home/ada`, `/home/ada/tmp` means `/home/ada/home/ada/tmp`.
    ///
    /// - Parameter roots: Absolute paths without trailing slash.
    package func probablyAbsolute(roots: [[UInt8]]) -> [ExclusionReason] {
        let slash = UInt8(ascii: "/")
        return (options.origins + files.origins).compactMap { origin in
            let text = origin.text.first == UInt8(ascii: "!") ? origin.text[1...] : origin.text[...]
            let isSuspect = roots.contains { root in
                root.count > 1 && text.starts(with: root)
                    && (text.count == root.count || text[text.startIndex + root.count] == slash)
            }
            guard isSuspect else { return nil }
            return .rule(text: origin.text, source: origin.source, line: origin.line)
        }
    }
}
