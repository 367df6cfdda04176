/// One file on its way into a profile.
struct ProfileFileReading {
    private let path: String
    private let isInherited: Bool
    private var scope: ProfileScope
    /// What was found wrong, in order of the file.
    private(set) var problems: [ProfileProblem] = []

    init(path: String, isInherited: Bool, environment: [String: String], isRoot: Bool) {
        self.path = path
        self.isInherited = isInherited
        scope = ProfileScope(
            directory: ProfileLoader.directory(of: path), environment: environment, isRoot: isRoot)
    }

    /// Sets every value of the file in the profile. What is wrong is left out and told in
    /// `problems`.
    mutating func apply(_ root: ProfileNode, to profile: inout Profile) {
        guard case .table(let fields) = root.value else { return }
        for field in fields {
            if field.key == ProfileKeys.inherit { continue }
            if let key = ProfileKeys.top.first(where: { $0.name == field.key }) {
                profile.origins[key.name] = read(field, key, into: &profile)
            } else if field.key == ProfileKeys.replica {
                applyReplicas(field, to: &profile)
            } else if let section = ProfileKeys.section(field.key) {
                apply(field, section, to: &profile)
            } else {
                unknown(field, among: ProfileKeys.topNames, in: nil)
            }
        }
    }

    private mutating func apply(
        _ field: ProfileNode.Field, _ section: ProfileSection, to profile: inout Profile
    ) {
        guard case .table(let fields) = field.node.value else {
            note(
                "\(section.name) is a table, and this is \(field.node.kind)", field.line,
                remedy: "begin it with [\(section.name)]")
            return
        }
        for field in fields {
            if let key = section.key(field.key) {
                let name = "\(section.name).\(key.name)"
                profile.origins[name] = read(field, key, into: &profile)
            } else {
                unknown(field, among: section.keys.map(\.name), in: section.name)
            }
        }
    }

    private mutating func applyReplicas(
        _ field: ProfileNode.Field, to profile: inout Profile
    ) {
        guard case .list(let items) = field.node.value else {
            note(
                "there may be several replicas, so that their tables have two brackets", field.line,
                remedy: "begin each with [[replica]]")
            return
        }
        profile.replicas = []
        profile.origins = profile.origins.filter { !$0.key.hasPrefix("\(ProfileKeys.replica)[") }
        for (index, item) in items.enumerated() {
            guard case .table(let fields) = item.value else {
                note(
                    "a replica is a table, and this is \(item.kind)", item.line,
                    remedy: "begin each with [[replica]]")
                continue
            }
            var store = Profile.Store()
            for field in fields {
                if let key = ProfileKeys.store.first(where: { $0.name == field.key }) {
                    let name = "\(ProfileKeys.replica)[\(index)].\(key.name)"
                    profile.origins[name] = read(field, key, into: &store)
                } else {
                    unknown(field, among: ProfileKeys.store.map(\.name), in: ProfileKeys.replica)
                }
            }
            if store.location.isEmpty, !problems.contains(where: { $0.line > item.line }) {
                note(
                    "a replica has no location", item.line,
                    remedy: "write location = \"…\" below its [[replica]]")
            }
            profile.replicas.append(store)
        }
    }

    /// Gives where the value came from; nil where it could not be read.
    private mutating func read<Section>(
        _ field: ProfileNode.Field, _ key: ProfileKey<Section>, into section: inout Section
    ) -> ProfileOrigin? {
        scope.variables = []
        do throws(ProfileProblem) {
            try key.read(field.node, &scope, &section)
        } catch {
            problems.append(error.placed(file: path, line: field.line))
            return nil
        }
        return ProfileOrigin(
            file: path, line: field.line, isInherited: isInherited, variables: scope.variables)
    }

    private mutating func note(_ message: String, _ line: Int, remedy: String) {
        problems.append(ProfileProblem(message, file: path, line: line, remedy: remedy))
    }

    private mutating func unknown(
        _ field: ProfileNode.Field, among names: [String], in section: String?
    ) {
        let place = section.map { "[\($0)]" } ?? "a profile"
        let name = TOMLText.key(field.key)
        note(
            "there is no key \(name) in \(place)", field.line,
            remedy: remedy(for: field.key, among: names, in: section))
    }

    private func remedy(for name: String, among names: [String], in section: String?) -> String {
        if let near = Spelling.nearest(to: name, among: names) {
            return "did you mean \(section == nil ? Self.bracketed(near) : near)?"
        }
        // The right word in the wrong table.
        if let other = ProfileKeys.sections.first(where: { $0.key(name) != nil }) {
            return "\(name) belongs below [\(other.name)]"
        }
        if section != nil, ProfileKeys.topNames.contains(name) {
            return "\(Self.bracketed(name)) stands by itself, before or behind the other tables"
        }
        for other in ProfileKeys.sections {
            if let near = Spelling.nearest(to: name, among: other.keys.map(\.name)) {
                return "did you mean \(near), below [\(other.name)]?"
            }
        }
        return "take it out; batchsync-profile(5) lists the keys"
    }

    /// A name as it begins a line of a profile.
    private static func bracketed(_ name: String) -> String {
        if name == ProfileKeys.replica { return "[[\(name)]]" }
        return ProfileKeys.section(name) == nil ? name : "[\(name)]"
    }
}
