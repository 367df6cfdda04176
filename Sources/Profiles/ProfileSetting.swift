package import SnapshotModel

/// What holds for one key in the end, and where it came from.
package struct ProfileSetting: Sendable, Equatable {
    /// Empty for keys outside of every table; `repository`, `replica[0]`.
    package let section: String
    package let key: String
    /// As a profile writes it, on one line; nil where nothing is set. Of a secret it is the
    /// reference.
    package let value: String?
    package let json: JSONValue
    /// Nil for a default.
    package let origin: ProfileOrigin?
}

extension Profile {
    /// Every key in the order of the reference, with what holds for it.
    package var settings: [ProfileSetting] {
        var found: [ProfileSetting] = []
        func add<Section>(_ section: String, _ keys: [ProfileKey<Section>], of value: Section) {
            for key in keys {
                let node = key.write(value)
                let name = section.isEmpty ? key.name : "\(section).\(key.name)"
                found.append(
                    ProfileSetting(
                        section: section, key: key.name, value: node?.toml,
                        json: node?.json ?? .null, origin: origins[name]))
            }
        }
        add("", ProfileKeys.top, of: self)
        for section in ProfileKeys.sections {
            add(section.name, section.keys, of: self)
            guard section.name == "repository" else { continue }
            for (index, replica) in replicas.enumerated() {
                add("\(ProfileKeys.replica)[\(index)]", ProfileKeys.store, of: replica)
            }
        }
        return found
    }
}
