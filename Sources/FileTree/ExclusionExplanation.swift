import CSystem
import Glibc
import SnapshotModel

/// What becomes of one path in a walk, and through which rule.
package struct ExclusionExplanation: Sendable, CustomStringConvertible {
    package enum Verdict: Sendable, Hashable {
        /// It is walked. The reason is the rule with `!` that keeps it, where one does.
        case included(ExclusionReason?)
        case excluded(ExclusionReason)
        /// It lies in no source root.
        case outside
        /// It is reached through a symbolic link, which is kept as such and not followed.
        case behindLink
        /// It lies below something that cannot be read.
        case unreadable(WalkProblem)
    }

    package let verdict: Verdict
    /// What the verdict speaks of: the path that was asked for, or the directory or link above it
    /// that decided.
    package let decidedPath: [UInt8]
    /// The path that was asked for, absolute and canonical.
    package let path: [UInt8]
    /// Whether there is such a path now. Patterns are applied to others as well.
    package let exists: Bool

    package var isIncluded: Bool {
        if case .included = verdict { return true }
        return false
    }

    /// One sentence.
    package var description: String {
        let name = FileTreeError.printable(path)
        let above =
            decidedPath == path ? "" : " through \(FileTreeError.printable(decidedPath)), which is"
        let note = exists ? "" : " (nothing has that path now)"
        switch verdict {
        case .included(nil): return "\(name) is included: no rule matches\(note)"
        case .included(let reason?): return "\(name) is included: kept by \(reason)\(note)"
        case .excluded(let reason): return "\(name) is excluded\(above) by \(reason)\(note)"
        case .outside: return "\(name) is not included: it lies in no source\(note)"
        case .behindLink:
            let link = FileTreeError.printable(decidedPath)
            return "\(name) is not included: \(link) is a symbolic link, which is not followed"
        case .unreadable(let problem):
            let place = FileTreeError.printable(decidedPath)
            return "\(name) is not included: \(place) cannot be read: \(problem)"
        }
    }
}

extension ExclusionExplanation {
    /// Follows a path from its source root down, asking at each step what the walk would ask.
    ///
    /// - Parameter path: Absolute, or relative to the working directory. `.` and empty components
    ///   are dropped, `..` goes with the component before it.
    /// - Throws: Where the source root itself cannot be opened.
    package static func explain(
        _ path: [UInt8], roots: [SourceRoot], options: WalkOptions
    ) throws(FileTreeError) -> ExclusionExplanation {
        let path = try canonical(path)
        let merged = try SourceRoot.merged(roots)
        guard let root = merged.first(where: { EntryPath.contains($0.path, path) }) else {
            return ExclusionExplanation(
                verdict: .outside, decidedPath: path, path: path, exists: exists(path))
        }
        var walk = Explainer(path: path, root: root, options: options)
        return try walk.run()
    }

    private static func canonical(_ path: [UInt8]) throws(FileTreeError) -> [UInt8] {
        var components: [[UInt8]] = []
        var start: [UInt8] = []
        if path.first != 0x2F { start = try SourceRoot([0x2E]).path }
        for component in EntryPath.components(of: start + [0x2F] + path) where component != [0x2E] {
            if component == [0x2E, 0x2E] {
                _ = components.popLast()
            } else {
                components.append(component)
            }
        }
        return components.isEmpty ? [0x2F] : components.reduce(into: []) { $0 += [0x2F] + $1 }
    }

    private static func exists(_ path: [UInt8]) -> Bool {
        guard let (parent, rest) = try? DirectoryHandle.approach(path) else { return false }
        var raw = csys_stat()
        let result = rest.withUnsafeBufferPointer { csys_lstatat(parent, $0.baseAddress!, &raw) }
        if parent != AT_FDCWD { _ = csys_close(parent) }
        return result == 0
    }
}

/// One path on its way down from the root.
private struct Explainer {
    let path: [UInt8]
    let root: SourceRoot
    let options: WalkOptions
    private var rules: DirectoryRules?
    private var lastReason: ExclusionReason?
    private var exists = true

    init(path: [UInt8], root: SourceRoot, options: WalkOptions) {
        self.path = path
        self.root = root
        self.options = options
    }

    private func answer(
        _ verdict: ExclusionExplanation.Verdict, at length: Int
    ) -> ExclusionExplanation {
        ExclusionExplanation(
            verdict: verdict, decidedPath: Array(path[..<length]), path: path, exists: exists)
    }

