extension ProfileKind {
    /// A list of values of another kind.
    static func list<Item>(_ item: ProfileKind<Item>) -> ProfileKind where Value == [Item] {
        ProfileKind("a list: [\(item.example)]", example: "[\(item.example)]") {
            (node, scope) throws(ProfileProblem) in
            guard case .list(let nodes) = node.value else { return nil }
            var items: [Item] = []
            for node in nodes { items.append(try item.read(node, &scope)) }
            return items
        } write: { items in
            items.isEmpty ? nil : ProfileNode(.list(items.compactMap(item.write)))
        }
    }

    /// A list that may also be empty on purpose, which is then written.
    static func choices<Item>(_ item: ProfileKind<Item>) -> ProfileKind where Value == [Item] {
        let list = list(item)
        return ProfileKind(list.expectation, example: list.example) {
            (node, scope) throws(ProfileProblem) in
            if case .list = node.value { try list.read(node, &scope) } else { nil }
        } write: {
            ProfileNode(.list($0.compactMap(item.write)))
        }
    }

    /// One value, or a list of them.
    static func oneOrMore<Item>(_ item: ProfileKind<Item>) -> ProfileKind where Value == [Item] {
        let list = list(item)
        return ProfileKind(item.expectation, example: item.example) {
            (node, scope) throws(ProfileProblem) in
            if case .list = node.value { return try list.read(node, &scope) }
            return [try item.read(node, &scope)]
        } write: { items in
            items.count == 1 ? item.write(items[0]) : list.write(items)
        }
    }

    /// One of a few words.
    static func choice() -> ProfileKind
    where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
        let words = Value.allCases.map { TOMLText.quoted($0.rawValue) }
        return ProfileKind(words.joined(separator: " or "), example: words.first ?? "") {
            (node, scope) throws(ProfileProblem) in
            guard case .text(let raw) = node.value else { return nil }
            let text = try scope.expand(raw)
            guard let value = Value(rawValue: text) else {
                let near = Spelling.nearest(to: text, among: Value.allCases.map(\.rawValue))
                throw ProfileProblem(
                    "takes \(words.joined(separator: " or ")), and \(TOMLText.quoted(text)) is neither",
                    line: node.line,
                    remedy: near.map { "did you mean \(TOMLText.quoted($0))?" } ?? "")
            }
            return value
        } write: {
            .text($0.rawValue)
        }
    }
}
