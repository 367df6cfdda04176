import ArgumentParser
import FileTree
import Glibc
import SnapshotModel
import SnapshotRepository

/// What of the sources is left out. The same words for `backup` and `explain`.
struct ExclusionOptions: ParsableArguments {
    @Option(
        name: [.customShort("e"), .long],
        help: ArgumentHelp(
            "Leave out what a pattern of the gitignore kind matches. A leading / means the source, // the root of the file system; ! keeps.",
            valueName: "pattern"))
    var exclude: [PathArgument] = []

    @Option(help: ArgumentHelp("Read patterns from a file, one a line.", valueName: "file"))
    var excludeFrom: [PathArgument] = []

    @Option(
        help: ArgumentHelp(
            "Leave out what lies beside a file of this name, which may have to begin with a header.",
            valueName: "name[:header]"))
    var excludeIfPresent: [PathArgument] = []

    @Flag(help: "Leave out directories marked by a valid CACHEDIR.TAG.")
    var excludeCaches = false

    @Option(help: ArgumentHelp("Leave out files larger than this, such as 2G.", valueName: "size"))
    var excludeLargerThan: SizeArgument?

    @Flag(help: "Leave out what carries the inode flag \"no dump\" (chattr +d).")
    var excludeNodump = false

    @Flag(name: [.customShort("x"), .long], help: "Stay on the file system of each source.")
    var oneFileSystem = false

    @Flag(help: "Do not read .batchsyncignore files.")
    var noIgnoreFiles = false

    var isEmpty: Bool {
        exclude.isEmpty && excludeFrom.isEmpty && excludeIfPresent.isEmpty && !excludeCaches
            && excludeLargerThan == nil && !excludeNodump && !oneFileSystem && !noIgnoreFiles
    }

    /// The rules as a snapshot keeps them.
    var recorded: ExclusionRecord {
        var record = ExclusionRecord()
        record.exclude = exclude.map(\.bytes)
        record.excludeFrom = excludeFrom.map(\.bytes)
        record.excludeIfPresent = excludeIfPresent.map(\.bytes)
        record.excludeCaches = excludeCaches
        record.excludeLargerThan = excludeLargerThan?.bytes
        record.excludeNodump = excludeNodump
        record.oneFileSystem = oneFileSystem
        record.ignoreFiles = !noIgnoreFiles
        return record
    }
}

/// Exclusion rules as values: from the command line, or from the options that a snapshot was made
/// with.
struct ExclusionRecord {
    var exclude: [[UInt8]] = []
    var excludeFrom: [[UInt8]] = []
    var excludeIfPresent: [[UInt8]] = []
    var excludeCaches = false
    var excludeLargerThan: UInt64?
    var excludeNodump = false
    var oneFileSystem = false
    var ignoreFiles = true

    init() {}

    init(_ value: JSONValue) {
        func paths(_ name: String) -> [[UInt8]] { (value[name]?.array ?? []).compactMap(\.path) }
        exclude = paths("exclude")
        excludeFrom = paths("exclude_from")
        excludeIfPresent = paths("exclude_if_present")
        excludeCaches = value["exclude_caches"]?.bool ?? false
        excludeLargerThan = value["exclude_larger_than"]?.count.map { UInt64($0) }
        excludeNodump = value["exclude_nodump"]?.bool ?? false
        oneFileSystem = value["one_file_system"]?.bool ?? false
        ignoreFiles = value["ignore_files"]?.bool ?? true
    }

    var fields: [(key: String, value: JSONValue)] {
        var fields: [(key: String, value: JSONValue)] = []
        func add(_ name: String, _ paths: [[UInt8]]) {
            if !paths.isEmpty { fields.append((name, .array(paths.map { JSONValue(path: $0) }))) }
        }
        add("exclude", exclude)
        add("exclude_from", excludeFrom)
        add("exclude_if_present", excludeIfPresent)
        if excludeCaches { fields.append(("exclude_caches", .bool(true))) }
        if let excludeLargerThan {
            fields.append(("exclude_larger_than", .integer(Int64(clamping: excludeLargerThan))))
        }
        if excludeNodump { fields.append(("exclude_nodump", .bool(true))) }
        if oneFileSystem { fields.append(("one_file_system", .bool(true))) }
        if !ignoreFiles { fields.append(("ignore_files", .bool(false))) }
        return fields
    }

    /// What was left out, for people: a line each. The patterns are for `RecordedRule`.
    var sentences: [String] {
        var lines = excludeIfPresent.map {
            "left out: what lies beside \(UTF8Text.display($0))"
        }
        if excludeCaches { lines.append("left out: directories with a CACHEDIR.TAG") }
        if let excludeLargerThan {
            lines.append(
                "left out: files larger than \(NumberText.bytes(Int(clamping: excludeLargerThan)))")
        }
        if excludeNodump { lines.append("left out: what carries the flag \"no dump\"") }
        if oneFileSystem { lines.append("left out: other file systems than the sources' own") }
        if !ignoreFiles { lines.append(".batchsyncignore files were not read") }
        return lines
    }