    mutating func run() throws(FileTreeError) -> ExclusionExplanation {
        if path == root.path { return answer(.included(nil), at: path.count) }
        if root.isSymbolicLink { return answer(.behindLink, at: root.path.count) }
        var place: DirectoryHandle? = try DirectoryHandle(opening: root.path, reading: false)
        let device = try place?.status().device
        var length = root.path.count == 1 ? 0 : root.path.count
        while length < path.count {
            let start = length + 1
            length = start
            while length < path.count, path[length] != 0x2F { length += 1 }
            let name = path[start..<length].map { CChar(bitPattern: $0) } + [0]
            let isLast = length == path.count
            if let here = place, let reason = reasonOfMarks(in: here, name: path[start..<length]) {
                if (try? status(name, in: here)) == nil { exists = false }
                return answer(.excluded(reason), at: length)
            }
            let status = try place.flatMap { place throws(FileTreeError) in
                try found(name, in: place)
            }
            if status == nil { exists = false }
            let isDirectory = status?.isDirectory ?? !isLast
            let decision = path[..<length].withUnsafeBytes {
                options.rules.decide(
                    path: $0, rootLength: root.path.count, isDirectory: isDirectory,
                    directoryRules: rules)
            }
            lastReason = decision.reason
            if decision.isExcluded, let reason = decision.reason {
                return answer(.excluded(reason), at: length)
            }
            guard let status, let here = place else {
                place = nil
                continue
            }
            if let reason = reasonOfFacts(status, name: name, in: here) {
                return answer(.excluded(reason), at: length)
            }
            if isLast { break }
            if options.rules.staysOnFileSystem, status.isDirectory, status.device != device {
                return answer(.excluded(.otherFileSystem), at: length)
            }
            if status.isSymlink { return answer(.behindLink, at: length) }
            guard status.isDirectory else {
                exists = false
                place = nil
                continue
            }
            let flags = O_RDONLY | CSYS_O_DIRECTORY | CSYS_O_NOFOLLOW | CSYS_O_CLOEXEC
            let descriptor = name.withUnsafeBufferPointer {
                csys_openat(here.descriptor, $0.baseAddress!, flags, 0)
            }
            guard descriptor >= 0 else {
                let problem = WalkProblem(errno: -descriptor, call: "openat")
                return answer(.unreadable(problem), at: length)
            }
            place = DirectoryHandle(owning: descriptor, path: Array(path[..<length]))
            if status.device != (try here.status().device), KernelFileSystem.holds(descriptor) {
                return answer(.excluded(.kernelFileSystem), at: length)
            }
        }
        return answer(.included(lastReason), at: path.count)
    }

    private func status(_ name: [CChar], in place: DirectoryHandle) throws(FileTreeError)
        -> FileStatus
    {
        try name.withUnsafeBufferPointer { name throws(FileTreeError) in
            try place.status(of: name.baseAddress!)
        }
    }

    private func found(_ name: [CChar], in place: DirectoryHandle) throws(FileTreeError)
        -> FileStatus?
    {
        do throws(FileTreeError) {
            return try status(name, in: place)
        } catch {
            if error.kind == .notFound { return nil }
            throw error
        }
    }

    /// Reads the rules of a directory, and says whether a marker in it leaves `name` out.
    private mutating func reasonOfMarks(
        in place: DirectoryHandle, name: ArraySlice<UInt8>
    ) -> ExclusionReason? {
        if options.readsIgnoreFiles {
            let file = ExclusionRules.ignoreFileName.map { CChar(bitPattern: $0) } + [0]
            rules = file.withUnsafeBufferPointer {
                DirectoryMarks.rules(named: $0.baseAddress!, in: place, below: rules).rules
            }
        }
        // The first marker that is there decides, and is itself kept.
        for marker in options.rules.markers {
            let file = marker.name.map { CChar(bitPattern: $0) } + [0]
            if (try? status(file, in: place)) != nil,
                file.withUnsafeBufferPointer({
                    DirectoryMarks.confirms(marker, named: $0.baseAddress!, in: place)
                })
            {
                return name.elementsEqual(marker.name) ? nil : marker.reason
            }
        }
        return nil
    }

    private func reasonOfFacts(
        _ status: FileStatus, name: [CChar], in place: DirectoryHandle
    ) -> ExclusionReason? {
        let isNoDump =
            options.rules.excludesNoDump
            && name.withUnsafeBufferPointer {
                DirectoryMarks.isNoDump(status, named: $0.baseAddress!, in: place)
            }
        return options.rules.reason(size: status.isFile ? status.size : nil, isNoDump: isNoDump)
    }
}
