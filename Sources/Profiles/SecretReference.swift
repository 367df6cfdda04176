/// Where a secret is kept. A profile holds this and never the secret, so that profiles can be shown,
/// copied and kept under version control.
package enum SecretReference: Sendable, Hashable, CustomStringConvertible {
    /// A variable of the environment.
    case environment(String)
    /// The text of a file; a line end at its end is cut.
    case file(String)
    /// What a command prints, run by the shell; a line end at its end is cut.
    case command(String)
    /// A credential that systemd hands to the service, by its name.
    case credential(String)

    /// The kinds by the words that a profile uses.
    static let kinds: [(word: String, make: @Sendable (String) -> SecretReference)] = [
        ("file", { .file($0) }), ("env", { .environment($0) }), ("command", { .command($0) }),
        ("credential", { .credential($0) }),
    ]

    /// How a reference is written; for errors.
    static let example =
        #"{ file = "/etc/batchsync/passphrase" }, { env = "NAME" }, { command = "…" } or { credential = "NAME" }"#

    var parts: (word: String, value: String) {
        switch self {
        case .environment(let name): ("env", name)
        case .file(let path): ("file", path)
        case .command(let line): ("command", line)
        case .credential(let name): ("credential", name)
        }
    }

    /// As a profile writes it.
    package var description: String {
        let (word, value) = parts
        return "{ \(word) = \(TOMLText.quoted(value)) }"
    }
}

/// A text that may be a secret to some and is plain to others, such as the address of a webhook.
package enum ReferenceOrText: Sendable, Hashable {
    case text(String)
    case reference(SecretReference)
}
