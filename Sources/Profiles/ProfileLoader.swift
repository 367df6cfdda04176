import Glibc

extension Profile {
    /// Loads a profile with all that it inherits, and checks it.
    ///
    /// - Parameter nameOrPath: A word with a slash in it, or that ends with `.toml`, is a path;
    ///   another is looked for where `ProfileSearchPath` says.
    /// - Parameter environment: For `${NAME}`, `~` and the search path.
    /// - Throws: Everything that is wrong with the file in which something is wrong first, in order
    ///   of inheritance.
    package static func load(
        _ nameOrPath: String, environment: [String: String], isRoot: Bool
    ) throws(ProfileError) -> Profile {
        var loader = ProfileLoader(environment: environment, isRoot: isRoot)
        return try loader.load(nameOrPath)
    }
}

/// Follows a profile through the files that it inherits from, and fills in the values from the
/// furthest file to the nearest.
struct ProfileLoader {
    private let environment: [String: String]
    private let isRoot: Bool
    private let searchPath: ProfileSearchPath
    /// Longer chains nobody understands any more.
    private static let filesMaximum = 16

    init(environment: [String: String], isRoot: Bool) {
        self.environment = environment
        self.isRoot = isRoot
        searchPath = ProfileSearchPath(environment: environment, isRoot: isRoot)
    }

    mutating func load(_ nameOrPath: String) throws(ProfileError) -> Profile {
        let first = try searchPath.file(of: nameOrPath, relativeTo: Self.workingDirectory)
        var chain: [(path: String, root: ProfileNode)] = []
        var next: String? = first
        while let path = next {
            let root = try Self.read(path)
            chain.append((path, root))
            next = try parent(of: root, chain.map(\.path))
        }
        var profile = Profile()
        for (index, file) in chain.enumerated().reversed() {
            var reading = ProfileFileReading(
                path: file.path, isInherited: index > 0, environment: environment, isRoot: isRoot)
            reading.apply(file.root, to: &profile)
            guard reading.problems.isEmpty else { throw ProfileError(.invalid, reading.problems) }
        }
        profile.name = ProfileSearchPath.profileName(of: first)
        profile.files = chain.map(\.path)
        let problems = profile.contradictions
        guard problems.isEmpty else { throw ProfileError(.invalid, problems) }
        return profile
    }

    /// The file that the last of `files` inherits from.
    private func parent(
        of root: ProfileNode, _ files: [String]
    ) throws(ProfileError) -> String? {
        guard case .table(let fields) = root.value,
            let field = fields.first(where: { $0.key == ProfileKeys.inherit })
        else { return nil }
        let file = files[files.count - 1]
        func failure(_ message: String, _ remedy: String) -> ProfileError {
            ProfileError(.invalid, message, file: file, line: field.line, remedy: remedy)
        }
        guard case .text(let word) = field.node.value else {
            throw failure(
                "inherit takes the name or path of a profile, and this is \(field.node.kind)",
                "write it so: inherit = \"base\"")
        }
        let path: String
        do throws(ProfileProblem) {
            var scope = ProfileScope(
                directory: Self.directory(of: file), environment: environment, isRoot: isRoot)
            let isPath = ProfileSearchPath.isPath(word)
            path = isPath ? try scope.path(word) : try scope.expand(word)
        } catch {
            throw failure("inherit \(error.message)", error.remedy)
        }
        let found: String
        do throws(ProfileError) {
            // A name means the file beside this one before it means one from the search path, so
            // that a directory of profiles can be moved.
            let beside = "\(Self.directory(of: file))/\(path).toml"
            let isBeside = !ProfileSearchPath.isPath(path) && access(beside, F_OK) == 0
            found = isBeside ? beside : try searchPath.file(of: path, relativeTo: "/")
        } catch {
            throw failure("inherit: \(error.problems[0])", error.remedy)
        }
        let known = files.map(Self.realPath)
        guard !known.contains(Self.realPath(found)) else {
            let chain = (files + [found]).map(ProfileSearchPath.profileName).joined(
                separator: " → ")
            throw failure(
                "a profile cannot inherit from itself: \(chain)",
                "take one of the inherit lines out")
        }
        guard files.count < Self.filesMaximum else {
            throw failure(
                "more than \(Self.filesMaximum) profiles inherit from each other",
                "put them together into fewer files")
        }
        return found
    }

    // MARK: Files

    private static func read(_ path: String) throws(ProfileError) -> ProfileNode {
        func failure(_ message: String, _ remedy: String) -> ProfileError {
            ProfileError(.unreadable, message, file: path, remedy: remedy)
        }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw failure(
                "cannot be read: \(String(cString: strerror(errno)))",
                "check who owns the profile and who may read it")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw failure("is not a regular file", "name the file of a profile")
        }
        // Its hooks run as whoever runs the profile.
        guard status.st_mode & S_IWOTH == 0 else {
            throw failure(
                "everybody may write to this profile, and so choose what its hooks run",
                "take that right away: chmod o-w \(path)")
        }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= ProfileDecoder.maximumBytes {
            let count = piece.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress, $0.count)
            }
            if count == 0 { break }
            guard count > 0 else {
                if errno == EINTR { continue }
                throw failure("cannot be read: \(String(cString: strerror(errno)))", "")
            }
            bytes += piece[..<count]
        }
        do throws(ProfileProblem) {
            return try ProfileDecoder.decode(bytes)
        } catch {
            throw ProfileError(.invalid, [error.placed(file: path)])
        }
    }

    private static var workingDirectory: String {
        guard let found = getcwd(nil, 0) else { return "/" }
        defer { free(found) }
        return String(cString: found)
    }

    private static func realPath(_ path: String) -> String {
        guard let found = realpath(path, nil) else { return path }
        defer { free(found) }
        return String(cString: found)
    }

    static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return "/" }
        return String(path[..<slash])
    }
}
