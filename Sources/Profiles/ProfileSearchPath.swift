import Glibc

/// Where profiles are looked for.
package struct ProfileSearchPath: Sendable, Equatable {
    /// In the order in which they are asked.
    package let directories: [String]

    /// - Parameter environment: `BATCHSYNC_CONFIG_DIR` stands before everything else; then root
    ///   looks in /etc first, and others in their own configuration.
    package init(environment: [String: String], isRoot: Bool) {
        var places: [String] = []
        func set(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
        if let base = set("XDG_CONFIG_HOME"), base.hasPrefix("/") {
            places.append(base + "/batchsync")
        } else if let home = set("HOME") {
            places.append(home + "/.config/batchsync")
        }
        places.insert("/etc/batchsync", at: isRoot ? 0 : places.count)
        if let given = set("BATCHSYNC_CONFIG_DIR") { places.insert(given, at: 0) }
        var directories: [String] = []
        for place in places where !directories.contains(place) { directories.append(place) }
        self.directories = directories
    }

    /// Whether a word is the path of a profile rather than its name.
    package static func isPath(_ word: String) -> Bool {
        word.contains("/") || word.hasSuffix(".toml")
    }

    /// What the profile is called that a name or a path means.
    package static func profileName(of word: String) -> String {
        let last = word.split(separator: "/").last.map(String.init) ?? word
        return last.hasSuffix(".toml") ? String(last.dropLast(5)) : last
    }

    /// The file that a name or a path means, as an absolute path.
    ///
    /// - Parameter base: Where a relative path begins.
    func file(of word: String, relativeTo base: String) throws(ProfileError) -> String {
        guard !word.isEmpty else {
            throw ProfileError(
                .notFound, "the name of a profile is empty",
                remedy: "a profile NAME is the file NAME.toml in \(list)")
        }
        if Self.isPath(word) {
            // A unit, a log and a message all name the file alike, however the user began its path.
            var word = word[...]
            while word.hasPrefix("./") { word = word.dropFirst(2) }
            let path = word.hasPrefix("/") ? String(word) : (base == "/" ? "" : base) + "/" + word
            guard access(path, F_OK) == 0 else {
                throw ProfileError(
                    .notFound, "there is no such profile", file: path,
                    remedy: "check the path; a name without a slash is looked for in \(list)")
            }
            return path
        }
        if let path = file(named: word) { return path }
        let near = Spelling.nearest(to: word, among: names)
        throw ProfileError(
            .notFound, "there is no profile \(TOMLText.quoted(word)) in \(list)",
            remedy: near.map { "did you mean \($0)?" }
                ?? "write \(directories[0])/\(word).toml, or name a file by its path")
    }

    /// The file of the profile with this name; nil where there is none.
    package func file(named name: String) -> String? {
        directories.map { "\($0)/\(name).toml" }.first { access($0, F_OK) == 0 }
    }

    /// The profiles there are, each once, in order.
    package var names: [String] {
        var names: Set<String> = []
        for directory in directories {
            guard let handle = opendir(directory) else { continue }
            defer { closedir(handle) }
            while let entry = readdir(handle) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name.hasSuffix(".toml"), name != ".toml" {
                    names.insert(String(name.dropLast(5)))
                }
            }
        }
        return names.sorted()
    }

    private var list: String { directories.joined(separator: " or ") }
}
