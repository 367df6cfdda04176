/// One key of a section, and the value that it sets.
struct ProfileKey<Section: Sendable>: Sendable {
    let name: String
    /// A value that it takes, as a profile writes it.
    let example: String
    /// Reads the value into the section.
    let read:
        @Sendable (ProfileNode, inout ProfileScope, inout Section) throws(ProfileProblem) -> Void
    /// The value as a profile writes it; nil where none is set.
    let write: @Sendable (Section) -> ProfileNode?

    init<Value: Sendable>(
        _ name: String, _ place: any WritableKeyPath<Section, Value> & Sendable,
        _ kind: ProfileKind<Value>
    ) {
        self.init(
            name, kind, write: { kind.write($0[keyPath: place]) },
            set: { $0[keyPath: place] = $1 })
    }

    init<Value: Sendable>(
        _ name: String, _ place: any WritableKeyPath<Section, Value?> & Sendable,
        _ kind: ProfileKind<Value>
    ) {
        self.init(
            name, kind, write: { $0[keyPath: place].flatMap(kind.write) },
            set: { $0[keyPath: place] = $1 })
    }

    private init<Value: Sendable>(
        _ name: String, _ kind: ProfileKind<Value>,
        write: @escaping @Sendable (Section) -> ProfileNode?,
        set: @escaping @Sendable (inout Section, Value) -> Void
    ) {
        self.name = name
        self.write = write
        example = "\(name) = \(kind.example)"
        read = { (node, scope, section) throws(ProfileProblem) in
            do throws(ProfileProblem) {
                set(&section, try kind.read(node, &scope))
            } catch {
                throw ProfileProblem(
                    "\(name) \(error.message)", line: error.line > 0 ? error.line : node.line,
                    remedy: error.remedy.isEmpty
                        ? "write it so: \(name) = \(kind.example)" : error.remedy)
            }
        }
    }

    /// The same key, of a section that lies in something larger.
    init<Inner: Sendable>(
        _ key: ProfileKey<Inner>, in place: any WritableKeyPath<Section, Inner> & Sendable
    ) {
        name = key.name
        example = key.example
        read = { (node, scope, whole) throws(ProfileProblem) in
            try key.read(node, &scope, &whole[keyPath: place])
        }
        write = { key.write($0[keyPath: place]) }
    }
}

/// A table of a profile.
struct ProfileSection: Sendable {
    let name: String
    let keys: [ProfileKey<Profile>]

    init<Section: Sendable>(
        _ name: String, _ place: any WritableKeyPath<Profile, Section> & Sendable,
        _ keys: [ProfileKey<Section>]
    ) {
        self.name = name
        self.keys = keys.map { ProfileKey($0, in: place) }
    }

    func key(_ name: String) -> ProfileKey<Profile>? { keys.first { $0.name == name } }
}
