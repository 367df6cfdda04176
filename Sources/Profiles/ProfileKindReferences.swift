extension ProfileKind where Value == SecretReference {
    static var secret: ProfileKind {
        ProfileKind(
            "a reference to where the secret is kept",
            example: #"{ file = "/etc/batchsync/secret" }"#
        ) { (node, scope) throws(ProfileProblem) in
            switch node.value {
            case .table(let fields): return try reference(fields, node.line, &scope)
            case .text:
                // The text may be the secret: it is not said again.
                throw ProfileProblem(
                    "must not hold the secret itself, which everybody who sees the profile would see",
                    line: node.line, remedy: "write a reference: \(SecretReference.example)")
            default: return nil
            }
        } write: {
            written($0)
        }
    }

    static func written(_ reference: SecretReference) -> ProfileNode {
        let (word, value) = reference.parts
        return ProfileNode(.table([ProfileNode.Field(key: word, line: 0, node: .text(value))]))
    }

    static func reference(
        _ fields: [ProfileNode.Field], _ line: Int, _ scope: inout ProfileScope
    ) throws(ProfileProblem) -> SecretReference {
        guard let field = fields.first, fields.count == 1 else {
            throw ProfileProblem(
                "takes one reference to where the secret is kept", line: line,
                remedy: "write one of \(SecretReference.example)")
        }
        guard case .text(let text) = field.node.value, !text.isEmpty else {
            throw ProfileProblem(
                "has a reference that names nothing", line: line,
                remedy: "write one of \(SecretReference.example)")
        }
        func named(_ isName: Bool, _ value: SecretReference) throws(ProfileProblem)
            -> SecretReference
        {
            guard isName else {
                throw ProfileProblem(
                    "has a reference to \(TOMLText.quoted(text)), which is no name", line: line,
                    remedy: "write one of \(SecretReference.example)")
            }
            return value
        }
        switch field.key {
        case "file": return .file(try scope.path(text))
        case "env": return try named(ProfileScope.isVariableName(text), .environment(text))
        case "command": return .command(text)
        case "credential":
            let isName = !text.contains("/") && text != "." && text != ".."
            return try named(isName, .credential(text))
        default:
            let words = ["file", "env", "command", "credential"]
            let near = Spelling.nearest(to: field.key, among: words)
            throw ProfileProblem(
                "has no kind of reference that is called \(TOMLText.quoted(field.key))", line: line,
                remedy: near.map { "did you mean \($0)?" }
                    ?? "write one of \(SecretReference.example)")
        }
    }
}

extension ProfileKind where Value == ReferenceOrText {
    /// An address of the web, or a reference to where it is kept.
    static var webAddress: ProfileKind {
        ProfileKind(
            "an address, https://… or http://…, or a reference to where it is kept",
            example: "\"https://host.example.org\""
        ) { (node, scope) throws(ProfileProblem) in
            switch node.value {
            case .table(let fields):
                return .reference(
                    try ProfileKind<SecretReference>.reference(fields, node.line, &scope))
            case .text:
                return .text(try ProfileKind<String>.address("https", "http").read(node, &scope))
            default: return nil
            }
        } write: {
            switch $0 {
            case .text(let text): .text(text)
            case .reference(let reference): ProfileKind<SecretReference>.written(reference)
            }
        }
    }
}

extension ProfileKind where Value == StreamCommand {
    static var streamCommand: ProfileKind {
        ProfileKind(
            "a name and a command",
            example: #"{ name = "shop.sql", command = ["pg_dump", "shop"] }"#
        ) { (node, scope) throws(ProfileProblem) in
            guard case .table(let fields) = node.value else { return nil }
            var command = StreamCommand(name: "", words: [])
            for field in fields {
                switch field.key {
                case "name": command.name = try ProfileKind<String>.line.read(field.node, &scope)
                case "command":
                    command.words = try ProfileKind<[String]>.list(.line).read(field.node, &scope)
                default:
                    throw ProfileProblem(
                        "takes name and command, and has a key \(TOMLText.quoted(field.key))",
                        line: field.line)
                }
            }
            guard !command.name.isEmpty, !command.words.isEmpty else {
                throw ProfileProblem("takes both a name and a command", line: node.line)
            }
            return command
        } write: { command in
            ProfileNode(
                .table([
                    ProfileNode.Field(key: "name", line: 0, node: .text(command.name)),
                    ProfileNode.Field(key: "command", line: 0, node: .texts(command.words)),
                ]))
        }
    }
}