    /// The rules for a walk; reads the files of patterns.
    func walkOptions() throws -> WalkOptions {
        var rules = ExclusionRules()
        for pattern in exclude { rules.add(option: pattern) }
        for path in excludeFrom {
            rules.add(file: path, contents: try HostFile.read(path, purpose: "the patterns in"))
        }
        if excludeCaches { rules.markers.append(.cacheDirectory) }
        for text in excludeIfPresent {
            guard let marker = ExclusionMarker(option: text) else {
                throw CommandError.usage(
                    "'\(UTF8Text.display(text))' is not the name of a file",
                    remedy: "write NAME or NAME:HEADER")
            }
            rules.markers.append(marker)
        }
        rules.largestFileBytes = excludeLargerThan
        rules.excludesNoDump = excludeNodump
        rules.staysOnFileSystem = oneFileSystem
        var options = WalkOptions(rules: rules)
        options.readsIgnoreFiles = ignoreFiles
        return options
    }
}

/// A pattern as a snapshot records it: `{"pattern":…,"file":…,"line":…}`, without `file` for one
/// of the command line or the profile.
struct RecordedRule {
    let pattern: [UInt8]
    let file: [UInt8]?
    let line: Int

    init?(_ reason: ExclusionReason) {
        guard case .rule(let text, let source, let line) = reason else { return nil }
        pattern = text
        self.line = line
        switch source {
        case .option: file = nil
        case .file(let path), .ignoreFile(let path): file = path
        }
    }

    init?(_ value: JSONValue) {
        guard let pattern = value["pattern"]?.path else { return nil }
        self.pattern = pattern
        file = value["file"]?.path
        line = value["line"]?.count ?? 0
    }

    var document: JSONValue {
        var fields: [(key: String, value: JSONValue)] = [("pattern", JSONValue(path: pattern))]
        if let file { fields.append(("file", JSONValue(path: file))) }
        return .object(fields + [("line", .count(line))])
    }

    /// Whether it keeps what another rule leaves out.
    var isNegated: Bool { pattern.first == UInt8(ascii: "!") }

    /// For people.
    var text: String {
        let pattern = "'\(UTF8Text.display(pattern))'"
        return file.map { "\(pattern) (\(UTF8Text.display($0)), line \(line))" } ?? pattern
    }
}

/// The sources and batchsync's own files, which must not lie in each other.
struct SourceCheck {
    let roots: [SourceRoot]
    let repository: [UInt8]
    let directories: HostDirectories

    /// What the user has to know before the walk.
    var warnings: [String] {
        roots.filter(\.isSymbolicLink).map { root in
            let path = UTF8Text.display(root.path)
            return
                "\(path) is a symbolic link and is kept as one; \(path)/ backs up what it leads to"
        }
    }

    /// Refuses a source that lies in the repository: each backup would store the one before it.
    func refuseInside() throws(CommandError) {
        guard let place = HostFile.realPath(repository) else { return }
        for root in roots {
            guard let source = real(root), EntryPath.contains(place, source) else { continue }
            throw CommandError(
                .failed,
                "the source \(UTF8Text.display(root.path)) lies in the repository \(UTF8Text.display(place))",
                remedy: "back up something else; to copy a repository, copy its directory")
        }
    }

    private func real(_ root: SourceRoot) -> [UInt8]? {
        // A link that is kept as one is no way into anything.
        root.isSymbolicLink ? nil : HostFile.realPath(root.path)
    }

    /// Leaves out the repository, and the cache and state of batchsync, which change while it
    /// works.
    ///
    /// - Returns: What to tell the user.
    func leaveOutOwnFiles(of options: inout WalkOptions) -> [String] {
        var notes: [String] = []
        let own: [(path: [UInt8], name: String?)] = [
            (repository, "the repository"), (Array(directories.cache.utf8), nil),
            (Array(directories.state.utf8), nil),
        ]
        for (path, name) in own {
            guard let place = HostFile.realPath(path) else { continue }
            for root in roots {
                guard let source = real(root), EntryPath.contains(source, place), source != place
                else { continue }
                // The walk names what it finds by the root's path, through whatever links that
                // leads.
                let below = source == [0x2F] ? place : Array(place[source.count...])
                let walked = (root.path == [0x2F] ? [] : root.path) + below
                options.rules.add(option: [0x2F] + Self.quoted(walked) + [0x2F])
                if let name {
                    notes.append(
                        "\(name) \(UTF8Text.display(walked)) lies in a source and is left out")
                }
            }
        }
        return notes
    }

    /// The path as a pattern that matches nothing else.
    private static func quoted(_ path: [UInt8]) -> [UInt8] {
        var pattern: [UInt8] = []
        for byte in path {
            if [0x2A, 0x3F, 0x5B, 0x5C].contains(byte) { pattern.append(0x5C) }
            pattern.append(byte)
        }
        return pattern
    }
}
